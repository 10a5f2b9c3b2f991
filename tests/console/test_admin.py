"""What administrators do in the console.

Members, money, codes, calls, upstreams, settings, the system, the trail.
"""

import csv
import io
import pathlib
import re
import sqlite3
import threading
import time

import pytest

import billing
import codes
import plans
import verify
from billing import nano
from console.member.usage import PER_DAY
from console.ui import i18n
from db import meta
from members import (
    accounts,
    audit,
    call_rows,
    caps,
    credit_requests,
    entries,
    identities,
    teams,
    tokens,
)
from relay import gate, pricelist
from tests.console.member_stage import MODELS, PASSWORD, error_of, house, text
from tests.fake_upstream import FakeUpstream, answer
from tests.providers import plain, usage
from tests.stage import toml

SECRET = "sk-upstream-secret"


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def carol(home):
    return home.member("carol", role="admin")


@pytest.fixture
def alice(home):
    return home.member("alice", wallet="50", grant=1500)


@pytest.fixture
def bob(home):
    return home.member("bob")


@pytest.fixture
def desk(home, carol):
    """carol's browser."""
    return home.browser(carol)


def hidden(html: str, name: str) -> str:
    """What a hidden field holds."""
    found = re.search(rf'<input[^>]*name="{name}"[^>]*value="([^"]*)"', html)
    return found[1]


def pockets(home, who):
    return billing.balances(home.db, who.id)["balance"]


def cells(answer) -> list[list[str]]:
    """A CSV file's lines."""
    return list(csv.reader(io.StringIO(answer.get_data().decode("utf-8-sig"))))


def trail(home, action: str) -> list[dict]:
    """What the audit trail has of an action, newest first."""
    return [row for row in audit.trail(home.db) if row["action"] == action]


def credit(desk, who, **fields):
    """Send the form for a credit, as the page of the member gives it."""
    key = hidden(desk.page(f"/admin/members/{who.id}"), "credit-key")
    given = {
        "key": key,
        "pocket": "wallet",
        "amount": "10",
        "kind": "top_up",
        "note": "April",
    } | fields
    return desk.send(
        f"/admin/members/{who.id}/credit",
        **{f"credit-{name}": value for name, value in given.items()},
    )


def age_sign_in(browser, by_s: int = 3600) -> None:
    """Let the sign-in be some time ago."""
    with browser.client.session_transaction() as session:
        session["since"] -= by_s
        session.pop("proven_at", None)


# ---- the door: a password once more


def test_what_moves_money_asks_for_the_password_again_and_keeps_what_was_typed(home, alice, desk):
    age_sign_in(desk)
    asked = credit(desk, alice, amount="12.50", note="for <b>May</b>")
    html = asked.get_data(as_text=True)
    assert "Your password, please" in html and pockets(home, alice).wallet == nano("50")
    kept = dict(re.findall(r'<input type="hidden" name="(credit-[^"]+)" value="([^"]*)"', html))
    assert kept["credit-amount"] == "12.50" and kept["credit-note"] == "for &lt;b&gt;May&lt;/b&gt;"
    wrong = desk.send(f"/admin/members/{alice.id}/credit", own_password="not this", **kept)
    assert "This is not your password." in desk.text(wrong) and pockets(home, alice).wallet == nano(
        "50"
    )
    done = desk.send(f"/admin/members/{alice.id}/credit", own_password=PASSWORD, **kept)
    assert done.status_code == 303 and pockets(home, alice).wallet == nano("62.50")
    assert credit(desk, alice).status_code == 303  # and not at every step


@pytest.mark.parametrize(
    "path, fields",
    [
        ("/admin/members/{id}/credit", {"credit-amount": "1", "credit-note": "x"}),
        ("/admin/members/{id}/plan", {}),
        ("/admin/members/{id}/role", {"role": "admin"}),
        ("/admin/members/{id}/disable", {}),
        ("/admin/members/{id}/password", {}),
        ("/admin/system/backup", {}),
        ("/admin/codes/new", {"kind": "grant", "amount": "5", "count": "1"}),
        ("/admin/members/new", {"name": "eve"}),
    ],
)
def test_money_and_power_want_a_fresh_password(home, alice, desk, path, fields):
    age_sign_in(desk)
    before = list(home.db.read().execute("SELECT * FROM users").fetchall())
    assert "Your password, please" in desk.text(desk.send(path.format(id=alice.id), **fields))
    assert [tuple(row) for row in home.db.read().execute("SELECT * FROM users")] == [
        tuple(row) for row in before
    ]
    assert trail(home, "code.make") == [] and trail(home, "database.backup") == []


def test_the_own_password_cannot_be_guessed_from_a_screen_left_alone(home, alice, desk):
    age_sign_in(desk)
    answers = [
        desk.send(f"/admin/members/{alice.id}/enable", own_password=f"guess {n}") for n in range(6)
    ]
    assert [each.status_code for each in answers] == [200] * 5 + [429]


# ---- members


def test_members_are_listed_with_what_they_have_and_used(home, alice, bob, desk):
    home.called(alice, home.token(alice), usage=(1000, 0, 1000), at=billing.now_ms() - 60_000)
    plans.give_plan(home.db, bob.id, "pro", quota=nano("40"), days=30)
    seen = desk.read("/admin/members")
    assert re.search(
        r"alice since .{16} Free 0 ¥0.00 ¥49\.996 ¥0\.01 1 request 1 minute ago", seen
    ), seen
    assert re.search(r"bob since .{16} Pro 0 ¥40.00 ¥0.00 – –", seen), seen
    assert "carol Administrator" in seen


@pytest.mark.parametrize(
    "query, found",
    [
        ("?q=LIC", {"alice"}),
        ("?q=o", {"bob", "carol"}),
        ("?state=admin", {"carol"}),
        ("?state=disabled", {"bob"}),
        ("?state=empty", {"bob", "carol"}),
        ("?state=active&q=b", set()),
        ("?q=%25", set()),
        ("?state=nonsense", None),
    ],
)
def test_members_are_found_by_a_part_of_the_name_and_by_state(home, alice, bob, desk, query, found):
    accounts.disable(home.db, bob.id)
    html = desk.page(f"/admin/members{query}")
    names = set(re.findall(r'<a href="/admin/members/\d+">([^<]+)</a>', html))
    assert names == ({"alice", "bob", "carol"} if found is None else found)
    assert ("Nobody fits" in html) == (found == set())


def test_long_lists_of_members_are_paged(home, desk):
    for number in range(60):
        home.db.write(
            lambda conn, n: conn.execute(
                "INSERT INTO users (name, name_key, password, session_epoch, invite_code, created_at)"
                " VALUES (?1, ?1, 'x', 'x', ?1, 0)",
                (f"m{n:02}",),
            ),
            number,
        )
    names, path = [], "/admin/members"
    while path:
        html = desk.page(path)
        names += re.findall(r'<a href="/admin/members/\d+">([^<]+)</a>', html)
        path = next(iter(re.findall(r'rel="next" href="([^"]+)"', html)), None)
    assert names == [*(f"m{number:02}" for number in reversed(range(60))), "carol"]


