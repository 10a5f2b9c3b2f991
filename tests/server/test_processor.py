"""While there is a crowd, calls are served on one processor; it is the one that others use least."""

import os
import threading

import pytest

import processor as module
import turns
from processor import Home, home
from tests.providers import plain, usage
from tests.stage import LIMIT_S, wait_until
from turns import Turns


class Machine:
    """What a system tells of its processors, and what it has been told."""

    def __init__(self, folder, processors: int):
        self.stat, self.cpus = folder / "stat", folder / "cpu"
        self.allowed = set(range(processors))
        self.busy = [0] * processors  # ticks
        self.now = self.own = 100.0
        self.told: list[set[int]] = []

    def pass_time(self, seconds: float, *busy_s: float, own_s: float = 0) -> None:
        """So much time passes, of which each processor is busy for so long; `own_s`: for us."""
        self.now += seconds
        self.own += own_s
        self.busy = [had + int(more * 100) for had, more in zip(self.busy, busy_s, strict=True)]
        lines = [f"cpu{at} {ticks} 0 0 12345 678 0 0 0 9 9\n" for at, ticks in enumerate(self.busy)]
        self.stat.write_text("cpu  1 2 3 4 5 6 7 8 9 10\n" + "".join(lines) + "intr 1 2 3\n")

    def look(self, home: Home, *busy_s: float, crowded: bool = True, own_s: float = 0) -> set[int]:
        """Let two seconds pass and the home be chosen; where a thread that serves a call then is."""
        self.pass_time(2, *busy_s, own_s=own_s)
        home.look(crowded)
        home.stay()
        return self.told[-1] if self.told else set()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    made = Machine(tmp_path, 3)
    made.pass_time(0, 0, 0, 0)
    monkeypatch.setattr(module, "STAT", made.stat)
    monkeypatch.setattr(module, "CPUS", made.cpus)
    module._fast.cache_clear()
    monkeypatch.setattr(module.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(module.time, "monotonic", lambda: made.now)
    monkeypatch.setattr(module.time, "process_time", lambda: made.own)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(made.allowed))
    monkeypatch.setattr(module.os, "sched_setaffinity", lambda pid, cpus: made.told.append(cpus))
    yield made
    module._fast.cache_clear()


@pytest.fixture
def settled(machine):
    """A home on processor 1, for others are busy elsewhere."""
    found = Home()
    found.look(crowded=True)
    assert machine.look(found, 1.5, 0.1, 1.0) == {1}
    return found


def test_a_crowd_is_served_where_others_are_least(settled):
    pass


def test_few_are_served_anywhere(machine, settled):
    assert machine.look(settled, 1.5, 0.1, 1.0, crowded=False) == {0, 1, 2}


def test_what_we_do_ourselves_is_nobody_elses(machine, settled):
    assert machine.look(settled, 0.5, 1.9, 0.5, own_s=1.8) == {1}


def test_it_stays_for_a_little_of_others(machine, settled):
    assert machine.look(settled, 0.0, 0.39, 0.5) == {1}


def test_it_goes_where_there_is_more_room(machine, settled):
    assert machine.look(settled, 0.0, 0.41, 0.5) == {0}


def test_it_goes_when_its_processor_is_ours_no_more(machine, settled):
    machine.allowed = {0, 2}
    assert machine.look(settled, 0.1, 0.0, 0.0) == {2}


@pytest.mark.parametrize("told", ["cpu_capacity", "cpufreq/cpuinfo_max_freq"])
def test_a_slow_processor_is_nobodys_home(machine, told):
    for at, speed in enumerate((1000, 899, 900)):
        file = machine.cpus / f"cpu{at}" / told
        file.parent.mkdir(parents=True)
        file.write_text(f"{speed}\n")
    found = Home()
    found.look(crowded=True)
    assert machine.look(found, 0.5, 0.0, 0.2) == {2}


def test_with_one_processor_there_is_no_choice(machine, settled):
    machine.allowed = {1}
    assert machine.look(settled, 1.0, 1.0, 1.0) == {1}  # all that there is
    machine.allowed = {0, 1, 2}
    machine.told.clear()
    settled.look(crowded=False)
    settled.stay()
    assert machine.told == []  # it was free already


