"""What a member has: the three pockets, the subscriptions, and the plan that follows from them.

Owns how the pages read it. Refuses to change any of it.
"""

from dataclasses import dataclass

import billing
import plans
from billing import Pockets
from console.context import state
from members import teams


@dataclass(frozen=True)
class Holdings:
    """A member's pockets and plans at one moment."""

    balance: Pockets
    held: Pockets  # by calls that run
    available: Pockets
    active: list[plans.Subscription]
    plan: str  # the name of the one in force
    team: teams.Team | None = None  # whose wallet pays before the member's own

    @property
    def pays_next(self) -> str:
        """The pocket from which the next call is paid first."""
        return (
            "grant"
            if self.available.grant > 0
            else "quota"
            if self.available.quota > 0
            else "team"
            if self.available.team > 0
            else "wallet"
        )

    @property
    def rules(self):
        """The settings of the plan in force."""
        return state().settings.plans[self.plan]

    @property
    def subscription(self) -> plans.Subscription | None:
        """Of those that put the plan in force the one that lasts longest.

        None for the plan that everybody has.
        """
        found = [each for each in self.active if each.plan == self.plan]
        return max(found, key=lambda each: each.ends_at, default=None)

    @property
    def empty(self) -> bool:
        """Whether a call that costs anything would be refused."""
        has = self.available
        return max(has.grant, has.quota, has.team, has.wallet) <= 0


def of(user_id: int) -> Holdings:
    """What this member has now."""
    db, now = state().db, billing.now_ms()
    has, active = billing.balances(db, user_id), plans.active(db, user_id, now)
    return Holdings(
        has["balance"],
        has["held"],
        billing.available(db.read(), user_id, now),
        active,
        plan_in_force([each.plan for each in active]),
        teams.of(db, user_id),
    )


def plan_in_force(names: list[str]) -> str:
    """Of several plans the one that the gate goes by."""
    return state().gate.plan_in_force(names)
