"""What members do in the console: tokens, wallet, plans, invites.

And what they cannot do to others.
"""

import csv
import io
import re
import sqlite3

import pytest

import billing
import codes
import plans
from billing import NANO, nano
from console.ui import i18n
from members import accounts, tokens
from relay import gate
from tests.console.console_stage import links
from tests.console.member_stage import PASSWORD, error_of, house

PAGES = [
    "/console",
    "/console/tokens",
    "/console/tokens/new",
    "/console/tokens/{token}",
    "/console/tokens/{token}/revoke",
    "/console/usage",
    "/console/usage?outcome=failed",
    "/console/usage?from=x",
    "/console/usage/{call}",
    "/console/wallet",
    "/console/wallet/plans/pro",
    "/console/wallet/statement",
    "/console/wallet/statement?kind=redeem",
    "/console/test",
    "/console/invites",
    "/console/account",
    "/console/account/sessions",
]
HOSTILE = "<img src=x onerror=alert(1)>\"'{{7*7}}"


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice", wallet="50", grant=1500)


@pytest.fixture
def bob(home):
    return home.member("bob")


@pytest.fixture
def browser(home, alice):
    return home.browser(alice)


def pockets(home, who):
    return billing.balances(home.db, who.id)["balance"]


def cells(answer) -> list[list[str]]:
    """A CSV file's lines."""
    return list(csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig"))))


# Every page


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("full", [True, False], ids=["with things in it", "empty"])
def test_every_page_keeps_to_the_content_policy_and_names_its_fields(home, alice, full, language):
    token = home.token(alice, HOSTILE[:64])
    call = home.called(alice, token) if full else "none"
    browser = home.browser(alice, language)
    for path in PAGES:
        if call == "none" and "{call}" in path:
            continue
        html = browser.page(path.format(token=token, call=call))
        assert html.count("<h1") == 1, path
        bare = re.sub(r'"[^"]*"', '""', html)
        assert not re.search(r"<style|\sstyle=|<[^>]*\son[a-z]+=|<script(?![^>]*\ssrc=)", bare), (
            path
        )
        assert not re.search(r"(?:src|href|action)=\"(?:https?:)?//", html), path
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)), path
        fields = re.findall(r"<(?:input|select|textarea)[^>]*\sid=\"([^\"]+)\"", html)
        hidden = re.findall(
            r'<input[^>]*type="hidden"[^>]*\sid="([^"]+)"|id="([^"]+)"[^>]*type="hidden"', html
        )
        unnamed = [
            each
            for each in fields
            if f'for="{each}"' not in html
            and not any(each in pair for pair in hidden)
            and not re.search(rf'<label[^>]*><input[^>]*id="{re.escape(each)}"', html)
        ]
        assert not unnamed, path


def test_every_link_of_every_page_leads_somewhere(home, alice, browser):
    home.called(alice, home.token(alice))
    seen, ahead, broken = set(), ["/console"], []
    while ahead:
        path = ahead.pop()
        if path in seen or not path.startswith("/console") or "lang=" in path or "theme=" in path:
            continue
        seen.add(path)
        answer = browser.get(path)
        if answer.status_code not in (200, 429):  # exports are counted
            broken.append((answer.status_code, path))
        if answer.mimetype == "text/html":
            ahead += links(answer.get_data(as_text=True))
    assert not broken
    assert len(seen) > 30


def test_no_page_is_for_visitors(home, alice):
    token = home.token(alice)
    call = home.called(alice, token)
    for path in PAGES:
        answer = home.browser().get(path.format(token=token, call=call))
        assert answer.status_code == 302 and answer.headers["Location"].startswith(
            "/login?next="
        ), path


