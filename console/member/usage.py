"""Usage: the calls of a member, charts over them, and each call's price explained.

Owns what members read of `requests` and `daily`. Every query names the member; of somebody else's
calls it is as if they did not exist.
"""

import json
from collections import defaultdict
from dataclasses import dataclass

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for

import pricing
from console.context import member, state
from console.docs.pages import error_classes
from console.session import members_only
from console.ui import call_file, charts, date_range, format
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members.call_rows import COLUMNS, RUNNING, CallFilter, first_id
from pricing import PriceLine
from relay import pricelist

pages = Blueprint("usage", __name__, url_prefix="/console/usage")

MODELS_DRAWN = 5
OUTCOMES = {
    "complete": (_l("Complete"), "good"),
    "refused": (_l("Refused"), "warn"),
    "failed": (_l("Failed"), "bad"),
    "client_left": (_l("Client disconnected"), ""),
    "upstream_cut": (_l("Cut off by provider"), "warn"),
    "interrupted": (_l("Server restart"), "warn"),
    "open": (_l("Running"), "info"),
}
ENDINGS = {
    "complete": _l("The answer came in full."),
    "refused": _l("Rejected. You weren't charged."),
    "failed": _l("No provider answered. You weren't charged."),
    "client_left": _l("Your client disconnected before the end."),
    "upstream_cut": _l("The provider cut the answer off. You paid for what had arrived."),
    "interrupted": _l("The server restarted during the request. You weren't charged."),
    "open": _l("The request is running. What it may cost is on hold."),
}
SOURCES = {
    "upstream": _l("counted by the provider"),
    "estimated": _l("estimated by us"),
    "none": _l("not counted"),
}
MEASURES = {"cost": _l("Cost"), "llm": _l("Tokens"), "calls": _l("Requests")}
# What is added up over roll-ups: name -> column.
SUMS = {
    "calls": "calls",
    "refused": "refused",
    "input_tokens": "input_tokens",
    "cached_tokens": "cached_tokens",
    "output_tokens": "output_tokens",
    "cost": "cost",
    "grant": "charged_grant",
    "quota": "charged_quota",
    "wallet": "charged_wallet",
    "team": "charged_team",
}
MONEY = ("cost", "quota", "wallet", "team")  # those of them that are nano-yuan

SUMMED = ", ".join(f'sum({column}) AS "{name}"' for name, column in SUMS.items())
PER_DAY = f"SELECT day, model, {SUMMED} FROM daily WHERE {{where}} GROUP BY day, model"


@dataclass(frozen=True)
class Asked:
    """What a page of calls is asked to show: a span of days, and which calls of it.

    `name`: the member's, as it was typed; nobody has it if `only` names no member.
    """

    span: date_range.Span
    only: CallFilter
    name: str = ""

    @property
    def nobody(self) -> bool:
        return bool(self.name) and self.only.user_id is None

    @property
    def values(self) -> dict:
        """What the conditions need."""
        return self.only.values | {"first": str(self.span.first), "last": str(self.span.last)}

    @property
    def of_days(self) -> str:
        """The condition for roll-ups, which know no upstream and no outcome."""
        known = ("user_id", "token_id", "model")
        wanted = [f"{name} = :{name}" for name in known if getattr(self.only, name) is not None]
        return " AND ".join(["day BETWEEN :first AND :last", *wanted])

    def per_day(self) -> list:
        """The roll-ups of the span, by day and model."""
        return state().db.read().execute(PER_DAY.format(where=self.of_days), self.values).fetchall()


def wish() -> Asked:
    """What the GET parameters ask for. A token of somebody else is no token."""
    token_id = request.args.get("token", type=int)
    if token_id is not None and token_id not in token_names():
        abort(404)
    return asked_of_address(OUTCOMES, user_id=member().id, token_id=token_id)


def asked_of_address(outcomes: dict, name: str = "", **only) -> Asked:
    """The span, the model and the outcome that the GET parameters ask for, of calls of `only`."""
    span, outcome = date_range.read(request.args), request.args.get("outcome")
    only |= {
        "model": request.args.get("model", "")[:200] or None,
        "outcome": outcome if outcome in outcomes else None,
    }
    return Asked(span, CallFilter(**only, since=span.since, until=span.until), name)


def asked_measure() -> str:
    """What the chart is asked to draw."""
    measure = request.args.get("measure", "")
    return measure if measure in MEASURES else "cost"


