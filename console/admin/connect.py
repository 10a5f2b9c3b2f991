"""Connect a provider in the browser, and what can be done with one that is connected.

Owns these pages. The steps are `relay.connect`'s, shared with `flask upstream`. Between them a key
waits in this process's memory, for half an hour and for its administrator alone: no page holds it.
"""

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Response, abort, flash, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from console import throttle
from console.admin import upstreams
from console.admin.guard import note, pages, recently_authenticated
from console.context import member, state
from console.session import back_to
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from relay import connect, probe
from relay.catalog import Target
from relay.connect import ConnectError, Findings, KeyNotTaken, OfferedModel
from relay.upstream import discovery
from server import jobs

TRIES = "20 per minute"
DRAFT_S, DRAFTS_MAX = 1800, 20
OFFERED_MAX = 300
QUESTION_LENGTH_MAX = 2000
PROBLEMS = {
    "key": _l(
        "The provider does not accept this key. Copy it once more, and see whether it is for this provider and region."
    ),
    "region": _l(
        "The provider does not serve the region of this machine. Take its other address, or set a proxy in config.toml."
    ),
    "address": _l(
        "Somebody answers at this address, but there is no API. Most addresses end in /v1."
    ),
    "refused": _l("Nobody listens at this address. Is the server running, and is the port right?"),
    "unknown_host": _l("Nobody knows this host name."),
    "private": _l("This address leads into a private network. Tick that this is meant."),
    "silent": _l("There was no answer in time."),
    "tls": _l("The certificate of this address is not trusted."),
    "network": _l("This address cannot be reached from here."),
    "model": _l("The provider knows the key, but refuses the request for this model."),
    "nothing": _l("It lists no model that could be asked."),
    "failed": _l("The provider failed to answer."),
}


@dataclass
class Draft:
    """A provider that is being connected: whose, until when (monotonic), and what was found."""

    owner: int
    until: float
    key: str
    findings: Findings


_drafts: dict[str, Draft] = {}
_lock = threading.Lock()


def _put(draft: Draft) -> str:
    name = secrets.token_urlsafe(16)
    with _lock:
        for old in [each for each, kept in _drafts.items() if kept.until < time.monotonic()]:
            del _drafts[old]
        while len(_drafts) >= DRAFTS_MAX:
            del _drafts[next(iter(_drafts))]
        _drafts[name] = draft
    return name


def _draft(name: str | None) -> Draft | None:
    draft = _drafts.get(name or "")
    if draft is None or draft.owner != member().id or draft.until < time.monotonic():
        return None
    return draft


@pages.get("/upstreams/new", endpoint="connect")
def page() -> str:
    """The catalogue, the servers found on this machine, and the form."""
    preset = connect.presets().get(request.args.get("preset", ""))
    typed = {
        "preset": preset.name if preset else "",
        "name": preset.name if preset else "",
        "base_url": request.args.get("at") or (preset.row["base_url"] if preset else ""),
    }
    return _form(typed)


def _form(typed: dict, findings: Findings | None = None, error: str = "", draft: str = "") -> str:
    known = {each.base_url for each in state().settings.upstreams}
    local = discovery.local_servers(int(request.environ.get("SERVER_PORT", 0)))
    return render_template(
        "admin/connect.html",
        presets=connect.presets(),
        local=[each for each in local if each[1] not in known],
        typed=typed,
        chosen=connect.presets().get(typed["preset"]),
        findings=findings,
        problem=PROBLEMS.get(findings.problem) if findings else None,
        error=error,
        draft=draft,
    )


@pages.post("/upstreams/new")
def try_connecting() -> str:
    """Look at what was typed: the models to tick if it answers, else why it does not."""
    throttle.refuse_over(TRIES, "upstream-test", member().id)
    typed = {
        name: request.form.get(name, "").strip()[:500]
        for name in ("preset", "name", "base_url", "private")
    }
    known = _draft(request.form.get("draft"))
    key = request.form.get("key", "").strip() or (known.key if known else "")
    preset = connect.presets().get(typed["preset"])
    try:
        row = connect.row_for(preset, typed["name"], typed["base_url"], bool(typed["private"]))
        if not key and not row.get("allow_private"):
            return _form(typed, error=_("Paste the key that the provider's console shows."))
        findings = connect.look(row, key, preset)
    except ConnectError as err:
        return _form(typed, error=str(err))
    draft = _put(Draft(member().id, time.monotonic() + DRAFT_S, key, findings))
    note("upstream.test", upstream=row["name"], outcome="ok" if findings.ok else findings.problem)
    if not findings.ok:
        typed |= {"name": row["name"], "base_url": row["base_url"]}
        return _form(typed, findings, draft=draft)
    return _models(findings, draft)


def _models(findings: Findings, draft: str, error: str = "") -> str:
    ticked = request.form.getlist("pick") if error else None
    typed = request.form if error else {}
    return render_template(
        "admin/connect_models.html",
        findings=findings,
        offers=findings.offers[:OFFERED_MAX],
        hidden=len(findings.offers) - OFFERED_MAX,
        any_known=any(each.known for each in findings.offers),
        draft=draft,
        error=error,
        ticked=ticked,
        typed=typed,
    )


