"""Proof that the ledger is right: every balance, hold, charge and roll-up, computed again from what
they rest on.

Reads one moment of the file and changes nothing. It shares no code with what writes the ledger, for
the same mistake would hide in both.
"""

import re
from datetime import UTC, datetime
from typing import Any

from db import SCHEMA, Connection, Database
from pricing import yuan

# Each statement finds what is wrong: (whose or which, pocket, what it is, what it should be). The
# sentence says so.
BALANCES = """
WITH sums AS (SELECT user_id, pocket, sum(amount) AS amount FROM entries GROUP BY user_id, pocket),
     kept AS (SELECT user_id, 'grant' AS pocket, grant_balance AS balance FROM balances
              UNION ALL SELECT user_id, 'quota', quota_balance FROM balances
              UNION ALL SELECT user_id, 'wallet', wallet_balance FROM balances)
SELECT name, pocket, balance, coalesce(amount, 0)
  FROM kept LEFT JOIN sums USING (user_id, pocket) JOIN users ON users.id = user_id
 WHERE balance <> coalesce(amount, 0)"""

MISSING_BALANCES = (
    "SELECT name, '', 'none', 'a row' FROM users WHERE id NOT IN (SELECT user_id FROM balances)"
)

CHAIN = """
SELECT name || ', entry ' || e.id, pocket, balance_after, running FROM (
    SELECT *, sum(amount) OVER (PARTITION BY user_id, pocket ORDER BY id) AS running FROM entries) AS e
  JOIN users ON users.id = e.user_id WHERE balance_after <> running"""

HOLDS = """
WITH running AS (SELECT * FROM requests WHERE closed_at IS NULL),
     sums AS (SELECT user_id, sum(a) AS a, sum(b) AS b, sum(c) AS c
                FROM (SELECT user_id, hold_grant AS a, hold_quota AS b, hold_wallet AS c FROM running
                      UNION ALL SELECT team_id, 0, 0, hold_team FROM running) GROUP BY user_id),
     kept AS (SELECT user_id, 'grant' AS pocket, grant_held AS held, a AS sum
                FROM balances LEFT JOIN sums USING (user_id)
              UNION ALL SELECT user_id, 'quota', quota_held, b FROM balances LEFT JOIN sums USING (user_id)
              UNION ALL SELECT user_id, 'wallet', wallet_held, c FROM balances LEFT JOIN sums USING (user_id))
SELECT name, pocket, held, coalesce(sum, 0) FROM kept JOIN users ON users.id = user_id WHERE held <> coalesce(sum, 0)"""

SUBSCRIPTIONS = """
WITH sums AS (SELECT subscription_id, user_id, sum(amount) AS amount FROM entries GROUP BY subscription_id, user_id)
SELECT name || ', subscription ' || s.id, 'quota', left, coalesce(amount, 0)
  FROM subscriptions AS s JOIN users ON users.id = s.user_id
  LEFT JOIN sums ON subscription_id = s.id AND sums.user_id = s.user_id
 WHERE left <> coalesce(amount, 0)"""

# The terms of a period: what it granted is an entry, and so is what was paid for it. An allowance
# renews on them.
GRANTED = """
WITH sums AS (SELECT subscription_id, user_id, sum(amount) AS amount FROM entries
               WHERE pocket = 'quota' AND amount > 0 GROUP BY subscription_id, user_id)
SELECT name || ', subscription ' || s.id, 'quota', quota, coalesce(amount, 0)
  FROM subscriptions AS s JOIN users ON users.id = s.user_id
  LEFT JOIN sums ON subscription_id = s.id AND sums.user_id = s.user_id
 WHERE quota <> coalesce(amount, 0)"""

PAID = """
WITH sums AS (SELECT user_id, -sum(amount) AS amount FROM entries WHERE kind = 'purchase' GROUP BY user_id),
     noted AS (SELECT user_id, sum(paid) AS paid FROM subscriptions GROUP BY user_id)
SELECT name, 'wallet', coalesce(paid, 0), coalesce(amount, 0)
  FROM noted FULL JOIN sums USING (user_id) JOIN users ON users.id = user_id
 WHERE coalesce(paid, 0) <> coalesce(amount, 0)"""

QUOTAS = """
SELECT name, 'quota', quota_balance, coalesce(sum(left), 0)
  FROM balances JOIN users ON users.id = user_id LEFT JOIN subscriptions USING (user_id)
 GROUP BY user_id HAVING quota_balance <> coalesce(sum(left), 0)"""

