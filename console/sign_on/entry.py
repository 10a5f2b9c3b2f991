"""Who comes by single sign-on becomes a member here, stays one, or leaves.

Owns what is done once somebody is named: find the member, make a newcomer, and end what there is
for who may not come any more. An identity alone says which member it is; names and addresses that
coincide never do.
"""

import logging

from flask import request

import billing
import plans
from console import throttle
from console.context import state
from console.sign_on.person import Person, Refused, check, role
from console.ui import i18n
from members import accounts, audit, identities

log = logging.getLogger("console.sign_on")

REFUSALS_NOTED = "10 per hour"  # of one person, in the audit trail; the log has all


def enter(person: Person) -> tuple[accounts.Member, bool]:
    """The member that this person is, and whether they are new. Raises Refused."""
    try:
        return _enter(person)
    except Refused as refusal:
        _note_refusal(person, refusal.reason)
        raise


def _enter(person: Person) -> tuple[accounts.Member, bool]:
    rules, db = state().settings.sign_in, state().db
    known = identities.find(db, person.issuer, person.subject)
    who = accounts.find(db, known.user_id) if known is not None and known.user_id else None
    try:
        check(rules, person)
    except Refused as refusal:
        if who is not None:
            leave(who, refusal.reason)
        raise
    if known is None:
        return _newcomer(person), True
    if who is None:
        raise Refused("disconnected")
    if who.disabled:
        raise Refused("disabled")
    identities.seen(db, known, person.name, person.email)
    return _with_role(who, role(rules, person)), False


def _newcomer(person: Person) -> accounts.Member:
    """Make a member of somebody who was never here. Raises Refused."""
    settings, db = state().settings, state().db
    rules = settings.sign_in
    if not rules.newcomers:
        raise Refused("no_newcomers")
    try:
        who = identities.newcomer(
            db,
            person.issuer,
            person.subject,
            name=person.name,
            email=person.email,
            role=role(rules, person) or "member",
            signup_reward=settings.accounts.signup_reward,
            language=i18n.language(),
        )
    except identities.Taken:  # in another tab, this very moment
        return _enter(person)[0]
    if rules.plan:
        terms = settings.plans[rules.plan]
        quota = billing.nano(terms.quota)
        plans.give_plan(
            db, who.id, rules.plan, quota=quota, days=terms.days, renew=True, key="newcomer"
        )
    log.info("%s is a newcomer by single sign-on, from %s", who.name, request.remote_addr)
    return who


def _with_role(who: accounts.Member, wanted: str | None) -> accounts.Member:
    """The member with the role that the groups give; the last administrator stays one."""
    if wanted is None or wanted == who.role:
        return who
    try:
        accounts.set_role(state().db, who.id, wanted, by=who.id)
    except accounts.LastAdministrator:
        log.warning("%s is in no group of administrators, but the last one", who.name)
        return who
    return accounts.find(state().db, who.id) or who


def leave(who: accounts.Member, reason: str) -> None:
    """End the sessions of a member whom the issuer does not vouch for any more, and where the
    settings say so all that they have."""
    db, name = state().db, who.name
    if state().settings.sign_in.leaving == "disable" and not who.disabled:
        try:
            accounts.disable(db, who.id)
            log.warning("%s is disabled: single sign-on refused them (%s)", name, reason)
            return
        except accounts.LastAdministrator:
            log.warning("%s may not come any more, but is the last administrator", name)
    db.write(lambda conn: accounts.renew_epoch(conn, who.id))
    log.warning("the sessions of %s ended: single sign-on refused them (%s)", name, reason)


def may_come(known: identities.Identity) -> bool:
    """Whether the rules let an identity come, as far as is known of it here: its groups are not."""
    rules = state().settings.sign_in
    person = Person(
        issuer=known.issuer,
        subject=known.subject,
        email=known.email,
        verified=True,
        domain=known.email.rpartition("@")[2].lower(),
        groups=rules.groups,
    )
    try:
        check(rules, person)
    except Refused:
        return False
    return known.issuer == rules.source


def note_sign_in(who: accounts.Member, person: Person) -> None:
    """Put it into the trail and the log that a member came in."""
    detail = {"issuer": person.issuer}
    state().db.write(lambda conn: audit.record(conn, who.id, "member.sign_in", who.id, detail))
    log.info("%s signed in by single sign-on, from %s", who.name, request.remote_addr)


def _note_refusal(person: Person, reason: str) -> None:
    log.warning(
        "single sign-on was refused (%s) to %r of %s, from %s",
        reason,
        person.subject,
        person.issuer,
        request.remote_addr,
    )
    if throttle.wait_s(REFUSALS_NOTED, "sign-on-refused", person.issuer, person.subject) is None:
        detail = {"reason": reason, "subject": person.subject, "email": person.email}
        state().db.write(lambda conn: audit.record(conn, None, "sign_in.refuse", None, detail))
