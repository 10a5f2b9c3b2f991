"""Members: who they are, their passwords, roles and invites.

Owns the tables users and invites. It refuses to know sessions and pages, how often somebody
may try, and the settings: rewards come as arguments. The only money it moves are rewards, through
`billing.post`.

    AccountError               what was asked cannot be done; the message is a sentence for who
    asked
     ├─ BadName, BadPassword   not of the shape that is wanted
     ├─ NameTaken              somebody has this name
     ├─ BadInvite              no such invite, or no such set-up key
     └─ LastAdministrator      there would be no administrator left
"""

import hashlib
import hmac
import re
import secrets
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from werkzeug.security import check_password_hash, generate_password_hash

from billing import Unknown, now_ms, post
from db import Database, IntegrityError, keyset
from members import audit

NAME_LENGTH_MAX = 64
PASSWORD_LENGTHS = (8, 128)
ROLES = ("member", "admin")

# What nothing is shown of: a name with one looks like the name without. Unicode's
# Default_Ignorable_Code_Point, of which Python does not know, and the empty Braille pattern.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)

# What an unknown name is checked against, so that its answer takes as long. No password has this
# hash, so that it is also what is kept of who has none.
NOBODY = "scrypt:32768:8:1$nobodyhasthissalt$" + "0" * 128

_hashing = threading.BoundedSemaphore(
    2
)  # one scrypt takes 32 MiB and a core for a tenth of a second


class AccountError(ValueError):
    """What was asked cannot be done."""


class BadName(AccountError):
    """This cannot be a name."""

    field = "name"


class BadPassword(AccountError):
    """This cannot be a password."""

    field = "password"


class NameTaken(AccountError):
    """Somebody has this name already, perhaps in other letters' size."""

    field = "name"


class BadInvite(AccountError):
    """There is no such invite, or set-up key."""


class LastAdministrator(AccountError):
    """Nobody would be left who may administrate."""


@dataclass(frozen=True, slots=True)
class Member:
    """Who somebody is. `session_epoch` changes when all sessions end."""

    id: int
    name: str
    role: str
    disabled_at: int | None
    created_at: int
    session_epoch: str
    language: str | None
    invite_code: str
    invited_by: int | None
    invite_uses: int | None = None  # how many may still come by the code
    invite_until: int | None = None  # ms

    @property
    def admin(self) -> bool:
        return self.role == "admin"

    @property
    def disabled(self) -> bool:
        return self.disabled_at is not None


# What is set in a member's row: columns, values, and what the audit trail calls it.
Change = tuple[str, tuple, str | None, dict | None]

MEMBERS = """
SELECT id, name, role, disabled_at, created_at, session_epoch, language, invite_code, invited_by,
       invite_uses, invite_until FROM users WHERE NOT is_team"""
LISTED = (
    "users.id AS id, name, role, disabled_at, users.created_at AS created_at,"
    " grant_balance - grant_held AS grant, quota_balance - quota_held AS quota,"
    " wallet_balance - wallet_held AS wallet"
)
STATES = {
    "active": "disabled_at IS NULL",
    "disabled": "disabled_at IS NOT NULL",
    "admin": "role = 'admin'",
    "empty": "grant_balance <= 0 AND quota_balance <= 0 AND wallet_balance <= 0",
}
DAY_MS = 86_400_000
REWARDED_A_DAY = 10  # of the invites of one member: rewards are no harvest
INVITES = (
    "invite_code = ?1 AND disabled_at IS NULL AND coalesce(invite_uses, 1) > 0"
    " AND coalesce(invite_until, 1 << 62) > {now}"
)


def find(db: Database, user_id: int) -> Member | None:
    """The member with this id."""
    return _one(db.read(), "id = ?", user_id)


def named(db: Database, name: str) -> Member | None:
    """The member with this name, in whatever letters' size."""
    return _one(db.read(), "name_key = ?", name_key(name))


def inviter(db: Database, code: str) -> Member | None:
    """Whose invite this is; None if nobody's, one that has ended, or of a member who is disabled."""
    return _one(db.read(), INVITES.format(now=now_ms()), code)


