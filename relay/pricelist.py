"""The catalogue's prices beside those in force, and how an administrator takes them over.

Owns the comparison, what makes a catalogue unbelievable, and the writing: an accepted price goes to
providers.toml, with its source and date. The catalogue is a file of [[models]] as in
config.example.toml, which is also the one that comes with the relay. A call that has begun keeps
the price that stands on its row.
"""

import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import settings as configuration
from db import Database, meta
from pricing import KINDS
from relay import connect
from relay.connect import ConnectError
from settings import ModelSettings, Prices, reader

HISTORY_MAX = 500  # changes that are kept
STALE = timedelta(60)
DEAREST = Decimal(5000)  # yuan per million: no model of anybody comes near
FACTOR_MAX = 10  # a price that jumps further is a mistake, or meant to harm
CATALOGUE_BYTES_MAX = 4 << 20


@dataclass(frozen=True)
class Change:
    """A model whose price in the catalogue is another one than in force, or that is not in force.

    `kinds` are what differs: kind -> (in force, catalogue), None for none; tiers and peak hours as
    text. `obstacle` says why it cannot be accepted here; else it is empty.
    """

    id: str
    row: dict[str, Any] = field(repr=False)
    kinds: dict[str, tuple[str | None, str | None]]
    new: bool = False
    source: str = ""
    checked: date | None = None
    obstacle: str = ""


@dataclass(frozen=True)
class Comparison:
    """What a catalogue would change, and what of it is refused: id -> reasons."""

    changes: list[Change]
    refused: dict[str, list[str]]


