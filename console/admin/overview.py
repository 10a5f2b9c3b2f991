"""Administration's first page: what needs somebody, and the month.

Owns the question "who spent what on which model, and will it last?". Figures come from the
roll-ups; what they do not hold (how calls ended, how soon they began) from the newest calls, a
bounded number of them.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from statistics import median

from flask import flash, render_template, request, url_for

import billing
from console.admin.guard import pages, recently_authenticated
from console.context import member, state
from console.member import credit, usage
from console.session import back_to
from console.ui import charts, csv, date_range, format
from console.ui.forms import typed_number
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import budget, credit_requests
from members.call_rows import first_id

GROUPS = {
    "model": _l("Model"),
    "member": _l("Member"),
    "token": _l("API key"),
    "upstream": _l("Upstream"),
}
MEASURES = usage.MEASURES | {"first_byte": _l("First byte")}
NAMED = {  # group -> what a roll-up is called by
    "model": "model",
    "member": "(SELECT name FROM users WHERE users.id = user_id)",
    "token": "(SELECT name || ' #' || id FROM tokens WHERE tokens.id = token_id)",
}
NAMED_CALL = {  # the same of a call's row
    "model": "coalesce(model, '')",
    "member": NAMED["member"],
    "token": NAMED["token"],
    "upstream": "upstream",
}
TIMED_MAX = 200  # calls of a day that are looked at for how soon they began
DAYS_TIMED_MAX = 93
NEWEST_MAX = 2_000  # calls that are looked at for how they ended
MEMBERS_SHOWN, MODELS_SHOWN = 15, 6
REFUSED_DAYS = 7
ENDING_DAYS = 7

PER_DAY = """
SELECT day, {name} AS name, sum(calls) AS calls, sum(input_tokens + output_tokens) AS llm,
       sum(cost) AS cost FROM daily WHERE day BETWEEN ? AND ? GROUP BY day, name"""
PER_DAY_OF_UPSTREAMS = """
SELECT day, upstream AS name, calls, input_tokens + output_tokens AS llm, cost
  FROM daily_upstreams WHERE day BETWEEN ? AND ?"""
TIMED = f"""
SELECT {{name}} AS name, first_byte_ms FROM requests
 WHERE id >= ? AND id < ? AND first_byte_ms IS NOT NULL ORDER BY id DESC LIMIT {TIMED_MAX}"""
TOTALS = """
SELECT coalesce(sum(calls), 0), coalesce(sum(refused), 0), coalesce(sum(input_tokens), 0),
       coalesce(sum(cached_tokens), 0), coalesce(sum(cost), 0),
       coalesce(sum(charged_quota + charged_team + charged_wallet), 0)
  FROM daily WHERE day BETWEEN ? AND ?"""
CELLS = """
SELECT (SELECT name FROM users WHERE users.id = user_id), model, sum(calls), sum(input_tokens),
       sum(output_tokens), sum(cost), sum(charged_quota + charged_team + charged_wallet)
  FROM daily WHERE day BETWEEN ? AND ? GROUP BY user_id, model"""
NEWEST = f"""
SELECT outcome, first_byte_ms FROM requests WHERE id >= ? AND id < ? AND closed_at IS NOT NULL
 ORDER BY id DESC LIMIT {NEWEST_MAX}"""
REFUSED = """
SELECT user_id, (SELECT name FROM users WHERE users.id = user_id) AS name, sum(refused) AS refused
  FROM daily WHERE day >= ? AND refused > 0 GROUP BY user_id ORDER BY sum(refused) DESC LIMIT 50"""
LAST_CALL = (
    "SELECT id, outcome, error, started_at FROM requests WHERE user_id = ? ORDER BY id DESC LIMIT 1"
)
ENDING = """
SELECT user_id, (SELECT name FROM users WHERE users.id = user_id) AS name, plan, ends_at
  FROM subscriptions AS s WHERE ends_at BETWEEN ? AND ? AND renew = 0
   AND NOT EXISTS (SELECT 1 FROM subscriptions AS later
                    WHERE later.user_id = s.user_id AND later.ends_at > s.ends_at)
 ORDER BY ends_at LIMIT 20"""


@dataclass(frozen=True)
class Matrix:
    """Cost by member and model, the dearest first; None among the models: all others together."""

    models: list[str | None]
    rows: list[tuple[str, list[int], int]]  # the member's name, a cell a model, the sum
    sums: list[int]
    others: int  # members that are not shown


@pages.get("/", endpoint="overview")
def page():
    """What needs somebody, then a span of days, this month unless another is asked for."""
    span, conn = asked_span(), state().db.read()
    days = str(span.first), str(span.last)
    group = request.args.get("by") if request.args.get("by") in GROUPS else "model"
    measure = request.args.get("measure")
    measure = measure if measure in MEASURES else "cost"
    cap = state().settings.site.cap_month
    calls, refused, read, cached, cost, paid = conn.execute(TOTALS, days).fetchone()
    return render_template(
        "admin/overview.html",
        todo=todo(),
        waiting=credit_requests.waiting(state().db),
        span=span,
        presets=presets(),
        total={"calls": calls, "refused": refused, "cost": cost, "paid": paid},
        cached=cached / read if read else None,
        newest=newest(span),
        budget=budget.of(state().db, date_range.today(), cap and billing.nano(cap)),
        group=group,
        groups=GROUPS,
        measure=measure,
        measures=MEASURES,
        chart=first_bytes(span, group) if measure == "first_byte" else chart(span, group, measure),
        timed=TIMED_MAX,
        matrix=matrix(conn.execute(CELLS, days).fetchall()),
    )


def asked_span() -> date_range.Span:
    """The days that the address asks for; else this month."""
    given = request.args.get("from") or request.args.get("to")
    return date_range.read(request.args) if given else date_range.month()


def presets() -> list[tuple[str, date_range.Span]]:
    return [
        (_("This month"), date_range.month()),
        (_("Last month"), date_range.month(1)),
        (_("7 days"), date_range.latest(7)),
        (_("30 days"), date_range.latest(30)),
    ]


# ---- what needs somebody


def todo() -> list[dict]:
    """What somebody should do, most urgent first: `look` and `label` of a badge, `text`, `links`."""
    return [*_stuck(), *_failing(), *_ending(), *_missing()]


def _stuck() -> list[dict]:
    """Members whose newest call was refused for money."""
    conn = state().db.read()
    since = str(date_range.today() - timedelta(REFUSED_DAYS - 1))
    found = []
    for row in conn.execute(REFUSED, (since,)).fetchall():
        if credit.is_stuck(conn.execute(LAST_CALL, (row["user_id"],)).fetchone()):
            text = _(
                "%(name)s is stuck: %(n)s requests were refused in 7 days, the newest for money.",
                name=row["name"],
                n=format.count(row["refused"]),
            )
            here = url_for("admin.member", user_id=row["user_id"])
            calls = url_for("admin.calls", member=row["name"], outcome="refused")
            links = [(_("Credit"), f"{here}#credit"), (_("Look"), calls)]
            found.append({"look": "bad", "label": _("stuck"), "text": text, "links": links})
    return found


def _failing() -> list[dict]:
    """Providers that rest, with why."""
    found = []
    for each in state().upstream_report():
        resting = ", ".join(each.get("resting", ()))  # a key or a model of one that goes on
        if each["state"] in ("ok", "keyless") and not resting:
            continue
        text = _(
            "%(name)s does not answer properly: %(why)s.",
            name=each["name"],
            why=resting or each.get("last_words") or each.get("last_error") or each["state"],
        )
        links = [(_("Look"), url_for("admin.upstream", name=each["name"]))]
        found.append({"look": "bad", "label": _("provider"), "text": text, "links": links})
    return found


def _ending() -> list[dict]:
    """Plans that end soon and do not renew by themselves."""
    now = billing.now_ms()
    rows = state().db.read().execute(ENDING, (now, now + ENDING_DAYS * 86_400_000)).fetchall()
    found = []
    for row in rows:
        text = _(
            "The plan %(plan)s of %(name)s ends on %(day)s.",
            plan=row["plan"],
            name=row["name"],
            day=format.local(row["ends_at"]).date(),
        )
        links = [(_("Look"), url_for("admin.member", user_id=row["user_id"]) + "#plan")]
        found.append({"look": "warn", "label": _("ends"), "text": text, "links": links})
    return found


def _missing() -> list[dict]:
    """What is not set up yet."""
    keyless = [each["name"] for each in state().upstream_report() if each["state"] == "keyless"]
    usable = len(state().catalog.upstreams) - len(keyless)
    if state().catalog.demo or not usable:
        text = _("No provider is connected yet, so a built-in demonstration answers.")
        links = [(_("Connect a provider"), url_for("admin.connect"))]
        return [{"look": "", "label": _("set-up"), "text": text, "links": links}]
    return []


# ---- requests for credit


@pages.post("/credit-requests/<int:request_id>", endpoint="decide_credit")
@recently_authenticated
def decide(request_id: int):
    """Grant a request, with its amount or another, or decline it: whoever is first decides."""
    try:
        given = (
            0
            if request.form.get("decline")
            else billing.nano(typed_number(request.form.get("amount", "")))
        )
        if not given and not request.form.get("decline"):
            raise ValueError("an amount")
        made = credit_requests.decide(
            state().db, request_id, given, request.form.get("reason", ""), by=member().id
        )
    except ValueError:
        flash(_("An amount such as 10 or 10.50."), "bad")
    except credit_requests.CreditRequestError as err:
        flash(_(str(err)), "warn")
    else:
        said = (
            _("%(name)s has %(amount)s more.", name=made.name, amount=format.money(given))
            if given
            else _("The request of %(name)s is declined.", name=made.name)
        )
        flash(said, "good")
    return back_to("admin.overview")


SAID = (
    _l("This request is decided already, or there is none."),
    _l("Give more than nothing, and not an absurd amount."),
)


# ---- figures


def newest(span: date_range.Span) -> dict:
    """How the newest calls of the span ended, and how soon they began to answer (ms)."""
    ids = first_id(span.since), first_id(span.until)
    rows = state().db.read().execute(NEWEST, ids).fetchall()
    served = [row for row in rows if row["outcome"] != "refused"]
    good = sum(row["outcome"] in ("complete", "client_left") for row in served)
    times = sorted(row["first_byte_ms"] for row in rows if row["first_byte_ms"] is not None)
    return {
        "count": len(rows),
        "success": good / len(served) if served else None,
        "p50": times[len(times) // 2] if times else None,
        "p95": times[min(len(times) - 1, len(times) * 95 // 100)] if times else None,
    }


def chart(span: date_range.Span, group: str, measure: str) -> charts.Chart:
    """Bars over the days, stacked by group."""
    sql = PER_DAY_OF_UPSTREAMS if group == "upstream" else PER_DAY.format(name=NAMED[group])
    rows = state().db.read().execute(sql, (str(span.first), str(span.last))).fetchall()
    sizes: dict = defaultdict(int)
    for row in rows:
        sizes[row["name"]] += row[measure]
    names = sorted(sizes, key=lambda name: (-sizes[name], name or ""))
    drawn = names[: usage.MODELS_DRAWN]
    by_day: dict = defaultdict(lambda: defaultdict(int))
    for row in rows:
        by_day[row["day"]][row["name"] if row["name"] in drawn else None] += row[measure]
    series = [*drawn, None] if len(names) > len(drawn) else drawn
    points = [
        (name, [sum(by_day[day][each] for day in days) for each in series])
        for name, days in span.points().items()
    ]
    titles = [_("others") if each is None else each or _("unknown model") for each in series]
    return charts.stacked_bars(
        str(usage.MEASURES[measure]),
        points,
        titles or [""],
        write=format.money_short if measure == "cost" else format.count,
    )


def first_bytes(span: date_range.Span, group: str) -> charts.Chart:
    """Lines over the days: the median time to the first byte of each day's newest calls."""
    conn, sql = state().db.read(), TIMED.format(name=NAMED_CALL[group])
    by_day: dict = {}
    counts: dict = defaultdict(int)
    for number in range(min(DAYS_TIMED_MAX, (span.last - span.first).days + 1)):
        day = span.last - timedelta(number)
        ends = map(first_id, date_range.day_bounds(str(day)))
        times: dict = defaultdict(list)
        for name, took in conn.execute(sql, tuple(ends)).fetchall():
            times[name].append(took)
            counts[name] += 1
        by_day[day] = {name: int(median(each)) for name, each in times.items()}
    drawn = sorted(counts, key=lambda name: (-counts[name], name or ""))[: usage.MODELS_DRAWN]
    points = [(str(day)[5:], [by_day[day].get(name) for name in drawn]) for day in sorted(by_day)]
    titles = [each or _("unknown model") for each in drawn]
    return charts.lines(str(MEASURES["first_byte"]), points, titles or [""], write=format.duration)


