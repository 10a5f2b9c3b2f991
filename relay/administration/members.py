"""Members: found, made, changed, and whom they may invite."""

import time
from typing import Annotated, Any, Literal

import msgspec

import billing
import plans
from db import keyset
from members import accounts, caps, teams
from relay.administration.shape import (
    Address,
    Desk,
    Done,
    Listing,
    PocketsRecord,
    Query,
    RequestBody,
    member_of,
    page_of,
    pockets,
    refuse,
    today,
    when,
    yuan,
)

DAY_MS = 86_400_000


class CapsRecord(msgspec.Struct):
    """What administrators let a member spend and use, and how much of a day's or month's is used;
    null: no limit."""

    day: str | None
    month: str | None
    models: list[str] | None
    day_used: str | None = None
    month_used: str | None = None


class MemberRecord(msgspec.Struct):
    """A member. `password`: one that was just made, which is shown this once."""

    id: int
    name: str
    role: str
    plan: str
    disabled: bool
    created_at: str | None
    balance: PocketsRecord
    held: PocketsRecord
    caps: CapsRecord
    team: str | None  # the name of the team whose wallet they share
    password: str | msgspec.UnsetType = msgspec.UNSET


class MembersQuery(Query):
    """`name`: it has this in it."""

    name: str = ""
    state: Literal["active", "disabled", "admin", "empty"] | None = None


class NewMember(RequestBody):
    """Without a password one is made, where passwords sign anybody in. `reward`: the one for new
    members, if there is any."""

    name: str
    password: str | None = None
    role: Literal["member", "admin"] = "member"
    reward: bool = False


class MemberChange(RequestBody):
    """`new_password`: instead of a password; one is made and shown this once."""

    disabled: bool | None = None
    role: Literal["member", "admin"] | None = None
    password: str | None = None
    new_password: bool = False


class InviteRecord(msgspec.Struct):
    """A member's link. `uses`: for so many more people; null: any. `open`: it works now."""

    code: str
    link: str
    uses: int | None
    until: str | None
    open: bool


class InviteRenewal(RequestBody):
    """A new link for so many people and days; left out: for any number, for good."""

    uses: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    days: Annotated[int, msgspec.Meta(ge=1, le=3660)] | None = None


class InvitedRecord(msgspec.Struct):
    """Who came by a member's invite, and what the member got for it (LLM tokens)."""

    id: int
    name: str
    created_at: str | None
    reward: int
    rewarded_at: str | None


def described(desk: Desk, who: accounts.Member, password: Any = msgspec.UNSET) -> MemberRecord:
    """A member, with pockets, plan and caps."""
    has, held = billing.balances(desk.db, who.id).values()
    bound, shared = caps.of(desk.db, who.id), teams.of(desk.db, who.id)
    used = {
        each.span: yuan(each.spent)
        for each in caps.used(desk.db, str(today(desk)), who.id, (bound.day, bound.month))
    }
    names = [each.plan for each in plans.active(desk.db, who.id)]
    return MemberRecord(
        id=who.id,
        name=who.name,
        role=who.role,
        plan=desk.relay.gate.plan_in_force(names),
        disabled=who.disabled,
        created_at=when(who.created_at),
        balance=pockets(has),
        held=pockets(held),
        caps=CapsRecord(
            yuan(bound.day),
            yuan(bound.month),
            list(bound.models) if bound.models else None,
            used.get("day"),
            used.get("month"),
        ),
        team=None if shared is None else shared.name,
        password=password,
    )


def members(desk: Desk) -> Listing[MemberRecord]:
    """All members, by id."""
    asked = desk.query
    found = accounts.listed(asked.name.strip(), asked.state)
    walk = found.walk(desk.db.read(), asked.after, asked.limit, older=False)
    return page_of(walk, lambda row: described(desk, member_of(desk, row["id"])))


