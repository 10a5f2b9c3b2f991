"""What a week was like, and a day that is unlike the others: sentences for notices.

Owns the two questions that are asked of `daily` for them. Days are the site's, YYYY-MM-DD.
"""

from datetime import date, timedelta
from statistics import median_low

import billing
from db import Database

DEAREST = 3  # members and models that a digest names
TIMES = 3  # an unusual day costs so many times the middle of the days before it
DAYS, DAYS_MIN = 14, 5  # that are looked back at; with fewer that had calls nothing is usual
LEAST = 10 * billing.NANO  # a cheaper day is nobody's news

WEEK = """
SELECT coalesce(sum(calls), 0) AS calls, coalesce(sum(refused), 0) AS refused,
       coalesce(sum(cost), 0) AS cost, count(DISTINCT user_id) AS members
  FROM daily WHERE day BETWEEN ? AND ?"""
BY_MEMBER = """
SELECT name, sum(cost) AS cost FROM daily JOIN users ON users.id = user_id
 WHERE day BETWEEN ? AND ? GROUP BY user_id HAVING sum(cost) > 0 ORDER BY 2 DESC LIMIT ?"""
BY_MODEL = """
SELECT model AS name, sum(cost) AS cost FROM daily
 WHERE day BETWEEN ? AND ? GROUP BY model HAVING sum(cost) > 0 ORDER BY 2 DESC LIMIT ?"""
BY_DAY = """
SELECT user_id, name, day, sum(cost) AS cost FROM daily JOIN users ON users.id = user_id
 WHERE day BETWEEN ? AND ? GROUP BY user_id, day HAVING sum(cost) > 0"""


def week(db: Database, monday: str) -> str | None:
    """The week before this Monday in two sentences; None if nobody called."""
    first, last = _days_before(monday, 7), _days_before(monday, 1)
    read = db.read()
    row = read.execute(WEEK, (first, last)).fetchone()
    if not row["calls"]:
        return None
    before = read.execute(WEEK, (_days_before(first, 7), _days_before(first, 1))).fetchone()
    compared = f" ({_yuan(before['cost'])} the week before)" if before["calls"] else ""
    said = (
        f"{first} to {last}: {_yuan(row['cost'])}{compared} for {row['calls']:,} calls of"
        f" {row['members']} members; {row['refused']:,} were refused."
    )
    for what, sql in (("Members", BY_MEMBER), ("Models", BY_MODEL)):
        rows = read.execute(sql, (first, last, DEAREST)).fetchall()
        named = ", ".join(f"{each['name']} {_yuan(each['cost'])}" for each in rows)
        said += f" {what}: {named}." if named else ""
    return said


def unusual(db: Database, day: str) -> dict[str, str]:
    """Whose day is unlike the others, "" for all together: name -> a sentence."""
    rows = db.read().execute(BY_DAY, (_days_before(day, DAYS), day)).fetchall()
    spent: dict[str, dict[str, int]] = {"": {}}
    for row in rows:
        spent.setdefault(row["name"], {})[row["day"]] = row["cost"]
        spent[""][row["day"]] = spent[""].get(row["day"], 0) + row["cost"]
    found = {}
    for name, by_day in spent.items():
        today = by_day.pop(day, 0)
        if len(by_day) < DAYS_MIN or today < LEAST:
            continue
        middle = int(median_low(by_day.values()))
        if today >= TIMES * middle:
            whose = f"{name} has" if name else "All members together have"
            found[name] = (
                f"{whose} used {_yuan(today)} today; of the {len(by_day)} days with calls in the two"
                f" weeks before, the middle one cost {_yuan(middle)}."
            )
    return found


def _days_before(day: str, days: int) -> str:
    return str(date.fromisoformat(day) - timedelta(days))


def _yuan(amount: int) -> str:
    """Rounded down to the hundredth: a digest is no statement."""
    whole, rest = divmod(amount, billing.NANO)
    return f"{whole:,}.{rest // 10_000_000:02} yuan"
