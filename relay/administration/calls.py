"""What happened: calls, usage, and how the providers are."""

from datetime import date

from flask import request

import billing
from members import call_rows, tokens
from relay import errors
from relay.administration.shape import day_asked, limit_asked, listed, pockets, when, yuan
from relay.spine import Relay


def calls(relay: Relay, by: int) -> dict:
    """Calls, newest first: `?member=ID`, `?since=` and `?until=` days, `?model=`, `?outcome=`."""
    args, limit = request.args, limit_asked()
    asked = call_rows.CallFilter(
        args.get("member", None, int),
        model=args.get("model"),
        outcome=args.get("outcome"),
        since=day_asked(args.get("since")),
        until=day_asked(args.get("until")),
    )
    rows = call_rows.listed(relay.db, asked, limit, args.get("after"))
    return listed([_call(each) for each in rows], "id", limit)


def _call(row: dict) -> dict:
    money = ("cost", "upstream_cost")
    row |= {name: yuan(row[name]) for name in money}
    return row | {
        "created_at": when(row["created_at"]),
        "charged": pockets(billing.Pockets(**row["charged"])),
    }


def usage(relay: Relay, by: int) -> dict:
    """What was used from `?from=` to `?to=` (days of the site, both included), by member and model."""
    if not all(map(request.args.get, ("from", "to"))):
        raise errors.BadRequest("Give 'from' and 'to', days like 2026-11-30.", param="from")
    first, last = (str(date.fromisoformat(request.args[name])) for name in ("from", "to"))
    rows = tokens.used_between(relay.db, first, last)
    money = [{name: yuan(row[name]) for name in ("cost", "paid")} for row in rows]
    return {"data": [row | each for row, each in zip(rows, money, strict=True)], "next": None}


def upstreams(relay: Relay, by: int) -> dict:
    """How the providers are."""
    return {"data": relay.upstream_report(), "next": None}
