"""Who may ask, for what, and how often.

Owns API tokens (mint, find, list, revoke, change) and the answer to "may this caller ask this now". It knows members
only as the owners of tokens, never sees money, and keeps no cache: every request looks its token up, so a revocation
holds at the next one.
"""

import hashlib
import json
import re
import secrets
import time
from dataclasses import dataclass

from limits import parse

from db import Database
from relay import errors
from relay.body import Ask

NAME_LENGTH_MAX = 64
RPM_MAX = 1_000_000

_shape = re.compile(r"sk-[A-Za-z0-9_-]{43}", re.ASCII).fullmatch
_bearer = re.compile(r"bearer +(\S+)", re.ASCII | re.IGNORECASE).fullmatch

FIND = """
SELECT tokens.id, tokens.name, tokens.models, tokens.rpm, users.id, users.name,
       (SELECT group_concat(DISTINCT plan) FROM subscriptions
         WHERE user_id = users.id AND starts_at <= :now AND ends_at > :now)
  FROM tokens JOIN users ON users.id = tokens.user_id
 WHERE {which} AND tokens.revoked_at IS NULL AND users.disabled_at IS NULL
   AND (tokens.expires_at IS NULL OR tokens.expires_at > :now)
"""
FIND_BY_DIGEST = FIND.format(which="tokens.digest = :key")
FIND_BY_ID = FIND.format(which="tokens.id = :key")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the member, the API token, the plan in force and what follows from it."""

    user_id: int
    user_name: str
    token_id: int
    token_name: str
    models: frozenset[str] | None          # None: every model
    plan: str
    requests_per_minute: int
    input_tokens_max: int | None


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left of a caller's window: requests, and seconds until it ends."""

    limit: int
    remaining: int
    reset_s: float

    def headers(self) -> dict[str, str]:
        return {"x-ratelimit-limit-requests": str(self.limit),
                "x-ratelimit-remaining-requests": str(self.remaining),
                "x-ratelimit-reset-requests": duration(self.reset_s)}


class TokenError(ValueError):
    """A token cannot be made or changed as asked. The message says why."""