def test_a_member_is_made_with_a_password_that_is_shown_once(home, desk):
    page = desk.send("/admin/members/new", name="dora", role="member", reward="y").get_data(
        as_text=True
    )
    (password,) = re.findall(r'id="fresh-password">([^<]+)<', page)
    assert re.fullmatch(r"[a-z2-9]{4}(-[a-z2-9]{4}){3}", password)
    dora = accounts.authenticate(home.db, "dora", password)
    assert pockets(home, dora).grant == 100_000
    assert password not in desk.page(f"/admin/members/{dora.id}")
    (made,) = (row for row in trail(home, "member.add") if row["target"] == "dora")
    assert made["by"] == "carol"


def test_a_member_may_be_made_an_administrator_with_a_typed_password_and_without_reward(home, desk):
    page = desk.send(
        "/admin/members/new", name="erik", role="admin", password="four words in a row"
    )
    assert "fresh-password" not in page.get_data(as_text=True)
    erik = accounts.authenticate(home.db, "erik", "four words in a row")
    assert erik.admin and pockets(home, erik).grant == 0


@pytest.mark.parametrize(
    "fields, where, says",
    [
        ({"name": "ALICE"}, "name", "Somebody has this name already."),
        ({"name": ""}, "name", "Type a name."),
        ({"name": "a\u202eb"}, "name", "visible characters"),
        ({"password": "short"}, "password", "8 to 128"),
        ({"password": "password1"}, "password", "most common"),
    ],
)
def test_a_mistake_about_a_new_member_stands_beside_its_field(
    home, alice, desk, fields, where, says
):
    html = desk.send("/admin/members/new", **{"name": "dora", "role": "member"} | fields).get_data(
        as_text=True
    )
    assert says in error_of(html, where)
    assert not accounts.named(home.db, "dora")


def test_more_fields_than_the_form_has_change_nothing(home, alice, desk):
    more = {
        "id": "99",
        "invite_code": "mine",
        "disabled_at": "1",
        "session_epoch": "x",
        "wallet": "1e9",
        "wallet_balance": "1000000000",
        "user_id": str(alice.id),
        "by": str(alice.id),
    }
    desk.send("/admin/members/new", name="dora", role="member", **more)
    dora = accounts.named(home.db, "dora")
    assert (
        dora.id != 99
        and dora.invite_code != "mine"
        and not dora.disabled
        and pockets(home, dora).wallet == 0
    )
    key = hidden(desk.page(f"/admin/members/{dora.id}"), "credit-key")
    desk.send(
        f"/admin/members/{dora.id}/credit",
        **{
            "credit-key": key,
            "credit-pocket": "quota",
            "credit-amount": "5",
            "credit-kind": "top_up",
            "credit-note": "x",
        }
        | more,
    )
    desk.send(
        f"/admin/members/{dora.id}/credit",
        **{
            "credit-key": key,
            "credit-pocket": "wallet",
            "credit-amount": "5",
            "credit-kind": "charge",
            "credit-note": "x",
        }
        | more,
    )
    assert pockets(home, dora) == billing.Pockets(0, 0, 0) and verify.verify(home.db) == []
    assert desk.send(f"/admin/members/{dora.id}/role", role="owner").status_code == 400


def test_a_members_page_shows_everything_about_them(home, alice, desk):
    token = home.token(alice, "laptop", models=["plain-1"])
    home.called(alice, token)
    home.called(alice, token, outcome="refused", error="insufficient_balance")
    plans.purchase(home.db, alice.id, "pro", price=nano("29.90"), quota=nano("40"), days=30)
    seen = desk.read(f"/admin/members/{alice.id}")
    for words in (
        "Quota left: ¥40.00 of ¥40.00",
        "laptop",
        "plain-1",
        "Complete",
        "insufficient_balance",
        "Plan bought Pro",
        "in 2 requests",
    ):
        assert words in seen, words


def test_there_is_no_page_of_nobody(home, desk):
    for path in (
        "/admin/members/99",
        "/admin/members/99/statement",
        "/admin/members/99/disable",
        "/admin/members/99/role",
        "/admin/members/99/tokens/1/revoke",
        "/admin/members/99/plans/1/end",
        "/admin/calls/req_0",
    ):
        assert desk.get(path).status_code == 404, path
    for path in (
        "credit",
        "plan",
        "password",
        "role",
        "disable",
        "enable",
        "sessions",
        "plans/1/stop",
    ):
        assert desk.send(f"/admin/members/99/{path}", role="member").status_code == 404, path


# ---- money


@pytest.mark.parametrize(
    "fields, wallet, grant",
    [
        ({}, "60", 1500),
        ({"amount": "1,000.50"}, "1050.50", 1500),
        ({"pocket": "grant", "amount": "5000"}, "50", 6500),
        ({"amount": "-60", "kind": "adjust"}, "-10", 1500),
        ({"pocket": "grant", "amount": "-1500", "kind": "adjust"}, "50", 0),
        ({"amount": "0.000000001", "kind": "refund"}, "50.000000001", 1500),
    ],
)
def test_a_credit_moves_exactly_its_amount_and_is_in_the_trail(
    home, alice, desk, fields, wallet, grant
):
    assert credit(desk, alice, **fields).status_code == 303
    assert pockets(home, alice) == billing.Pockets(grant, 0, nano(wallet))
    newest = next(entries.listed(alice.id).all(home.db.read(), 1))[0]
    assert (newest["note"], newest["by"]) == ("April", "carol")
    noted = trail(home, f"ledger.{fields.get('kind', 'top_up')}")[0]
    assert (noted["by"], noted["target"], noted["detail"]["note"]) == ("carol", "alice", "April")
    assert "April · by carol" in desk.read(f"/admin/members/{alice.id}/statement")


def test_a_credit_that_is_sent_twice_happens_once(home, alice, desk):
    key = hidden(desk.page(f"/admin/members/{alice.id}"), "credit-key")
    for _ in range(3):
        assert credit(desk, alice, key=key).status_code == 303
    assert pockets(home, alice).wallet == nano("60")
    again = credit(desk, alice, key=key, amount="99")
    assert again.status_code == 303 and pockets(home, alice).wallet == nano("60")
    assert "Nothing was done now" in desk.read(f"/admin/members/{alice.id}")


@pytest.mark.parametrize(
    "fields, where, says",
    [
        ({"amount": "ten"}, "credit-amount", "An amount such as"),
        ({"amount": ""}, "credit-amount", "Type an amount."),
        ({"amount": "0"}, "credit-amount", "More than nothing"),
        ({"amount": "-5"}, "credit-amount", "Only a correction"),
        ({"amount": "0.0000000001"}, "credit-amount", "An amount such as"),
        ({"amount": "NaN"}, "credit-amount", "such as"),
        ({"amount": "1e5"}, "credit-amount", "An amount such as"),
        ({"amount": "1,5"}, "credit-amount", "An amount such as"),
        ({"pocket": "grant", "amount": "1 5"}, "credit-amount", "A whole number"),
        ({"amount": "9" * 30}, "credit-amount", "An amount"),
        ({"pocket": "grant", "amount": "1.5"}, "credit-amount", "A whole number"),
        ({"note": ""}, "credit-note", "Say what"),
        ({"pocket": "grant", "amount": "-1501", "kind": "adjust"}, "credit-amount", "holds 1,500"),
        ({"pocket": "grant", "amount": "9" * 40}, "credit-amount", "absurdly much"),
        ({"note": "x" * 201}, "credit-note", "200"),
    ],
)
def test_a_mistake_in_a_credit_stands_beside_its_field_and_moves_nothing(
    home, alice, desk, fields, where, says
):
    html = credit(desk, alice, **fields).get_data(as_text=True)
    assert says in error_of(html, where)
    assert fields.get("amount", "10") in html
    assert pockets(home, alice) == billing.Pockets(1500, 0, nano("50"))


