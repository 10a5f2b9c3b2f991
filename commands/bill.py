"""`flask bill`: a provider's month, and its invoice held beside ours."""

from decimal import Decimal

import click

import billing
from commands import given, shown
from console.ui import csv
from relay import bill as bills

FIELDS = ("day", "model", "kind", "count", "upstream_cost", "charged", "difference")


class Amount(click.ParamType):
    """An amount of yuan."""

    name = "yuan"

    def convert(self, value, param, ctx) -> Decimal:
        if isinstance(value, Decimal):
            return value
        try:
            return Decimal(billing.nano(value)) / billing.NANO
        except ValueError as err:
            self.fail(str(err), param, ctx)


@given.command
@click.argument("upstream")
@click.option("--month", metavar="YYYY-MM", help="The month; else the one that is.")
@click.option(
    "--against",
    type=click.File(encoding=bills.BOM),
    metavar="FILE.csv",
    help="The provider's invoice: name the days and kinds that differ, and exit with 1 if any do.",
)
@click.option("--day-column", metavar="NAME", help="The invoice's column of days.")
@click.option("--model-column", metavar="NAME", help="The invoice's column of models.")
@click.option("--kind-column", metavar="NAME", help="The invoice's column of kinds.")
@click.option("--amount-column", metavar="NAME", help="The invoice's column of amounts, in yuan.")
@click.option(
    "--kind", "kinds", multiple=True, metavar="WORD=KIND", help="What the invoice calls a kind."
)
@click.option(
    "--tolerance",
    type=Amount(),
    default=bills.TOLERANCE,
    metavar="YUAN",
    help="What may differ, for invoices are rounded line by line; else 0.01.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@shown.json_option
def bill(upstream, month, against, kinds, tolerance, as_csv, as_json, **columns) -> None:
    """What UPSTREAM bills for a month, by day, model and kind, and what was charged for it."""
    if as_csv and as_json:
        raise click.UsageError("give --csv or --json")
    relay = given.relay()
    timezone = relay.settings.site.timezone
    month = month or bills.this_month(timezone)
    if upstream not in relay.catalog.upstreams and not bills.has_answered(relay.db, upstream):
        raise click.ClickException(f"there is no upstream '{upstream}'")
    try:
        found = bills.of(relay.db, relay.catalog, upstream, month, timezone)
    except ValueError:
        raise click.UsageError(f"{month!r} is no month: write it like 2026-11") from None
    differing = None
    if against is not None:
        named = {name.removesuffix("_column"): column for name, column in columns.items() if column}
        theirs = bills.invoice(against, named, _kinds(kinds))
        differing = bills.differences(found, theirs, tolerance)
    if as_json:
        shown.one(True, bills.document(found, differing), "")
    elif differing is not None:
        shown.listing(False, bills.differing(differing), "The invoice agrees.")
    elif as_csv:
        rows = bills.rows(found, csv.money)
        shown.as_csv(list(FIELDS), ([row[name] for name in FIELDS] for row in rows))
    else:
        _as_table(found)
    if differing:
        raise click.exceptions.Exit(1)


def _as_table(found: bills.Bill) -> None:
    total = found.total
    shown.listing(False, bills.rows(found, billing.yuan), "There are no such calls.")
    click.echo(
        f"\n{found.calls} calls: {billing.yuan(total.upstream_cost)} yuan at {found.upstream},"
        f" {billing.yuan(total.charged)} yuan charged."
    )
    if found.unpaid:
        click.echo("\nBilled there, charged to nobody:")
        shown.listing(False, bills.unpaid(found), "")
    if found.attempts:
        click.echo("\nAttempts that failed after the provider had begun:")
        shown.listing(False, bills.failed_attempts(found), "")
    for number, words in (
        (found.noted, "have a usage that was estimated or cut"),
        (found.unpriced, "were made when the provider's price was not known; they are left out"),
    ):
        if number:
            click.echo(f"{number} calls {words}.")
    if found.forgotten:
        click.echo("Some of the month's requests are no longer kept: this is not the whole month.")


def _kinds(words: tuple[str, ...]) -> dict[str, str]:
    """What `--kind WORD=KIND` says."""
    named = {}
    for each in words:
        word, _, kind = each.rpartition("=")
        if not word or kind not in billing.KINDS:
            raise click.UsageError(f"--kind {each}: write WORD=KIND, of {', '.join(billing.KINDS)}")
        named[word] = kind
    return named
