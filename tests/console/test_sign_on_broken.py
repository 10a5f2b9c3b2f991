"""Single sign-on as it was broken once: by HEAD, by many tabs, by addresses that were edited, by
names that look like another's.
"""

import secrets
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from members import way_in
from tests.console import test_sign_on as stage
from tests.console.test_sign_on import (
    age,
    ask,
    come,
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