def give(desk, who, key=None, **fields):
    key = key or hidden(desk.page(f"/admin/members/{who.id}"), "plan-key")
    given = {"key": key, "plan": "pro"} | fields
    return desk.send(
        f"/admin/members/{who.id}/plan", **{f"plan-{name}": value for name, value in given.items()}
    )


def test_a_plan_is_given_on_its_own_terms_once(home, bob, desk):
    key = hidden(desk.page(f"/admin/members/{bob.id}"), "plan-key")
    assert [give(desk, bob, key).status_code for _ in range(2)] == [303, 303]
    (given,) = plans.active(home.db, bob.id)
    assert (given.plan, given.quota, given.paid, given.renew) == ("pro", nano("40"), 0, False)
    assert round((given.ends_at - given.starts_at) / plans.DAY_MS) == 30
    assert trail(home, "plan.give")[0]["by"] == "carol"


def test_an_allowance_renews_until_it_is_told_not_to_and_can_be_ended(home, bob, desk):
    give(desk, bob, days="7", quota="12.5", renew="y")
    (given,) = plans.active(home.db, bob.id)
    assert (given.quota, given.renew) == (nano("12.5"), True)
    assert desk.send(f"/admin/members/{bob.id}/plans/{given.id}/stop").status_code == 303
    assert not plans.active(home.db, bob.id)[0].renew
    assert "What is left of its quota expires: ¥12.50" in desk.read(
        f"/admin/members/{bob.id}/plans/{given.id}/end"
    )
    desk.send(f"/admin/members/{bob.id}/plans/{given.id}/end")
    assert plans.active(home.db, bob.id) == [] and pockets(home, bob).quota == 0
    assert trail(home, "plan.end")[0]["by"] == trail(home, "plan.stop_renewal")[0]["by"] == "carol"


def test_members_may_be_listed_by_what_they_used(home, alice, bob, carol, desk):
    home.called(alice, home.token(alice))
    for _ in range(2):
        home.called(bob, home.token(bob))
    seen = desk.read("/admin/members?order=used")
    assert seen.index("bob") < seen.index("alice since") < seen.index("carol Administrator")
    newest = desk.read("/admin/members")
    assert newest != seen and "Order" in newest
    assert "alice" in desk.read("/admin/members?order=used&q=ALI")
    assert "bob since" not in desk.read("/admin/members?order=used&q=ALI")
    assert desk.get("/admin/members?order=used&state=disabled").status_code == 200


def test_an_allowance_by_the_month_is_one_however_often_it_is_given(home, bob, desk):
    for _ in range(2):
        give(desk, bob, hidden(desk.page(f"/admin/members/{bob.id}"), "plan-key"), monthly="y")
    (given,) = plans.active(home.db, bob.id)
    assert given.renew and given.months_of == "Asia/Shanghai"
    assert "renews each calendar month" in desk.read(f"/admin/members/{bob.id}")
    give(desk, bob, hidden(desk.page(f"/admin/members/{bob.id}"), "plan-key"), quota="3", renew="y")
    plans.expire_due(home.db)
    assert pockets(home, bob).quota == nano("3")


@pytest.mark.parametrize(
    "fields",
    [
        {"plan": "free"},
        {"plan": "gold"},
        {"days": "0"},
        {"days": "1000000"},
        {"quota": "-1"},
        {"quota": "much"},
    ],
)
def test_a_plan_on_impossible_terms_is_not_given(home, bob, desk, fields):
    assert give(desk, bob, **fields).status_code == 200
    assert plans.active(home.db, bob.id) == []


def test_one_members_plan_cannot_be_ended_in_the_name_of_another(home, alice, bob, desk):
    give(desk, bob)
    (given,) = plans.active(home.db, bob.id)
    assert desk.send(f"/admin/members/{alice.id}/plans/{given.id}/end").status_code == 404
    assert len(plans.active(home.db, bob.id)) == 1


def test_a_members_statement_can_be_filtered_and_saved(home, alice, desk):
    credit(desk, alice, note="=HYPERLINK(1)")
    shown = desk.read(f"/admin/members/{alice.id}/statement?kind=top_up")
    assert "Reward" not in shown.partition("Balance after it")[2]
    lines = cells(desk.get(f"/admin/members/{alice.id}/statement.csv?kind=top_up"))
    assert [line[4] for line in lines[1:]] == ["10.00", "50.00"] and lines[1][7] == "'=HYPERLINK(1)"


# ---- access


def call_with(home, raw: str) -> int:
    return (
        home.app.test_client()
        .get("/api/v1/models", headers={"Authorization": f"Bearer {raw}"})
        .status_code
    )


def test_who_is_disabled_is_out_at_once_and_back_when_enabled(home, alice, desk):
    raw = tokens.mint(home.db, alice.id, "laptop")[1]
    hers = home.browser(alice)
    assert "Disable alice?" in desk.read(f"/admin/members/{alice.id}/disable")
    assert call_with(home, raw) == 200  # the question alone does nothing
    desk.send(f"/admin/members/{alice.id}/disable")
    assert call_with(home, raw) == 401 and hers.get("/console").status_code == 302
    assert "alice is disabled." in desk.read(f"/admin/members/{alice.id}")
    desk.send(f"/admin/members/{alice.id}/enable")
    assert call_with(home, raw) == 200 and home.browser(alice).get("/console").status_code == 200
    assert pockets(home, alice).wallet == nano("50")
    assert (
        trail(home, "member.disable")[0]["by"] == trail(home, "member.enable")[0]["by"] == "carol"
    )


@pytest.mark.parametrize("path, fields", [("disable", {}), ("role", {"role": "member"})])
def test_the_last_administrator_stays_one(home, carol, desk, path, fields):
    desk.send(f"/admin/members/{carol.id}/{path}", **fields)
    kept = accounts.find(home.db, carol.id)
    assert kept.admin and not kept.disabled
    assert "This is the last administrator." in desk.read(f"/admin/members/{carol.id}")


def test_a_disabled_administrator_does_not_count_as_another(home, carol, desk):
    dora = home.member("dora", role="admin")
    accounts.disable(home.db, dora.id)
    desk.send(f"/admin/members/{carol.id}/role", role="member")
    assert accounts.find(home.db, carol.id).admin


def test_a_member_becomes_administrator_and_stops_being_one(home, alice, carol, desk):
    assert "move money" in desk.read(f"/admin/members/{alice.id}/role")
    desk.send(f"/admin/members/{alice.id}/role", role="admin")
    hers = home.browser(alice)
    assert hers.get("/admin/").status_code == 200
    desk.send(f"/admin/members/{alice.id}/role", role="member")
    assert hers.get("/admin/").status_code == 404  # at the next click
    assert [row["detail"]["role"] for row in trail(home, "member.role")] == ["member", "admin"]


def test_a_new_password_ends_the_sessions_and_leaves_the_tokens(home, alice, desk):
    raw, hers = tokens.mint(home.db, alice.id, "laptop")[1], home.browser(alice)
    page = desk.send(f"/admin/members/{alice.id}/password", **{"password-password": ""}).get_data(
        as_text=True
    )
    (password,) = re.findall(r'id="fresh-password">([^<]+)<', page)
    assert hers.get("/console").status_code == 302 and call_with(home, raw) == 200
    assert accounts.authenticate(home.db, "alice", PASSWORD) is None
    assert accounts.authenticate(home.db, "alice", password).id == alice.id
    assert trail(home, "member.password")[0]["by"] == "carol"
    weak = desk.send(f"/admin/members/{alice.id}/password", **{"password-password": "12345678"})
    assert "most common" in error_of(weak.get_data(as_text=True), "password-password")


