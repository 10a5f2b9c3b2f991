"""Tokens of members."""

from datetime import UTC, datetime

import msgspec

from members import tokens
from relay import errors
from relay.administration.shape import RequestBody, member_of, nano, read, when, yuan
from relay.spine import Relay


class NewToken(RequestBody):
    name: str
    models: list[str] = []
    rpm: int | None = None
    tpm: int | None = None
    calls_at_once: int | None = None
    cap_day: str | None = None
    cap_month: str | None = None
    addresses: list[str] = []
    expires_at: str | None = None


def _token(row: dict) -> dict:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    money = ("cap_day", "cap_month", "cost")
    return {
        name: when(value) if name in times else yuan(value) if name in money else value
        for name, value in row.items()
    }


def list_tokens(relay: Relay, by: int, user_id: int) -> dict:
    """A member's tokens, newest first, with what was used of them."""
    found = tokens.tokens(relay.db, member_of(relay, user_id).id)
    return {"data": [_token(each) for each in found], "next": None}


def add_token(relay: Relay, by: int, user_id: int) -> tuple[dict, int]:
    """A new token for calls. Its secret is in this answer and never again."""
    who, asked = member_of(relay, user_id), read(NewToken)
    if unknown := sorted(set(asked.models) - {each.id for each in relay.settings.models}):
        raise errors.BadRequest(f"There is no model {', '.join(unknown)}.", param="models")
    limits = msgspec.structs.asdict(asked)
    del limits["name"]
    limits |= {name: nano(limits[name]) for name in ("cap_day", "cap_month")}
    if asked.expires_at is not None:
        ends = datetime.fromisoformat(asked.expires_at)
        ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
        limits["expires_at"] = int(ends.timestamp() * 1000)
    most = relay.settings.accounts.tokens_max
    token_id, raw = tokens.mint(relay.db, who.id, asked.name, tokens_max=most, **limits)
    return {"id": token_id, "name": asked.name, "token": raw}, 201


def revoke_token(relay: Relay, by: int, user_id: int, token_id: int) -> dict:
    """The next request with it is refused."""
    if not tokens.revoke(relay.db, token_id, member_of(relay, user_id).id, by=by):
        raise errors.NotFound("There is no such API key that is not revoked.")
    return {"id": token_id, "revoked": True}
