"""Pages for everybody: the front page, the model plaza, a page per model, the calculator.

Refuses to compute a price or a charge: prices come from the catalogue, charges from
`billing.split`, so that what is shown here is what the ledger does.
"""

import time
from dataclasses import dataclass

from flask import Blueprint, Response, abort, render_template, request, url_for

import billing
import pricing
from billing import Pockets, Price, Usage
from console.context import member, site, site_url, state
from console.docs import setup, snippets
from console.ui.forms import typed_number
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from relay import connect

pages = Blueprint("public", __name__)

SORTS = ("name", "input", "output")
FRONT_MODELS = 6
LLM_TOKENS_MAX = 10_000_000
MONEY_MAX = 1_000_000
DAYS = {
    "mon": _l("Mon"),
    "tue": _l("Tue"),
    "wed": _l("Wed"),
    "thu": _l("Thu"),
    "fri": _l("Fri"),
    "sat": _l("Sat"),
    "sun": _l("Sun"),
}


@dataclass(frozen=True)
class Offer:
    """What a plan's members pay for a model.

    Always, and in peak hours where those cost something else.
    """

    plan: str
    title: str
    price: Price
    peak: Price | None


def plans() -> dict[str, str]:
    """The plans that differ in price: the list price first, then each discount, cheaper ones later.

    Name -> title.
    """
    known = state().settings.plans
    cheaper = sorted(
        (name for name in known if known[name].discount < 1), key=lambda n: -known[n].discount
    )
    return {"free": _("List price")} | {name: plan_title(name) for name in cheaper}


def offers(model) -> list[Offer]:
    """A model's prices, plan by plan."""
    return [offer(model, plan, title) for plan, title in plans().items()]


def offer(model, plan: str, title: str = "") -> Offer:
    """A model's prices for one plan."""
    usual, at_peak = model.prices[plan]
    return Offer(plan, title, usual, at_peak if model.peak else None)


def peak_text(model) -> str:
    """When a model's peak hours are: Mon–Fri 09:00-12:00, 14:00-18:00 (Asia/Shanghai)."""
    days = "–".join(str(DAYS[day]) for day in model.peak_days.split("-"))
    return f"{days} {', '.join(model.peak_hours)} ({model.peak.timezone})"


def chat_models() -> list:
    """The models that chat, those that answer now first. What the samples and tools offer: to a
    member those that they may use; to others all, first those that everybody may."""
    who = member()
    may = state().gate.models_of(who.id if who else None)
    listed = [m for m in state().catalog.models.values() if m.kind == "chat"]
    if who and may is not None:
        listed = [m for m in listed if m.id in may]
    return sorted(listed, key=lambda m: (not m.available, may is not None and m.id not in may))


def picked_model():
    """The model that ?model= names, else the first that answers; None in an empty catalogue."""
    models = chat_models()
    wish = request.args.get("model", "")
    return next((m for m in models if m.id == wish), models[0] if models else None)


def place(model, token: str = snippets.TOKEN) -> snippets.SitePlace:
    """What fills the snippets in for a model (None: a stand-in name)."""
    if model is None:
        return snippets.SitePlace(site_url(), site().name, "MODEL_ID", token=token)
    return snippets.SitePlace(
        site_url(), site().name, model.id, model.context, model.output_max, token
    )


def filled(chosen, at: snippets.SitePlace) -> list[tuple[snippets.Snippet, str]]:
    """Snippets with their texts."""
    return [(snippet, snippets.render(snippet, at)) for snippet in chosen]


def ready(at: snippets.SitePlace) -> list[tuple[snippets.ToolGuide, list, list, list]]:
    """Every tool, filled in.

    (tool, [(snippet, text)], [(name, link)], [(label, value)] where it has only a form).
    """
    asked = [("Base URL", at.base_url), ("API Key", at.token), ("Model", at.model)]
    return [
        (
            tool,
            filled(tool.snippets, at),
            filled_links(tool, at),
            [] if tool.snippets or tool.links else asked,
        )
        for tool in snippets.TOOLS
    ]


def filled_links(tool: snippets.ToolGuide, at: snippets.SitePlace) -> list[tuple[str, str]]:
    """The deep links of a tool: the program that opens, and the link."""
    return [(snippets.LINKS[name][0], snippets.link(name, at)) for name in tool.links]