def token_names() -> dict[int, str]:
    """The member's tokens, newest first, those revoked included: id -> name."""
    rows = (
        state()
        .db.read()
        .execute("SELECT id, name FROM tokens WHERE user_id = ? ORDER BY id DESC", (member().id,))
    )
    return dict(rows.fetchall())


@pages.get("")
@members_only
def page():
    """Figures and charts of a span of days, and its calls."""
    asked, conn = wish(), state().db.read()
    rows = asked.per_day()
    before, after = request.args.get("before"), request.args.get("after")
    known = models_used(asked)
    until = (
        None
        if after or not (asked.only.token_id or asked.only.model in known)
        else newest_use(days_of(rows), before)
    )
    measure = asked_measure()
    per_model = sums_by(rows, "model")
    return render_template(
        "member/usage.html",
        asked=asked,
        found=asked.only.calls(until).page(conn, before, after),
        tokens=token_names(),
        outcomes=OUTCOMES,
        measures=MEASURES,
        measure=measure,
        per_model=per_model,
        total=sum_up(rows),
        chart=chart(rows, asked.span, measure, per_model),
        presets=presets(),
        choices={
            "token": [("", _("All")), *token_names().items()],
            "model": [("", _("All")), *((name, name) for name in known)],
            "outcome": [
                ("", _("All")),
                *((name, text) for name, (text, _kind) in OUTCOMES.items()),
            ],
        },
        retention_days=state().settings.retention.requests_days,
    )


def models_used(asked: Asked) -> list[str]:
    """The models that were used in a span, by name."""
    rows = (
        state()
        .db.read()
        .execute(
            "SELECT DISTINCT model FROM daily WHERE user_id = :user_id"
            " AND day BETWEEN :first AND :last AND model <> '' ORDER BY model",
            asked.values,
        )
    )
    return [name for (name,) in rows.fetchall()]


def sum_up(rows) -> dict[str, int]:
    """All roll-ups in one."""
    return {name: sum(row[name] for row in rows) for name in SUMS}


def sums_by(rows, key: str) -> dict[str, dict[str, int]]:
    """The roll-ups of each value of a column, the dearest first."""
    groups = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    sums = {value: sum_up(group) for value, group in groups.items()}
    return dict(
        sorted(sums.items(), key=lambda pair: (-pair[1]["cost"], -pair[1]["calls"], pair[0]))
    )


def chart(rows, span: date_range.Span, measure: str, per_model: dict) -> charts.Chart:
    """Bars over the days, stacked by model: those used most, and the rest together."""
    size = {
        "cost": lambda sums: sums["cost"],
        "calls": lambda sums: sums["calls"],
        "llm": lambda sums: sums["input_tokens"] + sums["output_tokens"],
    }[measure]
    names = sorted(per_model, key=lambda name: -size(per_model[name]))
    drawn, rest = names[:MODELS_DRAWN], names[MODELS_DRAWN:]
    by_day = defaultdict(lambda: defaultdict(int))
    for row in rows:
        by_day[row["day"]][row["model"] if row["model"] in drawn else None] += size(row)
    series = [*drawn, None] if rest else drawn
    points = [
        (name, [sum(by_day[day][model] for day in days) for model in series])
        for name, days in span.points().items()
    ]
    titles = [_("others") if name is None else name or _("unknown model") for name in series] or [
        ""
    ]
    return charts.stacked_bars(
        str(MEASURES[measure]),
        points,
        titles,
        write=format.money_short if measure == "cost" else format.count,
    )


def days_of(rows) -> set[str]:
    """The days of these roll-ups, and those of calls that run, which are not rolled up yet."""
    table, condition = RUNNING
    running = (
        state()
        .db.read()
        .execute(f"SELECT day FROM {table} WHERE {condition} AND user_id = ?", (member().id,))
    )
    return {row["day"] for row in rows} | {day for (day,) in running.fetchall()}


def newest_use(days: set[str], before: str | None) -> int:
    """The end (ms) of the newest of these days that began before a call.

    What is later needs no look.
    """
    for day in sorted(days, reverse=True):
        since, until = date_range.day_bounds(day)
        if before is None or first_id(since) < before:
            return until
    return 1


def presets() -> list[tuple[str, date_range.Span]]:
    return [
        (_("Today"), date_range.latest(1)),
        (_("7 days"), date_range.latest(7)),
        (_("30 days"), date_range.latest(30)),
        (_("90 days"), date_range.latest(90)),
    ]


