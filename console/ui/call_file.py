"""Calls as lines of a CSV file: one shape, wherever the file is asked for.

Owns the columns, and which of them members see. Refuses to know which calls.
"""

from billing import COUNTS, PRICES
from console.ui import csv

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
    "first_byte_ms",
    "duration_ms",
    "attempts",
]
MONEY = (*PRICES, "cost", "upstream_cost", "charged_quota", "charged_wallet")
OPERATORS_ONLY = {"user", "upstream", "upstream_cost", "attempts"}
MEMBERS_COLUMNS = [name for name in COLUMNS if name not in OPERATORS_ONLY]


def line(row, columns: list[str], time: csv.Clock) -> list:
    """A row of a call as a line.

    Money in yuan (prices too, per LLM token), the grant in LLM tokens; of attempts, how many.
    """
    values = dict(row)
    values |= {name: csv.money(values[name]) for name in MONEY if name in columns}
    values["created_at"] = time(values["created_at"])
    return [values[name] for name in columns]