def renew_invite(
    db: Database,
    user_id: int,
    uses: int | None = None,
    until: int | None = None,
    *,
    by: int | None = None,
) -> str:
    """Give a member a new invite, for so many people and until then (ms); the old one is worth
    nothing from now on. Returns its code. Raises Unknown."""
    code = secrets.token_urlsafe(9)

    def act(conn) -> None:
        done = conn.execute(
            "UPDATE users SET invite_code = ?, invite_uses = ?, invite_until = ?"
            " WHERE id = ? AND NOT is_team",
            (code, uses, until, user_id),
        )
        if not done.rowcount:
            raise Unknown("there is no such member")
        audit.record(conn, by, "invite.renew", user_id, {"count": uses})

    db.write(act)
    return code


def members(db: Database, like: str = "", *, after: int = 0, limit: int = 1000) -> list[Member]:
    """Members in the order of their coming, whose names begin `like` this.

    The next page `after` the last id.
    """
    start = name_key(like)
    rows = (
        db.read()
        .execute(
            f"{MEMBERS} AND id > ?1 AND substr(name_key, 1, length(?2)) = ?2 ORDER BY id LIMIT ?3",
            (after, start, limit),
        )
        .fetchall()
    )
    return [Member(*row) for row in rows]


def listed(like: str = "", state: str | None = None) -> keyset.List:
    """Members whose name has this in it, with what they have free to spend; in one of the STATES,
    or any."""
    matching = ["instr(name_key, :like)"] if like else []
    if state in STATES:
        matching.append(STATES[state])
    return keyset.List(
        "users CROSS JOIN balances ON balances.user_id = users.id",
        LISTED,
        "users.id",
        "NOT is_team",
        " AND ".join(matching),
        {"like": name_key(like)} if like else {},
    )


def authenticate(db: Database, name: str, password: str) -> Member | None:
    """The member whom a name and a password prove.

    None, after as long a time, for any other or a disabled one.
    """
    row = (
        db.read()
        .execute(
            "SELECT id, password FROM users WHERE name_key = ? AND NOT is_team", (name_key(name),)
        )
        .fetchone()
    )
    proven = _matches(row["password"] if row else NOBODY, password)
    member = find(db, row["id"]) if row and proven else None
    return member if member and not member.disabled else None


def password_is(db: Database, user_id: int, password: str) -> bool:
    """Whether this is the member's password, as asked before it is changed."""
    row = db.read().execute("SELECT password FROM users WHERE id = ?", (user_id,)).fetchone()
    return _matches(row["password"] if row else NOBODY, password)


def has_password(db: Database, user_id: int) -> bool:
    """Whether there is a password that lets this member in."""
    row = db.read().execute("SELECT password FROM users WHERE id = ?", (user_id,)).fetchone()
    return row is not None and row["password"] != NOBODY


def add(
    db: Database,
    name: str,
    password: str | None,
    *,
    role: str = "member",
    invite: str | None = None,
    signup_reward: int = 0,
    invite_reward: int = 0,
    language: str | None = None,
    by: int | None = None,
    now: int | None = None,
    source: str | None = None,
    also: Callable[..., None] = lambda conn, user_id: None,
) -> Member:
    """Make a member, with a reward (LLM tokens) in the grant pocket; all of it or nothing.

    Without a password none lets in. `also(conn, user_id)` is done within the same transaction,
    `source` is whose word it was.

    `invite` is the code of who invited: that one gets `invite_reward` with the new one's first call
    that costs money. Beyond REWARDED_A_DAY of one inviter nobody gets any reward. Raises
    BadName, BadPassword, NameTaken, BadInvite.
    """
    name = checked_name(name)
    check_free(db.read(), name)
    hashed, now = NOBODY if password is None else hash_password(password), now or now_ms()

    def act(conn) -> Member:
        user_id = _insert(conn, name, hashed, role, language, now)
        also(conn, user_id)
        rewarded = invite is None or _invited(conn, user_id, invite, invite_reward, now)
        if signup_reward and rewarded:
            post(conn, user_id, "grant", "reward", signup_reward, note="sign-up", now=now)
        made = _made(conn, user_id)
        host = _made(conn, made.invited_by).name if made.invited_by else None
        detail = {"role": role, "invited_by": host} | ({"issuer": source} if source else {})
        audit.record(conn, by, "member.add", user_id, detail, now=now)
        return _made(conn, user_id)

    return db.write(act)


