"""Calls and money: what a call sets aside, what it is charged, and what may be spent.

Owns holds, charges and caps. What a call costs and which pocket pays is pricing.py's; the books that
it is written into are ledger.py's, whose names are those of this module too. It refuses to know what
a call says, who may make it, and the settings: prices and limits come as arguments.

Money is nano-yuan; the grant pocket counts LLM tokens. `now` is in ms and None means the clock's.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.json import encode
from msgspec.structs import replace

from db import Connection, Database
from ledger import (
    KEY_LENGTH_MAX,
    KeyReused,
    LedgerError,
    NotCovered,
    Unknown,
    available,
    available_with_team,
    balances,
    credit,
    credit_all,
    held_in_all,
    now_ms,
    once,
    post,
    post_charge,
    promised_of_team,
)
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
    "KEY_LENGTH_MAX",
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
    "held_in_all",
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


class Cap(msgspec.Struct, frozen=True):
    """So much money may a token, a member or the whole site spend since a day.

    `strict`: a call that might lead beyond it is refused; else one is that begins when it is
    reached. `sentence` says it to whom it stops.
    """

    scope: str  # token | member | site
    amount: int  # nano-yuan
    since: str  # a day, YYYY-MM-DD
    sentence: str
    strict: bool = True


class CapExceeded(LedgerError):
    """A cap leaves no room for the call: `.cap`."""

    def __init__(self, cap: Cap):
        super().__init__(cap.sentence)
        self.cap = cap


class Call(msgspec.Struct, frozen=True):
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


class Ending(msgspec.Struct, frozen=True):
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


BEGIN_CALL = """
INSERT INTO requests (id, user_id, token_id, wire, model, upstream, stream, day, started_at,
                      price_input, price_cached, price_output, hold_grant, hold_quota, hold_wallet, team_id,
                      hold_team, may_grant, may_money, may_team)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""

REFUSE_CALL = """
INSERT INTO requests (id, user_id, token_id, wire, model, upstream, stream, day, started_at, closed_at,
                      outcome, status, error, usage_source, message, first_byte_ms, duration_ms, attempts)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'none', ?, ?, ?, ?)"""