CHARGES = """
WITH paid AS (SELECT request_id, -sum(iif(pocket = 'grant', amount, 0)) AS a,
                     -sum(iif(pocket = 'quota', amount, 0)) AS b,
                     -sum(iif(pocket = 'wallet' AND member_id IS NULL, amount, 0)) AS c,
                     -sum(iif(member_id IS NOT NULL, amount, 0)) AS d
                FROM entries WHERE kind = 'charge' GROUP BY request_id)
SELECT r.id, '', charged_grant || ', ' || charged_quota || ', ' || charged_wallet || ', ' || charged_team,
       coalesce(a, 0) || ', ' || coalesce(b, 0) || ', ' || coalesce(c, 0) || ', ' || coalesce(d, 0)
  FROM requests AS r LEFT JOIN paid ON request_id = r.id
 WHERE (charged_grant, charged_quota, charged_wallet, charged_team)
       <> (coalesce(a, 0), coalesce(b, 0), coalesce(c, 0), coalesce(d, 0))"""

# A charge stands with whom the call says: the caller's own pockets, and the team's wallet in the
# caller's name.
PAYERS = """
SELECT e.id, '', e.user_id || ' for ' || coalesce(member_id, e.user_id),
       iif(member_id IS NULL, r.user_id, coalesce(team_id, 'nobody')) || ' for ' || r.user_id
  FROM entries AS e JOIN requests AS r ON r.id = request_id
 WHERE kind = 'charge' AND (coalesce(member_id, e.user_id) <> r.user_id
                            OR e.user_id IS NOT iif(member_id IS NULL, r.user_id, team_id))"""

# What a team's members have in common ends at nothing.
TEAM_WALLETS = """
SELECT name, 'wallet', wallet_balance - wallet_held, 0 FROM balances JOIN users ON users.id = user_id
 WHERE is_team AND (wallet_balance < wallet_held OR grant_balance <> 0 OR quota_balance <> 0)"""

# Whoever shares a wallet shares a team's, and only teams pay for others.
TEAM_MEMBERS = """
SELECT each.name, '', 'is in ' || team.name, 'is no team' FROM balances
  JOIN users AS each ON each.id = user_id JOIN users AS team ON team.id = team_id WHERE each.is_team OR NOT team.is_team
UNION ALL
SELECT DISTINCT name, '', 'paid for members', 'is no team' FROM entries JOIN users ON users.id = entries.user_id
 WHERE member_id IS NOT NULL AND NOT is_team"""

TEAM_CALLS = """
WITH paid AS (SELECT user_id AS team_id, member_id AS user_id, count(*) AS calls FROM entries
               WHERE member_id IS NOT NULL GROUP BY 1, 2),
     kept AS (SELECT team_id, user_id, sum(calls) AS calls FROM daily_teams GROUP BY 1, 2)
SELECT team.name || ', for ' || users.name, '', coalesce(kept.calls, 0), coalesce(paid.calls, 0)
  FROM kept FULL JOIN paid USING (team_id, user_id)
  JOIN users ON users.id = user_id JOIN users AS team ON team.id = team_id
 WHERE coalesce(kept.calls, 0) <> coalesce(paid.calls, 0)"""

TEAM_DAYS = """
WITH paid AS (SELECT user_id AS team_id, member_id AS user_id, -sum(amount) AS amount FROM entries
               WHERE member_id IS NOT NULL GROUP BY 1, 2),
     kept AS (SELECT team_id, user_id, sum(charged) AS charged FROM daily_teams GROUP BY 1, 2)
SELECT team.name || ', for ' || users.name, 'wallet', coalesce(charged, 0), coalesce(amount, 0)
  FROM kept FULL JOIN paid USING (team_id, user_id)
  JOIN users ON users.id = user_id JOIN users AS team ON team.id = team_id
 WHERE coalesce(charged, 0) <> coalesce(amount, 0)"""

LOST_CALLS = """
SELECT request_id, '', 'no row', 'a row' FROM entries
 WHERE kind = 'charge' AND request_id >= coalesce((SELECT value FROM meta WHERE key = 'requests_kept_from'), '')
   AND NOT EXISTS (SELECT 1 FROM requests WHERE id = request_id)"""

# What a call used, kind by kind in the order in which a grant pays: plain input, writes, hits, reads,
# output. A price that is not there is that of what the kind is in general.
USED = """
SELECT id, cost, charged_grant, charged_quota + charged_team + charged_wallet AS paid,
       input_tokens - cached_tokens - coalesce(cache_write_tokens, 0) - coalesce(cache_write_1h_tokens, 0) AS n1,
       coalesce(cache_write_tokens, 0) AS n2, coalesce(cache_write_1h_tokens, 0) AS n3,
       cached_tokens - coalesce(cache_read_tokens, 0) AS n4, coalesce(cache_read_tokens, 0) AS n5,
       output_tokens AS n6, coalesce(searches, 0) * coalesce(price_search, 0) AS fees,
       price_input AS p1, coalesce(price_cache_write, price_input) AS p2,
       coalesce(price_cache_write_1h, price_cache_write, price_input) AS p3, price_cached AS p4,
       coalesce(price_cache_read, price_cached) AS p5, price_output AS p6
  FROM requests"""

