"""Members: found, made, changed."""

from flask import request

import billing
import plans
from members import accounts, caps
from relay.administration.shape import (
    RequestBody,
    limit_asked,
    listed,
    member_of,
    pockets,
    read,
    when,
    yuan,
)
from relay.spine import Relay


class NewMember(RequestBody):
    name: str
    password: str
    role: str = "member"


class MemberChange(RequestBody):
    disabled: bool | None = None
    role: str | None = None
    password: str | None = None


def described(relay: Relay, who: accounts.Member) -> dict:
    has, held = billing.balances(relay.db, who.id).values()
    bound = caps.of(relay.db, who.id)
    names = [each.plan for each in plans.active(relay.db, who.id)]
    return {
        "id": who.id,
        "name": who.name,
        "role": who.role,
        "plan": relay.gate.plan_in_force(names),
        "disabled": who.disabled,
        "created_at": when(who.created_at),
        "balance": pockets(has),
        "held": pockets(held),
        "caps": {"day": yuan(bound.day), "month": yuan(bound.month), "models": bound.models},
    }


def members(relay: Relay, by: int) -> dict:
    """All members, by id; `?name=` those whose name has this in it."""
    limit = limit_asked()
    found = accounts.members(
        relay.db,
        request.args.get("name", ""),
        after=request.args.get("after", 0, int),
        limit=limit,
    )
    return listed([described(relay, each) for each in found], "id", limit)


def add_member(relay: Relay, by: int) -> tuple[dict, int]:
    """A new member."""
    asked = read(NewMember)
    who = accounts.add(relay.db, asked.name, asked.password, role=asked.role, by=by)
    return described(relay, who), 201


def member(relay: Relay, by: int, user_id: int) -> dict:
    """One member, with pockets, plan and caps."""
    return described(relay, member_of(relay, user_id))


def change_member(relay: Relay, by: int, user_id: int) -> dict:
    """Disable, enable, another role, another password."""
    who, asked = member_of(relay, user_id), read(MemberChange)
    if asked.role is not None:
        accounts.set_role(relay.db, who.id, asked.role, by=by)
    if asked.password is not None:
        accounts.set_password(relay.db, who.id, asked.password, by=by)
    if asked.disabled is not None:
        (accounts.disable if asked.disabled else accounts.enable)(relay.db, who.id, by=by)
    return described(relay, member_of(relay, user_id))
