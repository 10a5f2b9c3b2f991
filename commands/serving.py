"""`flask upstreams` and `flask reload`: a word with the relay that serves.

What upstreams have shown of themselves is in the memory of the server's process, so it is asked: at its own address,
for /readyz.
"""

import json
import os
import signal
import urllib.error
import urllib.request

import click

import db
from commands import given, shown

ANSWER_S = 5
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@given.command
@shown.json_option
def upstreams(as_json: bool) -> None:
    """List the configured upstreams, and how they are if the relay serves."""
    relay = given.relay()
    known = health(relay.settings.server)
    if known is None:
        click.echo("No relay serves at the address of the settings: only what is configured is shown.", err=True)
    shown.listing(as_json, ({
        "name": each.name, "base_url": each.base_url, "speaks": sorted(each.speaks), "keys": len(each.keys),
        **_state(each, (known or {}).get(each.name)),
    } for each in relay.catalog.upstreams.values()), "No upstreams are configured.")


def _state(upstream, found: dict | str | None) -> dict:
    """How an upstream is: `ok`, `busy`, `refused`, `failing`; `keyless` if it is never asked; None if nobody knows."""
    found = {"state": found} if isinstance(found, str | None) else found
    failed_at = found.get("last_error_at")
    return {"state": found["state"] if upstream.usable else "keyless", "calls": found.get("calls"),
            "failed": found.get("failed"), "latency_ms": found.get("latency_ms"), "rests_s": found.get("rests_s"),
            "last_error": found.get("last_error"), "last_error_at": shown.when(failed_at)}


def health(server) -> dict | None:
    """What the relay at the address of these settings says of its upstreams, by name; None if none serves there."""
    host = EVERYWHERE.get(server.host, server.host)
    address = f"http://{f'[{host}]' if ':' in host else host}:{server.port}/readyz"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))      # whatever the environment says
    try:
        with direct.open(address, timeout=ANSWER_S) as answer:
            return json.load(answer).get("upstreams")
    except urllib.error.HTTPError as err:          # 503 is an answer too
        return json.load(err).get("upstreams")
    except (OSError, ValueError):
        return None


@given.command
def reload() -> None:
    """Let the relay that serves read its settings again. Calls that run go on as they began."""
    pid = db.serving_pid(given.relay().settings.database.path)
    if pid is None:
        raise click.ClickException("no relay serves this database")
    os.kill(pid, signal.SIGHUP)                    # the settings were read by this command, so they have no mistake
    click.echo("The relay reads its settings again.")