def test_every_form_of_members_needs_its_token_and_a_member(home, alice):
    """Walks the map of addresses, so that a new one cannot be forgotten."""
    rules = [
        rule
        for rule in home.app.url_map.iter_rules()
        if "POST" in (rule.methods or ())
        and rule.rule.startswith("/console")
        and not rule.endpoint.startswith("admin")
    ]
    assert len(rules) >= 9
    signed_in, visitor = home.browser(alice), home.browser()
    for rule in rules:
        path = re.sub(r"<[^>]+>", "1", rule.rule)
        assert signed_in.client.post(path).status_code == 400, path
        assert (
            signed_in.client.post(path, data={"csrf_token": visitor.csrf()}).status_code == 400
        ), path
        answer = visitor.send(path)
        assert answer.status_code in (302, 401), path
        from_elsewhere = signed_in.headers | {"Sec-Fetch-Site": "cross-site"}
        assert (
            signed_in.client.post(
                path, data={"csrf_token": signed_in.csrf()}, headers=from_elsewhere
            ).status_code
            == 400
        ), path


def test_nothing_of_another_member_can_be_seen_or_touched(home, alice, bob):
    token = home.token(alice, "of-alice", models=["plain-1"])
    call = home.called(alice, token)
    browser = home.browser(bob)
    for path in (
        f"/console/tokens/{token}",
        f"/console/tokens/{token}/revoke",
        f"/console/usage/{call}",
        f"/console/usage/{call}/cost",
        f"/console/usage?token={token}",
        f"/console/usage/calls.csv?token={token}",
    ):
        assert browser.get(path).status_code == 404, path
    for path in (
        f"/console/tokens/{token}",
        f"/console/tokens/{token}/revoke",
        f"/console/tokens/{token}/setup",
    ):
        assert browser.send(path, name="of-bob", token="sk-" + "x" * 43).status_code == 404, path
    assert (
        browser.send_json(
            f"/console/test/{token}", {"model": "plain-1", "messages": []}
        ).status_code
        == 404
    )
    (listed,) = gate.tokens(home.db, alice.id)
    assert (
        listed["name"] == "of-alice"
        and listed["revoked_at"] is None
        and listed["models"] == ["plain-1"]
    )
    for path in (
        "/console",
        "/console/tokens",
        "/console/usage",
        "/console/wallet",
        "/console/test",
    ):
        assert "of-alice" not in browser.page(path), path
    assert len(cells(browser.get("/console/usage/calls.csv"))) == 1


def test_hostile_names_are_text(home, alice):
    token = home.token(alice, HOSTILE[:64])
    call = home.called(alice, token)
    browser = home.browser(alice)
    for path in (
        "/console",
        "/console/tokens",
        "/console/usage",
        f"/console/usage/{call}",
        "/console/test",
        f"/console/tokens/{token}",
        f"/console/tokens/{token}/revoke",
    ):
        html = browser.page(path)
        assert "<img src=x" not in html and "&lt;img src=x" in html, path
        assert "49" not in browser.read(path).replace(call, "") or "{{7*7}}" in browser.read(path)


def test_every_sentence_of_the_members_pages_is_in_chinese():
    mine = (
        "templates/member/",
        *(
            f"console/{name}.py"
            for name in (
                "account",
                "export",
                "holdings",
                "invites",
                "keyset",
                "overview",
                "playground",
                "signin",
                "spans",
                "throttle",
                "tokens",
                "usage",
                "wallet",
            )
        ),
    )
    lacking = {one: place for one, place in i18n.missing("zh").items() if place.startswith(mine)}
    assert not lacking


# The overview


def test_a_newcomer_is_told_what_to_do_first(home, bob):
    browser = home.browser(bob)
    page = browser.read("/console")
    assert "Three steps to the first answer" in page and "You're out of credit" in page
    assert "/console/tokens/new" in links(browser.page("/console"))
    home.token(bob)
    assert "Done: you have one." in browser.read("/console")


