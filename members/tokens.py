"""API tokens: made, listed, changed, revoked.

Owns the rows of `tokens`. A raw token is `sk-` and 256 random bits; it is given out once, and only
its digest is kept. Who may do what with a token is `relay.gate`'s to say.

`by` is who does something, None the command line. What members do to their own tokens is their
business; what others do to them is in the audit trail, and so is a token that administers.
"""

import hashlib
import ipaddress
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import billing
from db import Connection, Database
from members import audit

NAME_LENGTH_MAX = 64
KEPT_S = 3600  # how long the secret before a new one is good, if its holder wants so
COUNT_MAX = 1_000_000_000
MAPPED_BITS = 96  # of ::ffff:0:0/96 (RFC 4291, 2.5.5.2)
SHAPE = re.compile(r"sk-[A-Za-z0-9_-]{43}", re.ASCII).fullmatch
ADMINISTRATES = "SELECT 1 FROM users WHERE id = ? AND role = 'admin'"
LIMITS = ("rpm", "tpm", "calls_at_once", "cap_day", "cap_month")


class TokenError(ValueError):
    """A token cannot be made or changed as asked.

    The message says why; `field` names what is wrong.
    """

    def __init__(self, message: str, field: str = "name"):
        super().__init__(message)
        self.field = field


class SecretGone(TokenError):
    """This key has made a token or a secret before; a secret is shown once."""


def digest(raw: str) -> bytes:
    """What is stored of a token. It has 256 random bits, so a fast hash is enough."""
    return hashlib.sha256(raw.encode()).digest()


def mint(
    db: Database,
    user_id: int,
    name: str,
    *,
    tokens_max: int | None = None,
    scope: str | None = None,
    by: int | None = None,
    key: str | None = None,
    **limits,
) -> tuple[int, str]:
    """Make a token; returns its id and the raw token, which is never to be had again.

    `limits`, all optional: `models` (ids), `rpm` (requests a minute), `tpm` (LLM tokens a minute),
    `calls_at_once`, `cap_day` and `cap_month` (nano-yuan), `addresses` (networks of callers),
    `expires_at` (ms). `scope` "admin": for the administrators' API alone, which only an
    administrator may hold. `tokens_max` is how many tokens that still work a member may hold. Sent
    twice with the same `key` one is made. Raises TokenError; SecretGone for the second time;
    KeyReused, if the first was for another one.
    """
    fields = _checked(name, **limits)
    wanted = ["token.add", {**fields, "scope": scope}]
    raw = _new()
    fields |= {
        "user_id": user_id,
        "scope": scope,
        "digest": digest(raw),
        "hint": _hint(raw),
        "now": _now(),
    }

    def insert(conn: Connection, _now_ms: int) -> dict:
        if scope == "admin" and not conn.execute(ADMINISTRATES, (user_id,)).fetchone():
            raise TokenError(
                "Only an administrator may hold an API key for the administrators' API.", "scope"
            )
        (held,) = conn.execute(
            "SELECT count(*) FROM tokens WHERE user_id = :user_id AND revoked_at IS NULL"
            " AND (expires_at IS NULL OR expires_at > :now)",
            fields,
        ).fetchone()
        if tokens_max is not None and held >= tokens_max:
            raise TokenError(f"A member may hold {tokens_max} API keys. Revoke one first.")
        made = conn.execute(
            "INSERT INTO tokens (user_id, name, models, rpm, tpm, calls_at_once, cap_day, cap_month, addresses,"
            " expires_at, digest, hint, created_at, scope) VALUES (:user_id, :name, :models, :rpm, :tpm,"
            " :calls_at_once, :cap_day, :cap_month, :addresses, :expires_at, :digest, :hint, :now, :scope)",
            fields,
        ).lastrowid
        _note(conn, by, "token.add", {**fields, "id": made})
        return {"token": made, "hint": fields["hint"]}

    return _once(db, user_id, key, wanted, insert, fields["hint"]), raw


def _once(
    db: Database, user_id: int, key: str | None, wanted: list, act: Callable, hint: str
) -> int:
    """Do what makes a secret with this hint; returns the token's id. Raises SecretGone where the key
    has been used for the same before."""
    made = db.write(billing.once, user_id, key, wanted, act, _now())
    if made["hint"] != hint:
        raise SecretGone(
            f"This Idempotency-Key was used already: it made the secret of the API key"
            f" {made['token']} ({made['hint']}), which was shown then.",
            "Idempotency-Key",
        )
    return int(made["token"])


