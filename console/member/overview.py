"""The overview: what a member has, has spent, and should do next.

Owns the member's home page. Refuses to compute charges: figures come from the roll-ups.
"""

from collections import defaultdict

from flask import Blueprint, render_template

from console import public
from console.context import member, state
from console.docs import snippets
from console.member import balances, credit, usage
from console.session import members_only
from console.ui import charts, date_range, format
from console.ui.i18n import gettext as _
from members import caps, tokens
from members.call_rows import COLUMNS

pages = Blueprint("overview", __name__, url_prefix="/console")

CALLS_SHOWN = 6
ENDING_MS = 7 * 86_400_000  # tokens that expire so soon are told of
BY_DAY = """
SELECT day, sum(calls) AS calls, sum(cost) AS cost, sum(charged_grant) AS grant, sum(charged_quota) AS quota,
       sum(charged_team) AS team, sum(charged_wallet) AS wallet
  FROM daily WHERE user_id = ? AND day BETWEEN ? AND ? GROUP BY day"""
NEWEST = f"SELECT {COLUMNS} FROM requests WHERE user_id = ? ORDER BY id DESC LIMIT {CALLS_SHOWN}"
TOKENS = "SELECT count(*) FROM tokens WHERE user_id = ? AND revoked_at IS NULL"


@pages.get("")
@members_only
def page():
    """Pockets, plan, the last 30 days, the newest calls, and first steps for who is new."""
    conn, span = state().db.read(), date_range.latest()
    rows = conn.execute(BY_DAY, (member().id, str(span.first), str(span.last))).fetchall()
    calls = conn.execute(NEWEST, (member().id,)).fetchall()
    has_tokens = conn.execute(TOKENS, (member().id,)).fetchone()[0] > 0
    has = balances.of(member().id)
    return render_template(
        "member/overview.html",
        has=has,
        calls=calls,
        outcomes=usage.OUTCOMES,
        has_tokens=has_tokens,
        is_new=not calls and not rows,
        is_stuck=credit.is_stuck(calls[0] if calls else None),
        answered=credit.answered(member().id),
        capped=capped(member().id),
        ending=tokens.ending(state().db, member().id, ENDING_MS),
        chart=spending(rows, span),
        spent=sum(row["cost"] for row in rows),
        count=sum(row["calls"] for row in rows),
        samples=public.filled([snippets.CURL], public.place(public.picked_model())),
        tools=snippets.TOOLS,
        plans_sold=any(plan.price for plan in state().settings.plans.values()),
    )


def capped(user_id: int) -> list[caps.Use]:
    """What of the caps that administrators set a member has used."""
    limits = caps.of(state().db, user_id)
    return caps.used(state().db, str(date_range.today()), user_id, (limits.day, limits.month))


def spending(rows, span: date_range.Span) -> charts.Chart:
    """What calls cost, day by day, stacked by who paid.

    What the grant paid is drawn at the price of those calls.
    """
    by_day = {row["day"]: row for row in rows}
    payers = {"grant": _("Token balance"), "quota": _("Plan quota"), "wallet": _("Wallet")}
    if any(row["team"] for row in rows):
        payers["team"] = _("Team wallet")
    points = []
    for name, days in span.points().items():
        sums = defaultdict(int)
        for row in (by_day[day] for day in days if day in by_day):
            sums["quota"] += row["quota"]
            sums["wallet"] += row["wallet"]
            sums["team"] += row["team"]
            sums["grant"] += row["cost"] - row["quota"] - row["team"] - row["wallet"]
        points.append((name, [sums[payer] for payer in payers]))
    return charts.stacked_bars(
        _("Cost of requests, by the balance that paid"),
        points,
        list(payers.values()),
        write=format.money_short,
    )