def test_the_overview_says_what_one_has_and_what_pays_next(home, alice, browser):
    def next_payer():
        return re.search(r"(Token balance|Plan quota|Wallet) used first", browser.read("/console"))[
            1
        ]

    assert next_payer() == "Token balance"
    billing.credit(home.db, alice.id, "grant", -1500, "adjust")
    assert next_payer() == "Wallet"
    plans.purchase(home.db, alice.id, "pro", price=nano("29.90"), quota=nano("40"), days=30)
    assert next_payer() == "Plan quota"
    page = browser.read("/console")
    assert (
        "600 requests a minute" in page
        and "none but the model's own" in page
        and "80% of the list price" in page
    )


def test_the_overview_draws_thirty_days_and_shows_the_newest_calls(home, alice, browser):
    token = home.token(alice)
    home.called(alice, token, at=billing.now_ms() - 3 * 86_400_000)
    home.called(alice, token, at=billing.now_ms() - 40 * 86_400_000)
    assert re.search(r"in 1 request\b(?!s)", browser.text(browser.get("/console")))
    newest = home.called(alice, token)
    html = browser.page("/console")
    assert "in 2 requests" in browser.text(browser.get("/console"))
    assert html.index(newest) > 0 and html.count('<rect class="bar') >= 2


# Tokens


def raw_token(html: str) -> str:
    return re.search(r'id="fresh-token">(sk-[\w-]{43})<', html)[1]


def test_a_token_is_shown_once_and_kept_nowhere(home, alice, browser):
    answer = browser.send("/console/tokens/new", name="laptop", once="abc")
    raw = raw_token(answer.get_data(as_text=True))
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.get_data(as_text=True).count(raw) > 5  # and in the tools' settings
    assert home.relay.gate.identify(f"Bearer {raw}", None, "127.0.0.1").user_id == alice.id
    for path in ("/console/tokens", "/console/tokens/1", "/console"):
        assert raw not in browser.page(path)
    home.db.read().execute("SELECT 1")
    for file in home.folder.iterdir():
        assert raw.encode() not in file.read_bytes(), file.name


def test_a_form_that_is_sent_twice_makes_one_token(home, alice, browser):
    browser.send("/console/tokens/new", name="laptop", once="same")
    answer = browser.send("/console/tokens/new", name="laptop", once="same")
    assert answer.headers["Location"] == "/console/tokens"
    assert len(gate.tokens(home.db, alice.id)) == 1
    assert "sent already" in browser.read("/console/tokens")


def test_a_fresh_tokens_page_can_be_filled_in_for_another_model(home, alice, browser):
    raw = raw_token(browser.send("/console/tokens/new", name="laptop").get_data(as_text=True))
    html = browser.send("/console/tokens/1/setup", token=raw, model="other-2").get_data(
        as_text=True
    )
    assert raw in html and '"ANTHROPIC_MODEL": "other-2"' in re.sub("&#34;|&quot;", '"', html)
    assert (
        browser.send("/console/tokens/1/setup", token="sk-" + "x" * 43).headers["Location"]
        == "/console/tokens"
    )


def test_a_tokens_limits_are_kept_and_changed(home, alice, browser):
    browser.send(
        "/console/tokens/new",
        name=" bot ",
        models=["plain-1", "other-2"],
        rpm="20",
        tpm="5000",
        calls_at_once="2",
        cap_day="1.50",
        cap_month="30",
        addresses="203.0.113.0/24\n2001:db8::1",
        expires="2099-12-31",
    )
    (token,) = gate.tokens(home.db, alice.id)
    assert token["name"] == "bot" and token["models"] == ["other-2", "plain-1"]
    assert (token["rpm"], token["tpm"], token["calls_at_once"]) == (20, 5000, 2)
    assert (token["cap_day"], token["cap_month"]) == (nano("1.50"), nano("30"))
    assert token["addresses"] == ["203.0.113.0/24", "2001:db8::1/128"]
    html = browser.page("/console/tokens/1")
    for shown in (
        'value="bot"',
        'value="20"',
        'value="5000"',
        'value="1.50"',
        'value="2099-12-31"',
        "203.0.113.0/24",
    ):
        assert shown in html
    browser.send("/console/tokens/1", name="robot", models=["plain-1"], rpm="", cap_day="")
    (token,) = gate.tokens(home.db, alice.id)
    assert (token["name"], token["models"], token["rpm"], token["cap_day"]) == (
        "robot",
        ["plain-1"],
        None,
        None,
    )