@pages.get("/")
def front():
    """What this is, the base address, a sample that works."""
    model = picked_model()
    samples = filled((snippets.CURL, *snippets.SAMPLES[1:3]), place(model))
    shown = sorted(state().catalog.models.values(), key=lambda m: not m.available)[:FRONT_MODELS]
    return render_template(
        "public/front.html",
        samples=samples,
        model=model,
        tools=snippets.TOOLS,
        shown=[(m, offers(m)) for m in shown],
        models_count=len(state().catalog.models),
    )


@pages.get("/setup.sh")
def setup_sh() -> Response:
    """The script that connects a developer's machine; ?model= names the model."""
    return _script("setup.sh", "text/x-shellscript")


@pages.get("/setup.ps1")
def setup_ps1() -> Response:
    """The same for PowerShell."""
    return _script("setup.ps1", "text/plain")


def _script(name: str, kind: str) -> Response:
    text = setup.script(name, place(picked_model()))
    return Response(text, content_type=f"{kind}; charset=utf-8")


@pages.get("/models")
def plaza():
    """Every model: searched, filtered and sorted by GET parameters."""
    listed = list(state().catalog.models.values())
    wish, provider = request.args.get("q", "").strip()[:100], request.args.get("provider", "")
    sort = request.args.get("sort") if request.args.get("sort") in SORTS else "name"
    found = [m for m in listed if _matches(m, wish.casefold()) and provider in ("", m.provider)]
    found.sort(key=_sorting(sort))
    may = state().gate.models_of(member().id) if member() else None
    providers = [(name, name) for name in sorted({m.provider for m in listed})]
    return render_template(
        "public/plaza.html",
        found=[(m, offers(m)) for m in found],
        total=len(listed),
        kept_from=set() if may is None else {m.id for m in listed} - may,
        providers=providers,
        q=wish,
        provider=provider,
        sort=sort,
    )


def _matches(model, wish: str) -> bool:
    return all(
        word in f"{model.id} {model.title} {model.provider}".casefold() for word in wish.split()
    )


def _sorting(sort: str):
    if sort == "name":
        return lambda m: (not m.available, m.title.casefold())
    return lambda m: (getattr(m.prices["free"][0], sort), m.title.casefold())


@pages.get("/models/<path:model_id>")
def model(model_id: str):
    """One model: limits, prices, a sample."""
    found = state().catalog.models.get(model_id) or abort(404)
    chosen = snippets.SAMPLES if found.kind == "chat" else (snippets.EMBEDDINGS,)
    return render_template(
        "public/model.html",
        model=found,
        offers=offers(found),
        peak_hours=peak_text(found) if found.peak else "",
        peak_now=found.peak is not None and found.peak.holds(billing.now_ms()),
        samples=filled(chosen, place(found)),
        tools=snippets.TOOLS,
    )


@dataclass(frozen=True)
class Entry:
    """One number typed into the calculator.

    What was typed, the value used, the mistake if there is one.
    """

    typed: str
    value: int
    error: str = ""


def _count(name: str, default: int) -> Entry:
    typed = request.args.get(name, str(default)).strip()[:40]
    try:
        digits = typed_number(typed.replace("_", ""))
    except ValueError:
        digits = ""
    if not digits.isascii() or not digits.isdigit() or int(digits) > LLM_TOKENS_MAX:
        return Entry(typed, 0, _("A whole number from 0 to %(most)s.", most=f"{LLM_TOKENS_MAX:,}"))
    return Entry(typed, int(digits))


def _money(name: str, default: str) -> Entry:
    typed = request.args.get(name, default).strip()[:40]
    try:
        amount = billing.nano(typed_number(typed.removeprefix(site().currency)))
        if not 0 <= amount <= billing.nano(MONEY_MAX):
            raise ValueError(typed)
    except (ValueError, ArithmeticError):
        return Entry(
            typed, 0, _("An amount from 0 to %(most)s, such as 10.00.", most=f"{MONEY_MAX:,}")
        )
    return Entry(typed, amount)


