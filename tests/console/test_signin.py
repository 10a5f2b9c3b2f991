"""Coming in and going out: first start, registration, sign-in, sessions and how they end."""

import re

import pytest

import billing
from console.member import signin
from members import accounts
from tests.console.member_stage import PASSWORD, error_of, house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice", wallet="10")


@pytest.fixture
def carol(home):
    return home.member("carol", role="admin")


def signed_in(browser) -> bool:
    return browser.get("/console").status_code == 200


# First start


def test_the_key_of_the_first_start_makes_one_administrator_and_no_second(home):
    key, browser = accounts.setup_key(home.db), home.browser()
    assert "make the first administrator" in browser.read(f"/setup?key={key}")
    answer = browser.send(
        f"/setup?key={key}", name="carol", password=PASSWORD, again=PASSWORD, key=key
    )
    assert answer.headers["Location"] == "/console"
    assert accounts.named(home.db, "carol").admin
    assert "You are the administrator" in browser.read("/console")
    assert home.browser().get(f"/setup?key={key}").status_code == 404
    home.browser().send("/setup", name="mallory", password=PASSWORD, again=PASSWORD, key=key)
    assert accounts.named(home.db, "mallory") is None


def test_the_first_administrator_gets_the_reward_of_who_signs_up(home):
    key = accounts.setup_key(home.db)
    home.browser().send("/setup", name="carol", password=PASSWORD, again=PASSWORD, key=key)
    held = billing.balances(home.db, accounts.named(home.db, "carol").id)["balance"]
    assert held.grant == 100_000
    assert billing.verify(home.db) == []


@pytest.mark.parametrize("query", ["", "?key=", "?key=wrong", "?key=%00", "?key=" + "x" * 5000])
def test_without_the_key_there_is_no_setting_up(home, query):
    accounts.setup_key(home.db)
    answer = home.browser().get("/setup" + query)
    assert answer.status_code == 404
    assert "is not valid" in home.browser().text(answer)


def test_a_bad_password_at_the_first_start_leaves_the_key_good(home):
    key = accounts.setup_key(home.db)
    html = (
        home.browser()
        .send("/setup", name="carol", password="short", again="short", key=key)
        .get_data(as_text=True)
    )
    assert "8 to 128" in error_of(html, "password")
    assert accounts.setup_key_is(home.db, key)


# Signing in


@pytest.mark.parametrize(
    "name", ["alice", "nobody", "shut-out", "", "x" * 64, "小明", "' OR 1=1 --"]
)
def test_a_wrong_name_and_a_wrong_password_get_one_answer(home, alice, name):
    accounts.disable(home.db, home.member("shut-out").id)
    secret = PASSWORD if name == "shut-out" else "wrong password"
    answer = home.browser().send("/login", name=name, password=secret)
    html = answer.get_data(as_text=True)
    assert answer.status_code == 200
    assert ("The name or the password is wrong." in html) == bool(name)
    assert secret not in html


def test_an_unknown_name_costs_as_much_hashing_as_a_known_one(home, alice, monkeypatch):
    hashed = []
    monkeypatch.setattr(
        accounts, "check_password_hash", lambda *given: hashed.append(given) or False
    )
    for name in ("alice", "nobody"):
        home.browser().send("/login", name=name, password="wrong password")
    assert len(hashed) == 2
    assert {stored.split("$")[0] for stored, _ in hashed} == {"scrypt:32768:8:1"}


def test_the_sixth_try_within_a_minute_is_turned_away_before_it_is_checked(
    home, alice, monkeypatch
):
    tried = []
    monkeypatch.setattr(accounts, "authenticate", lambda *given: tried.append(given))
    answers = [
        home.browser().send("/login", name="alice", password="wrong password") for _ in range(6)
    ]
    assert [each.status_code for each in answers] == [200] * 5 + [429]
    assert len(tried) == 5
    assert 1 <= int(answers[5].headers["Retry-After"]) <= 60
    assert 'value="alice"' in answers[5].get_data(as_text=True)


