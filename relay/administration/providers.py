"""Providers: how they are, connected, tried, changed, removed, and what they bill."""

import io
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from flask import Response

import billing
from members import audit
from relay import bill, connect, probe
from relay.administration.shape import (
    PAGE,
    Address,
    Desk,
    Limit,
    Listing,
    RequestBody,
    cut,
    missing,
    refuse,
    when,
)
from relay.upstream import discovery
from server import jobs

QUESTION_LENGTH_MAX = 2000


class NamesQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A list in the order of names."""

    limit: Limit = PAGE
    after: str | None = None


class TestedRecord(msgspec.Struct):
    """What the last test found: "ok" or the code of an error."""

    at: str | None
    code: str
    words: str
    model: str


class UpstreamRecord(msgspec.Struct):
    """A provider. Its state is ok, busy, refused, failing, or keyless: then it is never asked. Keys
    are only counted. `from`: the file that has it."""

    name: str
    base_url: str
    origin: str = msgspec.field(name="from")
    enabled: bool
    speaks: list[str]
    models: list[str]
    state: str
    keys: int
    keys_usable: int
    calls: int
    failed: int
    latency_ms: int
    resting: list[str]
    rests_s: float
    last_error: str | None
    last_error_at: str | None
    last_words: str | None
    tested: TestedRecord | None


class PresetRecord(msgspec.Struct):
    """A provider of the catalogue. `terms`: what its terms allow, where that is little."""

    preset: str
    title: str
    base_url: str
    models: list[str]
    terms: str


class Trial(msgspec.Struct):
    """One tiny real call: why it failed in a word of ours and in the provider's."""

    ok: bool
    model: str
    ms: int | None
    code: str | None
    status: int | None
    problem: str
    words: str


class OfferRecord(msgspec.Struct):
    """A model that may be kept: by its name there and its id here. `known`: its price is the
    catalogue's."""

    name: str
    id: str
    known: bool
    prices: dict[str, Any]


class Look(RequestBody):
    """A provider of the catalogue (`preset`) or any address that speaks chat. `private`: the address
    may be of a private network."""

    preset: str | None = None
    base_url: str = ""
    name: str = ""
    key: str = ""
    private: bool = False


class NewUpstream(Look):
    """`models`: only these; prices are yuan a million LLM tokens. `force`: keep it though the test
    fails."""

    models: list[str] = []
    input: str | None = None
    output: str | None = None
    force: bool = False


class LookRecord(msgspec.Struct):
    """What came of looking at a provider."""

    name: str
    base_url: str
    trial: Trial
    offers: list[OfferRecord]


class Connected(msgspec.Struct):
    """What is kept. `without_price`: members pay nothing for these; `in_config_toml`: that file has
    them itself, and wins."""

    name: str
    base_url: str
    models: list[str]
    trial: Trial
    without_price: list[str]
    in_config_toml: list[str]


class UpstreamChange(RequestBody):
    """Switch it off or on, another address; what is left out stays."""

    enabled: bool | None = None
    base_url: str | None = None


class NewKey(RequestBody):
    """`force`: take it although the provider does not."""

    key: Annotated[str, msgspec.Meta(min_length=1)]
    force: bool = False


class TrialAsked(RequestBody):
    """For this model; else for the first."""

    model: str | None = None


class Question(TrialAsked):
    """What to ask; else a greeting."""

    question: Annotated[str, msgspec.Meta(max_length=QUESTION_LENGTH_MAX)] = "Hello!"


class Removed(msgspec.Struct):
    """A provider, and the models that went with it, for nobody else serves them."""

    name: str
    models: list[str]


class BillQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The month, like 2026-11; left out: this one."""

    month: str | None = None


class InvoiceQuery(BillQuery):
    """And what the invoice calls its columns; what may differ, in yuan."""

    day_column: str | None = None
    model_column: str | None = None
    kind_column: str | None = None
    amount_column: str | None = None
    tolerance: str = str(bill.TOLERANCE)


class BillRecord(msgspec.Struct, omit_defaults=True):
    """A provider's month, as `flask bill --json` says it. `differences`: where an invoice says
    something else."""

    upstream: str
    month: str
    complete: bool
    calls: int
    calls_without_cost: int
    calls_with_note: int
    upstream_cost: str
    charged: str
    difference: str
    lines: list[dict[str, Any]]
    unpaid: list[dict[str, Any]]
    failed_attempts: list[dict[str, Any]]
    differences: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET


# ---- read


def upstreams(desk: Desk) -> Listing[UpstreamRecord]:
    """All providers, by name: how they are, and what they serve."""
    after, origins = desk.query.after or "", connect.origins()
    tested = connect.tested(desk.relay)
    known = {each.name: each for each in desk.settings.upstreams}
    report = sorted(desk.relay.upstream_report(), key=lambda each: each["name"])
    rest = (
        _record(desk, each, known[each["name"]], origins, tested)
        for each in report
        if each["name"] > after
    )
    return cut(rest, desk.query.limit, lambda each: each.name)


def upstream(desk: Desk, name: str) -> UpstreamRecord:
    """One provider."""
    return next((each for each in _all(desk) if each.name == name), None) or _missing()


def _all(desk: Desk) -> Iterator[UpstreamRecord]:
    origins, tested = connect.origins(), connect.tested(desk.relay)
    known = {each.name: each for each in desk.settings.upstreams}
    for each in desk.relay.upstream_report():
        yield _record(desk, each, known[each["name"]], origins, tested)


def _missing() -> Any:
    raise missing("upstream")


def _record(desk: Desk, seen: dict, row: Any, origins: dict, tested: dict) -> UpstreamRecord:
    models = [
        model.id
        for model in desk.settings.models
        if any(route.upstream == row.name for route in model.routes)
    ]
    test = tested.get(row.name)
    return UpstreamRecord(
        base_url=row.base_url,
        origin=origins.get(f"upstreams.{row.name}", ""),
        enabled=row.enabled,
        speaks=sorted(row.speaks),
        models=models,
        tested=test and TestedRecord(when(test["at"]), test["code"], test["words"], test["model"]),
        **(seen | {"last_error_at": when(seen["last_error_at"])}),
    )


def presets(desk: Desk) -> Listing[PresetRecord]:
    """The providers of the catalogue, by name."""
    after = desk.query.after or ""
    rest = (
        PresetRecord(
            each.name,
            each.title,
            each.row["base_url"],
            [model["id"] for model in each.models],
            connect.EXPLAINED_TERMS.get(each.terms, ""),
        )
        for name, each in sorted(connect.presets().items())
        if name > after
    )
    return cut(rest, desk.query.limit, lambda each: each.preset)


# ---- connect


def _look(body: Look) -> tuple[connect.Findings, str]:
    known = connect.presets().get(body.preset or "")
    if body.preset and known is None:
        refuse(f"There is no preset {body.preset!r}.", "preset")
    if known is None and not body.base_url:
        refuse("Give 'preset' or 'base_url'.", "preset")
    row = connect.row_for(known, body.name, body.base_url, body.private)
    if not body.key and not row.get("allow_private"):
        refuse("Give the provider's key.", "key")
    return connect.look(row, body.key, known), body.key


def _trial(found: connect.Findings) -> Trial:
    outcome = found.outcome
    return Trial(
        found.ok,
        found.asked,
        outcome.ms if outcome else None,
        outcome.code if outcome else None,
        found.status,
        found.problem,
        found.words,
    )


def look(desk: Desk) -> LookRecord:
    """Look at a provider: what it offers, and whether it answers. Nothing is kept."""
    found, _key = _look(desk.body)
    _note(desk, "upstream.test", found.row["name"], outcome=found.problem or "ok")
    offers = [
        OfferRecord(each.name, each.row["id"], each.known, _plain(each.row.get("prices") or {}))
        for each in found.offers
    ]
    return LookRecord(found.row["name"], found.row["base_url"], _trial(found), offers)


def _plain(prices: dict) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(prices, builtin_types=())
    return found


def add_upstream(desk: Desk) -> Connected:
    """Connect a provider; it is in force at once."""
    body = desk.body
    found, key = _look(body)
    if not found.ok and not body.force:
        raise connect.ConnectError(f"nothing is kept: {connect.explained(found)}")
    chosen = connect.choose(found.offers, body.models, body.input, body.output)
    left_out = connect.keep(desk.relay, found.row, key, chosen, found.outcome)
    _note(desk, "upstream.add", found.row["name"], count=len(chosen))
    reload(desk)
    return Connected(
        found.row["name"],
        found.row["base_url"],
        [model["id"] for _, model in chosen],
        _trial(found),
        connect.without_price(found.row, chosen),
        left_out,
    )


def _note(desk: Desk, action: str, name: str, **detail: Any) -> None:
    said = {"upstream": name, **detail}
    desk.db.write(lambda conn: audit.record(conn, desk.by, action, None, said))


def reload(desk: Desk) -> None:
    """Put what the files say into force. Raises ConnectError with their mistakes."""
    if mistakes := jobs.reload_now(desk.relay):
        raise connect.ConnectError("; ".join(mistakes))


# ---- one that is connected


def change_upstream(desk: Desk, name: str) -> UpstreamRecord:
    """Switch a connected provider off or on, or give it another address."""
    upstream(desk, name)
    asked = desk.body
    if asked.base_url is not None:
        connect.edit_row(desk.relay, name, base_url=discovery.address(asked.base_url))
        _note(desk, "upstream.edit", name)
    if asked.enabled is not None:
        connect.edit_row(desk.relay, name, enabled=asked.enabled)
        _note(desk, "upstream.enable" if asked.enabled else "upstream.disable", name)
    reload(desk)
    return upstream(desk, name)


def put_key(desk: Desk, name: str) -> UpstreamRecord:
    """Give a connected provider another key, if the provider takes it."""
    upstream(desk, name)
    connect.rotate(desk.relay, name, desk.body.key, desk.body.force)
    _note(desk, "upstream.key", name)
    reload(desk)
    return upstream(desk, name)


def remove_upstream(desk: Desk, name: str) -> Removed:
    """Take a connected provider out, with the models that nobody else serves."""
    upstream(desk, name)
    gone = connect.remove(desk.relay, name)
    _note(desk, "upstream.remove", name)
    reload(desk)
    return Removed(name, gone)


def test_upstream(desk: Desk, name: str) -> Listing[Trial]:
    """One tiny real call with each key of a provider."""
    upstream(desk, name)
    found = connect.try_out(desk.relay, name, desk.body.model)
    codes = [each.outcome.code for each in found if each.outcome]
    _note(desk, "upstream.test", name, model=found[0].asked, outcome=codes)
    return Listing([_trial(each) for each in found], None)


def ask_upstream(desk: Desk, name: str) -> Response:
    """A real answer from a provider, as plain text while it comes. No member pays for it."""
    upstream(desk, name)
    served = [each for each in connect.served_by(desk.relay, name) if each[0].kind == "chat"]
    wanted = [each for each in served if desk.body.model in (None, each[0].id)]
    if not wanted or "chat" not in wanted[0][1].upstream.speaks:
        refuse(f"{name} serves no such model for chat.", "model")
    model, target = wanted[0]
    _note(desk, "upstream.test", name, model=model.id)
    key = target.upstream.keys[0] if target.upstream.keys else ""
    words = probe.stream(target, key, desk.body.question)
    response = Response(words, content_type="text/plain; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    return response


# ---- bills


def month_bill(desk: Desk, name: str) -> BillRecord:
    """What a provider bills for a month, by day, model and kind, and what was charged for it."""
    return BillRecord(**bill.document(_bill(desk, name)))


def compare_bill(desk: Desk, name: str) -> BillRecord:
    """The same, held against the provider's invoice: the body, as CSV."""
    asked, found = desk.query, _bill(desk, name)
    named = {
        part: column
        for part in ("day", "model", "kind", "amount")
        if (column := getattr(asked, f"{part}_column"))
    }
    try:
        tolerance = Decimal(billing.nano(asked.tolerance)) / billing.NANO
        invoice = io.StringIO(desk.body.decode(bill.BOM))
    except ValueError as err:
        refuse(f"The invoice or the tolerance cannot be read: {err}.", "tolerance")
    theirs = bill.invoice(invoice, named, {})
    return BillRecord(**bill.document(found, bill.differences(found, theirs, tolerance)))