def read(path: str | Path | None = None) -> list[dict]:
    """The models of a catalogue; None is the one that comes with the relay. Raises ConnectError."""
    path = Path(path or configuration.SHIPPED)
    try:
        if path.stat().st_size > CATALOGUE_BYTES_MAX:
            raise ConnectError(f"{path} is too large for a catalogue")
        document = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as err:
        raise ConnectError(f"{path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise ConnectError(f"{path}: {err}") from err
    models = document.get("models")
    if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
        raise ConnectError(f"{path} has no [[models]]: it is no catalogue")
    return models


def compare(relay: Any, catalogue: Iterable[dict]) -> Comparison:
    """The catalogue beside what is in force."""
    in_force = {each.id: each for each in relay.settings.models}
    upstreams = {each.name: each for each in relay.settings.upstreams}
    origins = connect.origins()
    changes: list[Change] = []
    refused: dict[str, list[str]] = {}
    for number, row in enumerate(catalogue):
        name = str(row.get("id", f"models[{number}]"))
        wrong: list[str] = []
        model: Any = reader.section(ModelSettings, row, "", wrong)
        if wrong:
            refused[name] = wrong
            continue
        current = in_force.get(model.id)
        if model.prices is None or current is None and not _served(model, upstreams):
            continue
        if reasons := list(_unbelievable(model, current, upstreams)):
            refused[name] = reasons
            continue
        kinds = dict(_differing(current.prices if current else None, model.prices))
        if kinds:
            above = current is not None and origins.get(f"models.{model.id}") == "config.toml"
            obstacle = "it stands in config.toml: change it there" if above else ""
            changes.append(
                Change(
                    model.id,
                    row,
                    kinds,
                    current is None,
                    model.prices.source,
                    model.prices.checked,
                    obstacle,
                )
            )
    return Comparison(changes, refused)


def accept(relay: Any, changes: Iterable[Change]) -> None:
    """Put these prices into force, all or none. The settings are still to be reloaded.

    Raises ConnectError.
    """
    changes = list(changes)
    for change in changes:
        if change.obstacle:
            raise ConnectError(f"{change.id}: {change.obstacle}")
    shipped = {each["id"]: each for each in read()}
    upstreams = {each.name for each in relay.settings.upstreams}

    def edit(kept: dict) -> None:
        models = kept.setdefault("models", [])
        for change in changes:
            row = next((each for each in models if each["id"] == change.id), None)
            if row is None:
                row = dict(change.row if change.new else shipped.get(change.id, change.row))
                row["routes"] = [r for r in row.get("routes", ()) if r["upstream"] in upstreams]
                models.append(row)
            row["prices"] = change.row["prices"]

    connect.change(relay, edit)


def remember(relay: Any, at: int) -> None:
    """Note which list prices have changed since the settings were last looked at (`at`: ms).

    Whichever file says so: a model's history is kept, as far as HISTORY_MAX changes of all models.
    """
    before: dict | None = meta.get(relay.db, "prices_in_force")
    now = {each.id: _whole(each.prices) for each in relay.settings.models if each.prices}
    if now == before:
        return
    if before is None:  # the first look: nothing has changed
        meta.put(relay.db, "prices_in_force", now)
        return
    changed = [
        {"at": at, "model": name, "was": before.get(name), "now": now.get(name)}
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    kept = meta.get(relay.db, "price_history", [])
    meta.put(relay.db, "price_history", [*kept, *changed][-HISTORY_MAX:])
    meta.put(relay.db, "prices_in_force", now)


def history(db: Database, model_id: str | None) -> list[dict]:
    """The changes of a model's list price, newest first: {"at": ms, "was", "now"}, as text or None."""
    return [each for each in meta.get(db, "price_history", [])[::-1] if each["model"] == model_id]


def audit_detail(change: Change) -> dict:
    """What the trail keeps of an accepted change: it is the history of a model's prices."""
    return {"model": change.id, "prices": {kind: list(both) for kind, both in change.kinds.items()}}


def stale(prices: Prices | None, today: date | None = None) -> bool:
    """Whether prices that say when they were checked have not been for 60 days."""
    if prices is None or prices.checked is None:
        return False
    return (today or _today()) - prices.checked > STALE


def _today() -> date:
    return datetime.now(UTC).date()


def _served(model: ModelSettings, upstreams: dict) -> bool:
    return any(
        route.upstream in upstreams and upstreams[route.upstream].connected
        for route in model.routes
    )


def _unbelievable(model: Any, current: Any, upstreams: dict) -> Iterator[str]:
    """What makes a row of a catalogue one to refuse."""
    if not any(route.upstream in upstreams for route in model.routes):
        names = ", ".join(route.upstream for route in model.routes) or "nobody"
        yield f"its provider is not known here: {names}"
    if model.prices.checked is not None and model.prices.checked > _today() + timedelta(1):
        yield f"it was checked in the future: {model.prices.checked}"
    yield from _absurd("", model.prices, current.prices if current else None)
    if model.prices.peak:
        yield from _absurd("peak ", model.prices.peak, current and current.prices)
    for tier in model.prices.tiers:
        yield from _absurd(f"above {tier.above} ", tier, None)


def _absurd(place: str, prices, before) -> Iterator[str]:
    for kind in KINDS:
        price, was = getattr(prices, kind), before and getattr(before, kind)
        if price is None:
            continue
        if price > DEAREST:
            yield f"{place}{kind}: {price} is no possible price"
        elif not price and kind in ("input", "output") and not (before and was == 0):
            yield f"{place}{kind}: zero is no price"
        elif was and price and not was / FACTOR_MAX <= price <= was * FACTOR_MAX:
            yield f"{place}{kind}: {price} is too far from the {was} in force"


def _differing(before: Prices | None, after: Prices) -> Iterator[tuple[str, tuple]]:
    for kind in (*KINDS, "tiers", "peak"):
        was, now = (None if each is None else getattr(each, kind) for each in (before, after))
        if (was or None) != (now or None):
            yield kind, (_written(was), _written(now))


def _written(value: object) -> str | None:
    """A price as text; tiers and peak hours in short."""
    if not value:
        return None if value is None or value == () else str(value)
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, tuple):
        return "; ".join(f"above {each.above}: {_in_short(each)}" for each in value)
    days, hours = getattr(value, "days", ""), " ".join(getattr(value, "hours", ()))
    return f"{days} {hours}: {_in_short(value)}"


def _whole(prices: Prices) -> str:
    """All that a price list says, in a line."""
    parts = [_in_short(prices)]
    parts += [
        f"{name}: {_written(value)}"
        for name in ("tiers", "peak")
        if (value := getattr(prices, name))
    ]
    return "; ".join(parts)


def _in_short(prices) -> str:
    kinds = ((kind, getattr(prices, kind)) for kind in KINDS)
    return ", ".join(f"{kind} {price}" for kind, price in kinds if price is not None)