def test_the_last_day_of_a_token_is_the_sites(home, alice, browser):
    browser.send("/console/tokens/new", name="short", expires="2099-12-31")
    (token,) = gate.tokens(home.db, alice.id)
    assert token["expires_at"] == 4102416000000  # midnight of 2100-01-01 in Shanghai


def test_a_token_bound_to_models_that_are_gone_stays_bound(home, alice, browser):
    token = home.token(alice, models=["plain-1", "long-gone"])
    assert "long-gone (not offered any more)" in browser.read(f"/console/tokens/{token}")
    browser.send(f"/console/tokens/{token}", name="laptop", models=["long-gone"])
    assert gate.tokens(home.db, alice.id)[0]["models"] == ["long-gone"]


@pytest.mark.parametrize(
    "fields, where, says",
    [
        ({"name": ""}, "name", "Give it a name"),
        ({"name": "x" * 65}, "name", "At most 64"),
        ({"name": "a\u202eb"}, "name", "can be seen"),
        ({"rpm": "0"}, "rpm", "from 1 on"),
        ({"rpm": "-5"}, "rpm", "from 1"),
        ({"rpm": "many"}, "rpm", "Not a valid"),
        ({"expires": "2001-01-01"}, "expires", "This day is over"),
        ({"expires": "tomorrow"}, "expires", "Not a valid date"),
        ({"models": ["unknown"]}, "models", ""),
        ({"cap_day": "lots"}, "cap_day", "An amount"),
        ({"cap_day": "-1"}, "cap_day", "Not less"),
        ({"cap_day": "1,5"}, "cap_day", "An amount"),
        ({"addresses": "localhost"}, "addresses", "no address"),
        ({"expires": "9999-12-31"}, "expires", "over"),
    ],
)
def test_a_mistake_is_named_beside_its_field_and_what_was_typed_stays(
    home, alice, browser, fields, where, says
):
    answer = browser.send("/console/tokens/new", **({"name": "typed-name", "tpm": "777"} | fields))
    html = answer.get_data(as_text=True)
    assert says in error_of(html, where)
    assert error_of(html, where)
    assert 'value="777"' in html
    assert gate.tokens(home.db, alice.id) == []


def test_nobody_holds_more_tokens_than_allowed(tmp_path):
    home = house(tmp_path, accounts={"tokens_max": 2})
    browser = home.browser(home.member("alice"))
    for n in range(2):
        browser.send("/console/tokens/new", name=f"token-{n}", once=str(n))
    answer = browser.send("/console/tokens/new", name="one too many", once="2")
    assert "You hold 2 API keys, which is the most." in browser.text(answer)
    assert 'value="one too many"' in answer.get_data(as_text=True)
    browser.send("/console/tokens/1/revoke")
    assert raw_token(
        browser.send("/console/tokens/new", name="now", once="2").get_data(as_text=True)
    )


def test_revoking_asks_first_and_holds_at_once(home, alice, browser):
    token, _raw = tokens.mint(home.db, alice.id, "laptop")
    assert "Revoke the API key laptop" in browser.read(f"/console/tokens/{token}/revoke")
    assert home.relay.gate.caller_of(token)
    browser.send(f"/console/tokens/{token}/revoke")
    assert home.relay.gate.caller_of(token) is None
    assert "The API key laptop is revoked." in browser.read("/console/tokens")
    for path in (f"/console/tokens/{token}", f"/console/tokens/{token}/revoke"):
        assert browser.get(path).status_code == 404
    assert browser.send(f"/console/tokens/{token}", name="back again").status_code == 404


