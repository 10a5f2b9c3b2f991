"""The way back in: an address that signs one member in, once, within minutes.

Owns the fact "way_in". Whoever can run commands beside the database is the operator; this is how
they come in where no password and no identity provider lets them.
"""

import hashlib
import hmac
import json
import secrets

from billing import now_ms
from db import Connection, Database
from members import accounts, audit

GOOD_MS = 900_000


def make(db: Database, user_id: int) -> str:
    """A key that signs this member in, once and within 15 minutes; one made before ends."""
    key = secrets.token_urlsafe(24)

    def act(conn: Connection) -> None:
        fact = {"digest": _digest(key), "user_id": user_id, "until": now_ms() + GOOD_MS}
        conn.execute("INSERT OR REPLACE INTO meta VALUES ('way_in', ?)", (json.dumps(fact),))
        audit.record(conn, None, "member.way_in", user_id)

    db.write(act)
    return key


def opens(db: Database, key: str) -> bool:
    """Whether this key still signs somebody in."""
    return _of(db.read(), key) is not None


def take(db: Database, key: str) -> accounts.Member | None:
    """The member whom the key signs in, who may come in; it is worth nothing from now on."""

    def act(conn: Connection) -> int | None:
        user_id = _of(conn, key)
        if user_id is not None:
            conn.execute("DELETE FROM meta WHERE key = 'way_in'")
            audit.record(conn, user_id, "member.way_in", user_id)
        return user_id

    user_id = db.write(act) if opens(db, key) else None
    return accounts.find(db, user_id) if user_id is not None else None


def _of(conn: Connection, key: str) -> int | None:
    row = conn.execute("SELECT value FROM meta WHERE key = 'way_in'").fetchone()
    if row is None:
        return None
    fact = json.loads(row["value"])
    good = fact["until"] > now_ms() and hmac.compare_digest(fact["digest"], _digest(key))
    return fact["user_id"] if good else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
