"""Who may ask, for what, and how often.

Owns the answer to "may this caller ask this now". It knows members only as the owners of API
tokens, moves no money, and keeps no cache: every request looks its token up, so a revocation holds
at the next one. What is counted in a window or at once lives in memory; a little more than a cap
may be spent by calls that run at the same time.
"""

import ipaddress
import json
import logging
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from billing import Cap, nano, yuan
from db import Database, DatabaseError, Error
from members.tokens import (
    SHAPE,
    TokenError,
    change,
    clear_expired,
    digest,
    mint,
    revoke,
    rotate,
    tokens,
)
from members.turned_away import TurnedAway
from relay import errors
from relay.body import Ask
from relay.limits import Rate

__all__ = [
    "Budget",
    "Caller",
    "ConcurrencyLimit",
    "Gate",
    "TokenError",
    "change",
    "clear_expired",
    "digest",
    "duration",
    "mint",
    "presented",
    "revoke",
    "rotate",
    "tokens",
]

log = logging.getLogger("relay.gate")

_bearer = re.compile(r"bearer +(\S+)", re.ASCII | re.IGNORECASE).fullmatch

LOOK_S = 1.0  # between two looks who has been disabled
CAPS = (
    *(("token", "day"), ("token", "month"), ("member", "day"), ("member", "month")),
    ("site", "month"),
)
NO_CAPS = (None,) * len(CAPS)
CAPPED = {"token": "This API key", "member": "This member", "site": "This relay"}
BOUND = {  # who keeps a caller from a model
    "token": "This API key may not use '{model}'.",
    "member": "The administrators do not let this member use '{model}'.",
    "plan": "The plan '{plan}' does not include '{model}'.",
}
WHY = ("and has", "and what is spent and running leaves no room for this request")  # strict or not
HOUSE = ("house",)  # whom all calls that run belong to
MEMBER_RATES = 3  # what all tokens of a member may ask together, in rates of one

FIND = """
SELECT tokens.id, tokens.name, tokens.models, tokens.rpm, tpm, calls_at_once, tokens.cap_day,
       tokens.cap_month, addresses,
       tokens.scope = 'admin' AND users.role = 'admin', tokens.scope,
       users.id, users.name, caps.cap_day, caps.cap_month, caps.models,
       (SELECT group_concat(plan) FROM subscriptions
         WHERE user_id = users.id AND starts_at <= :now AND ends_at > :now)
  FROM tokens JOIN users ON users.id = tokens.user_id LEFT JOIN caps ON caps.user_id = users.id
 WHERE {which} AND tokens.revoked_at IS NULL AND users.disabled_at IS NULL
   AND (tokens.expires_at IS NULL OR tokens.expires_at > :now)
"""
FIND_BY_DIGEST = FIND.format(which="tokens.digest = :key")
FIND_BY_OLD_DIGEST = FIND.format(which="tokens.old_digest = :key AND tokens.old_until > :now")
# Who presents the whole of a token that works no more has held it, and may know why.
DEAD = """
SELECT tokens.id, user_id, revoked_at IS NOT NULL OR old_digest = :key, disabled_at IS NOT NULL
  FROM tokens JOIN users ON users.id = user_id WHERE digest = :key OR old_digest = :key"""
WHY_DEAD = {
    "disabled": "The member who holds this API key is disabled.",
    "revoked": "This API key has been revoked, or has a new secret.",
    "expired": "This API key has expired.",
}
MAY = """
SELECT caps.models, (SELECT group_concat(plan) FROM subscriptions
                      WHERE user_id = users.id AND starts_at <= :now AND ends_at > :now)
  FROM users LEFT JOIN caps ON caps.user_id = users.id WHERE users.id = :key"""
FIND_BY_ID = FIND.format(which="tokens.id = :key")


class Caller(msgspec.Struct, frozen=True):
    """Who asks: the member, the API token, the plan in force and what follows from it."""

    user_id: int
    user_name: str
    token_id: int
    token_name: str
    models: frozenset[str] | None  # None: every model
    plan: str
    requests_per_minute: int
    input_tokens_max: int | None
    member_calls_at_once: int | None = None
    tokens_per_minute: int | None = None
    calls_at_once: int | None = None
    cap_day: int | None = None  # nano-yuan
    cap_month: int | None = None
    member_requests_per_minute: int | None = None  # None: not counted
    member_cap_day: int | None = None
    member_cap_month: int | None = None
    administers: bool = False  # with a token for that, held by an administrator
    scope: str | None = None  # the token's
    bounds: tuple[tuple[str, frozenset[str]], ...] = ()  # who binds to which models, see BOUND


