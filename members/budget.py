"""The site's month: what was spent, what may be (`site.cap_month`), and what it will likely be.

Owns the forecast. It reads the roll-ups; that the cap holds is `billing`'s. Amounts are nano-yuan,
days the site's.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from statistics import mean, pstdev

from db import Database

FORECAST_DAYS = 14
SINCE = """
SELECT coalesce(sum(cost), 0), coalesce(sum(charged_quota + charged_team + charged_wallet), 0) FROM daily
 WHERE day BETWEEN ? AND ?"""
BY_DAY = """
SELECT day, sum({what}) FROM daily WHERE day BETWEEN ? AND ? GROUP BY day"""
WHAT = {"cost": "cost", "paid": "charged_quota + charged_team + charged_wallet"}


@dataclass(frozen=True)
class Forecast:
    """What a month will have cost at its end: likely, and between what. `reached` is the day on
    which the cap will likely be reached; None: not in this month, or there is no cap."""

    likely: int
    least: int
    most: int
    reached: date | None = None


@dataclass(frozen=True)
class MonthBudget:
    """A month up to today. The cap counts what is `paid` in money, and so does the forecast where
    there is one; else it is of the `cost`, gifts included."""

    month: str
    cost: int
    paid: int
    cap: int | None
    forecast: Forecast | None


def of(db: Database, today: date, cap: int | None) -> MonthBudget:
    """This month, with the cap of the settings (None: there is none)."""
    first = today.replace(day=1)
    cost, paid = db.read().execute(SINCE, (str(first), str(today))).fetchone()
    measure, so_far = ("cost", cost) if cap is None else ("paid", paid)
    found = forecast(db, today, so_far, cap, measure)
    return MonthBudget(f"{today:%Y-%m}", cost, paid, cap, found)


def forecast(
    db: Database, today: date, so_far: int, cap: int | None = None, measure: str = "cost"
) -> Forecast | None:
    """So far, and the mean of the last days for those that are left: of 14, or as many as the house
    is old. Between what: twice the deviation of so many days' sum. None without anything to go by.
    """
    since, yesterday = today - timedelta(FORECAST_DAYS), today - timedelta(1)
    (oldest,) = db.read().execute("SELECT min(day) FROM daily").fetchone()
    sql = BY_DAY.format(what=WHAT[measure])
    known = dict(db.read().execute(sql, (str(since), str(yesterday))).fetchall())
    if not known:
        return None
    since = max(since, date.fromisoformat(oldest))
    days = [known.get(str(since + timedelta(n)), 0) for n in range((today - since).days)]
    left = (_month_end(today) - today).days
    a_day, spread = mean(days), 2 * pstdev(days) * left**0.5
    more = a_day * left
    return Forecast(
        int(so_far + more),
        int(so_far + max(0, more - spread)),
        int(so_far + more + spread),
        _reached(today, left, so_far, a_day, cap),
    )


def _reached(today: date, left: int, so_far: int, a_day: float, cap: int | None) -> date | None:
    if cap is None or so_far + a_day * left < cap:
        return None
    return today + timedelta(0 if so_far >= cap else -int((so_far - cap) // a_day))


def _month_end(day: date) -> date:
    return (day.replace(day=1) + timedelta(32)).replace(day=1) - timedelta(1)