def test_a_member_is_signed_out_everywhere(home, alice, desk):
    hers = home.browser(alice)
    desk.send(f"/admin/members/{alice.id}/sessions")
    assert (
        hers.get("/console").status_code == 302
        and trail(home, "member.end_sessions")[0]["by"] == "carol"
    )


def test_a_leaked_token_is_revoked_for_its_owner(home, alice, bob, desk):
    token, raw = tokens.mint(home.db, alice.id, "laptop")
    assert desk.send(f"/admin/members/{bob.id}/tokens/{token}/revoke").status_code == 404
    assert "laptop" in desk.read(f"/admin/members/{alice.id}/tokens/{token}/revoke")
    assert call_with(home, raw) == 200
    desk.send(f"/admin/members/{alice.id}/tokens/{token}/revoke")
    assert call_with(home, raw) == 401
    noted = trail(home, "token.revoke")[0]
    assert (noted["by"], noted["target"], noted["detail"]["token"]) == ("carol", "alice", "laptop")
    assert desk.get(f"/admin/members/{alice.id}/tokens/{token}/revoke").status_code == 404


# ---- codes


def make_codes(desk, key=None, **fields):
    key = key or hidden(desk.page("/admin/codes/new"), "key")
    return desk.send(
        "/admin/codes/new", **{"key": key, "kind": "wallet", "amount": "10", "count": "3"} | fields
    )


def shown(answer) -> list[str]:
    """The codes on the page that shows them."""
    found = re.search(r'id="fresh-codes">([^<]*)<', answer.get_data(as_text=True))
    return found[1].split() if found else []


def test_codes_are_made_in_bulk_shown_once_and_kept_nowhere(home, alice, desk, tmp_path):
    page = make_codes(desk, count="5", note="Spring")
    made = shown(page)
    assert len(set(made)) == 5 and page.headers["Cache-Control"] == "no-store"
    home.db.backup(tmp_path / "copy.db")
    kept = (tmp_path / "copy.db").read_bytes()
    assert not [
        code for code in made if code.encode() in kept or code.replace("-", "").encode() in kept
    ]
    listed = desk.page("/admin/codes")
    assert not [code for code in made if code in listed] and listed.count("Spring") == 5
    assert codes.redeem(home.db, alice.id, made[0])["amount"] == nano("10")
    assert "Redeemed alice" in desk.read("/admin/codes")
    assert trail(home, "code.make")[0]["detail"]["count"] == 5


def test_a_form_for_codes_that_is_sent_twice_makes_one_set(home, desk):
    key = hidden(desk.page("/admin/codes/new"), "key")
    assert len(shown(make_codes(desk, key))) == 3
    again = make_codes(desk, key, count="9")
    assert again.status_code == 303 and len(codes.listed().page(home.db.read()).rows) == 3
    assert "its codes were shown then" in desk.read("/admin/codes")


@pytest.mark.parametrize(
    "fields, gives, worth",
    [
        (
            {"kind": "grant", "amount": "5,000"},
            {"kind": "grant", "amount": 5000},
            "5,000 tokens",
        ),
        ({"kind": "plan", "plan": "pro", "amount": ""}, {"kind": "plan", "plan": "pro"}, "Pro"),
        ({"amount": "0.5"}, {"kind": "wallet", "amount": nano("0.5")}, "¥0.50"),
    ],
)
def test_a_code_gives_what_its_form_said(home, alice, desk, fields, gives, worth):
    page = make_codes(desk, **fields)
    assert f"Each gives {worth}, once." in desk.text(page)
    given = codes.redeem(home.db, alice.id, shown(page)[0])
    assert {name: given[name] for name in gives} == gives


@pytest.mark.parametrize(
    "fields, where",
    [
        ({"amount": ""}, "amount"),
        ({"amount": "-1"}, "amount"),
        ({"kind": "grant", "amount": "1.5"}, "amount"),
        ({"kind": "plan", "amount": ""}, "plan"),
        ({"count": "0"}, "count"),
        ({"count": "1001"}, "count"),
        ({"count": "many"}, "count"),
        ({"expires": "2020-01-01"}, "expires"),
        ({"expires": "soon"}, "expires"),
        ({"note": "x" * 201}, "note"),
    ],
)
def test_a_mistake_about_codes_stands_beside_its_field(home, desk, fields, where):
    html = make_codes(desk, **fields).get_data(as_text=True)
    assert error_of(html, where) and codes.listed().page(home.db.read()).rows == []


def test_fresh_codes_are_saved_as_a_file_that_holds_nothing_else(home, desk):
    made = shown(make_codes(desk))
    file = desk.send(
        "/admin/codes/file", codes=" ".join([*made, "=cmd|' /C calc'!A0", "<b>", made[0][:10]])
    )
    assert file.headers["Content-Disposition"].startswith("attachment")
    assert file.get_data(as_text=True).split() == ["code", *made]


def test_ticked_codes_are_revoked_after_a_question(home, alice, desk):
    made = shown(make_codes(desk))
    codes.redeem(home.db, alice.id, made[0])
    ids = [row["id"] for row in codes.listed().page(home.db.read()).rows]
    question = desk.read("/admin/codes/revoke?" + "&".join(f"code={each}" for each in ids))
    assert "Make these 2 codes worthless?" in question
    desk.send("/admin/codes/revoke", code=ids)
    for code in made[1:]:
        with pytest.raises(codes.CodeRefused):
            codes.redeem(home.db, alice.id, code)
    assert pockets(home, alice).wallet == nano("60")
    assert len(trail(home, "code.revoke")) == 2
    assert desk.get("/admin/codes/revoke").status_code == 303  # nothing ticked
    assert desk.get("/admin/codes/revoke?code=x&code=-1&code=1e9&code=٣").status_code == 303


def test_codes_are_listed_by_state_and_saved_without_their_secret(home, alice, desk):
    made = shown(make_codes(desk, note="@SUM(1)"))
    codes.redeem(home.db, alice.id, made[0])
    lines = cells(desk.get("/admin/codes.csv?state=redeemed"))
    row = dict(zip(*lines, strict=True))
    assert (row["state"], row["amount"], row["redeemed_by"], row["note"]) == (
        "redeemed",
        "10.00",
        "alice",
        "'@SUM(1)",
    )
    assert made[0] not in str(lines)
    assert desk.page("/admin/codes?state=unused").count("Unused</span>") == 2
    assert "No code is in this state" in desk.page("/admin/codes?state=expired")


# ---- calls


def test_all_calls_are_seen_and_filtered(home, alice, bob, desk):
    mine, theirs = (
        home.called(alice, home.token(alice), upstream="north"),
        home.called(bob, home.token(bob, "bot"), model="other-2"),
    )
    refused = home.called(
        bob, home.token(bob, "bot-2"), outcome="refused", error="insufficient_balance"
    )
    running = home.called(alice, home.token(alice, "two"), outcome=None)
    every = {mine, theirs, refused, running}
    for query, found in (
        ("", every),
        ("member=ALICE", {mine, running}),
        ("model=other-2", {theirs}),
        ("outcome=refused", {refused}),
        ("outcome=open", {running}),
        ("upstream=north", {mine}),
        ("member=bob&outcome=complete", {theirs}),
        ("member=nobody", set()),
        ("from=2020-01-01&to=2020-01-31", set()),
        ("outcome=nonsense", every),
    ):
        html = desk.page(f"/admin/calls?{query}")
        assert set(re.findall(r"/admin/calls/(req_\w+)", html)) == found, query
    assert "Nobody has this name." in desk.page("/admin/calls?member=nobody")


