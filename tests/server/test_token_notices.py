"""Notices of tokens that expire soon: once for each that is in use."""

import time

import pytest

from server.notices import Notices
from tests.console.member_stage import house

DAY_MS = 86_400_000


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


def test_a_token_in_use_that_expires_within_the_week_is_told_of_once(home, monkeypatch):
    said = []
    monkeypatch.setattr(Notices, "tell", lambda self, kind, message, *_: said.append(message))
    alice, now = home.member("alice", wallet="50"), time.time_ns() // 1_000_000
    soon, later, idle = (
        home.token(alice, name, expires_at=now + days * DAY_MS)
        for name, days in (("ci", 3), ("server", 30), ("old", 3))
    )
    for token in (soon, later):
        home.called(alice, token)
    for _ in range(2):
        home.relay.notices.look_at_tokens(home.db)
    assert len(said) == 1 and said[0].startswith("The API key ci of alice expires on ")
