"""A storage for rate limits that lives in this process and on a clock that nobody sets.

Owns the counters of the package `limits`. The memory storage that comes with it follows the wall
clock (one hour back is an hour of 429), lets two full windows through when threads race for a new
one, and scans all keys every 10 ms.
"""

import functools
import logging
import threading
import time
from contextlib import nullcontext
from typing import Any

from limits import RateLimitItemPerMinute
from limits.errors import ConfigurationError
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from turns import resting

__all__ = ["ConfigurationError", "EnduringLimiter", "MonotonicStorage", "address", "options"]

log = logging.getLogger("relay.limits")

AGAIN_S = 5.0  # before a storage that failed is asked again
STORAGE_S = 1.0  # how long a storage elsewhere may be silent


class MonotonicStorage(Storage):
    """Fixed windows: a key's count, and when its window ends.

    Chosen by the address `monotonic://`.
    """

    STORAGE_SCHEME = ["monotonic"]
    PURGE_S = 60

    def __init__(self, uri: str | None = None, wrap_exceptions: bool = False, **options):
        super().__init__(uri, wrap_exceptions=wrap_exceptions, **options)
        self._lock = threading.Lock()
        self._windows: dict[str, list] = {}  # key -> [count, end by the monotonic clock]
        self._purge_at = time.monotonic() + self.PURGE_S

    @property
    def base_exceptions(self) -> type[Exception]:
        return RuntimeError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.monotonic()
        with self._lock:
            if now >= self._purge_at:
                self._purge(now)
            window = self._windows.get(key)
            if window is None or now >= window[1]:
                window = self._windows[key] = [0, now + expiry]
            window[0] += amount
            return window[0]

    def get(self, key: str) -> int:
        window = self._windows.get(key)
        return window[0] if window and time.monotonic() < window[1] else 0

    def get_expiry(self, key: str) -> float:
        """When the window ends, by the wall clock, as the package wants it."""
        window = self._windows.get(key)
        left = window[1] - time.monotonic() if window else 0
        return time.time() + max(0.0, left)

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        with self._lock:
            count = len(self._windows)
            self._windows.clear()
            return count

    def clear(self, key: str) -> None:
        with self._lock:
            self._windows.pop(key, None)

    def _purge(self, now: float) -> None:
        self._windows = {key: window for key, window in self._windows.items() if now < window[1]}
        self._purge_at = now + self.PURGE_S


class PerMinute(RateLimitItemPerMinute):
    """So many a minute. The key of a counter, asked for several times a call, is made once."""

    __slots__ = ("_made",)

    def __init__(self, amount: int):
        super().__init__(amount)
        self._made = functools.lru_cache(4096)(super().key_for)

    def key_for(self, *identifiers: bytes | str | float) -> str:
        return self._made(*identifiers)


def address(storage_uri: str) -> str:
    """The storage's address for the package `limits`.

    Ours for the `memory://` of the settings, else as it is.
    """
    return "monotonic://" if storage_uri == "memory://" else storage_uri


def options(storage_uri: str) -> dict:
    """What the storage's client is told: not to wait long for a server that is away."""
    if storage_uri == "memory://":
        return {}
    return {"socket_connect_timeout": STORAGE_S, "socket_timeout": STORAGE_S}


class EnduringLimiter:
    """A fixed-window limiter whose storage may be away: this process counts meanwhile.

    Nobody is refused for it, and the windows begin anew. `problem` says what is wrong, or None.
    """

    def __init__(self, limiter: Any):
        self.problem: str | None = None
        self._limiter, self._again_at = limiter, 0.0
        here = isinstance(limiter.storage, MonotonicStorage)
        self._asking: Any = nullcontext if here else resting  # a server elsewhere takes its time
        self._spare = FixedWindowRateLimiter(MonotonicStorage())

    @property
    def storage(self) -> Storage:
        """Where the counters are, while it can be reached."""
        return self._limiter.storage

    def hit(self, item, *identifiers: str, cost: int = 1) -> bool:
        return self._do("hit", item, *identifiers, cost=cost)

    def get_window_stats(self, item, *identifiers: str):
        return self._do("get_window_stats", item, *identifiers)

    def clear(self, item, *identifiers: str) -> None:
        self._do("clear", item, *identifiers)

    def _do(self, name: str, *args, **options):
        if self.problem is None or time.monotonic() >= self._again_at:
            try:
                with self._asking():
                    done = getattr(self._limiter, name)(*args, **options)
                self._recovered()
                return done
            except Exception as err:  # each storage has errors of its own
                self._failed(err)
        return getattr(self._spare, name)(*args, **options)

    def _failed(self, err: Exception) -> None:
        self._again_at = time.monotonic() + AGAIN_S
        if self.problem is None:
            log.error(
                "limits.storage_uri cannot be reached (%s): this process counts meanwhile",
                type(err).__name__,
            )
        self.problem = type(err).__name__

    def _recovered(self) -> None:
        if self.problem is not None:
            log.warning("limits.storage_uri can be reached again")
        self.problem = None
