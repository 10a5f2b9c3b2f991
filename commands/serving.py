"""`flask upstreams` and `flask reload`: a word with the relay that serves.

What upstreams have shown of themselves is in the memory of the server, which writes it down as a
fact now and then.
"""

import os
import signal

import click

import db
import settings as configuration
from commands import given, shown
from db import meta
from members.terms import lost_plans, plan_changes
from settings import changes

SEEN = (
    "state",
    "calls",
    "failed",
    "latency_ms",
    "rests_s",
    "resting",
    "last_error",
    "last_error_at",
    "last_words",
    "at",
)


@given.command
@shown.json_option
def upstreams(as_json: bool) -> None:
    """List the configured upstreams, and how the relay that serves sees them."""
    relay = given.relay()
    serving = db.serving_pid(relay.settings.database.path) is not None
    seen = {each["name"]: each for each in meta.get(relay.db, "upstreams", [])} if serving else {}
    if not serving:
        click.echo("No relay serves: only what is configured is shown.", err=True)
    shown.listing(
        as_json,
        (_row(each, seen.get(each.name, {})) for each in relay.catalog.upstreams.values()),
        "No upstreams are configured.",
    )


def _row(upstream, seen: dict) -> dict:
    """An upstream.

    Its state is ok, busy, refused or failing; keyless if it is never asked; None if nobody knows.
    """
    row = {
        name: shown.when(seen.get(name)) if name.endswith("at") else seen.get(name) for name in SEEN
    }
    if not upstream.usable:
        row["state"] = "keyless"
    return {
        "name": upstream.name,
        "base_url": upstream.base_url,
        "speaks": sorted(upstream.speaks),
        "keys": len(upstream.keys),
    } | row


@given.command
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
@shown.json_option
def reload(dry_run: bool, as_json: bool) -> None:
    """Let the relay that serves read its settings again. Calls that run go on as they began."""
    relay = given.relay()
    pid = db.serving_pid(relay.settings.database.path)
    if pid is None:
        raise click.ClickException("no relay serves this database")
    if dry_run:
        return _preview(relay, pid, as_json)
    os.kill(pid, signal.SIGHUP)  # the settings were read by this command, so they have no mistake
    return shown.one(as_json, {"pid": pid}, "The relay reads its settings again.")


def _preview(relay, pid: int, as_json: bool) -> None:
    """Say what a reload would change. Its variables are those with which it was started."""
    fact = meta.get(relay.db, "settings_in_force", {})
    has = set(fact.get("variables", ()))
    known = configuration.variables(relay.settings)
    unseen = sorted(name for name in known - has if os.environ.get(name, "").strip())
    env = {name: value for name, value in os.environ.items() if name not in known}
    after = configuration.load(env=env | dict.fromkeys(has, "set"))
    found = changes.difference(fact.get("picture", {}), changes.picture(after))
    lines = [
        f"A reload changes: {changes.sentence(found)}" if found else "A reload changes nothing."
    ]
    lines += [
        f"  {table}: {part} {', '.join(names)}"
        for table, parts in found.items()
        for part, names in parts.items()
    ]
    terms = plan_changes(relay.db, fact.get("plans", {}), after)
    terms += [each for each in [lost_plans(relay.db, after)] if each]
    lines += terms
    lines += [
        f"{name} is set here, but the relay was started without it: restart" for name in unseen
    ]
    document = {"pid": pid, "changes": found, "plans": terms, "unseen_variables": unseen}
    shown.one(as_json, document, "\n".join(lines))