def add_member(desk: Desk) -> MemberRecord:
    """A new member."""
    asked = desk.body
    reward = desk.settings.accounts.signup_reward if asked.reward else 0
    _need_passwords(desk, "password", asked.password is not None)
    made = None
    if asked.password is None and desk.settings.sign_in.passwords:
        made = accounts.made_password()
    password = made if asked.password is None else asked.password
    who = accounts.add(
        desk.db, asked.name, password, role=asked.role, signup_reward=reward, by=desk.by
    )
    return described(desk, who, made or msgspec.UNSET)


def _need_passwords(desk: Desk, param: str, wanted: bool) -> None:
    """Raises BadRequest for a password that would let nobody in."""
    if wanted and not desk.settings.sign_in.passwords:
        refuse("Passwords sign nobody in here: [sign_in] has passwords = false.", param)


def member(desk: Desk, user_id: int) -> MemberRecord:
    """One member, with pockets, plan and caps."""
    return described(desk, member_of(desk, user_id))


def change_member(desk: Desk, user_id: int) -> MemberRecord:
    """Disable, enable, another role, another password: all that is said, or nothing."""
    who, asked = member_of(desk, user_id), desk.body
    _need_passwords(desk, "password", asked.password is not None)
    _need_passwords(desk, "new_password", asked.new_password)
    if asked.new_password and asked.password is not None:
        refuse("Give either 'password' or 'new_password'.", "new_password")
    made = accounts.made_password() if asked.new_password else None
    accounts.change(
        desk.db,
        who.id,
        role=asked.role,
        password=made or asked.password,
        disabled=asked.disabled,
        by=desk.by,
    )
    return described(desk, member_of(desk, user_id), made or msgspec.UNSET)


def end_sessions(desk: Desk, user_id: int) -> Done:
    """Sign a member out everywhere. Tokens go on."""
    accounts.end_sessions(desk.db, member_of(desk, user_id).id, by=desk.by)
    return Done(user_id, "signed out")


def invite(desk: Desk, user_id: int) -> InviteRecord:
    """A member's invite."""
    who = member_of(desk, user_id)
    may = who.admin or desk.settings.accounts.invites_from == "members"
    return InviteRecord(
        who.invite_code,
        f"{desk.base_url}/register?invite={who.invite_code}",
        who.invite_uses,
        when(who.invite_until),
        may and accounts.inviter(desk.db, who.invite_code) is not None,
    )


def renew_invite(desk: Desk, user_id: int) -> InviteRecord:
    """Another link for a member; the old one is worth nothing from now on."""
    asked = desk.body
    until = asked.days and time.time_ns() // 1_000_000 + asked.days * DAY_MS
    accounts.renew_invite(desk.db, member_of(desk, user_id).id, asked.uses, until, by=desk.by)
    return invite(desk, user_id)


def invited(desk: Desk, user_id: int) -> Listing[InvitedRecord]:
    """Who came by a member's invites, newest first."""
    found: keyset.List = accounts.came_by(member_of(desk, user_id).id)
    walk = found.walk(desk.db.read(), desk.query.after, desk.query.limit)
    return page_of(
        walk,
        lambda row: InvitedRecord(
            row["key"],
            row["name"],
            when(row["created_at"]),
            row["reward"],
            when(row["rewarded_at"]),
        ),
    )


ONE = "/members/<int:user_id>"
ADDRESSES = (
    Address("GET", "/members", members, Listing[MemberRecord], query=MembersQuery),
    Address("POST", "/members", add_member, MemberRecord, NewMember, status=201),
    Address("GET", ONE, member, MemberRecord),
    Address("PATCH", ONE, change_member, MemberRecord, MemberChange),
    Address("DELETE", f"{ONE}/sessions", end_sessions, Done),
    Address("GET", f"{ONE}/invite", invite, InviteRecord),
    Address("POST", f"{ONE}/invite", renew_invite, InviteRecord, InviteRenewal),
    Address("GET", f"{ONE}/invited", invited, Listing[InvitedRecord], query=Query),
)