def test_a_member_under_attack_still_gets_in_from_elsewhere(home, alice):
    for _ in range(7):
        home.browser().send("/login", name="ALICE", password="wrong password")
    assert (
        home.browser(address="10.0.0.9").send("/login", name="alice", password=PASSWORD).status_code
        == 303
    )


def test_one_address_cannot_try_many_names(home, monkeypatch):
    monkeypatch.setattr(accounts, "authenticate", lambda *given: None)
    browser = home.browser(address="2001:db8::1")
    codes = [browser.send("/login", name=f"name-{n}", password="x").status_code for n in range(21)]
    assert codes == [200] * 20 + [429]
    browser.address = (
        "2001:db8::ffff"  # the same network: IPv6 gives everybody billions of addresses
    )
    assert browser.send("/login", name="name-99", password="x").status_code == 429


def test_signing_in_takes_the_count_back(home, alice):
    for _ in range(3):
        for _ in range(4):
            home.browser().send("/login", name="alice", password="wrong password")
        assert home.browser().send("/login", name="alice", password=PASSWORD).status_code == 303


def test_a_huge_password_is_refused_without_hashing(home, alice, monkeypatch):
    monkeypatch.setattr(accounts, "check_password_hash", lambda *given: pytest.fail("hashed"))
    answer = home.browser().send("/login", name="alice", password="x" * 100_000)
    assert "The name or the password is wrong." in home.browser().text(answer)


@pytest.mark.parametrize(
    "wish, leads_to",
    [
        ("/console/usage?token=1", "/console/usage?token=1"),
        ("https://evil.example", "/console"),
        ("//evil.example", "/console"),
        ("/\\evil.example", "/console"),
        ("javascript:alert(1)", "/console"),
        ("", "/console"),
        ("/\tx", "/console"),
    ],
)
def test_signing_in_leads_back_where_one_was_and_never_off_the_site(home, alice, wish, leads_to):
    browser = home.browser()
    answer = browser.client.post(
        "/login",
        query_string={"next": wish},
        data={"csrf_token": browser.csrf(), "name": "alice", "password": PASSWORD},
    )
    assert answer.headers["Location"] == leads_to


def test_who_is_not_signed_in_is_asked_to_and_brought_back(home, alice):
    browser = home.browser()
    answer = browser.get("/console/usage?model=plain-1")
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/login?next=")
    again = browser.client.post(
        answer.headers["Location"],
        data={"csrf_token": browser.csrf(), "name": "alice", "password": PASSWORD},
    )
    assert again.headers["Location"] == "/console/usage?model=plain-1"


# Sessions


def test_a_session_begins_anew_at_sign_in(home, alice):
    browser = home.browser()
    before = browser.csrf()
    browser.send("/login", name="alice", password=PASSWORD)
    assert browser.csrf() != before
    cookie = browser.client.get_cookie("session")
    assert cookie.http_only and cookie.same_site == "Lax" and cookie.path == "/"


def test_the_cookie_holds_no_secret_of_the_member(home, alice):
    browser = home.browser(alice)
    with browser.client.session_transaction() as kept:
        assert PASSWORD not in str(dict(kept)) and "scrypt" not in str(dict(kept))


def test_a_new_password_ends_all_other_sessions(home, alice):
    here, elsewhere = home.browser(alice), home.browser(alice)
    answer = here.send(
        "/console/account/password",
        current=PASSWORD,
        password="another long one",
        again="another long one",
    )
    assert answer.headers["Location"] == "/console/account"
    assert signed_in(here) and not signed_in(elsewhere)
    assert accounts.authenticate(home.db, "alice", "another long one")


def test_signing_out_everywhere_asks_first_and_ends_all_sessions(home, alice):
    here, elsewhere = home.browser(alice), home.browser(alice)
    assert "this one too" in here.read("/console/account/sessions")
    assert signed_in(elsewhere)
    here.send("/console/account/sessions")
    assert not signed_in(here) and not signed_in(elsewhere)


