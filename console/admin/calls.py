"""All calls: what the team used, by whom, and every single call.

Owns what administrators read of `requests` and `daily`. Figures of days come from the roll-ups,
which stay when old calls are forgotten.
"""

import json

from flask import abort, flash, redirect, render_template, request, url_for

import pricing
from console.admin.guard import pages
from console.context import state
from console.docs.pages import error_classes
from console.member import usage
from console.ui import call_file, csv
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from db import keyset
from members import accounts
from members.call_rows import COLUMNS
from relay import pricelist

OUTCOMES = usage.OUTCOMES | {"client_left": (_l("Client left"), "")}
SHOWN = 10
# Member by member, because that is the order of the table.
PER_MEMBER = f"""
SELECT users.id AS id, name, {usage.SUMMED} FROM users CROSS JOIN daily ON daily.user_id = users.id WHERE {{where}}
 GROUP BY users.id ORDER BY sum(cost) DESC, sum(calls) DESC LIMIT :most"""


def wish() -> usage.Asked:
    """What the GET parameters ask for. A name that nobody has finds nothing."""
    name = request.args.get("member", "").strip()[:64]
    who = accounts.named(state().db, name) if name else None
    upstream = request.args.get("upstream", "")[:200] or None
    return usage.asked_of_address(OUTCOMES, name, user_id=who and who.id, upstream=upstream)


@pages.get("/calls", endpoint="calls")
def page():
    """What the team used in a span of days, and its calls."""
    asked, conn = wish(), state().db.read()
    before, after = request.args.get("before"), request.args.get("after")
    summed = not (asked.nobody or asked.only.upstream or asked.only.outcome)
    rows = asked.per_day() if summed else []
    per_model = usage.sums_by(rows, "model")
    measure = usage.asked_measure()
    until = (
        usage.newest_use({row["day"] for row in rows}, before)
        if asked.only.model in per_model and not after
        else None
    )
    found = keyset.Page([]) if asked.nobody else asked.only.calls(until).page(conn, before, after)
    members = per_member(asked, SHOWN) if summed and asked.only.user_id is None else []
    return render_template(
        "admin/calls.html",
        asked=asked,
        found=found,
        members=members,
        per_model=per_model,
        total=usage.sum_up(rows),
        chart=usage.chart(rows, asked.span, measure, per_model),
        measure=measure,
        measures=usage.MEASURES,
        outcomes=OUTCOMES,
        presets=usage.presets(),
        choices=_choices(asked, per_model),
    )


def _choices(asked: usage.Asked, per_model: dict) -> dict:
    """The selects of the filters; what is asked for is always among them."""
    models = sorted(filter(None, {*state().catalog.models, *per_model, asked.only.model}))
    demo = "demo" if state().catalog.demo else None
    upstreams = sorted(filter(None, {*state().catalog.upstreams, demo, asked.only.upstream}))
    return {
        "model": [("", _("All models")), *((name, name) for name in models)],
        "upstream": [("", _("All upstreams")), *((name, name) for name in upstreams)],
        "outcome": [("", _("All")), *((name, label) for name, (label, _look) in OUTCOMES.items())],
    }


def per_member(asked: usage.Asked, most: int) -> list:
    """What each member used in the span, the dearest first."""
    return (
        state()
        .db.read()
        .execute(PER_MEMBER.format(where=asked.of_days), asked.values | {"most": most})
        .fetchall()
    )


@pages.get("/calls/find")
def find_call():
    """From a request id to the call's page."""
    wanted = request.args.get("id", "").strip()[:100]
    if state().db.one("SELECT 1 FROM requests WHERE id = ?", (wanted,)) is None:
        flash(_("There is no request with the id %(id)s.", id=wanted), "warn")
        return redirect(url_for("admin.calls"))
    return redirect(url_for("admin.call", call_id=wanted))


@pages.get("/calls/<call_id>")
def call(call_id: str):
    """One call, with all that is known of it."""
    row = (
        state()
        .db.read()
        .execute(f"SELECT {COLUMNS} FROM requests WHERE id = ?", (call_id,))
        .fetchone()
    )
    row or abort(404)
    codes = {each.code: each.sentence for each in error_classes() if each.code}
    return render_template(
        "admin/call.html",
        call=row,
        lines=usage.price_lines(row),
        price=pricing.price_of(row),
        price_changes=pricelist.history(state().db, row["model"]),
        outcome=row["outcome"] or "open",
        outcomes=OUTCOMES,
        endings=ENDINGS,
        sources=usage.SOURCES,
        attempts=json.loads(row["attempts"]),
        sentence=codes.get(row["error"]),
        notes=usage.notes(row),
    )


ENDINGS = usage.ENDINGS | {"client_left": _l("The member's program hung up before the end.")}


# ---- files


@pages.get("/calls.csv")
def calls_csv():
    """The calls that fit the filters, as a file."""
    asked = wish()
    calls = None if asked.nobody else asked.only.calls()
    return call_file.download(asked.span, calls, call_file.COLUMNS)


@pages.get("/usage.csv")
def usage_csv():
    """What each member used in the span, as a file: for whoever settles accounts."""
    asked = wish()
    head = ["member", *usage.SUMS]
    rows = [] if asked.nobody else per_member(asked, -1)
    lines = [
        [
            row["name"],
            *(csv.money(row[name]) if name in usage.MONEY else row[name] for name in usage.SUMS),
        ]
        for row in rows
    ]
    return csv.download(f"usage-{asked.span.first}-{asked.span.last}", head, [lines])
