"""The audit trail: what administrators did, and what was done to accounts.

Owns the table audit. It is written where things are done, in the same transaction, and never
changed.
"""

import json
from typing import Any

from billing import now_ms
from db import Connection, Database, keyset

COLUMNS = (
    "id, at, user_id, (SELECT name FROM users WHERE users.id = audit.user_id) AS by, action, target,"
    " detail"
)


def size(conn) -> int:
    """How many rows the trail of a file has."""
    return int(conn.execute("SELECT count(*) FROM audit").fetchone()[0])


def record(
    conn: Connection,
    by: int | None,
    action: str,
    user_id: int | None = None,
    detail: dict[str, Any] | None = None,
    now: int | None = None,
) -> None:
    """Note who did what to whom, within the transaction that does it.

    `by` None is the command line.
    """
    conn.execute(
        "INSERT INTO audit (at, user_id, action, target, detail)"
        " VALUES (?, ?, ?, (SELECT name FROM users WHERE id = ?), ?)",
        (now or now_ms(), by, action, user_id, json.dumps(detail or {}, ensure_ascii=False)),
    )


def listed(action: str | None = None, who: str = "", who_id: int | None = None) -> keyset.List:
    """The trail of one action or all, of what was done by or to somebody or anybody.

    `who` is a name as it was written down then, `who_id` the member that has it.
    """
    matching = ["action = :action"] if action else []
    if who:
        matching.append("(target = :who OR user_id = :who_id)")
    values = {"action": action, "who": who, "who_id": who_id}
    return keyset.List("audit", COLUMNS, "id", "1", " AND ".join(matching), values)


def trail(db: Database, *, before: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """What was done, newest first: {id, at, by, action, target, detail}.

    The next page with `before`, the last id.
    """
    names = ("id", "at", "by", "action", "target")
    return [
        {name: row[name] for name in names} | {"detail": json.loads(row["detail"])}
        for row in listed().walk(db.read(), before, limit).rows
    ]