def test_the_list_shows_limits_last_use_calls_and_cost(home, alice, browser):
    token = home.token(alice, "busy", rpm=20, models=["plain-1"])
    home.called(alice, token, at=billing.now_ms() - 3 * 3_600_000)
    home.token(alice, "idle", cap_day=NANO)
    page = browser.read("/console/tokens")
    assert "busy" in page and "plain-1 20 requests a minute" in page and "3 hours ago" in page
    assert "¥0.0025" in page and "all models ¥0.00 of ¥1.00 today" in page and "never" in page


# The wallet


def new_code(home, kind="wallet", **terms) -> str:
    return codes.make(home.db, kind, **terms)[0]


def test_a_code_is_redeemed_once(home, alice, bob, browser):
    code = new_code(home, amount=nano("10"))
    browser.send("/console/wallet/redeem", code=code.lower().replace("-", " "))
    assert pockets(home, alice).wallet == nano("60")
    assert "¥10.00 were added to your wallet." in browser.read("/console/wallet")
    html = home.browser(bob).send("/console/wallet/redeem", code=code).get_data(as_text=True)
    assert error_of(html, "code") == "This code is not valid, or has been used."
    assert code in html  # what was typed stays


@pytest.mark.parametrize(
    "code", ["XXXX-XXXX-XXXX-XXXX-XXXX", "short", "x" * 5000, "' OR 1=1", "ä" * 20, "\x00" * 20]
)
def test_whatever_is_wrong_with_a_code_the_answer_is_one(browser, code):
    html = browser.send("/console/wallet/redeem", code=code).get_data(as_text=True)
    assert error_of(html, "code") == "This code is not valid, or has been used."


def test_codes_cannot_be_guessed_for_long(home, alice, browser):
    answers = [browser.send("/console/wallet/redeem", code=f"guess-{n}") for n in range(11)]
    assert [each.status_code for each in answers] == [200] * 10 + [429]
    good = new_code(home, amount=nano("10"))
    assert browser.send("/console/wallet/redeem", code=good).status_code == 429
    assert pockets(home, alice).wallet == nano("50")


def test_many_good_codes_are_no_guessing(home, alice, browser):
    for code in codes.make(home.db, "grant", 12, amount=100):
        assert browser.send("/console/wallet/redeem", code=code).status_code == 303
    assert pockets(home, alice).grant == 1500 + 1200


def test_a_code_for_a_plan_makes_its_owner_a_pro(home, alice, browser):
    browser.send(
        "/console/wallet/redeem", code=new_code(home, "plan", plan="pro", quota=nano("40"), days=30)
    )
    page = browser.read("/console/wallet")
    assert "You have the plan Pro until" in page and "Quota left: ¥40.00 of ¥40.00" in page


def terms(browser, path: str = "/console/wallet/plans/pro") -> dict:
    """The hidden fields of the page that asks before a plan is bought."""
    html = browser.page(path)
    return {
        name: re.search(rf'name="{name}" value="([^"]*)"', html)[1] for name in ("key", "price")
    }


def test_a_plan_is_bought_from_the_wallet_after_a_question(home, alice, browser):
    question = browser.read("/console/wallet/plans/pro")
    for said in (
        "¥29.90",
        "¥50.00",
        "¥20.10",
        "¥40.00 of quota",
        "80% of the list price",
        "30 days from now",
    ):
        assert said in question
    assert pockets(home, alice).wallet == nano("50")  # asking costs nothing
    answer = browser.send("/console/wallet/plans/pro", **terms(browser))
    assert answer.headers["Location"] == "/console/wallet"
    assert pockets(home, alice) == billing.Pockets(1500, nano("40"), nano("20.10"))
    assert "You have the plan Pro until" in browser.read("/console/wallet")
    assert billing.verify(home.db) == []