def test_the_teams_figures_are_summed_by_member_and_model(home, alice, bob, desk):
    for who, count in ((alice, 2), (bob, 1)):
        token = home.token(who)
        for _ in range(count):
            home.called(who, token, usage=(1000, 0, 0))
    seen = desk.read("/admin/calls")
    assert re.search(r"Requests 3 Input tokens 3,000 Output tokens 0 Cost ¥0\.006", seen)
    assert re.search(r"Who used most .* alice 2 ¥0\.004 bob 1 ¥0\.002", seen)
    assert cells(desk.get("/admin/usage.csv"))[1:] == [
        ["alice", "2", "0", "2000", "0", "0", "0.004000000", "1500", "0", "0.001000000", "0"],
        ["bob", "1", "0", "1000", "0", "0", "0.002000000", "0", "0", "0.002000000", "0"],
    ]
    assert cells(desk.get("/admin/usage.csv?member=bob"))[1][0] == "bob"


def test_the_teams_figures_and_charts_stay_when_old_calls_are_forgotten(home, alice, desk):
    call = home.called(alice, home.token(alice), at=billing.now_ms() - 20 * plans.DAY_MS)
    figures = re.compile(r'<rect class="bar.*?</rect>|<table.*?</table>|<dd.*?</dd>', re.S)
    before, member = desk.page("/admin/calls"), desk.page(f"/admin/members/{alice.id}")
    assert call in before and call_rows.forget(home.db, 10) == 1
    after = desk.page("/admin/calls")
    assert call not in after and desk.get(f"/admin/calls/{call}").status_code == 404
    kept = [each for each in figures.findall(before) if call not in each]
    assert (
        '<rect class="bar' in "".join(kept)
        and [each for each in figures.findall(after) if call not in each] == kept
    )
    bars = re.compile(r'<rect class="bar.*?</rect>', re.S)
    assert bars.findall(member) == bars.findall(desk.page(f"/admin/members/{alice.id}")) != []
    assert cells(desk.get("/admin/usage.csv"))[1][:2] == ["alice", "1"]
    assert verify.verify(home.db) == []


@pytest.mark.parametrize(
    "where",
    [
        "day BETWEEN '2026-01-01' AND '2026-12-31'",
        "day BETWEEN '2026-01-01' AND '2026-12-31' AND model = 'plain-1'",
    ],
)
def test_the_teams_days_are_summed_in_the_order_of_an_index(home, where):
    """A year of two hundred members has a hundred thousand roll-ups and more.

    Sorting them takes too long.
    """
    plan = [
        row["detail"]
        for row in home.db.read().execute("EXPLAIN QUERY PLAN " + PER_DAY.format(where=where))
    ]
    assert len(plan) == 1 and "COVERING INDEX daily_by_day" in plan[0], plan


def test_a_call_has_a_page_with_whose_it_is_and_who_served_it(home, alice, desk):
    call = home.called(
        alice,
        home.token(alice),
        upstream="north",
        attempts=[
            {
                "upstream": "south",
                "model": "x",
                "status": 503,
                "ms": 12,
                "error": "upstream_overloaded",
            },
            {"upstream": "north", "model": "x", "status": 200, "ms": 30},
        ],
    )
    seen = desk.read(f"/admin/calls/{call}")
    for words in (
        "Member alice",
        "Upstream north",
        "south: upstream_overloaded (503)",
        "Cost breakdown",
    ):
        assert words in seen, words
    assert "Administration" in seen and "/console/usage" not in desk.page(f"/admin/calls/{call}")


def test_calls_as_a_file_are_exact_and_harmless(home, desk):
    eve = home.member("=cmd|' /C calc'!A0", wallet="5")
    home.called(eve, home.token(eve, "+1"), at=billing.now_ms() - 1000)
    home.called(
        eve, home.token(eve, "two"), outcome="refused", model="-2+3", error="model_not_found"
    )
    head, refused, done = cells(desk.get("/admin/calls.csv"))
    rows = [dict(zip(head, each, strict=True)) for each in (refused, done)]
    assert [row["user"] for row in rows] == ["'=cmd|' /C calc'!A0"] * 2
    assert (rows[1]["token"], rows[0]["model"], rows[1]["cost"]) == ("'+1", "'-2+3", "0.002500000")
    printed = home.app.test_cli_runner().invoke(args=["requests", "--csv"]).output
    assert list(csv.reader(io.StringIO(printed))) == [head, refused, done], (
        "the command's file is the console's"
    )


# ---- upstreams


@pytest.fixture
def fake():
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def connected(tmp_path, fake):
    """A house with the upstream `fake`, which has two keys."""
    upstream = {
        "name": "fake",
        "base_url": fake.url,
        "api_keys": [SECRET, f"{SECRET}-2"],
        "allow_private": True,
    }
    models = [MODELS[0] | {"routes": [{"upstream": "fake", "model": "theirs"}]}]
    made = house(tmp_path / "connected", upstreams=[upstream], models=models)
    yield made
    made.db.close()


def test_a_test_makes_one_tiny_call_with_each_key_and_tells_the_time(connected, fake):
    desk = connected.browser(connected.member("carol", role="admin"))
    fake.always(plain(usage(5, 3)))
    assert desk.send("/admin/upstreams/fake/test").status_code == 303
    html = desk.page("/admin/upstreams")
    assert re.search(
        r"fake, key 1 answered for plain-1 in \d+ ms\. .*fake, key 2 answered", text(html)
    )
    assert [each.headers["authorization"] for each in fake.requests] == [
        f"Bearer {SECRET}",
        f"Bearer {SECRET}-2",
    ]
    assert fake.requests[0].json["max_tokens"] <= 16 and fake.requests[0].json["model"] == "theirs"
    assert SECRET not in html
    noted = trail(connected, "upstream.test")[0]
    assert (noted["by"], noted["detail"]["outcome"]) == ("carol", ["ok", "ok"])
    assert connected.db.read().execute("SELECT count(*) FROM requests").fetchone()[0] == 0


@pytest.mark.parametrize(
    "script, code",
    [
        (
            answer({"error": {"message": f"bad key {SECRET}, call +86 123"}}, status=401),
            "upstream_account",
        ),
        (
            answer(
                {"error": {"message": "no such <b>model</b>", "code": "their-word"}}, status=404
            ),
            "upstream_",
        ),
        (answer({"error": {"message": "wait"}}, status=429), "upstream_overloaded"),
        (answer(b"<html>nginx</html>", status=502), "upstream_error"),
        (answer(b"not json"), "upstream_error"),
    ],
)
def test_a_failed_test_tells_a_code_and_the_providers_words_without_the_key(
    connected, fake, script, code
):
    desk = connected.browser(connected.member("carol", role="admin"))
    fake.always(script)
    desk.send("/admin/upstreams/fake/test", model="plain-1")
    html = desk.page("/admin/upstreams")
    assert "key 1 failed for plain-1" in html and code in html
    for word in (SECRET, "their-word", "<b>model", "nginx"):
        assert word not in html
    assert connected.relay.upstream_report()[0]["state"] == "ok"  # a test puts nothing to rest