COSTS = f"""
SELECT id, 'money', cost, made
  FROM (SELECT id, cost,
               coalesce(n1 * p1 + n2 * p2 + n3 * p3 + n4 * p4 + n5 * p5 + n6 * p6 + fees, 0) AS made
          FROM ({USED}))
 WHERE cost <> made"""

# Who paid: the grant covers kind after kind, as far as it goes; the rest, and every search, is money.
# (max and min of two.)
SPLITS = f"""
SELECT id, 'money', paid, r1 * p1 + r2 * p2 + r3 * p3 + r4 * p4 + r5 * p5 + r6 * p6 + fees AS made
  FROM (SELECT *, max(0, n1 - charged_grant) AS r1,
               n2 - min(n2, max(0, charged_grant - n1)) AS r2,
               n3 - min(n3, max(0, charged_grant - n1 - n2)) AS r3,
               n4 - min(n4, max(0, charged_grant - n1 - n2 - n3)) AS r4,
               n5 - min(n5, max(0, charged_grant - n1 - n2 - n3 - n4)) AS r5,
               n6 - min(n6, max(0, charged_grant - n1 - n2 - n3 - n4 - n5)) AS r6
          FROM ({USED}) WHERE n1 IS NOT NULL)
 WHERE paid <> made OR charged_grant > n1 + n2 + n3 + n4 + n5 + n6"""

ROLL_UPS = """
WITH paid AS (SELECT coalesce(member_id, user_id) AS user_id, iif(member_id IS NULL, pocket, 'team') AS pocket,
                     -sum(amount) AS amount FROM entries WHERE kind = 'charge' GROUP BY 1, 2),
     kept AS (SELECT user_id, 'grant' AS pocket, sum(charged_grant) AS charged FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'quota', sum(charged_quota) FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'wallet', sum(charged_wallet) FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'team', sum(charged_team) FROM daily GROUP BY user_id)
SELECT name, pocket, coalesce(charged, 0), coalesce(amount, 0)
  FROM kept FULL JOIN paid USING (user_id, pocket) JOIN users ON users.id = user_id
 WHERE coalesce(charged, 0) <> coalesce(amount, 0)"""

# Only days of which no call has been forgotten. A name that no model has is not kept where there
# was no hold.
SUMMED = (
    "calls",
    "refused",
    "input_tokens",
    "cached_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "searches",
    "cost",
    "upstream_cost",
    "charged_grant",
    "charged_quota",
    "charged_wallet",
    "charged_team",
)
ROLLED_CALLS = f"""
WITH differences AS (
    SELECT user_id, day, token_id, model, {", ".join(f"sum({name}) AS {name}" for name in SUMMED)}
      FROM (SELECT user_id, day, token_id, model, {", ".join(SUMMED)} FROM daily
            UNION ALL
            SELECT user_id, day, token_id,
                   iif(error = 'model_not_found' AND price_input IS NULL, '', coalesce(model, '')),
                   -1, -(outcome = 'refused'), {", ".join(f"-coalesce({name}, 0)" for name in SUMMED[2:])}
              FROM requests WHERE closed_at IS NOT NULL)
     WHERE day > :first_day GROUP BY user_id, day, token_id, model)
SELECT name || ', ' || day || ', token ' || token_id || ', ' || model, '',
       json_object({", ".join(f"'{name}', {name}" for name in SUMMED)}), ''
  FROM differences JOIN users ON users.id = user_id
 WHERE ({", ".join(SUMMED)}) <> ({", ".join("0" for _ in SUMMED)})"""

# What the ledger rests on outside itself: a file that somebody has changed by hand gives itself away
# where codes are unused again, or where the trail has lost what was done.
CODES = """
WITH sums AS (SELECT user_id, pocket, sum(amount) AS amount FROM entries
               WHERE kind = 'redeem' GROUP BY user_id, pocket),
     used AS (SELECT redeemed_by AS user_id, iif(kind = 'plan', 'quota', kind) AS pocket,
                     sum(coalesce(iif(kind = 'plan', quota, amount), 0)) AS amount
                FROM codes WHERE redeemed_by IS NOT NULL GROUP BY 1, 2)
SELECT name, pocket, coalesce(used.amount, 0), coalesce(sums.amount, 0)
  FROM used FULL JOIN sums USING (user_id, pocket) JOIN users ON users.id = user_id
 WHERE coalesce(used.amount, 0) <> coalesce(sums.amount, 0)"""

TRAIL = """
SELECT name || ', entry ' || entries.id, '', 'no row', 'a row'
  FROM entries JOIN users ON users.id = user_id
 WHERE (kind IN ('top_up', 'refund', 'adjust') OR by_user_id IS NOT NULL)
   AND entries.id NOT IN (SELECT json_extract(detail, '$.entry') FROM audit
                           WHERE action LIKE 'ledger.%' AND json_extract(detail, '$.entry') IS NOT NULL)"""

