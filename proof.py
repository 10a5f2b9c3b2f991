"""Proof that the ledger is right: every balance, hold, charge and roll-up, computed again from what they rest on.

Reads one moment of the file and changes nothing. It shares no code with what writes the ledger, for the same mistake
would hide in both.
"""

from datetime import UTC, datetime

from db import Database
from pricing import yuan

# Each statement finds what is wrong: (whose or which, pocket, what it is, what it should be). The sentence says so.
BALANCES = """
WITH sums AS (SELECT user_id, pocket, sum(amount) AS amount FROM entries GROUP BY user_id, pocket),
     kept AS (SELECT user_id, 'grant' AS pocket, grant_balance AS balance FROM balances
              UNION ALL SELECT user_id, 'quota', quota_balance FROM balances
              UNION ALL SELECT user_id, 'wallet', wallet_balance FROM balances)
SELECT name, pocket, balance, coalesce(amount, 0)
  FROM kept LEFT JOIN sums USING (user_id, pocket) JOIN users ON users.id = user_id
 WHERE balance <> coalesce(amount, 0)"""

MISSING_BALANCES = "SELECT name, '', 'none', 'a row' FROM users WHERE id NOT IN (SELECT user_id FROM balances)"

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
WITH sums AS (SELECT subscription_id, sum(amount) AS amount FROM entries GROUP BY subscription_id)
SELECT name || ', subscription ' || s.id, 'quota', left, coalesce(amount, 0)
  FROM subscriptions AS s JOIN users ON users.id = s.user_id LEFT JOIN sums ON subscription_id = s.id
 WHERE left <> coalesce(amount, 0)"""

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
    SELECT id, cost, (input_tokens - cached_tokens) * price_input + cached_tokens * price_cached
                     + output_tokens * price_output AS made
      FROM requests WHERE input_tokens IS NOT NULL)
 WHERE cost <> made"""

ROLL_UPS = """
WITH paid AS (SELECT user_id, pocket, -sum(amount) AS amount FROM entries
               WHERE kind = 'charge' GROUP BY user_id, pocket),
     kept AS (SELECT user_id, 'grant' AS pocket, sum(charged_grant) AS charged FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'quota', sum(charged_quota) FROM daily GROUP BY user_id
              UNION ALL SELECT user_id, 'wallet', sum(charged_wallet) FROM daily GROUP BY user_id)
SELECT name, pocket, coalesce(charged, 0), coalesce(amount, 0)
  FROM kept FULL JOIN paid USING (user_id, pocket) JOIN users ON users.id = user_id
 WHERE coalesce(charged, 0) <> coalesce(amount, 0)"""

# Only days of which no call has been forgotten.
ROLLED_CALLS = """
SELECT name || ', ' || day, '', sum(kept) || ' calls of ' || sum(kept_cost), sum(made) || ' calls of ' || sum(made_cost)
  FROM (SELECT user_id, day, calls AS kept, cost AS kept_cost, 0 AS made, 0 AS made_cost FROM daily
        UNION ALL SELECT user_id, day, 0, 0, 1, cost FROM requests WHERE closed_at IS NOT NULL)
  JOIN users ON users.id = user_id WHERE day > :first_day
 GROUP BY user_id, day HAVING (sum(kept), sum(kept_cost)) <> (sum(made), sum(made_cost))"""

CHECKS = (
    ("{}: the {} balance is {}; its entries sum to {}", BALANCES),
    ("{}: there are no balances{}: {} instead of {}", MISSING_BALANCES),
    ("{}: the {} balance after it is noted as {}; the entries up to it sum to {}", CHAIN),
    ("{}: {} holds are {}; those of open calls sum to {}", HOLDS),
    ("{}: left of its {} is {}; its entries sum to {}", SUBSCRIPTIONS),
    ("{}: the {} balance is {}; what is left of the subscriptions sums to {}", QUOTAS),
    ("{}: the call says that it was charged {}{}; the entries say {}", CHARGES),
    ("{}: an entry charges a call that has {}{} instead of {}", LOST_CALLS),
    ("{}: the cost in {} is {}; usage and price make {}", COSTS),
    ("{}: the roll-ups of the {} sum to {}; the charges to {}", ROLL_UPS),
    ("{}: the roll-ups have {}{}; the calls are {}", ROLLED_CALLS),
)
EACH_MAX = 20                      # findings named of each check; a damaged file has thousands


def verify(db: Database) -> list[str]:
    """Sentences that name what is wrong; none if all is right."""
    conn = db.read()
    conn.execute("BEGIN")
    try:
        damage = [row[0] for row in conn.execute("PRAGMA integrity_check(5)").fetchall()]
        if damage != ["ok"]:
            return [f"the file is damaged: {found}" for found in damage]
        broken = conn.execute("SELECT DISTINCT \"table\", parent FROM pragma_foreign_key_check").fetchall()
        found = [f"a row of {table} refers to one of {parent} that is not there" for table, parent in broken]
        first_day = _first_whole_day(conn)
        for sentence, check in CHECKS:
            rows = conn.execute(f"{check} LIMIT {EACH_MAX}", {"first_day": first_day}).fetchall()
            found += [sentence.format(which, pocket, _amount(pocket, has), _amount(pocket, should))
                      for which, pocket, has, should in rows]
        return found
    finally:
        conn.execute("ROLLBACK")


def _first_whole_day(conn) -> str:
    """The last day of which calls may have been forgotten. A day of the site may begin 14 hours off the one in UTC."""
    row = conn.execute("SELECT value FROM meta WHERE key = 'requests_kept_from'").fetchone()
    if row is None:
        return ""
    forgotten_s = int(row[0].removeprefix("req_"), 16) / 1000 + 14 * 3600
    return datetime.fromtimestamp(forgotten_s, UTC).strftime("%Y-%m-%d")


def _amount(pocket: str, value) -> str:
    if pocket == "grant":
        return f"{value} LLM tokens"
    return f"{yuan(value)} yuan" if pocket and isinstance(value, int) else str(value)