def test_a_test_that_is_answered_ends_the_rest_of_an_upstream(connected, fake):
    desk = connected.browser(connected.member("carol", role="admin"))
    raw = tokens.mint(connected.db, connected.member("alice", wallet="5").id, "laptop")[1]
    fake.always(answer({"error": {"message": "no"}}, status=401))
    ask = {
        "json": {"model": "plain-1", "messages": [{"role": "user", "content": "hi"}]},
        "headers": {"Authorization": f"Bearer {raw}"},
    }
    connected.app.test_client().post("/api/v1/chat/completions", **ask)
    html = desk.page("/admin/upstreams")
    assert "Rejected our key" in html and "upstream_account" in html
    fake.always(plain(usage(5, 3)))
    desk.send("/admin/upstreams/fake/test")
    assert connected.relay.upstream_report()[0]["state"] == "ok"
    assert connected.app.test_client().post("/api/v1/chat/completions", **ask).status_code == 200
    seen = desk.read("/admin/upstreams")
    assert "Recent requests 2, of which 50% failed" in seen, seen


def test_an_upstream_that_is_not_there_cannot_be_tested(connected):
    desk = connected.browser(connected.member("carol", role="admin"))
    for name in ("other", "demo", "..%2F..%2Fetc"):
        assert desk.send(f"/admin/upstreams/{name}/test").status_code == 404


def test_tests_cannot_be_made_without_end(desk):
    answers = [desk.send("/admin/upstreams/nobody/test").status_code for _ in range(21)]
    assert answers == [404] * 20 + [429]


def test_the_demo_is_shown_and_tested_like_an_upstream(home, desk):
    desk.send("/admin/upstreams/demo/test", model="gratis-3")
    assert "demo answered for gratis-3" in desk.read("/admin/upstreams")


def test_an_upstream_without_a_key_is_named_and_not_asked(tmp_path, fake):
    keyless = {
        "name": "north",
        "base_url": "https://north.example/v1",
        "api_key": "$NO_SUCH_VARIABLE",
    }
    made = house(
        tmp_path,
        upstreams=[keyless, {"name": "fake", "base_url": fake.url, "allow_private": True}],
        models=[MODELS[0] | {"routes": [{"upstream": "fake", "model": "x"}]}],
    )
    desk = made.browser(made.member("carol", role="admin"))
    seen = desk.read("/admin/upstreams")
    assert re.search(r"Keys none needed", seen) and re.search(
        r"No key .* north https://north.example/v1", seen
    )
    assert desk.send("/admin/upstreams/north/test").status_code == 404
    made.db.close()


# ---- models and settings


@pytest.fixture
def config(home, tmp_path, monkeypatch):
    """A function that writes the config.toml which a reload reads."""
    path = tmp_path / "config.toml"
    monkeypatch.setenv("RELAY_CONFIG", str(path))

    def write(**tables):
        given = {
            "database": {"path": str(home.db.path)},
            "models": MODELS,
            "upstreams": [],
        } | tables
        path.write_text(
            "".join(f"{name} = {toml(value)}\n" for name, value in given.items()), encoding="utf-8"
        )

    return write


def test_models_are_shown_as_configured_with_the_price_of_each_plan(tmp_path):
    models = [
        *MODELS,
        {"id": "off-4", "enabled": False, "prices": MODELS[0]["prices"]},
        {"id": "unpriced-5"},
    ]
    made = house(tmp_path, models=models)
    seen = made.browser(made.member("carol", role="admin")).read("/admin/models")
    assert re.search(
        r"Plain 1 plain-1 · Acme 128K context, 8K output – ¥2 Pro: ¥1.6 ¥0.5 Pro: ¥0.4 ¥8 Pro: ¥6.4",
        seen,
    )
    assert re.search(r"off-4 .*Switched off.*unpriced-5.*No price", seen)
    assert re.search(r"Pro pro ¥29.90 ¥40.00 30 600 none 80%", seen)
    made.db.close()


def test_a_reload_takes_over_the_file_and_is_in_the_trail(home, desk, config):
    config(
        site={"name": "Another name"}, models=[MODELS[0] | {"id": "fresh-9", "title": "Fresh 9"}]
    )
    assert desk.send("/admin/models/reload").status_code == 303
    seen = desk.read("/admin/models")
    assert (
        "The settings are in force from now on." in seen
        and "fresh-9" in seen
        and "Another name" in seen
    )
    assert trail(home, "settings.reload")[0]["by"] == "carol"


def test_a_reload_of_a_bad_file_names_each_mistake_and_changes_nothing(home, desk, config):
    config(site={"name": "", "colour": "<b>"}, billing={"overdraft": "-1"})
    seen = desk.text(desk.send("/admin/models/reload"))
    for words in (
        "The file has 3 mistakes.",
        "site.name: must be a name",
        "site.colour: is not a setting",
        "billing.overdraft: must be an amount",
    ):
        assert words in seen, words
    assert home.relay.settings.site.name == "PingToken"
    assert trail(home, "settings.reload")[0]["detail"]["mistakes"] == 3


def test_a_file_can_be_checked_before_it_is_in_force(home, desk, config):
    config(site={"name": "Another name"})
    desk.send("/admin/models/reload", check="1")
    assert "The file has no mistakes." in desk.read("/admin/models")
    assert home.relay.settings.site.name == "PingToken"
    config(site={"name": 5})
    assert "The file has 1 mistake." in desk.text(desk.send("/admin/models/reload", check="1"))
    assert trail(home, "settings.reload") == []


# ---- the system


def test_the_system_page_says_how_the_house_is(home, alice, desk):
    home.called(alice, home.token(alice))
    seen = desk.read("/admin/system")
    for words in (
        "Version 1.0.0",
        "Demo mode",
        "Writable",
        "Members 2",
        "API keys 1",
        "beginning 1",
        "free of",
        str(home.db.path),
        "kept for 90 days",
    ):
        assert words in seen, words


def test_the_system_page_says_that_the_clock_is_in_doubt(home, desk):
    assert "Clock Steady" in desk.read("/admin/system")
    home.relay.clock.problem = "jumped 2 days forward"
    seen = desk.read("/admin/system")
    assert "Clock In doubt It jumped 2 days forward. Until it has held" in seen


def test_the_ledger_is_proved_on_demand(home, alice, desk):
    home.called(alice, home.token(alice))
    assert desk.send("/admin/system/verify").headers["Location"] == "/admin/system#ledger"
    assert "The ledger was right at" in desk.read("/admin/system")
    assert trail(home, "ledger.verify")[0]["by"] == "carol"
    with sqlite3.connect(home.db.path) as conn:
        conn.execute(
            "UPDATE balances SET wallet_balance = wallet_balance + 1 WHERE user_id = ?", (alice.id,)
        )
    desk.send("/admin/system/verify")
    seen = desk.read("/admin/system")
    assert (
        re.search(r"The ledger was wrong in \d+ places?", seen)
        and "alice: the wallet balance is" in seen
    )
    assert len(meta.get(home.db, "proof")["wrong"]) >= 1