@pages.get("/calls.csv")
@members_only
def calls_csv():
    """The calls that fit the filters, as a file."""
    asked = wish()
    return call_file.download(asked.span, asked.only.calls(), call_file.MEMBERS_COLUMNS)


@pages.get("/find")
@members_only
def find():
    """From the request id that a tool shows to the call's page."""
    wanted = request.args.get("id", "").strip()[:100]
    if call_of(wanted) is None:
        flash(
            _(
                "None of your requests has the id %(id)s. Requests that were rejected have no row.",
                id=wanted,
            ),
            "warn",
        )
        return redirect(url_for("usage.page"))
    return redirect(url_for("usage.call", call_id=wanted))


@pages.get("/<call_id>")
@members_only
def call(call_id: str):
    """One call, its price line by line."""
    row = call_of(call_id) or abort(404)
    codes = {each.code: each.sentence for each in error_classes() if each.code}
    return render_template(
        "member/call.html",
        call=row,
        lines=price_lines(row),
        price=pricing.price_of(row),
        price_changes=pricelist.history(state().db, row["model"]),
        outcome=row["outcome"] or "open",
        outcomes=OUTCOMES,
        endings=ENDINGS,
        sources=SOURCES,
        attempts=json.loads(row["attempts"]),
        sentence=codes.get(row["error"]),
        notes=notes(row),
    )


@pages.get("/<call_id>/cost")
@members_only
def cost(call_id: str):
    """What a call of the model test cost, for its script; 202 while it has not been charged."""
    row = call_of(call_id)
    if row is None or row["closed_at"] is None:
        return {"closed": False}, 202 if row else 404
    return {
        "closed": True,
        "text": summary(row),
        "output_tokens": row["output_tokens"],
        "url": url_for("usage.call", call_id=call_id),
    }


def call_of(call_id: str):
    """The row of one of the member's calls, or None."""
    return (
        state()
        .db.read()
        .execute(
            f"SELECT {COLUMNS} FROM requests WHERE id = ? AND user_id = ?", (call_id, member().id)
        )
        .fetchone()
    )


def summary(row) -> str:
    """What a call cost and who paid, in a line."""
    if row["usage_source"] == "none":
        return _("Not charged")
    parts = [_("Price %(cost)s", cost=format.money(row["cost"]))]
    if row["charged_grant"]:
        parts.append(_("Token balance: %(n)s tokens", n=format.count(row["charged_grant"])))
    if row["charged_quota"]:
        parts.append(_("Plan quota: %(amount)s", amount=format.money(row["charged_quota"])))
    if row["charged_team"]:
        parts.append(_("Team wallet: %(amount)s", amount=format.money(row["charged_team"])))
    if row["charged_wallet"]:
        parts.append(_("Wallet: %(amount)s", amount=format.money(row["charged_wallet"])))
    parts.append(
        _(
            "%(given)s in, %(got)s out",
            given=format.count(row["input_tokens"]),
            got=format.count(row["output_tokens"]),
        )
    )
    if row["usage_source"] == "estimated":
        parts.append(_("estimated"))
    return " · ".join(parts)


def price_lines(row) -> list[PriceLine]:
    """How a call's price comes about, line by line."""
    if row["input_tokens"] is None:
        return []
    return pricing.lines(pricing.usage_of(row), pricing.price_of(row), row["charged_grant"])


_PARTS_CUT = _l(
    "The provider counted more input in its cache than input: it was cut to what is possible."
)
NOTES = {
    "input_tokens estimated": _l(
        "The provider gave no usable count of the input: it is our estimate."
    ),
    "output_tokens estimated": _l(
        "The provider gave no usable count of the output: it is our estimate."
    ),
    "input_tokens clamped": _l(
        "The provider counted more input than was sent: it was cut to what is possible."
    ),
    "output_tokens clamped": _l(
        "The provider counted more output than the model gives: it was cut to the limit."
    ),
    "cached_tokens clamped": _l(
        "The provider counted more cached input than input: it was cut to the input."
    ),
    "cache_read_tokens clamped": _PARTS_CUT,
    "cache_write_tokens clamped": _PARTS_CUT,
    "cache_write_1h_tokens clamped": _PARTS_CUT,
    "searches clamped": _l(
        "The provider counted more searches than one request can make: it was cut."
    ),
    "searches without a price": _l(
        "The provider searched for this request. The settings have no price for that: it cost nothing."
    ),
}


def notes(row) -> list:
    return [NOTES.get(note, note) for note in (row["usage_note"] or "").split(", ") if note]