class ConcurrencyLimit:
    """How many calls run now, by whom. One for the process; it outlives a reload.

    `share` is what one member may have where no plan says: not the last places of the house, which
    holds `most`.
    """

    def __init__(self, share: int | None = None, most: int | None = None):
        self.share, self.most = share, most
        self._running: dict[tuple, int] = defaultdict(int)
        self._lock = threading.Lock()

    @property
    def running(self) -> int:
        """How many calls run now."""
        return self._running.get(HOUSE, 0)

    def enter(self, limits: dict[tuple, int | None]) -> tuple | None:
        """Count a call under each of these names.

        Or count nothing and return the name whose limit is reached.
        """
        with self._lock:
            for name, limit in limits.items():
                if limit is not None and self._running.get(name, 0) >= limit:
                    return name
            for name in limits:
                self._running[name] += 1
        return None

    def leave(self, names) -> None:
        with self._lock:
            for name in names:
                self._running[name] -= 1
                if self._running[name] <= 0:
                    del self._running[name]


class Budget(msgspec.Struct, frozen=True):
    """What is left of a caller's window: requests, and seconds until it ends."""

    limit: int
    remaining: int
    reset_s: float

    def headers(self) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": duration(self.reset_s),
        }


class Gate:
    """Finds callers and holds them to their limits.

    `limiter` counts in fixed windows, as `relay.limits` has it.
    """

    def __init__(
        self,
        db: Database,
        settings,
        limiter,
        at_once: ConcurrencyLimit,
        turned_away: TurnedAway,
    ):
        self._db, self._turned_away = db, turned_away
        self._at_once = at_once
        self._timezone = ZoneInfo(settings.site.timezone)
        self._plans = settings.plans
        cap = settings.site.cap_month
        self._site_cap = None if cap is None else nano(cap)
        self._limiter = limiter
        self._failures = Rate(settings.limits.failures_per_minute)
        self._disabled: frozenset[int] = frozenset()
        self._looked = -LOOK_S

    def disabled(self, user_id: int) -> bool:
        """Whether a member whose call runs has been disabled since, by whatever process: asked four
        times a second for each open call, looked up once a second for all."""
        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._looked = now
            try:
                rows = self._db.read().execute("SELECT id FROM users WHERE disabled_at IS NOT NULL")
                self._disabled = frozenset(user for (user,) in rows)
            except (Error, DatabaseError):
                # the one who asks watches everybody's calls and must go on: the last look holds
                log.exception("it could not be read who is disabled")
        return user_id in self._disabled

    def identify(
        self, authorization: str | None, api_key: str | None, address: str | None
    ) -> Caller:
        """The caller behind a request's headers. `address` None: nobody knows it yet, and it is
        neither checked nor counted.

        Raises NotAuthenticated, or RateLimited for an address with too many failures; a good token
        from that address is still let in, for a whole office may sit behind it.
        """
        raw = presented(authorization, api_key)
        caller = self._holder(raw, address) if raw else None
        if caller is None:
            why = self._why_dead(raw) if raw else None
            network = None if address is None else _network(address)
            if network:
                self._count_failure(network)
            log.warning("a token was refused, from %s", address)
            raise errors.NotAuthenticated(why)
        return caller

    def _count_failure(self, network: str) -> None:
        """Count a token that was not good against where it came from. Raises RateLimited."""
        window = self._limiter.count(self._failures, "failed", network)
        if window.count > self._failures.amount:
            raise errors.RateLimited(
                "Too many attempts with API keys that are not valid. Wait a minute.",
                retry_after=window.wait_s,
            )

    def _holder(self, raw: str, address: str | None = None) -> Caller | None:
        """Who holds a token, or held it until lately: the secret before the last may be good yet."""
        key = digest(raw)
        return self._find(FIND_BY_DIGEST, key, address) or self._find(
            FIND_BY_OLD_DIGEST, key, address
        )

    def _why_dead(self, raw: str) -> str | None:
        """Why a token works no more, in a sentence; None for one that never did."""
        row = self._db.one(DEAD, {"key": digest(raw)})
        if row is None:
            return None
        token_id, user_id, revoked, disabled = row
        reason = "disabled" if disabled else "revoked" if revoked else "expired"
        self._turn_away(user_id, token_id, reason)
        return WHY_DEAD[reason]

    def _turn_away(self, user_id: int, token_id: int, reason: str) -> None:
        """Count, for the member's pages, a request that never became a call."""
        now = datetime.now(self._timezone)
        at = int(now.timestamp() * 1000)
        self._turned_away.count(user_id, token_id, f"{now:%Y-%m-%d}", reason, at)

    def caller_of(self, token_id: int) -> Caller | None:
        """The caller behind a token's id, for the console, which never has the raw token.

        None if it is not usable.
        """
        return self._find(FIND_BY_ID, token_id)

    def models_of(self, user_id: int | None) -> frozenset[str] | None:
        """The models that a member may use, whatever the token; of nobody, those of the plan that
        everybody has. None: every model."""
        member, names = None, list[str]()
        if user_id is not None:
            row = self._db.one(MAY, {"key": user_id, "now": time.time_ns() // 1_000_000})
            member, plans = row or (None, None)
            names = (plans or "").split(",")
        return _both(_bounds(None, member, self._plans[self.plan_in_force(names)].models))

    def count(self, caller: Caller) -> Budget:
        """Count one request against the caller's window.

        Raises RateLimited, with what is left in its headers.
        """
        rate = Rate(caller.requests_per_minute)
        window = self._limiter.count(rate, "token", str(caller.token_id))
        budget = Budget(rate.amount, max(0, rate.amount - window.count), window.reset_s)
        if window.count > rate.amount:
            self._turn_away(caller.user_id, caller.token_id, "rate")
            raise errors.RateLimited(
                f"This API key may make {_count(rate.amount, 'request')} a minute. "
                f"Try again in {window.wait_s} seconds.",
                retry_after=window.wait_s,
                headers=budget.headers(),
            )
        self._count_member(caller, budget)
        return budget

    def _count_member(self, caller: Caller, budget: Budget) -> None:
        """Count it against what all tokens of the member may make together, revoked ones too."""
        most = caller.member_requests_per_minute
        if most is None:
            return
        rate = Rate(most)
        window = self._limiter.count(rate, "member", str(caller.user_id))
        if window.count > most:
            self._turn_away(caller.user_id, caller.token_id, "rate")
            raise errors.RateLimited(
                f"All API keys of a member may make {_count(most, 'request')} a minute together. "
                f"Try again in {window.wait_s} seconds.",
                retry_after=window.wait_s,
                headers=budget.headers(),
            )

    def enter(self, caller: Caller) -> Callable[[], None]:
        """Begin a call; returns what ends it.

        Raises RateLimited if too many run at once, or too many LLM tokens went in this minute;
        Unavailable if the house holds no more.
        """
        if caller.tokens_per_minute is not None:
            rate = Rate(caller.tokens_per_minute)
            window = self._limiter.look(rate, "llm", str(caller.token_id))
            if window.count >= rate.amount:
                self._turn_away(caller.user_id, caller.token_id, "llm_tokens")
                raise errors.RateLimited(
                    f"This API key may use {rate.amount} tokens a minute. "
                    f"Try again in {window.wait_s} seconds.",
                    retry_after=window.wait_s,
                )
        limits = {
            HOUSE: self._at_once.most,
            ("member", caller.user_id): caller.member_calls_at_once or self._at_once.share,
            ("token", caller.token_id): caller.calls_at_once,
        }
        full = self._at_once.enter(limits)
        if full == HOUSE:
            raise errors.Unavailable(
                "The relay has all the calls that it can hold. Try again soon.",
                code="relay_overloaded",
                retry_after=2,
            )
        if full:
            self._turn_away(caller.user_id, caller.token_id, "calls_at_once")
            raise errors.RateLimited(
                f"This {full[0]} may have {_count(limits[full] or 0, 'call')} at once. "
                "Try again when one has ended.",
                retry_after=1,
            )
        return lambda: self._at_once.leave(limits)

    def spent(self, caller: Caller, llm_tokens: int) -> None:
        """Count the LLM tokens of a call that has ended against the token's minute."""
        if caller.tokens_per_minute is not None and llm_tokens:
            rate = Rate(caller.tokens_per_minute)
            self._limiter.count(rate, "llm", str(caller.token_id), cost=llm_tokens)

    def caps(self, caller: Caller) -> tuple[Cap, ...]:
        """What the caller's token, the member and the site may spend in this day and month, by the
        site's calendar.

        Only administrators' caps are strict: a token's own are its holder's wish.
        """
        amounts = (
            *(caller.cap_day, caller.cap_month),
            *(caller.member_cap_day, caller.member_cap_month),
            self._site_cap,
        )
        if amounts == NO_CAPS:
            return ()
        today = datetime.now(self._timezone).replace(hour=0, minute=0, second=0, microsecond=0)
        month = today.replace(day=1)
        spans = {
            "day": (today, today + timedelta(days=1)),
            "month": (month, (month + timedelta(days=32)).replace(day=1)),
        }
        return tuple(
            Cap(
                scope,
                amount,
                f"{spans[span][0]:%Y-%m-%d}",
                f"{CAPPED[scope]} may spend {yuan(amount)} yuan a {span}, {WHY[scope != 'token']}. "
                f"It is free again on {spans[span][1]:%Y-%m-%d %H:%M %Z}.",
                strict=scope != "token",
            )
            for (scope, span), amount in zip(CAPS, amounts, strict=True)
            if amount is not None
        )

    def admit(self, caller: Caller, ask: Ask, model) -> None:
        """Refuse what this caller may not ask: ModelNotAllowed, or OverPlan or ContextTooLong."""
        if caller.scope is not None:
            raise errors.ModelNotAllowed("This API key is for the administrators' API alone.")
        if caller.models is not None and model.id not in caller.models:
            who = next(who for who, models in caller.bounds if model.id not in models)
            may = ", ".join(sorted(caller.models)) or "none"
            raise errors.ModelNotAllowed(
                f"{BOUND[who].format(model=model.id, plan=caller.plan)} Models for it: {may}.",
                param="model",
            )
        if caller.input_tokens_max is not None and ask.input_tokens > caller.input_tokens_max:
            raise errors.OverPlan(
                f"The input has about {ask.input_tokens} tokens; the plan '{caller.plan}' takes at most "
                f"{caller.input_tokens_max}. A subscription lifts this limit.",
                param="messages",
            )
        if (
            model.context and ask.input_tokens > model.context * 1.25
        ):  # the estimate errs; the provider knows
            raise errors.ContextTooLong(
                # agents know these
                f"prompt is too long: {ask.input_tokens} tokens > {model.context} maximum. "
                f"This model's maximum context length is {model.context} tokens.",
                param="messages",
            )  # words

    def _find(self, sql: str, key: bytes | int, address: str | None = None) -> Caller | None:
        row = self._db.one(sql, {"key": key, "now": time.time_ns() // 1_000_000})
        if row is None:
            return None
        (
            token_id,
            token_name,
            models,
            rpm,
            tpm,
            at_once,
            cap_day,
            cap_month,
            addresses,
            administers,
            scope,
            user_id,
            user_name,
            member_cap_day,
            member_cap_month,
            member_models,
            plans,
        ) = row
        if addresses and address is not None:
            try:
                _check_address(address, json.loads(addresses))
            except errors.AddressNotAllowed:
                self._turn_away(user_id, token_id, "address")
                raise
        name = self.plan_in_force((plans or "").split(","))
        plan = self._plans[name]
        per_minute = plan.requests_per_minute
        bounds = _bounds(models, member_models, plan.models)
        return Caller(
            user_id,
            user_name,
            token_id,
            token_name,
            _both(bounds),
            name,
            min(rpm, per_minute) if rpm else per_minute,
            plan.input_tokens_max,
            plan.calls_at_once,
            tpm,
            at_once,
            cap_day,
            cap_month,
            plan.member_requests_per_minute or MEMBER_RATES * per_minute,
            member_cap_day,
            member_cap_month,
            bool(administers),
            scope,
            bounds,
        )

    def plan_in_force(self, names: Iterable[str]) -> str:
        """Of several plans the cheapest, then the fastest.

        A plan that the settings no longer know does not count.
        """
        known = [name for name in names if name in self._plans]
        return min(
            known,
            key=lambda name: (self._plans[name].discount, -self._plans[name].requests_per_minute),
            default="free",
        )


def presented(authorization: str | None, api_key: str | None) -> str | None:
    """The token that a request's headers present, or None.

    A joined or odd header, and another house's key, is none.
    """
    match = _bearer(authorization.strip()) if authorization else None
    return next(
        (raw for raw in (match[1] if match else "", (api_key or "").strip()) if SHAPE(raw)), None
    )


def duration(seconds: float) -> str:
    """A time span as OpenAI writes it: `12ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _bounds(
    token: str | None, member: str | None, plan: tuple[str, ...]
) -> tuple[tuple[str, frozenset[str]], ...]:
    """Who of a token, its member and the plan binds to which models."""
    said = {
        "token": frozenset(json.loads(token)) if token else None,
        "member": frozenset(json.loads(member)) if member else None,
        "plan": frozenset(plan) or None,
    }
    return tuple((who, models) for who, models in said.items() if models is not None)


def _both(bounds: tuple[tuple[str, frozenset[str]], ...]) -> frozenset[str] | None:
    """The models that all of them allow; None: every model."""
    return frozenset.intersection(*(models for _, models in bounds)) if bounds else None


def _count(number: int, what: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _ip(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _network(address: str) -> str:
    """Whom to count an attempt against.

    In IPv6 a whole network, for everybody has billions of addresses.
    """
    ip = _ip(address)
    return (
        str(ipaddress.ip_network((ip, 64), strict=False))
        if ip is not None and ip.version == 6
        else address
    )


def _check_address(address: str, allowed: list[str]) -> None:
    ip = _ip(address)
    if ip is None or not any(ip in ipaddress.ip_network(network) for network in allowed):
        raise errors.AddressNotAllowed()
