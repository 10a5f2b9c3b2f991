"""Codes: made in bulk, shown once, listed, revoked."""

from typing import Annotated, Literal

import msgspec

import codes
from members import terms
from relay.administration.shape import (
    Address,
    Desk,
    Done,
    Listing,
    Query,
    RequestBody,
    amount,
    missing,
    moment,
    nano,
    page_of,
    refuse,
    when,
    yuan,
)


class CodesQuery(Query):
    """In one of these states; left out: all."""

    state: Literal["unused", "redeemed", "expired", "revoked"] | None = None


class NewCodes(RequestBody):
    """What each is worth: yuan, LLM tokens, or a plan; how many, until when (a time or a whole day)."""

    wallet: str | None = None
    grant: int | None = None
    plan: str | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=codes.MADE_MAX)] = 1
    expires_at: str | None = None
    note: Annotated[str, msgspec.Meta(max_length=200)] | None = None


class MadeCodes(msgspec.Struct):
    """The codes, which are in this answer and never again."""

    codes: list[str]


class CodeRecord(msgspec.Struct):
    """A code without its secret letters."""

    id: int
    hint: str
    kind: str
    amount: int | str | None
    plan: str | None
    quota: str | None
    days: int | None
    note: str | None
    state: str
    created_at: str | None
    created_by: str | None
    expires_at: str | None
    revoked_at: str | None
    redeemed_at: str | None
    redeemed_by: str | None


def list_codes(desk: Desk) -> Listing[CodeRecord]:
    """Codes without their secret letters, newest first."""
    found = codes.listed(desk.query.state)
    return page_of(found.walk(desk.db.read(), desk.query.after, desk.query.limit), _record)


def _record(row: dict) -> CodeRecord:
    said = dict(row) | {"state": codes.state_of(row), "quota": yuan(row["quota"])}
    said["amount"] = amount(row["kind"], row["amount"])
    for name in ("created_at", "expires_at", "revoked_at", "redeemed_at"):
        said[name] = when(row[name])
    return CodeRecord(**{name: said[name] for name in CodeRecord.__struct_fields__})


def add_codes(desk: Desk) -> MadeCodes:
    """Make codes. They are in this answer and never again."""
    asked = desk.body
    given = {"wallet": nano(asked.wallet, "wallet"), "grant": asked.grant, "plan": asked.plan}
    worth = {kind: value for kind, value in given.items() if value is not None}
    if len(worth) != 1:
        refuse("Give one of 'wallet', 'grant' and 'plan'.", "wallet")
    ((kind, value),) = worth.items()
    said = terms.of_plan(desk.settings, value) if kind == "plan" else {"amount": value}
    until = moment(desk, asked.expires_at, "expires_at")
    made = codes.make(
        desk.db,
        kind,
        asked.count,
        expires_at=until,
        note=asked.note,
        by=desk.by,
        key=desk.key,
        **said,
    )
    return MadeCodes(made)


def revoke_code(desk: Desk, code_id: int) -> Done:
    """Make an unused code worthless."""
    if not codes.revoke(desk.db, code_id, by=desk.by):
        raise missing("code that could still be used")
    return Done(code_id, "revoked")


ADDRESSES = (
    Address("GET", "/codes", list_codes, Listing[CodeRecord], query=CodesQuery),
    Address("POST", "/codes", add_codes, MadeCodes, NewCodes, status=201, keyed=True),
    Address("DELETE", "/codes/<int:code_id>", revoke_code, Done),
)