OPEN_CALL = """
SELECT r.user_id, r.started_at, r.upstream,
       own.grant_balance - own.grant_held + hold_grant AS grant,
       own.quota_balance - own.quota_held + hold_quota AS quota,
       own.grant_balance, own.quota_balance, own.wallet_balance, own.invite_pending,
       r.team_id, team.wallet_balance - team.wallet_held + hold_team + may_team AS team,
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


# By how much calls that run may be dearer than their holds: nobody else is promised that.
PROMISED = """
SELECT coalesce(sum(may_grant), 0), coalesce(sum(may_money), 0), count(*), coalesce(sum(may_money + may_team), 0)
  FROM requests WHERE user_id = ? AND closed_at IS NULL"""
PROMISED_BY_SITE = """
SELECT coalesce(sum(may_money + may_team), 0) FROM requests INDEXED BY requests_open WHERE closed_at IS NULL"""
SHARE = 4  # of its equal share of what nobody is promised, a call may use one part in so many beyond its hold


class Held(msgspec.Struct, frozen=True):
    """What each pocket holds for a call, and how much output they pay for in the worst case; None:
    any, for it costs nothing."""

    pockets: Pockets
    output: int | None


def hold(
    db: Database,
    call: Call,
    usage: Usage,
    price: Price,
    overdraft: int = 0,
    caps: tuple[Cap, ...] = (),
    output_max: int | None = None,
) -> Held:
    """Set aside what a call will likely cost, and open its row; returns what each pocket holds for
    it, and how far they reach.

    `overdraft` (nano-yuan) is how far below zero the wallet may go for it; `output_max` is all the
    output that it may come to, None: what it holds. Raises NotCovered or CapExceeded, and then writes nothing.
    """
    likely, high = usage.possible(), price.highest()
    most = likely.output_tokens if output_max is None else output_max
    return db.write_admitting(_hold, call, likely, high, overdraft, caps, most)


def _hold(
    conn: Connection,
    call: Call,
    usage: Usage,
    price: Price,
    overdraft: int,
    caps: tuple[Cap, ...],
    output_max: int,
) -> Held:
    has, team_id, peers, promised = _unpromised(conn, call)
    held = split(usage, price, has)
    if held.wallet > max(0, has.wallet + overdraft):
        raise NotCovered(has, held, team_id is not None, promised)
    room = min((_room(conn, call, cap, held.money) for cap in caps), default=AMOUNT_MAX)
    output = _output_granted(usage, price, has, overdraft, room, output_max, SHARE * (1 + peers))
    most = held
    if output not in (None, usage.output_tokens):
        most = split(replace(usage, output_tokens=output), price, has)
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
            most.grant - held.grant,
            most.quota + most.wallet - held.quota - held.wallet,
            most.team - held.team,
        ),
    )
    return Held(held, output)


def _unpromised(conn: Connection, call: Call) -> tuple[Pockets, int | None, int, int]:
    """What each pocket has that no call that runs may come to use; the member's team; how many calls
    of the member run, and the money that calls that run are promised. (Those of others in the team are
    not counted: nobody's answers get shorter by how much their colleagues do.)"""
    has, team_id = available_with_team(conn, call.user_id, call.started_at)
    grant, money, peers, _all = conn.execute(PROMISED, (call.user_id,)).fetchone()
    of_team = promised_of_team(conn, team_id) if team_id is not None else 0
    team = has.team - of_team
    beyond_quota = max(0, money - has.quota)
    return (
        Pockets(
            max(0, has.grant - grant),
            max(0, has.quota - money),
            has.wallet - beyond_quota,
            max(0, team),
        ),
        team_id,
        peers,
        money + of_team,
    )


def _output_granted(
    usage: Usage,
    price: Price,
    has: Pockets,
    overdraft: int,
    room: int,
    output_max: int,
    share: int,
) -> int | None:
    """How much output a call may come to: what it holds, and beyond that one part in `share` of what
    there is, so that all calls that run together never come to more than that; None: any.

    The more there are, the less each is given: a quarter each would leave the twentieth nothing to
    begin with. `room` (nano-yuan) is what caps leave. It's OK that an answer ends a little early where the
    pockets are nearly empty: the alternative is that a crowd spends what is there once each.
    """
    reach = output_afforded(usage, price, has, overdraft)
    if reach is None:
        return None
    if room < AMOUNT_MAX:
        capped = output_afforded(usage, price, Pockets(has.grant, max(0, room), 0))
        reach = min(reach, capped or 0)
    likely = usage.output_tokens
    return max(likely, min(output_max, likely + max(0, reach - likely) // share))


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


def _room(conn: Connection, call: Call, cap: Cap, held: int) -> int:
    """How much money a call may come to under a cap, beside those that run.

    Raises CapExceeded if it finds no room; what gifts pay for needs none.
    """
    left = cap.amount - spent(conn, cap.scope, cap.since, call.user_id, call.token_id)
    if cap.strict:
        site = cap.scope == "site"
        promised = conn.execute(
            PROMISED_BY_SITE if site else PROMISED, () if site else (call.user_id,)
        )
        left -= promised.fetchone()[-1]
    if held and (held > left if cap.strict else left <= 0):
        raise CapExceeded(cap)
    return left if cap.strict else AMOUNT_MAX


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
        charged = split(usage, price, Pockets(call["grant"], quota, 0, _of_team(conn, call)))
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
        post_charge(conn, call_id, call, charged, paying, now)
    return charged


def _attempts(end: Ending) -> str:
    return encode(end.attempts).decode() if end.attempts else "[]"


def _of_team(conn: Connection, call: Any) -> int:
    """What the team's wallet pays for a call at most: nothing that its other calls are promised."""
    if call["team_id"] is None:
        return 0
    return int(call["team"]) - promised_of_team(conn, call["team_id"])


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
