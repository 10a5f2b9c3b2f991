"""The settings: config.toml, read and checked into frozen structures.

Owns every setting's name, default and sentence, and which quirks exist. A wrong value stops the
start; all mistakes are named at once, each with its key (`tables` reads them). Prices stay decimal
here: the catalogue makes integers of them.
"""

import functools
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta

from settings import providers
from settings.addresses import (
    NETWORKS,
    PROXY,
    QUERIED_URL,
    URL,
    is_network,
    is_proxy,
    is_queried_url,
    is_url,
)
from settings.quirks import QUIRKS
from settings.reader import Section, each_must, must, section
from settings.sign_in import SignIn

HERE = Path(__file__).resolve().parent.parent
SHIPPED = HERE / "config.example.toml"

EXTRAS = ("enable_search", "search_options", "web_search_options", "plugins", "service_tier")
WIRES = ("chat", "messages", "responses", "embeddings", "completions", "rerank")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_hours = re.compile(r"([01]\d|2[0-3]):[0-5]\d-(([01]\d|2[0-3]):[0-5]\d|24:00)", re.ASCII).fullmatch
_days = re.compile(rf"({'|'.join(DAYS)})(-({'|'.join(DAYS)}))?").fullmatch
_variable = re.compile(r"\$([A-Za-z_]\w*)", re.ASCII).fullmatch
_visible = re.compile(r"[!-~]*").fullmatch  # what a header can carry, without spaces
_period = re.compile(r"never|[1-9]\d{0,3}[mhd]", re.ASCII).fullmatch
_storage = re.compile(r"(memory|(redis|valkey)s?(\+\w+)?)://.*").fullmatch


class SettingsError(Exception):
    """The settings are wrong; `mistakes` names each with its key."""

    def __init__(self, mistakes: list[str]):
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


def _is_timezone(name: str) -> bool:
    try:
        return bool(ZoneInfo(name))
    except (ValueError, OSError, KeyError):
        return False


def _is_decimal(number: Decimal, decimals: int, below: int) -> bool:
    return number.is_finite() and 0 <= number < below and number == round(number, decimals)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isprintable() and text == text.strip()


def _is_alias(text: str) -> bool:
    return _is_name(text) and text.count("*") <= 1 and text != "*"


def _is_key(text: str) -> bool:
    return bool(_variable(text) if text.startswith("$") else _visible(text))


def _ascending(tiers) -> bool:
    above = [tier.above for tier in tiers]
    return above == sorted(set(above))


QUIRK = f"one of {', '.join(sorted(QUIRKS))}"
KEY = "a key without spaces, or $NAME for the environment variable NAME"

