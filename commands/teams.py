"""`flask team`: wallets that members share."""

from datetime import datetime
from zoneinfo import ZoneInfo

import click

import billing
from commands import given, shown
from commands.ledger import entry_rows
from members import accounts, teams

team = given.Topic("team", help="Teams: a wallet that their members share.")


@team.command()
@click.argument("name")
@shown.json_option
def add(name: str, as_json: bool) -> None:
    """Make the team NAME, with an empty wallet."""
    _show(teams.add(given.relay().db, name), as_json)


@team.command("list")
@shown.json_option
def list_teams(as_json: bool) -> None:
    """List all teams."""
    found = (_row(each) for each in teams.teams(given.relay().db))
    shown.listing(as_json, found, "There are no teams. `flask team add NAME` makes one.")


@team.command()
@click.argument("team", type=given.TEAM)
@shown.json_option
def show(team: teams.Team, as_json: bool) -> None:
    """Show what TEAM has, and for whom it paid this month."""
    today = datetime.now(ZoneInfo(given.relay().settings.site.timezone)).date()
    shares = teams.shares(given.relay().db, team.id, str(today.replace(day=1)), str(today))
    rows = [
        {
            "name": each.name,
            "inside": each.inside,
            "calls": each.calls,
            "paid": billing.yuan(each.charged),
        }
        for each in shares
    ]
    if as_json:
        shown.one(True, _row(team) | {"shares": rows}, "")
        return
    _show(team, False)
    shown.listing(False, rows, "Nobody is in it.")


@team.command()
@click.argument("team", type=given.TEAM)
@click.option("--wallet", required=True, type=given.MONEY, help="Yuan, 10.00 or -2.50.")
@given.kind_option
@click.option("--note", metavar="TEXT", help="Stands in the team's statement.")
@given.key_option
@shown.json_option
def credit(
    team: teams.Team,
    wallet: int,
    kind: str | None,
    note: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Put money into TEAM's wallet, or take out what is free (below zero)."""
    billing.credit_all(given.relay().db, team.id, {"wallet": wallet}, kind, note, key=key)
    _again(team, as_json)


@team.command()
@click.argument("team", type=given.TEAM)
@click.argument("member", metavar="USER", type=given.MEMBER)
@shown.json_option
def join(team: teams.Team, member: accounts.Member, as_json: bool) -> None:
    """Let USER's calls draw on TEAM's wallet, and on no other team's."""
    teams.join(given.relay().db, team.id, member.id)
    document = {"name": member.name, "team": team.name}
    shown.one(as_json, document, f"{member.name} is in {team.name} now.")


@team.command()
@click.argument("member", metavar="USER", type=given.MEMBER)
@shown.json_option
def leave(member: accounts.Member, as_json: bool) -> None:
    """Let USER's calls draw on no team's wallet any more."""
    left = teams.leave(given.relay().db, member.id)
    said = f"{member.name} is in no team now." if left else f"{member.name} was in no team."
    shown.one(as_json, {"name": member.name, "team": None}, said)


@team.command()
@click.argument("team", type=given.TEAM)
@shown.json_option
def close(team: teams.Team, as_json: bool) -> None:
    """Let all members of TEAM leave, and nobody join. What it has stays there."""
    teams.close(given.relay().db, team.id)
    _again(team, as_json)


@team.command()
@click.argument("team", type=given.TEAM)
@shown.json_option
def reopen(team: teams.Team, as_json: bool) -> None:
    """Let members join TEAM again."""
    teams.reopen(given.relay().db, team.id)
    _again(team, as_json)


@team.command()
@click.argument("team", type=given.TEAM)
@click.option("--since", type=given.PAST, help="24h, or the first day: 2026-11-01.")
@shown.json_option
def entries(team: teams.Team, since: int | None, as_json: bool) -> None:
    """List what came into and went out of TEAM's wallet, and for whom, newest first."""
    shown.listing(
        as_json, entry_rows(team.id, since=since, shared=True), f"{team.name} has no such entries."
    )


def _row(each: teams.Team) -> dict:
    return {
        "id": each.id,
        "name": each.name,
        "closed": each.closed,
        "members": each.members,
        "balance": billing.yuan(each.balance),
        "held": billing.yuan(each.held),
        "created_at": shown.when(each.created_at),
    }


def _show(each: teams.Team, as_json: bool) -> None:
    held = f" ({billing.yuan(each.held)} set aside)" if each.held else ""
    shown.one(
        as_json,
        _row(each),
        f"{each.name}{' (closed)' if each.closed else ''}: {billing.yuan(each.balance)} in the wallet{held}.",
    )


def _again(team: teams.Team, as_json: bool) -> None:
    """Show a team as it is after a change."""
    now = teams.find(given.relay().db, team.id)
    assert now is not None
    _show(now, as_json)
