"""What the files say: models, prices, plans, settings, and reading them again."""

from typing import Any

import msgspec

import plans
import settings as configuration
from members import audit
from relay import connect, errors, pricelist
from relay.administration.providers import NamesQuery, reload
from relay.administration.shape import Address, Desk, Listing, RequestBody, cut, refuse
from server import jobs
from settings import changes, table


class ModelRecord(msgspec.Struct):
    """A model of the settings. `available`: it can be asked now. Prices are yuan a million LLM
    tokens; `stale`: nobody has compared them for 60 days. `from`: the file that has it."""

    id: str
    title: str
    provider: str
    kind: str
    context: int | None
    output_max: int | None
    aliases: list[str]
    enabled: bool
    available: bool
    prices: dict[str, Any] | None
    stale: bool
    routes: list[dict[str, Any]]
    origin: str = msgspec.field(name="from")


class PlanRecord(msgspec.Struct):
    """A plan of the settings; `holders`: how many members have it now."""

    name: str
    title: str
    price: str
    quota: str
    days: int
    discount: str
    requests_per_minute: int
    member_requests_per_minute: int | None
    input_tokens_max: int | None
    calls_at_once: int | None
    models: list[str]
    holders: int


class PriceChange(msgspec.Struct):
    """Where the catalogue says another price than is in force: kind -> [in force, catalogue].
    `obstacle`: why it cannot be accepted here."""

    id: str
    new: bool
    prices: dict[str, list[str | None]]
    source: str
    checked: str | None
    obstacle: str


class PriceComparison(msgspec.Struct):
    """What the catalogue would change, and what of it is refused: id -> reasons."""

    changes: list[PriceChange]
    refused: dict[str, list[str]]


class PricesAccepted(RequestBody):
    """The ids of the models whose price in the catalogue is taken over."""

    models: list[str]


class SettingRecord(msgspec.Struct):
    """A setting, plan, upstream or model: what it says, and the file that does. Of secrets it is how
    many there are."""

    key: str
    value: Any
    origin: str = msgspec.field(name="from")


class Preview(msgspec.Struct):
    """The mistakes of the files, and what a reload would change: table -> added, removed, changed.
    `plans`: what that means for who holds one, and from when."""

    mistakes: list[str]
    changes: dict[str, dict[str, list[str]]]
    summary: str
    plans: list[str]


def models(desk: Desk) -> Listing[ModelRecord]:
    """All models of the settings, by id, with prices and routes."""
    after, origins = desk.query.after or "", connect.origins()
    every = sorted(desk.settings.models, key=lambda each: each.id)
    rest = (_model(desk, each, origins) for each in every if each.id > after)
    return cut(rest, desk.query.limit, lambda each: each.id)


def _model(desk: Desk, row: Any, origins: dict) -> ModelRecord:
    known = desk.relay.catalog.models.get(row.id)
    return ModelRecord(
        id=row.id,
        title=row.title or row.id,
        provider=row.provider,
        kind=row.kind,
        context=row.context,
        output_max=row.output_max,
        aliases=list(row.aliases),
        enabled=row.enabled,
        available=known is not None and known.available,
        prices=_said(row.prices),
        stale=pricelist.stale(row.prices),
        routes=[_said(each) or {} for each in row.routes],
        origin=origins.get(f"models.{row.id}", ""),
    )


def _said(section: Any) -> dict[str, Any] | None:
    """What a section of the settings says, without what it leaves out."""
    if section is None:
        return None
    plain = msgspec.to_builtins(section)
    return {name: value for name, value in plain.items() if value not in (None, [], "")}


def listed_plans(desk: Desk) -> Listing[PlanRecord]:
    """All plans of the settings, by name."""
    after, held = desk.query.after or "", plans.holders(desk.db)
    rest = (
        PlanRecord(
            name=name,
            title=each.title or name,
            price=str(each.price),
            quota=str(each.quota),
            days=each.days,
            discount=str(each.discount),
            requests_per_minute=each.requests_per_minute,
            member_requests_per_minute=each.member_requests_per_minute,
            input_tokens_max=each.input_tokens_max,
            calls_at_once=each.calls_at_once,
            models=list(each.models),
            holders=held.get(name, 0),
        )
        for name, each in sorted(desk.settings.plans.items())
        if name > after
    )
    return cut(rest, desk.query.limit, lambda each: each.name)


def prices(desk: Desk) -> PriceComparison:
    """Where the catalogue that comes with the relay differs from the prices in force."""
    found = pricelist.compare(desk.relay, pricelist.read())
    return PriceComparison([_change(each) for each in found.changes], found.refused)


def _change(each: pricelist.Change) -> PriceChange:
    kinds = {kind: list(both) for kind, both in each.kinds.items()}
    checked = str(each.checked) if each.checked else None
    return PriceChange(each.id, each.new, kinds, each.source, checked, each.obstacle)


def accept_prices(desk: Desk) -> PriceComparison:
    """Put prices of the catalogue into force, for calls that begin from now on; what still differs."""
    found = {each.id: each for each in pricelist.compare(desk.relay, pricelist.read()).changes}
    if unknown := [each for each in desk.body.models if each not in found]:
        refuse(f"The catalogue has no other price for {', '.join(unknown)}.", "models")
    if not desk.body.models:
        refuse("Name the models whose prices to accept.", "models")
    chosen = [found[each] for each in dict.fromkeys(desk.body.models)]
    pricelist.accept(desk.relay, chosen)
    for each in chosen:
        detail = pricelist.audit_detail(each)
        desk.db.write(audit.record, desk.by, "models.price", None, detail)
    reload(desk)
    return prices(desk)


def settings(desk: Desk) -> Listing[SettingRecord]:
    """The settings of all files together, and where each comes from. Keys are only counted."""
    after = desk.query.after or ""
    found = table.values(desk.settings, configuration.written(), configuration.origins())
    every = sorted(found, key=lambda row: row["key"])
    rest = (
        SettingRecord(row["key"], row["value"], row["from"]) for row in every if row["key"] > after
    )
    return cut(rest, desk.query.limit, lambda each: each.key)


def preview(desk: Desk) -> Preview:
    """The mistakes of the files, and what a reload would change. Nothing is changed."""
    mistakes, found, terms = jobs.preview(desk.relay)
    return Preview(mistakes, found, changes.sentence(found), terms)


def reload_settings(desk: Desk) -> Preview:
    """Read the files again. Mistakes leave the old settings in force."""
    _mistakes, found, terms = jobs.preview(desk.relay)
    mistakes = jobs.reload_now(desk.relay)
    detail = {"mistakes": len(mistakes)}
    desk.db.write(audit.record, desk.by, "settings.reload", None, detail)
    if mistakes:
        raise errors.BadRequest("; ".join(mistakes), code="settings_mistaken")
    return Preview([], found, changes.sentence(found), terms)


ADDRESSES = (
    Address("GET", "/models", models, Listing[ModelRecord], query=NamesQuery),
    Address("GET", "/models/prices", prices, PriceComparison),
    Address("POST", "/models/prices", accept_prices, PriceComparison, PricesAccepted),
    Address("GET", "/plans", listed_plans, Listing[PlanRecord], query=NamesQuery),
    Address("GET", "/settings", settings, Listing[SettingRecord], query=NamesQuery),
    Address("GET", "/settings/changes", preview, Preview),
    Address("POST", "/settings/reload", reload_settings, Preview, RequestBody),
)
