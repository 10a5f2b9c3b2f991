"""What members may spend: credit, caps, plans, the ledger's entries, and what they ask for."""

from dataclasses import asdict
from datetime import date
from typing import Any, Literal, TypeVar

import msgspec

import billing
import plans
from members import budget, caps, credit_requests, entries, terms
from relay import errors
from relay.administration.members import MemberRecord, described
from relay.administration.shape import (
    Address,
    Desk,
    Done,
    Listing,
    Query,
    RequestBody,
    amount,
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

CreditKind = Literal["top_up", "refund", "reward", "adjust"]
EntryKind = Literal[
    "top_up", "refund", "reward", "adjust", "redeem", "purchase", "quota", "charge", "expire"
]


class Credit(RequestBody):
    """Yuan and LLM tokens; below zero they are taken out. Without a kind what is put in is a top-up
    and what is taken a correction."""

    wallet: str | None = None
    grant: int | None = None
    kind: CreditKind | None = None
    note: str | None = None


class CapsGiven(RequestBody):
    """Yuan a day and a month, and the only models; what is left out is lifted."""

    day: str | None = None
    month: str | None = None
    models: list[str] | None = None


class PlanGiven(RequestBody):
    """A plan without payment, on its own terms where none are said. `renew` makes it an allowance,
    `monthly` one by the site's calendar months. `free` ends all plans."""

    plan: str
    days: int | None = None
    quota: str | None = None
    renew: bool = False
    monthly: bool = False


class SubscriptionRecord(msgspec.Struct):
    """A period of a plan. `monthly`: it follows the calendar."""

    id: int
    plan: str
    quota: str | None
    left: str | None
    paid: str | None
    starts_at: str | None
    ends_at: str | None
    renew: bool
    monthly: bool


class SubscriptionChange(RequestBody):
    """false: it ends with its period."""

    renew: Literal[False]


class EntriesQuery(Query):
    """Of one pocket or kind, and since a day of the site."""

    pocket: Literal["grant", "quota", "wallet"] | None = None
    kind: EntryKind | None = None
    since: date | None = None


class EntryRecord(msgspec.Struct):
    """A movement of a pocket: LLM tokens of the grant, else yuan. `by`: who posted it by hand."""

    id: int
    created_at: str | None
    pocket: str
    kind: str
    amount: int | str | None
    balance_after: int | str | None
    request_id: str | None
    subscription_id: int | None
    note: str | None
    by: str | None


R = TypeVar("R", bound=EntryRecord)


class CreditRequestRecord(msgspec.Struct):
    """What a member asks for. `given` null: nobody has decided; 0: declined."""

    id: int
    user_id: int
    name: str
    amount: str | None
    note: str
    created_at: str | None
    decided_at: str | None
    decided_by: str | None
    given: str | None
    reason: str | None


class Decision(RequestBody):
    """Grant this amount, or decline."""

    amount: str | None = None
    decline: bool = False
    reason: str = ""


class ForecastRecord(msgspec.Struct):
    """What the month will likely be at its end, and between what. `reached`: the day on which the
    limit of the site will be."""

    likely: str | None
    least: str | None
    most: str | None
    reached: str | None


class BudgetRecord(msgspec.Struct):
    """This month of the whole site; `cap` is `site.cap_month`, which counts what is `paid`."""

    month: str
    cost: str | None
    paid: str | None
    cap: str | None
    forecast: ForecastRecord | None


def give_credit(desk: Desk, user_id: int) -> MemberRecord:
    """Put money or LLM tokens into the pockets, or take them out."""
    who, asked = member_of(desk, user_id), desk.body
    given = {"wallet": nano(asked.wallet, "wallet"), "grant": asked.grant}
    amounts = {pocket: value for pocket, value in given.items() if value}
    if not amounts:
        refuse("Give 'wallet' or 'grant'.", "wallet")
    credit(desk, who.id, amounts, asked.kind, asked.note)
    return described(desk, who)


def credit(
    desk: Desk, user_id: int, amounts: dict[str, int], kind: str | None, note: str | None
) -> None:
    """Credit a member or a team, once for a key. What the ledger refuses is said of the kind."""
    try:
        billing.credit_all(desk.db, user_id, amounts, kind, note=note, by=desk.by, key=desk.key)
    except ValueError as err:
        refuse(f"{err}.", "wallet" if kind is None else "kind")


def cap(text: str | None, param: str) -> int | None:
    """A limit in nano-yuan."""
    limit = nano(text, param)
    if limit is not None and limit < 0:
        refuse(f"{param}: a limit is an amount not below 0.", param)
    return limit


def put_caps(desk: Desk, user_id: int) -> MemberRecord:
    """Bind a member to amounts and models."""
    who, asked = member_of(desk, user_id), desk.body
    models = tuple(asked.models or ())
    terms.check_models(desk.settings, models)
    bound = caps.Caps(cap(asked.day, "day"), cap(asked.month, "month"), models or None)
    caps.put(desk.db, who.id, bound, by=desk.by)
    return described(desk, who)


def give_plan(desk: Desk, user_id: int) -> MemberRecord:
    """Give a plan without payment. `free` ends all plans."""
    who, asked = member_of(desk, user_id), desk.body
    terms.give_plan(
        desk.db,
        desk.settings,
        who.id,
        asked.plan,
        quota=nano(asked.quota, "quota"),
        days=asked.days,
        renew=asked.renew,
        monthly=asked.monthly,
        by=desk.by,
        key=desk.key,
    )
    return described(desk, who)


def subscriptions(desk: Desk, user_id: int) -> Listing[SubscriptionRecord]:
    """A member's plans, past ones too, newest first."""
    found = plans.subscriptions(desk.db, member_of(desk, user_id).id)
    newest = sorted(found, key=lambda each: -each.id)
    rest = (_subscription(each) for each in newest if each.id < (desk.query.after or each.id + 1))
    return cut(rest, desk.query.limit, lambda each: each.id)


def _subscription(each: plans.Subscription) -> SubscriptionRecord:
    return SubscriptionRecord(
        each.id,
        each.plan,
        yuan(each.quota),
        yuan(each.left),
        yuan(each.paid),
        when(each.starts_at),
        when(each.ends_at),
        each.renew,
        each.months_of is not None,
    )


def _one(desk: Desk, user_id: int, subscription_id: int) -> SubscriptionRecord:
    found = plans.subscriptions(desk.db, member_of(desk, user_id).id)
    for each in found:
        if each.id == subscription_id:
            return _subscription(each)
    raise missing("subscription")


def stop_renewal(desk: Desk, user_id: int, subscription_id: int) -> SubscriptionRecord:
    """Let an allowance end with its period."""
    known = _one(desk, user_id, subscription_id)
    if not plans.stop_renewal(desk.db, known.id, by=desk.by):
        raise errors.BadRequest("This subscription does not renew.", param="renew", code="refused")
    return _one(desk, user_id, subscription_id)


def end_subscription(desk: Desk, user_id: int, subscription_id: int) -> Done:
    """End a plan before its time: what is left of its quota expires."""
    known = _one(desk, user_id, subscription_id)
    if not plans.end_plan(desk.db, known.id, by=desk.by):
        raise errors.BadRequest("This subscription has ended already.", code="refused")
    return Done(known.id, "ended")


def list_entries(desk: Desk, user_id: int) -> Listing[EntryRecord]:
    """What came into and went out of a member's pockets, newest first."""
    asked, who = desk.query, member_of(desk, user_id)
    found = entries.listed(who.id, asked.pocket, asked.kind, begin_of(desk, asked.since))
    return page_of(
        found.walk(desk.db.read(), asked.after, asked.limit),
        lambda row: entry_record(row, EntryRecord),
    )


def entry_record(row: Any, kind: type[R]) -> R:
    """An entry as the API says it."""
    said = {name: row[name] for name in kind.__struct_fields__}
    said["created_at"] = when(row["created_at"])
    said |= {name: amount(row["pocket"], row[name]) for name in ("amount", "balance_after")}
    return kind(**said)


def _credit_request(each: credit_requests.CreditRequest) -> CreditRequestRecord:
    times = {name: when(getattr(each, name)) for name in ("created_at", "decided_at")}
    money = {name: yuan(getattr(each, name)) for name in ("amount", "given")}
    return CreditRequestRecord(**(asdict(each) | times | money))


def list_credit_requests(desk: Desk) -> Listing[CreditRequestRecord]:
    """Those that nobody has decided, the oldest first."""
    after = desk.query.after or 0
    waiting = credit_requests.waiting(desk.db)
    rest = (_credit_request(each) for each in waiting if each.id > after)
    return cut(rest, desk.query.limit, lambda each: each.id)


def decide(desk: Desk, request_id: int) -> CreditRequestRecord:
    """Grant a request with `amount`, or decline it: once, whoever is first."""
    asked = desk.body
    if credit_requests.find(desk.db, request_id) is None:
        raise missing("request for credit")
    if asked.decline == (asked.amount is not None):
        refuse("Give 'amount', or 'decline': true.", "amount")
    given = 0 if asked.decline else nano(asked.amount, "amount") or 0
    if not asked.decline and given <= 0:
        refuse("An amount such as 10 or 10.50.", "amount")
    made = credit_requests.decide(desk.db, request_id, given, asked.reason, by=desk.by)
    return _credit_request(made)


def month_budget(desk: Desk) -> BudgetRecord:
    """This month of the site against its limit, with a forecast."""
    cap = desk.settings.site.cap_month
    found = budget.of(desk.db, today(desk), None if cap is None else billing.nano(cap))
    guess, likely = None, found.forecast
    if likely is not None:
        reached = None if likely.reached is None else str(likely.reached)
        guess = ForecastRecord(yuan(likely.likely), yuan(likely.least), yuan(likely.most), reached)
    return BudgetRecord(found.month, yuan(found.cost), yuan(found.paid), yuan(found.cap), guess)


OF = "/members/<int:user_id>"
SUBSCRIPTION = f"{OF}/subscriptions/<int:subscription_id>"
ADDRESSES = (
    Address("POST", f"{OF}/credit", give_credit, MemberRecord, Credit, keyed=True),
    Address("PUT", f"{OF}/caps", put_caps, MemberRecord, CapsGiven),
    Address("POST", f"{OF}/plan", give_plan, MemberRecord, PlanGiven, keyed=True),
    Address("GET", f"{OF}/subscriptions", subscriptions, Listing[SubscriptionRecord], query=Query),
    Address("PATCH", SUBSCRIPTION, stop_renewal, SubscriptionRecord, SubscriptionChange),
    Address("DELETE", SUBSCRIPTION, end_subscription, Done),
    Address("GET", f"{OF}/entries", list_entries, Listing[EntryRecord], query=EntriesQuery),
    Address(
        "GET", "/credit-requests", list_credit_requests, Listing[CreditRequestRecord], query=Query
    ),
    Address("POST", "/credit-requests/<int:request_id>", decide, CreditRequestRecord, Decision),
    Address("GET", "/budget", month_budget, BudgetRecord),
)
