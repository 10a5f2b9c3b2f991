"""`flask upstream`: connect a provider, list, test and remove what is connected.

Owns what is typed and printed; the steps are `relay.connect`'s, the same as in the browser. A key
is asked for, or read as a line from standard input: never an argument, which others could see.
"""

import os
import signal
import sys

import click

import db
from commands import given, shown
from members import audit
from relay import connect
from relay.connect import ConnectError, Findings, OfferedModel, Preset, explained

upstream = given.Topic("upstream", help="Providers: connect, list, test, remove.")


@upstream.command()
@click.argument("preset", required=False)
@click.option("--base-url", metavar="URL", default="", help="Any address that speaks chat.")
@click.option("--name", metavar="N", default="", help="What routes call it.")
@click.option("--model", "models", metavar="M", multiple=True, help="Only these; else all.")
@click.option("--input", "input_price", metavar="P", help="Price of a million LLM tokens of input.")
@click.option("--output", "output_price", metavar="P", help="The same of output.")
@click.option("--private", is_flag=True, help="The address may be of a private network.")
@click.option("--force", is_flag=True, help="Keep it although the test call fails.")
@shown.json_option
def add(
    preset: str | None,
    base_url: str,
    name: str,
    models: tuple[str, ...],
    input_price: str | None,
    output_price: str | None,
    private: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Connect a provider: PRESET (see `flask upstream presets`), or any address with --base-url.

    The key is asked for, or read from standard input.
    """
    known = connect.presets().get(preset or "")
    if preset and known is None:
        raise ConnectError(f"{preset!r} is no preset: {', '.join(connect.presets())}")
    if not preset and not base_url:
        raise click.UsageError("give a PRESET or --base-url")
    row = connect.row_for(known, name, base_url, private)
    key = _key(row.get("allow_private", False))
    findings = connect.look(row, key, known)
    if not findings.ok and not force:
        raise ConnectError(f"nothing is kept: {explained(findings)}")
    chosen = connect.choose(findings.offers, models, input_price, output_price)
    relay = given.relay()
    left_out = connect.keep(relay, findings.row, key, chosen, findings.outcome)
    done(relay, "upstream.add", upstream=findings.row["name"], models=len(chosen))
    _said(as_json, findings, chosen, left_out)


def _said(
    as_json: bool, findings: Findings, chosen: list[tuple[OfferedModel, dict]], left_out: list[str]
) -> None:
    row, ids = findings.row, [model["id"] for _, model in chosen]
    free = connect.without_price(row, chosen)
    document = {
        "name": row["name"],
        "base_url": row["base_url"],
        "models": ids,
        "test": _outcome(findings),
        "without_price": free,
        "in_config_toml": left_out,
    }
    sentence = f"{row['name']} is connected at {row['base_url']}: {', '.join(ids)}."
    if findings.outcome is not None and findings.ok:
        sentence += f" {findings.asked} answered in {findings.outcome.ms} ms."
    if free and not as_json:
        click.echo(
            f"No price is known for {', '.join(free)}: members pay nothing. "
            "Set prices in the browser, or connect with --input and --output.",
            err=True,
        )
    if left_out and not as_json:
        click.echo(f"config.toml has {', '.join(left_out)} itself, and wins.", err=True)
    shown.one(as_json, document, sentence)


def _outcome(findings: Findings) -> dict | None:
    outcome = findings.outcome
    if outcome is None:
        return None
    return {"ok": outcome.ok, "model": findings.asked, "ms": outcome.ms, "code": outcome.code}


def _key(optional: bool) -> str:
    """The key: asked for at a terminal, else a line from standard input."""
    if sys.stdin.isatty():
        return click.prompt(
            "Key", default="" if optional else None, hide_input=True, show_default=False
        )
    key = sys.stdin.readline().strip()
    if not key and not optional:
        raise ConnectError("no key was given: it is read from standard input")
    return key


@upstream.command()
@shown.json_option
def presets(as_json: bool) -> None:
    """List the providers of the catalogue."""
    rows = (_preset(each) for each in connect.presets().values())
    shown.listing(as_json, rows, "The catalogue is empty.")


def _preset(preset: Preset) -> dict:
    return {
        "preset": preset.name,
        "title": preset.title,
        "base_url": preset.row["base_url"],
        "models": [each["id"] for each in preset.models],
        "terms": connect.EXPLAINED_TERMS.get(preset.terms, ""),
    }


@upstream.command("list")
@shown.json_option
def list_upstreams(as_json: bool) -> None:
    """List all providers: those connected here and those of config.toml."""
    relay = given.relay()
    origins = connect.origins()
    rows = (
        {
            "name": each.name,
            "base_url": each.base_url,
            "from": origins.get(f"upstreams.{each.name}", ""),
            "enabled": each.enabled,
            "keys": len(each.keys),
            "models": [
                model.id
                for model in relay.settings.models
                if any(route.upstream == each.name for route in model.routes)
            ],
        }
        for each in relay.settings.upstreams
    )
    shown.listing(as_json, rows, "No providers are connected. `flask upstream add` connects one.")


@upstream.command()
@click.argument("name")
@click.option("--model", metavar="M", help="Ask for this model; else for the first.")
@shown.json_option
def test(name: str, model: str | None, as_json: bool) -> None:
    """Make one tiny real call to a provider; exit status 1 if it fails."""
    relay = given.relay()
    found = connect.try_out(relay, name, model)
    findings = next((each for each in found if not each.ok), found[0])
    done(relay, "upstream.test", wake=False, upstream=name, model=findings.asked)
    sentence = explained(findings) if not findings.ok else f"{name} answered for {findings.asked}."
    document = {"name": name, "words": findings.words} | (_outcome(findings) or {})
    shown.one(as_json, document, sentence)
    if not findings.ok:
        raise click.exceptions.Exit(1)


@upstream.command()
@click.argument("name")
@shown.json_option
def remove(name: str, as_json: bool) -> None:
    """Take out a provider that was connected here, with the models that nobody else serves."""
    relay = given.relay()
    gone = connect.remove(relay, name)
    done(relay, "upstream.remove", upstream=name)
    also = f" With it went {', '.join(gone)}." if gone else ""
    shown.one(as_json, {"name": name, "models": gone}, f"{name} is removed.{also}")


@upstream.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Take it although the provider does not.")
@shown.json_option
def key(name: str, force: bool, as_json: bool) -> None:
    """Give a connected provider another key, asked for or read from standard input."""
    relay = given.relay()
    connect.rotate(relay, name, _key(False), force)
    done(relay, "upstream.key", upstream=name)
    shown.one(as_json, {"name": name}, f"{name} has its new key.")


@upstream.command()
@click.argument("name")
@shown.json_option
def disable(name: str, as_json: bool) -> None:
    """Switch a connected provider off: it is asked nothing."""
    _switch(name, False, as_json)


@upstream.command()
@click.argument("name")
@shown.json_option
def enable(name: str, as_json: bool) -> None:
    """Switch a connected provider on again."""
    _switch(name, True, as_json)


def _switch(name: str, on: bool, as_json: bool) -> None:
    relay = given.relay()
    connect.edit_row(relay, name, enabled=on)
    done(relay, "upstream.enable" if on else "upstream.disable", upstream=name)
    shown.one(as_json, {"name": name, "enabled": on}, f"{name} is {'on' if on else 'off'}.")


def done(relay, action: str, wake: bool = True, **detail: object) -> None:
    """Put it into the audit trail, and let the relay that serves see it at once."""
    relay.db.write(lambda conn: audit.record(conn, None, action, None, detail))
    pid = db.serving_pid(relay.settings.database.path) if wake else None
    if pid is not None and pid != os.getpid():
        os.kill(pid, signal.SIGHUP)