def test_a_thread_is_told_when_something_has_changed(machine, settled):
    machine.told.clear()
    settled.stay()
    assert machine.told == []
    settled.roam()
    settled.roam()
    settled.stay()
    assert machine.told == [{0, 1, 2}, {1}]


def test_a_thread_is_told_even_where_the_one_that_made_it_was(machine, settled):
    machine.look(settled, 0, 0, 0, crowded=False)
    machine.told.clear()
    other = threading.Thread(target=settled.stay)
    other.start()
    other.join()
    assert machine.told == [{0, 1, 2}]


def test_before_the_first_look_nobody_is_told_anything(machine):
    unsettled = Home()
    unsettled.stay()
    unsettled.roam()
    assert machine.told == []


@pytest.mark.parametrize("broken", ["stat", "affinity", "none"])
def test_a_system_that_tells_nothing_is_left_alone(machine, monkeypatch, broken):
    if broken == "stat":
        machine.stat.unlink()
    elif broken == "affinity":
        monkeypatch.setattr(module.os, "sched_setaffinity", refuses)
    else:
        monkeypatch.delattr(module.os, "sched_getaffinity")
    found = Home()
    for _ in range(2):
        machine.now += 2
        found.look(crowded=True)
        found.stay()
    assert machine.told == []


def refuses(*_args):
    raise PermissionError


def test_the_own_processors_can_be_read():
    found = Home()
    for _ in range(2):
        found.look(crowded=True)
    done: list[set[int]] = []

    def compute() -> None:
        found.stay()
        done.append(os.sched_getaffinity(0))
        found.roam()
        done.append(os.sched_getaffinity(0))

    working = threading.Thread(target=compute)
    working.start()
    working.join()
    allowed = os.sched_getaffinity(0)
    assert len(done[0]) == 1 and done[0] <= allowed and done[1] == allowed


def test_when_the_crowd_has_gone_all_threads_are_free(machine, settled):
    waits = threading.Event()
    idle = threading.Thread(target=waits.wait)
    idle.start()
    machine.told.clear()
    machine.pass_time(2, 0, 0, 0)
    settled.look(crowded=False)
    assert len(machine.told) >= 2 and {frozenset(each) for each in machine.told} == {
        frozenset({0, 1, 2})
    }
    machine.told.clear()
    machine.pass_time(2, 0, 0, 0)
    settled.look(crowded=False)
    assert machine.told == [], "and are told once"
    assert machine.look(settled, 1.5, 0.1, 1.0) == {1}, "and again when the next crowd comes"
    waits.set()
    idle.join()


def test_most_who_want_the_turn_wait_for_it_in_a_crowd(monkeypatch):
    monkeypatch.setattr(turns, "PATIENCE_S", 10 * LIMIT_S)
    line = Turns()
    line.take()
    line.give()
    assert not line.crowded()
    waiting = [threading.Thread(target=lambda: line.take() or line.give()) for _ in range(3)]
    line.take()
    for each in waiting:
        each.start()
    wait_until(lambda: len(line._line) == len(waiting))
    line.give()
    for each in waiting:
        each.join()
    assert line.crowded()
    assert not line.crowded()  # it is asked of what came since


def test_calls_stay_and_pages_roam(alice, relay, fake, monkeypatch):
    where: dict[str, set[int]] = {}
    allowed = os.sched_getaffinity(0)
    monkeypatch.setattr(home, "_roams", allowed)
    monkeypatch.setattr(home, "_cpu", min(allowed))
    gate = relay.app.extensions["relay"].gate
    identify = gate.identify

    def seen(*args):
        where["call"] = os.sched_getaffinity(0)
        return identify(*args)

    monkeypatch.setattr(gate, "identify", seen)

    @relay.app.before_request
    def on_page():
        where["page"] = os.sched_getaffinity(0)

    fake.always(plain(usage(5, 3)))
    assert alice.given(wallet="1").chat().status == 200
    assert alice.get("/healthz").status == 200
    assert where == {"call": {min(allowed)}, "page": allowed}
