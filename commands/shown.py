"""What commands print: JSON for machines, tables for people, CSV for spreadsheets.

Owns how times and money are written: ISO 8601 in UTC, and decimal strings of full precision.
"""

import csv
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

import click

from billing import Pockets, yuan
from console.ui.csv import cell

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def when(at: int | None) -> str | None:
    """A time in ms as 2026-11-23T19:50:17Z."""
    return (
        None
        if at is None
        else datetime.fromtimestamp(at // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )


def amount(pocket: str, value: int | None) -> int | str | None:
    """What a pocket holds or moves: a number of LLM tokens for the grant, else yuan."""
    return value if pocket == "grant" or value is None else yuan(value)


def pockets(amounts: Pockets) -> dict:
    """{"grant": 1200, "quota": "20.00", "wallet": "-0.000012500"}, and "team" where it has a part."""
    names = ("grant", "quota", "wallet", *(("team",) if amounts.team else ()))
    return {name: amount(name, getattr(amounts, name)) for name in names}


def one(as_json: bool, document: object, sentence: str) -> None:
    """What was done: the document as JSON, or the sentence."""
    click.echo(json.dumps(document, ensure_ascii=False) if as_json else _plain(sentence))


def listing(as_json: bool, rows: Iterable[dict], none: str) -> None:
    """Rows as a JSON list, or as a table; `none` is said for a table without rows."""
    if as_json:
        _json_list(rows)
    elif found := [{name: _plain(value) for name, value in flat(row).items()} for row in rows]:
        from tabulate import tabulate  # here, for most commands need none

        click.echo(tabulate(found, headers="keys", disable_numparse=True))
    else:
        click.echo(none)


def as_csv(columns: list[str], lines: Iterable[list]) -> None:
    """Lines as CSV with a head. No text in it is taken for a formula; a Number never is one."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(value) for value in line] for line in lines)


def flat(row: dict) -> dict:
    """A row without inner tables and lists: {"charged": {"grant": 1}} becomes {"charged_grant".

    1}.
    """
    flattened = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flattened |= {f"{name}_{inner}": each for inner, each in value.items()}
        else:
            flattened[name] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return flattened


def _json_list(rows: Iterable[dict]) -> None:
    """One row a line, written as they come: a long listing needs no memory."""
    lead = "["
    for row in rows:
        click.echo(f"{lead}{json.dumps(row, ensure_ascii=False)}", nl=False)
        lead = ",\n "
    click.echo("]" if lead != "[" else "[]")


def _plain(value: object) -> str:
    """A value as text that cannot steer a terminal."""
    words = {None: "-", True: "yes", False: "no"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    return "".join(
        letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}"
        for letter in text
    )
