"""Upstreams: how they are, and a test of each.

Owns the page and the button. What is known of their health is the relay's; keys are counted here
and never shown.
"""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from flask import abort, flash, render_template, request

from console import throttle
from console.admin.guard import note, pages
from console.context import member, state
from console.docs.pages import error_classes
from console.session import back_to
from console.ui import format
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from relay import connect, probe
from relay.catalog import DEMO, Target

LOOKED_AT = 2000  # newest calls
TESTS = "20 per minute"
STATES = {
    "ok": (_l("Healthy"), "good"),
    "busy": (_l("Busy"), "warn"),
    "refused": (_l("Rejected our key"), "bad"),
    "failing": (_l("Failing"), "bad"),
}
RECENT = f"""
SELECT upstream, outcome, first_byte_ms FROM (
    SELECT upstream, outcome, first_byte_ms FROM requests ORDER BY id DESC LIMIT {LOOKED_AT})
 WHERE upstream IS NOT NULL AND outcome IS NOT NULL"""
BROKEN = ("failed", "upstream_cut")


@dataclass(frozen=True)
class Recent:
    """How the newest calls went that ended at an upstream."""

    calls: int
    broken: int
    first_byte_ms: int | None
    slow_ms: int | None  # 19 of 20 were faster

    @property
    def share(self) -> float | None:
        return self.broken / self.calls if self.calls else None


@pages.get("/upstreams", endpoint="upstreams")
def page():
    """Every configured upstream, with its health since the start and in the newest calls."""
    catalog = state().catalog
    known = [*([DEMO] if catalog.demo else []), *catalog.upstreams.values()]
    health = {each["name"]: each for each in state().sender.health.report(known)}
    return render_template(
        "admin/upstreams.html",
        upstreams=known,
        health=health,
        recent=recent(),
        states=STATES,
        models={each.name: served(each.name) for each in known},
        origins=connect.origins(),
        tested=connect.tested(state()),
        switched_off={each.name for each in state().settings.upstreams if not each.enabled},
        looked_at=LOOKED_AT,
        sentences=sentences(),
    )


def recent() -> dict[str, Recent]:
    """The newest calls, by upstream."""
    ends, times = defaultdict(list), defaultdict(list)
    for row in state().db.read().execute(RECENT).fetchall():
        ends[row["upstream"]].append(row["outcome"])
        if row["first_byte_ms"] is not None:
            times[row["upstream"]].append(row["first_byte_ms"])
    return {
        name: Recent(len(each), sum(end in BROKEN for end in each), *_typical(sorted(times[name])))
        for name, each in ends.items()
    }


def _typical(sorted_ms: list[int]) -> tuple[int | None, int | None]:
    if not sorted_ms:
        return None, None
    return round(median(sorted_ms)), sorted_ms[min(len(sorted_ms) - 1, len(sorted_ms) * 19 // 20)]


def served(name: str, switched_off: bool = False) -> list[tuple]:
    """The models that an upstream serves now: (model, target).

    `switched_off`: those that it would serve, were it on.
    """
    if switched_off and not state().catalog.upstreams[name].usable:
        upstream = state().catalog.upstreams[name]
        return [
            (model, Target(upstream, route.model, "chat"))
            for model in state().settings.models
            for route in model.routes
            if route.upstream == name
        ]
    return [
        (model, target)
        for model in state().catalog.models.values()
        for target in model.targets
        if target.upstream.name == name
    ]


def sentences() -> dict[str, str]:
    """What error codes mean."""
    return {each.code: each.sentence for each in error_classes() if each.code}


@pages.post("/upstreams/<name>/test")
def test_upstream(name: str):
    """One tiny real call with each key of an upstream, for the chosen model."""
    throttle.refuse_over(TESTS, "upstream-test", member().id)
    offered = served(name)
    wish = request.form.get("model")
    model, target = next(
        (pair for pair in offered if pair[0].id == wish), offered[0] if offered else (None, None)
    )
    wire = model and probe.wire_for(model, target)
    if wire is None:
        abort(404)
    keys = target.upstream.keys or ("",)
    outcomes = [probe.call(target, wire, key) for key in keys]
    connect.remember(
        state(), name, model.id, next((each for each in outcomes if not each.ok), outcomes[0])
    )
    for number, (key, outcome) in enumerate(zip(keys, outcomes, strict=True), 1):
        answered = outcome.code == "ok"
        if answered:  # it may rest from earlier failures: let calls through again
            state().sender.health.learn(name, key, None, outcome.ms, None, target.model)
        flash(
            _said(name, model.id, outcome, number if len(keys) > 1 else None),
            "good" if answered else "bad",
        )
    note("upstream.test", upstream=name, model=model.id, outcome=[each.code for each in outcomes])
    return back_to("admin.upstreams")


def _said(name: str, model: str, outcome: probe.Outcome, number: int | None) -> str:
    """An outcome in a sentence."""
    what = _("%(name)s, key %(n)s", name=name, n=number) if number else name
    if outcome.code == "ok":
        return _(
            "%(what)s answered for %(model)s in %(time)s.",
            what=what,
            model=model,
            time=format.duration(outcome.ms),
        )
    code = outcome.code
    if outcome.status:
        code = _("%(code)s, status %(status)s", code=code, status=outcome.status)
    if outcome.words:
        code = f"{code}: {outcome.words}"
    return _(
        "%(what)s failed for %(model)s after %(time)s: %(code)s.",
        what=what,
        model=model,
        code=code,
        time=format.duration(outcome.ms),
    )
