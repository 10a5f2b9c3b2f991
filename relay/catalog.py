"""Models, prices, routes and upstreams, from the settings: what can be asked for, and who may
answer.

Owns the making of integers of decimal prices, plans' discounts, peak windows, and the list of
targets for a model and a wire. It never changes once made: a reload makes another one. It knows no
member and opens no connection.
"""

import difflib
import functools
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from billing import KINDS, Price
from relay import errors
from relay.wires.registry import TURNED, WIRES

NANO_PER_MILLIONTH = 1000  # yuan per million LLM tokens -> nano-yuan per LLM token
SEARCHES_PRICED = 1000  # a search's price is that of a thousand, not of a million
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
OF_EMBEDDINGS = ("embeddings", "rerank")  # wires of models that do not talk
SEARCHING = ("enable_search", "search_options", "web_search_options", "plugins")
NEAR = 0.75  # how alike a name must be to one that may have been meant (difflib)
FREE = Price(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider: its base address, its keys, and the wires that it speaks."""

    name: str
    base_url: str
    keys: tuple[str, ...] = field(default=(), repr=False)  # must not end up in a log
    speaks: frozenset[str] = frozenset({"chat"})
    wire_urls: tuple[tuple[str, str], ...] = ()
    connect_s: float = 10
    first_byte_s: float = 120
    idle_s: float = 120
    drain_s: float = 30
    on_disconnect: str = "estimate"
    quirks: tuple[str, ...] = ()
    allow_private: bool = False
    calls_at_once: int | None = None
    answer_bytes_max: int = 67108864
    usable: bool = True
    proxy: str = field(default="", repr=False)  # it may hold a password

    @property
    def on_this_machine(self) -> bool:
        """Whether its address names this machine outright: whoever wrote that meant it."""
        return _is_here(self.base_url)

    def url(self, wire: str) -> str:
        """The address of a wire there."""
        return dict(self.wire_urls).get(wire) or joined(self.base_url, WIRES[wire].PATH)


@functools.lru_cache(512)
def _is_here(base_url: str) -> bool:
    return (urlsplit(base_url).hostname or "") in ("127.0.0.1", "::1", "localhost")


@functools.lru_cache(512)
def joined(base_url: str, path: str) -> str:
    """A path behind a base address; what the base asks for by a query stays behind it."""
    base, mark, query = base_url.partition("?")
    return f"{base.rstrip('/')}{path}{mark}{query}"


DEMO = Upstream(
    "demo", "demo://", speaks=frozenset({"chat", "embeddings", "rerank"}), allow_private=True
)


@dataclass(frozen=True, slots=True)
class Target:
    """One choice for a call: an upstream, the model's name there, and the wire to speak with it."""

    upstream: Upstream
    model: str
    wire: str
    quirks: tuple[str, ...] = ()
    priority: int = 0
    weight: int = 1
    output_max: int | None = None  # of the model
    prices: "PriceList | None" = None  # what the upstream bills, if that is known
    extras: frozenset[str] = frozenset()  # fields that cost extra there and may pass


@dataclass(frozen=True, slots=True)
class Peak:
    """A window in which other prices hold.

    Weekdays (Monday 0), half-open spans of minutes of a day, days without.
    """

    days: frozenset[int]
    spans: tuple[tuple[int, int], ...]
    timezone: ZoneInfo
    holidays: frozenset[date] = frozenset()

    def holds(self, at_ms: int) -> bool:
        """Whether a moment lies in the window.

        A span over midnight belongs to the day on which it begins.
        """
        moment = datetime.fromtimestamp(at_ms // 1000, self.timezone)
        minute, today = moment.hour * 60 + moment.minute, moment.date()
        for start, end in self.spans:
            begun = today if minute >= start else today - timedelta(days=1)
            inside = start <= minute < end if start < end else minute >= start or minute < end
            if inside and begun.weekday() in self.days and begun not in self.holidays:
                return True
        return False


@dataclass(frozen=True, slots=True)
class PriceList:
    """A price, and the one that holds in peak hours."""

    usual: Price
    at_peak: Price
    peak: Peak | None = None

    def at(self, at_ms: int) -> Price:
        """The price of a call that begins at this moment."""
        return self.at_peak if self.peak is not None and self.peak.holds(at_ms) else self.usual


@dataclass(frozen=True, slots=True)
class Model:
    """What members name. `prices` holds, for each plan, the price outside and inside peak hours."""

    id: str
    provider: str
    title: str
    kind: str
    context: int | None
    output_max: int | None
    available: bool
    targets: tuple[Target, ...]
    prices: dict[str, tuple[Price, Price]]
    peak: Peak | None = None
    peak_days: str = ""
    peak_hours: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    images: bool = False  # it sees pictures

    @property
    def other_names(self) -> tuple[str, ...]:
        """Its aliases as lists show them. Claude Code offers what begins with `claude` or
        `anthropic` alone, so a model may be listed as anthropic/its-id by `anthropic/*`."""
        return tuple(alias.replace("*", self.id) for alias in self.aliases)

    def price(self, plan: str, at_ms: int) -> Price:
        """The price that a plan's member pays for a call that begins at this moment."""
        usual, at_peak = self.prices.get(plan) or self.prices["free"]
        return at_peak if self.peak is not None and self.peak.holds(at_ms) else usual


class Catalog:
    """All models and upstreams of the settings, ready for use."""

    def __init__(self, settings):
        self.upstreams = {each.name: _upstream(each) for each in settings.upstreams}
        self.demo = not any(each.connected for each in settings.upstreams)
        self.models = {
            each.id: self._model(each, settings.plans)
            for each in settings.models
            if each.enabled and (each.prices is not None or self.demo)
        }

    def find(self, name: str) -> Model | None:
        """The model that answers to a name: its own id, an alias, or the alias with a * that leaves
        the least open."""
        if (model := self.models.get(name)) is not None:
            return model
        fitting = [
            ("*" not in alias, len(alias), model)
            for model in self.models.values()
            for alias in model.aliases
            if _fits(name, alias)
        ]
        return max(fitting, key=lambda each: each[:2])[2] if fitting else None

    def _near(self, name: str) -> str:
        """The id of a model that may have been meant, "" for none."""
        ids = {each.casefold(): each for each in self.models}
        close = difflib.get_close_matches(name[:200].casefold(), ids, 1, NEAR)
        return ids[close[0]] if close else ""

    def targets(self, model_id: str, wire: str) -> tuple[Model, tuple[Target, ...]]:
        """The model of that name, and who may answer a call on that wire, best first.

        Raises ModelNotFound; BadRequest if the model does something else; Unavailable if nobody can
        be asked.
        """
        model = self.find(model_id)
        if model is None:
            raise errors.ModelNotFound(model_id, self._near(model_id))
        if (model.kind == "embeddings") != (wire in OF_EMBEDDINGS):
            raise errors.BadRequest(
                f"'{model.id}' is a model for {model.kind}; it does not answer here.", param="model"
            )
        targets = tuple(
            _spoken(target, wire) for target in model.targets if _speakable(target.upstream, wire)
        )
        if not model.available or not targets:
            raise errors.Unavailable(
                f"'{model.id}' has no upstream at the moment. Its administrator has to set one.",
                code="model_unavailable",
            )
        return model, targets

    def _model(self, given, plans) -> Model:
        targets = tuple(
            sorted(self._targets(given), key=lambda target: (target.priority, -target.weight))
        )
        prices = given.prices
        peak = prices.peak if prices is not None else None
        return Model(
            id=given.id,
            provider=given.provider,
            title=given.title or given.id,
            kind=given.kind,
            context=given.context,
            output_max=given.output_max,
            available=bool(targets),
            targets=targets,
            prices={name: _plan_prices(prices, plan.discount) for name, plan in plans.items()},
            peak=_peak(peak) if peak else None,
            peak_days=peak.days if peak else "",
            peak_hours=peak.hours if peak else (),
            aliases=given.aliases,
            images=given.images,
        )

    def _targets(self, given) -> list[Target]:
        if self.demo:
            return [Target(DEMO, given.id, "chat")]
        return [
            Target(
                upstream,
                route.model,
                "chat",
                upstream.quirks + route.quirks,
                route.priority,
                route.weight,
                given.output_max,
                _price_list(route.prices or given.prices),
                _extras(route, given.prices),
            )
            for route in given.routes
            if (upstream := self.upstreams[route.upstream]).usable
        ]


def _fits(name: str, alias: str) -> bool:
    """Whether a name is the alias, its * being anything."""
    start, star, end = alias.partition("*")
    if not star:
        return name == alias
    return len(name) >= len(start) + len(end) and name.startswith(start) and name.endswith(end)


def price_of(prices, discount: Decimal = Decimal(1)) -> Price:
    """Decimal yuan per million as whole nano-yuan per LLM token, times the plan's discount, half
    up.

    Rounded once here: this is the price that is shown and charged.
    """
    kinds = {kind: getattr(prices, kind) for kind in KINDS}
    if kinds["cached"] is None:
        kinds["cached"] = kinds["input"]
    if kinds["search"] is not None:
        kinds["search"] *= SEARCHES_PRICED  # a million of them cost so many times their price
    nano = {kind: _nano(each, discount) for kind, each in kinds.items() if each is not None}
    tiers = tuple((tier.above, price_of(tier, discount)) for tier in getattr(prices, "tiers", ()))
    return Price(**{"output": 0, **nano}, tiers=tiers)


def _nano(price: Decimal, discount: Decimal) -> int:
    return int((price * NANO_PER_MILLIONTH * discount).quantize(Decimal(1), ROUND_HALF_UP))


def _plan_prices(prices, discount: Decimal) -> tuple[Price, Price]:
    if prices is None:
        return FREE, FREE
    usual = price_of(prices, discount)
    return usual, price_of(prices.peak, discount) if prices.peak else usual


def _extras(route, prices) -> frozenset[str]:
    """The fields that may pass on a route: what it allows, and searches where they are paid for."""
    searches = SEARCHING if prices is not None and prices.search is not None else ()
    return frozenset((*route.extras, *searches))


def _price_list(prices) -> PriceList | None:
    if prices is None:
        return None
    peak = prices.peak
    return PriceList(*_plan_prices(prices, Decimal(1)), _peak(peak) if peak else None)


def _peak(given) -> Peak:
    first, _, last = given.days.partition("-")
    start, end = DAYS.index(first), DAYS.index(last or first)
    days = range(start, end + 1) if start <= end else [*range(start, 7), *range(end + 1)]
    return Peak(
        frozenset(days),
        tuple(_span(hours) for hours in given.hours),
        ZoneInfo(given.timezone),
        frozenset(given.holidays),
    )


def _span(hours: str) -> tuple[int, int]:
    start, end = ([int(part) for part in clock.split(":")] for clock in hours.split("-"))
    return start[0] * 60 + start[1], end[0] * 60 + end[1]


def _upstream(given) -> Upstream:
    names = (
        "name",
        "base_url",
        "keys",
        "connect_s",
        "first_byte_s",
        "idle_s",
        "drain_s",
        "on_disconnect",
        "quirks",
        "allow_private",
        "calls_at_once",
        "answer_bytes_max",
        "usable",
        "proxy",
    )
    return Upstream(
        **{name: getattr(given, name) for name in names},
        speaks=frozenset(given.speaks),
        wire_urls=tuple(given.wire_urls.items()),
    )


def _speakable(upstream: Upstream, wire: str) -> bool:
    return wire in upstream.speaks or (wire in TURNED and "chat" in upstream.speaks)


def _spoken(target: Target, wire: str) -> Target:
    """The target with the wire to speak there: the caller's own if it can be, else chat."""
    spoken = wire if wire in target.upstream.speaks else "chat"
    return target if spoken == target.wire else replace(target, wire=spoken)
