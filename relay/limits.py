"""Rates: so many in so many seconds, counted in fixed windows.

Owns the counters. They are in this process, on a clock that nobody sets, or where the settings say: the
storages of the package `limits` count there. That is loaded for them alone, for it brings 4 MB along; and
its own storage in memory follows the wall clock (one hour back is an hour of 429), lets two full windows
through when threads race for a new one, and scans all keys every 10 ms.
"""

import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

import msgspec

from turns import resting

log = logging.getLogger("relay.limits")
T = TypeVar("T")

HERE = nullcontext()  # which takes no time; a server elsewhere does
IN_MEMORY = "memory://"
AGAIN_S = 5.0  # before a storage that failed is asked again
STORAGE_S = 1.0  # how long a storage elsewhere may be silent
SPANS = {"minute": 60, "hour": 3600, "day": 86400}  # in seconds


class Rate(msgspec.Struct, frozen=True):
    """So many in so many seconds."""

    amount: int
    seconds: int = SPANS["minute"]

    def key(self, names: tuple[str, ...]) -> str:
        """Under what it is counted for these names."""
        return "/".join(("relay", *names, str(self.amount), str(self.seconds)))


@functools.cache
def rate_of(text: str) -> Rate:
    """The rate that `5 per minute` means. Raises ValueError, KeyError for what is none."""
    amount, _per, span = text.split(" ")
    return Rate(int(amount), SPANS[span])


class Storage(Protocol):
    """Where windows are counted: this process's own, or one of the package `limits`."""

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count so many more in a key's window, which ends `expiry` seconds after its begin."""

    def get(self, key: str) -> int:
        """What has been counted in a key's window."""

    def get_expiry(self, key: str) -> float:
        """When a key's window ends, by the wall clock."""

    def clear(self, key: str) -> None:
        """Forget a key's window."""


class Memory:
    """A storage in this process."""

    PURGE_S = 60

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[str, list] = {}  # key -> [count, end by the monotonic clock]
        self._purge_at = time.monotonic() + self.PURGE_S

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
        window = self._windows.get(key)
        left = window[1] - time.monotonic() if window else 0
        return time.time() + max(0.0, left)

    def clear(self, key: str) -> None:
        with self._lock:
            self._windows.pop(key, None)

    def _purge(self, now: float) -> None:
        self._windows = {key: window for key, window in self._windows.items() if now < window[1]}
        self._purge_at = now + self.PURGE_S


def storage_at(uri: str) -> Storage:
    """The storage at an address of the settings. Raises ValueError, which says what is wrong with it."""
    if uri == IN_MEMORY:
        return Memory()
    from limits.errors import ConfigurationError
    from limits.storage import storage_from_string

    try:
        found: Any = storage_from_string(
            uri, socket_connect_timeout=STORAGE_S, socket_timeout=STORAGE_S
        )
        return found
    except ConfigurationError as err:
        raise ValueError(str(err)) from err


class Window(msgspec.Struct, frozen=True):
    """What was counted in a window, and the seconds until it ends."""

    count: int
    reset_s: float

    @property
    def wait_s(self) -> int:
        """Whole seconds after which who was refused may come again."""
        return max(1, math.ceil(self.reset_s))


class EnduringLimiter:
    """Counts in fixed windows. Its storage may be away: this process counts meanwhile.

    Nobody is refused for it, and the windows begin anew. `problem` says what is wrong, or None.
    """

    def __init__(self, storage: Storage):
        self.problem: str | None = None
        self.storage, self._again_at = storage, 0.0
        self._spare = Memory()

    def count(self, rate: Rate, *names: str, cost: int = 1) -> Window:
        """Count so many more under these names. There were too many if that makes more than
        `rate.amount`."""
        return self._do(_counted, rate.key(names), rate.seconds, cost)

    def look(self, rate: Rate, *names: str) -> Window:
        """What has been counted under these names."""
        return self._do(_seen, rate.key(names))

    def clear(self, rate: Rate, *names: str) -> None:
        """Forget what was counted under these names."""
        self._do(_cleared, rate.key(names))

    def _do(self, act: Callable[..., T], *args: Any) -> T:
        if self.problem is None or time.monotonic() >= self._again_at:
            try:
                with HERE if isinstance(self.storage, Memory) else resting():
                    done = act(self.storage, *args)
                if self.problem is not None:
                    self._recovered()
                return done
            except Exception as err:  # each storage has errors of its own
                self._failed(err)
        return act(self._spare, *args)

    def _failed(self, err: Exception) -> None:
        self._again_at = time.monotonic() + AGAIN_S
        if self.problem is None:
            log.error(
                "limits.storage_uri cannot be reached (%s): this process counts meanwhile",
                type(err).__name__,
            )
        self.problem = type(err).__name__

    def _recovered(self) -> None:
        log.warning("limits.storage_uri can be reached again")
        self.problem = None


def _counted(storage: Storage, key: str, span_s: int, cost: int) -> Window:
    count = storage.incr(key, span_s, amount=cost)
    return Window(count, max(0.0, storage.get_expiry(key) - time.time()))


def _seen(storage: Storage, key: str) -> Window:
    return Window(storage.get(key), max(0.0, storage.get_expiry(key) - time.time()))


def _cleared(storage: Storage, key: str) -> None:
    storage.clear(key)
