"""`flask backup` and `flask restore`: copies of the one file that holds everything."""

from pathlib import Path

import click

import billing
import proof
from commands import given
from db import Database
from db import restore as put_back


@given.command
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
def backup(target: Path) -> None:
    """Write a consistent copy of the database to FILE, also while the server runs."""
    given.relay().db.backup(target)
    click.echo(f"{target} holds a copy of {target.stat().st_size / 1e6:.1f} MB.")


@given.command
@click.argument("source", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(source: Path) -> None:
    """Put the backup FILE in the database's place, if it passes all checks. The old one is kept beside it."""
    kept = put_back(given.relay().settings.database.path, source, _settled)
    click.echo(f"{source} is the database now." + (f" The old one is kept as {kept}." if kept else ""))


def _settled(copy: Database) -> list[str]:
    """End what was open when the backup was made, and name what is wrong with it."""
    billing.release_orphans(copy)
    return proof.verify(copy)