@pages.post("/upstreams/keep", endpoint="keep_upstream")
@recently_authenticated
def keep() -> AnyResponse | str:
    """Keep the provider with the ticked models; it is in force at once."""
    name = request.form.get("draft", "")
    draft = _draft(name)
    if draft is None:
        flash(_("That took too long, and the key is forgotten. Connect it once more."), "bad")
        return back_to("admin.connect")
    chosen = _ticked(draft.findings.offers)
    if not chosen:
        return _models(draft.findings, name, _("Tick at least one model."))
    try:
        left_out = connect.keep(
            state(), draft.findings.row, draft.key, chosen, draft.findings.outcome
        )
    except ConnectError as err:
        return _models(draft.findings, name, str(err))
    _drafts.pop(name, None)
    upstream = draft.findings.row["name"]
    note("upstream.add", upstream=upstream, count=len(chosen))
    _reload()
    if left_out:
        flash(_("config.toml has %(models)s itself, and wins.", models=", ".join(left_out)), "info")
    flash(_("%(name)s is connected.", name=upstream), "good")
    return redirect(url_for("admin.upstream", name=upstream, fresh=1), 303)


def _ticked(offers: list[OfferedModel]) -> list[tuple[OfferedModel, dict]]:
    """What was ticked, each with the prices in its fields."""
    picked, chosen = set(request.form.getlist("pick")), []
    for index, offer in enumerate(offers[:OFFERED_MAX]):
        if offer.name not in picked:
            continue
        prices = dict(offer.row.get("prices") or {})
        for kind in ("input", "cached", "output"):
            price = request.form.get(f"{kind}-{index}", "").strip()
            if price:
                prices[kind] = price
            elif f"{kind}-{index}" in request.form:
                prices.pop(kind, None)
        chosen.append((offer, offer.row | {"prices": prices}))
    return chosen


def _reload() -> None:
    for mistake in jobs.reload_now(state()):
        flash(mistake, "bad")


# ---- one provider


@pages.get("/upstreams/<name>", endpoint="upstream")
def one(name: str) -> str:
    """One provider: how it is, a real answer from it, and what can be changed."""
    known = state().catalog.upstreams.get(name) or abort(404)
    given = next(each for each in state().settings.upstreams if each.name == name)
    origin = connect.origins().get(f"upstreams.{name}", "")
    served = [each for each in upstreams.served(name) if each[0].kind == "chat"]
    return render_template(
        "admin/upstream.html",
        upstream=known,
        given=given,
        origin=origin,
        own=origin == "providers.toml",
        served=upstreams.served(name),
        asked=served if "chat" in known.speaks else [],
        fresh=bool(request.args.get("fresh")),
        tested=connect.tested(state()).get(name),
    )


@pages.post("/upstreams/<name>/ask", endpoint="ask_upstream")
def ask(name: str) -> Response:
    """A real answer from a provider, as plain text while it comes. No member pays for it."""
    throttle.refuse_over(TRIES, "upstream-test", member().id)
    wish = request.form.get("model")
    pairs = [each for each in upstreams.served(name) if each[0].kind == "chat"]
    model, target = next(
        (each for each in pairs if each[0].id == wish), pairs[0] if pairs else abort(404)
    )
    if "chat" not in target.upstream.speaks:
        abort(404)
    question = request.form.get("question", "").strip()[:QUESTION_LENGTH_MAX] or "Hello!"
    note("upstream.test", upstream=name, model=model.id)
    response = Response(_words(target, question), content_type="text/plain; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _words(target: Target, question: str) -> Iterator[str]:
    key = target.upstream.keys[0] if target.upstream.keys else ""
    yield from probe.stream(target, key, question)


def _changed(name: str, action: str, change: object, said: str) -> AnyResponse:
    """Make a change (a function without arguments), and say what came of it."""
    try:
        change()  # type: ignore[operator]
    except KeyNotTaken as err:
        said = _(
            "The old key stays: the provider does not take the new one. %(words)s", words=err.words
        )
        flash(said, "bad")
        return redirect(url_for("admin.upstream", name=name), 303)
    except ConnectError as err:
        flash(str(err), "bad")
        return redirect(url_for("admin.upstream", name=name), 303)
    note(action, upstream=name)
    _reload()
    flash(said, "good")
    if name in state().catalog.upstreams:
        return redirect(url_for("admin.upstream", name=name), 303)
    return back_to("admin.upstreams")


@pages.post("/upstreams/<name>/key", endpoint="rotate_upstream")
@recently_authenticated
def rotate(name: str) -> AnyResponse:
    """Give it another key, if the provider takes it."""
    key = request.form.get("key", "").strip()
    if not key:
        flash(_("Paste the key that the provider's console shows."), "bad")
        return redirect(url_for("admin.upstream", name=name), 303)
    return _changed(
        name,
        "upstream.key",
        lambda: connect.rotate(state(), name, key),
        _("The new key is in force."),
    )


@pages.post("/upstreams/<name>/edit", endpoint="edit_upstream")
@recently_authenticated
def edit(name: str) -> AnyResponse:
    """Another address."""
    base_url = discovery.address(request.form.get("base_url", "")[:500])
    return _changed(
        name,
        "upstream.edit",
        lambda: connect.edit_row(state(), name, base_url=base_url),
        _("The change is in force."),
    )


@pages.post("/upstreams/<name>/switch", endpoint="switch_upstream")
@recently_authenticated
def switch(name: str) -> AnyResponse:
    """Off: it is asked nothing; on again."""
    on = request.form.get("on") == "1"
    return _changed(
        name,
        "upstream.enable" if on else "upstream.disable",
        lambda: connect.edit_row(state(), name, enabled=on),
        _("%(name)s is switched on.", name=name)
        if on
        else _("%(name)s is switched off.", name=name),
    )


@pages.post("/upstreams/<name>/remove", endpoint="remove_upstream")
@recently_authenticated
def remove(name: str) -> AnyResponse:
    """Take it out, with the models that nobody else serves."""
    return _changed(
        name,
        "upstream.remove",
        lambda: connect.remove(state(), name),
        _("%(name)s is removed.", name=name),
    )
