"""Connect a provider: what is known of it, is it there, what does it serve, and keep it.

Owns the steps that the console and `flask upstream` share. What is kept goes to providers.toml; a
change is written only if all settings together stay right. A key is handed in and kept there, and
is in no sentence that leaves this module.
"""

import time
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import settings as configuration
from db import meta
from relay import probe
from relay.catalog import OF_EMBEDDINGS, Catalog, Target
from relay.upstream import discovery
from relay.upstream.discovery import Listed, NotListed
from settings import SettingsError, providers

TRIED_MAX = 3  # models that a test asks before it gives up: an account has not all that are listed
TEAM_REQUESTS_PER_MINUTE = 600  # an agent with helpers of its own asks often
MODELS_MAX = 30  # so many are connected unasked; of more, the wanted ones must be named
FREE = {"input": "0", "output": "0"}
LOCAL = {  # servers of one's own: they need no key, and their models cost nothing
    "ollama": ("Ollama", "http://127.0.0.1:11434/v1"),
    "vllm": ("vLLM", "http://127.0.0.1:8000/v1"),
    "lmstudio": ("LM Studio", "http://127.0.0.1:1234/v1"),
}
TITLES = {
    "dashscope": "Alibaba Cloud Model Studio (百炼)",
    "deepseek": "DeepSeek",
    "qianfan": "Baidu Qianfan (百度千帆)",
    "moonshot": "Moonshot (Kimi)",
    "zhipu": "Zhipu (智谱 BigModel)",
    "ark": "Volcengine Ark (火山方舟)",
    "spark": "iFLYTEK Spark (讯飞星火)",
}
OTHERS = {  # the name, the address, where it speaks messages
    "minimax": ("MiniMax", "https://api.minimaxi.com/v1", "https://api.minimaxi.com/anthropic"),
    "mimo": (
        "Xiaomi MiMo",
        "https://api.xiaomimimo.com/v1",
        "https://api.xiaomimimo.com/anthropic",
    ),
    "tokenhub": ("Tencent TokenHub", "https://tokenhub.tencentmaas.com/v1", ""),
    "stepfun": ("StepFun (阶跃星辰)", "https://api.stepfun.com/v1", ""),
    "siliconflow": ("SiliconFlow (硅基流动)", "https://api.siliconflow.cn/v1", ""),
    "longcat": ("LongCat", "https://api.longcat.chat/openai/v1", ""),
    "modelscope": ("ModelScope (魔搭)", "https://api-inference.modelscope.cn/v1", ""),
    "openrouter": ("OpenRouter", "https://openrouter.ai/api/v1", ""),
    "glm-coding": (
        "GLM Coding Plan (智谱编程套餐)",
        "https://open.bigmodel.cn/api/coding/paas/v4",
        "https://open.bigmodel.cn/api/anthropic",
    ),
    "kimi-coding": ("Kimi Coding Plan (Kimi 编程套餐)", "https://api.kimi.com/coding/v1", ""),
    "bailian-coding": (
        "Bailian Coding Plan (百炼编程套餐)",
        "https://coding.dashscope.aliyuncs.com/v1",
        "https://coding.dashscope.aliyuncs.com/apps/anthropic",
    ),
    "bailian-team": (
        "Bailian Team Token Plan (百炼团队套餐)",
        "https://token-plan.cn-beijing.maas.aliyuncs.com/compatible-mode/v1",
        "https://token-plan.cn-beijing.maas.aliyuncs.com/apps/anthropic",
    ),
    "mimo-plan": ("Xiaomi MiMo Token Plan", "https://token-plan-cn.xiaomimimo.com/v1", ""),
}
MODELS = {  # of those, what has a certain price in yuan
    "minimax": (
        {
            "id": "minimax-m3.1-flash",
            "provider": "MiniMax",
            "title": "MiniMax M3.1 Flash",
            "routes": [{"upstream": "minimax", "model": "MiniMax-M3.1-Flash"}],
            "prices": {
                "input": "1",
                "cached": "0.1",
                "output": "4",
                "source": "help.aliyun.com/zh/model-studio/minimax-m3-1-flash",
                "checked": date(2026, 11, 25),
            },
        },
    ),
}
PERSONAL = "personal"  # a plan for one person
INTERACTIVE = "interactive"  # a team's, for tools that a person sits at
TERMS = {  # what the provider's terms allow, as of November 2026; pages and the command say it
    "glm-coding": PERSONAL,
    "kimi-coding": PERSONAL,
    "bailian-coding": PERSONAL,
    "mimo-plan": PERSONAL,
    "bailian-team": INTERACTIVE,
}
EXPLAINED_TERMS = {
    PERSONAL: "its terms allow one person; a team that shares it may lose the account",
    INTERACTIVE: "its terms allow interactive tools only: no scripts, Dify or the like",
}


