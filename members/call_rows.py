"""The rows of calls: listed, found by their time, and forgotten when they are old.

Owns what is read of `requests` in general, and their removal. They are written by `billing`, with
the money that they move, and no balance, entry or roll-up changes when one is forgotten.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from billing import COUNTS, PRICES, Pockets, now_ms
from db import Database, keyset

BATCH = 500  # rows read at a time; between two batches nothing is open

# What is read of a call, wherever calls are listed.
COLUMNS = f"""
id, user_id, token_id, team_id, (SELECT name FROM users WHERE users.id = requests.user_id) AS user,
(SELECT name FROM tokens WHERE tokens.id = requests.token_id) AS token, wire, model, upstream, outcome, status, error,
message, stream, started_at, started_at AS created_at, closed_at, {", ".join(COUNTS)}, usage_source, usage_note,
{", ".join(PRICES)}, cost, upstream_cost, hold_grant, hold_quota, hold_wallet, hold_team, charged_grant,
charged_quota, charged_wallet, charged_team, first_byte_ms, duration_ms, attempts"""
NOT_IN_JSON = (
    "key",
    "started_at",
    "message",
    "hold_grant",
    "hold_quota",
    "hold_wallet",
    "hold_team",
    "team_id",
)

# The running ones are few, and have an index of their own, which SQLite would not choose by itself.
RUNNING = "requests INDEXED BY requests_open", "closed_at IS NULL"


@dataclass(frozen=True)
class CallFilter:
    """Which calls a listing is asked for; None leaves a question open.

    Begun in [`since`, `until`) ms. The outcome of a call that runs is "open".
    """

    user_id: int | None = None
    token_id: int | None = None
    model: str | None = None
    upstream: str | None = None
    outcome: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def values(self) -> dict:
        """What the conditions need."""
        return {name: getattr(self, name) for name in ("user_id", *MATCHING)}

    def calls(self, until: int | None = None) -> keyset.List:
        """The calls that fit, begun before `until` (ms) if it is earlier."""
        ends = [end for end in (until, self.until) if end is not None]
        within = [] if self.user_id is None else ["user_id = :user_id"]
        wanted = {name: how for name, how in MATCHING.items() if getattr(self, name) is not None}
        if self.outcome == "open":
            within.append(RUNNING[1])
            del wanted["outcome"]
        return keyset.List(
            RUNNING[0] if self.outcome == "open" else "requests",
            COLUMNS,
            "id",
            " AND ".join(within) or "1",
            " AND ".join(wanted.values()),
            self.values,
            first_id(self.since),
            first_id(min(ends, default=None)),
        )


# Read after an index has found the calls of a span; "+" keeps SQLite from sorting a token's calls.
MATCHING = {
    "token_id": "+token_id = :token_id",
    "model": "model = :model",
    "upstream": "upstream = :upstream",
    "outcome": "outcome = :outcome",
}


def listed(
    db: Database, asked: CallFilter, limit: int | None = None, before: str | None = None
) -> Iterator[dict]:
    """Calls, newest first, the first of them older than `before` (the id of one).

    Amounts are integers, `charged` and `attempts` are nested.
    """
    return map(_nested, rows(db, asked, limit, before))


def find(db: Database, call_id: str) -> dict | None:
    """One call, with what a refused caller read (`message`)."""
    row = db.read().execute(f"SELECT {COLUMNS} FROM requests WHERE id = ?", (call_id,)).fetchone()
    return None if row is None else _nested(row) | {"message": row["message"]}


def rows(
    db: Database, asked: CallFilter, limit: int | None = None, before: str | None = None
) -> Iterator:
    """The same calls, as the database has them."""
    size = BATCH if limit is None else min(limit, BATCH)
    batches = asked.calls().all(db.read(), size, before)
    return islice(chain.from_iterable(batches), limit)


def _nested(found) -> dict:
    row = {name: value for name, value in dict(found).items() if name not in NOT_IN_JSON}
    charged = {pocket: row.pop(f"charged_{pocket}") for pocket in ("grant", "quota", "wallet")}
    if by_team := row.pop("charged_team"):  # who is in no team reads of none
        charged["team"] = by_team
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
    has_teams = conn.execute(
        "SELECT 1 FROM pragma_table_info('users') WHERE name = 'is_team'"
    ).fetchone()
    newest, calls, members, *pockets = conn.execute(
        "SELECT (SELECT max(started_at) FROM requests), (SELECT count(*) FROM requests),"
        f" (SELECT count(*) FROM users {'WHERE NOT is_team' if has_teams else ''}), coalesce(sum(grant_balance), 0),"
        " coalesce(sum(quota_balance), 0), coalesce(sum(wallet_balance), 0) FROM balances"
    ).fetchone()
    return newest, calls, members, Pockets(*pockets)
