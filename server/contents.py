"""How much there is in the house: what its database holds, and how large it is.

Owns these few numbers, for the system page and the administrators' API.
"""

from pathlib import Path
from typing import Any

from billing import now_ms
from db import Database

STARTED_AT = now_ms()
COUNTS = """
SELECT (SELECT count(*) FROM users WHERE NOT is_team) AS members,
       (SELECT count(*) FROM tokens WHERE revoked_at IS NULL) AS tokens,
       (SELECT coalesce(sum(calls), 0) FROM daily) AS calls, (SELECT max(id) FROM entries) AS entries,
       (SELECT count(*) FROM requests WHERE closed_at IS NULL) AS open, sqlite_version() AS sqlite,
       (SELECT min(id) FROM requests) AS oldest"""


def counts(db: Database) -> Any:
    """Members, tokens, calls, the newest entry, open calls, SQLite's version, the oldest call."""
    return db.read().execute(COUNTS).fetchone()


def size(path: Path) -> int:
    """The bytes of the database, with what waits in its log."""
    return sum(
        each.stat().st_size
        for end in ("", "-wal")
        if (each := path.with_name(path.name + end)).exists()
    )
