"""The whole process under a clock that is moved, by libfaketime: it changes what the system says the time
is, and leaves alone what only runs on. Where that is not installed, test_clock.py's own clocks stand for it."""

import glob
import signal
from contextlib import closing

import pytest

import billing
import plans
from db import Database, meta
from server.clock import SEEN
from tests.providers import plain, usage
from tests.stage import wait_until

FOUND = sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1"))
DAY_MS = 86_400_000

pytestmark = pytest.mark.skipif(not FOUND, reason="libfaketime is not installed")


@pytest.fixture
def relay(start_relay, tmp_path):
    made = start_relay(process=True, backups={"every": "never"})
    made.end(signal.SIGTERM)
    return made


@pytest.fixture
def alice(person, relay, fake):
    """With an allowance for thirty days, and nothing else."""
    fake.always(plain(usage(20, 10)))
    alice = person("alice", relay).given(wallet="10")
    plans.give_plan(relay.db, alice.id, "pro", quota=5 * 10**9, days=30, renew=True)
    return alice


@pytest.fixture
def clock(relay, tmp_path):
    """A function that sets the clock of processes to come and of the one that runs, in days from now."""
    file = tmp_path / "faketime"

    def set_to(days: int) -> None:
        file.write_text(f"{days:+d}d\n")

    set_to(0)
    return set_to


def start(relay) -> None:
    relay.start_again(
        [
            "env",
            f"LD_PRELOAD={FOUND[0]}",
            f"FAKETIME_TIMESTAMP_FILE={relay.config.parent / 'faketime'}",
            "FAKETIME_NO_CACHE=1",
            "DONT_FAKE_MONOTONIC=1",
        ]
    )


def doubt(relay) -> str:
    return relay.client().get("/readyz").json["clock"]


def quotas(relay) -> int:
    """How many times an allowance began."""
    sql = "SELECT count(*) FROM entries WHERE kind = 'quota'"
    return relay.db.read().execute(sql).fetchone()[0]


@pytest.mark.parametrize("days", [400, -400])
def test_a_clock_that_jumps_ends_nothing_and_calls_go_on(relay, alice, clock, days):
    start(relay)
    assert alice.chat().status == 200 and doubt(relay) == "ok"
    before = alice.balance().quota
    clock(days)
    wait_until(lambda: "jumped" in doubt(relay))
    assert alice.balance().quota == before and quotas(relay) == 1
    assert alice.chat().status == 200
    assert quotas(relay) == 1 and relay.ledger_is_right()
    said = f"{abs(days)} days {'forward' if days > 0 else 'back'}"
    wait_until(lambda: said in relay.log.read_text())


@pytest.mark.parametrize("days", [400, -400])
def test_a_start_with_a_wrong_clock_ends_nothing_and_calls_go_on(relay, alice, clock, days):
    clock(days)
    start(relay)
    said = doubt(relay)
    if days > 0 and said == "ok":
        pytest.skip("this machine's clock is kept by others, and believed after a long rest")
    assert "400 days" in said and quotas(relay) == 1
    assert alice.chat().status == 200 and relay.ledger_is_right()


def test_a_year_of_allowances_begins_one_each_thirty_days(relay, alice, clock):
    """Started anew each month, a day after it ended, as if it had run until then."""
    now = billing.now_ms()
    for month in range(1, 13):
        days = 31 * month
        clock(days)
        with closing(Database(relay.db.path, writer=False)) as db:
            meta.put(db, SEEN, now + days * DAY_MS - 60_000)
        start(relay)
        assert doubt(relay) == "ok" and alice.chat().status == 200
        assert relay.end(signal.SIGTERM) == 0
    assert quotas(relay) == 13
    assert alice.balance().wallet == 10 * 10**9, "the allowance paid"
    assert relay.ledger_is_right()
