"""`flask ledger`: proof that the money is right, and where it went."""

import itertools
from collections.abc import Iterator

import click

import verify
from commands import given, shown
from members import accounts, entries

ledger = given.Topic("ledger", help="The ledger: verify it, show a member's entries.")


@ledger.command("verify")
@shown.json_option
def verify_ledger(as_json: bool) -> None:
    """Compute every balance, hold and charge again. Exit status 1 if anything is wrong."""
    wrong = verify.verify(given.relay().db)
    shown.one(
        as_json, {"ok": not wrong, "problems": wrong}, "\n".join(wrong) or "The ledger is right."
    )
    if wrong:
        raise click.exceptions.Exit(1)


@ledger.command()
@click.argument("member", metavar="USER", type=given.MEMBER)
@click.option(
    "--pocket", type=click.Choice(["grant", "quota", "wallet"]), help="Only of this pocket."
)
@click.option("--since", type=given.PAST, help="24h, or the first day: 2026-11-01.")
@shown.json_option
def show(member: accounts.Member, pocket: str | None, since: int | None, as_json: bool) -> None:
    """List what came into and went out of USER's pockets, newest first."""
    shown.listing(
        as_json,
        entry_rows(member.id, pocket, since),
        f"{member.name} has no such entries.",
    )


def entry_rows(
    user_id: int, pocket: str | None = None, since: int | None = None, shared: bool = False
) -> Iterator[dict]:
    """The entries of a member or a team, as they are printed; `shared`: with whose call it was."""
    found = entries.listed(user_id, pocket, since=since).all(given.relay().db.read(), 1000)
    for row in itertools.chain.from_iterable(found):
        written = {
            name: shown.amount(row["pocket"], row[name]) for name in ("amount", "balance_after")
        }
        yield {
            "id": row["id"],
            "created_at": shown.when(row["created_at"]),
            "pocket": row["pocket"],
            "kind": row["kind"],
            **written,
            "request_id": row["request_id"],
            "note": row["note"],
            "by": row["by"],
            **({"member": row["member"]} if shared else {}),
        }
