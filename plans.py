"""Plans that members have: buying, giving, renewing and ending subscriptions; and codes that turn
into money or a plan.

Owns the tables subscriptions and codes. It moves money only through `billing.post`, and refuses to
know the settings: what a plan costs and grants comes as arguments. Money is nano-yuan, `now` is in
ms and None means the clock's.

    CodeRefused                this code gives nothing: unknown, used, expired or revoked, and
    nobody is told which
"""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from billing import AMOUNT_MAX, LedgerError, NotCovered, Pockets, available, now_ms, once, post
from db import Database
from members import audit

DAY_MS = 86_400_000
CODES_MAX = 10_000  # made at once
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: none looks like another
CODE_LETTERS = 20  # of five bits each: 100 bits

_alike = str.maketrans("OIL", "011")
_shape = re.compile(f"[{LETTERS}]{{{CODE_LETTERS}}}").fullmatch


class CodeRefused(LedgerError):
    """This code gives nothing."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One period of a plan. It is active in [starts_at, ends_at)."""

    id: int
    plan: str
    quota: int
    left: int
    paid: int
    starts_at: int
    ends_at: int
    renew: bool


SUBSCRIPTIONS = """
SELECT id, plan, quota, left, paid, starts_at, ends_at, renew FROM subscriptions
 WHERE user_id = :user_id AND (:active_at IS NULL OR ends_at > :active_at AND starts_at <= :active_at)
 ORDER BY ends_at, id"""

