"""What happened: every call, and what was used by whom, of which model, on which day."""

import base64
import json
from datetime import date
from typing import Annotated, Any, Literal

import msgspec

import billing
from members import call_rows, usage
from relay.administration.shape import (
    PAGE,
    Address,
    Desk,
    Limit,
    Listing,
    PocketsRecord,
    begin_of,
    cut,
    missing,
    pockets,
    refuse,
    when,
    yuan,
)

CallId = Annotated[str, msgspec.Meta(pattern="^req_[0-9a-f]{1,60}$")]
MONEY = ("cost", "upstream_cost")
OUTCOMES = Literal[
    "complete", "refused", "failed", "client_left", "upstream_cut", "interrupted", "open"
]


class CallsQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Of a member or token (ids), a model or an upstream; ended so; begun from a day of the site on
    and before another."""

    limit: Limit = PAGE
    after: CallId | None = None
    member: int | None = None
    token: int | None = None
    model: str | None = None
    upstream: str | None = None
    outcome: OUTCOMES | None = None
    since: date | None = None
    until: date | None = None


class CallRecord(msgspec.Struct):
    """A call. Prices are nano-yuan an LLM token, as they were in force; costs are yuan. `message` is
    what a refused caller read; only the page of one call has it."""

    id: str
    user_id: int
    user: str | None
    token_id: int
    token: str | None
    wire: str
    model: str | None
    upstream: str | None
    outcome: str | None
    status: int | None
    error: str | None
    stream: bool
    created_at: str | None
    closed_at: str | None
    counts: dict[str, int | None]
    prices: dict[str, int | None]
    usage_source: str | None
    usage_note: str | None
    cost: str | None
    upstream_cost: str | None
    charged: PocketsRecord
    first_byte_ms: int | None
    duration_ms: int | None
    attempts: list[Any]
    message: str | msgspec.UnsetType | None = msgspec.UNSET


class UsageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Days of the site, both included; `by`: one or more of day, member, token, model, upstream,
    with commas. Upstreams are counted by day alone."""

    from_: date = msgspec.field(name="from")
    to: date
    by: str = "member,model"
    limit: Limit = PAGE
    after: str | None = None


class UsageRecord(msgspec.Struct):
    """What was used; what it is not counted by is null. `paid` is the part in money."""

    day: str | None
    member_id: int | None
    member: str | None
    token_id: int | None
    token: str | None
    model: str | None
    upstream: str | None
    calls: int
    refused: int | None
    input_tokens: int
    cached_tokens: int | None
    output_tokens: int
    cost: str | None
    paid: str | None


def calls(desk: Desk) -> Listing[CallRecord]:
    """Calls, newest first."""
    asked = desk.query
    wanted = call_rows.CallFilter(
        asked.member,
        asked.token,
        asked.model,
        asked.upstream,
        asked.outcome,
        begin_of(desk, asked.since),
        begin_of(desk, asked.until),
    )
    rows = call_rows.listed(desk.db, wanted, asked.limit + 1, asked.after)
    return cut(map(_call, rows), asked.limit, lambda each: each.id)


def call(desk: Desk, call_id: str) -> CallRecord:
    """One call, with all that is known of it."""
    found = call_rows.find(desk.db, call_id)
    if found is None:
        raise missing("request")
    return _call(found)


def _call(row: dict) -> CallRecord:
    counts = {name: row.pop(name) for name in billing.COUNTS}
    prices = {name: row.pop(name) for name in billing.PRICES}
    row |= {name: yuan(row[name]) for name in MONEY}
    row |= {name: when(row[name]) for name in ("created_at", "closed_at")}
    charged = pockets(billing.Pockets(**row["charged"]))
    return CallRecord(**(row | {"counts": counts, "prices": prices, "charged": charged}))


def used(desk: Desk) -> Listing[UsageRecord]:
    """What was used on the days from `?from=` to `?to=`, grouped."""
    asked = desk.query
    groups = tuple(dict.fromkeys(each.strip() for each in asked.by.split(",")))
    try:
        rows = usage.between(desk.db, str(asked.from_), str(asked.to), groups)
    except ValueError as err:
        refuse(f"by: {err}.", "by")
    after = _cursor_read(asked.after, len(groups))
    keyed = ((usage.key(row, groups), row) for row in rows)
    rest = (row for key, row in keyed if after is None or key > after)
    page = cut(rest, asked.limit, lambda row: _cursor(usage.key(row, groups)))
    return Listing([_usage(row) for row in page.data], page.next)


def _usage(row: dict) -> UsageRecord:
    said = dict.fromkeys(UsageRecord.__struct_fields__) | row
    return UsageRecord(**(said | {name: yuan(said[name]) for name in ("cost", "paid")}))


def _cursor(key: tuple) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _cursor_read(text: str | None, parts: int) -> tuple | None:
    if text is None:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(text))
    except ValueError:
        key = None
    if not isinstance(key, list) or len(key) != parts or not all(isinstance(k, str) for k in key):
        refuse("after: this is no cursor of this list.", "after")
    return tuple(key)


ADDRESSES = (
    Address("GET", "/calls", calls, Listing[CallRecord], query=CallsQuery),
    Address("GET", "/calls/<call_id>", call, CallRecord),
    Address("GET", "/usage", used, Listing[UsageRecord], query=UsageQuery),
)
