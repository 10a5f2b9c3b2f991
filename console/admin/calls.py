"""All calls: what the team used, by whom, and every single call.

Owns what administrators read of `requests` and `daily`. Figures of days come from the roll-ups,
which stay when old calls are forgotten.
"""

import json
from dataclasses import dataclass

from flask import abort, flash, redirect, render_template, request, url_for

import pricing
from console.admin.guard import pages
from console.context import state
from console.docs.pages import error_classes
from console.member import usage
from console.ui import call_file, csv, date_range
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from db import keyset
from members import accounts
from members.call_rows import first_id
from relay import pricelist

COLUMNS = (
    f"{usage.COLUMNS}, user_id, (SELECT name FROM users WHERE users.id = requests.user_id) AS user,"
    " (SELECT name FROM tokens WHERE tokens.id = token_id) AS token"
)
OUTCOMES = usage.OUTCOMES | {"client_left": (_l("Client left"), "")}
SHOWN = 10
SUMS = """
       sum(calls) AS calls, sum(refused) AS refused, sum(input_tokens) AS input_tokens,
       sum(cached_tokens) AS cached_tokens, sum(output_tokens) AS output_tokens, sum(cost) AS cost,
       sum(charged_grant) AS grant, sum(charged_quota) AS quota, sum(charged_wallet) AS wallet"""
PER_DAY = f"SELECT day, model, {SUMS} FROM daily WHERE {{where}} GROUP BY day, model"
# Member by member, because that is the order of the table.
PER_MEMBER = f"""
SELECT users.id AS id, name, {SUMS} FROM users CROSS JOIN daily ON daily.user_id = users.id WHERE {{where}}
 GROUP BY users.id ORDER BY sum(cost) DESC, sum(calls) DESC LIMIT :most"""


@dataclass(frozen=True)
class AllCallsFilter:
    """What is asked for: a span, one member or all, one model, one upstream, one outcome."""

    span: date_range.Span
    name: str
    who: accounts.Member | None
    model: str | None
    upstream: str | None
    outcome: str | None

    @property
    def values(self) -> dict:
        """What the queries need."""
        return {
            "user_id": self.who and self.who.id,
            "model": self.model,
            "upstream": self.upstream,
            "outcome": self.outcome,
            "first": str(self.span.first),
            "last": str(self.span.last),
        }

    @property
    def of_days(self) -> str:
        """The condition for roll-ups."""
        return (
            "day BETWEEN :first AND :last"
            + (" AND user_id = :user_id" if self.who else "")
            + (" AND model = :model" if self.model else "")
        )

    def calls(self, until: int | None = None) -> keyset.List:
        """The calls that fit, begun before `until` (ms)."""
        within = ["user_id = :user_id"] if self.who else []
        matching = [f"{name} = :{name}" for name in ("model", "upstream") if getattr(self, name)]
        if self.outcome == "open":
            within.append("closed_at IS NULL")
        elif self.outcome:
            matching.append("outcome = :outcome")
        table = "requests INDEXED BY requests_open" if self.outcome == "open" else "requests"
        return keyset.List(
            table,
            COLUMNS,
            "id",
            " AND ".join(within) or "1",
            " AND ".join(matching),
            self.values,
            first_id(self.span.since),
            first_id(min(until or self.span.until, self.span.until)),
        )


def wish() -> AllCallsFilter:
    """What the GET parameters ask for. A name that nobody has finds nothing."""
    name = request.args.get("member", "").strip()[:64]
    outcome = request.args.get("outcome")
    return AllCallsFilter(
        date_range.read(request.args),
        name,
        accounts.named(state().db, name) if name else None,
        request.args.get("model", "")[:200] or None,
        request.args.get("upstream", "")[:200] or None,
        outcome if outcome in OUTCOMES else None,
    )


@pages.get("/calls", endpoint="calls")
def page():
    """What the team used in a span of days, and its calls."""
    asked, conn = wish(), state().db.read()
    unknown = bool(asked.name) and asked.who is None
    before, after = request.args.get("before"), request.args.get("after")
    summed = not (unknown or asked.upstream or asked.outcome)  # roll-ups know nothing of these
    rows = (
        conn.execute(PER_DAY.format(where=asked.of_days), asked.values).fetchall() if summed else []
    )
    per_model = usage.sums_by(rows, "model")
    measure = (
        request.args.get("measure") if request.args.get("measure") in usage.MEASURES else "cost"
    )
    until = (
        usage.newest_use({row["day"] for row in rows}, before)
        if asked.model in per_model and not after
        else None
    )
    found = keyset.Page([]) if unknown else asked.calls(until).page(conn, before, after)
    members = per_member(asked, SHOWN) if summed and not asked.who else []
    return render_template(
        "admin/calls.html",
        asked=asked,
        unknown=unknown,
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


def _choices(asked: AllCallsFilter, per_model: dict) -> dict:
    """The selects of the filters; what is asked for is always among them."""
    models = sorted(filter(None, {*state().catalog.models, *per_model, asked.model}))
    demo = "demo" if state().catalog.demo else None
    upstreams = sorted(filter(None, {*state().catalog.upstreams, demo, asked.upstream}))
    return {
        "model": [("", _("All models")), *((name, name) for name in models)],
        "upstream": [("", _("All upstreams")), *((name, name) for name in upstreams)],
        "outcome": [("", _("All")), *((name, label) for name, (label, _look) in OUTCOMES.items())],
    }


def per_member(asked: AllCallsFilter, most: int) -> list:
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
        flash(_("There is no call with the id %(id)s.", id=wanted), "warn")
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
        token=row["token"],
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
    asked, time = wish(), csv.clock()
    batches = (
        [] if asked.name and asked.who is None else asked.calls().all(state().db.read(), csv.BATCH)
    )
    return csv.download(
        f"calls-{asked.span.first}-{asked.span.last}",
        call_file.COLUMNS,
        ([_line(row, time) for row in batch] for batch in batches),
    )


def _line(row, time: csv.Clock) -> list:
    attempts = len(json.loads(row["attempts"]))
    return call_file.line(
        {**row, "created_at": row["started_at"], "attempts": attempts}, call_file.COLUMNS, time
    )


@pages.get("/usage.csv")
def usage_csv():
    """What each member used in the span, as a file: for whoever settles accounts."""
    asked = wish()
    head = ["member", *usage.SUMS]
    rows = [] if asked.name and asked.who is None else per_member(asked, -1)
    lines = [
        [
            row["name"],
            *(
                csv.money(row[name]) if name in ("cost", "quota", "wallet") else row[name]
                for name in usage.SUMS
            ),
        ]
        for row in rows
    ]
    return csv.download(f"usage-{asked.span.first}-{asked.span.last}", head, [lines])