class ConnectError(ValueError):
    """What was asked for cannot be done; the message says why."""


class KeyNotTaken(ConnectError):
    """The provider does not take a new key; the old one stays. `words` are the provider's."""

    def __init__(self, words: str):
        super().__init__(f"the old key stays: the provider does not take the new one: {words}")
        self.words = words


@dataclass(frozen=True)
class Preset:
    """A provider of the catalogue: its name, its row of settings without a key, and the rows of the
    models that it serves."""

    name: str
    title: str
    row: dict[str, Any]
    models: tuple[dict[str, Any], ...] = ()

    @property
    def local(self) -> bool:
        return self.name in LOCAL

    @property
    def terms(self) -> str:
        """`PERSONAL` or `INTERACTIVE` where the provider's terms limit who may use it, or ""."""
        return TERMS.get(self.name, "")


@dataclass(frozen=True)
class OfferedModel:
    """A model that may be ticked. `row`: its settings without routes; `known`: its price is the
    catalogue's."""

    name: str  # at the provider
    row: dict[str, Any]
    known: bool


@dataclass(frozen=True)
class Findings:
    """What came of looking at a provider: its row, mended where its address was; the models that
    it offers; the test call. `problem` is empty when an answer came."""

    row: dict[str, Any]
    offers: list[OfferedModel] = field(default_factory=list)
    outcome: probe.Outcome | None = None
    asked: str = ""
    problem: str = ""  # a word of ours: key, address, refused, private, silent, region, model, ...
    words: str = ""  # the provider's own, or the network's, without the key
    status: int | None = None

    @property
    def ok(self) -> bool:
        return self.outcome is not None and self.outcome.ok


@cache
def presets() -> dict[str, Preset]:
    """The catalogue, by name."""
    shipped = tomllib.loads(configuration.SHIPPED.read_text(encoding="utf-8"))
    known = {
        each["name"]: Preset(
            each["name"],
            TITLES.get(each["name"], each["name"]),
            {name: value for name, value in each.items() if name != "api_key"},
            tuple(
                model
                for model in shipped["models"]
                if any(route["upstream"] == each["name"] for route in model["routes"])
            ),
        )
        for each in shipped["upstreams"]
    }
    for name, (title, base, messages) in OTHERS.items():
        row: dict[str, Any] = {"name": name, "base_url": base, "speaks": ["chat"]}
        if messages:
            row |= {"speaks": ["chat", "messages"]}
            row |= {"wire_urls": {"messages": f"{messages}/v1/messages"}}
        known.setdefault(name, Preset(name, title, row, MODELS.get(name, ())))
    for name, (title, base) in LOCAL.items():
        row = {"name": name, "base_url": base, "speaks": ["chat"], "allow_private": True}
        known[name] = Preset(name, title, row)
    return known


