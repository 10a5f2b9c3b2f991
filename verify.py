"""Proof that the ledger is right: every balance, hold, charge and roll-up, computed again from what
they rest on.

Reads one moment of the file and changes nothing. It shares no code with what writes the ledger, for
the same mistake would hide in both.
"""

import re
from datetime import UTC, datetime

from db import SCHEMA, Database
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
WITH sums AS (SELECT user_id, sum(hold_grant) AS a, sum(hold_quota) AS b, sum(hold_wallet) AS c
                FROM requests WHERE closed_at IS NULL GROUP BY user_id),
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
                     -sum(iif(pocket = 'quota', amount, 0)) AS b, -sum(iif(pocket = 'wallet', amount, 0)) AS c
                FROM entries WHERE kind = 'charge' GROUP BY request_id)
SELECT r.id, '', charged_grant || ', ' || charged_quota || ', ' || charged_wallet,
       coalesce(a, 0) || ', ' || coalesce(b, 0) || ', ' || coalesce(c, 0)
  FROM requests AS r LEFT JOIN paid ON request_id = r.id
 WHERE (charged_grant, charged_quota, charged_wallet) <> (coalesce(a, 0), coalesce(b, 0), coalesce(c, 0))"""

LOST_CALLS = """
SELECT request_id, '', 'no row', 'a row' FROM entries
 WHERE kind = 'charge' AND request_id >= coalesce((SELECT value FROM meta WHERE key = 'requests_kept_from'), '')
   AND NOT EXISTS (SELECT 1 FROM requests WHERE id = request_id)"""

COSTS = """
SELECT id, 'money', cost, made FROM (
    SELECT id, cost, coalesce((input_tokens - cached_tokens) * price_input + cached_tokens * price_cached
                              + output_tokens * price_output, 0) AS made
      FROM requests)
 WHERE cost <> made"""

# Who paid: the grant covers uncached input, then cached input, then output; its rest is money. (max
# and min of two.)
SPLITS = """
SELECT id, 'money', paid, uncached * price_input + cached * price_cached
                          + max(0, output_tokens - max(0, charged_grant - input_tokens)) * price_output AS made
  FROM (SELECT id, charged_grant, charged_quota + charged_wallet AS paid, input_tokens, output_tokens,
               price_input, price_cached, price_output,
               max(0, input_tokens - cached_tokens - charged_grant) AS uncached,
               max(0, cached_tokens - max(0, charged_grant - input_tokens + cached_tokens)) AS cached
          FROM requests WHERE input_tokens IS NOT NULL)
 WHERE paid <> made OR charged_grant > input_tokens + output_tokens"""

ROLL_UPS = """
WITH paid AS (SELECT user_id, pocket, -sum(amount) AS amount FROM entries
               WHERE kind = 'charge' GROUP BY user_id, pocket),
     kept AS (SELECT user_id, 'grant' AS pocket, sum(charged_grant) AS charged FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'quota', sum(charged_quota) FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'wallet', sum(charged_wallet) FROM daily GROUP BY user_id)
SELECT name, pocket, coalesce(charged, 0), coalesce(amount, 0)
  FROM kept FULL JOIN paid USING (user_id, pocket) JOIN users ON users.id = user_id
 WHERE coalesce(charged, 0) <> coalesce(amount, 0)"""

# Only days of which no call has been forgotten. A name that no model has is not kept where there
# was no hold.
ROLLED_CALLS = """
WITH differences AS (
    SELECT user_id, day, token_id, model, sum(c) AS calls, sum(r) AS refused, sum(i) AS input_tokens,
           sum(h) AS cached_tokens, sum(o) AS output_tokens, sum(m) AS cost, sum(g) AS charged_grant,
           sum(q) AS charged_quota, sum(w) AS charged_wallet
      FROM (SELECT user_id, day, token_id, model, calls AS c, refused AS r, input_tokens AS i, cached_tokens AS h,
                   output_tokens AS o, cost AS m, charged_grant AS g, charged_quota AS q, charged_wallet AS w
              FROM daily
            UNION ALL
            SELECT user_id, day, token_id,
                   iif(error = 'model_not_found' AND price_input IS NULL, '', coalesce(model, '')),
                   -1, -(outcome = 'refused'), -coalesce(input_tokens, 0), -coalesce(cached_tokens, 0),
                   -coalesce(output_tokens, 0), -cost, -charged_grant, -charged_quota, -charged_wallet
              FROM requests WHERE closed_at IS NOT NULL)
     WHERE day > :first_day GROUP BY user_id, day, token_id, model)
SELECT name || ', ' || day || ', token ' || token_id || ', ' || model, '',
       json_object('calls', calls, 'refused', refused, 'input_tokens', input_tokens, 'cached_tokens', cached_tokens,
                   'output_tokens', output_tokens, 'cost', cost, 'charged_grant', charged_grant,
                   'charged_quota', charged_quota, 'charged_wallet', charged_wallet), ''
  FROM differences JOIN users ON users.id = user_id
 WHERE (calls, refused, input_tokens, cached_tokens, output_tokens, cost, charged_grant, charged_quota, charged_wallet)
       <> (0, 0, 0, 0, 0, 0, 0, 0, 0)"""

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
    ("{}: an entry charges a call that has {}{} instead of {}", LOST_CALLS),
    ("{}: the cost in {} is {}; usage and price make {}", COSTS),
    ("{}: the {} that was paid is {}; what the grant left comes to {}", SPLITS),
    ("{}: the roll-ups of the {} sum to {}; the charges to {}", ROLL_UPS),
    ("{}: the roll-ups{} are off the calls by {}{}", ROLLED_CALLS),
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
        conn.execute("ROLLBACK")


def _broken_laws(conn) -> list[str]:
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


def _first_whole_day(conn) -> str:
    """The last day of which calls may have been forgotten.

    A day of the site may begin 14 hours off the one in UTC.
    """
    row = conn.execute("SELECT value FROM meta WHERE key = 'requests_kept_from'").fetchone()
    if row is None:
        return ""
    forgotten_s = int(row[0].removeprefix("req_"), 16) / 1000 + 14 * 3600
    return datetime.fromtimestamp(forgotten_s, UTC).strftime("%Y-%m-%d")


def _amount(pocket: str, value) -> str:
    if pocket == "grant":
        return f"{value} LLM tokens"
    return f"{yuan(value)} yuan" if pocket and isinstance(value, int) else str(value)
