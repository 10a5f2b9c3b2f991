"""What a provider bills for a month, for administrators: a page and its file."""

from collections import defaultdict

from flask import abort, render_template, request

from console.admin.guard import pages
from console.context import site, state
from console.ui import csv
from console.ui.i18n import gettext as _
from relay import bill as bills

HEAD = ["day", "model", "kind", "count", "upstream_cost", "charged", "difference"]


@pages.get("/upstreams/<name>/bill")
def upstream_bill(name: str) -> str:
    """The month by model and kind, and by day."""
    found, error = requested_bill(name)
    by_kind: dict[tuple[str, str], bills.Line] = defaultdict(bills.Line)
    by_day: dict[str, bills.Line] = defaultdict(bills.Line)
    for (day, model, kind), line in sorted(found.lines.items()):
        by_kind[model, kind].add(line.count, line.upstream_cost, line.charged)
        by_day[day].add(line.count, line.upstream_cost, line.charged)
    return render_template(
        "admin/bill.html",
        bill=found,
        error=error,
        by_kind=by_kind,
        by_day=by_day,
        unpaid=sum(line.upstream_cost for line in found.unpaid.values()),
        attempts=sum(found.attempts.values()),
    )


@pages.get("/upstreams/<name>/bill.csv")
def upstream_bill_csv(name: str):
    """The same day by day, as a file. Money in yuan."""
    found, _error = requested_bill(name)
    lines = [[row[column] for column in HEAD] for row in bills.rows(found, csv.money)]
    return csv.download(f"bill-{name}-{found.month}", HEAD, [lines])


def requested_bill(name: str) -> tuple[bills.Bill, str]:
    """The bill that is asked for, and what is wrong with the month; then it is this month's."""
    relay = state()
    if name not in relay.catalog.upstreams:
        abort(404)
    month, error = request.args.get("month", "").strip()[:10], ""
    if month:
        try:
            bills.bounds(month, site().timezone)
        except ValueError:
            month, error = "", _("Not a month: write it like 2026-11.")
    month = month or bills.this_month(site().timezone)
    return bills.of(relay.db, relay.catalog, name, month, site().timezone), error