def row_for(preset: Preset | None, name: str, base_url: str, private: bool = False) -> dict:
    """The row of settings of a provider to be: the preset's, with what was typed in its place.

    Raises ConnectError for what is no address.
    """
    base = discovery.address(base_url) if base_url else ""
    row: dict[str, Any] = dict(preset.row) if preset else {"speaks": ["chat"]}
    if base and base != row.get("base_url"):
        row["base_url"] = base
        row.pop("wire_urls", None)  # those of another host
        row["speaks"] = [each for each in row["speaks"] if each in ("chat", "embeddings")] or [
            "chat"
        ]
    try:
        host = urlsplit(row.get("base_url", "")).hostname or ""
        valid = configuration.is_queried_url(row.get("base_url", ""))
    except ValueError:
        host, valid = "", False
    if not valid:
        raise ConnectError("this is no http or https address")
    if private or discovery.is_private(host):
        row["allow_private"] = True
    return {"name": name or (preset.name if preset else _name_of(host))} | {
        key: value for key, value in row.items() if key != "name"
    }


def _name_of(host: str) -> str:
    """A short name for a host: api.north.example is north."""
    parts = [
        each for each in host.split(".") if each not in ("api", "www", "com", "cn", "ai", "org")
    ]
    return host if not parts or discovery.is_private(host) else parts[0]


def look(row: dict, key: str, preset: Preset | None = None) -> Findings:
    """Read the list of models, and ask one of them something small."""
    upstream = _upstream(row, key)
    try:
        base, listed = discovery.models(upstream, key)
    except NotListed as err:
        if err.status not in (404, 405, 200, 400) or preset is None or not preset.models:
            row = row | {"base_url": err.base_url} if err.base_url else row
            return Findings(row, problem=_problem(err), words=err.words, status=err.status)
        base, listed = upstream.base_url, []  # some have no list; the catalogue knows their models
    row = row | {"base_url": base}
    offers = _offers(listed, preset)
    if any(each.row.get("kind") == "embeddings" for each in offers):
        row["speaks"] = list(dict.fromkeys([*row["speaks"], "embeddings"]))
    return replace(_ask(row, key, offers), offers=offers)


def _ask(row: dict, key: str, offers: list[OfferedModel]) -> Findings:
    chat = [each for each in offers if each.row.get("kind", "chat") == "chat"]
    likely = sorted(chat, key=lambda each: not each.known)[:TRIED_MAX]
    findings = Findings(row, problem="nothing")
    for offer in likely:
        outcome = ask(row, key, offer.name)
        findings = Findings(
            row,
            outcome=outcome,
            asked=offer.name,
            problem=_problem_of(outcome),
            words=outcome.words,
            status=outcome.status,
        )
        if outcome.ok or findings.problem not in ("model", "failed"):
            break
    return findings


def ask(row: dict, key: str, model: str, kind: str = "chat") -> probe.Outcome:
    """One tiny real call to a provider for a model, by its name there."""
    upstream = _upstream(row, key)
    asked = [each for each in probe.ASKED if (each in OF_EMBEDDINGS) == (kind == "embeddings")]
    wire = next((each for each in asked if each in upstream.speaks), "chat")
    return probe.call(Target(upstream, model, wire, upstream.quirks), wire, key)


def _upstream(row: dict, key: str) -> Any:
    """The catalogue's upstream of a row. Raises ConnectError with what is wrong in it."""
    row = row | {"api_key": key, "enabled": True}
    row.pop("api_key_file", None), row.pop("api_keys", None)
    given = {"plans": {"free": {}}, "upstreams": [row], "models": []}
    try:
        return Catalog(configuration.check(given, {})).upstreams[row["name"]]
    except SettingsError as err:
        raise ConnectError("; ".join(err.mistakes)) from err


