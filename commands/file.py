"""`flask backup` and `flask restore`: copies of the one file that holds everything."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click

import billing
import codes
import db
import verify
from commands import given, shown
from db import Database
from db import restore as put_back
from members import accounts, audit, call_rows, tokens


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
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@click.option(
    "--keep-revoked/--no-keep-revoked",
    default=True,
    help="Tokens revoked or renewed, and members disabled, since the backup stay so (the default).",
)
@shown.json_option
def restore(source: Path, yes: bool, keep_revoked: bool, as_json: bool) -> None:
    """Put the backup FILE in the database's place, if it passes all checks.

    The old one is kept beside it. What is in force and what comes is shown first, and asked about.
    A relay that serves goes on with the restored file: calls that run now lose their rows.
    """
    path = Path(given.relay().settings.database.path)
    if not source.is_file():  # a pipe would be waited for without end
        raise click.ClickException(f"{source} is no file")
    now, then = _seen(path), _seen(source)
    both = _compared(path, now, source, then)
    if not yes:
        if not sys.stdin.isatty():
            raise click.ClickException("there is no terminal to ask at: say --yes")
        click.echo("\n".join(both))
        click.confirm("Put it in place?", abort=True)
    ended = _ended(path) if keep_revoked else ([], [])
    done: dict = {}
    kept = put_back(path, source, _settling(source, ended, done))
    shown.one(
        as_json,
        {
            "file": str(source),
            "kept": kept and str(kept),
            "revoked_kept": done.get("revoked", 0),
            "disabled_kept": done.get("disabled", 0),
            "calls_before": now and now["calls"],
            "calls_after": then and then["calls"],
        },
        "".join(f"{line}\n" for line in both if yes)
        + f"{source} is the database now."
        + (f" The old one is kept as {kept}." if kept else "")
        + (f" {done['revoked']} tokens stay revoked or renewed." if done.get("revoked") else "")
        + (f" {done['disabled']} members stay disabled." if done.get("disabled") else ""),
    )


def _seen(path: Path) -> dict | None:
    """What is in a file, as far as it can be read; None if it cannot."""
    with contextlib.suppress(db.Error, db.DatabaseError), closing(db.connect(path, "ro")) as conn:
        newest, calls, members, pockets = call_rows.contents(conn)
        return {
            "newest_call": shown.when(newest),
            "calls": calls,
            "members": members,
            "codes_redeemed": codes.count_redeemed(conn),
            "audit_rows": audit.size(conn),
            **shown.pockets(pockets),
        }
    return None


def _compared(path: Path, now: dict | None, source: Path, then: dict | None) -> list[str]:
    """What both files hold, in sentences."""
    lines = []
    for name, file, seen in (("in force", path, now), ("to come", source, then)):
        said = (
            "cannot be read"
            if seen is None
            else ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in seen.items())
        )
        lines.append(f"{name}: {file}: {said}")
    if now and then and now["calls"] > then["calls"]:
        gone = now["calls"] - then["calls"]
        lines.append(f"{gone} calls are only in the file in force, and their charges too.")
    if now and then and now["codes_redeemed"] > then["codes_redeemed"]:
        gone = now["codes_redeemed"] - then["codes_redeemed"]
        lines.append(f"{gone} codes that were redeemed can be redeemed again in the file to come.")
    return lines


def _ended(path: Path) -> tuple[list[tuple], list[tuple]]:
    """The tokens of the file in force, with their secrets' digests and when they were revoked, and
    the members who are disabled there."""
    with contextlib.suppress(db.Error, db.DatabaseError), closing(db.connect(path, "ro")) as conn:
        return tokens.states(conn), accounts.disabled(conn)
    return [], []


def _settling(
    source: Path, ended: tuple[list, list], done: dict
) -> Callable[[Database], list[str]]:
    """What is done to the copy before it is used."""

    def settle(copy: Database) -> list[str]:
        """End what was open when the backup was made, and name what is wrong with it."""
        interrupted = billing.release_orphans(copy)
        done["revoked"] = copy.write(tokens.keep_states, ended[0])
        done["disabled"] = copy.write(accounts.keep_disabled, ended[1])
        detail = {"file": source.name, "interrupted": interrupted, "count": done["revoked"]}
        copy.write(audit.record, None, "database.restore", None, detail)
        return verify.verify(copy)

    return settle
