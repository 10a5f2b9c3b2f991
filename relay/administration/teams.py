"""Teams: their wallets, who shares them, and what they paid for whom."""

from datetime import date

import msgspec

from members import entries, teams
from relay import errors
from relay.administration.members import MemberRecord, described
from relay.administration.money import CreditKind, EntryKind, EntryRecord, credit, entry_record
from relay.administration.shape import (
    Address,
    Desk,
    Listing,
    Query,
    RequestBody,
    begin_of,
    cut,
    member_of,
    missing,
    nano,
    page_of,
    refuse,
    today,
    when,
    yuan,
)


class TeamRecord(msgspec.Struct):
    """A team: yuan in its wallet, what running calls hold of it, how many members it has."""

    id: int
    name: str
    closed: bool
    members: int
    balance: str | None
    held: str | None
    created_at: str | None


class NewTeam(RequestBody):
    """Its name: no member and no other team has it."""

    name: str


class TeamChange(RequestBody):
    """true: its members leave, and nobody joins; false: they may join again."""

    closed: bool


class TeamCredit(RequestBody):
    """Yuan; below zero they are taken out, as far as they are free. Without a kind what is put in
    is a top-up and what is taken a correction."""

    wallet: str
    kind: CreditKind | None = None
    note: str | None = None


class SharesQuery(Query):
    """Days of the site, both included; left out: this month."""

    first: date | None = None
    last: date | None = None


class ShareRecord(msgspec.Struct):
    """What a team's wallet paid for a member. `inside` false: they have left."""

    user_id: int
    name: str
    inside: bool
    calls: int
    charged: str | None


class TeamEntriesQuery(Query):
    """Of one kind, and since a day of the site."""

    kind: EntryKind | None = None
    since: date | None = None


class TeamEntryRecord(EntryRecord):
    """A movement of a team's wallet. `member`: whose call it paid."""

    member: str | None


def _record(each: teams.Team) -> TeamRecord:
    return TeamRecord(
        each.id,
        each.name,
        each.closed,
        each.members,
        yuan(each.balance),
        yuan(each.held),
        when(each.created_at),
    )


def _team(desk: Desk, team_id: int) -> teams.Team:
    found = teams.find(desk.db, team_id)
    if found is None:
        raise missing("team")
    return found


def list_teams(desk: Desk) -> Listing[TeamRecord]:
    """All teams, by id."""
    found = sorted(teams.teams(desk.db), key=lambda each: each.id)
    rest = (_record(each) for each in found if each.id > (desk.query.after or 0))
    return cut(rest, desk.query.limit, lambda each: each.id)


def add_team(desk: Desk) -> TeamRecord:
    """Make a team, with an empty wallet."""
    return _record(teams.add(desk.db, desk.body.name, by=desk.by))


def team(desk: Desk, team_id: int) -> TeamRecord:
    """One team."""
    return _record(_team(desk, team_id))


def change_team(desk: Desk, team_id: int) -> TeamRecord:
    """Close a team, or open it again."""
    known = _team(desk, team_id)
    if known.closed != desk.body.closed:
        (teams.close if desk.body.closed else teams.reopen)(desk.db, team_id, by=desk.by)
    return _record(_team(desk, team_id))


def credit_team(desk: Desk, team_id: int) -> TeamRecord:
    """Put money into a team's wallet, or take it out."""
    known, amount = _team(desk, team_id), nano(desk.body.wallet, "wallet")
    if not amount:
        refuse("An amount such as 10 or -2.50.", "wallet")
    kind, note = desk.body.kind, desk.body.note
    credit(desk, known.id, {"wallet": amount}, kind, note)
    return _record(_team(desk, team_id))


def shares(desk: Desk, team_id: int) -> Listing[ShareRecord]:
    """Who is in a team, by name, and what its wallet paid for whom."""
    first = desk.query.first or today(desk).replace(day=1)
    last = desk.query.last or today(desk)
    if first > last:
        refuse("The first day is after the last.", "first" if desk.query.first else "last")
    found = teams.shares(desk.db, _team(desk, team_id).id, str(first), str(last))
    rest = (
        ShareRecord(each.user_id, each.name, each.inside, each.calls, yuan(each.charged))
        for each in sorted(found, key=lambda each: each.user_id)
        if each.user_id > (desk.query.after or 0)
    )
    return cut(rest, desk.query.limit, lambda each: each.user_id)


def join_team(desk: Desk, team_id: int, user_id: int) -> MemberRecord:
    """Let a member's calls draw on a team's wallet, and on no other team's."""
    known, who = _team(desk, team_id), member_of(desk, user_id)
    teams.join(desk.db, known.id, who.id, by=desk.by)
    return described(desk, who)


def leave_team(desk: Desk, team_id: int, user_id: int) -> MemberRecord:
    """Let them draw on it no more."""
    known, who = _team(desk, team_id), member_of(desk, user_id)
    own = teams.of(desk.db, who.id)
    if own is None or own.id != known.id:
        raise errors.NotFound("This member is not in this team.", code="not_found")
    teams.leave(desk.db, who.id, by=desk.by)
    return described(desk, who)


def team_entries(desk: Desk, team_id: int) -> Listing[TeamEntryRecord]:
    """What came into and went out of a team's wallet, newest first."""
    asked, known = desk.query, _team(desk, team_id)
    found = entries.listed(known.id, kind=asked.kind, since=begin_of(desk, asked.since))
    walk = found.walk(desk.db.read(), asked.after, asked.limit)
    return page_of(walk, lambda row: entry_record(row, TeamEntryRecord))


OF = "/teams/<int:team_id>"
MEMBER = f"{OF}/members/<int:user_id>"
ADDRESSES = (
    Address("GET", "/teams", list_teams, Listing[TeamRecord], query=Query),
    Address("POST", "/teams", add_team, TeamRecord, NewTeam, status=201),
    Address("GET", OF, team, TeamRecord),
    Address("PATCH", OF, change_team, TeamRecord, TeamChange),
    Address("POST", f"{OF}/credit", credit_team, TeamRecord, TeamCredit, keyed=True),
    Address("GET", f"{OF}/members", shares, Listing[ShareRecord], query=SharesQuery),
    Address("PUT", MEMBER, join_team, MemberRecord),
    Address("DELETE", MEMBER, leave_team, MemberRecord),
    Address("GET", f"{OF}/entries", team_entries, Listing[TeamEntryRecord], query=TeamEntriesQuery),
)
