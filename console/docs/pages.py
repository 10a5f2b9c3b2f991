"""The documentation, the set-up pages of tools, and the files to download.

Owns the table of contents. What the pages say of errors, rates and prices is read from the code and
the settings, so that it cannot go stale.
"""

import json

from flask import Blueprint, Response, abort, render_template

import billing
import pricing
from billing import Pockets, Usage
from console import public
from console.context import api_base, site, state
from console.docs import openapi, snippets
from console.ui.i18n import lazy_gettext as _
from relay import errors

pages = Blueprint("docs", __name__, url_prefix="/docs")

GUIDE = {
    "authentication": _("Authentication"),
    "chat": _("Chat completions"),
    "streaming": _("Streaming"),
    "formats": _("Other formats"),
    "models": _("Models"),
    "errors": _("Errors"),
    "rates": _("Rates and limits"),
    "billing": _("How requests are charged"),
    "disconnects": _("When a request breaks off"),
    "tokens": _("Life of an API key"),
    "playground": _("Model test"),
    "demo": _("Connect a provider"),
}
EXAMPLE = Usage(input_tokens=3000, cached_tokens=1000, output_tokens=800)
EXAMPLE_GRANT = 1500


@pages.context_processor
def contents() -> dict:
    """What every page of the documentation shows around its text."""
    model = public.picked_model()
    return {
        "guide": GUIDE,
        "tools": snippets.TOOLS,
        "model": model,
        "models": public.chat_models(),
        "place": public.place(model),
    }


@pages.get("/")
def index():
    """Quick start."""
    return _show("index", samples=_filled(snippets.SAMPLES))


@pages.get("/<name>")
def page(name: str):
    """One page of the guide."""
    if name not in GUIDE:
        abort(404)
    return _show(name, **CONTENT.get(name, dict)())


@pages.get("/tools")
def tools():
    """All tools that have a set-up page."""
    return _show("tools")


@pages.get("/tools/<slug>")
def tool(slug: str):
    """How to set up one tool."""
    found = snippets.BY_SLUG.get(slug) or abort(404)
    links = public.filled_links(found, public.place(public.picked_model()))
    return render_template(
        f"docs/tools/{slug}.html",
        here_name="tools",
        tool=found,
        links=links,
        filled=_filled(found.snippets),
        refusing=refusing_plans(found.input_tokens),
    )


@pages.get("/openapi.json")
def openapi_json() -> Response:
    """The API as an OpenAPI 3.1 document."""
    return _download(openapi.openapi(site().name, api_base()), "openapi.json")


@pages.get("/admin-openapi.json")
def administration_json() -> Response:
    """The administrators' API as an OpenAPI document."""
    return _download(openapi.administration_api(site().name, api_base()), "admin-openapi.json")


@pages.get("/postman.json")
def postman_json() -> Response:
    """The API as a Postman collection (v2.1)."""
    model = public.picked_model()
    return _download(
        openapi.postman(site().name, api_base(), model.id if model else "MODEL_ID"),
        f"{public.place(None).slug}.postman_collection.json",
    )


def refusing_plans(input_tokens: int) -> list[tuple[str, int]]:
    """The plans whose context limit turns away a tool that sends this much by itself.

    (title, limit).
    """
    return [
        (public.plan_title(name), plan.input_tokens_max)
        for name, plan in state().settings.plans.items()
        if plan.input_tokens_max is not None and plan.input_tokens_max < input_tokens
    ]


def error_classes() -> list[type[errors.RelayError]]:
    """Every error with a sentence of its own, by status.

    Those of providers keep the provider's words.
    """
    found, left = [], [errors.RelayError]
    while left:
        one = left.pop()
        left += one.__subclasses__()
        if one not in (errors.UpstreamRefused, errors.RelayError):
            found.append(one)
    return sorted([*found, errors.RelayError], key=lambda one: one.status)


def _show(name: str, **values) -> str:
    return render_template(f"docs/{name}.html", here_name=name, **values)


def _filled(chosen) -> list:
    return public.filled(chosen, public.place(public.picked_model()))


def _download(document: dict, name: str) -> Response:
    text = json.dumps(document, ensure_ascii=False, indent=2)
    return Response(
        text,
        content_type="application/json; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _rates() -> dict:
    return {
        "plans": state().settings.plans,
        "limits": state().settings.limits,
        "list_price": public.plans()["free"],
    }


def _example() -> dict:
    """The three pockets at work, on a model that costs something."""
    model = next((m for m in public.chat_models() if not m.prices["free"][0].free), None)
    if model is None:
        return {"example": None}
    price = model.prices["free"][0].at(EXAMPLE.input_tokens)
    rest = billing.split(EXAMPLE, price, Pockets(EXAMPLE_GRANT, 0, 0)).wallet
    held = Pockets(EXAMPLE_GRANT, rest // 2, billing.nano("10"))
    return {
        "example": {
            "model": model,
            "usage": EXAMPLE,
            "held": held,
            "rest": rest,
            "bill": public.bill(EXAMPLE, price, held),
            "lines": pricing.lines(EXAMPLE, price, EXAMPLE_GRANT),
        }
    }


def _embeddings() -> list:
    model = next((m for m in state().catalog.models.values() if m.kind == "embeddings"), None)
    return public.filled([snippets.EMBEDDINGS], public.place(model)) if model else []


def _models() -> dict:
    """Every model with its list price outside peak hours, those that answer now first."""
    listed = sorted(state().catalog.models.values(), key=lambda each: not each.available)
    return {"offered": [(each, each.prices["free"][0]) for each in listed]}


def _billing() -> dict:
    settings = state().settings
    return {
        **_example(),
        "hold_output_tokens": settings.billing.hold_output_tokens,
        "accounts": settings.accounts,
        "overdraft": billing.nano(settings.billing.overdraft),
    }


CONTENT = {
    "authentication": lambda: {"samples": _filled([snippets.CURL])},
    "chat": lambda: {"samples": _filled(snippets.SAMPLES)},
    "streaming": lambda: {"samples": _filled(snippets.STREAM_SAMPLES)},
    "formats": lambda: {"samples": _embeddings()},
    "models": _models,
    "errors": lambda: {"errors": error_classes()},
    "rates": _rates,
    "billing": _billing,
    "disconnects": lambda: {"retention_days": state().settings.retention.requests_days},
    "demo": lambda: {"config_sample": _filled([snippets.CONFIG])[0][1]},
    "tokens": lambda: {"tokens_max": state().settings.accounts.tokens_max},
}