def _offers(listed: Iterable[Listed], preset: Preset | None) -> list[OfferedModel]:
    """The models to tick: the catalogue's that the provider lists first, then its others."""
    at_provider = {each.name: each for each in listed}
    known = {}
    for model in preset.models if preset else ():
        for route in model["routes"]:
            if preset and route["upstream"] == preset.name and model.get("prices"):
                known[route["model"]] = {k: v for k, v in model.items() if k != "routes"}
    offers = [
        OfferedModel(name, row | {"enabled": True}, True)
        for name, row in known.items()
        if name in at_provider or not at_provider
    ]
    for name, each in at_provider.items():
        if name not in known:
            row: dict[str, Any] = {"id": name, "prices": dict(FREE)}
            if each.kind == "embeddings":
                row |= {"kind": "embeddings", "prices": {"input": "0"}}
            if each.context:
                row["context"] = each.context
            offers.append(OfferedModel(name, row, False))
    return offers


def _problem(err: NotListed) -> str:
    words = err.words.casefold()
    if err.status in (401, 402):
        return "key"
    if err.status == 403:
        return (
            "region" if any(each in words for each in ("region", "country", "location")) else "key"
        )
    if err.status is None:
        if "private" in words:
            return "private"
        if "in time" in words:
            return "silent"
        if "refused" in words:
            return "refused"
        if any(each in words for each in ("name or service", "name resolution", "no address")):
            return "unknown_host"
        return "tls" if "certificate" in words or "ssl" in words else "network"
    return "address" if err.status in (200, 301, 302, 307, 308, 400, 404, 405) else "failed"


def _problem_of(outcome: probe.Outcome) -> str:
    if outcome.ok:
        return ""
    if outcome.status == 403 and "region" in outcome.words.casefold():
        return "region"
    if outcome.code == "upstream_account":
        return "key"
    if outcome.code == "upstream_refused":
        return "model"
    return "silent" if outcome.code == "upstream_timeout" else "failed"


EXPLAINED = {
    "key": "the provider does not accept the key",
    "region": "the provider does not serve this region",
    "address": "there is no API at this address; most end in /v1",
    "refused": "nobody listens at this address",
    "unknown_host": "nobody knows this host name",
    "private": "the address leads into a private network, which has to be allowed",
    "silent": "there was no answer in time",
    "tls": "the certificate is not trusted",
    "network": "the address cannot be reached",
    "model": "the provider refuses the request for this model",
    "nothing": "it lists no model that could be asked",
    "failed": "the provider failed to answer",
}


def explained(findings: Findings) -> str:
    """Why a test failed, in a sentence, with the provider's own words."""
    words = f": {findings.words}" if findings.words else ""
    status = f" (status {findings.status})" if findings.status else ""
    return f"{EXPLAINED.get(findings.problem, 'it failed')}{status}{words}"


def try_out(relay: Any, name: str, model_id: str | None = None) -> list[Findings]:
    """A tiny real call to a configured upstream, with each of its keys, for a model that it serves:
    what came of each. It is kept, and a key that answers rests no more.

    Raises ConnectError if there is no such upstream, or nothing to ask it for.
    """
    every = served_by(relay, name)
    served = [each for each in every if model_id in (None, each[0].id)]
    if not every and name not in relay.catalog.upstreams:
        raise ConnectError(f"there is no upstream {name!r}")
    if not served:
        raise ConnectError(f"{name!r} serves no {'such ' if model_id else ''}model")
    model, target = min(served, key=lambda pair: pair[0].kind != "chat")
    wire = probe.wire_for(model, target)
    if wire is None:
        raise ConnectError(f"{name!r} speaks no wire on which {model.id} could be asked")
    found = []
    for key in target.upstream.keys or ("",):
        outcome = probe.call(target, wire, key)
        if outcome.ok:  # it may rest from earlier failures: let calls through again
            relay.sender.health.learn(name, key, None, outcome.ms, None, target.model)
        found.append(
            Findings(
                {"name": name},
                outcome=outcome,
                asked=model.id,
                problem=_problem_of(outcome),
                words=outcome.words,
                status=outcome.status,
            )
        )
    worst = next((each for each in found if not each.ok), found[0])
    assert worst.outcome is not None
    remember(relay, name, model.id, worst.outcome)
    return found


