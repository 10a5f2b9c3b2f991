"""Who members are elsewhere: at an identity provider, or for a proxy that is trusted.

Owns the table identities. An identity is what its issuer calls a person (issuer, subject), and
nothing else: names and addresses are kept to be shown. It refuses to know who may come, and that
there are settings.
"""

import secrets
import unicodedata
from dataclasses import dataclass

from billing import now_ms
from db import Connection, Database
from members import accounts, audit

SEEN_EVERY_MS = 3_600_000  # that nothing but the time has changed is written no more often
NAMES_TRIED = 50
NAME_SPARE = 8  # letters of a name that a number may need


class Taken(accounts.AccountError):
    """The identity is somebody's already."""


class NotConnected(accounts.AccountError):
    """The member has no such identity."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A person as an issuer knows them; `user_id` None: of nobody any more."""

    issuer: str
    subject: str
    user_id: int | None
    name: str
    email: str
    created_at: int
    seen_at: int


COLUMNS = "issuer, subject, user_id, name, email, created_at, seen_at"


def find(db: Database, issuer: str, subject: str) -> Identity | None:
    """The identity, if it ever came in or was connected."""
    return _one(db.read(), issuer, subject)


def of(db: Database, user_id: int) -> list[Identity]:
    """A member's identities, the oldest first."""
    rows = db.read().execute(
        f"SELECT {COLUMNS} FROM identities WHERE user_id = ? ORDER BY created_at", (user_id,)
    )
    return [Identity(*row) for row in rows.fetchall()]


def every(db: Database) -> list[Identity]:
    """All identities, those of nobody too, the oldest first."""
    rows = db.read().execute(f"SELECT {COLUMNS} FROM identities ORDER BY created_at, subject")
    return [Identity(*row) for row in rows.fetchall()]


def newcomer(
    db: Database,
    issuer: str,
    subject: str,
    *,
    name: str,
    email: str = "",
    role: str = "member",
    signup_reward: int = 0,
    language: str | None = None,
) -> accounts.Member:
    """Make a member of an identity that has never come, without a password; all of it or nothing.

    Where the name is somebody's, the newcomer gets another: a name proves nothing. Raises
    Taken if the identity is known.
    """

    def connect_new(conn: Connection, user_id: int) -> None:
        if _one(conn, issuer, subject) is not None:
            raise Taken("this identity is known already")
        _insert(conn, issuer, subject, user_id, name, email)

    for wish in _names(name):
        try:
            return accounts.add(
                db,
                wish,
                None,
                role=role,
                signup_reward=signup_reward,
                language=language,
                source=issuer,
                also=connect_new,
            )
        except accounts.NameTaken:
            continue
    raise accounts.NameTaken(f"every name like {name} is somebody's")


def _names(name: str):
    """What somebody may be called, the best name first."""
    seen = accounts.INVISIBLE.sub("", name)
    shown = "".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in seen)
    longest = accounts.NAME_LENGTH_MAX - NAME_SPARE
    base = " ".join(unicodedata.normalize("NFC", shown).split())[:longest].strip()
    try:
        base = accounts.checked_name(base)
    except accounts.BadName:
        base = "member"
    yield base
    yield from (f"{base}-{number}" for number in range(2, NAMES_TRIED))
    yield from (f"{base}-{secrets.token_hex(3)}" for _ in range(NAMES_TRIED))


def connect(
    db: Database,
    user_id: int,
    issuer: str,
    subject: str,
    *,
    name: str = "",
    email: str = "",
    by: int | None = None,
) -> None:
    """Let an identity be a member's. Raises Taken if it is another's; once more changes nothing."""

    def act(conn: Connection) -> None:
        known = _one(conn, issuer, subject)
        if known is not None and known.user_id == user_id:
            return
        if known is not None and known.user_id is not None:
            raise Taken("this identity is connected with another member")
        if known is None:
            _insert(conn, issuer, subject, user_id, name, email)
        else:
            conn.execute(
                "UPDATE identities SET user_id = ? WHERE issuer = ? AND subject = ?",
                (user_id, issuer, subject),
            )
        detail = {"issuer": issuer, "subject": subject}
        audit.record(conn, by, "member.connect", user_id, detail)

    db.write(act)


def disconnect(
    db: Database, user_id: int, issuer: str, subject: str, *, by: int | None = None
) -> None:
    """Let an identity be of nobody; all sessions of the member end. Raises NotConnected."""

    def act(conn: Connection) -> None:
        done = conn.execute(
            "UPDATE identities SET user_id = NULL WHERE issuer = ? AND subject = ? AND user_id = ?",
            (issuer, subject, user_id),
        )
        if done.rowcount == 0:
            raise NotConnected("this member has no such identity")
        accounts.renew_epoch(conn, user_id)
        detail = {"issuer": issuer, "subject": subject}
        audit.record(conn, by, "member.disconnect", user_id, detail)

    db.write(act)


def seen(db: Database, known: Identity, name: str, email: str) -> None:
    """Note that an identity came in, and what its issuer says of it now."""
    now = now_ms()
    if (name, email) == (known.name, known.email) and now - known.seen_at < SEEN_EVERY_MS:
        return
    db.write(
        lambda conn: (
            conn.execute(
                "UPDATE identities SET name = ?, email = ?, seen_at = ?"
                " WHERE issuer = ? AND subject = ?",
                (name, email, now, known.issuer, known.subject),
            )
            and None
        )
    )


def _insert(
    conn: Connection, issuer: str, subject: str, user_id: int, name: str, email: str
) -> None:
    now = now_ms()
    conn.execute(
        f"INSERT INTO identities ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (issuer, subject, user_id, name, email, now, now),
    )


def _one(conn: Connection, issuer: str, subject: str) -> Identity | None:
    row = conn.execute(
        f"SELECT {COLUMNS} FROM identities WHERE issuer = ? AND subject = ?", (issuer, subject)
    ).fetchone()
    return Identity(*row) if row else None
