"""Lists as CSV files.

Owns how a cell is written so that no spreadsheet takes a text for a formula, and the streaming of
long files. Refuses to know what is listed.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from zoneinfo import ZoneInfo

from flask import Response

from billing import COUNTS, PRICES, yuan
from console import throttle
from console.context import member, site

FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
RATE = "10 per minute"
BATCH = 1000  # rows read at a time

Clock = Callable[[int | None], str | None]  # a stored time (ms) as it is written

# A call as a line of a file, wherever the file is asked for.
CALL = [
    "id",
    "created_at",
    "user",
    "token",
    "wire",
    "model",
    "upstream",
    "outcome",
    "status",
    "error",
    "stream",
    *COUNTS,
    "usage_source",
    "usage_note",
    *PRICES,
    "cost",
    "upstream_cost",
    "charged_grant",
    "charged_quota",
    "charged_wallet",
    "first_byte_ms",
    "duration_ms",
    "attempts",
]
CALL_MONEY = (*PRICES, "cost", "upstream_cost", "charged_quota", "charged_wallet")
OPERATORS_ONLY = {"user", "upstream", "upstream_cost", "attempts"}
MEMBERS_CALL = [name for name in CALL if name not in OPERATORS_ONLY]


class Number(str):
    """Text of ours that is a number, such as -0.000012500, and no formula."""

    __slots__ = ()


def money(nano: int | None) -> Number | None:
    """Nano-yuan in full precision."""
    return None if nano is None else Number(yuan(nano))


def clock(timezone: str | None = None) -> Clock:
    """What writes stored times in a time zone, the site's by default, which they name:
    2026-11-27T09:30:00.000+08:00. It is had while the request lasts, and used after it too."""
    zone = ZoneInfo(timezone or site().timezone)

    def written(at_ms: int | None) -> str | None:
        at = None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, zone)
        return at and at.isoformat(timespec="milliseconds")

    return written


def call(row, columns: list[str], time: Clock) -> list:
    """A row of a call as a line.

    Money in yuan (prices too, per LLM token), the grant in LLM tokens; of attempts, how many.
    """
    values = dict(row)
    values |= {name: money(values[name]) for name in CALL_MONEY if name in columns}
    values["created_at"] = time(values["created_at"])
    return [values[name] for name in columns]


def cell(value) -> str:
    """A value as text. What a spreadsheet would run gets an apostrophe in front."""
    if value is None:
        return ""
    harmless = (
        isinstance(value, Number)
        or not isinstance(value, str)
        or not value.startswith(FORMULA_MARKS)
    )
    return str(value) if harmless else "'" + value


def download(name: str, head: list[str], batches: Iterable[list[list]]) -> Response:
    """The file, sent batch by batch, when the request is over for Flask.

    A member may ask for so many a minute.
    """
    throttle.refuse_over(RATE, "export", member().id)
    response = Response(_lines(head, batches), content_type="text/csv; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _lines(head: list[str], batches: Iterable[list[list]]) -> Iterator[bytes]:
    yield b"\xef\xbb\xbf" + _written([head])  # the mark by which Excel knows UTF-8
    for batch in batches:
        if batch:
            yield _written(batch)


def _written(rows: list[list]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()