def test_a_backup_is_a_whole_database_and_leaves_nothing_behind(home, alice, desk, tmp_path):
    answer = desk.send("/admin/system/backup")
    assert answer.headers["Content-Disposition"].startswith("attachment; filename=relay-")
    assert answer.headers["Cache-Control"] == "no-store" and answer.content_length == len(
        answer.data
    )
    (tmp_path / "saved.db").write_bytes(answer.data)
    with sqlite3.connect(tmp_path / "saved.db") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        saved = copy.execute(
            "SELECT wallet_balance FROM balances WHERE user_id = ?", (alice.id,)
        ).fetchone()
        assert saved[0] == nano("50")
    answer.close()
    assert [each.name for each in home.db.path.parent.iterdir() if "backup" in each.name] == []
    assert trail(home, "database.backup")[0]["by"] == "carol"


def test_a_disk_that_refuses_the_backup_is_said_in_a_sentence(home, desk, monkeypatch):
    from db import StorageError

    def refuse(_target):
        raise StorageError("disk full")

    monkeypatch.setattr(home.db, "backup", refuse)
    answer = desk.send("/admin/system/backup")
    assert answer.status_code == 503 and "cannot save anything right now" in desk.text(answer)
    assert [each.name for each in home.db.path.parent.iterdir() if "backup" in each.name] == []


# ---- the trail


def test_the_trail_is_read_filtered_and_saved(home, alice, bob, desk):
    credit(desk, alice, note="=1+1")
    desk.send(f"/admin/members/{bob.id}/disable")
    seen = desk.read("/admin/audit")
    assert re.search(r"Member disabled bob carol", seen)
    assert re.search(r"Top-up alice carol account Wallet amount ¥10.00 note =1\+1", seen)
    filtered = desk.read("/admin/audit?action=member.disable&who=bob").partition("Details")[2]
    assert "Member disabled" in filtered and "Top-up" not in filtered
    folded = desk.read("/admin/audit?action=member.disable&who=BoB").partition("Details")[2]
    assert "Member disabled bob carol" in folded
    assert "No action fits" in desk.read("/admin/audit?who=nobody")
    head, *lines = cells(desk.get("/admin/audit.csv?action=ledger.top_up"))
    assert head == ["id", "at", "by", "action", "target", "detail"]
    assert lines[0][2:5] == ["carol", "ledger.top_up", "alice"]


def acts(home, alice, bob, desk) -> dict:
    """Every form of administrators.

    Endpoint -> (path, fields, the action that the trail must have).
    """
    plans.give_plan(home.db, alice.id, "pro", quota=5, days=3, renew=True)
    codes.make(home.db, "wallet", 1, amount=5)
    given, token = plans.active(home.db, alice.id)[0].id, home.token(alice)
    code, of_alice = (
        codes.listed().page(home.db.read()).rows[0]["id"],
        f"/admin/members/{alice.id}",
    )
    elsewhere = {"issuer": "https://sso.example", "subject": "alice-there"}
    identities.connect(home.db, alice.id, **elsewhere)
    ops = teams.add(home.db, "ops").id
    of_ops = f"/admin/teams/{ops}"
    return {
        "add_team": ("/admin/teams", {"name": "web"}, "team.add"),
        "credit_team": (
            f"{of_ops}/credit",
            {
                "credit-key": "k",
                "credit-amount": "1",
                "credit-kind": "refund",
                "credit-note": "x",
            },
            "ledger.refund",
        ),
        "join_team": (f"{of_ops}/join", {"join-name": "alice"}, "team.join"),
        "leave_team": (f"{of_ops}/leave/{alice.id}", {}, "team.leave"),
        "set_team": (f"{of_alice}/team", {"team-team": ops}, "team.join"),
        "close_team": (f"{of_ops}/close", {}, "team.close"),
        "reopen_team": (f"{of_ops}/reopen", {}, "team.reopen"),
        "new_member": ("/admin/members/new", {"name": "dora", "role": "member"}, "member.add"),
        "credit": (
            f"{of_alice}/credit",
            {
                "credit-key": "k",
                "credit-pocket": "wallet",
                "credit-amount": "1",
                "credit-kind": "refund",
                "credit-note": "x",
            },
            "ledger.refund",
        ),
        "give_plan": (f"{of_alice}/plan", {"plan-key": "k", "plan-plan": "pro"}, "plan.give"),
        "stop_renewal": (f"{of_alice}/plans/{given}/stop", {}, "plan.stop_renewal"),
        "end_plan": (f"{of_alice}/plans/{given}/end", {}, "plan.end"),
        "revoke_token": (f"{of_alice}/tokens/{token}/revoke", {}, "token.revoke"),
        "end_sessions": (f"{of_alice}/sessions", {}, "member.end_sessions"),
        "disconnect": (f"{of_alice}/disconnect", dict(elsewhere), "member.disconnect"),
        "reset_password": (f"{of_alice}/password", {"password-password": ""}, "member.password"),
        "set_role": (f"/admin/members/{bob.id}/role", {"role": "admin"}, "member.role"),
        "disable": (f"{of_alice}/disable", {}, "member.disable"),
        "enable": (f"{of_alice}/enable", {}, "member.enable"),
        "new_codes": (
            "/admin/codes/new",
            {"key": "k", "kind": "grant", "amount": "5", "count": "1"},
            "code.make",
        ),
        "revoke_codes": ("/admin/codes/revoke", {"code": code}, "code.revoke"),
        "codes_file": (
            "/admin/codes/file",
            {"codes": "x"},
            None,
        ),  # gives back what was sent, and does nothing
        "test_upstream": ("/admin/upstreams/demo/test", {}, "upstream.test"),
        "try_connecting": (
            "/admin/upstreams/new",
            {"base_url": "http://127.0.0.1:9/v1", "key": "x"},
            "upstream.test",
        ),
        "ask_upstream": ("/admin/upstreams/demo/ask", {}, "upstream.test"),
        # The journeys of connecting have these at work; here they find nothing that is theirs.
        "keep_upstream": ("/admin/upstreams/keep", {"draft": "of nobody"}, None),
        "rotate_upstream": ("/admin/upstreams/demo/key", {"key": "x"}, None),
        "edit_upstream": ("/admin/upstreams/demo/edit", {"base_url": "http://x/v1"}, None),
        "switch_upstream": ("/admin/upstreams/demo/switch", {"on": "0"}, None),
        "remove_upstream": ("/admin/upstreams/demo/remove", {}, None),
        "decide_credit": (
            f"/admin/credit-requests/{credit_requests.ask(home.db, bob.id, 5, 'x').id}",
            {"amount": "5"},
            "credit.grant",
        ),
        "set_caps": (f"{of_alice}/caps", {"caps-day": "5"}, "user.cap"),
        "test_notice": ("/admin/system/notice", {}, "notice.test"),
        "accept_prices": ("/admin/models/prices", {}, None),
        "reload": ("/admin/models/reload", {}, "settings.reload"),
        "verify": ("/admin/system/verify", {}, "ledger.verify"),
        "backup": ("/admin/system/backup", {}, "database.backup"),
    }


def test_whatever_an_administrator_does_is_in_the_trail_by_name(home, alice, bob, desk, config):
    """Walks the map of addresses: a new form is either here or forgotten."""
    config()
    forms = acts(home, alice, bob, desk)
    assert set(forms) == {
        rule.endpoint.removeprefix("admin.")
        for rule in home.app.url_map.iter_rules()
        if rule.endpoint.startswith("admin.") and "POST" in (rule.methods or ())
    }
    for path, fields, action in forms.values():
        before = len(audit.trail(home.db))
        answer = desk.send(path, **fields)
        assert answer.status_code in (200, 303), path
        answer.close()
        rows = audit.trail(home.db)
        new = rows[: len(rows) - before]
        assert {row["by"] for row in new} == ({"carol"} if action else set()), path
        assert action is None or action in {row["action"] for row in new}, path
    assert "Audit trail" in desk.page("/admin/audit")


