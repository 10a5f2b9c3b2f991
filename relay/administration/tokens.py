"""Tokens of members: made, listed, changed, renewed, revoked."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from members import terms, tokens
from relay.administration.shape import (
    Address,
    Desk,
    Done,
    Listing,
    Query,
    RequestBody,
    cut,
    member_of,
    missing,
    moment,
    nano,
    when,
    yuan,
)

MONEY = ("cap_day", "cap_month")


class TokenRecord(msgspec.Struct):
    """A token, with what was used of it; its secret is not to be had."""

    id: int
    name: str
    hint: str
    scope: str | None
    models: list[str] | None
    rpm: int | None
    tpm: int | None
    calls_at_once: int | None
    cap_day: str | None
    cap_month: str | None
    addresses: list[str] | None
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    calls: int
    cost: str | None


class Secret(msgspec.Struct):
    """A token's secret, which is in this answer and never again."""

    id: int
    name: str
    token: str


class NewToken(RequestBody):
    """A token for calls, or with `scope` admin for this API alone."""

    name: str
    scope: str | None = None
    models: list[str] = []
    rpm: int | None = None
    tpm: int | None = None
    calls_at_once: int | None = None
    cap_day: str | None = None
    cap_month: str | None = None
    addresses: list[str] = []
    expires_at: str | None = None


class TokenChange(RequestBody):
    """What is left out stays as it is; null lifts a limit."""

    name: str | UnsetType = UNSET
    models: list[str] | UnsetType | None = UNSET
    rpm: int | UnsetType | None = UNSET
    tpm: int | UnsetType | None = UNSET
    calls_at_once: int | UnsetType | None = UNSET
    cap_day: str | UnsetType | None = UNSET
    cap_month: str | UnsetType | None = UNSET
    addresses: list[str] | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET


class Rotation(RequestBody):
    """`keep`: the old secret is good for an hour more."""

    keep: bool = False


class Cleared(msgspec.Struct):
    """How many tokens were cleared away."""

    count: int


def _record(row: dict) -> TokenRecord:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    said = {name: when(row[name]) for name in times}
    said |= {name: yuan(row[name]) for name in (*MONEY, "cost")}
    return TokenRecord(**(row | said))


def _limits(desk: Desk, said: dict[str, Any]) -> dict[str, Any]:
    """The limits that a body says, as `members.tokens` takes them."""
    terms.check_models(desk.settings, said.get("models") or ())
    read = {name: nano(said[name], name) for name in MONEY if name in said}
    if "expires_at" in said:
        read["expires_at"] = moment(desk, said["expires_at"], "expires_at")
    return said | read


def list_tokens(desk: Desk, user_id: int) -> Listing[TokenRecord]:
    """A member's tokens, newest first, with what was used of them."""
    after = desk.query.after
    found = tokens.tokens(desk.db, member_of(desk, user_id).id)
    rest = (_record(each) for each in found if after is None or each["id"] < after)
    return cut(rest, desk.query.limit, lambda each: each.id)


def add_token(desk: Desk, user_id: int) -> Secret:
    """A new token. Its secret is in this answer and never again."""
    who = member_of(desk, user_id)
    limits = _limits(desk, msgspec.structs.asdict(desk.body))
    if limits["scope"] not in (None, "admin"):
        raise tokens.TokenError("The scope is 'admin', or is left out.", "scope")
    token_id, raw = tokens.mint(
        desk.db,
        who.id,
        limits.pop("name"),
        tokens_max=desk.settings.accounts.tokens_max,
        by=desk.by,
        key=desk.key,
        **limits,
    )
    return Secret(token_id, desk.body.name, raw)


def _unrevoked(desk: Desk, user_id: int, token_id: int) -> dict:
    """One of a member's tokens that is not revoked. Raises NotFound."""
    found = tokens.tokens(desk.db, member_of(desk, user_id).id)
    for each in found:
        if each["id"] == token_id and each["revoked_at"] is None:
            return each
    raise missing("API key that is not revoked")


def change_token(desk: Desk, user_id: int, token_id: int) -> TokenRecord:
    """Another name, other limits."""
    known = _unrevoked(desk, user_id, token_id)
    asked = msgspec.structs.asdict(desk.body)
    said = {name: value for name, value in asked.items() if value is not UNSET}
    kept = {name: known[name] for name in asked}
    limits = kept | _limits(desk, said)
    tokens.change(desk.db, user_id, token_id, limits.pop("name"), by=desk.by, **limits)
    return _record(_unrevoked(desk, user_id, token_id))


def rotate_token(desk: Desk, user_id: int, token_id: int) -> Secret:
    """A new secret for the same token. It is in this answer and never again."""
    known, keep_s = _unrevoked(desk, user_id, token_id), tokens.KEPT_S if desk.body.keep else 0
    raw = tokens.rotate(desk.db, user_id, token_id, keep_s, by=desk.by, key=desk.key)
    if raw is None:
        raise missing("API key that is not revoked")
    return Secret(token_id, known["name"], raw)


def revoke_token(desk: Desk, user_id: int, token_id: int) -> Done:
    """The next request with it is refused."""
    if not tokens.revoke(desk.db, token_id, member_of(desk, user_id).id, by=desk.by):
        raise missing("API key that is not revoked")
    return Done(token_id, "revoked")


def clear_tokens(desk: Desk, user_id: int) -> Cleared:
    """Put a member's tokens that have expired away."""
    return Cleared(tokens.clear_expired(desk.db, member_of(desk, user_id).id, by=desk.by))


OF = "/members/<int:user_id>/tokens"
ONE = f"{OF}/<int:token_id>"
ADDRESSES = (
    Address("GET", OF, list_tokens, Listing[TokenRecord], query=Query),
    Address("POST", OF, add_token, Secret, NewToken, status=201, keyed=True),
    Address("PATCH", ONE, change_token, TokenRecord, TokenChange),
    Address("POST", f"{ONE}/rotate", rotate_token, Secret, Rotation, keyed=True),
    Address("DELETE", ONE, revoke_token, Done),
    Address("POST", f"{OF}/clear", clear_tokens, Cleared, RequestBody),
)
