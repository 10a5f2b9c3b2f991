"""`flask config`: is config.toml right, and what follows from it?"""

from collections.abc import Iterator

import click
import msgspec

import settings
from commands import given, shown
from relay.catalog import Catalog
from settings import changes

config = given.Topic("config", help="The settings: check them, show them.")


@config.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False))
@shown.json_option
def check(file: str | None, as_json: bool) -> None:
    """Name every mistake in FILE, or in the settings in force; exit status 1 if there is one."""
    try:
        found = (
            settings.load(file) if file else given.relay().settings
        )  # those in force were read without mistake
    except settings.SettingsError as err:
        shown.one(as_json, {"ok": False, "mistakes": err.mistakes}, "\n".join(err.mistakes))
        raise click.exceptions.Exit(1) from None
    catalog = Catalog(found)
    available = [each.id for each in catalog.models.values() if each.available]
    keyless = [name for name, each in catalog.upstreams.items() if not each.usable]
    shown.one(
        as_json,
        {
            "ok": True,
            "mistakes": [],
            "demo": catalog.demo,
            "models": available,
            "upstreams_without_key": keyless,
        },
        _sentence(catalog.demo, available, keyless),
    )


def _sentence(demo: bool, available: list[str], keyless: list[str]) -> str:
    if demo:
        return f"No mistakes. No upstream has a key: demo mode answers for all {len(available)} models."
    without = f" Without a key: {', '.join(keyless)}." if keyless else ""
    return f"No mistakes. {len(available)} models can be asked: {', '.join(available)}.{without}"


@config.command()
@shown.json_option
def show(as_json: bool) -> None:
    """Show the settings of all files together, and where each comes from. Keys are only counted."""
    relay = given.relay()
    written, origins = settings.written(), settings.origins()
    shown.listing(as_json, _values(relay.settings, written, origins), "There are no settings.")


def _values(found: settings.Settings, written: dict, origins: dict[str, str]) -> Iterator[dict]:
    for table in found.__struct_fields__:
        value = getattr(found, table)
        if isinstance(value, dict):
            for name, each in value.items():
                yield _entry(f"{table}.{name}", each, origins)
        elif isinstance(value, tuple):
            for each in value:
                yield _entry(f"{table}.{getattr(each, 'name', None) or each.id}", each, origins)
        else:
            stands = written.get(table)
            for name in value.__struct_fields__:
                origin = "config.toml" if isinstance(stands, dict) and name in stands else "default"
                yield {"key": f"{table}.{name}", "value": _plain(value, name), "from": origin}


def _entry(key: str, each: msgspec.Struct, origins: dict[str, str]) -> dict:
    """An upstream, model or plan in a line: what differs from the defaults."""
    said = {
        field.name: _plain(each, field.name)
        for field in msgspec.structs.fields(each)
        if getattr(each, field.name) != field.default and field.name not in ("name", "id")
    }
    value = ", ".join(f"{name}={value}" for name, value in said.items() if value != "")
    return {"key": key, "value": value, "from": origins.get(key, "default")}


def _plain(section: msgspec.Struct, name: str) -> object:
    """A setting's value; of a secret, how many there are."""
    value = getattr(section, name)
    if name in changes.SECRET:
        count = len(value) if isinstance(value, tuple) else bool(value)
        return f"({count:d} set)"
    if name == "routes":
        return " ".join(f"{each.upstream}:{each.model}" for each in value)
    if name == "prices" and value is not None:
        return f"{value.input}/{value.cached}/{value.output}"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return value if isinstance(value, (int, float, str, bool)) or value is None else str(value)
