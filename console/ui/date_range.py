"""Spans of days in the site's time zone: what two date fields say, and the charts over it.

Owns the reading of `?from=` and `?to=`, and when a span begins and ends. Refuses to know what
happened in it.
"""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from console.context import site
from console.ui.i18n import gettext as _

USUAL_DAYS = 30
DAYS_MAX = 366
YEAR_MIN, YEAR_MAX = 2000, 2200
BARS_MAX = 92  # more days than that are drawn by month


@dataclass(frozen=True)
class Span:
    """From the first day to the last, both included; what was typed and what is wrong with it."""

    first: date
    last: date
    typed: tuple[str, str] = ("", "")
    errors: tuple[str, str] = ("", "")

    @property
    def since(self) -> int:
        """Its first moment, in ms."""
        return _midnight(self.first)

    @property
    def until(self) -> int:
        """The first moment after it, in ms."""
        return _midnight(self.last + timedelta(1))

    @property
    def days(self) -> list[str]:
        """Its days, as the database writes them."""
        return [str(self.first + timedelta(n)) for n in range((self.last - self.first).days + 1)]

    def points(self) -> dict[str, list[str]]:
        """The bars of a chart over it: the name of each, and its days."""
        if len(self.days) <= BARS_MAX:
            return {day[5:]: [day] for day in self.days}
        months: dict[str, list[str]] = {}
        for day in self.days:
            months.setdefault(day[:7], []).append(day)
        return months


def today() -> date:
    """The site's day."""
    return datetime.now(ZoneInfo(site().timezone)).date()


def latest(days: int = USUAL_DAYS) -> Span:
    """So many days up to today."""
    return Span(today() - timedelta(days - 1), today())


def month(back: int = 0) -> Span:
    """This month up to today, or the whole one so many months before."""
    first = today().replace(day=1)
    if not back:
        return Span(first, today())
    for _month in range(back):
        last = first - timedelta(1)
        first = last.replace(day=1)
    return Span(first, last)


def month_end(day: date) -> date:
    """The last day of the month that a day is in."""
    return (day.replace(day=1) + timedelta(32)).replace(day=1) - timedelta(1)


def read(args) -> Span:
    """The span that GET parameters ask for; where they say nothing or nonsense, the latest days."""
    typed = args.get("from", "").strip()[:20], args.get("to", "").strip()[:20]
    found = [_date(text) for text in typed]
    errors = [
        _("Not a date: write it like 2026-01-31.") if text and day is None else ""
        for text, day in zip(typed, found, strict=True)
    ]
    last = min(found[1] or today(), today())
    first = found[0] or last - timedelta(USUAL_DAYS - 1)
    if first > last:
        errors[0] = errors[0] or _("This lies after the end.")
    elif (last - first).days >= DAYS_MAX:
        errors[0] = errors[0] or _("At most %(n)s days can be shown at once.", n=DAYS_MAX)
    if any(errors):
        return Span(latest().first, latest().last, typed, tuple(errors))
    return Span(first, last, (str(first), str(last)))


def _date(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if YEAR_MIN <= day.year <= YEAR_MAX else None


def day_bounds(day: str) -> tuple[int, int]:
    """The first moment of a day, as the database writes it, and the first after it, in ms."""
    begun = date.fromisoformat(day)
    return _midnight(begun), _midnight(begun + timedelta(1))


def _midnight(day: date) -> int:
    return int(datetime.combine(day, time(), ZoneInfo(site().timezone)).timestamp() * 1000)
