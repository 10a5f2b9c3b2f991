"""The settings: config.toml, read and checked into frozen structures.

Owns every setting's name, default and sentence. A wrong value stops the start and names its key; all mistakes are
named at once. It knows no module of ours: prices stay decimal here, the catalogue makes integers of them.
"""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

HERE = Path(__file__).parent
SHIPPED = HERE / "config.example.toml"

WIRES = ("chat", "messages", "responses", "embeddings", "completions")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
QUIRKS = frozenset({
    "developer_as_system", "reasoning_content_required", "tool_choice_auto", "temperature_one", "top_p_below_one",
    "text_content_only", "plain_without_thinking", "no_stream_options", "spark_chunks"})

_hours = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)").fullmatch
_variable = re.compile(r"\$(\w+)").fullmatch
_at = re.compile(r" - at `\$\.?(.*)`$")


class SettingsError(Exception):
    """The settings are wrong; `mistakes` names each with its key."""

    def __init__(self, mistakes: list[str]):
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class Section(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of config.toml: no key that is not known."""

    def mistakes(self) -> Iterator[str]:
        """What the types alone do not catch, as `key: sentence`."""
        return iter(())


class Site(Section):
    name: str = "PingToken"
    public_url: str = "http://127.0.0.1:8000"
    language: Literal["zh", "en"] = "zh"
    timezone: str = "Asia/Shanghai"
    currency: str = "¥"

    def mistakes(self):
        if not _is_url(self.public_url):
            yield "public_url: must be an http or https address"
        if not _is_timezone(self.timezone):
            yield "timezone: is not a time zone"


class Server(Section):
    host: str = "127.0.0.1"
    port: int = 8000
    threads: int = 128
    body_bytes_max: int = 33554432
    inflated_bytes_max: int = 33554432
    trusted_proxy: str = ""
    drain_s: float = 30
    log: Literal["plain", "json"] = "plain"
    metrics_from: tuple[str, ...] = ("127.0.0.1", "::1")

    def mistakes(self):
        if not 0 <= self.port <= 65535:
            yield "port: must be from 0 to 65535"
        if not 4 <= self.threads <= 4096:
            yield "threads: must be from 4 to 4096"
        for name in ("body_bytes_max", "inflated_bytes_max"):
            if not 1024 <= getattr(self, name) <= 1 << 30:
                yield f"{name}: must be from 1024 to {1 << 30}"
        if self.drain_s < 0:
            yield "drain_s: must not be negative"


class DatabaseFile(Section):
    path: str = "data/relay.db"


class Accounts(Section):
    registration: Literal["invite", "open", "closed"] = "invite"
    signup_reward: int = 100000
    invite_reward: int = 50000
    tokens_max: int = 20

    def mistakes(self):
        for name in ("signup_reward", "invite_reward", "tokens_max"):
            if getattr(self, name) < 0:
                yield f"{name}: must not be negative"


class Billing(Section):
    hold_output_tokens: int = 4096
    overdraft: Decimal = Decimal(0)

    def mistakes(self):
        if self.hold_output_tokens < 0:
            yield "hold_output_tokens: must not be negative"
        yield from _money("overdraft", self.overdraft)


class Limits(Section):
    storage_uri: str = "memory://"
    failures_per_minute: int = 30

    def mistakes(self):
        if self.failures_per_minute < 1:
            yield "failures_per_minute: must be at least 1"


class Failover(Section):
    attempts_max: int = 4
    total_s: float = 180

    def mistakes(self):
        if self.attempts_max < 1:
            yield "attempts_max: must be at least 1"
        if self.total_s <= 0:
            yield "total_s: must be above 0"


class Retention(Section):
    requests_days: int = 90

    def mistakes(self):
        if self.requests_days < 1:
            yield "requests_days: must be at least 1"


class Notices(Section):
    webhook: str = ""
    wallet_below: Decimal = Decimal(0)
    grant_below: int = 0

    def mistakes(self):
        if self.webhook and not _is_url(self.webhook):
            yield "webhook: must be an http or https address"
        yield from _money("wallet_below", self.wallet_below)


class Plan(Section):
    title: str = ""
    price: Decimal = Decimal(0)
    quota: Decimal = Decimal(0)
    days: int = 30
    requests_per_minute: int = 60
    input_tokens_max: int | None = None
    calls_at_once: int | None = None
    discount: Decimal = Decimal(1)

    def mistakes(self):
        yield from _money("price", self.price)
        yield from _money("quota", self.quota)
        if not 0 < self.discount <= 1:
            yield "discount: must be above 0 and at most 1"
        for name in ("days", "requests_per_minute", "input_tokens_max", "calls_at_once"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: must be at least 1"


class Upstream(Section):
    name: str
    base_url: str
    api_key: str = ""
    api_keys: tuple[str, ...] = ()
    speaks: tuple[Literal[WIRES], ...] = ("chat",)
    wire_urls: dict[Literal[WIRES], str] = {}
    connect_s: float = 10
    first_byte_s: float = 120
    idle_s: float = 120
    drain_s: float = 30
    on_disconnect: Literal["estimate", "drain", "free"] = "estimate"
    quirks: tuple[str, ...] = ()
    allow_private: bool = False
    calls_at_once: int | None = None
    answer_bytes_max: int = 67108864
    keys: tuple[str, ...] = ()             # api_key and api_keys with their variables filled in; not a setting

    @property
    def usable(self) -> bool:
        """It has a key, or it is a local server, which needs none."""
        return bool(self.keys) or self.allow_private

    def mistakes(self):
        for name, url in (("base_url", self.base_url), *((f"wire_urls.{k}", v) for k, v in self.wire_urls.items())):
            if not _is_url(url):
                yield f"{name}: must be an http or https address without user, query and fragment"
        if not self.speaks:
            yield "speaks: must name at least one wire"
        if self.api_key and self.api_keys:
            yield "api_keys: give either this or api_key"
        for name in ("connect_s", "first_byte_s", "idle_s", "answer_bytes_max"):
            if getattr(self, name) <= 0:
                yield f"{name}: must be above 0"
        yield from _quirks(self.quirks)


class Route(Section):
    upstream: str
    model: str
    priority: int = 0
    weight: int = 1
    quirks: tuple[str, ...] = ()

    def mistakes(self):
        if self.weight < 1:
            yield "weight: must be at least 1"
        yield from _quirks(self.quirks)


class Tier(Section):
    above: int
    input: Decimal
    output: Decimal
    cached: Decimal | None = None

    def mistakes(self):
        yield from _prices(self)


class Peak(Section):
    days: str
    hours: tuple[str, ...]
    input: Decimal
    output: Decimal
    cached: Decimal | None = None
    timezone: str = "Asia/Shanghai"

    def mistakes(self):
        yield from _prices(self)
        first, _, last = self.days.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            yield "days: must be like mon-fri or sat"
        for index, hours in enumerate(self.hours):
            if not _hours(hours):
                yield f"hours[{index}]: must be like 09:00-12:00"
        if not _is_timezone(self.timezone):
            yield "timezone: is not a time zone"


class Prices(Section):
    input: Decimal
    output: Decimal = Decimal(0)
    cached: Decimal | None = None
    tiers: tuple[Tier, ...] = ()
    peak: Peak | None = None

    def mistakes(self):
        yield from _prices(self)
        above = [tier.above for tier in self.tiers]
        if above != sorted(set(above)) or any(each <= 0 for each in above):
            yield "tiers: must go up, each above the one before"
        for index, tier in enumerate(self.tiers):
            yield from _within(f"tiers[{index}]", tier)
        if self.peak:
            yield from _within("peak", self.peak)


class Model(Section):
    id: str
    provider: str = ""
    title: str = ""
    kind: Literal["chat", "embeddings"] = "chat"
    context: int | None = None
    output_max: int | None = None
    enabled: bool = True
    routes: tuple[Route, ...] = ()
    prices: Prices | None = None

    def mistakes(self):
        if not self.id.strip() or not self.id.isprintable():
            yield "id: must be a name"
        for name in ("context", "output_max"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                yield f"{name}: must be at least 1"
        for index, route in enumerate(self.routes):
            yield from _within(f"routes[{index}]", route)
        if self.prices:
            yield from _within("prices", self.prices)


class Settings(Struct, frozen=True, kw_only=True):
    """All settings. Its members are the tables of config.toml."""

    site: Site
    server: Server
    database: DatabaseFile
    accounts: Accounts
    billing: Billing
    limits: Limits
    failover: Failover
    retention: Retention
    notices: Notices
    plans: dict[str, Plan]
    upstreams: tuple[Upstream, ...]
    models: tuple[Model, ...]


TABLES = {"site": Site, "server": Server, "database": DatabaseFile, "accounts": Accounts, "billing": Billing,
          "limits": Limits, "failover": Failover, "retention": Retention, "notices": Notices}
LISTS = {"upstreams": (Upstream, "name"), "models": (Model, "id")}


def load(path: str | os.PathLike | None = None, env: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. `path`, else RELAY_CONFIG, else config.toml beside this file, else the shipped defaults.

    Raises SettingsError, which names every mistake.
    """
    chosen = path or env.get("RELAY_CONFIG") or (HERE / "config.toml" if (HERE / "config.toml").exists() else None)
    shipped = _read(SHIPPED)
    given = _read(Path(chosen)) if chosen else shipped
    if "plans" not in given:
        given["plans"] = shipped["plans"]
    if "upstreams" not in given and "models" not in given:
        given |= {"upstreams": shipped["upstreams"], "models": shipped["models"]}
    return check(given, env)


def check(given: dict, env: Mapping[str, str]) -> Settings:
    """The settings of a parsed config.toml, or SettingsError with all that is wrong in it."""
    wrong = [f"{name}: is not a setting" for name in given if name not in (*TABLES, *LISTS, "plans")]
    parts: dict = {name: _section(name, given.get(name, {}), kind, wrong) for name, kind in TABLES.items()}
    plans = given.get("plans", {})
    parts["plans"] = {name: _section(f"plans.{name}", plan, Plan, wrong)
                      for name, plan in (plans.items() if isinstance(plans, dict) else ())}
    if "free" not in parts["plans"]:
        wrong.append("plans.free: must exist; it is the plan of who has no other")
    for name, (kind, key) in LISTS.items():
        parts[name] = tuple(_list(name, given.get(name, []), kind, key, wrong))
    if not wrong:
        wrong += _across(parts)
    if wrong:
        raise SettingsError(wrong)
    parts["upstreams"] = tuple(_with_keys(upstream, env) for upstream in parts["upstreams"])
    return Settings(**parts)


def _read(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise SettingsError([f"{path}: cannot be read: {err.strerror}"]) from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise SettingsError([f"{path}: {err}"]) from err


def _section(key: str, given: object, kind: type[Section], wrong: list[str]) -> Section | None:
    """One table; what is wrong in it goes to `wrong`, with its key."""
    unknown = [name for name in given if name not in kind.__struct_fields__ or name == "keys"] \
        if isinstance(given, dict) else []
    wrong += [f"{key}.{name}: is not a setting" for name in unknown]
    try:
        section = msgspec.convert({n: v for n, v in given.items() if n not in unknown} if unknown else given, kind)
    except msgspec.ValidationError as err:
        place = _at.search(str(err))
        inner = f"{key}.{place[1]}" if place and place[1] else key
        wrong.append(f"{inner.replace('.[', '[')}: {_at.sub('', str(err))}")
        return None
    wrong += [f"{key}.{mistake}" for mistake in section.mistakes()]
    return section


def _list(name: str, given: object, kind: type[Section], key: str, wrong: list[str]) -> Iterator[Section]:
    if not isinstance(given, list):
        wrong.append(f"{name}: must be a list of tables, [[{name}]]")
        return
    seen = set()
    for index, each in enumerate(given):
        own = each.get(key) if isinstance(each, dict) else None
        section = _section(f"{name}.{own}" if isinstance(own, str) else f"{name}[{index}]", each, kind, wrong)
        if section is None:
            continue
        if own in seen:
            wrong.append(f"{name}.{own}: stands there twice")
        seen.add(own)
        yield section


def _across(parts: dict) -> Iterator[str]:
    """Mistakes between tables."""
    names = {upstream.name for upstream in parts["upstreams"]}
    for model in parts["models"]:
        for index, route in enumerate(model.routes):
            if route.upstream not in names:
                yield f"models.{model.id}.routes[{index}].upstream: there is no upstream '{route.upstream}'"


def _with_keys(upstream: Upstream, env: Mapping[str, str]) -> Upstream:
    given = upstream.api_keys or (upstream.api_key,)
    filled = (env.get(match[1], "") if (match := _variable(key)) else key for key in given)
    return msgspec.structs.replace(upstream, keys=tuple(key.strip() for key in filled if key.strip()))


def _within(key: str, section: Section) -> Iterator[str]:
    return (f"{key}.{mistake}" for mistake in section.mistakes())


def _prices(prices) -> Iterator[str]:
    for name in ("input", "cached", "output"):
        price = getattr(prices, name)
        if price is not None and not (price.is_finite() and 0 <= price < 10**6 and price.as_tuple().exponent >= -3):
            yield f"{name}: must be a price per million LLM tokens with at most three decimals"


def _money(name: str, amount: Decimal) -> Iterator[str]:
    if not (amount.is_finite() and 0 <= amount < 10**9 and amount.as_tuple().exponent >= -9):
        yield f"{name}: must be an amount with at most nine decimals, not below zero"


def _quirks(names: tuple[str, ...]) -> Iterator[str]:
    for index, name in enumerate(names):
        if name not in QUIRKS:
            yield f"quirks[{index}]: '{name}' is not one of {', '.join(sorted(QUIRKS))}"


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
                and "@" not in parts.netloc and (parts.port is None or 0 < parts.port < 65536))
    except ValueError:
        return False


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True
