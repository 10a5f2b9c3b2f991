"""`flask upstreams` and `flask reload`: a word with the relay that serves.

What upstreams have shown of themselves is in the memory of the server, which writes it down as a
fact now and then.
"""

import os
import signal

import click

import db
from commands import given, shown
from db import meta

SEEN = ("state", "calls", "failed", "latency_ms", "rests_s", "last_error", "last_error_at", "at")


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
@shown.json_option
def reload(as_json: bool) -> None:
    """Let the relay that serves read its settings again. Calls that run go on as they began."""
    pid = db.serving_pid(given.relay().settings.database.path)
    if pid is None:
        raise click.ClickException("no relay serves this database")
    os.kill(pid, signal.SIGHUP)  # the settings were read by this command, so they have no mistake
    shown.one(as_json, {"pid": pid}, "The relay reads its settings again.")