BEGIN_PERIOD = """
INSERT INTO subscriptions (user_id, plan, quota, paid, starts_at, ends_at, renew, renewed_from)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""

DUE = """
SELECT id, user_id, plan, quota, left, starts_at, ends_at, renew FROM subscriptions
 WHERE ends_at <= ? AND (left > 0 OR renew = 1) ORDER BY ends_at, id"""

# What open calls that this subscription may pay for have set aside of the quota.
STILL_HELD = """
SELECT coalesce(sum(hold_quota), 0) FROM requests
 WHERE closed_at IS NULL AND user_id = ? AND started_at >= ? AND started_at < ?"""


def subscriptions(db: Database, user_id: int, active_at: int | None = None) -> list[Subscription]:
    """A member's subscriptions, the one that ends soonest first.

    All, or those active at a time (ms).
    """
    rows = db.read().execute(SUBSCRIPTIONS, {"user_id": user_id, "active_at": active_at}).fetchall()
    return [Subscription(**{**dict(row), "renew": bool(row["renew"])}) for row in rows]


def active(db: Database, user_id: int, now: int | None = None) -> list[Subscription]:
    """The subscriptions that are active now, the one that pays first, first."""
    return subscriptions(db, user_id, now or now_ms())


def unknown(db: Database, known: Iterable[str], now: int | None = None) -> dict[str, int]:
    """Plans that members hold and that are none of the `known`: name -> how many members."""
    rows = db.read().execute(
        "SELECT plan, count(DISTINCT user_id) FROM subscriptions WHERE ends_at > ? GROUP BY plan",
        (now or now_ms(),),
    )
    return {plan: count for plan, count in rows.fetchall() if plan not in set(known)}


def purchase(
    db: Database,
    user_id: int,
    plan: str,
    *,
    price: int,
    quota: int,
    days: int,
    now: int | None = None,
    key: str | None = None,
) -> dict:
    """Buy a period of a plan from the wallet; returns {"subscription", "ends_at"}.

    The wallet must cover it: what calls have set aside does not count, and there is no overdraft.
    Sent twice with the same `key` it happens once. Raises NotCovered, Unknown, KeyReused,
    ValueError for impossible terms.
    """
    _possible(price, quota, days)

    def act(conn, now: int) -> dict:
        has = available(conn, user_id, now)
        if price > max(0, has.wallet):
            raise NotCovered(has, Pockets(0, 0, price))
        if price:
            post(conn, user_id, "wallet", "purchase", -price, note=plan, now=now)
        return _begin(conn, user_id, plan, quota, days, now, paid=price)

    return db.write(
        once, user_id, key, ["purchase", plan, price, quota, days], act, now or now_ms()
    )


def give_plan(
    db: Database,
    user_id: int,
    plan: str,
    *,
    quota: int,
    days: int,
    renew: bool = False,
    by: int | None = None,
    now: int | None = None,
    key: str | None = None,
) -> dict:
    """Give a period of a plan without payment; `renew` makes it an allowance that follows itself,
    on these terms.

    Returns {"subscription", "ends_at"}. Raises Unknown, KeyReused, ValueError.
    """
    _possible(0, quota, days)

    def act(conn, now: int) -> dict:
        available(conn, user_id, now)  # Unknown, if there is no such member
        audit.record(
            conn, by, "plan.give", user_id, {"plan": plan, "days": days, "renew": renew}, now=now
        )
        return _begin(conn, user_id, plan, quota, days, now, renew=renew, by=by)

    return db.write(
        once, user_id, key, ["give_plan", plan, quota, days, renew], act, now or now_ms()
    )


def end_plan(
    db: Database, subscription_id: int, *, by: int | None = None, now: int | None = None
) -> bool:
    """End a subscription before its time; what is left of its quota expires.

    False if it is not active.
    """
    return bool(db.write(_end, "id", subscription_id, by, now or now_ms()))


def end_all(db: Database, user_id: int, *, by: int | None = None, now: int | None = None) -> int:
    """End all subscriptions of a member, an allowance that waits for its next period too.

    Returns how many.
    """
    return db.write(_end, "user_id", user_id, by, now or now_ms())


def _end(conn, column: str, key: int, by: int | None, now: int) -> int:
    ended = conn.execute(
        f"""
        UPDATE subscriptions SET ends_at = min(ends_at, max(?1, starts_at + 1)), renew = 0
         WHERE {column} = ?2 AND (ends_at > ?1 OR renew = 1) RETURNING user_id, plan""",
        (now, key),
    ).fetchall()
    for each in ended:
        audit.record(conn, by, "plan.end", each["user_id"], {"plan": each["plan"]}, now=now)
    if ended:
        _expire_due(conn, now)
    return len(ended)


def stop_renewal(
    db: Database, subscription_id: int, *, by: int | None = None, now: int | None = None
) -> bool:
    """Let a subscription that renews by itself end with its period. False if it does not renew."""

    def act(conn, now: int) -> bool:
        row = conn.execute(
            "UPDATE subscriptions SET renew = 0 WHERE id = ? AND renew = 1 RETURNING user_id, plan",
            (subscription_id,),
        ).fetchone()
        if row is not None:
            audit.record(
                conn, by, "plan.stop_renewal", row["user_id"], {"plan": row["plan"]}, now=now
            )
        return row is not None

    return db.write(act, now or now_ms())


def expire_due(db: Database, now: int | None = None) -> int:
    """End and renew what is due; returns how many periods began or lost their rest.

    The rest of a quota expires but for what unfinished calls may still need of it, which goes once
    they end. An allowance gets the period that is running now: those that passed meanwhile are not
    made up for.
    """
    now = now or now_ms()
    if not db.read().execute(f"{DUE} LIMIT 1", (now,)).fetchall():
        return 0
    return db.write(_expire_due, now)


def _expire_due(conn, now: int) -> int:
    done = 0
    for due in conn.execute(DUE, (now,)).fetchall():
        if due["renew"]:
            _renew(conn, due, now)
        done += bool(due["renew"]) + _expire(conn, due, now)
    return done


def _renew(conn, due, now: int) -> None:
    span = due["ends_at"] - due["starts_at"]
    starts_at = due["ends_at"] + (now - due["ends_at"]) // span * span
    conn.execute("UPDATE subscriptions SET renew = 0 WHERE id = ?", (due["id"],))
    _begin(
        conn,
        due["user_id"],
        due["plan"],
        due["quota"],
        span / DAY_MS,
        now,
        starts_at=starts_at,
        renew=True,
        renewed_from=due["id"],
    )


def _expire(conn, due, now: int) -> bool:
    (held,) = conn.execute(
        STILL_HELD, (due["user_id"], due["starts_at"], due["ends_at"])
    ).fetchone()
    (free,) = conn.execute(
        "SELECT quota_balance - quota_held FROM balances WHERE user_id = ?", (due["user_id"],)
    ).fetchone()
    rest = max(0, min(due["left"] - held, free))
    if rest:
        post(
            conn,
            due["user_id"],
            "quota",
            "expire",
            -rest,
            note=due["plan"],
            subscription_id=due["id"],
            now=now,
        )
    return rest > 0


def _begin(
    conn,
    user_id: int,
    plan: str,
    quota: int,
    days: float,
    now: int,
    *,
    starts_at: int | None = None,
    paid: int = 0,
    renew: bool = False,
    renewed_from: int | None = None,
    by: int | None = None,
    kind: str = "quota",
) -> dict:
    """One period: its row, and its quota as an entry."""
    starts_at = now if starts_at is None else starts_at
    ends_at = starts_at + round(days * DAY_MS)
    new = conn.execute(
        BEGIN_PERIOD, (user_id, plan, quota, paid, starts_at, ends_at, renew, renewed_from)
    ).lastrowid
    if quota:
        post(conn, user_id, "quota", kind, quota, note=plan, by=by, subscription_id=new, now=now)
    return {"subscription": new, "ends_at": ends_at}


def _possible(price: int, quota: int, days: int) -> None:
    if not (0 <= price <= AMOUNT_MAX and 0 <= quota <= AMOUNT_MAX and 0 < days <= 36_500):
        raise ValueError(
            "a plan's price and quota are not negative, and it lasts from 1 to 36,500 days"
        )


# ---- codes


TAKE = """
UPDATE codes SET redeemed_by = ?1, redeemed_at = ?2
 WHERE digest = ?3 AND redeemed_by IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)