class Gate:
    """Finds callers and holds them to their limits. `limiter` is a fixed-window strategy of the package limits."""

    def __init__(self, db: Database, settings, limiter):
        self._db = db
        self._plans = settings.plans
        self._limiter = limiter
        self._failures = parse(f"{settings.limits.failures_per_minute} per minute")
        self._windows: dict[int, object] = {}      # requests per minute -> the limiter's item, made once

    def identify(self, authorization: str | None, api_key: str | None, address: str) -> Caller:
        """The caller behind a request's headers.

        Raises NotAuthenticated, or RateLimited for an address with too many failures; a good token from that
        address is still let in, for a whole office may sit behind it.
        """
        raw = presented(authorization, api_key)
        caller = self._find(FIND_BY_DIGEST, digest(raw)) if raw else None
        if caller is None:
            if not self._limiter.hit(self._failures, "failed", address):
                raise errors.RateLimited("Too many attempts with tokens that are not valid. Wait a minute.",
                                         retry_after=self._retry_after(self._failures, "failed", address))
            raise errors.NotAuthenticated()
        return caller

    def caller_of(self, token_id: int) -> Caller | None:
        """The caller behind a token's id, for the console, which never has the raw token; None if it is not usable."""
        return self._find(FIND_BY_ID, token_id)

    def count(self, caller: Caller) -> Budget:
        """Count one request against the caller's window. Raises RateLimited, with what is left in its headers."""
        item = self._window(caller.requests_per_minute)
        admitted = self._limiter.hit(item, "token", str(caller.token_id))
        stats = self._limiter.get_window_stats(item, "token", str(caller.token_id))
        budget = Budget(caller.requests_per_minute, max(0, stats.remaining),
                        max(0.0, stats.reset_time - time.time()))
        if not admitted:
            wait_s = max(1, int(budget.reset_s + 0.999))
            raise errors.RateLimited(
                f"This token may make {budget.limit} requests a minute. Try again in {wait_s} seconds.",
                retry_after=wait_s, headers=budget.headers())
        return budget

    def admit(self, caller: Caller, ask: Ask, model) -> None:
        """Refuse what this caller may not ask: ModelNotAllowed, or ContextTooLong by the plan's or model's limit."""
        if caller.models is not None and model.id not in caller.models:
            raise errors.ModelNotAllowed(
                f"This token may not use '{model.id}'. It may use: {', '.join(sorted(caller.models))}.",
                param="model")
        if caller.input_tokens_max is not None and ask.input_tokens > caller.input_tokens_max:
            raise errors.ContextTooLong(
                f"The input has about {ask.input_tokens} tokens; the plan '{caller.plan}' takes at most "
                f"{caller.input_tokens_max}. A subscription lifts this limit.", param="messages")
        if model.context and ask.input_tokens > model.context * 1.25:   # the estimate errs; the provider knows
            raise errors.ContextTooLong(
                f"prompt is too long: {ask.input_tokens} tokens > {model.context} maximum",    # agents know these words
                param="messages")

    def _find(self, sql: str, key: bytes | int) -> Caller | None:
        row = self._db.read().execute(sql, {"key": key, "now": int(time.time() * 1000)}).fetchone()
        if row is None:
            return None
        token_id, token_name, models, rpm, user_id, user_name, plans = row
        name = self._plan_in_force(plans)
        plan = self._plans[name]
        per_minute = plan.requests_per_minute
        return Caller(user_id, user_name, token_id, token_name,
                      frozenset(json.loads(models)) if models else None,
                      name, min(rpm, per_minute) if rpm else per_minute, plan.input_tokens_max)

    def _plan_in_force(self, subscribed: str | None) -> str:
        """Of several plans the cheapest, then the fastest; a plan that the settings no longer know does not count."""
        known = [name for name in (subscribed or "").split(",") if name in self._plans]
        return min(known, key=lambda name: (self._plans[name].discount, -self._plans[name].requests_per_minute),
                   default="free")

    def _window(self, per_minute: int):
        item = self._windows.get(per_minute)
        if item is None:
            item = self._windows[per_minute] = parse(f"{per_minute} per minute")
        return item

    def _retry_after(self, item, *key: str) -> int:
        return max(1, int(self._limiter.get_window_stats(item, *key).reset_time - time.time() + 0.999))


def presented(authorization: str | None, api_key: str | None) -> str | None:
    """The token that a request's headers present, or None. A joined or odd header presents none."""
    match = _bearer(authorization.strip()) if authorization else None
    raw = match[1] if match else (api_key or "").strip()
    return raw if _shape(raw) else None


def digest(raw: str) -> bytes:
    """What is stored of a token. It has 256 random bits, so a fast hash is enough."""
    return hashlib.sha256(raw.encode()).digest()


def duration(seconds: float) -> str:
    """A time span as OpenAI writes it: `12ms`, `1s`, `6m0s`."""
    if seconds < 1:
        return f"{int(seconds * 1000)}ms"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def mint(db: Database, user_id: int, name: str, *, models: list[str] | None = None, rpm: int | None = None,
         expires_at: int | None = None, tokens_max: int | None = None) -> tuple[int, str]:
    """Make a token; returns its id and the raw token, which is never to be had again.

    `expires_at` in ms; `tokens_max` is how many unrevoked tokens a member may hold. Raises TokenError.
    """
    fields = _checked(name, models, rpm, expires_at)
    raw = "sk-" + secrets.token_urlsafe(32)

    def insert(conn):
        if tokens_max is not None:
            held, = conn.execute("SELECT count(*) FROM tokens WHERE user_id = ? AND revoked_at IS NULL",
                                 (user_id,)).fetchone()
            if held >= tokens_max:
                raise TokenError(f"A member may hold {tokens_max} tokens. Revoke one first.")
        return conn.execute(
            "INSERT INTO tokens (user_id, name, models, rpm, expires_at, digest, hint, created_at)"
            " VALUES (:user_id, :name, :models, :rpm, :expires_at, :digest, :hint, :now)",
            fields | {"user_id": user_id, "digest": digest(raw), "hint": f"{raw[:5]}…{raw[-4:]}", "now": _now()},
        ).lastrowid

    return db.write(insert), raw


