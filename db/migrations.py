"""How an older file gets to the schema of today: numbered steps, each within one transaction.

A step never changes once it has been released; a test holds the schema's digest to the version.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlite3 import Connection

SCHEMA = Path(__file__).resolve().parent.parent / "models.sql"

_REQUESTS_2 = (
    "cache_read_tokens INTEGER CHECK (cache_read_tokens BETWEEN 0 AND cached_tokens)",
    "cache_write_tokens INTEGER CHECK (cache_write_tokens >= 0)",
    (
        "cache_write_1h_tokens INTEGER CHECK (cache_write_1h_tokens >= 0"
        " AND cached_tokens + cache_write_tokens + cache_write_1h_tokens <= input_tokens)"
    ),
    "searches INTEGER CHECK (searches >= 0)",
    "price_cache_read INTEGER CHECK (price_cache_read >= 0)",
    "price_cache_write INTEGER CHECK (price_cache_write >= 0)",
    "price_cache_write_1h INTEGER CHECK (price_cache_write_1h >= 0)",
    "price_search INTEGER CHECK (price_search >= 0)",
    "upstream_cost INTEGER CHECK (upstream_cost >= 0)",
)
_DAILY_2 = (
    "cache_read_tokens INTEGER NOT NULL DEFAULT 0",
    "cache_write_tokens INTEGER NOT NULL DEFAULT 0",
    "cache_write_1h_tokens INTEGER NOT NULL DEFAULT 0",
    "searches INTEGER NOT NULL DEFAULT 0",
    "upstream_cost INTEGER NOT NULL DEFAULT 0",
)


_CAPS_2 = """
CREATE TABLE caps (
    user_id    INTEGER PRIMARY KEY REFERENCES users,
    cap_day    INTEGER CHECK (cap_day >= 0),
    cap_month  INTEGER CHECK (cap_month >= 0),
    models     TEXT CHECK (models IS NULL OR json_valid(models))
) STRICT"""

_PEOPLE_3 = (
    "ALTER TABLE requests ADD COLUMN message TEXT",
    "ALTER TABLE users ADD COLUMN invite_uses INTEGER CHECK (invite_uses >= 0)",
    "ALTER TABLE users ADD COLUMN invite_until INTEGER",
    "ALTER TABLE tokens ADD COLUMN old_digest BLOB",
    "ALTER TABLE tokens ADD COLUMN old_until INTEGER",
    "ALTER TABLE tokens ADD COLUMN scope TEXT CHECK (scope = 'admin')",
    "CREATE INDEX tokens_by_old_digest ON tokens (old_digest) WHERE old_digest IS NOT NULL",
    """
CREATE TABLE turned_away (
    user_id   INTEGER NOT NULL REFERENCES users,
    day       TEXT    NOT NULL,
    token_id  INTEGER NOT NULL REFERENCES tokens,
    reason    TEXT    NOT NULL,
    count     INTEGER NOT NULL CHECK (count > 0),
    last_at   INTEGER NOT NULL,
    PRIMARY KEY (user_id, day, token_id, reason)
) STRICT, WITHOUT ROWID""",
    """
CREATE TABLE credit_requests (
    id          INTEGER PRIMARY KEY,
    user_id     INTEGER NOT NULL REFERENCES users,
    amount      INTEGER NOT NULL CHECK (amount > 0),
    note        TEXT    NOT NULL CHECK (length(note) <= 500),
    created_at  INTEGER NOT NULL,
    decided_at  INTEGER,
    decided_by  INTEGER REFERENCES users,
    given       INTEGER CHECK (given >= 0),
    reason      TEXT    CHECK (length(reason) <= 500),
    CHECK ((decided_at IS NULL) = (given IS NULL))
) STRICT""",
    "CREATE INDEX credit_requests_by_user ON credit_requests (user_id, id)",
    (
        "CREATE UNIQUE INDEX credit_requests_open ON credit_requests (user_id)"
        " WHERE decided_at IS NULL"
    ),
)


_UPSTREAMS_5 = (
    """CREATE TABLE daily_upstreams (
    day             TEXT    NOT NULL,
    upstream        TEXT    NOT NULL,
    calls           INTEGER NOT NULL,
    input_tokens    INTEGER NOT NULL,
    output_tokens   INTEGER NOT NULL,
    cost            INTEGER NOT NULL,
    PRIMARY KEY (day, upstream)
) STRICT, WITHOUT ROWID""",
    """CREATE TRIGGER a_call_that_ends_is_its_upstreams AFTER UPDATE OF closed_at ON requests
 WHEN OLD.closed_at IS NULL AND NEW.upstream IS NOT NULL BEGIN
    INSERT INTO daily_upstreams VALUES (
        NEW.day, NEW.upstream, 1, coalesce(NEW.input_tokens, 0), coalesce(NEW.output_tokens, 0), NEW.cost)
    ON CONFLICT DO UPDATE SET
        calls = calls + 1, input_tokens = input_tokens + excluded.input_tokens,
        output_tokens = output_tokens + excluded.output_tokens, cost = cost + excluded.cost;
