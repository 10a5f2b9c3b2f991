"""Notices of caps: at a half, four fifths and all, once in each day or month."""

import pytest

from billing import nano
from members import caps
from server.notices import Notices
from settings import check
from tests.console.member_stage import MODELS, PLANS, house

COST = 1000 * 2_000 - 200 * 1_500 + 100 * 8_000  # of the usual call of a house


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


@pytest.fixture
def said(home, monkeypatch):
    found = []
    monkeypatch.setattr(Notices, "tell", lambda self, kind, message, *_: found.append(message))
    return found


def today(home):
    return home.db.one("SELECT max(day) FROM daily")[0]


def test_each_share_is_told_of_once_a_month(home, said):
    alice = home.member("alice", wallet="50")
    token = home.token(alice)
    caps.put(home.db, alice.id, caps.Caps(month=10 * COST))
    told = []
    for _ in range(11):
        home.called(alice, token)
        home.relay.notices.look_at_caps(home.db, today(home))
        told.append(len(said))
    assert told == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    assert "alice has spent" in said[0] and "(50 %)" in said[0] and "(100 %)" in said[2]
    home.relay.notices.look_at_caps(home.db, "2999-01-31")
    home.relay.notices.look_at_caps(home.db, today(home))
    assert len(said) == 4, "a new month begins anew"


def test_the_day_and_the_site_are_told_of_too(home, said):
    alice = home.member("alice", wallet="50")
    caps.put(home.db, alice.id, caps.Caps(day=COST))
    given = {"site": {"cap_month": "0.004"}, "plans": PLANS, "models": MODELS}
    home.relay.notices.settings = check(given, {})
    home.called(alice, home.token(alice))
    home.relay.notices.look_at_caps(home.db, today(home))
    assert len(said) == 2 and nano("0.004") * 50 <= COST * 100
    assert any("All members together" in each and "this month" in each for each in said)
    assert any("this day (100 %)" in each for each in said)