@pytest.mark.parametrize(
    "form", ["credit", "give_plan", "new_codes", "stop_renewal", "end_plan", "revoke_codes"]
)
def test_a_form_that_moves_money_does_so_once_though_it_is_sent_by_two_hands_at_once(
    home, alice, bob, desk, form
):
    path, fields, action = acts(home, alice, bob, desk)[form]
    browsers = [home.browser(accounts.named(home.db, "carol")) for _ in range(2)]
    before = len(trail(home, action))
    threads = [
        threading.Thread(target=browser.send, args=(path,), kwargs=fields) for browser in browsers
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(trail(home, action)) - before == 1 and verify.verify(home.db) == []


def test_every_action_that_is_noted_has_a_name(home):
    """Walks the code: whatever is noted in the trail has a word in ACTIONS."""
    from console.admin.audit import ACTIONS

    root = pathlib.Path(home.app.root_path)
    folders = ("members", "relay", "console", "commands", "server")
    paths = [
        *root.glob("*.py"),
        *(path for each in folders for path in (root / each).rglob("*.py")),
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    topics = {each.partition(".")[0] for each in ACTIONS}
    noted = set(
        re.findall(rf'(?<!back_to\()(?<!url_for\()"((?:{"|".join(topics)})\.[a-z_]+)"', text)
    )
    assert noted >= {"member.add", "code.make", "token.revoke", "plan.give"}
    assert noted <= set(ACTIONS)


def test_every_sentence_of_the_administrators_pages_is_in_chinese():
    assert {one: place for one, place in i18n.missing("zh").items() if "admin" in place} == {}


def test_every_page_reads_few_rows_however_many_there_are(home, alice, desk):
    """No list is counted, skipped through, or asked for again for each of its rows."""
    token = home.token(alice)
    asked, counts = [], []
    for many in (1, 30):
        for number in range(many):
            home.called(alice, token)
            home.member(f"member-{many}-{number}")
        home.db.read().set_trace_callback(asked.append)
        for path in (
            "/admin/",
            "/admin/members",
            f"/admin/members/{alice.id}",
            "/admin/calls",
            "/admin/codes",
            "/admin/audit",
            "/admin/upstreams",
            "/admin/models",
            "/admin/system",
        ):
            desk.page(path)
        home.db.read().set_trace_callback(None)
        counts.append(len(asked))
        assert not [sql for sql in asked if "OFFSET" in sql.upper()]
        asked.clear()
    assert counts[0] == counts[1]


def test_a_proof_that_takes_long_is_waited_for_elsewhere(home, desk, monkeypatch):
    from console.admin import system

    opened = threading.Event()
    monkeypatch.setattr(system.jobs, "PATIENCE_S", 0.01)
    monkeypatch.setattr(system.jobs, "prove", lambda db: opened.wait(60))
    desk.send("/admin/system/verify")
    assert "It is being computed now." in desk.read("/admin/system")
    desk.send("/admin/system/verify")  # no second one beside it
    assert len(trail(home, "ledger.verify")) == 1
    opened.set()
    until = time.monotonic() + 60
    while "It is being computed now." in desk.read("/admin/system") and time.monotonic() < until:
        pass
    assert "It is being computed now." not in desk.read("/admin/system")


def test_a_members_tokens_are_counted_on_the_page(home, alice, desk):
    token = home.token(alice, "laptop")
    home.called(alice, token)
    gate.revoke(home.db, home.token(alice, "old"), alice.id)
    assert re.search(
        r"old sk-\S+ all models Revoked never 0 ¥0.00 laptop sk-\S+ all models until revoked",
        desk.read(f"/admin/members/{alice.id}"),
    )


def test_the_bill_of_a_provider_stands_by_model_kind_and_day(connected, fake):
    desk = connected.browser(connected.member("carol", role="admin"))
    assert "No requests in this month" in desk.page("/admin/upstreams/fake/bill")
    alice = connected.member("alice")
    attempts = [{"upstream": "fake", "model": "theirs", "status": 200, "ms": 5}]
    connected.called(
        alice, connected.token(alice), attempts=attempts, upstream="fake", upstream_cost=7
    )
    html = desk.page("/admin/upstreams/fake/bill")
    assert "theirs" in html and "¥0.000000007" in html
    assert "write it like 2026-11" in desk.page("/admin/upstreams/fake/bill?month=soon")
    assert "No requests in this month" in desk.page("/admin/upstreams/fake/bill?month=2020-02")
    file = desk.get("/admin/upstreams/fake/bill.csv").get_data(as_text=True)
    assert file.lstrip("\ufeff").startswith("day,model,kind,count,upstream_cost,charged,difference")
    assert "theirs,undivided" in file
    assert desk.get("/admin/upstreams/nobody/bill").status_code == 404


def test_the_catalogues_prices_are_accepted_one_by_one(connected, monkeypatch):
    desk = connected.browser(connected.member("carol", role="admin"))
    route = {"upstream": "fake", "model": "theirs"}
    row = {"id": "other-1", "routes": [route], "prices": {"input": "3", "output": "9"}}
    hostile = {"id": "plain-1", "routes": [route], "prices": {"input": "0", "output": "9"}}
    monkeypatch.setattr(pricelist, "read", lambda path=None: [row, hostile])
    html = desk.page("/admin/models/prices")
    assert "other-1" in html and "zero is no price" in html
    desk.send("/admin/models/prices")
    taken = []
    monkeypatch.setattr(pricelist, "accept", lambda relay, changes: taken.extend(changes))
    assert desk.send("/admin/models/prices", pick="other-1").status_code == 303
    assert [each.id for each in taken] == ["other-1"]
    assert trail(connected, "models.price")[0]["detail"]["prices"]["input"] == [None, "3"]


def test_limits_of_a_member_are_set_shown_and_lifted(home, alice, desk):
    page = f"/admin/members/{alice.id}"
    assert (
        desk.send(f"{page}/caps", **{"caps-day": "5", "caps-models": "plain-1, "}).status_code
        == 303
    )
    assert caps.of(home.db, alice.id) == caps.Caps(5 * 10**9, None, ("plain-1",))
    html = desk.page(page)
    assert 'value="5.00"' in html and 'value="plain-1"' in html
    assert "There is no model nothing" in text(
        desk.send(f"{page}/caps", **{"caps-models": "nothing"}).get_data(as_text=True)
    )
    assert desk.send(f"{page}/caps", **{"caps-day": "-1"}).status_code == 200
    desk.send(f"{page}/caps", **{"caps-day": ""})
    assert caps.of(home.db, alice.id) == caps.Caps()
    assert len(trail(home, "user.cap")) == 2


def test_a_plan_lasts_for_days_or_for_calendar_months(home, bob, desk):
    path = f"/admin/members/{bob.id}"
    fields = {"plan-plan": "pro", "plan-days": "3", "plan-monthly": "y", "plan-key": "k"}
    answer = desk.send(f"{path}/plan", **fields)
    assert "not both" in answer.get_data(as_text=True)
