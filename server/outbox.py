"""Notices on their way: what each hook has not taken yet, and when it is tried again.

Owns the order for each hook, the pauses after a refusal, and the copy in the database by which a
restart loses nothing. A hook that is down holds up no other, and nobody who tells waits.
"""

import contextlib
import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from db import Database, DatabaseError, meta
from settings import Hook

log = logging.getLogger("notices")

WAITING_MAX = 2000
KEPT_MS = 7 * 86_400_000  # what is older is no news
PAUSE_S, PAUSE_MAX_S = 5.0, 300.0  # after a refusal, doubled with each in a row
ATTEMPT_S = 20.0  # a hook that has not answered by then counts as one that refuses
KEPT = "notices_waiting"


class Outbox:
    """`hooks()` are those of the settings in force; `send(hook, notice)` says whether it was taken."""

    def __init__(
        self, hooks: Callable[[], list[Hook]], send: Callable[[Hook, dict[str, Any]], bool]
    ):
        self._hooks, self._send = hooks, send
        self._waiting: list[tuple[str, dict[str, Any]]] = []  # (a hook's mark, a notice)
        self._refused: dict[str, tuple[int, float]] = {}  # mark -> how often in a row, until when
        self._hanging: dict[str, threading.Thread] = {}  # mark -> an attempt that does not end
        self._changed = threading.Condition()
        self._unkept = False  # the copy in the database is older than the list
        self._db: Database | None = None
        self._thread: threading.Thread | None = None

    def begin(self, db: Database) -> None:
        """Go on with what an earlier process left, and keep what waits from now on. Only once."""
        with self._changed:
            if self._db is not None:
                return
            self._db = db
            self._unkept = bool(self._waiting)  # what was told while the house was put in order
            self._waiting[:0] = [(mark, notice) for mark, notice in meta.get(db, KEPT, [])]
        if self._waiting:
            self._wake()

    def put(self, hooks: list[Hook], notice: dict[str, Any]) -> None:
        """Let these hooks have a notice as soon as they take it."""
        with self._changed:
            for hook in hooks:
                if len(self._waiting) >= WAITING_MAX:
                    log.error("too many notices wait for the webhook; the oldest is lost")
                    del self._waiting[0]
                self._waiting.append((_mark(hook), notice))
            self._unkept = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (due := self._due()) and not self._unkept:
                    self._changed.wait(self._pause())
            self._keep()
            if due:
                self._attempt(*due)

    def _due(self) -> tuple[Hook, tuple[str, dict[str, Any]]] | None:
        """The oldest notice of a hook that does not rest."""
        hooks = {_mark(hook): hook for hook in self._hooks()}
        oldest, now = time.time_ns() // 1_000_000 - KEPT_MS, time.monotonic()
        kept = [each for each in self._waiting if each[0] in hooks and each[1]["at"] >= oldest]
        self._unkept |= len(kept) < len(self._waiting)
        self._waiting = kept
        free = (each for each in kept if now >= self._refused.get(each[0], (0, 0.0))[1])
        first = next(free, None)
        return None if first is None else (hooks[first[0]], first)

    def _pause(self) -> float | None:
        """How long until a hook is tried again; None if nothing waits."""
        ends = [self._refused[mark][1] for mark, _ in self._waiting if mark in self._refused]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def _attempt(self, hook: Hook, waiting: tuple[str, dict[str, Any]]) -> None:
        mark, notice = waiting
        taken = self._sent_in_time(hook, mark, notice)
        with self._changed:
            if taken:
                self._refused.pop(mark, None)
                with contextlib.suppress(ValueError):  # it was pushed out meanwhile
                    self._waiting.remove(waiting)
                self._unkept = True
            else:
                times = self._refused.get(mark, (0, 0.0))[0] + 1
                pause_s = min(PAUSE_S * 2 ** min(times - 1, 10), PAUSE_MAX_S)
                self._refused[mark] = times, time.monotonic() + pause_s

    def _sent_in_time(self, hook: Hook, mark: str, notice: dict[str, Any]) -> bool:
        """Whether a hook took a notice. One that answers a byte now and then would hold up all
        others; it is asked again only once it has let go."""
        before = self._hanging.pop(mark, None)
        if before is not None and before.is_alive():
            self._hanging[mark] = before
            return False
        said: list[bool] = []
        thread = threading.Thread(
            target=lambda: said.append(self._send(hook, notice)), name="notice", daemon=True
        )
        thread.start()
        thread.join(ATTEMPT_S)
        if not said and thread.is_alive():
            self._hanging[mark] = thread
        return bool(said) and said[0]

    def _keep(self) -> None:
        """Bring the copy in the database up to date; a disk that refuses loses no call for it."""
        with self._changed:
            changed, self._unkept = self._unkept and self._db is not None, False
            waiting = list(self._waiting)
        if changed and self._db is not None:
            with contextlib.suppress(DatabaseError):
                meta.put(self._db, KEPT, waiting)


def _mark(hook: Hook) -> str:
    """What tells hooks apart without their address, which is a robot's key."""
    return hashlib.sha256(f"{hook.url} {hook.form}".encode()).hexdigest()[:16]
