"""The ledger: holds, charges, and every movement of money.

Owns the balances and the entries: nothing else writes them. What a call costs and which pocket pays
is pricing.py's. It refuses to know what a call says, who may make it, and the settings: prices and
limits come as arguments.

Money is nano-yuan; the grant pocket counts LLM tokens. `now` is in ms and None means the clock's.

    LedgerError                what was asked cannot be done; the message is a sentence for who
    asked
     ├─ NotCovered             the pockets do not hold what is needed: .available, .needed
     ├─ CapExceeded            a cap leaves no room: .cap
     ├─ Unknown                no such member, call or subscription
     └─ KeyReused              this idempotency key stands for another operation
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msgspec.json import encode

from db import Connection, Database
from pricing import (
    AMOUNT_MAX,
    COUNTS,
    KINDS,
    NANO,
    NOTHING,
    PRICES,
    Pockets,
    Price,
    Usage,
    nano,
    output_afforded,
    split,
    yuan,
)
from verify import verify

__all__ = [
    "AMOUNT_MAX",
    "COUNTS",
    "KINDS",
    "NANO",
    "PRICES",
    "Call",
    "Cap",
    "CapExceeded",
    "Ending",
    "Held",
    "KeyReused",
    "LedgerError",
    "NotCovered",
    "Pockets",
    "Price",
    "Unknown",
    "Usage",
    "available",
    "balances",
    "close",
    "credit",
    "credit_all",
    "hold",
    "nano",
    "now_ms",
    "once",
    "post",
    "refuse",
    "release_orphans",
    "split",
    "verify",
    "yuan",
]

KEY_LENGTH_MAX = 255
CREDIT_KINDS = ("reward", "top_up", "refund", "adjust")


@dataclass(frozen=True, slots=True)
class Cap:
    """So much money may a token, a member or the whole site spend since a day.

    `strict`: a call that might lead beyond it is refused; else one is that begins when it is
    reached. `sentence` says it to whom it stops.
    """

    scope: str  # token | member | site
    amount: int  # nano-yuan
    since: str  # a day, YYYY-MM-DD
    sentence: str
    strict: bool = True


class LedgerError(Exception):
    """What was asked of the ledger cannot be done."""


class NotCovered(LedgerError):
    """The pockets do not hold what is needed."""

    def __init__(self, available: Pockets, needed: Pockets, shares: bool = False):
        super().__init__(
            f"needed: {yuan(needed.wallet)} yuan from the wallet; available: {yuan(available.wallet)}"
            if needed.wallet
            else f"the grant holds {available.grant} tokens, not {needed.grant}"
        )
        self.available, self.needed = available, needed
        self.shares = shares  # whether the member's team has a wallet that might have paid


class CapExceeded(LedgerError):
    """A cap leaves no room for the call: `.cap`."""

    def __init__(self, cap: Cap):
        super().__init__(cap.sentence)
        self.cap = cap


class Unknown(LedgerError):
    """There is no such member, call or subscription."""


class KeyReused(LedgerError):
    """This idempotency key has been used for another operation."""


@dataclass(frozen=True, slots=True)
class Call:
    """What is known of a call when it begins. `day` is the site's, YYYY-MM-DD."""

    id: str
    user_id: int
    token_id: int
    wire: str
    model: str | None
    stream: bool
    started_at: int
    day: str
    upstream: str | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended. `usage` None: nothing is charged.

    `error` is a code, `attempts` a JSON-able list, `upstream_cost` nano-yuan: what the provider
    will bill for the same usage, if that is known.
    """

    outcome: str
    status: int | None = None
    usage: Usage | None = None
    usage_source: str = "none"
    usage_note: str | None = None
    upstream: str | None = None
    attempts: Sequence[Any] = ()
    first_byte_ms: int | None = None
    duration_ms: int | None = None
    error: str | None = None
    upstream_cost: int | None = None
    message: str | None = None  # what a refused caller read


# ---- calls: hold, refuse, close


AVAILABLE = """
SELECT grant_balance - grant_held, wallet_balance - wallet_held,
       CASE WHEN quota_balance = 0 THEN 0 ELSE (
            SELECT coalesce(sum(left), 0) - quota_held FROM subscriptions
             WHERE user_id = balances.user_id AND ends_at > ?1 AND starts_at <= ?1) END,
       team_id, CASE WHEN team_id IS NULL THEN 0 ELSE (
            SELECT wallet_balance - wallet_held FROM balances AS team WHERE team.user_id = balances.team_id) END
  FROM balances WHERE user_id = ?2"""

BEGIN_CALL = """
INSERT INTO requests (id, user_id, token_id, wire, model, upstream, stream, day, started_at,
                      price_input, price_cached, price_output, hold_grant, hold_quota, hold_wallet, team_id,
                      hold_team)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