def served_by(relay: Any, name: str) -> list[tuple[Any, Target]]:
    """The models that an upstream serves now, or would, were it on: (model, target)."""
    now = [
        (model, target)
        for model in relay.catalog.models.values()
        for target in model.targets
        if target.upstream.name == name
    ]
    upstream = relay.catalog.upstreams.get(name)
    return now or [
        (model, Target(upstream, route.model, "chat", upstream.quirks + route.quirks))
        for model in relay.settings.models
        for route in model.routes
        if upstream is not None and route.upstream == name
    ]


def choose(
    offers: list[OfferedModel],
    names: Iterable[str] = (),
    input_price: str | None = None,
    output_price: str | None = None,
) -> list[tuple[OfferedModel, dict]]:
    """The models to keep, with their rows: those named, by their name there or their id here; else
    those whose price is known; else all, if they are few. Prices are yuan per million LLM tokens.

    Raises ConnectError where there are too many to keep them unasked.
    """
    names = tuple(names)
    if names:
        known = {each.name: each for each in offers} | {each.row["id"]: each for each in offers}
        offers = [
            known.get(each) or OfferedModel(each, {"id": each, "prices": dict(FREE)}, False)
            for each in names
        ]
    elif any(each.known for each in offers):
        offers = [each for each in offers if each.known]
    elif len(offers) > MODELS_MAX:
        raise ConnectError(f"it lists {len(offers)} models: name those that you want")
    chosen = []
    for each in offers:
        row = dict(each.row)
        for name, price in (("input", input_price), ("output", output_price)):
            if price is not None and not (name == "output" and row.get("kind") == "embeddings"):
                row["prices"] = row["prices"] | {name: price}
        chosen.append((each, row))
    return chosen


def without_price(row: dict, chosen: Iterable[tuple[OfferedModel, dict]]) -> list[str]:
    """Those of the chosen models for which members would pay nothing, though they cost something."""
    return [
        model["id"]
        for offer, model in chosen
        if not offer.known and not row.get("allow_private") and model["prices"]["input"] == "0"
    ]


def tested(relay: Any) -> dict[str, dict]:
    """What the last test of each upstream found: {"at": ms, "code", "words", "model"}."""
    return meta.get(relay.db, "upstream_tests", {})


def remember(relay: Any, name: str, model: str, outcome: probe.Outcome) -> None:
    """Keep what a test found, so that pages can say it also after a restart."""
    at = time.time_ns() // 1_000_000
    found = {"at": at, "code": outcome.code, "words": outcome.words, "model": model}
    known = {each.name for each in relay.settings.upstreams} | {name}
    kept = {each: what for each, what in tested(relay).items() if each in known}
    meta.put(relay.db, "upstream_tests", kept | {name: found})


def origins() -> dict[str, str]:
    """The file from which each upstream, model and plan comes; nothing where they cannot be read."""
    try:
        return configuration.origins()
    except SettingsError:
        return {}


# ---- keeping


def keep(
    relay: Any,
    row: dict,
    key: str,
    models: Iterable[tuple[OfferedModel, dict]],
    outcome: probe.Outcome | None = None,
) -> list[str]:
    """Keep a provider with these models (each with its row as the administrator wants it), and what
    its test found.

    Returns the ids of models that config.toml has itself, where its word wins. Raises ConnectError.
    """
    above = configuration.written()
    written = {each.get("id") for each in _rows(above, "models")}
    models, name = list(models), row["name"]
    if name in {each.get("name") for each in _rows(above, "upstreams")} or name == "demo":
        raise ConnectError(f"config.toml has an upstream {name!r} already: choose another name")

    def edit(kept: dict) -> None:
        upstreams = kept.setdefault("upstreams", [])
        if any(each["name"] == name for each in upstreams):
            raise ConnectError(f"there is an upstream {name!r} already: choose another name")
        upstreams.append(row | ({"api_key": key} if key else {}))
        for offer, model in models:
            if model["id"] not in written:
                _route(kept.setdefault("models", []), model, name, offer.name)

    change(relay, edit)
    if outcome is not None:
        remember(relay, name, models[0][1]["id"] if models else "", outcome)
    return [model["id"] for _, model in models if model["id"] in written]


