"""What is typed at the command line, read: members, money, times, passwords; and how a refusal is
said.

Owns the parameter types. A value of the wrong shape is a usage error (status 2); one that names
nothing there is, or that a module refuses, ends with its sentence (status 1). Nothing ends with a
traceback.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from zoneinfo import ZoneInfo

import click
from flask import current_app
from flask.cli import AppGroup, ScriptInfo, with_appcontext

import billing
from db import Database, DatabaseError, Error
from members import accounts, teams
from settings import SettingsError

ID = click.IntRange(1, 2**63 - 1)
COUNT = click.IntRange(1, 10**9)
FAR_MS = 36_500 * 86_400_000  # nothing ends later than in a hundred years
UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

_span = re.compile(r"(\d{1,6})([mhdw])", re.ASCII).fullmatch

# TokenError and AccountError are ValueErrors, as is what the ledger raises for impossible amounts.
REFUSALS = (billing.LedgerError, DatabaseError, Error, ValueError, OSError)


def relay():
    """The relay of the app whose command runs."""
    return current_app.extensions["relay"]


@contextmanager
def refusals() -> Iterator[None]:
    """Say in one line why something was refused."""
    try:
        yield
    except REFUSALS as err:
        raise click.ClickException(" ".join(str(err).split()) or type(err).__name__) from err


@contextmanager
def start_said() -> Iterator[None]:
    """Within `flask`, end with the reason if the settings or the file cannot be used; elsewhere do
    nothing.

    It wraps what happens before there is an app, where Flask would print a traceback.
    """
    try:
        yield
    except (SettingsError, DatabaseError) as err:
        if click.get_current_context(silent=True) is None:
            raise
        for line in str(err).splitlines():
            click.echo(f"Error: {line}", err=True)
        sys.exit(1)


class DatabaseWhenAsked:
    """The database beside a server that may run, opened when it is first used.

    `flask restore` and `flask config check` must work where it cannot be opened.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @cached_property
    def _opened(self) -> Database:
        return Database.open_for_command(self.path)

    def __getattr__(self, name: str):
        return getattr(self._opened, name)


class Command(click.Command):
    """A command whose refusals are sentences."""

    def invoke(self, ctx: click.Context):
        with refusals():
            return super().invoke(ctx)


class Topic(AppGroup):
    """Commands about one thing."""

    def command(self, *args, **kwargs):
        return super().command(*args, **{"cls": Command} | kwargs)


def command(function):
    """A command of no topic."""
    return click.command(cls=Command)(with_appcontext(function))


class Type(click.ParamType):
    """A parameter that is read with the relay at hand, which may not be the current app's yet."""

    def convert(self, value, param, ctx):
        if not isinstance(value, str):
            return value
        with refusals():
            return self.read(
                value, ctx.find_object(ScriptInfo).load_app().extensions["relay"], param, ctx
            )


class MemberType(Type):
    """A member, by name."""

    name = "name"

    def read(self, value, relay, param, ctx):
        member = accounts.named(relay.db, value)
        if member is None:
            raise click.ClickException(f"there is no member {value!r}")
        return member


class TeamType(Type):
    """A team, by name."""

    name = "team"

    def read(self, value, relay, param, ctx):
        team = teams.named(relay.db, value)
        if team is None:
            raise click.ClickException(f"there is no team {value!r}")
        return team


class MoneyType(Type):
    """An amount of yuan as nano-yuan; no more than nine decimals."""

    name = "yuan"

    def read(self, value, relay, param, ctx):
        try:
            return billing.nano(value)
        except ValueError as err:
            return self.fail(str(err), param, ctx)


class MomentType(Type):
    """A time in ms: a span from now (30d, 24h), a day, or a day with a time of day, in the site's
    time zone.

    `sign` -1 reads spans as past and a day as its begin; 1 reads spans as future and a day as its
    last second.
    """

    name = "when"

    def __init__(self, sign: int):
        self.sign = sign

    def read(self, value, relay, param, ctx):
        moment = self.moment(value, relay, param, ctx)
        if moment > billing.now_ms() + FAR_MS:
            return self.fail("that is more than a hundred years off", param, ctx)
        return moment

    def moment(self, value, relay, param, ctx):
        if span := _span(value):
            return billing.now_ms() + self.sign * int(span[1]) * UNITS_MS[span[2]]
        try:
            moment = datetime.fromisoformat(value)
            if len(value) <= 10 and self.sign > 0:
                moment += timedelta(days=1, seconds=-1)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=ZoneInfo(relay.settings.site.timezone))
            return round(moment.timestamp() * 1000)
        except (ValueError, OverflowError):
            return self.fail(
                "give a span such as 30d or 24h, a day such as 2027-01-31, or a time on it",
                param,
                ctx,
            )


MEMBER, TEAM, MONEY = MemberType(), TeamType(), MoneyType()
PAST, FUTURE = MomentType(-1), MomentType(1)

password_option = click.option(
    "--password", metavar="P", help="Else it is asked for, or read as a line from standard input."
)
key_option = click.option(
    "--key", metavar="KEY", help="Do it once, however often it is sent with this key."
)
kind_option = click.option(
    "--kind",
    type=click.Choice(["top_up", "refund", "reward", "adjust"]),
    help="Else a top-up for what is put in, a correction (adjust) for what is taken out.",
)


def password(typed: str | None) -> str:
    """The password: as typed, else asked for at a terminal, else a line from standard input."""
    if typed is not None:
        return typed
    if sys.stdin.isatty():
        return click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return sys.stdin.readline().rstrip("\r\n")