REFUSE_CALL = """
INSERT INTO requests (id, user_id, token_id, wire, model, upstream, stream, day, started_at, closed_at,
                      outcome, status, error, usage_source, message, first_byte_ms, duration_ms, attempts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'none', ?, ?, ?, ?)"""

OPEN_CALL = """
SELECT r.user_id, r.started_at, r.upstream,
       own.grant_balance - own.grant_held + hold_grant AS grant,
       own.quota_balance - own.quota_held + hold_quota AS quota,
       own.grant_balance, own.quota_balance, own.wallet_balance, own.invite_pending,
       r.team_id, team.wallet_balance - team.wallet_held + hold_team AS team,
       team.wallet_balance AS team_balance
  FROM requests AS r JOIN balances AS own ON own.user_id = r.user_id
  LEFT JOIN balances AS team ON team.user_id = r.team_id
 WHERE r.id = ? AND closed_at IS NULL"""

CLOSE_CALL = f"""
UPDATE requests
   SET closed_at = ?, outcome = ?, status = ?, error = ?, upstream = ?, attempts = ?, first_byte_ms = ?,
       duration_ms = ?, usage_source = ?, usage_note = ?, upstream_cost = ?,
       message = ?, {", ".join(f"{name} = ?" for name in COUNTS)},
       {", ".join(f"{name} = coalesce(?, {name})" for name in PRICES)},
       cost = ?, charged_grant = ?, charged_quota = ?, charged_wallet = ?, charged_team = ?
 WHERE id = ? AND closed_at IS NULL"""

# Subscriptions that may pay for a call are those that were active when it began, the one that ends
# soonest first.
PAYING = """
SELECT id, left FROM subscriptions
 WHERE user_id = ?1 AND ends_at > ?2 AND starts_at <= ?2 AND left > 0 ORDER BY ends_at, id"""

POST = """
INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id, subscription_id, note, by_user_id,
                     created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

IS_TEAM = "SELECT is_team FROM users WHERE id = ?"

POST_FOR_MEMBER = """
INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id, member_id, created_at)
VALUES (?, 'wallet', 'charge', ?, ?, ?, ?, ?)"""

# What was spent since a day, and what calls that run have set aside: scope -> (of `daily`, of
# `requests`).
CAPPED = {
    "token": ("token_id = :token_id", "token_id = :token_id AND user_id = :user_id"),
    "member": ("user_id = :user_id", "user_id = :user_id"),
    "site": ("1", "1"),
}
SPENT = """
SELECT (SELECT coalesce(sum(charged_quota + charged_team + charged_wallet), 0) FROM daily WHERE day >= :since AND {})
     + (SELECT coalesce(sum(hold_quota + hold_team + hold_wallet), 0) FROM requests INDEXED BY requests_open
         WHERE closed_at IS NULL AND {})"""


RUNNING = "SELECT count(*) FROM requests WHERE user_id = ? AND closed_at IS NULL"
RUNNING_OF_TEAM = """
SELECT count(*) FROM requests INDEXED BY requests_open WHERE closed_at IS NULL AND team_id = ?"""


@dataclass(frozen=True, slots=True)
class Held:
    """What each pocket holds for a call, and for how much output they would pay, its share of what
    the member's calls may write that run now; None: for any."""

    pockets: Pockets
    output: int | None


def hold(
    db: Database,
    call: Call,
    usage: Usage,
    price: Price,
    overdraft: int = 0,
    caps: tuple[Cap, ...] = (),
) -> Held:
    """Set aside what a call will likely cost, and open its row; returns what each pocket holds for
    it, and how far they reach.

    `overdraft` (nano-yuan) is how far below zero the wallet may go for it. Raises NotCovered or
    CapExceeded, and then writes nothing.
    """
    return db.write_admitting(_hold, call, usage.possible(), price.highest(), overdraft, caps)