def _route(models: list[dict], model: dict, upstream: str, name: str) -> None:
    """Add a model with a route; to one that is there already, a route for when the others fail."""
    route: dict[str, Any] = {"upstream": upstream, "model": name}
    known = next((each for each in models if each["id"] == model["id"]), None)
    if known is None:
        models.append(model | {"routes": [route]})
    else:
        route["priority"] = 1 + max(
            (each.get("priority", 0) for each in known["routes"]), default=-1
        )
        known["routes"] = [*known["routes"], route]


def kept_row(relay: Any, name: str) -> dict | None:
    """The row of a provider in providers.toml; None if it is not from there."""
    kept = providers.read(_path(relay))
    return next((each for each in kept.get("upstreams", []) if each["name"] == name), None)


def edit_row(relay: Any, name: str, **changes: Any) -> None:
    """Change settings of a connected provider (None takes one out). Raises ConnectError."""

    def edit(kept: dict) -> None:
        row = _own(kept, name)
        row.update(changes)
        for each in [key for key, value in changes.items() if value is None]:
            del row[each]

    change(relay, edit)


def rotate(relay: Any, name: str, key: str, force: bool = False) -> None:
    """Give a connected provider another key, if the provider takes it or it is `force`d.

    Raises ConnectError.
    """
    row, served = kept_row(relay, name), served_by(relay, name)
    if row is not None and served and not force:
        model, target = served[0]
        outcome = ask(row, key, target.model, model.kind)
        if not outcome.ok:
            raise KeyNotTaken(outcome.words)
    edit_row(relay, name, api_key=key, api_keys=None, api_key_file=None)


def open_to_colleagues(relay: Any) -> bool:
    """Let the plan of who has no other take coding agents: no input limit, and a rate for them.

    False where config.toml has plans, which win. Raises ConnectError.
    """
    if "plans" in configuration.written():
        return False
    plan = {"title": "Team", "requests_per_minute": TEAM_REQUESTS_PER_MINUTE}
    change(relay, lambda kept: kept.setdefault("plans", {}).update(free=plan))
    return True


def remove(relay: Any, name: str) -> list[str]:
    """Take a connected provider out; returns the models that nobody serves now and that go with it.

    Raises ConnectError.
    """
    gone: list[str] = []

    def edit(kept: dict) -> None:
        row = _own(kept, name)
        kept["upstreams"].remove(row)
        for model in kept.get("models", []):
            model["routes"] = [each for each in model["routes"] if each["upstream"] != name]
        gone.extend(each["id"] for each in kept.get("models", []) if not each["routes"])
        kept["models"] = [each for each in kept.get("models", []) if each["routes"]]

    change(relay, edit)
    return gone


def change(relay: Any, edit: Callable[[dict], None]) -> None:
    """Change providers.toml, if all settings together stay right. Raises ConnectError."""

    def check(kept: dict) -> None:
        try:
            configuration.together(above, kept)
        except SettingsError as err:
            raise ConnectError("; ".join(err.mistakes)) from err

    try:
        above = configuration.written()
        providers.change(_path(relay), edit, check)
    except SettingsError as err:
        raise ConnectError("; ".join(err.mistakes)) from err
    except providers.ProvidersError as err:
        raise ConnectError(str(err)) from err


def _own(kept: dict, name: str) -> dict:
    row = next((each for each in kept.get("upstreams", []) if each["name"] == name), None)
    if row is None:
        raise ConnectError(
            f"{name!r} was not connected here: it is written in config.toml, or comes with the relay"
        )
    return row


def _path(relay: Any) -> Any:
    return providers.path_beside(relay.settings.database.path)


def _rows(document: dict, table: str) -> list[dict]:
    rows = document.get(table)
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []
