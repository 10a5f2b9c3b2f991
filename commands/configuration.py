"""`flask config`: is config.toml right, and what follows from it?"""

import click

import settings
from commands import given, shown
from relay.catalog import Catalog
from settings import table

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
    found = table.values(relay.settings, settings.written(), settings.origins())
    shown.listing(as_json, found, "There are no settings.")
