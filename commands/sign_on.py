"""`flask user` and single sign-on: whose identities there are, and the way back in.

Owns the commands alone: the rules are `members.identities`' and `members.way_in`'s.
"""

import click

from commands import given, shown
from commands.users import user
from members import accounts, identities, way_in

issuer_option = click.option(
    "--issuer", help="Whose word it is; else the identity provider, or header, of the settings."
)


@user.command("identities")
@shown.json_option
def list_identities(as_json: bool) -> None:
    """List who has come by single sign-on; those of nobody were disconnected."""
    relay = given.relay()
    names = {each["id"]: each["name"] for each in _names(relay.db)}
    rows = [
        {
            "user": names.get(each.user_id),
            "issuer": each.issuer,
            "subject": each.subject,
            "name": each.name,
            "email": each.email,
            "seen_at": shown.when(each.seen_at),
        }
        for each in identities.every(relay.db)
    ]
    shown.listing(as_json, rows, "Nobody has come by single sign-on.")


def _names(db):
    after = 0
    while page := accounts.members(db, after=after):
        yield from ({"id": each.id, "name": each.name} for each in page)
        after = page[-1].id


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@click.argument("subject")
@issuer_option
@shown.json_option
def connect(member: accounts.Member, subject: str, issuer: str | None, as_json: bool) -> None:
    """Let SUBJECT, as the identity provider calls somebody, come in as NAME."""
    issuer = issuer or _source()
    if not 0 < len(subject) <= 255:
        raise click.ClickException("a subject has 1 to 255 characters")
    identities.connect(given.relay().db, member.id, issuer, subject)
    shown.one(
        as_json,
        {"name": member.name, "issuer": issuer, "subject": subject},
        f"{subject} of {issuer} comes in as {member.name}.",
    )


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@click.argument("subject")
@issuer_option
@shown.json_option
def disconnect(member: accounts.Member, subject: str, issuer: str | None, as_json: bool) -> None:
    """Let SUBJECT come in as NAME no more, nor as a newcomer; all sessions of NAME end."""
    issuer = issuer or _source()
    identities.disconnect(given.relay().db, member.id, issuer, subject)
    shown.one(
        as_json,
        {"name": member.name, "issuer": issuer, "subject": subject},
        f"{subject} of {issuer} comes in no more.",
    )


def _source() -> str:
    source = given.relay().settings.sign_in.source
    if not source:
        raise click.ClickException("the settings have no identity provider: give --issuer")
    return source


@user.command("way-in")
@click.argument("member", metavar="NAME", type=given.MEMBER)
@shown.json_option
def way_in_command(member: accounts.Member, as_json: bool) -> None:
    """Print an address that signs NAME in, once and within 15 minutes, whatever else does not."""
    if member.disabled:
        raise click.ClickException(f"{member.name} is disabled; `flask user enable` lets them in")
    relay = given.relay()
    server, public = relay.settings.server, relay.settings.site.public_url.rstrip("/")
    host = server.host if server.host not in ("0.0.0.0", "::") else "127.0.0.1"
    base = public or f"http://{f'[{host}]' if ':' in host else host}:{server.port}"
    address = f"{base}/sign-in/once?key={way_in.make(relay.db, member.id)}"
    shown.one(as_json, {"name": member.name, "address": address}, address)