def change(
    db: Database, user_id: int, token_id: int, name: str, *, by: int | None = None, **limits
) -> bool:
    """Give a member's token another name and other limits (those of `mint`; what is left out is
    lifted).

    False if the member has no such unrevoked token. Raises TokenError.
    """
    fields = _checked(name, **limits) | {"id": token_id, "user_id": user_id}
    return _update(
        db,
        by,
        "token.change",
        "name = :name, models = :models, rpm = :rpm, tpm = :tpm, calls_at_once = :calls_at_once,"
        " cap_day = :cap_day, cap_month = :cap_month, addresses = :addresses, expires_at = :expires_at",
        fields,
    )


def rotate(
    db: Database,
    user_id: int,
    token_id: int,
    keep_s: int = 0,
    *,
    by: int | None = None,
    key: str | None = None,
) -> str | None:
    """Give a member's token a new secret, which is returned and never to be had again; the old one
    is good for `keep_s` more seconds. Name, limits and history stay.

    None if the member has no such unrevoked token. Sent twice with the same `key` it happens once:
    raises SecretGone for the second time; KeyReused, if the first was something else.
    """
    raw, now = _new(), _now()
    fields = {
        "id": token_id,
        "user_id": user_id,
        "digest": digest(raw),
        "hint": _hint(raw),
        "until": now + keep_s * 1000,
    }

    def act(conn: Connection, _now_ms: int) -> dict:
        if not _set(conn, by, "token.rotate", ROTATE, fields):
            raise _NoToken
        return {"token": token_id, "hint": fields["hint"]}

    try:
        _once(db, user_id, key, ["token.rotate", token_id, keep_s], act, str(fields["hint"]))
    except _NoToken:
        return None
    return raw


class _NoToken(Exception):
    """There is no such unrevoked token: nothing is written."""


ROTATE = "old_digest = digest, old_until = :until, digest = :digest, hint = :hint"


def _update(db: Database, by: int | None, action: str, what: str, fields: dict) -> bool:
    return db.write(_set, by, action, what, fields)


def _set(conn: Connection, by: int | None, action: str, what: str, fields: dict) -> bool:
    """Change an unrevoked token, of `user_id` if one is given; False if there is none."""
    row = conn.execute(
        f"UPDATE tokens SET {what} WHERE id = :id AND revoked_at IS NULL"
        " AND (:user_id IS NULL OR user_id = :user_id) RETURNING id, user_id, name, hint, scope",
        fields,
    ).fetchone()
    if row is not None:
        _note(conn, by, action, row)
    return row is not None


def _note(conn: Connection, by: int | None, action: str, token: Any) -> None:
    """Into the audit trail, if it is not a member's own token for calls."""
    if by != token["user_id"] or token["scope"]:
        detail = {"token": token["name"], "hint": token["hint"], "id": token["id"]}
        audit.record(conn, by, action, token["user_id"], detail)


def ending(db: Database, user_id: int, within_ms: int) -> list[tuple[int, str, int]]:
    """A member's tokens that expire within this time: id, name, when."""
    rows = db.read().execute(
        "SELECT id, name, expires_at FROM tokens WHERE user_id = ? AND revoked_at IS NULL"
        " AND expires_at BETWEEN ? AND ? ORDER BY expires_at",
        (user_id, _now(), _now() + within_ms),
    )
    return [tuple(row) for row in rows.fetchall()]


def clear_expired(db: Database, user_id: int, *, by: int | None = None) -> int:
    """Revoke a member's tokens that have expired; how many there were."""

    def act(conn: Connection) -> int:
        gone = conn.execute(
            "UPDATE tokens SET revoked_at = expires_at WHERE user_id = ? AND expires_at <= ?"
            " AND revoked_at IS NULL",
            (user_id, _now()),
        ).rowcount
        if gone and by != user_id:
            audit.record(conn, by, "token.clear", user_id, {"count": gone})
        return int(gone)

    return db.write(act)


def states(conn) -> list[tuple]:
    """Of all tokens of a file: (revoked_at, digest, hint, id, created_at), for `keep_states`."""
    rows = conn.execute("SELECT revoked_at, digest, hint, id, created_at FROM tokens")
    return [tuple(row) for row in rows.fetchall()]


def keep_states(conn, known: list[tuple]) -> int:
    """Let no token of an older file work that has been revoked or renewed since, within a
    transaction of who calls; how many there were."""
    changed = 0
    for revoked_at, digest_, hint, token_id, created_at in known:
        changed += conn.execute(
            "UPDATE tokens SET revoked_at = coalesce(revoked_at, ?1), digest = ?2, hint = ?3"
            " WHERE id = ?4 AND created_at = ?5 AND (digest <> ?2"
            " OR (revoked_at IS NULL AND ?1 IS NOT NULL))",
            (revoked_at, digest_, hint, token_id, created_at),
        ).rowcount
    return changed