def matrix(cells) -> Matrix:
    """The cost of members by models."""
    by_member: dict = defaultdict(lambda: defaultdict(int))
    by_model: dict = defaultdict(int)
    for name, model, *_counts, cost, _paid in cells:
        by_member[name][model] += cost
        by_model[model] += cost
    models = sorted(by_model, key=lambda each: (-by_model[each], each))
    shown: list[str | None] = [*models[:MODELS_SHOWN]]
    if len(models) > MODELS_SHOWN:
        shown.append(None)

    def cell(costs, model) -> int:
        if model is not None:
            return costs[model]
        return sum(cost for each, cost in costs.items() if each not in shown)

    members = sorted(by_member, key=lambda name: (-sum(by_member[name].values()), name))
    rows = [
        (
            name,
            [cell(by_member[name], model) for model in shown],
            sum(by_member[name].values()),
        )
        for name in members[:MEMBERS_SHOWN]
    ]
    sums = [cell(by_model, model) for model in shown]
    return Matrix(shown, rows, sums, max(0, len(members) - MEMBERS_SHOWN))


@pages.get("/overview.csv")
def overview_csv():
    """Who spent what on which model in the span, as a file."""
    span = asked_span()
    cells = state().db.read().execute(CELLS, (str(span.first), str(span.last))).fetchall()
    head = ["member", "model", "calls", "input_tokens", "output_tokens", "cost", "paid_in_money"]
    lines = [
        [*row[:2], *map(csv.Number, map(str, row[2:5])), csv.money(row[5]), csv.money(row[6])]
        for row in sorted(cells, key=lambda row: (row[0], row[1]))
    ]
    return csv.download(f"spending-{span.first}-{span.last}", head, [lines])
