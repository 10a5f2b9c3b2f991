"""What is given by its name in the settings: plans, codes for plans, and models to bind somebody to.

Owns how a name becomes terms, for pages, commands and the API alike; who gives may say others than
the settings do. The giving is `plans`' and `codes`'.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

import billing
import plans
from db import Database

FREE = "free"
OF_A_PERIOD = ("price", "quota", "days")  # what a period has for good when it begins


class UnknownName(ValueError):
    """The settings have no such plan or model; `field` is which of them."""

    def __init__(self, message: str, field: str):
        super().__init__(message)
        self.field = field


def check_models(settings: Any, names: Iterable[str]) -> None:
    """Raises UnknownName for ids of models that the settings do not have."""
    if unknown := sorted(set(names) - {each.id for each in settings.models}):
        raise UnknownName(f"there is no model {', '.join(map(repr, unknown))}", "models")


def of_plan(settings: Any, name: str) -> dict[str, Any]:
    """What a plan gives: {"plan", "quota": nano-yuan, "days"}. Raises UnknownName."""
    offered = [each for each in settings.plans if each != FREE]
    if name not in offered:
        known = ", ".join(offered) or "none"
        raise UnknownName(f"there is no plan {name!r} to give; there are {known}", "plan")
    plan = settings.plans[name]
    return {"plan": name, "quota": billing.nano(plan.quota), "days": plan.days}


def give_plan(
    db: Database,
    settings: Any,
    user_id: int,
    name: str,
    *,
    quota: int | None = None,
    days: int | None = None,
    renew: bool = False,
    monthly: bool = False,
    by: int | None = None,
    key: str | None = None,
) -> dict[str, Any] | None:
    """Give a plan without payment, on its own terms where none are said; `monthly` is an allowance
    by the site's calendar. `free` ends all plans: None. Else returns {"subscription", "ends_at"}.

    Raises UnknownName, ValueError, Unknown, KeyReused.
    """
    if name == FREE:
        plans.end_all(db, user_id, by=by)
        return None
    if monthly and days:
        raise ValueError("a plan lasts for calendar months or for days: give one of them")
    if name not in settings.plans:
        known = ", ".join(settings.plans)
        raise UnknownName(f"there is no plan {name!r}; there are {known}", "plan")
    terms = of_plan(settings, name)
    return plans.give_plan(
        db,
        user_id,
        name,
        quota=terms["quota"] if quota is None else quota,
        days=days or terms["days"],
        renew=renew or monthly,
        months_of=settings.site.timezone if monthly else None,
        by=by,
        key=key,
    )


# ---- plans that change


def terms_of(settings: Any) -> dict[str, dict[str, Any]]:
    """The plans of the settings, as they may be written down."""
    found: dict[str, dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(settings.plans))
    return found


def plan_changes(db: Database, before: dict[str, dict[str, Any]], settings: Any) -> list[str]:
    """What a change of plans means, to whom and from when: a sentence for each plan whose terms are
    others than `before` (see `terms_of`) while members hold it, or that everybody has; `lost_plans`
    are another matter."""
    said, held, after = [], plans.holders(db), terms_of(settings)
    for name in before.keys() & after.keys():
        parts = "; ".join(_changed(before[name], after[name]))
        if parts and (name == FREE or name in held):
            count = held.get(name, 0)
            whom = "everybody without a plan" if name == FREE else f"its holders ({count})"
            said.append(f"The plan {name} changes for {whom}: {parts}.")
    return sorted(said)


def lost_plans(db: Database, settings: Any) -> str | None:
    """Plans cannot vanish without a word: who holds one has the plan that everybody has meanwhile,
    and keeps its quota."""
    lost = plans.unknown(db, settings.plans)
    if not lost:
        return None
    named = ", ".join(f"{name} (held by {count})" for name, count in sorted(lost.items()))
    return (
        f"The settings have no such plan any more: {named}. Its holders have the rights of 'free'."
    )


def _changed(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    names = [each for each in after if before.get(each) != after[each] and each != "title"]
    for found, when in (
        ([each for each in names if each not in OF_A_PERIOD], "from the next request on"),
        (
            [each for each in names if each in OF_A_PERIOD],
            "for what is bought or given from now on, while running plans and allowances keep theirs",
        ),
    ):
        if found:
            what = (f"{each} {_said(before.get(each))} -> {_said(after[each])}" for each in found)
            yield f"{', '.join(what)} {when}"


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(value) or "all"
    return "none" if value is None else str(value)
