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

from billing import yuan
from console import throttle
from console.context import member, site

FORMULA_MARKS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
RATE = "10 per minute"
BATCH = 1000  # rows read at a time

Clock = Callable[[int | None], str | None]  # a stored time (ms) as it is written


class Number(str):
    """Text of ours that is a number, such as -0.000012500, and no formula."""

    __slots__ = ()


def money(nano: int | None) -> Number | None:
    """Nano-yuan in full precision."""
    return None if nano is None else Number(yuan(nano))


def clock(timezone: str | None = None) -> Clock:
    """What writes stored times (2026-11-27T09:30:00.000+08:00), in the site's time zone by default.

    It is made while the request lasts, for a file is written when that is over for Flask.
    """
    zone = ZoneInfo(timezone or site().timezone)

    def written(at_ms: int | None) -> str | None:
        at = None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, zone)
        return at and at.isoformat(timespec="milliseconds")

    return written


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
