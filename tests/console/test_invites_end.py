"""Invites that end: after so many people, after some days, or with a new link."""

import pytest

from billing import now_ms
from members import accounts, audit
from tests.console.member_stage import PASSWORD, house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path, accounts={"registration": "invite"})
    yield made
    made.db.close()


@pytest.fixture
def alice(home):
    return home.member("alice")


def come(home, name, code):
    """Register by a link; whether it worked."""
    sent = {"name": name, "password": PASSWORD, "again": PASSWORD, "invite": code}
    home.browser().send("/register", **sent)
    return accounts.named(home.db, name) is not None


def test_a_link_for_two_lets_two_in(home, alice):
    code = accounts.renew_invite(home.db, alice.id, uses=2)
    assert [come(home, name, code) for name in ("bob", "carol", "dora")] == [True, True, False]
    seen = home.browser(alice).read("/console/invites")
    assert "Nobody can come by your link any more" in seen


@pytest.mark.parametrize("ms, lets_in", [(60_000, True), (-1, False)])
def test_a_link_ends_with_its_days(home, alice, ms, lets_in):
    code = accounts.renew_invite(home.db, alice.id, until=now_ms() + ms)
    assert come(home, "bob", code) is lets_in


def test_a_new_link_makes_the_old_one_worthless(home, alice):
    browser, old = home.browser(alice), alice.invite_code
    browser.send("/console/invites/renew", uses="1", days="3")
    mine = accounts.find(home.db, alice.id)
    assert mine.invite_code != old and mine.invite_uses == 1
    assert not come(home, "bob", old) and come(home, "carol", mine.invite_code)
    trail = audit.trail(home.db)
    assert {"invite.renew", "member.add"} <= {each["action"] for each in trail}
    assert '"invited_by":"alice"' in str(
        [row[0] for row in home.db.read().execute("SELECT detail FROM audit").fetchall()]
    ).replace(" ", "")


@pytest.mark.parametrize("uses, days", [("0", ""), ("x", ""), ("", "99999")])
def test_nonsense_makes_no_new_link(home, alice, uses, days):
    home.browser(alice).send("/console/invites/renew", uses=uses, days=days)
    assert accounts.find(home.db, alice.id).invite_code == alice.invite_code


def test_where_only_administrators_invite_a_members_link_is_worth_nothing(tmp_path):
    home = house(tmp_path, accounts={"registration": "invite", "invites_from": "admins"})
    alice, carol = home.member("alice"), home.member("carol", role="admin")
    assert not come(home, "bob", alice.invite_code) and come(home, "bob", carol.invite_code)
    assert "Only administrators invite here" in home.browser(alice).read("/console/invites")
    home.db.close()
