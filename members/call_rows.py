"""The rows of calls: listed, found by their time, and forgotten when they are old.

Owns what is read of `requests` in general, and their removal. They are written by `billing`, with
the money that they move, and no balance, entry or roll-up changes when one is forgotten.
"""

import json

from billing import COUNTS, PRICES, Pockets, now_ms
from db import Database

CALLS = f"""
SELECT r.id, r.started_at AS created_at, users.name AS user, tokens.name AS token, wire, model, upstream, outcome,
       status, error, stream, {", ".join(COUNTS)}, usage_source, usage_note,
       {", ".join(PRICES)}, cost, upstream_cost, charged_grant, charged_quota, charged_wallet,
       first_byte_ms, duration_ms, attempts, r.user_id, r.token_id, closed_at
  FROM requests AS r JOIN users ON users.id = r.user_id JOIN tokens ON tokens.id = r.token_id
 WHERE {{where}} ORDER BY r.id DESC LIMIT :limit"""

# What a listing of calls may be asked for: argument -> condition.
WANTED = {
    "user_id": "r.user_id = :user_id",
    "token_id": "+r.token_id = :token_id",
    "model": "model = :model",
    "outcome": "outcome = :outcome",
    "since": "r.id >= :since",
    "until": "r.id < :until",
    "before": "r.id < :before",
}


def listed(
    db: Database, *, limit: int = 100, since: int | None = None, until: int | None = None, **wanted
) -> list[dict]:
    """Calls, newest first: of `user_id`, `token_id`, `model`, `outcome`, begun in [since, until)
    ms.

    The next page is asked for with `before`, the last id of this one. Amounts are integers,
    `attempts` a list.
    """
    asked = wanted | {"since": first_id(since), "until": first_id(until)}
    asked = {name: value for name, value in asked.items() if value is not None}
    where = " AND ".join(WANTED[name] for name in asked) or "1"
    rows = db.read().execute(CALLS.format(where=where), asked | {"limit": limit}).fetchall()
    return [_row(dict(row)) for row in rows]


def _row(row: dict) -> dict:
    charged = {pocket: row.pop(f"charged_{pocket}") for pocket in ("grant", "quota", "wallet")}
    return row | {
        "charged": charged,
        "stream": bool(row["stream"]),
        "attempts": json.loads(row["attempts"]),
    }


def first_id(at: int | None) -> str | None:
    """No call that began at `at` (ms) or later has a smaller id, for ids begin with their time."""
    return None if at is None else f"req_{max(0, at):012x}"


def forget(db: Database, days: int, now: int | None = None) -> int:
    """Remove the rows of calls that ended and are older than so many days (0: none); returns how
    many.

    It goes in small steps, so that nobody waits for it. No balance, entry or roll-up changes.
    """
    limit, gone = first_id((now or now_ms()) - days * 86_400_000), 0
    while days > 0 and (step := db.write(_forget_some, limit)):
        gone += step
    return gone


def _forget_some(conn, limit: str) -> int:
    gone = conn.execute(
        "DELETE FROM requests WHERE id IN (SELECT id FROM requests"
        " WHERE id < ? AND closed_at IS NOT NULL ORDER BY id LIMIT 200)",
        (limit,),
    ).rowcount
    if gone:
        conn.execute(
            "INSERT INTO meta VALUES ('requests_kept_from', ?1)"
            " ON CONFLICT DO UPDATE SET value = max(value, ?1)",
            (limit,),
        )
    return gone


def contents(conn) -> tuple[int | None, int, int, Pockets]:
    """What is in a file of any version: the newest call's time (ms), calls, members, and the sum of
    all balances."""
    newest, calls, members, *pockets = conn.execute(
        "SELECT (SELECT max(started_at) FROM requests), (SELECT count(*) FROM requests),"
        " (SELECT count(*) FROM users), coalesce(sum(grant_balance), 0),"
        " coalesce(sum(quota_balance), 0), coalesce(sum(wallet_balance), 0) FROM balances"
    ).fetchone()
    return newest, calls, members, Pockets(*pockets)
