"""Single sign-on as it was broken once: by HEAD, by many tabs, by addresses that were edited, by
names that look like another's.
"""

import secrets
import time
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from members import accounts, identities, way_in
from tests.console import test_sign_on as stage
from tests.console.test_sign_on import (
    age,
    ask,
    come,
    connect,
    led,
    signed_in,
    token_of,
    trail,
    way_back,
)

company, make_home, home = stage.company, stage.make_home, stage.home  # the fixtures
HOURS_9_S = 9 * 3600


def named_cookies(answer) -> list[str]:
    return answer.headers.getlist("Set-Cookie")


# The address that lets an operator in


def test_who_only_looks_at_the_way_in_does_not_use_it_up(make_home):
    home = make_home(passwords=False)
    carol = home.member("carol", role="admin")
    path = f"/sign-in/once?key={way_in.make(home.db, carol.id)}"
    preview = home.browser()
    for method in ("HEAD", "OPTIONS", "GET"):
        answer = preview.client.open(path, method=method)
        assert answer.status_code == 200, method
        assert not signed_in(preview), method
    assert answer.headers["Cache-Control"] == "no-store"
    sent = {"csrf_token": token_of(home, preview.client), "key": path.partition("=")[2]}
    assert preview.client.post("/sign-in/once", data=sent).status_code == 303
    assert signed_in(preview) == "carol"


def test_the_page_that_leads_to_the_provider_is_stored_nowhere(home):
    assert home.browser().get("/sign-in/begin").headers["Cache-Control"] == "no-store"


# Is it still you?


def proven(browser) -> bool:
    with browser.client.session_transaction() as session:
        return "proven_at" in session


def test_a_proof_asks_for_a_fresh_sign_in_and_an_edited_address_is_none(home, company):
    browser = home.browser()
    come(browser)
    way = led(browser.get("/sign-in/begin?prove="))
    assert parse_qs(urlsplit(way).query)["max_age"] == ["0"]
    back = urlsplit(ask(way.replace("&max_age=0", "").replace("&prompt=login", "")))
    answer = browser.get(f"{back.path}?{back.query}")  # the provider had no reason to tell
    assert answer.status_code == 403 and not proven(browser)
    assert "does not tell when you signed in there" in browser.text(answer)


@pytest.mark.parametrize("said", [None, "", [], {}, "2026-01-01", True, str(2**40)])
def test_a_time_that_is_none_proves_nothing(home, company, said):
    browser = home.browser()
    come(browser)
    company.bend = lambda claims: claims | {"auth_time": said}
    answer = come(browser, "/sign-in/begin?prove=")
    assert answer.status_code in (400, 403) and not proven(browser)
    company.bend = lambda claims: claims | {"auth_time": time.time()}
    assert come(browser, "/sign-in/begin?prove=").status_code == 303 and proven(browser)


# Sessions


def begun_earlier(browser, seconds: int) -> None:
    with browser.client.session_transaction() as session:
        session["since"] -= seconds


def test_a_check_after_fourteen_days_signs_in_anew(home):
    browser = home.browser()
    come(browser)
    age(browser, HOURS_9_S)
    begun_earlier(browser, 15 * 86_400)
    assert come(browser, "/console/usage").headers["Location"] == "/console/usage"
    assert signed_in(browser) == "alice" and trail(home).count("member.sign_in") == 2


def test_a_check_in_more_tabs_than_are_kept_ends_calmly_in_all(home):
    browser = home.browser()
    come(browser)
    age(browser, HOURS_9_S)
    paths = [way_back(browser, "/console/usage") for _ in range(11)]
    led_to = [browser.get(path).headers.get("Location") for path in reversed(paths)]
    assert led_to == ["/console/usage"] * 8 + ["/console"] * 3
    assert signed_in(browser) == "alice"


@pytest.mark.parametrize("letter", ["q", "%E4%B8%AD", "%F0%9F%98%80", "%22", "%00"])
def test_a_long_address_makes_no_cookie_that_a_browser_refuses(home, letter):
    browser = home.browser()
    come(browser)
    age(browser, HOURS_9_S)
    long = secrets.token_hex(100) + 200 * letter + secrets.token_urlsafe(2000)
    for path in (f"/console/usage?q={long}", f"/sign-in/begin?next=/console/usage?q={long[:1900]}"):
        answer = browser.get(path)
        assert all(len(each) < 4096 for each in named_cookies(answer))
        back = urlsplit(ask(led(answer)))
        assert browser.get(f"{back.path}?{back.query}").headers["Location"] == "/console"
        age(browser, HOURS_9_S)


