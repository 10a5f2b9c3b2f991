"""Members ask for money, and administrators decide: once, whoever is first.

Owns the rows of `credit_requests`. The money itself moves through `billing`, in the transaction that
decides, so that a request is never granted twice nor granted and not paid.

    CreditRequestError   what was asked cannot be done; the message is a sentence for who asked
"""

from dataclasses import dataclass

import billing
from db import Database, IntegrityError
from members import audit

NOTE_LENGTH_MAX = 500
OF_DAY_MAX = 5  # requests of one member
DAY_MS = 86_400_000

LISTED = """
SELECT r.id, r.user_id, users.name, r.amount, r.note, r.created_at, r.decided_at,
       (SELECT name FROM users WHERE users.id = r.decided_by) AS decided_by, r.given, r.reason
  FROM credit_requests AS r JOIN users ON users.id = r.user_id"""


class CreditRequestError(Exception):
    """What was asked cannot be done."""


@dataclass(frozen=True, slots=True)
class CreditRequest:
    """Amounts in nano-yuan, times in ms. `given` None: nobody has decided yet; 0: declined."""

    id: int
    user_id: int
    name: str
    amount: int
    note: str
    created_at: int
    decided_at: int | None = None
    decided_by: str | None = None
    given: int | None = None
    reason: str | None = None


def waiting(db: Database) -> list[CreditRequest]:
    """Those that nobody has decided, the oldest first; of members who may still sign in."""
    rows = db.read().execute(
        f"{LISTED} WHERE decided_at IS NULL AND users.disabled_at IS NULL ORDER BY r.id LIMIT 200"
    )
    return [CreditRequest(*row) for row in rows.fetchall()]


def newest(db: Database, user_id: int) -> CreditRequest | None:
    """What a member asked last, decided or not."""
    row = db.one(f"{LISTED} WHERE r.user_id = ? ORDER BY r.id DESC LIMIT 1", (user_id,))
    return None if row is None else CreditRequest(*row)


def find(db: Database, request_id: int) -> CreditRequest | None:
    """The request with this id."""
    row = db.one(f"{LISTED} WHERE r.id = ?", (request_id,))
    return None if row is None else CreditRequest(*row)


def ask(
    db: Database, user_id: int, amount: int, note: str, now: int | None = None
) -> CreditRequest:
    """Ask for an amount. Raises CreditRequestError: one request waits already, too many today, or
    what is asked is no amount."""
    if not 0 < amount <= billing.AMOUNT_MAX:
        raise CreditRequestError("Ask for more than nothing, and not for an absurd amount.")
    # One line: it stands in a notice and in the log, which a line of somebody's own would forge.
    now, note = now or billing.now_ms(), " ".join(note.split())[:NOTE_LENGTH_MAX]

    def write(conn) -> None:
        (recent,) = conn.execute(
            "SELECT count(*) FROM credit_requests WHERE user_id = ? AND created_at > ?",
            (user_id, now - DAY_MS),
        ).fetchone()
        if recent >= OF_DAY_MAX:
            raise CreditRequestError("You have asked often enough for today.")
        conn.execute(
            "INSERT INTO credit_requests (user_id, amount, note, created_at) VALUES (?, ?, ?, ?)",
            (user_id, amount, note, now),
        )

    try:
        db.write(write)
    except IntegrityError:
        raise CreditRequestError("You have asked already; an administrator will answer.") from None
    made = newest(db, user_id)
    assert made is not None
    return made


def decide(
    db: Database,
    request_id: int,
    given: int,
    reason: str = "",
    by: int | None = None,
    now: int | None = None,
) -> CreditRequest:
    """Grant a request with an amount, its own or another, or decline it (0).

    Raises CreditRequestError if there is no such request, or it is decided.
    """
    if not 0 <= given <= billing.AMOUNT_MAX:
        raise CreditRequestError("Give more than nothing, and not an absurd amount.")
    now, reason = now or billing.now_ms(), reason.strip()[:NOTE_LENGTH_MAX]

    def write(conn) -> None:
        row = conn.execute(
            "UPDATE credit_requests SET decided_at = ?, decided_by = ?, given = ?, reason = ?"
            " WHERE id = ? AND decided_at IS NULL RETURNING user_id, amount",
            (now, by, given, reason or None, request_id),
        ).fetchone()
        if row is None:
            raise CreditRequestError("This request is decided already, or there is none.")
        if given:
            billing.post(
                conn, row[0], "wallet", "top_up", given, now=now, note=reason or None, by=by
            )
        detail = {"pocket": "wallet", "asked": row[1], "amount": given, "note": reason or None}
        audit.record(conn, by, "credit.grant" if given else "credit.decline", row[0], detail)

    db.write(write)
    decided = find(db, request_id)
    assert decided is not None
    return decided