END""",
)

_IDENTITIES_6 = (
    """CREATE TABLE identities (
    issuer      TEXT    NOT NULL CHECK (length(issuer) BETWEEN 1 AND 1000),
    subject     TEXT    NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id     INTEGER REFERENCES users,
    name        TEXT    NOT NULL,
    email       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT, WITHOUT ROWID""",
    "CREATE INDEX identities_by_user ON identities (user_id) WHERE user_id IS NOT NULL",
)


_ROLLED_UP = "a_call_that_ends_is_rolled_up", "a_refused_call_is_rolled_up"
_ROLLED_UP_2 = (
    """CREATE TRIGGER a_call_that_ends_is_rolled_up AFTER UPDATE OF closed_at ON requests \
WHEN OLD.closed_at IS NULL BEGIN
    INSERT INTO daily VALUES (
        NEW.user_id, NEW.day, NEW.token_id, coalesce(NEW.model, ''), 1, NEW.outcome = 'refused',
        coalesce(NEW.input_tokens, 0), coalesce(NEW.cached_tokens, 0), coalesce(NEW.output_tokens, 0), NEW.cost,
        NEW.charged_grant, NEW.charged_quota, NEW.charged_wallet, NEW.started_at,
        coalesce(NEW.cache_read_tokens, 0), coalesce(NEW.cache_write_tokens, 0),
        coalesce(NEW.cache_write_1h_tokens, 0), coalesce(NEW.searches, 0), coalesce(NEW.upstream_cost, 0))
    ON CONFLICT DO UPDATE SET
        calls = calls + 1, refused = refused + excluded.refused, input_tokens = input_tokens + excluded.input_tokens,
        cached_tokens = cached_tokens + excluded.cached_tokens, output_tokens = output_tokens + excluded.output_tokens,
        cost = cost + excluded.cost, charged_grant = charged_grant + excluded.charged_grant,
        charged_quota = charged_quota + excluded.charged_quota,
        charged_wallet = charged_wallet + excluded.charged_wallet, last_at = max(last_at, excluded.last_at),
        cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
        cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
        cache_write_1h_tokens = cache_write_1h_tokens + excluded.cache_write_1h_tokens,
        searches = searches + excluded.searches, upstream_cost = upstream_cost + excluded.upstream_cost;
END""",
    """CREATE TRIGGER a_refused_call_is_rolled_up AFTER INSERT ON requests WHEN NEW.closed_at IS NOT NULL BEGIN
    INSERT INTO daily VALUES (
        NEW.user_id, NEW.day, NEW.token_id, iif(NEW.error = 'model_not_found', '', coalesce(NEW.model, '')), 1,
        NEW.outcome = 'refused', 0, 0, 0, 0, 0, 0, 0, NEW.started_at, 0, 0, 0, 0, 0)
    ON CONFLICT DO UPDATE SET
        calls = calls + 1, refused = refused + excluded.refused, last_at = max(last_at, excluded.last_at);
END""",
)

_TEAMS_7 = (
    "ALTER TABLE users ADD COLUMN is_team INTEGER NOT NULL DEFAULT 0 CHECK (is_team IN (0, 1))",
    "ALTER TABLE balances ADD COLUMN team_id INTEGER REFERENCES users",
    "CREATE INDEX balances_by_team ON balances (team_id) WHERE team_id IS NOT NULL",
    (
        "ALTER TABLE entries ADD COLUMN member_id INTEGER REFERENCES users"
        " CHECK (member_id IS NULL OR (kind = 'charge' AND pocket = 'wallet'"
        " AND member_id <> user_id AND balance_after >= 0))"
    ),
    "ALTER TABLE requests ADD COLUMN team_id INTEGER REFERENCES users",
    "ALTER TABLE requests ADD COLUMN hold_team INTEGER NOT NULL DEFAULT 0 CHECK (hold_team >= 0)",
    "ALTER TABLE requests ADD COLUMN charged_team INTEGER NOT NULL DEFAULT 0 CHECK (charged_team >= 0)",
    "ALTER TABLE requests ADD COLUMN may_grant INTEGER NOT NULL DEFAULT 0 CHECK (may_grant >= 0)",
    "ALTER TABLE requests ADD COLUMN may_money INTEGER NOT NULL DEFAULT 0 CHECK (may_money >= 0)",
    "ALTER TABLE requests ADD COLUMN may_team INTEGER NOT NULL DEFAULT 0 CHECK (may_team >= 0)",
    "ALTER TABLE daily ADD COLUMN charged_team INTEGER NOT NULL DEFAULT 0",
    "DROP INDEX daily_by_day",
    """CREATE INDEX daily_by_day ON daily (day, model, calls, refused, input_tokens, cached_tokens, output_tokens, cost,
                                    charged_grant, charged_quota, charged_wallet, charged_team)""",
    """CREATE TABLE daily_teams (
    team_id  INTEGER NOT NULL REFERENCES users,
    day      TEXT    NOT NULL,
    user_id  INTEGER NOT NULL REFERENCES users,
    calls    INTEGER NOT NULL,
    charged  INTEGER NOT NULL,
    PRIMARY KEY (team_id, day, user_id)
) STRICT, WITHOUT ROWID""",
)


def kinds(conn: "Connection") -> None:
    """Version 2: cache reads, cache writes, searches, what the provider bills, caps of members.

    Calls of before used none of them, as far as anybody knew: their columns stay empty, which
    counts and costs nothing. What the provider billed for them is not known either.
    """
    for column in _REQUESTS_2:
        conn.execute(f"ALTER TABLE requests ADD COLUMN {column}")
    for column in _DAILY_2:
        conn.execute(f"ALTER TABLE daily ADD COLUMN {column}")
    conn.execute(_CAPS_2)
    _drop(conn, *_ROLLED_UP)
    for trigger in _ROLLED_UP_2:
        conn.execute(trigger)


def people(conn: "Connection") -> None:
    """Version 3: invites that end, tokens that are renewed or administer, requests for credit, who
    was turned away, and what refused callers read.
    """
    for statement in _PEOPLE_3:
        conn.execute(statement)


def months(conn: "Connection") -> None:
    """Version 4: allowances by calendar month."""
    conn.execute("ALTER TABLE subscriptions ADD COLUMN months_of TEXT")


def upstreams(conn: "Connection") -> None:
    """Version 5: what each upstream served, day by day; of before as far as calls are kept."""
    for statement in _UPSTREAMS_5:
        conn.execute(statement)
    conn.execute(
        "INSERT INTO daily_upstreams SELECT day, upstream, count(*), sum(coalesce(input_tokens, 0)),"
        " sum(coalesce(output_tokens, 0)), sum(cost) FROM requests"
        " WHERE closed_at IS NOT NULL AND upstream IS NOT NULL GROUP BY day, upstream"
    )


def identities(conn: "Connection") -> None:
    """Version 6: who members are at an identity provider."""
    for statement in _IDENTITIES_6:
        conn.execute(statement)


def teams(conn: "Connection") -> None:
    """Version 7: teams with a wallet that their members share; checks that cost less."""
    for statement in _TEAMS_7:
        conn.execute(statement)
    _lists_as_alternatives(conn)
    _drop(conn, *_ROLLED_UP, "a_call_closes_once")
    _as_written(
        conn,
        *_ROLLED_UP,
        "a_call_closes_once",
        "a_team_makes_no_calls",
        "a_member_shares_the_wallet_of_a_team",
        "a_call_that_begins_is_held_by_the_team",
        "a_call_that_ends_is_released_by_the_team",
        "a_call_that_ends_is_its_teams",
    )


def _lists_as_alternatives(conn: "Connection") -> None:
    """Let the hot tables check `a = 'x' OR a = 'y'` in place of `a IN ('x', 'y', 'z')`, for which
    SQLite makes a table at each insert.

    The rows are what they were, so that the text alone is changed, as
    https://www.sqlite.org/lang_altertable.html has it for checks.
    """
    conn.execute("PRAGMA writable_schema = ON")
    for table in ("entries", "requests"):
        (sql,) = conn.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        conn.execute(
            "UPDATE sqlite_schema SET sql = ? WHERE name = ?", (_LIST.sub(_or, sql), table)
        )
    conn.execute("PRAGMA writable_schema = RESET")


_LIST = re.compile(r"CHECK \((\w+) IN \(((?:\s*'\w+'\s*,?){3,})\)\)")


def _or(check: re.Match[str]) -> str:
    values = re.findall(r"'\w+'", check[2])
    return f"CHECK ({' OR '.join(f'{check[1]} = {value}' for value in values)})"


def _drop(conn: "Connection", *triggers: str) -> None:
    for name in triggers:
        conn.execute(f"DROP TRIGGER {name}")


def _as_written(conn: "Connection", *triggers: str) -> None:
    """Make these triggers, which are not there, as models.sql has them.

    The next step that changes one of them copies today's text to here.
    """
    schema = SCHEMA.read_text(encoding="utf-8")
    for name in triggers:
        made = re.search(rf"^CREATE TRIGGER {name}\b.*?\bEND;$", schema, re.DOTALL | re.MULTILINE)
        assert made is not None, name
        conn.execute(made[0])


# The n-th takes a connection from version n to n + 1.
MIGRATIONS: tuple[Callable[..., Any], ...] = (
    kinds,
    people,
    months,
    upstreams,
    identities,
    teams,
)
