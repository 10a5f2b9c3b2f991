"""Teams: accounts that nobody signs in to, whose wallet their members' calls draw on.

Owns who is in which team. A member is in one team or in none, and its wallet pays after the member's
own grant and quota, before their own wallet, within their caps. That a call takes no more than is
there is `billing`'s; what comes into the wallet is a credit like any other.

    TeamError   what was asked cannot be done; the message is a sentence for who asked
"""

import secrets
from dataclasses import dataclass

import billing
from db import Connection, Database
from members import accounts, audit


class TeamError(ValueError):
    """What was asked of a team cannot be done."""


@dataclass(frozen=True, slots=True)
class Team:
    """A team; money in nano-yuan, times in ms."""

    id: int
    name: str
    created_at: int
    closed_at: int | None
    balance: int
    held: int  # by calls of its members that run
    members: int

    @property
    def available(self) -> int:
        return self.balance - self.held

    @property
    def closed(self) -> bool:
        return self.closed_at is not None


@dataclass(frozen=True, slots=True)
class Share:
    """What a team's wallet paid for a member: nano-yuan in a span of days, and for how many calls.

    `since` None: they are in it no more.
    """

    user_id: int
    name: str
    inside: bool
    calls: int
    charged: int


TEAMS = """
SELECT users.id, name, created_at, disabled_at, wallet_balance, wallet_held,
       (SELECT count(*) FROM balances AS each WHERE each.team_id = users.id)
  FROM users JOIN balances ON user_id = users.id WHERE is_team"""

SHARES = """
WITH paid AS (SELECT user_id, sum(calls) AS calls, sum(charged) AS charged FROM daily_teams
               WHERE team_id = :team AND day BETWEEN :first AND :last GROUP BY user_id)
SELECT id, name, team_id IS :team, coalesce(calls, 0), coalesce(charged, 0)
  FROM users JOIN balances ON balances.user_id = id LEFT JOIN paid ON paid.user_id = id
 WHERE team_id = :team OR paid.user_id IS NOT NULL
 ORDER BY team_id IS :team DESC, charged DESC, name_key"""


def teams(db: Database) -> list[Team]:
    """All teams, the closed ones last."""
    rows = db.read().execute(f"{TEAMS} ORDER BY disabled_at IS NOT NULL, name_key").fetchall()
    return [Team(*row) for row in rows]


def find(db: Database, team_id: int) -> Team | None:
    """The team with this id."""
    row = db.one(f"{TEAMS} AND users.id = ?", (team_id,))
    return Team(*row) if row else None


def named(db: Database, name: str) -> Team | None:
    """The team with this name, in whatever letters' size."""
    row = db.one(f"{TEAMS} AND name_key = ?", (accounts.name_key(name),))
    return Team(*row) if row else None


def of(db: Database, user_id: int) -> Team | None:
    """The team that a member is in."""
    row = db.one(
        f"{TEAMS} AND users.id = (SELECT team_id FROM balances WHERE user_id = ?)", (user_id,)
    )
    return Team(*row) if row else None


def shares(db: Database, team_id: int, first: str, last: str) -> list[Share]:
    """Who is in a team, and for whom its wallet paid from one day of the site to another
    (YYYY-MM-DD, both included): members first, by what they spent."""
    values = {"team": team_id, "first": first, "last": last}
    rows = db.read().execute(SHARES, values).fetchall()
    return [Share(id, name, bool(inside), *paid) for id, name, inside, *paid in rows]


def add(db: Database, name: str, by: int | None = None, now: int | None = None) -> Team:
    """Make a team, with an empty wallet. Raises BadName, and NameTaken if a member or a team is
    called so."""
    name, now = accounts.checked_name(name), now or billing.now_ms()

    def act(conn: Connection) -> int:
        accounts.check_free(conn, name)
        team_id = conn.execute(
            "INSERT INTO users (name, name_key, password, session_epoch, invite_code, created_at, is_team)"
            " VALUES (?, ?, ?, '', ?, ?, 1)",
            (name, accounts.name_key(name), accounts.NOBODY, secrets.token_urlsafe(9), now),
        ).lastrowid
        audit.record(conn, by, "team.add", team_id, None, now=now)
        return int(team_id or 0)

    return _sure(db, db.write(act))


def join(db: Database, team_id: int, user_id: int, by: int | None = None) -> None:
    """Let a member's calls draw on a team's wallet from now on; another team's no more.

    Raises TeamError if the team is closed or there is no such team, Unknown.
    """

    def act(conn: Connection) -> None:
        row = conn.execute(
            "SELECT name, disabled_at FROM users WHERE id = ? AND is_team", (team_id,)
        ).fetchone()
        if row is None or row["disabled_at"] is not None:
            raise TeamError("there is no such team" if row is None else "this team is closed")
        if _put(conn, user_id, team_id):
            audit.record(conn, by, "team.join", user_id, {"team": row["name"]})

    db.write(act)


def leave(db: Database, user_id: int, by: int | None = None) -> bool:
    """Let a member's calls draw on no team's wallet any more; False if they were in none.

    What they run now is paid by the team, as it began. Raises Unknown.
    """

    def act(conn: Connection) -> bool:
        row = conn.execute(
            "SELECT name FROM users WHERE id = (SELECT team_id FROM balances WHERE user_id = ?)",
            (user_id,),
        ).fetchone()
        if left := _put(conn, user_id, None):
            audit.record(conn, by, "team.leave", user_id, {"team": row["name"]})
        return left

    return bool(db.write(act))


def close(db: Database, team_id: int, by: int | None = None) -> int:
    """Let all members leave, and nobody join; returns how many left. What the wallet holds stays
    there, and an administrator may take it out. Raises TeamError."""

    def act(conn: Connection) -> int:
        closed = conn.execute(
            "UPDATE users SET disabled_at = ? WHERE id = ? AND is_team AND disabled_at IS NULL",
            (billing.now_ms(), team_id),
        ).rowcount
        if not closed:
            raise TeamError("there is no such team that is open")
        left: int = conn.execute(
            "UPDATE balances SET team_id = NULL WHERE team_id = ?", (team_id,)
        ).rowcount
        audit.record(conn, by, "team.close", team_id, {"count": left})
        return left

    return int(db.write(act))


def reopen(db: Database, team_id: int, by: int | None = None) -> None:
    """Let members join a closed team again. Raises TeamError."""

    def act(conn: Connection) -> None:
        opened = conn.execute(
            "UPDATE users SET disabled_at = NULL WHERE id = ? AND is_team AND disabled_at IS NOT NULL",
            (team_id,),
        ).rowcount
        if not opened:
            raise TeamError("there is no such team that is closed")
        audit.record(conn, by, "team.reopen", team_id, None)

    db.write(act)


def _put(conn: Connection, user_id: int, team_id: int | None) -> bool:
    """Note whose wallet a member shares; False if it was so already. Raises Unknown."""
    if not conn.execute("SELECT 1 FROM users WHERE id = ? AND NOT is_team", (user_id,)).fetchone():
        raise billing.Unknown("there is no such member")
    changed = conn.execute(
        "UPDATE balances SET team_id = ?1 WHERE user_id = ?2 AND team_id IS NOT ?1",
        (team_id, user_id),
    )
    return bool(changed.rowcount)


def _sure(db: Database, team_id: int) -> Team:
    team = find(db, team_id)
    assert team is not None
    return team
