"""Plans that members have: buying, giving, renewing and ending subscriptions.

Owns the table subscriptions. It moves money only through `billing.post`, and refuses to know the
settings: what a plan costs and grants comes as arguments. Money is nano-yuan, `now` is in ms and
None means the clock's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from billing import AMOUNT_MAX, NotCovered, Pockets, available, now_ms, once, post
from db import Connection, Database
from members import audit

DAY_MS = 86_400_000


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
    months_of: str | None  # the time zone whose calendar months it follows; None: by days


SUBSCRIPTIONS = """
SELECT id, plan, quota, left, paid, starts_at, ends_at, renew, months_of FROM subscriptions
 WHERE user_id = :user_id AND (:active_at IS NULL OR ends_at > :active_at AND starts_at <= :active_at)
 ORDER BY ends_at, id"""

BEGIN_PERIOD = """
INSERT INTO subscriptions (user_id, plan, quota, paid, starts_at, ends_at, renew, renewed_from, months_of)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""

ALLOWANCE = """
SELECT id, quota, starts_at, ends_at, months_of FROM subscriptions
 WHERE user_id = ? AND plan = ? AND renew = 1"""

# An allowance of somebody who is disabled waits for better days.
DUE = """
SELECT id, user_id, plan, quota, left, starts_at, ends_at, months_of,
       renew AND NOT EXISTS (SELECT 1 FROM users WHERE id = user_id AND disabled_at IS NOT NULL) AS renews
  FROM subscriptions WHERE ends_at <= ? AND (left > 0 OR renew = 1) AND (left > 0 OR renews) ORDER BY ends_at, id"""

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


def holders(db: Database, now: int | None = None) -> dict[str, int]:
    """How many members hold a plan now, or will: name -> number."""
    rows = db.read().execute(
        "SELECT plan, count(DISTINCT user_id) FROM subscriptions WHERE ends_at > ? GROUP BY plan",
        (now or now_ms(),),
    )
    return dict(rows.fetchall())


