"""A clock that jumps destroys nothing, is told of, and is trusted again once it has held."""

import signal
from contextlib import closing
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import billing
import plans
from db import Database, meta
from server import clock, jobs
from server.clock import AWAY_S, BACK_S, HOLD_S, JUMP_S, SEEN, Clock
from tests.stage import wait_until

DAY_S = 86_400.0


@dataclass
class Hands:
    """A wall clock that can be set, and one that cannot."""

    now: float = 1_795_000_000.0
    ticks: float = 5_000.0

    def run(self, seconds: float, jump: float = 0.0) -> None:
        self.now += seconds + jump
        self.ticks += seconds


@pytest.fixture
def hands():
    return Hands()


@pytest.fixture
def db(tmp_path):
    with closing(Database(tmp_path / "relay.db", writer=False)) as database:
        yield database


@pytest.fixture
def begun(hands, db):
    """A function: the clock of a process that begins."""

    def begin(synchronised: bool = False) -> Clock:
        made = Clock(lambda: hands.now, lambda: hands.ticks, lambda: synchronised)
        made.begin(db)
        return made

    return begin


@pytest.mark.parametrize("jump", [JUMP_S + 1, -JUMP_S - 1, 400 * DAY_S, -400 * DAY_S])
def test_a_jump_is_doubted_until_the_clock_has_held(begun, hands, db, jump):
    found = begun()
    hands.run(1, jump)
    found.look(db)
    assert not found.steady
    assert ("forward" if jump > 0 else "back") in found.problem and "calls go on" in found.problem
    hands.run(HOLD_S - 1)
    found.look(db)
    assert not found.steady
    hands.run(1)
    found.look(db)
    assert found.steady and found.problem is None


def test_what_the_clock_corrects_by_itself_is_no_jump(begun, hands, db):
    found = begun()
    for jump in (JUMP_S - 1, 1 - JUMP_S, 0.5, -0.5):
        hands.run(3600, jump)
        found.look(db)
        assert found.steady


def test_a_jump_back_to_where_it_was_begins_the_wait_anew(begun, hands, db):
    found = begun()
    hands.run(1, DAY_S)
    found.look(db)
    hands.run(HOLD_S - 1, -DAY_S)
    found.look(db)
    hands.run(1)
    found.look(db)
    assert not found.steady and "back" in found.problem


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (AWAY_S - 1, None),
        (AWAY_S + 1, "ahead of the time at which the relay last ran"),
        (1 - BACK_S, None),
        (-BACK_S - 1, "behind the time at which the relay last ran"),
    ],
)
def test_a_start_is_compared_with_the_last_time_that_was_seen(begun, hands, db, ahead, said):
    begun()
    hands.run(1, ahead - 1)
    found = begun()
    assert found.steady == (said is None) and (said or "") in (found.problem or "")


def test_a_clock_that_is_kept_by_others_may_be_far_ahead_after_a_rest(begun, hands, db):
    """The box was off over a holiday: allowances begin with the first call."""
    begun()
    hands.run(1, 10 * DAY_S)
    assert begun(synchronised=True).steady
    hands.run(1, -20 * DAY_S)
    assert not begun(synchronised=True).steady


def test_a_time_in_doubt_is_not_written_down(begun, hands, db):
    found, right = begun(), round(hands.now * 1000)
    hands.run(90, 30 * DAY_S)
    found.look(db)
    assert meta.get(db, SEEN) == right
    hands.run(HOLD_S)
    found.look(db)
    assert meta.get(db, SEEN) == round(hands.now * 1000)


def test_the_time_is_written_once_a_minute(begun, hands, db):
    found, first = begun(), meta.get(db, SEEN)
    hands.run(clock.SEEN_EVERY_S - 1)
    found.look(db)
    assert meta.get(db, SEEN) == first
    hands.run(1)
    found.look(db)
    assert meta.get(db, SEEN) == round(hands.now * 1000)


def test_what_cannot_be_undone_waits(begun, hands, db):
    relay, done = SimpleNamespace(clock=begun(), db=db), []
    chore = jobs.steadily(relay, lambda: done.append(hands.now))
    chore()
    hands.run(1, 365 * DAY_S)
    chore()
    assert len(done) == 1, "it looks at the clock itself"
    hands.run(HOLD_S)
    chore()
    assert len(done) == 2


def test_a_start_with_a_clock_in_doubt_expires_nothing_and_says_so(start_relay, person, fake):
    relay = start_relay(process=True)
    alice = person("alice", relay)
    plans.give_plan(relay.db, alice.id, "pro", quota=5, days=1)
    relay.end(signal.SIGTERM)
    with closing(Database(relay.db.path, writer=False)) as db:
        meta.put(db, SEEN, billing.now_ms() + 40 * 86_400_000)
        db.write(lambda conn: conn.execute("UPDATE subscriptions SET starts_at = 1, ends_at = 2"))
    relay.start_again()
    assert "behind the time" in relay.client("").get("/readyz").json["clock"]
    assert wait_until(lambda: "The clock is 40 days behind" in relay.log.read_text())
    assert alice.balance().quota == 5