def test_a_copied_cookie_is_worth_nothing_after_signing_out_everywhere(home, alice):
    browser = home.browser(alice)
    stolen = browser.client.get_cookie("session").value
    browser.send("/console/account/sessions")
    thief = home.browser()
    thief.client.set_cookie("session", stolen)
    assert not signed_in(thief)


def test_a_disabled_member_is_out_at_the_next_click(home, alice, carol):
    browser = home.browser(alice)
    accounts.disable(home.db, alice.id)
    assert not signed_in(browser)
    accounts.enable(home.db, alice.id)
    assert not signed_in(browser)


@pytest.mark.parametrize(
    "keep, age_s, idle_s, still",
    [
        (False, 3600, 3600, True),
        (False, 13 * 3600, 13 * 3600, False),
        (True, 13 * 3600, 13 * 3600, True),
        (True, 15 * 24 * 3600, 60, False),
        (False, 15 * 24 * 3600, 60, False),
    ],
)
def test_a_session_ends_after_idle_hours_or_two_weeks(home, alice, keep, age_s, idle_s, still):
    browser = home.browser()
    browser.send("/login", name="alice", password=PASSWORD, **({"keep": "y"} if keep else {}))
    with browser.client.session_transaction() as kept:
        assert kept.permanent == keep
        kept["since"] -= age_s
        kept["seen"] -= idle_s
    assert signed_in(browser) == still


def test_signing_out_takes_a_form(home, alice):
    browser = home.browser(alice)
    assert browser.get("/logout").status_code == 405
    assert signed_in(browser)
    assert browser.client.post("/logout").status_code == 400
    browser.send("/logout")
    assert not signed_in(browser)


def test_a_members_language_greets_on_a_new_device(home):
    ming = home.member("小明", language="zh")
    browser = home.browser(ming, language="en")
    assert "概览" in browser.read("/console")
    browser.send("/console/account/language", language="en")
    assert accounts.find(home.db, ming.id).language == "en"
    assert "Overview" in browser.read("/console")
    browser.send("/console/account/language", language="xx")
    assert accounts.find(home.db, ming.id).language == "en"


# Registration


def register(browser, path="/register", name="dora", password=PASSWORD, again=None, **more):
    return browser.send(
        path, name=name, password=password, again=password if again is None else again, **more
    )


def test_an_open_house_lets_anybody_register(tmp_path):
    home = house(tmp_path, accounts={"registration": "open"})
    browser = home.browser()
    assert "You start with 100,000 tokens" in browser.read("/register")
    assert register(browser).status_code == 303
    assert signed_in(browser)
    dora = accounts.named(home.db, "dora")
    assert dora.role == "member" and billing.balances(home.db, dora.id)["balance"].grant == 100_000


def test_by_invitation_only_who_has_a_link_can_register(home, alice):
    browser = home.browser()
    html = register(browser).get_data(as_text=True)
    assert "This invite is not valid" in error_of(html, "invite")
    assert 'value="dora"' in html and PASSWORD not in html
    assert accounts.named(home.db, "dora") is None
    path = f"/register?invite={alice.invite_code}"
    assert "alice invites you." in browser.read(path)
    assert register(browser, path, invite=alice.invite_code).status_code == 303
    assert accounts.named(home.db, "dora").invited_by == alice.id
    assert accounts.invited(home.db, alice.id)[0]["reward"] == 50_000


def test_a_broken_invite_is_named_and_can_be_mended(home, alice):
    html = register(home.browser(), "/register?invite=broken", invite="broken").get_data(
        as_text=True
    )
    assert "This invite is not valid" in error_of(html, "invite")
    assert (
        register(home.browser(), "/register?invite=broken", invite=alice.invite_code).status_code
        == 303
    )


def test_a_closed_house_says_so_and_makes_nobody(tmp_path):
    home = house(tmp_path, accounts={"registration": "closed"})
    alice = home.member("alice")
    browser = home.browser()
    assert "Registration is closed" in browser.read("/register")
    register(browser, invite=alice.invite_code)
    assert accounts.named(home.db, "dora") is None
    assert "/register" not in browser.page("/login")


