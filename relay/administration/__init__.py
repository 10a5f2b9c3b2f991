"""The administrators' API under /api/v1/admin: what the console and the command line do, for programs.

Owns its addresses and shapes. It holds no rules: members, tokens, money, caps and plans are done by
the modules that own them, which write the audit trail too. A token with the scope `admin`, held by
an administrator, opens it.

Lists are `{"data": [...], "next": cursor or null}`, newest first but for members; `?after=` goes on
where a list ended. Money is decimal strings in yuan, times are ISO 8601. A header `Idempotency-Key`
lets a credit or a plan be sent twice and done once.
"""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, request

import billing
from members import credit_requests
from relay import door, errors
from relay.administration import calls, members, money, tokens
from relay.spine import Relay

PREFIX = "/api/v1/admin"


def register(api: Blueprint, relay_of: Callable[[], Relay]) -> None:
    """Put the addresses on the API's blueprint."""
    for method, path, act, _body in ADDRESSES:
        api.add_url_rule(
            PREFIX + path,
            f"admin_{method}_{act.__name__}",
            _guarded(act, relay_of),
            methods=[method],
            provide_automatic_options=False,
        )


def _guarded(act: Callable, relay_of: Callable[[], Relay]) -> Callable:
    def view(**values):
        relay = relay_of()
        caller = door.identify(relay, request.environ)
        if not caller.administers:
            raise errors.ModelNotAllowed(
                "This needs an API key with the scope 'admin', held by an administrator.",
                code="admin_scope_needed",
            )
        try:
            return act(relay, caller.user_id, **values)
        except KNOWN as err:
            raise errors.BadRequest(str(err), code="refused") from err

    return view


KNOWN = (
    ValueError,  # AccountError and TokenError among them
    billing.LedgerError,
    credit_requests.CreditRequestError,
)

# Method, address, what is done, and what the body may say.
ADDRESSES: tuple[tuple[str, str, Callable, Any], ...] = (
    ("GET", "/members", members.members, None),
    ("POST", "/members", members.add_member, members.NewMember),
    ("GET", "/members/<int:user_id>", members.member, None),
    ("PATCH", "/members/<int:user_id>", members.change_member, members.MemberChange),
    ("POST", "/members/<int:user_id>/credit", money.give_credit, money.Credit),
    ("PUT", "/members/<int:user_id>/caps", money.put_caps, money.CapsGiven),
    ("POST", "/members/<int:user_id>/plan", money.give_plan, money.PlanGiven),
    ("GET", "/members/<int:user_id>/tokens", tokens.list_tokens, None),
    ("POST", "/members/<int:user_id>/tokens", tokens.add_token, tokens.NewToken),
    ("DELETE", "/members/<int:user_id>/tokens/<int:token_id>", tokens.revoke_token, None),
    ("GET", "/calls", calls.calls, None),
    ("GET", "/usage", calls.usage, None),
    ("GET", "/upstreams", calls.upstreams, None),
    ("GET", "/credit-requests", money.list_credit_requests, None),
    ("POST", "/credit-requests/<int:request_id>", money.decide, money.Decision),
)