Natural = Annotated[int, Meta(ge=0, le=10**15)]
Count = Annotated[int, Meta(ge=1, le=10**12)]
Bytes = Annotated[int, Meta(ge=1024, le=2**31)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Name = Annotated[str, must(_is_name, "a name")]
Url = Annotated[str, must(is_queried_url, QUERIED_URL)]
TimeZone = Annotated[str, must(_is_timezone, "a time zone like Asia/Shanghai")]
Money = Annotated[
    Decimal,
    must(lambda it: _is_decimal(it, 9, 10**9), "an amount not below 0 with at most nine decimals"),
    must(
        lambda it: not _is_decimal(it, 9, 10**9) or it.as_tuple().exponent <= 0,
        "without an exponent",
    ),
]
PerMillion = Annotated[
    Decimal | None,
    must(lambda it: _is_decimal(it, 3, 10**6), "a price not below 0 with at most three decimals"),
]
Quirks = Annotated[tuple[str, ...], each_must(QUIRKS.__contains__, QUIRK)]


# The tables of the file. The text of each annotation is the setting's sentence in
# config.example.toml.


class Site(Section):
    name: Annotated[Name, "The name on every page."] = "PingToken"
    public_url: Annotated[
        str,
        must(lambda it: not it or is_url(it), URL),
        must(lambda it: not is_url(it) or urlsplit(it).path in ("", "/"), "without a path"),
        "What snippets and links show; empty: the address by which the visitor came.",
    ] = ""
    language: Annotated[Literal["zh", "en"], "zh or en; a visitor's own choice wins."] = "zh"
    timezone: Annotated[TimeZone, "Whose midnight begins a day of the usage pages."] = (
        "Asia/Shanghai"
    )
    cap_month: Annotated[
        Money | None,
        "What all members together may spend in a month; left out: no limit.",
    ] = None
    currency: Annotated[str, "The sign before amounts of money; nothing is converted."] = "¥"
    contact: Annotated[
        str,
        must(lambda it: len(it) <= 200 and it.isprintable(), "one line of at most 200 characters"),
        "Whom members ask for help: a name, an e-mail address or a link.",
    ] = ""
    hosts: Annotated[
        tuple[str, ...],
        each_must(lambda it: bool(it) and it.isascii() and "/" not in it, "a host name"),
        "Names besides public_url's by which browsers may come to the pages.",
    ] = ()


class ServerSettings(Section):
    host: Annotated[Name, "Where to listen; 0.0.0.0 for all addresses."] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535), "0 lets the system choose."] = 8000
    threads: Annotated[
        int, Meta(ge=4, le=4096), "A call holds one until its answer begins; 16 are kept for pages."
    ] = 128
    body_bytes_max: Annotated[Bytes, "The largest request body."] = 33554432
    inflated_bytes_max: Annotated[Bytes, "The most that a compressed body may inflate to."] = (
        33554432
    )
    trusted_proxy: Annotated[
        str,
        must(lambda it: it in ("", "*") or all(map(is_network, it.split(","))), NETWORKS),
        "The reverse proxy's addresses or networks, whose X-Forwarded-* is believed.",
    ] = ""
    log: Annotated[Literal["plain", "json"], "plain or json."] = "plain"
    metrics_from: Annotated[
        tuple[str, ...],
        each_must(is_network, "an IP address or network"),
        "Addresses or networks that may read /metrics.",
    ] = ("127.0.0.1", "::1")
    answer_s_max: Annotated[
        Seconds,
        "The longest that one answer may take; then it ends with an error, and what came is charged.",
    ] = 3600
    drain_s: Annotated[
        float, Meta(ge=0, le=3600), "How long open calls may run on after a stop is asked for."
    ] = 30


class DatabaseFile(Section):
    path: Annotated[
        Name, "The one file that holds everything; relative to the folder of app.py."
    ] = "data/relay.db"


class Accounts(Section):
    registration: Annotated[
        Literal["invite", "open", "closed"], "Who may register: invite, open or closed."
    ] = "invite"
    signup_reward: Annotated[Natural, "LLM tokens into the grant pocket of a new member."] = 100000
    invite_reward: Annotated[
        Natural, "LLM tokens for who invited, after the invited one's first call paid in money."
    ] = 50000
    tokens_max: Annotated[Count, "API tokens that a member may hold."] = 20
    invites_from: Annotated[
        Literal["members", "admins"], "Whose invites count: members or admins."
    ] = "members"


class Billing(Section):
    hold_output_tokens: Annotated[
        Natural, "Output set aside: min(max_tokens, the model's limit, this)."
    ] = 4096
    overdraft: Annotated[Money, "How far below zero a wallet may be when a call is admitted."] = (
        Decimal(0)
    )


class Limits(Section):
    storage_uri: Annotated[
        str,
        must(_storage, "memory://, or the address of a Redis or Valkey"),
        "Where counters live: memory://, redis://... or valkey://...",
    ] = "memory://"
    failures_per_minute: Annotated[Count, "Attempts with bad tokens from one address."] = 30


class Failover(Section):
    attempts_max: Annotated[Count, "Targets that are tried for one call."] = 4
    total_s: Annotated[Seconds, "No further target is tried after so long."] = 180
    wait_s: Annotated[
        Annotated[float, Meta(ge=0, le=60)],
        "A pause of all targets that ends so soon is waited out; 0: none is.",
    ] = 10


class BackupSettings(Section):
    folder: Annotated[Name, "Where they are kept; a relative one is beside the database."] = (
        "backups"
    )
    every: Annotated[
        str, must(_period, 'like "12h" or "1d", or "never"'), "How often one is made."
    ] = "1d"
    keep: Annotated[Count, "How many are kept; the oldest go."] = 14


