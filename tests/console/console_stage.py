"""Pages without a server or a database.

The console on an app of its own, with real settings and a real catalogue.
"""

import re
from pathlib import Path
from types import SimpleNamespace

from flask import Flask

import console
import settings
from members.turned_away import TurnedAway
from relay.catalog import Catalog
from relay.gate import ConcurrencyLimit, Gate

ROOT = Path(__file__).resolve().parent.parent.parent
PRICES = {"input": "2", "cached": "0.5", "output": "8"}
UPSTREAM = {
    "name": "fake",
    "base_url": "https://upstream.example/v1",
    "api_key": "sk-upstream-secret",
}
PLANS = {
    "free": {"requests_per_minute": 60, "input_tokens_max": 5000},
    "pro": {
        "title": "Pro",
        "price": "29.90",
        "quota": "40.00",
        "requests_per_minute": 600,
        "discount": "0.80",
    },
}


def model(id_: str, **changes) -> dict:
    """A `[[models]]` row at 2, 0.5 and 8 yuan per million."""
    routes = [{"upstream": "fake", "model": id_}]
    return {
        "id": id_,
        "provider": "Acme",
        "title": id_.title(),
        "context": 131072,
        "output_max": 8192,
        "routes": routes,
        "prices": PRICES,
    } | changes


MODELS = [
    model("plain-1"),
    model(
        "tiered-2",
        provider="Bravo",
        prices=PRICES
        | {"input": "1", "tiers": [{"above": 32000, "input": "4", "cached": "1", "output": "16"}]},
    ),
    model(
        "peaky-3",
        provider="Bravo",
        prices=PRICES
        | {
            "input": "3",
            "peak": {
                "days": "mon-fri",
                "hours": ["09:00-12:00"],
                "input": "6",
                "cached": "1",
                "output": "16",
            },
        },
    ),
    model("gratis-4", provider="Charity", prices={"input": "0", "cached": "0", "output": "0"}),
    model("vectors-5", kind="embeddings", output_max=None, prices={"input": "0.5"}),
    model("nobody-6", routes=[]),
]


def site(folder: Path, **changes):
    """The console for these settings, on the app returned. `changes` are tables of config.toml."""
    given = {
        "site": {"public_url": "https://relay.example"},
        "database": {"path": str(folder / "relay.db")},
        "plans": PLANS,
        "upstreams": [UPSTREAM],
        "models": MODELS,
    } | changes
    app = Flask("console-of-a-test", root_path=str(ROOT))
    loaded = settings.check(given, {})
    gate = Gate(None, loaded, None, ConcurrencyLimit(), TurnedAway())
    app.extensions["relay"] = SimpleNamespace(
        settings=loaded, catalog=Catalog(loaded), db=None, gate=gate
    )
    console.register(app, loaded)
    return app


def text(html: str) -> str:
    """What a reader sees of a page, blanks squeezed."""
    without = re.sub(r"<(script|style|title)\b.*?</\1>", " ", html, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", without)).strip()


def links(html: str) -> set[str]:
    """The addresses on this site that a page links to."""
    return {
        found.replace("&amp;", "&").split("#")[0] for found in re.findall(r'href="(/[^"]*)"', html)
    }
