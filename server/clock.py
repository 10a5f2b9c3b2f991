"""Whether the clock can be trusted with what cannot be undone: expiry, renewal, retention, backups
that push out others.

Owns the judgement. Whoever waits for it asks `steady`; calls go on meanwhile, for nothing of theirs
is lost by a wrong time.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable

from db import Database, DatabaseError, meta

JUMP_S = 60.0  # more than the clock's own correction moves it at once
BACK_S = 120.0  # that the clock may be behind the last time an earlier process saw
AWAY_S = (
    86_400.0  # a relay that was away for longer, or whose clock says so, waits if nobody sets it
)
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
HOLD_S = 600.0  # so long a clock must run on without a jump
SEEN_EVERY_S = 60.0
SEEN = "clock_seen"  # ms


class Clock:
    """Looks at the clock each time it is asked to, beside one that cannot be set.

    `now()` is the wall clock and `ticks()` that other one, both in seconds; `synchronised()` tells
    whether the system keeps the clock by others.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        synchronised: Callable[[], bool] | None = None,
    ):
        self._now, self._ticks = now, ticks
        self._synchronised = synchronised or _synchronised
        self._seen = (now(), ticks())
        self._held_from: float | None = None  # when it last jumped, by the ticks
        self._written = float("-inf")
        self.problem: str | None = None

    @property
    def steady(self) -> bool:
        return self.problem is None

    def begin(self, db: Database) -> None:
        """Compare with the last time that an earlier process saw."""
        seen = meta.get(db, SEEN)
        if seen is not None:
            ahead = self._now() - seen / 1000
            if ahead < -BACK_S:
                self._doubt(f"is {_span(-ahead)} behind the time at which the relay last ran")
            elif ahead > AWAY_S and not self._synchronised():
                self._doubt(f"is {_span(ahead)} ahead of the time at which the relay last ran")
        self.look(db)

    def look(self, db: Database) -> None:
        """Compare with the last look, and write down the time while it can be trusted."""
        now, ticks = self._now(), self._ticks()
        before, self._seen = self._seen, (now, ticks)
        jump = (now - before[0]) - (ticks - before[1])
        if abs(jump) > JUMP_S:
            self._doubt(f"jumped {_span(abs(jump))} {'forward' if jump > 0 else 'back'}")
        elif self._held_from is not None and ticks - self._held_from >= HOLD_S:
            self._held_from = self.problem = None
        if self.steady and ticks - self._written >= SEEN_EVERY_S:
            self._written = ticks
            with contextlib.suppress(DatabaseError):  # the disk tells of itself
                meta.put(db, SEEN, round(now * 1000))

    def _doubt(self, why: str) -> None:
        self._held_from = self._ticks()
        self.problem = (
            f"The clock {why}. Until it has held for {HOLD_S // 60:.0f} minutes nothing expires, is"
            " renewed or is forgotten; calls go on."
        )


def _synchronised() -> bool:
    """Whether the kernel's clock is kept by NTP; False where it does not say."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (AttributeError, OSError):
        return False
    return adjtimex(ctypes.create_string_buffer(512)) not in (-1, TIME_ERROR)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"
