"""The statement: every movement of a member's pockets, listed.

Owns what is read of `entries`. They are written by `billing` alone.
"""

from db import keyset

COLUMNS = (
    "id, created_at, pocket, kind, amount, balance_after, request_id, subscription_id, note,"
    " by_user_id,"
    " (SELECT name FROM users WHERE users.id = by_user_id) AS by,"
    " member_id, (SELECT name FROM users WHERE users.id = member_id) AS member"
)
MATCHING = {"pocket": "pocket = :pocket", "kind": "kind = :kind", "since": "created_at >= :since"}


def listed(
    user_id: int, pocket: str | None = None, kind: str | None = None, since: int | None = None
) -> keyset.List:
    """A member's or a team's entries, each with the balance after it and with who posted it by hand;
    a team's with whose call it was: of one pocket or kind or all, made since a time (ms) or ever."""
    values = {"user_id": user_id, "pocket": pocket, "kind": kind, "since": since}
    matching = [how for name, how in MATCHING.items() if values[name] is not None]
    return keyset.List(
        "entries", COLUMNS, "id", "user_id = :user_id", " AND ".join(matching), values
    )