def unknown(db: Database, known: Iterable[str], now: int | None = None) -> dict[str, int]:
    """Plans that members hold and that are none of the `known`: name -> how many members."""
    names = set(known)
    return {plan: count for plan, count in holders(db, now).items() if plan not in names}


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
) -> dict[str, Any]:
    """Buy a period of a plan from the wallet; returns {"subscription", "ends_at"}.

    The wallet must cover it: what calls have set aside does not count, and there is no overdraft.
    Sent twice with the same `key` it happens once. Raises NotCovered, Unknown, KeyReused,
    ValueError for impossible terms.
    """
    check_terms(price, quota, days)

    def act(conn: Connection, now: int) -> dict[str, Any]:
        has = available(conn, user_id, now)
        if price > max(0, has.wallet):
            raise NotCovered(has, Pockets(0, 0, price))
        if price:
            post(conn, user_id, "wallet", "purchase", -price, note=plan, now=now)
        return begin(conn, user_id, plan, quota, now + days * DAY_MS, now, paid=price)

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
    months_of: str | None = None,
    by: int | None = None,
    now: int | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Give a period of a plan without payment; `renew` makes it an allowance that follows itself,
    on these terms. With `months_of`, a time zone, its periods are that calendar's months instead
    of `days`, the first of them the rest of this month.

    A member has one allowance of a plan: given again on the same terms it is the one they have, and
    on others the running period ends and one on the new terms begins. Returns {"subscription",
    "ends_at"}. Raises Unknown, KeyReused, ValueError.
    """
    check_terms(0, quota, days)

    def act(conn: Connection, now: int) -> dict[str, Any]:
        available(conn, user_id, now)  # Unknown, if there is no such member
        ends_at = _next_month(now, months_of) if months_of else now + days * DAY_MS
        for had in conn.execute(ALLOWANCE, (user_id, plan)).fetchall() if renew else ():
            span = None if months_of else ends_at - now
            if (quota, span, months_of) == (had["quota"], _span(had), had["months_of"]):
                return {"subscription": had["id"], "ends_at": had["ends_at"]}
            _end(conn, "id", had["id"], by, now)
        detail = {"plan": plan, "days": days, "renew": renew, "months_of": months_of}
        if not months_of:
            del detail["months_of"]
        audit.record(conn, by, "plan.give", user_id, detail, now=now)
        return begin(
            conn, user_id, plan, quota, ends_at, now, renew=renew, by=by, months_of=months_of
        )

    request = ["give_plan", plan, quota, days, renew, *([months_of] if months_of else [])]
    return db.write(once, user_id, key, request, act, now or now_ms())


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


def _end(conn: Connection, column: str, key: int, by: int | None, now: int) -> int:
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

    def act(conn: Connection, now: int) -> bool:
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


def _expire_due(conn: Connection, now: int) -> int:
    done = 0
    for due in conn.execute(DUE, (now,)).fetchall():
        if due["renews"]:
            _renew(conn, due, now)
        done += bool(due["renews"]) + _expire(conn, due, now)
    return done


def _renew(conn: Connection, due: Any, now: int) -> None:
    zone, span = due["months_of"], due["ends_at"] - due["starts_at"]
    if zone:
        starts_at, ends_at = max(due["ends_at"], _month(now, zone)), _next_month(now, zone)
    else:
        starts_at = due["ends_at"] + (now - due["ends_at"]) // span * span
        ends_at = starts_at + span
    conn.execute("UPDATE subscriptions SET renew = 0 WHERE id = ?", (due["id"],))
    begin(
        conn,
        due["user_id"],
        due["plan"],
        due["quota"],
        ends_at,
        now,
        starts_at=starts_at,
        renew=True,
        renewed_from=due["id"],
        months_of=zone,
    )


def _span(period: Any) -> int | None:
    """How long each period of an allowance by days is (ms)."""
    return None if period["months_of"] else period["ends_at"] - period["starts_at"]


def _month(now: int, zone: str) -> int:
    """The first moment (ms) of the month of a calendar."""
    today = datetime.fromtimestamp(now / 1000, ZoneInfo(zone)).date()
    return _midnight(today.replace(day=1), zone)


def _next_month(now: int, zone: str) -> int:
    """The first moment (ms) of the month after it."""
    today = datetime.fromtimestamp(now / 1000, ZoneInfo(zone)).date()
    return _midnight((today.replace(day=28) + timedelta(4)).replace(day=1), zone)


def _midnight(day: date, zone: str) -> int:
    return round(datetime.combine(day, time(), ZoneInfo(zone)).timestamp() * 1000)


def _expire(conn: Connection, due: Any, now: int) -> bool:
    (held,) = conn.execute(
        STILL_HELD, (due["user_id"], due["starts_at"], due["ends_at"])
    ).fetchone()
    (free,) = conn.execute(
        "SELECT quota_balance - quota_held FROM balances WHERE user_id = ?", (due["user_id"],)
    ).fetchone()
    rest: int = max(0, min(due["left"] - held, free))
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


def begin(
    conn: Connection,
    user_id: int,
    plan: str,
    quota: int,
    ends_at: int,
    now: int,
    *,
    starts_at: int | None = None,
    paid: int = 0,
    renew: bool = False,
    renewed_from: int | None = None,
    months_of: str | None = None,
    by: int | None = None,
    kind: str = "quota",
) -> dict[str, Any]:
    """Begin a period within a transaction: its row, and its quota as an entry of this kind.

    It lasts from `starts_at` (ms), else now, until `ends_at`. Returns {"subscription", "ends_at"}.
    """
    starts_at = now if starts_at is None else starts_at
    new = conn.execute(
        BEGIN_PERIOD,
        (user_id, plan, quota, paid, starts_at, ends_at, renew, renewed_from, months_of),
    ).lastrowid
    if quota:
        post(conn, user_id, "quota", kind, quota, note=plan, by=by, subscription_id=new, now=now)
    return {"subscription": new, "ends_at": ends_at}


def check_terms(price: int, quota: int, days: int) -> None:
    """Raises ValueError where no plan can cost so much, grant so much or last so long."""
    if not (0 <= price <= AMOUNT_MAX and 0 <= quota <= AMOUNT_MAX and 0 < days <= 36_500):
        raise ValueError(
            "a plan's price and quota are not negative, and it lasts from 1 to 36,500 days"
        )