def change(db: Database, user_id: int, token_id: int, name: str, *, models: list[str] | None = None,
           rpm: int | None = None, expires_at: int | None = None) -> bool:
    """Change what may be changed of a member's token; False if the member has no such unrevoked token."""
    fields = _checked(name, models, rpm, expires_at) | {"id": token_id, "user_id": user_id}
    return db.write(lambda conn: conn.execute(
        "UPDATE tokens SET name = :name, models = :models, rpm = :rpm, expires_at = :expires_at"
        " WHERE id = :id AND user_id = :user_id AND revoked_at IS NULL", fields).rowcount == 1)


def revoke(db: Database, token_id: int, user_id: int | None = None) -> bool:
    """Revoke a token (of that member, if one is given); False if there is no such unrevoked token."""
    return db.write(lambda conn: conn.execute(
        "UPDATE tokens SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL"
        " AND (:user_id IS NULL OR user_id = :user_id)",
        {"id": token_id, "user_id": user_id, "now": _now()}).rowcount == 1)


def tokens(db: Database, user_id: int) -> list[dict]:
    """A member's tokens, newest first, with last use, calls and cost (nano-yuan) from the roll-ups."""
    rows = db.read().execute("""
        SELECT tokens.id, name, hint, models, rpm, created_at, expires_at, revoked_at,
               max(daily.last_at), coalesce(sum(daily.calls), 0), coalesce(sum(daily.cost), 0)
          FROM tokens LEFT JOIN daily ON daily.user_id = tokens.user_id AND daily.token_id = tokens.id
         WHERE tokens.user_id = ? GROUP BY tokens.id ORDER BY tokens.id DESC""", (user_id,)).fetchall()
    names = ("id", "name", "hint", "models", "rpm", "created_at", "expires_at", "revoked_at",
             "last_used_at", "calls", "cost")
    return [dict(zip(names, row, strict=True)) | {"models": json.loads(row[3]) if row[3] else None} for row in rows]


@dataclass(frozen=True, slots=True)
class Used:
    """What a member has used since the beginning, from the roll-ups; costs in nano-yuan."""

    calls: int
    cost: int
    cost_by_token: int
    expires_at: int | None         # the token's, in ms


def used(db: Database, user_id: int, token_id: int) -> Used:
    """What a member has used in all, and with one token."""
    row = db.read().execute(
        "SELECT coalesce(sum(calls), 0), coalesce(sum(cost), 0), coalesce(sum(cost) FILTER (WHERE token_id = ?1), 0),"
        " (SELECT expires_at FROM tokens WHERE id = ?1) FROM daily WHERE user_id = ?2", (token_id, user_id)).fetchone()
    return Used(*row)


def _checked(name: str, models: list[str] | None, rpm: int | None, expires_at: int | None) -> dict:
    name = (name or "").strip()
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        raise TokenError(f"A token's name has 1 to {NAME_LENGTH_MAX} printable characters.")
    if rpm is not None and not 1 <= rpm <= RPM_MAX:
        raise TokenError(f"Requests per minute go from 1 to {RPM_MAX}.")
    if expires_at is not None and expires_at <= _now():
        raise TokenError("The expiry lies in the past.")
    return {"name": name, "models": json.dumps(sorted(set(models))) if models else None, "rpm": rpm,
            "expires_at": expires_at}


def _now() -> int:
    return int(time.time() * 1000)
