"""`flask user`: members, their passwords, roles and plans."""

import click

import billing
import plans
from commands import given, shown
from members import accounts, caps, terms

user = given.Topic("user", help="Members: add, list, disable, give a plan.")


@user.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="An administrator.")
@given.password_option
@shown.json_option
def add(name: str, admin: bool, password: str | None, as_json: bool) -> None:
    """Add the member NAME."""
    member = accounts.add(
        given.relay().db, name, given.password(password), role="admin" if admin else "member"
    )
    shown.one(
        as_json,
        {"id": member.id, "name": member.name, "role": member.role},
        f"{member.name} is a member now{' and an administrator' if admin else ''}.",
    )


@user.command("list")
@shown.json_option
def list_users(as_json: bool) -> None:
    """List all members."""
    shown.listing(as_json, _members(), "There are no members. `flask user add NAME` adds one.")


def _members():
    relay, after = given.relay(), 0
    while page := accounts.members(relay.db, after=after):
        for each in page:
            yield {
                "id": each.id,
                "name": each.name,
                "role": each.role,
                "plan": plan_of(each),
                "disabled": each.disabled,
                "created_at": shown.when(each.created_at),
            }
        after = page[-1].id


def plan_of(member: accounts.Member) -> str:
    """The name of a member's plan in force."""
    relay = given.relay()
    names = [each.plan for each in plans.active(relay.db, member.id)]
    return relay.gate.plan_in_force(names)


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@click.option("--day", metavar="YUAN", help="The most a day; none: no limit.")
@click.option("--month", metavar="YUAN", help="The most a month; none: no limit.")
@click.option("--model", "models", multiple=True, metavar="M", help="Only these; none: all.")
@shown.json_option
def cap(
    member: accounts.Member,
    day: str | None,
    month: str | None,
    models: tuple[str, ...],
    as_json: bool,
) -> None:
    """Bind NAME, with all tokens, to an amount a day and a month, and to models.

    What is not given stays as it is; without any option the caps are shown.
    """
    relay = given.relay()
    known = caps.of(relay.db, member.id)
    if day or month or models:
        terms.check_models(relay.settings, set(models) - {"none"})
        known = caps.Caps(
            _amount(day, known.day),
            _amount(month, known.month),
            known.models if not models else None if "none" in models else models,
        )
        caps.put(relay.db, member.id, known)
    document = {
        "name": member.name,
        "day": shown.amount("wallet", known.day),
        "month": shown.amount("wallet", known.month),
        "models": list(known.models) if known.models else None,
    }
    shown.one(
        as_json,
        document,
        f"{member.name} may spend {document['day'] or 'any amount'} a day and"
        f" {document['month'] or 'any amount'} a month, on"
        f" {', '.join(known.models) if known.models else 'every model'}.",
    )


def _amount(typed: str | None, known: int | None) -> int | None:
    if typed is None:
        return known
    return None if typed == "none" else billing.nano(typed)


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@shown.json_option
def disable(member: accounts.Member, as_json: bool) -> None:
    """Shut NAME out, with all tokens and sessions."""
    accounts.disable(given.relay().db, member.id)
    shown.one(as_json, {"name": member.name, "disabled": True}, f"{member.name} is shut out.")


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@shown.json_option
def enable(member: accounts.Member, as_json: bool) -> None:
    """Let NAME in again."""
    accounts.enable(given.relay().db, member.id)
    shown.one(as_json, {"name": member.name, "disabled": False}, f"{member.name} is let in.")


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@given.password_option
@shown.json_option
def password(member: accounts.Member, password: str | None, as_json: bool) -> None:
    """Give NAME another password; all sessions end."""
    accounts.set_password(given.relay().db, member.id, given.password(password))
    shown.one(as_json, {"name": member.name}, f"{member.name} has another password.")


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@click.argument("role", type=click.Choice(accounts.ROLES))
@shown.json_option
def role(member: accounts.Member, role: str, as_json: bool) -> None:
    """Make NAME an administrator (admin) or not (member)."""
    accounts.set_role(given.relay().db, member.id, role)
    shown.one(
        as_json,
        {"name": member.name, "role": role},
        f"{member.name} is {'an administrator' if role == 'admin' else 'a member'}.",
    )


@user.command()
@click.argument("member", metavar="NAME", type=given.MEMBER)
@click.argument("plan")
@click.option(
    "--days", type=click.IntRange(1, 36500), help="How long; else as long as the plan says."
)
@click.option("--renew", is_flag=True, help="Let each period be followed by another: an allowance.")
@click.option("--monthly", is_flag=True, help="An allowance by the site's calendar months.")
@given.key_option
@shown.json_option
def plan(
    member: accounts.Member,
    plan: str,
    days: int | None,
    renew: bool,
    monthly: bool,
    key: str | None,
    as_json: bool,
) -> None:
    """Give NAME the plan PLAN without payment. `free` ends all plans that NAME has.

    An allowance given again on the same terms is the one that NAME has; on others it takes the
    place of that.
    """
    relay = given.relay()
    done = terms.give_plan(
        relay.db,
        relay.settings,
        member.id,
        plan,
        days=days,
        renew=renew,
        monthly=monthly,
        key=key,
    )
    if done is None:
        shown.one(as_json, {"name": member.name, "plan": plan}, f"{member.name} has the plan free.")
        return
    until = shown.when(done["ends_at"])
    shown.one(
        as_json,
        {"name": member.name, "plan": plan, "ends_at": until, "renew": renew or monthly},
        f"{member.name} has the plan {plan} until {until}{', renewed' if renew or monthly else ''}.",
    )