class Retention(Section):
    requests_days: Annotated[Count, "How long single calls are kept; sums and the ledger stay."] = (
        90
    )


class Hook(Section, kw_only=True):
    url: Annotated[str, must(is_queried_url, QUERIED_URL), "Where notices are posted."]
    form: Annotated[
        Literal["auto", "feishu", "dingtalk", "wecom", "slack", "json"],
        "What the tool takes; auto: by its address, JSON for one that is not known.",
    ] = "auto"
    secret: Annotated[str, "The secret of a Feishu or DingTalk robot that wants a signature."] = ""
    authorization: Annotated[
        str,
        must(lambda it: it.isascii() and it.isprintable(), "what a header can carry"),
        "The Authorization header, for one of your own.",
    ] = ""
    level: Annotated[
        Literal["info", "warning", "error"], "It hears of this and of what is worse."
    ] = "info"

    def __repr__(self) -> str:
        return f"Hook({urlsplit(self.url).hostname!r})"  # the address of a robot is its key


class NoticeSettings(Section):
    webhook: Annotated[
        str,
        must(lambda it: not it or is_queried_url(it), QUERIED_URL),
        "Where notices are posted: a robot of Feishu, DingTalk, WeCom, Slack, or as JSON.",
    ] = ""
    hooks: Annotated[tuple[Hook, ...], "More of them, each with what it hears."] = ()
    wallet_below: Annotated[Money, "A notice when a wallet falls below this; 0: none."] = Decimal(0)
    grant_below: Annotated[
        Natural, "A notice when a grant falls below so many LLM tokens; 0: none."
    ] = 0


class Plan(Section):
    title: Annotated[str, "The name that members see."] = ""
    price: Annotated[
        Money, "What it costs, from the wallet; 0: only an administrator gives it."
    ] = Decimal(0)
    quota: Annotated[Money, "What it puts into the quota pocket."] = Decimal(0)
    days: Annotated[int, Meta(ge=1, le=3660), "How long it lasts."] = 30
    requests_per_minute: Annotated[Count, "For each API token."] = 60
    member_requests_per_minute: Annotated[
        Count | None, "For all tokens of a member; left out: three times the rate."
    ] = None
    input_tokens_max: Annotated[Count | None, "The longest input; left out: no limit."] = None
    models: Annotated[tuple[str, ...], "Only these models; left out: all."] = ()
    calls_at_once: Annotated[
        Count | None, "Calls that a member may have open; left out: three quarters of all."
    ] = None
    discount: Annotated[
        Decimal,
        must(lambda it: it.is_finite() and 0 < it <= 1, "above 0 and at most 1"),
        "The list price is multiplied with this.",
    ] = Decimal(1)