def _hold(
    conn: Connection, call: Call, usage: Usage, price: Price, overdraft: int, caps: tuple[Cap, ...]
) -> Held:
    has, team_id = _available(conn, call.user_id, call.started_at)
    held = split(usage, price, has)
    if held.wallet > max(0, has.wallet + overdraft):
        raise NotCovered(has, held, team_id is not None)
    for cap in caps if held.money else ():  # gifts are no money
        _check_cap(conn, call, cap, held.money)
    conn.execute(
        BEGIN_CALL,
        (
            call.id,
            call.user_id,
            call.token_id,
            call.wire,
            call.model,
            call.upstream,
            call.stream,
            call.day,
            call.started_at,
            price.input,
            price.cached,
            price.output,
            held.grant,
            held.quota,
            held.wallet,
            team_id,
            held.team,
        ),
    )
    return Held(held, _output_afforded(conn, call, usage, price, has, overdraft, team_id))


def _output_afforded(
    conn: Connection,
    call: Call,
    usage: Usage,
    price: Price,
    has: Pockets,
    overdraft: int,
    team_id: int | None,
) -> int | None:
    """A call's share of the output that the pockets pay for: what there is has to do for the calls
    that run beside it too, the member's own pockets for the member's, and the team's for the team's."""
    most = output_afforded(usage, price, has, overdraft)
    if most is None:
        return None
    own = output_afforded(usage, price, replace(has, team=0), overdraft) or 0 if has.team else most
    (running,) = conn.execute(RUNNING, (call.user_id,)).fetchone()
    if own == most:
        return most // int(running)
    (of_team,) = conn.execute(RUNNING_OF_TEAM, (team_id,)).fetchone()
    return own // int(running) + (most - own) // int(of_team)


def spent(
    conn: Connection,
    scope: str,
    since: str,
    user_id: int | None = None,
    token_id: int | None = None,
) -> int:
    """What counts against a cap of this scope since a day: nano-yuan from quota and wallets, and what
    running calls have set aside."""
    values = {"since": since, "user_id": user_id, "token_id": token_id}
    (amount,) = conn.execute(SPENT.format(*CAPPED[scope]), values).fetchone()
    return int(amount)


def _check_cap(conn: Connection, call: Call, cap: Cap, held: int) -> None:
    """Raise CapExceeded if a call that holds so much finds no room."""
    before = spent(conn, cap.scope, cap.since, call.user_id, call.token_id)
    if before + held > cap.amount if cap.strict else before >= cap.amount:
        raise CapExceeded(cap)


def refuse(db: Database, call: Call, ending: Ending) -> None:
    """Record a call that never had a hold. Nothing is charged."""
    db.write(_refuse, call, ending, now_ms())


def _refuse(conn: Connection, call: Call, end: Ending, now: int) -> None:
    conn.execute(
        REFUSE_CALL,
        (
            call.id,
            call.user_id,
            call.token_id,
            call.wire,
            call.model,
            end.upstream or call.upstream,
            call.stream,
            call.day,
            call.started_at,
            now,
            end.outcome,
            end.status,
            end.error,
            end.message,
            end.first_byte_ms,
            end.duration_ms,
            _attempts(end),
        ),
    )


def close(
    db: Database, call_id: str, ending: Ending, price: Price | None, now: int | None = None
) -> Pockets | None:
    """End a call: release its hold, charge its usage at `price`; returns what each pocket paid.

    None if it was closed already (or never opened): then nothing happens.
    """
    return db.write(_close, call_id, ending, price, now or now_ms())


def _close(
    conn: Connection, call_id: str, end: Ending, price: Price | None, now: int
) -> Pockets | None:
    call = conn.execute(OPEN_CALL, (call_id,)).fetchone()
    if call is None:
        return None
    usage = end.usage.possible() if price is not None and end.usage is not None else None
    price = price.at(usage.input_tokens) if price is not None and usage is not None else None
    paying = (
        []
        if not usage or call["quota_balance"] == 0
        else conn.execute(PAYING, (call["user_id"], call["started_at"])).fetchall()
    )
    quota = min(call["quota"], sum(left for _, left in paying))
    charged = NOTHING
    cost = 0
    if usage is not None and price is not None:
        charged = split(usage, price, Pockets(call["grant"], quota, 0, call["team"] or 0))
        cost = price.cost(usage)
    conn.execute(
        CLOSE_CALL,
        (
            now,
            end.outcome,
            end.status,
            end.error,
            end.upstream or call["upstream"],
            _attempts(end),
            end.first_byte_ms,
            end.duration_ms,
            end.usage_source,
            end.usage_note,
            end.upstream_cost,
            end.message,
            *(usage.counts() if usage else [None] * len(COUNTS)),
            *(price.by_kind().values() if price else [None] * len(PRICES)),
            cost,
            charged.grant,
            charged.quota,
            charged.wallet,
            charged.team,
            call_id,
        ),
    )
    if charged != NOTHING:
        _charge(conn, call_id, call, charged, paying, now)
    return charged


