"""How requests to the administrators' API are read, and how its answers look.

Owns pages, money, times and the errors of bodies; no topic.
"""

from datetime import UTC, date, datetime
from typing import Any

import msgspec
from flask import request

import billing
from members import accounts
from relay import errors
from relay.spine import Relay

PAGE, PAGE_MAX = 100, 1000


class RequestBody(msgspec.Struct, forbid_unknown_fields=True):
    """What a request may say; everything else is refused by name."""


def read(kind: Any) -> Any:
    try:
        return msgspec.json.decode(request.get_data() or b"{}", type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as err:
        raise errors.BadRequest(f"The body cannot be read: {err}.") from None


def idempotency_key() -> str | None:
    return request.headers.get("Idempotency-Key", "")[: billing.KEY_LENGTH_MAX] or None


def limit_asked() -> int:
    return min(max(1, request.args.get("limit", PAGE, int)), PAGE_MAX)


def listed(rows: list[dict], cursor: str, limit: int) -> dict:
    return {"data": rows, "next": rows[-1][cursor] if len(rows) == limit else None}


def when(at: int | None) -> str | None:
    return None if at is None else f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def day_asked(text: str | None) -> int | None:
    """The first moment (ms, UTC) of a day."""
    if not text:
        return None
    begun = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    return int(begun.timestamp() * 1000)


def yuan(nano: int | None) -> str | None:
    return None if nano is None else billing.yuan(nano)


def nano(text: str | None) -> int | None:
    return None if text is None else billing.nano(text)


def pockets(pockets: billing.Pockets) -> dict:
    return {
        "grant": pockets.grant,
        "quota": billing.yuan(pockets.quota),
        "wallet": billing.yuan(pockets.wallet),
    }


def member_of(relay: Relay, user_id: int) -> accounts.Member:
    found = accounts.find(relay.db, user_id)
    if found is None:
        raise errors.NotFound("There is no such member.")
    return found