def _bill(desk: Desk, name: str) -> bill.Bill:
    if name not in desk.relay.catalog.upstreams and not bill.has_answered(desk.db, name):
        raise missing("upstream")
    timezone = desk.settings.site.timezone
    month = desk.query.month or bill.this_month(timezone)
    try:
        bill.bounds(month, timezone)
    except ValueError:
        refuse(f"{month!r} is no month: write it like 2026-11.", "month")
    return bill.of(desk.db, desk.relay.catalog, name, month, timezone)


ONE = "/upstreams/<name>"
ADDRESSES = (
    Address("GET", "/upstreams", upstreams, Listing[UpstreamRecord], query=NamesQuery),
    Address("GET", "/presets", presets, Listing[PresetRecord], query=NamesQuery),
    Address("POST", "/presets/look", look, LookRecord, Look),
    Address("POST", "/upstreams", add_upstream, Connected, NewUpstream, status=201),
    Address("GET", ONE, upstream, UpstreamRecord),
    Address("PATCH", ONE, change_upstream, UpstreamRecord, UpstreamChange),
    Address("PUT", f"{ONE}/key", put_key, UpstreamRecord, NewKey),
    Address("DELETE", ONE, remove_upstream, Removed),
    Address("POST", f"{ONE}/test", test_upstream, Listing[Trial], TrialAsked),
    Address("POST", f"{ONE}/ask", ask_upstream, str, Question, media="text/plain"),
    Address("GET", f"{ONE}/bill", month_bill, BillRecord, query=BillQuery),
    Address("POST", f"{ONE}/bill", compare_bill, BillRecord, bytes, InvoiceQuery),
)
