"""`flask token`: API tokens of members."""

import click

from commands import given, shown
from members import accounts, terms, tokens

token = given.Topic("token", help="API tokens: add, list, revoke.")

LISTED = (
    "id",
    "name",
    "hint",
    "models",
    "rpm",
    "expires_at",
    "revoked_at",
    "last_used_at",
    "calls",
)


@token.command()
@click.argument("member", metavar="USER", type=given.MEMBER)
@click.argument("name")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="M",
    help="May ask this model; several times for several.",
)
@click.option(
    "--rpm", type=given.COUNT, metavar="N", help="Requests a minute, if fewer than the plan's."
)
@click.option("--tpm", type=given.COUNT, metavar="N", help="LLM tokens a minute.")
@click.option("--calls-at-once", type=given.COUNT, metavar="N", help="Calls at the same time.")
@click.option("--cap-day", type=given.MONEY, help="What it may spend in a day.")
@click.option("--cap-month", type=given.MONEY, help="What it may spend in a month.")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="A",
    help="May be used from this address or network.",
)
@click.option(
    "--admin",
    "scope",
    flag_value="admin",
    default=None,
    help="For the administrators' API alone.",
)
@click.option(
    "--expires", "expires_at", type=given.FUTURE, help="30d, or the last day: 2027-01-31."
)
@shown.json_option
def add(
    member: accounts.Member, name: str, models: tuple, addresses: tuple, as_json: bool, **limits
) -> None:
    """Make a token called NAME for USER, and print it. It is never shown again."""
    relay = given.relay()
    terms.check_models(relay.settings, models)
    token_id, raw = tokens.mint(
        relay.db,
        member.id,
        name,
        models=list(models),
        addresses=list(addresses),
        tokens_max=relay.settings.accounts.tokens_max,
        **limits,
    )
    shown.one(as_json, {"id": token_id, "name": name, "token": raw}, raw)


@token.command("list")
@click.argument("member", metavar="USER", type=given.MEMBER)
@shown.json_option
def list_tokens(member: accounts.Member, as_json: bool) -> None:
    """List the tokens of USER, newest first."""
    times = ("expires_at", "revoked_at", "last_used_at")
    rows = (
        {name: shown.when(row[name]) if name in times else row[name] for name in LISTED}
        for row in tokens.tokens(given.relay().db, member.id)
    )
    shown.listing(as_json, rows, f"{member.name} has no tokens.")


@token.command()
@click.argument("member", metavar="USER", type=given.MEMBER)
@click.argument("token_id", metavar="ID", type=given.ID)
@click.option("--keep", is_flag=True, help="The old secret is good for an hour more.")
@shown.json_option
def rotate(member: accounts.Member, token_id: int, keep: bool, as_json: bool) -> None:
    """Give the token ID of USER a new secret, and print it. It is never shown again."""
    raw = tokens.rotate(given.relay().db, member.id, token_id, tokens.KEPT_S if keep else 0)
    if raw is None:
        raise click.ClickException(f"{member.name} has no token {token_id} that is not revoked")
    shown.one(as_json, {"id": token_id, "token": raw}, raw)


@token.command()
@click.argument("token_id", metavar="ID", type=given.ID)
@shown.json_option
def revoke(token_id: int, as_json: bool) -> None:
    """Revoke the token ID: the next request with it is refused."""
    if not tokens.revoke(given.relay().db, token_id):
        raise click.ClickException(f"there is no token {token_id} that is not revoked")
    shown.one(as_json, {"id": token_id}, f"Token {token_id} is revoked.")