def _made(conn, user_id: int) -> Member:
    member = _one(conn, "id = ?", user_id)
    assert member is not None
    return member


def _insert(conn, name: str, hashed: str, role: str, language: str | None, now: int) -> int:
    if role not in ROLES:
        raise AccountError(f"there is no role {role!r}")
    try:
        return conn.execute(
            "INSERT INTO users (name, name_key, password, role, session_epoch, language, invite_code, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (name, name_key(name), hashed, role, _epoch(), language, secrets.token_urlsafe(9), now),
        ).lastrowid
    except IntegrityError as err:
        if "name_key" in str(err):
            raise NameTaken(f"somebody is called {name} already") from None
        raise


def _invited(conn, user_id: int, invite: str, reward: int, now: int) -> bool:
    """Note who invited; False if this one has invited so many today that nothing is given."""
    host = _one(conn, INVITES.format(now=int(now)), invite)
    if host is None:
        raise BadInvite("there is no such invite")
    (today,) = conn.execute(
        "SELECT count(*) FROM invites WHERE inviter_id = ? AND created_at > ?",
        (host.id, now - DAY_MS),
    ).fetchone()
    rewarded = today < REWARDED_A_DAY
    conn.execute("UPDATE users SET invited_by = ? WHERE id = ?", (host.id, user_id))
    conn.execute("UPDATE users SET invite_uses = invite_uses - 1 WHERE id = ?", (host.id,))
    conn.execute(
        "INSERT INTO invites (user_id, inviter_id, reward, created_at) VALUES (?, ?, ?, ?)",
        (user_id, host.id, reward if rewarded else 0, now),
    )
    conn.execute(
        "UPDATE balances SET invite_pending = 1 WHERE user_id = ?", (user_id,)
    )  # billing's cue
    return rewarded


def invited(db: Database, user_id: int) -> list[dict]:
    """Whom a member brought, newest first: {name, created_at, reward, rewarded_at}.

    Rewarded_at None: not yet.
    """
    rows = db.read().execute(
        "SELECT name, invites.created_at, reward, rewarded_at FROM invites JOIN users ON users.id = invites.user_id"
        " WHERE inviter_id = ? ORDER BY invites.user_id DESC",
        (user_id,),
    )
    return [dict(row) for row in rows.fetchall()]


def came_by(user_id: int) -> keyset.List:
    """The same as a list, by the ids of who came."""
    return keyset.List(
        "invites JOIN users ON users.id = invites.user_id",
        "users.name, invites.created_at, reward, rewarded_at",
        "invites.user_id",
        "inviter_id = :user_id",
        "",
        {"user_id": user_id},
    )


# ---- changes