@pages.get("/calculator")
def calculator():
    """So many LLM tokens cost so much, paid from these pockets. The sums are the ledger's own."""
    model = state().catalog.models.get(request.args.get("model", "")) or picked_model()
    if model is None:
        return render_template("public/calculator.html", model=None)
    counts = {
        "input": _count("input", 3000),
        "cached": _count("cached", 0),
        "output": _count("output", 800),
    }
    pockets = {
        "grant": _count("grant", 0),
        "quota": _money("quota", "0"),
        "wallet": _money("wallet", "10.00"),
    }
    plan = request.args.get("plan") if request.args.get("plan") in plans() else "free"
    held = Pockets(*(pockets[name].value for name in ("grant", "quota", "wallet")))
    prices = offer(model, plan)
    at_peak = prices.peak is not None and request.args.get("peak") == "yes"
    price = prices.peak if at_peak else prices.price
    others = {kind: str(OTHER_COUNTS[kind]) for kind in price.special}
    counts |= {kind: _count(kind, 0) for kind in others}
    _not_more_than_the_whole(counts)
    usage = Usage(**{FIELDS[kind]: entry.value for kind, entry in counts.items()})
    mistaken = any(e.error for e in (*counts.values(), *pockets.values()))
    return render_template(
        "public/calculator.html",
        model=model,
        plan=plan,
        plans=plans(),
        counts=counts,
        others=others,
        pockets=pockets,
        at_peak=at_peak,
        has_peak=prices.peak is not None,
        mistaken=mistaken,
        sum=None if mistaken else bill(usage, price, held),
        models=sorted(state().catalog.models.values(), key=lambda m: m.title.casefold()),
    )


OTHER_COUNTS = {
    "cache_read": _l("of the cached from an explicit cache"),
    "cache_write": _l("of the input put into a cache"),
    "cache_write_1h": _l("of the input put into a cache for an hour"),
    "search": _l("Searches"),
}
FIELDS = {
    "input": "input_tokens",
    "cached": "cached_tokens",
    "output": "output_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "search": "searches",
}


def _not_more_than_the_whole(counts: dict[str, Entry]) -> None:
    """Mark the parts that are more than what they are parts of."""
    left = {"input": counts["input"].value, "cached": counts["cached"].value}
    for part, whole in (
        ("cached", "input"),
        ("cache_write", "input"),
        ("cache_write_1h", "input"),
        ("cache_read", "cached"),
    ):
        if part not in counts:
            continue
        left[whole] -= counts[part].value
        if left[whole] < 0:
            said = _("Not more than the input: it is a part of it.")
            counts[part], left[whole] = Entry(counts[part].typed, 0, said), 0


def bill(usage: Usage, price: Price, held: Pockets) -> dict:
    """A call's price line by line and what each pocket pays.

    `lines` are those of the ledger, before any pocket pays; `paid` is what each pays.
    """
    at = price.at(usage.input_tokens)
    paid = billing.split(usage, at, held)
    return {
        "lines": pricing.lines(usage, at),
        "cost": at.cost(usage),
        "paid": paid,
        "charged": paid.quota + paid.wallet,
        "wallet_after": held.wallet - paid.wallet,
        "free": at.free,
        "refused": paid.wallet > 0 and paid.wallet > held.wallet,
    }


@pages.app_template_global()
def plan_title(name: str) -> str:
    """What people call a plan."""
    plan = state().settings.plans.get(name)
    if plan is not None and plan.title:
        return _(plan.title)  # "Free" has a translation; other titles answer themselves
    return _("Free") if name == "free" else name


@pages.app_template_global()
def model_state(model) -> tuple[str, str, int | None]:
    """How a model is, honestly: the word, its colour, and since when (ms) it fails.

    What its providers have shown since the start counts, else what the last test of each found.
    """
    if not model.available:
        return _("Unavailable"), "", None
    relay = state()
    if relay.catalog.demo or getattr(relay, "sender", None) is None:
        return _("Available"), "good", None
    known = list({target.upstream.name: target.upstream for target in model.targets}.values())
    seen = {each["name"]: each for each in relay.sender.health.report(known)}
    tested = connect.tested(relay)
    works = [_works(seen[each.name], tested.get(each.name)) for each in known]
    if True in works:
        return _("Works"), "good", None
    if None in works:
        return _("Not tested"), "", None
    failed_at = [
        seen[each.name]["last_error_at"] or tested.get(each.name, {}).get("at") for each in known
    ]
    return _("Fails"), "bad", min((at for at in failed_at if at), default=None)


def _works(seen: dict, test: dict | None) -> bool | None:
    """Whether an upstream works; None if nobody knows."""
    if seen["calls"]:
        return seen["state"] in ("ok", "busy") and seen["calls"] > seen["failed"]
    return None if test is None else test["code"] == "ok"


@pages.app_template_global()
def model_url(model_id: str) -> str:
    """The page of a model."""
    return url_for("public.model", model_id=model_id)


@pages.app_template_global()
def now_ms() -> int:
    """Now, as the database writes times."""
    return int(time.time() * 1000)
