"""`flask backup` and `flask restore`: copies of the one file that holds everything."""

from pathlib import Path

import click

import billing
import verify
from commands import given, shown
from db import Database
from db import restore as put_back


@given.command
@click.argument("target", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path))
@shown.json_option
def backup(target: Path, as_json: bool) -> None:
    """Write a consistent copy of the database to FILE, also while the server runs."""
    given.relay().db.backup(target)
    size = target.stat().st_size
    shown.one(
        as_json,
        {"file": str(target), "bytes": size},
        f"{target} holds a copy of {size / 1e6:.1f} MB.",
    )


@given.command
@click.argument(
    "source", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@shown.json_option
def restore(source: Path, as_json: bool) -> None:
    """Put the backup FILE in the database's place, if it passes all checks.

    The old one is kept beside it.
    """
    kept = put_back(given.relay().settings.database.path, source, _settled)
    shown.one(
        as_json,
        {"file": str(source), "kept": kept and str(kept)},
        f"{source} is the database now." + (f" The old one is kept as {kept}." if kept else ""),
    )


def _settled(copy: Database) -> list[str]:
    """End what was open when the backup was made, and name what is wrong with it."""
    billing.release_orphans(copy)
    return verify.verify(copy)