class UpstreamSettings(Section, kw_only=True):
    name: Annotated[Name, "What routes call it."]
    base_url: Annotated[
        Url,
        "To this the wire's path is added: /chat/completions, /messages, /responses, /embeddings.",
    ]
    api_key: Annotated[
        str, must(_is_key, KEY), "The key, or $NAME for the environment variable NAME."
    ] = ""
    api_keys: Annotated[
        tuple[str, ...], each_must(_is_key, KEY), "Instead of api_key: several, used in turn."
    ] = ()
    api_key_file: Annotated[
        str, "Instead of api_key: the file that holds it; without a slash a systemd credential."
    ] = ""
    enabled: Annotated[bool, "false: it is asked nothing."] = True
    speaks: Annotated[
        tuple[Literal[WIRES], ...],
        Meta(min_length=1),
        "The wires it speaks: chat, messages, responses, embeddings, completions, rerank.",
    ] = ("chat",)
    wire_urls: Annotated[
        dict[Literal[WIRES], str],
        each_must(is_queried_url, QUERIED_URL),
        "Whole addresses of wires that live elsewhere.",
    ] = {}
    connect_s: Annotated[Seconds, "How long connecting may take."] = 10
    first_byte_s: Annotated[Seconds, "How long it may be silent before it answers."] = 120
    idle_s: Annotated[Seconds, "How long it may be silent in mid-stream."] = 120
    drain_s: Annotated[Seconds, "How long a drain may last (see on_disconnect)."] = 30
    on_disconnect: Annotated[
        Literal["estimate", "drain", "free"],
        "Who left pays an estimate, the exact usage (drain), or nothing (free).",
    ] = "estimate"
    quirks: Annotated[
        Quirks, "Changes that this provider wants in requests; the list is below."
    ] = ()
    allow_private: Annotated[
        bool, "The address may be of a private network; no key is needed then."
    ] = False
    calls_at_once: Annotated[Count | None, "The most open calls; left out: no limit."] = None
    proxy: Annotated[
        str,
        must(is_proxy, PROXY),
        "A proxy on the way to it: http:// (by CONNECT) or socks5://, user:password@ if it wants one.",
    ] = ""
    answer_bytes_max: Annotated[Bytes, "An answer that is longer is cut off."] = 67108864
    keys: tuple[str, ...] = ()  # not a setting: those of the keys above that there are, filled in

    def __repr__(self) -> str:
        return f"UpstreamSettings({self.name!r})"  # a key must not end up in a log

    @property
    def usable(self) -> bool:
        """It may be asked: it has a key, or is a local server, which needs none."""
        return self.enabled and self.connected

    @property
    def connected(self) -> bool:
        """It could be asked, were it switched on. One that is ends the demo."""
        return bool(self.keys) or self.allow_private

    def mistakes(self):
        if self.name == "demo":
            yield "name", "is taken by the built-in demo"
        if self.api_key and self.api_keys:
            yield "api_keys", "give either api_key or api_keys"
        if self.api_key_file and (self.api_key or self.api_keys):
            yield "api_key_file", "give either a key or the file that holds it"
        for wire in self.wire_urls:
            if wire not in self.speaks:
                yield f"wire_urls.{wire}", f"{wire} is not among what it speaks"


class Tier(Section, kw_only=True):
    above: Annotated[
        Count, "The whole call has this price if its input is longer than so many LLM tokens."
    ]
    input: PerMillion
    cached: PerMillion = None
    cache_read: PerMillion = None
    cache_write: PerMillion = None
    cache_write_1h: PerMillion = None
    output: PerMillion
    search: PerMillion = None


class PeakSettings(Section, kw_only=True):
    days: Annotated[str, must(_days, "like mon-fri or sat"), "One day, or from one to another."]
    hours: Annotated[
        tuple[str, ...],
        Meta(min_length=1),
        each_must(lambda it: _hours(it) and it[:5] != it[6:], "like 09:00-12:00"),
        "Ends do not belong to it; 22:00-06:00 goes over midnight.",
    ]
    timezone: Annotated[TimeZone, "Whose days and hours these are."] = "Asia/Shanghai"
    holidays: Annotated[tuple[date, ...], "Days without a peak, like 2027-01-01."] = ()
    input: PerMillion
    cached: PerMillion = None
    cache_read: PerMillion = None
    cache_write: PerMillion = None
    cache_write_1h: PerMillion = None
    output: PerMillion
    search: PerMillion = None


class Prices(Section):
    input: Annotated[PerMillion, "Input that no cache held."]
    cached: Annotated[PerMillion, "Input from the provider's cache; left out: as input."] = None
    cache_read: Annotated[PerMillion, "Hits of an explicit cache; left out: as cached."] = None
    cache_write: Annotated[
        PerMillion, "Input put into a cache for 5 minutes; left out: as input."
    ] = None
    cache_write_1h: Annotated[PerMillion, "The same for an hour; left out: as cache_write."] = None
    output: Annotated[PerMillion, "Output, reasoning included; embeddings have none."] = None
    search: Annotated[
        PerMillion, "A thousand searches that the provider makes; left out: none."
    ] = None
    source: Annotated[str, "Where the prices come from."] = ""
    checked: Annotated[
        date | None, "When they were compared with that; after 60 days pages mark them."
    ] = None
    tiers: Annotated[
        tuple[Tier, ...], must(_ascending, "ascending"), "Other prices for long inputs."
    ] = ()
    peak: Annotated[
        PeakSettings | None,
        "Other prices at certain hours; the hour at which a call begins counts.",
    ] = None


