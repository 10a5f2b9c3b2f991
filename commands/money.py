"""`flask credit` and `flask balance`: what members hold."""

import click

import billing
from commands import given, shown
from commands.users import plan_of
from members import accounts, teams


@given.command
@click.argument("member", metavar="USER", type=given.MEMBER)
@click.option("--wallet", type=given.MONEY, help="Yuan, 10.00 or -2.50.")
@click.option("--grant", type=int, metavar="N", help="LLM tokens.")
@given.kind_option
@click.option("--note", metavar="TEXT", help="Stands in the member's statement.")
@given.key_option
@shown.json_option
def credit(
    member: accounts.Member,
    wallet: int | None,
    grant: int | None,
    kind: str | None,
    note: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Put money or LLM tokens into USER's pockets, or take them out (below zero)."""
    amounts = {
        pocket: amount
        for pocket, amount in (("wallet", wallet), ("grant", grant))
        if amount is not None
    }
    if not amounts:
        raise click.UsageError("give --wallet or --grant")
    billing.credit_all(given.relay().db, member.id, amounts, kind, note, key=key)
    show_balance(member, as_json)


@given.command
@click.argument("member", metavar="USER", type=given.MEMBER)
@shown.json_option
def balance(member: accounts.Member, as_json: bool) -> None:
    """Show what USER's pockets hold, and what running calls have set aside of it."""
    show_balance(member, as_json)


def show_balance(member: accounts.Member, as_json: bool) -> None:
    """The three pockets, the plan, and the wallet of the team where there is one."""
    has, held = billing.balances(given.relay().db, member.id).values()
    document = shown.pockets(has) | {"held": shown.pockets(held), "plan": plan_of(member)}
    shared = ""
    if team := teams.of(given.relay().db, member.id):
        document["team"] = {"name": team.name} | {
            name: billing.yuan(getattr(team, name)) for name in ("balance", "held")
        }
        shared = f"team    {billing.yuan(team.balance)} in {team.name}{_aside(team.held, billing.yuan(team.held))}\n"
    shown.one(
        as_json,
        document,
        f"grant   {has.grant} LLM tokens{_aside(held.grant, f'{held.grant}')}\n"
        f"quota   {billing.yuan(has.quota)}{_aside(held.quota, billing.yuan(held.quota))}\n"
        f"{shared}"
        f"wallet  {billing.yuan(has.wallet)}{_aside(held.wallet, billing.yuan(held.wallet))}\n"
        f"plan    {document['plan']}",
    )


def _aside(held: int, written: str) -> str:
    return f"  ({written} set aside)" if held else ""
