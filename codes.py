"""Codes that turn into money, LLM tokens or a plan: making, redeeming, revoking and listing them.

Owns the table codes. A code itself is kept nowhere, only its digest. Money moves through
`billing.post` alone, and plans begin in `plans`. Money is nano-yuan, `now` is in ms and None means
the clock's.

    CodeRefused                this code gives nothing: unknown, used, expired or revoked, and
    nobody is told which
    CodesGone                  this key has made codes before; codes are shown once
"""

import hashlib
import re
import secrets
from typing import Any

from billing import AMOUNT_MAX, LedgerError, available, now_ms, once, post
from db import Connection, Database, keyset
from members import audit
from plans import DAY_MS, begin, check_terms

MADE_MAX = 10_000  # made at once
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: none looks like another
LENGTH = 20  # of five bits each: 100 bits

_alike = str.maketrans("OIL", "011")
_shape = re.compile(f"[{LETTERS}]{{{LENGTH}}}").fullmatch

TAKE = """
UPDATE codes SET redeemed_by = ?1, redeemed_at = ?2
 WHERE digest = ?3 AND redeemed_by IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)
RETURNING id, kind, amount, plan, quota, days, hint"""

MAKE = """
INSERT INTO codes (digest, hint, kind, amount, plan, quota, days, note, created_at, created_by, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

COLUMNS = (
    "id, hint, kind, amount, plan, quota, days, note, created_at, expires_at, revoked_at, redeemed_at,"
    " (SELECT name FROM users WHERE users.id = created_by) AS created_by, redeemed_by AS redeemed_by_id,"
    " (SELECT name FROM users WHERE users.id = redeemed_by) AS redeemed_by"
)
_UNUSED = "redeemed_at IS NULL AND revoked_at IS NULL"
STATES = {  # which of them a code is in, at :now
    "unused": f"{_UNUSED} AND (expires_at IS NULL OR expires_at > :now)",
    "redeemed": "redeemed_at IS NOT NULL",
    "expired": f"{_UNUSED} AND expires_at <= :now",
    "revoked": "revoked_at IS NOT NULL",
}


class CodeRefused(LedgerError):
    """This code gives nothing."""


class CodesGone(LedgerError):
    """This key has made codes before; codes are shown once."""


def make(
    db: Database,
    kind: str,
    count: int = 1,
    *,
    expires_at: int | None = None,
    note: str | None = None,
    by: int | None = None,
    now: int | None = None,
    key: str | None = None,
    **terms: Any,
) -> list[str]:
    """Make codes of a kind: `wallet` and `grant` with an amount, `plan` with its name (plan), quota
    and days.

    Returns the codes, which are never to be had again. Sent twice with the same `key` of who makes
    them, they are made once. Raises ValueError; CodesGone for the second time; KeyReused.
    """
    if not 1 <= count <= MADE_MAX:
        raise ValueError(f"from 1 to {MADE_MAX} codes are made at once")
    worth, now = _worth(kind, **terms), now or now_ms()
    made = [_new() for _ in range(count)]
    rows = [(digest(code), _hint(code), kind, *worth, note, now, by, expires_at) for code in made]
    amount, plan, *_rest = worth
    detail = {"kind": kind, "count": count, "amount": amount, "plan": plan}

    def act(conn: Connection, now: int) -> dict[str, Any]:
        conn.executemany(MAKE, rows)
        audit.record(conn, by, "code.make", None, detail, now=now)
        return {"hint": rows[0][1]}

    wanted = ["code.make", kind, count, *worth, note, expires_at]
    done = db.write(once, by or 0, by and key, wanted, act, now)
    if done["hint"] != rows[0][1]:
        raise CodesGone(f"these codes were made already ({done['hint']} first) and shown then")
    return made


def _worth(
    kind: str,
    amount: int | None = None,
    plan: str | None = None,
    quota: int | None = None,
    days: int | None = None,
) -> tuple[int | None, str | None, int | None, int | None]:
    """What a code of a kind gives: amount, plan, quota, days. Raises ValueError."""
    if kind == "plan":
        check_terms(0, -1 if quota is None else quota, days or 0)
        return None, plan, quota, days
    if kind not in ("wallet", "grant") or not 0 < (amount or 0) <= AMOUNT_MAX:
        raise ValueError(
            "a code is for the wallet, the grant or a plan, and has an amount above zero"
        )
    return amount, None, None, None


def count_redeemed(conn: Connection) -> int:
    """How many codes of a file have been redeemed."""
    return int(conn.execute("SELECT count(redeemed_at) FROM codes").fetchone()[0])


def redeem(
    db: Database, user_id: int, code: str, now: int | None = None, key: str | None = None
) -> dict[str, Any]:
    """Turn a code into what it is for; returns {"kind", "amount", "balance"} or {"kind", "plan",
    "ends_at", ...}.

    Whoever comes first has it. Raises CodeRefused, Unknown, KeyReused.
    """
    known = digest(code)

    def act(conn: Connection, now: int) -> dict[str, Any]:
        available(conn, user_id, now)
        found = known and conn.execute(TAKE, (user_id, now, known)).fetchone()
        if not found:
            raise CodeRefused("this code is not valid, or has been used")
        if found["kind"] == "plan":
            return {"kind": "plan", "plan": found["plan"], "quota": found["quota"]} | begin(
                conn,
                user_id,
                found["plan"],
                found["quota"],
                now + found["days"] * DAY_MS,
                now,
                kind="redeem",
            )
        note = f"code {found['hint']}"
        return {"kind": found["kind"], "amount": found["amount"]} | post(
            conn, user_id, found["kind"], "redeem", found["amount"], note=note, now=now
        )

    return db.write(once, user_id, key, ["redeem", known and known.hex()], act, now or now_ms())


def revoke(db: Database, code_id: int, *, by: int | None = None, now: int | None = None) -> bool:
    """Make an unused code worthless. False if there is none."""

    def act(conn: Connection, now: int) -> bool:
        row = conn.execute(
            "UPDATE codes SET revoked_at = ? WHERE id = ? AND redeemed_by IS NULL AND revoked_at IS NULL"
            " RETURNING hint",
            (now, code_id),
        ).fetchone()
        if row is not None:
            audit.record(conn, by, "code.revoke", None, {"code": row["hint"]}, now=now)
        return row is not None

    return db.write(act, now or now_ms())


def listed(state: str | None = None, now: int | None = None) -> keyset.List:
    """Codes in one of the STATES, or all, without their secret."""
    matching = STATES[state] if state else ""
    return keyset.List("codes", COLUMNS, "id", "1", matching, {"now": now or now_ms()})


def state_of(code: Any, now: int | None = None) -> str:
    """Which of the STATES a row of the list is in."""
    if code["redeemed_at"] is not None:
        return "redeemed"
    if code["revoked_at"] is not None:
        return "revoked"
    ended = code["expires_at"] is not None and code["expires_at"] <= (now or now_ms())
    return "expired" if ended else "unused"


def still_unused(db: Database, ids: list[int]) -> list[Any]:
    """Those of these codes that could be revoked: rows of id and hint."""
    return (
        db.read()
        .execute(
            f"SELECT id, hint FROM codes WHERE {_UNUSED} AND id IN (SELECT value FROM json_each(?))",
            (str(ids),),
        )
        .fetchall()
    )


def digest(code: str) -> bytes | None:
    """What is stored of a code, however it is spaced and whichever alike letters are typed.

    None if it is none.
    """
    letters = re.sub(r"[\s-]", "", code[:100]).upper().translate(_alike)
    return hashlib.sha256(letters.encode()).digest() if _shape(letters) else None


def _hint(code: str) -> str:
    return f"{code[:4]}…{code[-4:]}"


def _new() -> str:
    letters = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
    return "-".join(letters[at : at + 4] for at in range(0, LENGTH, 4))
