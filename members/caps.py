"""What administrators let a member spend, and on which models: a part of the pockets, not money.

Owns the rows of `caps`. They bind every token of the member, whatever the token itself says. That a
cap holds is `billing`'s, which counts what runs.
"""

import json
from dataclasses import dataclass

import billing
from db import Database
from members import audit


@dataclass(frozen=True, slots=True)
class Caps:
    """Nano-yuan a day and a month of the site's calendar, and ids of models; None: no limit."""

    day: int | None = None
    month: int | None = None
    models: tuple[str, ...] | None = None


def of(db: Database, user_id: int) -> Caps:
    """A member's caps."""
    row = db.one("SELECT cap_day, cap_month, models FROM caps WHERE user_id = ?", (user_id,))
    if row is None:
        return Caps()
    return Caps(row[0], row[1], tuple(json.loads(row[2])) if row[2] else None)


@dataclass(frozen=True, slots=True)
class Use:
    """How much of a cap is used: `span` is day or month, `left` below nothing where it was lowered."""

    span: str
    cap: int
    spent: int

    @property
    def left(self) -> int:
        return self.cap - self.spent


def used(
    db: Database,
    day: str,
    user_id: int,
    caps: tuple[int | None, int | None],
    token_id: int | None = None,
) -> list[Use]:
    """The use of those of a member's caps, or of a token's, that are set. `day` is the site's,
    YYYY-MM-DD; `caps` are those of the day and of the month, None: not set."""
    scope = "member" if token_id is None else "token"
    since = {"day": day, "month": f"{day[:7]}-01"}
    return [
        Use(span, cap, billing.spent(db.read(), scope, since[span], user_id, token_id))
        for span, cap in zip(("day", "month"), caps, strict=True)
        if cap is not None
    ]


def put(db: Database, user_id: int, caps: Caps, by: int | None = None) -> None:
    """Set a member's caps; `by` is the administrator, None the command line.

    Raises ValueError for what is no cap.
    """
    for amount in (caps.day, caps.month):
        if amount is not None and not 0 <= amount <= billing.AMOUNT_MAX:
            raise ValueError("a cap is an amount not below 0")
    models = json.dumps(sorted(set(caps.models))) if caps.models else None

    def write(conn) -> None:
        conn.execute(
            "INSERT INTO caps (user_id, cap_day, cap_month, models) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET cap_day = excluded.cap_day,"
            " cap_month = excluded.cap_month, models = excluded.models",
            (user_id, caps.day, caps.month, models),
        )
        detail = {"day": caps.day, "month": caps.month, "models": models}
        audit.record(conn, by, "user.cap", user_id, detail)

    db.write(write)