RETURNING id, kind, amount, plan, quota, days, hint"""

MAKE = """
INSERT INTO codes (digest, hint, kind, amount, plan, quota, days, note, created_at, created_by, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def make_codes(
    db: Database,
    kind: str,
    count: int = 1,
    *,
    amount: int | None = None,
    plan: str | None = None,
    quota: int | None = None,
    days: int | None = None,
    expires_at: int | None = None,
    note: str | None = None,
    by: int | None = None,
    now: int | None = None,
) -> list[str]:
    """Make codes of a kind: `wallet` and `grant` with an amount, `plan` with its name, quota and
    days.

    Returns the codes, which are never to be had again. Raises ValueError.
    """
    if not 1 <= count <= CODES_MAX:
        raise ValueError(f"from 1 to {CODES_MAX} codes are made at once")
    if kind == "plan":
        _possible(0, -1 if quota is None else quota, days or 0)
    elif kind not in ("wallet", "grant") or not 0 < (amount or 0) <= AMOUNT_MAX:
        raise ValueError(
            "a code is for the wallet, the grant or a plan, and has an amount above zero"
        )
    given = (None, plan, quota, days) if kind == "plan" else (amount, None, None, None)
    codes, now = [_new_code() for _ in range(count)], now or now_ms()

    def act(conn) -> None:
        conn.executemany(
            MAKE,
            [
                (
                    code_digest(code),
                    f"{code[:4]}…{code[-4:]}",
                    kind,
                    *given,
                    note,
                    now,
                    by,
                    expires_at,
                )
                for code in codes
            ],
        )
        audit.record(
            conn,
            by,
            "code.make",
            None,
            {"kind": kind, "count": count, "amount": amount, "plan": plan},
            now=now,
        )

    db.write(act)
    return codes


def redeem(
    db: Database, user_id: int, code: str, now: int | None = None, key: str | None = None
) -> dict:
    """Turn a code into what it is for; returns {"kind", "amount", "balance"} or {"kind", "plan",
    "ends_at", ...}.

    Whoever comes first has it. Raises CodeRefused, Unknown, KeyReused.
    """
    digest = code_digest(code)

    def act(conn, now: int) -> dict:
        available(conn, user_id, now)
        found = digest and conn.execute(TAKE, (user_id, now, digest)).fetchone()
        if not found:
            raise CodeRefused("this code is not valid, or has been used")
        note = f"code {found['hint']}"
        if found["kind"] == "plan":
            return {"kind": "plan", "plan": found["plan"], "quota": found["quota"]} | _begin(
                conn, user_id, found["plan"], found["quota"], found["days"], now, kind="redeem"
            )
        return {"kind": found["kind"], "amount": found["amount"]} | post(
            conn, user_id, found["kind"], "redeem", found["amount"], note=note, now=now
        )

    return db.write(once, user_id, key, ["redeem", digest and digest.hex()], act, now or now_ms())


def revoke_code(
    db: Database, code_id: int, *, by: int | None = None, now: int | None = None
) -> bool:
    """Make an unused code worthless. False if there is none."""

    def act(conn, now: int) -> bool:
        row = conn.execute(
            "UPDATE codes SET revoked_at = ? WHERE id = ? AND redeemed_by IS NULL AND revoked_at IS NULL"
            " RETURNING hint",
            (now, code_id),
        ).fetchone()
        if row is not None:
            audit.record(conn, by, "code.revoke", None, {"code": row["hint"]}, now=now)
        return row is not None

    return db.write(act, now or now_ms())


def codes(db: Database, *, before: int | None = None, limit: int = 100) -> list[dict]:
    """Codes without their secret, newest first.

    The next page with `before`, the last id of this one.
    """
    rows = db.read().execute(
        """
        SELECT codes.id, hint, kind, amount, plan, quota, days, note, codes.created_at, maker.name AS created_by,
               expires_at, revoked_at, redeemed_at, owner.name AS redeemed_by
          FROM codes LEFT JOIN users AS maker ON maker.id = created_by
          LEFT JOIN users AS owner ON owner.id = redeemed_by
         WHERE codes.id < coalesce(?, 9223372036854775807) ORDER BY codes.id DESC LIMIT ?""",
        (before, limit),
    )
    return [dict(row) for row in rows.fetchall()]


def code_digest(code: str) -> bytes | None:
    """What is stored of a code, however it is spaced and whichever alike letters are typed.

    None if it is none.
    """
    letters = re.sub(r"[\s-]", "", code[:100]).upper().translate(_alike)
    return hashlib.sha256(letters.encode()).digest() if _shape(letters) else None


def _new_code() -> str:
    letters = "".join(secrets.choice(LETTERS) for _ in range(CODE_LETTERS))
    return "-".join(letters[at : at + 4] for at in range(0, CODE_LETTERS, 4))
