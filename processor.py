"""Which processors this process computes on.

Of the threads that serve callers one computes at a time (`turns`). Where there are many, and they are
spread over processors, each that gets the turn wakes another processor and finds nothing near it of what
it needs: that took a fifth of a call's time. So while there is a crowd they have a home, one processor for
all; what takes long, as pages may, roams.

Others may want that processor too, so every few seconds it is looked at again. The system moves to
another one whatever may be moved; but not what has been told to stay, as perhaps another relay.

Linux alone lets a program choose. Elsewhere nothing is done.
"""

import functools
import os
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

STAT = Path("/proc/stat")  # proc(5): what each processor has done, in ticks
IDLE = (3, 4)  # its columns of a processor that has nothing to do
CPUS = Path("/sys/devices/system/cpu")
SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")  # of a processor, by what is known of it
FAST = 0.9  # of the fastest one's speed
UNTOLD = -1  # where a thread is that nobody has told anything
WORTH = 0.2  # of a processor's time, that others must leave more of it elsewhere


class Home:
    """The processor of the threads that serve callers; see `home`, the one of this process."""

    def __init__(self) -> None:
        self._cpu: int | None = None  # they may be anywhere
        self._mine = threading.local()  # .cpu: where this thread is told to stay
        self._roams: set[int] = set()  # where the others may be
        self._busy: dict[int, float] = {}  # at the last look: seconds, by processor
        self._own = self._at = 0.0

    def look(self, crowded: bool) -> None:
        """Choose the processor that others use least, if there is a crowd. To be called now and then,
        by a thread that never stays."""
        try:
            self._roams, busy = os.sched_getaffinity(0), _busy()
        except (AttributeError, OSError, ValueError):
            return
        now, own = time.monotonic(), time.process_time()
        known = self._roams & busy.keys() & self._busy.keys()
        used = {cpu: busy[cpu] - self._busy[cpu] for cpu in _fast(frozenset(known))}
        if self._cpu in used:
            used[self._cpu] -= own - self._own
        better, before = WORTH * (now - self._at), self._cpu
        self._cpu = self._best(used, better) if crowded and len(used) > 1 else None
        self._busy, self._own, self._at = busy, own, now
        if self._cpu is None and before is not None:
            self._free()

    def _free(self) -> None:
        """Let all threads of this process be anywhere: who only waits, or never takes a turn, hears of
        it otherwise late or never."""
        self._mine = (
            threading.local()
        )  # or they would believe that they are at home when the next comes
        for thread in threading.enumerate():
            with suppress(OSError):
                os.sched_setaffinity(thread.native_id or 0, self._roams)

    def _best(self, used: dict[int, float], better: float) -> int:
        best = min(used, key=lambda cpu: (used[cpu], random.random()))
        here = self._cpu
        return here if here in used and used[here] <= used[best] + better else best

    def stay(self) -> None:
        """Compute at home from now on, if there is one."""
        self._go(self._cpu)

    def roam(self) -> None:
        """Compute anywhere until the next `stay`."""
        self._go(None)

    def _go(self, cpu: int | None) -> None:
        # A thread begins where the one that made it was told to stay: it must be told once itself.
        if self._roams and getattr(self._mine, "cpu", UNTOLD) != cpu:
            self._mine.cpu = cpu
            with suppress(OSError):
                os.sched_setaffinity(0, self._roams if cpu is None else {cpu})


@functools.lru_cache(8)
def _fast(cpus: frozenset[int]) -> frozenset[int]:
    """Those that are about as fast as the fastest: some machines have slow ones too, to save power."""
    speeds = {cpu: _speed(cpu) for cpu in cpus}
    most = max(speeds.values(), default=0)
    return frozenset(cpu for cpu, speed in speeds.items() if speed >= FAST * most)


def _speed(cpu: int) -> int:
    """How fast a processor is beside others of this machine; 0: nobody knows."""
    for name in SPEEDS:
        with suppress(OSError, ValueError):
            return int((CPUS / f"cpu{cpu}" / name).read_text())
    return 0


def _busy() -> dict[int, float]:
    """How long each processor has been busy since the machine was started, in seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    rows = [line.split() for line in STAT.read_text().splitlines() if line.startswith("cpu")]
    return {
        int(name[3:]): sum(int(each) for at, each in enumerate(spent[:8]) if at not in IDLE) / ticks
        for name, *spent in rows
        if name != "cpu"
    }


home = Home()
