"""How often whose token was turned away before there was a call, by day and reason.

Owns the rows of `turned_away`. They are counted in memory and written now and then: an attempt that
is refused costs the disk nothing, however often it is made.
"""

import threading
from collections import Counter

from db import Database

WRITE = """
INSERT INTO turned_away (user_id, day, token_id, reason, count, last_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET count = count + excluded.count, last_at = excluded.last_at"""


class TurnedAway:
    """The counts of this process that are not written yet."""

    def __init__(self) -> None:
        self._counts: Counter = Counter()
        self._last: dict[tuple, int] = {}
        self._lock = threading.Lock()

    def count(self, user_id: int, token_id: int, day: str, reason: str, at: int) -> None:
        """One more, at a time (ms) of a day of the site."""
        key = (user_id, day, token_id, reason)
        with self._lock:
            self._counts[key] += 1
            self._last[key] = at

    def write(self, db: Database) -> None:
        """Write what has been counted. Raises StorageError; then it is kept for the next time."""
        with self._lock:
            counts, last = self._counts, self._last
            self._counts, self._last = Counter(), {}
        if not counts:
            return
        rows = [(*key, count, last[key]) for key, count in counts.items()]
        try:
            db.write(lambda conn: conn.executemany(WRITE, rows) and None)
        except BaseException:
            with self._lock:
                self._counts.update(counts)
                self._last = last | self._last
            raise


def of_tokens(db: Database, user_id: int, since: str) -> dict[int, list[tuple[str, int]]]:
    """A member's tokens that were turned away since a day: id -> (reason, how often)."""
    rows = db.read().execute(
        "SELECT token_id, reason, sum(count) FROM turned_away WHERE user_id = ? AND day >= ?"
        " GROUP BY token_id, reason ORDER BY sum(count) DESC",
        (user_id, since),
    )
    found: dict[int, list[tuple[str, int]]] = {}
    for token_id, reason, count in rows.fetchall():
        found.setdefault(token_id, []).append((reason, count))
    return found


def forget(db: Database, before: str) -> None:
    """Let go of what was counted before a day."""
    db.write(lambda conn: conn.execute("DELETE FROM turned_away WHERE day < ?", (before,)) and None)
