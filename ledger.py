"""The books: balances, entries, and every movement of money that is not a call's.

Owns the balances and the entries: nothing else writes them. A call's charge is posted here too; what
it comes to is billing.py's and pricing.py's. It refuses to know the settings: amounts come as
arguments.

Money is nano-yuan; the grant pocket counts LLM tokens. `now` is in ms and None means the clock's.

    LedgerError                what was asked cannot be done; the message is a sentence for who
    asked
     ├─ NotCovered             the pockets do not hold what is needed: .available, .needed
     ├─ CapExceeded            a cap leaves no room: .cap (billing.py's)
     ├─ Unknown                no such member, call or subscription
     └─ KeyReused              this idempotency key stands for another operation
"""

import json
import time
from collections.abc import Callable
from typing import Any

from db import Connection, Database
from pricing import AMOUNT_MAX, Pockets, yuan

KEY_LENGTH_MAX = 255
CREDIT_KINDS = ("reward", "top_up", "refund", "adjust")


class LedgerError(Exception):
    """What was asked of the ledger cannot be done."""


class NotCovered(LedgerError):
    """The pockets do not hold what is needed."""

    def __init__(
        self, available: Pockets, needed: Pockets, shares: bool = False, promised: int = 0
    ):
        super().__init__(
            f"needed: {yuan(needed.wallet)} yuan from the wallet; available: {yuan(available.wallet)}"
            if needed.wallet
            else f"the grant holds {available.grant} tokens, not {needed.grant}"
        )
        self.available, self.needed = available, needed
        self.shares = shares  # whether the member's team has a wallet that might have paid
        self.promised = promised  # the money, beside what is available, that running calls may need


class Unknown(LedgerError):
    """There is no such member, call or subscription."""


class KeyReused(LedgerError):
    """This idempotency key has been used for another operation."""


# ---- what there is


AVAILABLE = """
SELECT grant_balance - grant_held, wallet_balance - wallet_held,
       CASE WHEN quota_balance = 0 THEN 0 ELSE (
            SELECT coalesce(sum(left), 0) - quota_held FROM subscriptions
             WHERE user_id = balances.user_id AND ends_at > ?1 AND starts_at <= ?1) END,
       team_id, CASE WHEN team_id IS NULL THEN 0 ELSE (
            SELECT wallet_balance - wallet_held FROM balances AS team WHERE team.user_id = balances.team_id) END
  FROM balances WHERE user_id = ?2"""

# By how much calls that run may be dearer than what the team holds for them.
PROMISED_OF_TEAM = """
SELECT coalesce(sum(may_team), 0) FROM requests INDEXED BY requests_open
 WHERE closed_at IS NULL AND team_id = ?"""

IS_TEAM = "SELECT is_team FROM users WHERE id = ?"


def available(conn: Connection, user_id: int, now: int) -> Pockets:
    """What each pocket of a member has free, within a transaction of who calls; of the team's wallet
    what all its members have together. Raises Unknown."""
    return available_with_team(conn, user_id, now)[0]


def available_with_team(conn: Connection, user_id: int, now: int) -> tuple[Pockets, int | None]:
    """The same, and the member's team."""
    row = conn.execute(AVAILABLE, (now, user_id)).fetchone()
    if row is None:
        raise Unknown("there is no such member")
    grant, wallet, quota, team_id, team = row
    return Pockets(grant, max(0, quota), wallet, max(0, team)), team_id


def promised_of_team(conn: Connection, team_id: int) -> int:
    """By how much running calls of a team's members may be dearer than what the team holds for them
    (nano-yuan)."""
    (promised,) = conn.execute(PROMISED_OF_TEAM, (team_id,)).fetchone()
    return int(promised)


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


# ---- movements


POST = """
INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id, subscription_id, note, by_user_id,
                     created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

POST_FOR_MEMBER = """
INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id, member_id, created_at)
VALUES (?, 'wallet', 'charge', ?, ?, ?, ?, ?)"""


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


def post_charge(
    conn: Connection, call_id: str, call: Any, charged: Pockets, paying: list[Any], now: int
) -> None:
    """What a call is charged: one entry a pocket, and for the quota one a subscription.

    `call` is its row with what the pockets hold, whose hold has been released before. Within a
    transaction of who calls.
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
        after = call["team_balance"] - charged.team
        values = (call["team_id"], -charged.team, after, call_id, user_id, now)
        conn.execute(POST_FOR_MEMBER, values)
    if charged.wallet:
        entry("wallet", charged.wallet, call["wallet_balance"])
    own = charged.quota + min(charged.wallet, max(0, call["wallet_balance"]))  # a debt is none
    if call["invite_pending"] and own:
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
        if amount < 0 and kind not in (None, "adjust"):
            raise ValueError("only a correction (adjust) may take something away")

    def act(conn: Connection, now: int) -> dict[str, Any]:
        has = available(conn, user_id, now)
        if has.grant + amounts.get("grant", 0) < 0:
            raise NotCovered(has, Pockets(-amounts["grant"], 0, 0))
        if conn.execute(IS_TEAM, (user_id,)).fetchone()[0]:
            _check_shared(has, amounts, promised_of_team(conn, user_id))
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


def _check_shared(has: Pockets, amounts: dict[str, int], promised: int) -> None:
    """A team has a wallet alone, and nothing is taken out of it that running calls count on."""
    if "grant" in amounts:
        raise ValueError("a team has a wallet and no grant")
    free = has.wallet - promised
    if amounts["wallet"] < 0 and free + amounts["wallet"] < 0:
        raise NotCovered(Pockets(0, 0, free), Pockets(0, 0, -amounts["wallet"]))


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


def now_ms() -> int:
    """The clock, in ms."""
    return time.time_ns() // 1_000_000