def _new() -> str:
    return "sk-" + secrets.token_urlsafe(32)


def _hint(raw: str) -> str:
    """What tells a token from others, and nobody the token."""
    return f"{raw[:5]}…{raw[-4:]}"


def revoke(
    db: Database, token_id: int, user_id: int | None = None, *, by: int | None = None
) -> bool:
    """Revoke a token (of that member, if one is given).

    False if there is no such unrevoked token.
    """
    fields = {"id": token_id, "user_id": user_id, "now": _now()}
    return _update(db, by, "token.revoke", "revoked_at = :now", fields)


def tokens(db: Database, user_id: int) -> list[dict]:
    """A member's tokens, newest first, with last use, calls and cost (nano-yuan) from the roll-ups."""
    rows = (
        db.read()
        .execute(
            """
        SELECT tokens.id, name, hint, models, rpm, tpm, calls_at_once, cap_day, cap_month, addresses,
               tokens.created_at, expires_at, revoked_at, scope,
               max(daily.last_at), coalesce(sum(daily.calls), 0), coalesce(sum(daily.cost), 0)
          FROM tokens LEFT JOIN daily ON daily.user_id = tokens.user_id AND daily.token_id = tokens.id
         WHERE tokens.user_id = ? GROUP BY tokens.id ORDER BY tokens.id DESC""",
            (user_id,),
        )
        .fetchall()
    )
    names = (
        "id",
        "name",
        "hint",
        "models",
        *LIMITS,
        "addresses",
        "created_at",
        "expires_at",
        "revoked_at",
        "scope",
        "last_used_at",
        "calls",
        "cost",
    )
    lists = ("models", "addresses")
    return [
        {
            name: json.loads(value) if name in lists and value else value
            for name, value in zip(names, row, strict=True)
        }
        for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Used:
    """What a member has used since the beginning, from the roll-ups; costs in nano-yuan."""

    calls: int
    cost: int
    cost_by_token: int
    expires_at: int | None  # the token's, in ms


def used(db: Database, user_id: int, token_id: int) -> Used:
    """What a member has used in all, and with one token."""
    row = (
        db.read()
        .execute(
            "SELECT coalesce(sum(calls), 0), coalesce(sum(cost), 0),"
            " coalesce(sum(cost) FILTER (WHERE token_id = ?1), 0),"
            " (SELECT expires_at FROM tokens WHERE id = ?1) FROM daily WHERE user_id = ?2",
            (token_id, user_id),
        )
        .fetchone()
    )
    return Used(*row)


def spent_by_day(db: Database, user_id: int, first: str, last: str) -> list[tuple[str, int]]:
    """What a member spent (nano-yuan) on each day from `first` to `last`, YYYY-MM-DD."""
    rows = db.read().execute(
        "SELECT day, sum(cost) FROM daily WHERE user_id = ? AND day BETWEEN ? AND ? GROUP BY day",
        (user_id, first, last),
    )
    return [(day, cost) for day, cost in rows.fetchall()]


def _checked(
    name: str,
    *,
    models: list[str] | None = None,
    addresses: list[str] | None = None,
    expires_at: int | None = None,
    **limits: int | None,
) -> dict:
    name = (name or "").strip()
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.isprintable():
        raise TokenError(f"An API key's name has 1 to {NAME_LENGTH_MAX} printable characters.")
    for limit in LIMITS:
        least, most = (0, COUNT_MAX * COUNT_MAX) if limit.startswith("cap") else (1, COUNT_MAX)
        amount = limits.get(limit)
        if amount is not None and not least <= amount <= most:
            raise TokenError(f"This limit goes from {least} to {most}.", limit)
    if expires_at is not None and expires_at <= _now():
        raise TokenError("The expiry lies in the past.", "expires_at")
    try:
        networks = [str(_network(address.strip())) for address in addresses or ()]
    except ValueError as err:
        raise TokenError(f"{err}.", "addresses") from None
    return {
        "name": name,
        "models": json.dumps(sorted(set(models))) if models else None,
        "addresses": json.dumps(networks) if networks else None,
        "expires_at": expires_at,
        **{limit: limits.get(limit) for limit in LIMITS},
    }


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that a text names.

    One of IPv4 addresses written as IPv6 (::ffff:10.0.0.1) is one of IPv4.
    """
    network = ipaddress.ip_network(text, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - MAPPED_BITS))


def _now() -> int:
    return time.time_ns() // 1_000_000
