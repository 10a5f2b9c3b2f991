"""`flask requests`: the calls that were made."""

import click

import billing
from commands import given, shown
from console.ui import call_file, csv
from members import accounts, call_rows

TABLE_ROWS = 50

OUTCOMES = ("complete", "refused", "failed", "client_left", "upstream_cut", "interrupted", "open")
COLUMNS = (
    "id",
    "created_at",
    "user",
    "token",
    "wire",
    "model",
    "upstream",
    "outcome",
    "status",
    "stream",
    *billing.COUNTS,
    "usage_source",
    "cost",
    "upstream_cost",
    "charged",
    "first_byte_ms",
    "duration_ms",
    "attempts",
)
NARROW = (
    "created_at",
    "user",
    "token",
    "model",
    "upstream",
    "outcome",
    "status",
    "input_tokens",
    "output_tokens",
    "cost",
    "duration_ms",
)


@given.command
@click.argument("member", metavar="[USER]", type=given.MEMBER, required=False)
@click.option("--since", type=given.PAST, help="24h, or the first day: 2026-11-01.")
@click.option("--until", type=given.PAST, help="The same; calls from then on are left out.")
@click.option("--model", help="Only calls of this model.")
@click.option(
    "--outcome", type=click.Choice(OUTCOMES), help="Only calls that ended so, or are open."
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help=f"No more than so many; else {TABLE_ROWS} in a table, all as JSON or CSV.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@shown.json_option
def requests(
    member: accounts.Member | None, limit: int | None, as_csv: bool, as_json: bool, **wanted
) -> None:
    """List calls, newest first: all, or those of USER."""
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json")
    limit = limit or (None if as_csv or as_json else TABLE_ROWS)
    db, asked = given.relay().db, call_rows.CallFilter(member.id if member else None, **wanted)
    if as_csv:
        time = csv.clock(given.relay().settings.site.timezone)
        found = call_rows.rows(db, asked, limit)
        shown.as_csv(
            call_file.COLUMNS, (call_file.line(row, call_file.COLUMNS, time) for row in found)
        )
        return
    columns = COLUMNS if as_json else NARROW
    rows = (
        {name: _written(name, row[name]) for name in columns}
        for row in call_rows.listed(db, asked, limit)
    )
    shown.listing(as_json, rows, "There are no such calls.")


def _written(name: str, value):
    """A column of a call as it is printed."""
    if name == "created_at":
        return shown.when(value)
    if name == "cost" or name == "upstream_cost" and value is not None:
        return billing.yuan(value)
    if name == "charged":
        return shown.pockets(billing.Pockets(**value))
    return value