def _charge(
    conn: Connection, call_id: str, call: Any, charged: Pockets, paying: list[Any], now: int
) -> None:
    """One entry a pocket, and for the quota one a subscription.

    The hold has been released before.
    """
    user_id = call["user_id"]

    def entry(pocket: str, amount: int, balance: int, subscription_id: int | None = None) -> None:
        values = (user_id, pocket, "charge", -amount, balance - amount, call_id, subscription_id)
        conn.execute(POST, (*values, None, None, now))

    if charged.grant:
        entry("grant", charged.grant, call["grant_balance"])
    rest, balance = charged.quota, call["quota_balance"]
    for subscription_id, left in paying:
        if part := min(rest, left):
            entry("quota", part, balance, subscription_id)
            rest, balance = rest - part, balance - part
    if charged.team:
        rest = call["team_balance"] - charged.team
        values = (call["team_id"], -charged.team, rest, call_id, user_id, now)
        conn.execute(POST_FOR_MEMBER, values)
    if charged.wallet:
        entry("wallet", charged.wallet, call["wallet_balance"])
    if call["invite_pending"] and charged.quota + charged.wallet:
        _reward_inviter(conn, user_id, call_id, now)


def _reward_inviter(conn: Connection, user_id: int, call_id: str, now: int) -> None:
    conn.execute("UPDATE balances SET invite_pending = 0 WHERE user_id = ?", (user_id,))
    owed = conn.execute(
        "UPDATE invites SET rewarded_at = ? WHERE user_id = ? AND rewarded_at IS NULL"
        " RETURNING inviter_id, reward",
        (now, user_id),
    ).fetchone()
    if owed and owed["reward"]:
        post(
            conn,
            owed["inviter_id"],
            "grant",
            "reward",
            owed["reward"],
            note="invite",
            request_id=call_id,
            now=now,
        )


def _attempts(end: Ending) -> str:
    return encode(end.attempts).decode() if end.attempts else "[]"


def available(conn: Connection, user_id: int, now: int) -> Pockets:
    """What each pocket of a member has free, within a transaction of who calls; of the team's wallet
    what all its members have together. Raises Unknown."""
    return _available(conn, user_id, now)[0]


def _available(conn: Connection, user_id: int, now: int) -> tuple[Pockets, int | None]:
    """The same, and the member's team."""
    row = conn.execute(AVAILABLE, (now, user_id)).fetchone()
    if row is None:
        raise Unknown("there is no such member")
    grant, wallet, quota, team_id, team = row
    return Pockets(grant, max(0, quota), wallet, max(0, team)), team_id


# ---- money


def post(
    conn: Connection,
    user_id: int,
    pocket: str,
    kind: str,
    amount: int,
    *,
    now: int,
    note: str | None = None,
    by: int | None = None,
    request_id: str | None = None,
    subscription_id: int | None = None,
) -> dict[str, Any]:
    """Write one entry, within a transaction of who calls; returns {"entry": id, "balance".

    Nano-yuan after it}.
    """
    before = conn.execute(
        f"SELECT {pocket}_balance FROM balances WHERE user_id = ?", (user_id,)
    ).fetchone()
    if before is None:
        raise Unknown("there is no such member")
    after = before[0] + amount
    if abs(after) > max(AMOUNT_MAX, abs(before[0])):
        raise LedgerError("the balance would be absurdly large")
    done = conn.execute(
        POST, (user_id, pocket, kind, amount, after, request_id, subscription_id, note, by, now)
    )
    return {"entry": done.lastrowid, "balance": after}