def test_a_purchase_that_is_sent_twice_happens_once(home, alice, browser):
    given = terms(browser)
    for _ in range(3):
        browser.send("/console/wallet/plans/pro", **given)
    assert len(plans.subscriptions(home.db, alice.id)) == 1
    assert "runs beside it" in browser.read("/console/wallet/plans/pro")


def test_a_wallet_that_does_not_hold_enough_buys_nothing(home, bob):
    browser = home.browser(bob)
    page = browser.page("/console/wallet/plans/pro")
    assert "does not hold enough" in page and "Buy for" not in page
    browser.send("/console/wallet/plans/pro", key="k", price=str(nano("29.90")))
    assert "Your wallet holds ¥0.00; the plan costs ¥29.90." in browser.read("/console/wallet")
    assert plans.subscriptions(home.db, bob.id) == []


@pytest.mark.parametrize("price", ["0", "1", "", "29900000001", "-1"])
def test_the_price_is_the_settings_and_not_the_forms(home, alice, browser, price):
    answer = browser.send("/console/wallet/plans/pro", key="k", price=price)
    assert answer.headers["Location"] == "/console/wallet/plans/pro"
    assert "price has changed" in browser.read("/console/wallet/plans/pro")
    assert pockets(home, alice).wallet == nano("50")


@pytest.mark.parametrize("name", ["free", "gold", "%2e%2e"])
def test_a_plan_that_is_not_sold_cannot_be_bought(browser, name):
    assert browser.get(f"/console/wallet/plans/{name}").status_code == 404
    assert browser.send(f"/console/wallet/plans/{name}", key="k", price="0").status_code == 404


def test_the_statement_runs_with_its_balance_and_can_be_filtered(home, alice, browser):
    call = home.called(alice, home.token(alice), usage=(2000, 0, 100))
    page = browser.read("/console/wallet/statement")
    assert "Request Token balance -1,500 0" in page and "Request Wallet -¥0.0018 ¥49.9982" in page
    assert "Top-up Wallet +¥50.00 ¥50.00" in page and "Reward" in page
    assert f"/console/usage/{call}" in browser.page("/console/wallet/statement")
    only = browser.read("/console/wallet/statement?pocket=wallet&kind=top_up")
    assert "+¥50.00" in only and "-¥0.0018" not in only
    assert "No entry fits" in browser.read("/console/wallet/statement?kind=expire")
    assert (
        browser.get("/console/wallet/statement?pocket=nonsense&kind=x&before=zzz").status_code
        == 200
    )


def test_the_statement_as_a_file_is_exact_and_harmless(home, alice, browser):
    billing.credit(home.db, alice.id, "wallet", 1, note='=HYPERLINK("http://evil")')
    home.called(alice, home.token(alice), usage=(1501, 0, 0))
    answer = browser.get("/console/wallet/statement.csv")
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    head, *rows = cells(answer)
    rows = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(row["pocket"], row["amount"]) for row in rows] == [
        ("wallet", "-0.000002000"),
        ("grant", "-1500"),
        ("wallet", "0.000000001"),
        ("grant", "1500"),
        ("wallet", "50.00"),
    ]
    assert rows[2]["note"] == '\'=HYPERLINK("http://evil")'
    assert (
        sum(nano(row["amount"]) for row in rows if row["pocket"] == "wallet")
        == pockets(home, alice).wallet
    )


def test_files_cannot_be_asked_for_without_end(browser):
    answers = [browser.get("/console/wallet/statement.csv").status_code for _ in range(11)]
    assert answers == [200] * 10 + [429]


# Invites


def test_the_invites_page_shows_the_link_who_came_and_what_it_earned(home, alice, browser):
    page = browser.read("/console/invites")
    assert f"/register?invite={alice.invite_code}" in page and "No one has joined yet" in page
    dora = home.member("dora", wallet="1", invite=alice.invite_code, invite_reward=50_000)
    home.member("emil", invite=alice.invite_code, invite_reward=50_000)
    home.called(dora, home.token(dora))
    home.called(dora, home.token(dora))
    page = browser.read("/console/invites")
    assert (
        "dora" in page
        and "paid 50,000 tokens" in page
        and "with the first request paid in money" in page
    )
    assert "Earned 50,000" in page  # once, however many calls there were
    assert pockets(home, alice).grant == 1500 + 50_000