TRAIL_GAPS = """
SELECT 'the audit trail', '', count(*), max(id) FROM audit HAVING count(*) <> coalesce(max(id), 0)"""

CHECKS = (
    ("{}: the {} balance is {}; its entries sum to {}", BALANCES),
    ("{}: there are no balances{}: {} instead of {}", MISSING_BALANCES),
    ("{}: the {} balance after it is noted as {}; the entries up to it sum to {}", CHAIN),
    ("{}: {} holds are {}; those of open calls sum to {}", HOLDS),
    ("{}: left of its {} is {}; its entries sum to {}", SUBSCRIPTIONS),
    ("{}: the {} that it grants is {}; its entries put in {}", GRANTED),
    ("{}: what plans took from the {} is noted as {}; its entries took {}", PAID),
    ("{}: the {} balance is {}; what is left of the subscriptions sums to {}", QUOTAS),
    ("{}: the call says that it was charged {}{}; the entries say {}", CHARGES),
    ("entry {}: it charges{} {}; its call says {}", PAYERS),
    ("{}: what is free of the team's {} is {}, below {}, or it has other balances", TEAM_WALLETS),
    ("{}: it{} {}, which {}", TEAM_MEMBERS),
    ("{}: its roll-ups{} count {} calls; it paid for {}", TEAM_CALLS),
    ("{}: the roll-ups of what the {} paid sum to {}; the charges to {}", TEAM_DAYS),
    ("{}: an entry charges a call that has {}{} instead of {}", LOST_CALLS),
    ("{}: the cost in {} is {}; usage and price make {}", COSTS),
    ("{}: the {} that was paid is {}; what the grant left comes to {}", SPLITS),
    ("{}: the roll-ups of the {} sum to {}; the charges to {}", ROLL_UPS),
    ("{}: the roll-ups{} are off the calls by {}{}", ROLLED_CALLS),
    ("{}: codes for the {} that were redeemed sum to {}; the entries to {}", CODES),
    ("{}: made by hand, it has{} {} in the audit trail instead of {}", TRAIL),
    ("{}: it has{} {} rows, and its last is number {}", TRAIL_GAPS),
)
EACH_MAX = 20  # findings named of each check; a damaged file has thousands

_laws = re.compile(r"^(CREATE TRIGGER (\w+).*?\bEND);$", re.DOTALL | re.MULTILINE).findall


def verify(db: Database) -> list[str]:
    """Sentences that name what is wrong; none if all is right."""
    conn = db.read()
    conn.execute("BEGIN")
    try:
        damage = [row[0] for row in conn.execute("PRAGMA integrity_check(5)").fetchall()]
        if damage != ["ok"]:
            return [f"the file is damaged: {found}" for found in damage]
        broken = conn.execute(
            'SELECT DISTINCT "table", parent FROM pragma_foreign_key_check'
        ).fetchall()
        found = [
            f"a row of {table} refers to one of {parent} that is not there"
            for table, parent in broken
        ]
        found += _broken_laws(conn)
        first_day = _first_whole_day(conn)
        for sentence, check in CHECKS:
            rows = conn.execute(f"{check} LIMIT {EACH_MAX}", {"first_day": first_day}).fetchall()
            found += [
                sentence.format(which, pocket, _amount(pocket, has), _amount(pocket, should))
                for which, pocket, has, should in rows
            ]
        return found
    finally:
        if conn.in_transaction:  # a damaged file may have ended it
            conn.execute("ROLLBACK")


def _broken_laws(conn: Connection) -> list[str]:
    """Without its triggers the file takes anything.

    Whoever removed, changed or added one had something in mind.
    """
    there = dict(
        conn.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    )
    made = {name: sql for sql, name in _laws(SCHEMA.read_text(encoding="utf-8"))}
    return [
        f"the trigger {name} is {'missing' if name not in there else 'not as models.sql has it'}"
        for name in sorted(made.keys() | there.keys())
        if there.get(name) != made.get(name)
    ]


def _first_whole_day(conn: Connection) -> str:
    """The last day of which calls may have been forgotten.

    A day of the site may begin 14 hours off the one in UTC.
    """
    row = conn.execute("SELECT value FROM meta WHERE key = 'requests_kept_from'").fetchone()
    if row is None:
        return ""
    forgotten_s = int(row[0].removeprefix("req_"), 16) / 1000 + 14 * 3600
    return datetime.fromtimestamp(forgotten_s, UTC).strftime("%Y-%m-%d")


def _amount(pocket: str, value: Any) -> str:
    if pocket == "grant":
        return f"{value} LLM tokens"
    return f"{yuan(value)} yuan" if pocket and isinstance(value, int) else str(value)
