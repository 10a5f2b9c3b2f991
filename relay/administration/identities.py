"""Who members are at an identity provider: listed, connected, disconnected."""

from typing import Annotated

import msgspec

from members import identities
from relay.administration.shape import (
    Address,
    Desk,
    Done,
    Listing,
    Query,
    RequestBody,
    cut,
    member_of,
    when,
)

Issuer = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class IdentityRecord(msgspec.Struct):
    """A person as an issuer knows them."""

    issuer: str
    subject: str
    name: str
    email: str
    created_at: str | None
    seen_at: str | None


class Named(RequestBody):
    """The issuer's address, or the header's name, and what it calls the person."""

    issuer: Issuer
    subject: Subject


class NamedInQuery(msgspec.Struct, forbid_unknown_fields=True):
    """The same in the address."""

    issuer: Issuer
    subject: Subject


def list_identities(desk: Desk, user_id: int) -> Listing[IdentityRecord]:
    """A member's identities, the oldest first."""
    found = identities.of(desk.db, member_of(desk, user_id).id)
    rest = (_record(each) for each in found[desk.query.after or 0 :])
    begin = desk.query.after or 0
    return cut(rest, desk.query.limit, lambda _last: begin + desk.query.limit)


def _record(each: identities.Identity) -> IdentityRecord:
    return IdentityRecord(
        each.issuer,
        each.subject,
        each.name,
        each.email,
        when(each.created_at),
        when(each.seen_at),
    )


def connect(desk: Desk, user_id: int) -> Done:
    """Let an identity come in as this member."""
    who, asked = member_of(desk, user_id), desk.body
    identities.connect(desk.db, who.id, asked.issuer, asked.subject, by=desk.by)
    return Done(who.id, "connected")


def disconnect(desk: Desk, user_id: int) -> Done:
    """Let it come in no more: all sessions of the member end."""
    who, asked = member_of(desk, user_id), desk.query
    identities.disconnect(desk.db, who.id, asked.issuer, asked.subject, by=desk.by)
    return Done(who.id, "disconnected")


OF = "/members/<int:user_id>/identities"
ADDRESSES = (
    Address("GET", OF, list_identities, Listing[IdentityRecord], query=Query),
    Address("POST", OF, connect, Done, Named),
    Address("DELETE", OF, disconnect, Done, query=NamedInQuery),
)
