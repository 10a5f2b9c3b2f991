"""`flask code`: codes that turn into money, LLM tokens or a plan."""

import click

import codes
from commands import given, shown
from members import terms

code = given.Topic("code", help="Codes to redeem: add, list, revoke.")

TIMES = ("created_at", "expires_at", "revoked_at", "redeemed_at")


@code.command()
@click.option("--wallet", type=given.MONEY, help="Worth so many yuan.")
@click.option("--grant", type=given.COUNT, metavar="N", help="Worth so many LLM tokens.")
@click.option("--plan", metavar="PLAN", help="Worth a period of this plan.")
@click.option(
    "--count",
    type=click.IntRange(1, codes.MADE_MAX),
    default=1,
    metavar="N",
    help="How many; else one.",
)
@click.option(
    "--expires", "expires_at", type=given.FUTURE, help="30d, or the last day: 2027-01-31."
)
@click.option("--note", metavar="TEXT", help="What they are for; only administrators see it.")
@shown.json_option
def add(
    wallet: int | None,
    grant: int | None,
    plan: str | None,
    count: int,
    expires_at: int | None,
    note: str | None,
    as_json: bool,
) -> None:
    """Make codes and print them. They are never shown again."""
    if sum(each is not None for each in (wallet, grant, plan)) != 1:
        raise click.UsageError("give one of --wallet, --grant and --plan")
    kind = "wallet" if wallet is not None else "grant" if grant is not None else "plan"
    amount = wallet if wallet is not None else grant
    worth = {"amount": amount} if plan is None else terms.of_plan(given.relay().settings, plan)
    made = codes.make(given.relay().db, kind, count, **worth, expires_at=expires_at, note=note)
    shown.one(as_json, made, "\n".join(made))


@code.command("list")
@shown.json_option
def list_codes(as_json: bool) -> None:
    """List all codes, newest first, without their secret letters."""
    shown.listing(as_json, _codes(), "There are no codes.")


def _codes():
    conn = given.relay().db.read()
    for batch in codes.listed().all(conn, 1000):
        for row in batch:
            yield {
                "id": row["id"],
                "hint": row["hint"],
                "kind": row["kind"],
                "amount": shown.amount(row["kind"], row["amount"]),
                "plan": row["plan"],
                "note": row["note"],
                "redeemed_by": row["redeemed_by"],
                **{name: shown.when(row[name]) for name in TIMES},
            }


@code.command()
@click.argument("code_id", metavar="ID", type=given.ID)
@shown.json_option
def revoke(code_id: int, as_json: bool) -> None:
    """Make the unused code ID worthless."""
    if not codes.revoke(given.relay().db, code_id):
        raise click.ClickException(f"there is no code {code_id} that could still be used")
    shown.one(as_json, {"id": code_id}, f"Code {code_id} is worthless.")
