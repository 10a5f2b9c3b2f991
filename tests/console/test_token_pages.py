"""The pages of a token's later life."""

import re

import pytest

from members import tokens, turned_away
from tests.console.member_stage import house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


def test_a_new_secret_is_shown_once(home):
    alice = home.member("alice")
    made = home.token(alice)
    browser = home.browser(alice)
    once = re.findall(r'name="once"[^>]*value="([^"]+)"', browser.page(f"/console/tokens/{made}"))
    path = f"/console/tokens/{made}/rotate"
    html = browser.send(path, once=once[-1], keep="1").get_data(as_text=True)
    raw = re.search(r"sk-[A-Za-z0-9_-]{43}", html)[0]
    assert home.relay.gate.identify(None, raw, None).token_id == made
    again = browser.send(path, once=once[-1], keep="1")
    assert again.status_code == 303 and b"sk-" not in again.get_data()


def test_nobody_renews_a_token_of_somebody_else(home):
    alice, bob = home.member("alice"), home.member("bob")
    made = home.token(alice)
    before = home.db.one("SELECT digest FROM tokens")[0]
    assert home.browser(bob).send(f"/console/tokens/{made}/rotate").status_code == 404
    assert home.db.one("SELECT digest FROM tokens")[0] == before


def test_the_page_tells_why_requests_never_became_calls_and_clears_what_expired(home):
    alice = home.member("alice")
    made = home.token(alice)
    counts = turned_away.TurnedAway()
    with home.app.test_request_context():
        from console.ui import date_range

        today = str(date_range.today())
    for _ in range(3):
        counts.count(alice.id, made, today, "rate", 5)
    counts.write(home.db)
    browser = home.browser(alice)
    assert "rejected 3 times in 7 days: over its rate" in browser.read("/console/tokens")
    home.db.write(lambda conn: conn.execute("UPDATE tokens SET expires_at = 5") and None)
    assert "Clear away" in browser.read("/console/tokens")
    browser.send("/console/tokens/clear")
    assert tokens.tokens(home.db, alice.id)[0]["revoked_at"] == 5


def test_a_token_that_ends_soon_is_told_of(home):
    from billing import now_ms

    alice = home.member("alice")
    home.token(alice, "short", expires_at=now_ms() + 2 * 86_400_000)
    home.token(alice, "long", expires_at=now_ms() + 20 * 86_400_000)
    seen = home.browser(alice).read("/console")
    assert "The API key short expires on" in seen and "The token long" not in seen