class Route(Section):
    upstream: Annotated[Name, "The name of an upstream."]
    model: Annotated[Name, "What the model is called there."]
    priority: Annotated[Natural, "Lower ones are tried first."] = 0
    weight: Annotated[Count, "The share of calls among routes of equal priority."] = 1
    quirks: Annotated[Quirks, "Added to those of the upstream."] = ()
    extras: Annotated[
        tuple[Literal[EXTRAS], ...],
        "Fields that cost extra there and may pass; a price of searches lets those for searching pass.",
    ] = ()
    prices: Annotated[
        Prices | None, "What this upstream bills for it; left out: the model's prices."
    ] = None


class ModelSettings(Section):
    id: Annotated[Name, "What members call it."]
    provider: Annotated[str, "Whose it is, as pages show it."] = ""
    title: Annotated[str, "Its name on pages; left out: the id."] = ""
    aliases: Annotated[
        tuple[str, ...],
        each_must(_is_alias, "a name, with one * at most"),
        "Other names that it answers to; * stands for anything, and in lists for the id.",
    ] = ()
    kind: Annotated[Literal["chat", "embeddings"], "chat or embeddings."] = "chat"
    context: Annotated[
        Count | None, "The longest input and output together; left out: not checked."
    ] = None
    output_max: Annotated[Count | None, "The longest output; left out: not known."] = None
    images: Annotated[bool, "It sees pictures: pages say so, and the model test takes some."] = (
        False
    )
    enabled: Annotated[bool, "false: it is not listed and cannot be called."] = True
    routes: Annotated[tuple[Route, ...], "Who serves it."] = ()
    prices: Annotated[
        Prices | None, "Per million LLM tokens; without any the model is switched off."
    ] = None

    def mistakes(self):
        if self.kind == "chat" and self.prices and self.prices.output is None:
            yield "prices.output", "is missing"


class Settings(Section):
    """All settings."""

    site: Site = Site()
    server: ServerSettings = ServerSettings()
    database: DatabaseFile = DatabaseFile()
    accounts: Accounts = Accounts()
    sign_in: SignIn = SignIn()
    billing: Billing = Billing()
    limits: Limits = Limits()
    failover: Failover = Failover()
    backups: BackupSettings = BackupSettings()
    retention: Retention = Retention()
    notices: NoticeSettings = NoticeSettings()
    plans: dict[str, Plan] = {}
    upstreams: tuple[UpstreamSettings, ...] = ()
    models: tuple[ModelSettings, ...] = ()

    def mistakes(self):
        if "free" not in self.plans:
            yield "plans.free", "must exist: it is the plan of who has no other"
        for name in self.plans:
            if not re.fullmatch(r"[\w-]{1,40}", name):
                yield f"plans.{name}", "a plan's name has letters, digits, - and _ only"
        yield from self.sign_in.misfits(self.plans, self.server.trusted_proxy)


