"""What members may spend: credit, caps, plans, and what they ask for."""

from dataclasses import asdict

import billing
import plans
from members import caps, credit_requests
from relay import errors
from relay.administration.members import described
from relay.administration.shape import (
    RequestBody,
    idempotency_key,
    member_of,
    nano,
    read,
    when,
    yuan,
)
from relay.spine import Relay


class Credit(RequestBody):
    wallet: str | None = None
    grant: int | None = None
    note: str | None = None


class CapsGiven(RequestBody):
    day: str | None = None
    month: str | None = None
    models: list[str] | None = None


class PlanGiven(RequestBody):
    plan: str
    days: int | None = None
    quota: str | None = None
    renew: bool = False
    monthly: bool = False


class Decision(RequestBody):
    amount: str | None = None
    decline: bool = False
    reason: str = ""


def give_credit(relay: Relay, by: int, user_id: int) -> dict:
    """Put money or LLM tokens into the pockets, or take them out; once for each Idempotency-Key."""
    who, asked = member_of(relay, user_id), read(Credit)
    given = {"wallet": nano(asked.wallet), "grant": asked.grant}
    amounts = {pocket: amount for pocket, amount in given.items() if amount}
    if not amounts:
        raise errors.BadRequest("Give 'wallet' or 'grant'.", param="wallet")
    billing.credit_all(relay.db, who.id, amounts, note=asked.note, by=by, key=idempotency_key())
    return described(relay, who)


def put_caps(relay: Relay, by: int, user_id: int) -> dict:
    """Bind a member to amounts and models; what is left out is lifted."""
    who, asked = member_of(relay, user_id), read(CapsGiven)
    models = tuple(asked.models or ())
    if unknown := sorted(set(models) - {each.id for each in relay.settings.models}):
        raise errors.BadRequest(f"There is no model {', '.join(unknown)}.", param="models")
    bound = caps.Caps(nano(asked.day), nano(asked.month), models or None)
    caps.put(relay.db, who.id, bound, by=by)
    return described(relay, who)


def give_plan(relay: Relay, by: int, user_id: int) -> dict:
    """Give a plan without payment; once for each Idempotency-Key. `free` ends all plans."""
    who, asked = member_of(relay, user_id), read(PlanGiven)
    terms = relay.settings.plans.get(asked.plan)
    if terms is None:
        raise errors.BadRequest(
            f"There is no such plan; there are {', '.join(relay.settings.plans)}.", param="plan"
        )
    if asked.plan == "free":
        plans.end_all(relay.db, who.id, by=by)
    else:
        plans.give_plan(
            relay.db,
            who.id,
            asked.plan,
            quota=billing.nano(terms.quota if asked.quota is None else asked.quota),
            days=asked.days or terms.days,
            renew=asked.renew or asked.monthly,
            months_of=relay.settings.site.timezone if asked.monthly else None,
            by=by,
            key=idempotency_key(),
        )
    return described(relay, who)


def _credit_request(each: credit_requests.CreditRequest) -> dict:
    times = {name: when(getattr(each, name)) for name in ("created_at", "decided_at")}
    return asdict(each) | times | {"amount": yuan(each.amount), "given": yuan(each.given)}


def list_credit_requests(relay: Relay, by: int) -> dict:
    """Those that nobody has decided, the oldest first."""
    found = credit_requests.waiting(relay.db)
    return {"data": [_credit_request(each) for each in found], "next": None}


def decide(relay: Relay, by: int, request_id: int) -> dict:
    """Grant a request with `amount`, or decline it."""
    asked = read(Decision)
    if asked.decline == (asked.amount is not None):
        raise errors.BadRequest("Give 'amount', or 'decline': true.", param="amount")
    given = 0 if asked.decline else nano(asked.amount) or 0
    if not asked.decline and given <= 0:
        raise errors.BadRequest("An amount such as 10 or 10.50.", param="amount")
    made = credit_requests.decide(relay.db, request_id, given, asked.reason, by=by)
    return _credit_request(made)