# Identities that the rules refuse


def test_an_identity_that_may_not_come_is_not_connected(make_home, company):
    home = make_home(domains=["example.com"], leaving="disable")
    bob = home.member("bob")
    browser = home.browser(bob)
    company.person |= {"sub": "private", "email": "bob@private.example"}
    answer = connect(browser)
    assert answer.status_code == 403 and "not among those" in browser.text(answer)
    assert identities.of(home.db, bob.id) == [] and signed_in(browser) == "bob"
    assert come(home.browser()).status_code == 403
    assert not accounts.find(home.db, bob.id).disabled


def test_the_last_identity_that_may_come_stays_whatever_others_there_are(make_home, company):
    home = make_home(domains=["example.com"])
    browser = home.browser()
    come(browser)
    ours = {"issuer": company.url, "subject": stage.ALICE["sub"]}
    other = {"issuer": company.url, "subject": "private"}
    identities.connect(home.db, 1, **other, email="alice@private.example")
    assert browser.page("/console/account").count('action="/console/account/disconnect"') == 1
    assert browser.send("/console/account/disconnect", **ours).status_code == 403
    assert browser.send("/console/account/disconnect", **other).status_code == 303
    assert [each.subject for each in identities.of(home.db, 1)] == [stage.ALICE["sub"]]


# Passwords off


def without_passwords(home) -> None:
    relay = home.relay
    rules = msgspec.structs.replace(relay.settings.sign_in, passwords=False)
    relay.settings = msgspec.structs.replace(relay.settings, sign_in=rules)


def test_a_session_by_a_password_ends_when_passwords_do_and_says_why(home):
    carol = home.member("carol", role="admin")
    browsers = [home.browser(carol) for _ in range(3)]
    by_sign_on = home.browser()
    come(by_sign_on)
    token = browsers[1].csrf()
    without_passwords(home)
    answer = browsers[0].get("/admin/")
    assert answer.status_code == 403 and "flask user way-in" in browsers[0].text(answer)
    assert browsers[0].get("/admin/").headers["Location"].startswith("/login")  # said once
    sent = {"csrf_token": token, "name": "dora", "role": "member"}
    assert browsers[1].client.post("/admin/members/new", data=sent).status_code == 403
    assert accounts.named(home.db, "dora") is None
    browsers[2].headers = {"Sec-Fetch-Mode": "cors"}
    assert not signed_in(browsers[2])
    browsers[2].headers = {}
    assert come(browsers[2]).status_code == 303 and signed_in(browsers[2]) == "alice"
    assert signed_in(by_sign_on) == "alice"


def test_the_way_in_lets_an_administrator_stay_in_the_browser_of_the_password(home):
    carol = home.member("carol", role="admin")
    browser = home.browser(carol)
    without_passwords(home)
    key = way_in.make(home.db, carol.id)
    assert "signs you in once" in browser.read(f"/sign-in/once?key={key}")
    sent = {"csrf_token": token_of(home, browser.client), "key": key}
    assert browser.client.post("/sign-in/once", data=sent).status_code == 303
    assert signed_in(browser) == "carol"


def test_where_passwords_are_off_the_first_administrator_needs_none(make_home):
    home = make_home(passwords=False)
    key, browser = accounts.setup_key(home.db), home.browser()
    html = browser.page(f"/setup?key={key}")
    assert 'type="password"' not in html and "connect your account" in html
    sent = {"csrf_token": token_of(home, browser.client), "key": key, "name": "carol"}
    assert browser.client.post("/setup", data=sent).status_code == 303
    assert signed_in(browser) == "carol" and browser.get("/admin/").status_code == 200
    assert not accounts.has_password(home.db, accounts.named(home.db, "carol").id)
    connect(browser)
    other = home.browser()
    come(other)
    assert signed_in(other) == "carol"


# Names that look like another's


@pytest.mark.parametrize(
    "said, name",
    [
        ("carol\u034f", "carol-2"),
        ("car\u3164ol", "carol-2"),
        ("car\u200bol\ufe0f\U000e0061", "carol-2"),
        ("\uffa0\u115fcarol\u2800", "carol-2"),
        ("\u3164\u034f", "member"),
        ("\u0301", "member"),
        ("Zoe\u0308", "Zoë"),
        ("\u0928\u093f\u0936\u093e", "\u0928\u093f\u0936\u093e"),
    ],
)
def test_a_newcomer_is_called_by_what_is_seen(home, company, said, name):
    home.member("carol", role="admin")
    company.person |= {"preferred_username": said}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == name