def load(path: str | os.PathLike | None = None, env: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. `path`, else RELAY_CONFIG, else config.toml beside this file, with
    providers.toml below it; else the shipped defaults.

    Raises SettingsError, which names every mistake.
    """
    above = written(path, env)
    try:
        return together(above, providers.read(providers.path_beside(database_path(above))), env)
    except providers.ProvidersError as err:
        raise SettingsError([str(err)]) from err


def written(path: str | os.PathLike | None = None, env: Mapping[str, str] = os.environ) -> dict:
    """What the config.toml in force says, unchecked. Raises SettingsError."""
    beside = HERE / "config.toml"
    chosen = path or env.get("RELAY_CONFIG") or (beside if beside.exists() else None)
    return _read(Path(chosen)) if chosen else {}


def together(above: dict, kept: dict, env: Mapping[str, str] = os.environ) -> Settings:
    """The settings of config.toml, of providers.toml, and of the shipped file where they are
    silent. Raises SettingsError."""
    given, _ = providers.merged(above, kept, _read(SHIPPED), env)
    return check(given, env)


def origins(
    path: str | os.PathLike | None = None, env: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The file from which each upstream, model and plan comes: {"upstreams.deepseek":
    "providers.toml"}. Raises SettingsError."""
    above = written(path, env)
    try:
        kept = providers.read(providers.path_beside(database_path(above)))
    except providers.ProvidersError as err:
        raise SettingsError([str(err)]) from err
    return providers.merged(above, kept, _read(SHIPPED), env)[1]


def variables(settings: Settings) -> set[str]:
    """The environment variables that hold keys of upstreams, set or not."""
    given = (key for each in settings.upstreams for key in (each.api_key, *each.api_keys))
    return {found[1] for key in given if (found := _variable(key))}


def database_path(above: dict) -> Path:
    """The database of a config.toml that is not checked yet."""
    section_ = above.get("database")
    given = section_.get("path") if isinstance(section_, dict) else None
    return HERE / (given if isinstance(given, str) else DatabaseFile().path)


def check(given: dict, env: Mapping[str, str]) -> Settings:
    """The settings of a parsed config.toml, or SettingsError with all that is wrong in it."""
    wrong: list[str] = []
    settings = section(Settings, given, "", wrong)
    wrong += _across(given, settings)
    keys = [list(_keys(upstream, env, wrong)) for upstream in settings.upstreams]
    read = functools.partial(providers.secret, settings.sign_in.client_secret, env)
    secret = tuple(_secret(read, "sign_in.client_secret", wrong))
    if wrong:
        raise SettingsError(wrong)
    replace = msgspec.structs.replace
    file = os.path.realpath(
        HERE / settings.database.path
    )  # one file has one lock, whichever links lead to it
    return replace(
        settings,
        database=DatabaseFile(path=file),
        sign_in=replace(settings.sign_in, keys=secret),
        upstreams=tuple(
            replace(each, keys=tuple(own))
            for each, own in zip(settings.upstreams, keys, strict=True)
        ),
    )


def _read(path: Path) -> dict:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except OSError as err:
        raise SettingsError([f"{path}: cannot be read: {err.strerror}"]) from err
    except ValueError as err:
        raise SettingsError([f"{path}: {err}"]) from err


def _across(given: dict, settings: Settings) -> Iterator[str]:
    """Mistakes between tables.

    Names are taken from what was given, so that one mistake does not make others.
    """
    tables = {
        name: [each for each in given.get(name, ()) if isinstance(each, dict)]
        if isinstance(given.get(name), list)
        else []
        for name in ("upstreams", "models")
    }
    for table, key in (("upstreams", "name"), ("models", "id")):
        names = [each[key] for each in tables[table] if isinstance(each.get(key), str)]
        yield from (
            f"{table}.{name}: stands there twice"
            for name in dict.fromkeys(names)
            if names.count(name) > 1
        )
    upstreams = [each.get("name") for each in tables["upstreams"]]
    named = {model.id: model.id for model in settings.models}
    for model in settings.models:
        for alias in model.aliases:
            if named.setdefault(alias, model.id) != model.id:
                yield f"models.{model.id}.aliases: '{alias}' is a name of {named[alias]} already"
        for index, route in enumerate(model.routes):
            if route.upstream not in upstreams:
                yield f"models.{model.id}.routes[{index}].upstream: there is no upstream '{route.upstream}'"


def _keys(upstream: UpstreamSettings, env: Mapping[str, str], wrong: list[str]) -> Iterator[str]:
    """The keys there are, with variables and files filled in; what is unset or empty is no key."""
    where = f"upstreams.{upstream.name}.api_key"
    if upstream.api_key_file:
        yield from _secret(
            lambda: providers.secret_file(upstream.api_key_file, env), f"{where}_file", wrong
        )
        return
    for given in upstream.api_keys or (upstream.api_key,):
        variable = _variable(given)
        if variable:
            read = functools.partial(providers.secret, given, env)
            yield from _secret(read, f"{where}: the variable {variable[1]}", wrong)
        elif given:
            yield given


def _secret(read: Callable[[], str], where: str, wrong: list[str]) -> Iterator[str]:
    """The key that `read` finds, if it finds any that can be sent."""
    try:
        key = read()
    except providers.ProvidersError as err:
        wrong.append(f"{where}: {err}")
        return
    if not _visible(key):
        wrong.append(f"{where} cannot be sent in a header")
    elif key:
        yield key