def made_password() -> str:
    """A password that is easy to hand over: 80 random bits in letters that are told apart."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))


def change(
    db: Database,
    user_id: int,
    *,
    role: str | None = None,
    password: str | None = None,
    disabled: bool | None = None,
    by: int | None = None,
) -> None:
    """Give a member another role or password, shut them out or let them in: all that is said, or
    nothing. A new password ends all sessions; who is disabled is shut out, tokens included.

    Raises AccountError, BadPassword, LastAdministrator, Unknown.
    """
    changes: list[Change] = []
    if role is not None:
        if role not in ROLES:
            raise AccountError(f"there is no role {role!r}")
        changes.append(("role = ?", (role,), "member.role", {"role": role}))
    if password is not None:
        secret = (hash_password(password), _epoch())
        changes.append(("password = ?, session_epoch = ?", secret, "member.password", None))
    if disabled is not None:
        changes.append(
            _shut_out() if disabled else ("disabled_at = NULL", (), "member.enable", None)
        )

    def act(conn) -> None:
        for each in changes:
            _changed(conn, user_id, each, by)

    db.write(act)


def set_password(db: Database, user_id: int, password: str, *, by: int | None = None) -> None:
    """A new password, which ends all sessions. Raises BadPassword, Unknown."""
    change(db, user_id, password=password, by=by)


def end_sessions(db: Database, user_id: int, *, by: int | None = None) -> None:
    """Sign out everywhere. Raises Unknown."""
    ended: Change = ("session_epoch = ?", (_epoch(),), "member.end_sessions", None)
    db.write(_changed, user_id, ended, by)


def renew_epoch(conn, user_id: int) -> None:
    """End all sessions of a member, within a transaction of who calls."""
    conn.execute("UPDATE users SET session_epoch = ? WHERE id = ?", (_epoch(), user_id))


def set_role(db: Database, user_id: int, role: str, *, by: int | None = None) -> None:
    """Make a member an administrator, or one of many again. Raises LastAdministrator, Unknown."""
    change(db, user_id, role=role, by=by)


def disable(db: Database, user_id: int, *, by: int | None = None) -> None:
    """Shut a member out, tokens and sessions included. Raises LastAdministrator, Unknown."""
    change(db, user_id, disabled=True, by=by)


def disabled(conn) -> list[tuple]:
    """The members of a file who are disabled: (disabled_at, id, created_at), for `keep_disabled`."""
    rows = conn.execute(
        "SELECT disabled_at, id, created_at FROM users WHERE disabled_at IS NOT NULL"
    )
    return [tuple(row) for row in rows.fetchall()]


def keep_disabled(conn, known: list[tuple]) -> int:
    """Let nobody of an older file in who has been disabled since, within a transaction of who
    calls; how many there were."""
    return sum(
        conn.execute(
            "UPDATE users SET disabled_at = ?, session_epoch = ?"
            " WHERE id = ? AND created_at = ? AND disabled_at IS NULL",
            (at, _epoch(), user_id, created_at),
        ).rowcount
        for at, user_id, created_at in known
    )


def enable(db: Database, user_id: int, *, by: int | None = None) -> None:
    """Let a member in again. Raises Unknown."""
    change(db, user_id, disabled=False, by=by)


def set_language(db: Database, user_id: int, language: str | None) -> None:
    """The language that a member wants to read. Raises Unknown."""
    db.write(_changed, user_id, ("language = ?", (language,), None, None), None)


def _shut_out() -> Change:
    what = "disabled_at = coalesce(disabled_at, ?), session_epoch = ?"
    return what, (now_ms(), _epoch()), "member.disable", None


def _changed(conn, user_id: int, change: Change, by: int | None) -> None:
    """Change a member's row, within a transaction that ends with what this raises. A team is no
    member."""
    what, values, action, detail = change
    before = _administrators(conn)
    done = conn.execute(f"UPDATE users SET {what} WHERE id = ? AND NOT is_team", (*values, user_id))
    if done.rowcount == 0:
        raise Unknown("there is no such member")
    if before and not _administrators(conn):
        raise LastAdministrator("this is the last administrator; make another one first")
    if action:
        audit.record(conn, by, action, user_id, detail)


def _administrators(conn) -> int:
    return conn.execute(
        "SELECT count(*) FROM users WHERE role = 'admin' AND disabled_at IS NULL"
    ).fetchone()[0]


# ---- the first administrator


def setup_key(db: Database) -> str | None:
    """A new key that makes the first administrator, for the log of a start.

    None if there is one already.
    """
    key = secrets.token_urlsafe(24)
    return key if db.write(_keep_setup_key, key) else None


def _keep_setup_key(conn, key: str) -> bool:
    wanted = not conn.execute("SELECT 1 FROM users WHERE role = 'admin' LIMIT 1").fetchone()
    conn.execute("DELETE FROM meta WHERE key = 'setup_key'")
    if wanted:
        conn.execute(
            "INSERT INTO meta VALUES ('setup_key', ?)", (hashlib.sha256(key.encode()).hexdigest(),)
        )
    return wanted


def is_set_up(db: Database) -> bool:
    """Whether the last start made no key, or somebody has become an administrator since."""
    waits = db.read().execute("SELECT 1 FROM meta WHERE key = 'setup_key'").fetchone()
    if waits is None:
        return True
    found = db.read().execute("SELECT 1 FROM users WHERE role = 'admin' LIMIT 1").fetchone()
    return found is not None


def setup_key_is(db: Database, key: str) -> bool:
    """Whether this key makes the first administrator still."""
    return _opens(db.read(), key)


def set_up(
    db: Database, key: str, name: str, password: str | None, *, language: str | None = None
) -> Member:
    """Make the first administrator; the key is good for one. Without a password none lets them in.

    Raises BadInvite for a wrong key, and as `add` does.
    """
    if not setup_key_is(db, key):
        raise BadInvite("this set-up address is not valid, or has been used")
    name, now = checked_name(name), now_ms()
    hashed = NOBODY if password is None else hash_password(password)

    def act(conn) -> Member:
        if not _opens(conn, key):
            raise BadInvite("this set-up address is not valid, or has been used")
        conn.execute("DELETE FROM meta WHERE key = 'setup_key'")
        user_id = _insert(conn, name, hashed, "admin", language, now)
        audit.record(conn, user_id, "member.add", user_id, {"role": "admin"}, now=now)
        return _made(conn, user_id)

    return db.write(act)


def _opens(conn, key: str) -> bool:
    """An administrator made meanwhile, from the command line, shuts this door too."""
    kept = conn.execute(
        "SELECT value FROM meta WHERE key = 'setup_key'"
        " AND NOT EXISTS (SELECT 1 FROM users WHERE role = 'admin')"
    ).fetchone()
    given = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()
    return kept is not None and hmac.compare_digest(kept["value"], given)


# ---- names and passwords


def hash_password(password: str) -> str:
    """What is stored of a password. At most two are hashed at a time. Raises BadPassword."""
    shortest, longest = PASSWORD_LENGTHS
    if not shortest <= len(password) <= longest or any(
        unicodedata.category(c) == "Cs" for c in password
    ):
        raise BadPassword(f"a password has {shortest} to {longest} characters")
    with _hashing:
        return generate_password_hash(unicodedata.normalize("NFC", password))


def _matches(hashed: str, password: str) -> bool:
    if len(password) > PASSWORD_LENGTHS[1] or any(
        unicodedata.category(c) == "Cs" for c in password
    ):
        return False
    with _hashing:
        return check_password_hash(hashed, unicodedata.normalize("NFC", password))


def checked_name(name: str) -> str:
    """A name as it is kept. Raises BadName."""
    name = unicodedata.normalize("NFC", name.strip())
    if not 1 <= len(name) <= NAME_LENGTH_MAX:
        raise BadName(f"a name has 1 to {NAME_LENGTH_MAX} characters")
    if any(unicodedata.category(c)[0] == "C" or (c.isspace() and c != " ") for c in name):
        raise BadName("a name has visible characters only")
    if INVISIBLE.search(name) or not any(unicodedata.category(c)[0] in "LNPS" for c in name):
        raise BadName("a name has visible characters only")
    return name


def check_free(conn, name: str) -> None:
    """Raises NameTaken if a member or a team is called so."""
    if conn.execute("SELECT 1 FROM users WHERE name_key = ?", (name_key(name),)).fetchone():
        raise NameTaken(f"somebody is called {name} already")


def name_key(name: str) -> str:
    """Names with the same key are one name.

    Letters' size, and letters that only look different, do not count.
    """
    folded = unicodedata.normalize("NFKC", name.strip()[: 4 * NAME_LENGTH_MAX]).casefold()
    return unicodedata.normalize("NFKC", folded).encode("utf-8", "replace").decode()


def _epoch() -> str:
    return secrets.token_hex(8)


def _one(conn, where: str, value) -> Member | None:
    row = conn.execute(f"{MEMBERS} AND {where}", (value,)).fetchone()
    return Member(*row) if row else None