def credit(
    db: Database,
    user_id: int,
    pocket: str,
    amount: int,
    kind: str = "top_up",
    note: str | None = None,
    by: int | None = None,
    now: int | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """Put an amount into the grant or the wallet, or take it out (negative); returns {"entry",
    "balance"}.

    Sent twice with the same `key` it happens once. Raises ValueError for what is no credit,
    NotCovered if the grant does not hold what is taken out, Unknown, KeyReused.
    """
    return credit_all(db, user_id, {pocket: amount}, kind, note, by, now, key)[pocket]


def credit_all(
    db: Database,
    user_id: int,
    amounts: dict[str, int],
    kind: str | None = None,
    note: str | None = None,
    by: int | None = None,
    now: int | None = None,
    key: str | None = None,
) -> dict[str, dict[str, Any]]:
    """The same for several pockets, all or none; `kind` None.

    Top_up for what is put in, adjust for what is taken. A team has a wallet alone, out of which
    nothing is taken that it has not free: ValueError, NotCovered.
    """
    for pocket, amount in amounts.items():
        if pocket not in ("grant", "wallet") or kind not in (None, *CREDIT_KINDS):
            raise ValueError(f"there is no credit of kind {kind!r} into {pocket!r}")
        if amount == 0 or abs(amount) > AMOUNT_MAX:
            raise ValueError("the amount is zero or absurdly large")

    def act(conn: Connection, now: int) -> dict[str, Any]:
        has = available(conn, user_id, now)
        if has.grant + amounts.get("grant", 0) < 0:
            raise NotCovered(has, Pockets(-amounts["grant"], 0, 0))
        if conn.execute(IS_TEAM, (user_id,)).fetchone()[0]:
            _check_shared(has, amounts)
        return {
            pocket: post(
                conn,
                user_id,
                pocket,
                kind or ("top_up" if amount > 0 else "adjust"),
                amount,
                now=now,
                note=(note or None) and note[:500],
                by=by,
            )
            for pocket, amount in amounts.items()
        }

    return db.write(once, user_id, key, ["credit", amounts, kind, note], act, now or now_ms())


def _check_shared(has: Pockets, amounts: dict[str, int]) -> None:
    """A team has a wallet alone, and nothing is taken out of it that running calls count on."""
    if "grant" in amounts:
        raise ValueError("a team has a wallet and no grant")
    if amounts["wallet"] < 0 and has.wallet + amounts["wallet"] < 0:
        raise NotCovered(has, Pockets(0, 0, -amounts["wallet"]))


def once(
    conn: Connection,
    user_id: int,
    key: str | None,
    request: list[Any],
    act: Callable[[Connection, int], dict[str, Any]],
    now: int,
) -> dict[str, Any]:
    """Run `act(conn, now)`, or give back what came of it when this key of this member was first
    used."""
    if key is None:
        return act(conn, now)
    if not 1 <= len(key) <= KEY_LENGTH_MAX:
        raise ValueError(f"a key has 1 to {KEY_LENGTH_MAX} characters")
    wanted = json.dumps(request, ensure_ascii=False)
    done = conn.execute(
        "SELECT request, result FROM operations WHERE user_id = ? AND key = ?", (user_id, key)
    ).fetchone()
    result: dict[str, Any]
    if done is None:
        result = act(conn, now)
        conn.execute(
            "INSERT INTO operations VALUES (?, ?, ?, ?, ?)",
            (user_id, key, wanted, json.dumps(result), now),
        )
        return result
    if done["request"] != wanted:
        raise KeyReused("this idempotency key was used for another operation")
    result = json.loads(done["result"])
    return result


def balances(db: Database, user_id: int) -> dict[str, Pockets]:
    """{"balance": Pockets, "held": Pockets} of a member. Raises Unknown."""
    row = (
        db.read()
        .execute(
            "SELECT grant_balance, quota_balance, wallet_balance, grant_held, quota_held, wallet_held"
            " FROM balances WHERE user_id = ?",
            (user_id,),
        )
        .fetchone()
    )
    if row is None:
        raise Unknown("there is no such member")
    return {"balance": Pockets(*row[:3]), "held": Pockets(*row[3:])}


def held_in_all(db: Database) -> int:
    """What running calls of all members have set aside, in nano-yuan."""
    row = db.one("SELECT coalesce(sum(quota_held + wallet_held), 0) FROM balances")
    return int(row[0])


def release_orphans(db: Database, now: int | None = None) -> int:
    """End all open calls as interrupted, and return how many.

    Only whoever just became the one server may do this.
    """
    return db.write(_release_orphans, now or now_ms())


def _release_orphans(conn: Connection, now: int) -> int:
    orphans = conn.execute("SELECT id FROM requests WHERE closed_at IS NULL").fetchall()
    for (call_id,) in orphans:
        _close(conn, call_id, Ending("interrupted", error="interrupted"), None, now)
    return len(orphans)


def now_ms() -> int:
    """The clock, in ms."""
    return time.time_ns() // 1_000_000
