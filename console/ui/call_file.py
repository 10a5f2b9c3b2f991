"""Calls as lines of a CSV file: one shape, wherever the file is asked for.

Owns the columns, and which of them members see. Refuses to know which calls.
"""

import json

from billing import COUNTS, PRICES
from console.context import state
from console.ui import csv
from console.ui.date_range import Span
from db import keyset

COLUMNS = [
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
    "charged_team",
    "first_byte_ms",
    "duration_ms",
    "attempts",
]
MONEY = (*PRICES, "cost", "upstream_cost", "charged_quota", "charged_wallet", "charged_team")
OPERATORS_ONLY = {"user", "upstream", "upstream_cost", "attempts"}
MEMBERS_COLUMNS = [name for name in COLUMNS if name not in OPERATORS_ONLY]


def line(row, columns: list[str], time: csv.Clock) -> list:
    """A call, as the database has it, as a line.

    Money in yuan (prices too, per LLM token), the grant in LLM tokens; of attempts, how many.
    """
    values = dict(row)
    values |= {name: csv.money(values[name]) for name in MONEY if name in columns}
    values["created_at"] = time(values["created_at"])
    values["attempts"] = len(json.loads(values["attempts"]))
    return [values[name] for name in columns]


def download(span: Span, calls: keyset.List | None, columns: list[str]):
    """The calls of a span as a file that is written while it is read (None: no call)."""
    conn, time = state().db.read(), csv.clock()
    batches = [] if calls is None else calls.all(conn, csv.BATCH)
    lines = ([line(row, columns, time) for row in batch] for batch in batches)
    return csv.download(f"calls-{span.first}-{span.last}", columns, lines)