def test_there_is_no_invite_page_in_the_menu_of_a_closed_house(tmp_path):
    home = house(tmp_path, accounts={"registration": "closed"})
    browser = home.browser(home.member("alice"))
    assert "/console/invites" not in links(browser.page("/console"))
    assert "nobody can come by a link" in browser.read("/console/invites")


# The account


def test_the_account_page_changes_only_what_it_offers(home, alice, browser):
    browser.send(
        "/console/account/language",
        language="zh",
        role="admin",
        name="root",
        wallet="9",
        user_id="1",
        id="1",
    )
    browser.send(
        "/console/account/password",
        current=PASSWORD,
        password="another long one",
        again="another long one",
        role="admin",
        name="root",
        user_id="2",
    )
    now = accounts.find(home.db, alice.id)
    assert (now.role, now.name, now.language) == ("member", "alice", "zh")
    assert pockets(home, alice) == billing.Pockets(1500, 0, nano("50"))


def test_a_disk_that_refuses_is_said_in_a_sentence(home, alice, browser, monkeypatch):
    from db import StorageError

    def refuse(*given):
        raise StorageError("disk full")

    monkeypatch.setattr(home.relay.db, "write", refuse)
    answer = browser.send("/console/tokens/new", name="laptop")
    assert answer.status_code == 503
    assert "cannot save anything right now" in browser.text(answer)


def test_the_database_holds_no_password_and_no_code(home, alice, browser):
    code = new_code(home, amount=nano("10"))
    browser.send("/console/wallet/redeem", code=code)
    conn = sqlite3.connect(home.folder / "relay.db")
    dump = "\n".join(conn.iterdump())
    conn.close()
    assert PASSWORD not in dump and code not in dump and code.replace("-", "") not in dump


def names_on(html: str) -> list[str]:
    return re.findall(r'<th scope="row"><span><a[^>]*>([^<]+)</a>', html)


def test_many_keys_are_searched_sorted_and_shown_by_pages(home, alice, browser):
    ids = [home.token(alice, f"key {number:02}") for number in range(60)]
    ended = (billing.now_ms() - 1, ids[59])
    home.db.write(lambda conn: conn.execute("UPDATE tokens SET expires_at = ? WHERE id = ?", ended))
    home.called(alice, ids[7], usage=(9_000, 0, 0))
    home.called(alice, ids[30], usage=(20_000, 0, 0))
    first = names_on(browser.page("/console/tokens"))
    assert len(first) == 50 and first[0] == "key 58", "the newest first"
    rest = names_on(browser.page("/console/tokens?page=2"))
    assert len(rest) == 10 and rest[-1] == "key 59", "and what has expired last"
    assert names_on(browser.page("/console/tokens?page=99")) == rest
    assert names_on(browser.page("/console/tokens?q=KEY+1"))[::9] == ["key 19", "key 10"]
    assert names_on(browser.page("/console/tokens?order=name"))[:2] == ["key 00", "key 01"]
    assert names_on(browser.page("/console/tokens?order=cost"))[:2] == ["key 30", "key 07"]
    assert set(names_on(browser.page("/console/tokens?order=used"))[:2]) == {"key 30", "key 07"}
    assert "No API key fits" in browser.page("/console/tokens?q=nothing")
    for odd in ("page=-1", "page=x", "order=nonsense", "q=%00"):
        assert browser.get(f"/console/tokens?{odd}").status_code == 200


def test_few_keys_need_no_search(home, alice, browser):
    home.token(alice, "one")
    assert 'name="q"' not in browser.page("/console/tokens")
