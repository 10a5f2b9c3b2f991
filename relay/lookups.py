"""Balance look-ups in the shapes that tools read.

Owns six small dialects of "what is left": OpenAI's old billing pages (Cherry Studio, NextChat,
ChatBox), one-api's and new-api's user and token pages (CC Switch among others), a plain
`/v1/usage`, and OpenRouter's `/key`. They are free of charge and outside the rate limit. Money is
shown in yuan where the tool says dollars: it only prints the number.

Every shape is a pure function of `Account`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from billing import NANO

UNITS_PER_YUAN = 500_000  # new-api counts money in 1/500,000 of its currency
FOREVER = 4_102_444_800  # 2100-01-01: "does not expire", for tools that want a date


@dataclass(frozen=True, slots=True)
class Account:
    """What a caller has and has used; money in nano-yuan, times in ms."""

    user_id: int
    user_name: str
    token_name: str
    plan: str
    requests_per_minute: int
    grant: int  # LLM tokens
    quota: int
    wallet: int
    spent: int  # by the member, ever
    spent_by_token: int
    calls: int
    expires_at: int | None  # the token's
    days: tuple[tuple[str, int], ...] | None = None  # spent, on the days that were asked for
    team: int = 0  # what the team's wallet has free, for all its members
    grant_worth: int = 0  # what the grant would at least cost in money
    room: int | None = None  # what caps leave of the money; None: all of it

    @property
    def left(self) -> int:
        """What there is to spend, in money: tools know no other, and call an account empty that
        has a grant alone."""
        money = self.quota + self.team + self.wallet
        return self.grant_worth + (money if self.room is None else min(money, self.room))


def subscription(account: Account) -> dict:
    """OpenAI's /dashboard/billing/subscription: the limit is what was spent plus what is left."""
    limit = _yuan(account.spent + max(0, account.left))
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "canceled": False,
        "soft_limit_usd": limit,
        "hard_limit_usd": limit,
        "system_hard_limit_usd": limit,
        "access_until": account.expires_at // 1000 if account.expires_at else FOREVER,
        "plan": {"id": account.plan, "title": account.plan},
        "account_name": account.user_name,
    }


def billing_usage(account: Account) -> dict:
    """OpenAI's /dashboard/billing/usage: what was spent, in hundredths; on the days that were asked
    for, or ever."""
    days = account.days or ()
    spent = account.spent if account.days is None else sum(cost for _, cost in days)
    daily = [
        {
            "timestamp": int(datetime.fromisoformat(f"{day}T00:00+00:00").timestamp()),
            "line_items": [{"name": "calls", "cost": _yuan(cost * 100)}],
        }
        for day, cost in days
    ]
    return {"object": "list", "daily_costs": daily, "total_usage": _yuan(spent * 100)}


def user_self(account: Account) -> dict:
    """new-api's /api/user/self."""
    return {
        "success": True,
        "message": "",
        "data": {
            "id": account.user_id,
            "username": account.user_name,
            "display_name": account.user_name,
            "role": 1,
            "status": 1,
            "group": account.plan,
            "quota": _units(account.left),
            "used_quota": _units(account.spent),
            "request_count": account.calls,
            "grant_tokens": account.grant,
        },
    }


def token_usage(account: Account) -> dict:
    """new-api's /api/usage/token/."""
    return {
        "code": True,
        "message": "ok",
        "data": {
            "object": "token_usage",
            "name": account.token_name,
            "total_used": _units(account.spent_by_token),
            "total_available": _units(account.left),
            "total_granted": _units(account.spent_by_token + account.left),
            "unlimited_quota": False,
            "model_limits": {},
            "model_limits_enabled": False,
            "expires_at": account.expires_at // 1000 if account.expires_at else 0,
        },
    }


def plain_usage(account: Account) -> dict:
    """/v1/usage: what is left, as flat members."""
    return {
        "object": "usage",
        "isValid": True,
        "is_active": True,
        "planName": account.plan,
        "remaining": _yuan(account.left),
        "used": _yuan(account.spent),
        "balance": _yuan(account.wallet),
        "quota": _yuan(account.quota),
        "grant_tokens": account.grant,
        "unit": "CNY",
    }


def key(account: Account) -> dict:
    """OpenRouter's /api/v1/key."""
    return {
        "data": {
            "label": account.token_name,
            "usage": _yuan(account.spent_by_token),
            "limit": _yuan(account.spent_by_token + account.left),
            "limit_remaining": _yuan(account.left),
            "is_free_tier": account.plan == "free",
            "is_provisioning_key": False,
            "rate_limit": {"requests": account.requests_per_minute, "interval": "1m"},
        }
    }


# Address -> shape. The trailing slashes are what the tools ask for.
ADDRESSES: dict[str, Callable[[Account], dict]] = {
    "/dashboard/billing/subscription": subscription,
    "/v1/dashboard/billing/subscription": subscription,
    "/api/v1/dashboard/billing/subscription": subscription,
    "/dashboard/billing/usage": billing_usage,
    "/v1/dashboard/billing/usage": billing_usage,
    "/api/v1/dashboard/billing/usage": billing_usage,
    "/api/user/self": user_self,
    "/api/usage/token": token_usage,
    "/api/usage/token/": token_usage,
    "/v1/usage": plain_usage,
    "/api/v1/usage": plain_usage,
    "/api/v1/key": key,
    "/v1/key": key,
}


def _yuan(nano: int) -> float:
    return round(nano / NANO, 6)


def _units(nano: int) -> int:
    return nano * UNITS_PER_YUAN // NANO
