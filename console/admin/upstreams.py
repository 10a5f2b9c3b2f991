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
from relay.catalog import DEMO

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


def served(name: str) -> list[tuple]:
    """The models that an upstream serves now: (model, target)."""
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
    try:
        found = connect.try_out(state(), name, request.form.get("model") or None)
    except connect.ConnectError:
        abort(404)
    outcomes = [each.outcome for each in found if each.outcome is not None]
    for number, outcome in enumerate(outcomes, 1):
        said = _said(name, found[0].asked, outcome, number if len(outcomes) > 1 else None)
        flash(said, "good" if outcome.ok else "bad")
    codes = [each.code for each in outcomes]
    note("upstream.test", upstream=name, model=found[0].asked, outcome=codes)
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