@pytest.mark.parametrize(
    "password, says",
    [
        ("", "Type a password."),
        ("short", "8 to 128"),
        ("x" * 129, "8 to 128"),
        ("password123", "common passwords"),
        ("PASSWORD123", "common passwords"),
        ("aaaaaaaa", "common passwords"),
        ("dora-the-explorer", "your name"),
    ],
)
def test_a_weak_password_is_refused_beside_its_field(home, alice, password, says):
    html = register(
        home.browser(), name="dora-the-explorer", password=password, invite=alice.invite_code
    ).get_data(as_text=True)
    assert says in error_of(html, "password")
    assert 'value="dora-the-explorer"' in html
    assert accounts.named(home.db, "dora-the-explorer") is None


def test_a_mistyped_repetition_is_noticed(home, alice):
    html = register(home.browser(), again="something else", invite=alice.invite_code).get_data(
        as_text=True
    )
    assert error_of(html, "again") == "The two passwords differ."


@pytest.mark.parametrize(
    "name, says",
    [
        ("ALICE", "Somebody has this name"),
        ("a\u202eb", "visible"),
        ("", "Type a name"),
        ("x" * 65, "At most 64"),
    ],
)
def test_a_name_that_will_not_do_is_refused_beside_its_field(home, alice, name, says):
    html = register(home.browser(), name=name, invite=alice.invite_code).get_data(as_text=True)
    assert says in error_of(html, "name")


def test_nobody_becomes_administrator_by_sending_more_fields(home, alice):
    register(
        home.browser(),
        invite=alice.invite_code,
        role="admin",
        is_admin="1",
        id="1",
        user_id="1",
        wallet="1000000",
        signup_reward="9999999",
        language="en",
    )
    dora = accounts.named(home.db, "dora")
    assert dora.role == "member"
    assert billing.balances(home.db, dora.id)["balance"] == billing.Pockets(100_000, 0, 0)


def test_one_address_cannot_register_without_end(home, alice, monkeypatch):
    monkeypatch.setattr(signin, "REGISTRATIONS", "2 per hour")
    codes = [
        register(home.browser(), name=f"dora-{n}", invite=alice.invite_code).status_code
        for n in range(3)
    ]
    assert codes == [303, 303, 429]
    assert (
        register(
            home.browser(address="10.1.1.1"), name="dora-9", invite=alice.invite_code
        ).status_code
        == 303
    )


def test_who_is_signed_in_needs_no_door(home, alice):
    browser = home.browser(alice)
    assert browser.get("/login").headers["Location"] == "/console"
    assert browser.get("/register").headers["Location"] == "/console"


@pytest.mark.parametrize("path", ["/login", "/register", "/register?invite=x"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_doors_keep_to_the_content_policy(home, path, language):
    html = home.browser(language=language).page(path)
    assert html.count("<h1") == 1
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", html)


# Passwords


@pytest.mark.parametrize(
    "fields, where, says",
    [
        ({"current": "wrong password"}, "current", "not your password"),
        ({"current": ""}, "current", "Type your password"),
        ({"password": "alice", "again": "alice"}, "password", "8 to 128"),
        ({"again": "other"}, "again", "differ"),
    ],
)
def test_a_password_is_changed_only_with_the_old_one_and_a_good_new_one(
    home, alice, fields, where, says
):
    given = {
        "current": PASSWORD,
        "password": "another long one",
        "again": "another long one",
    } | fields
    html = home.browser(alice).send("/console/account/password", **given).get_data(as_text=True)
    assert says in error_of(html, where)
    assert accounts.authenticate(home.db, "alice", PASSWORD)


def test_the_old_password_cannot_be_guessed_from_an_open_session(home, alice):
    browser = home.browser(alice)
    codes = [
        browser.send(
            "/console/account/password",
            current=f"guess-{n}",
            password="another long one",
            again="another long one",
        ).status_code
        for n in range(6)
    ]
    assert codes == [200] * 5 + [429]
