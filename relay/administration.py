"""The administrators' API under /api/v1/admin: what the console and the command line do, for programs.

Owns its addresses and shapes. It holds no rules: members, tokens, money, caps and plans are done by
the modules that own them, which write the audit trail too. A token with the scope `admin`, held by
an administrator, opens it.

Lists are `{"data": [...], "next": cursor or null}`, newest first but for members; `?after=` goes on
where a list ended. Money is decimal strings in yuan, times are ISO 8601. A header `Idempotency-Key`
lets a credit or a plan be sent twice and done once.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from flask import Blueprint, request

import billing
import plans
from members import accounts, audit, call_rows, caps, credit_requests, tokens
from relay import door, errors
from relay.spine import Relay

PREFIX = "/api/v1/admin"
PAGE, PAGE_MAX = 100, 1000


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    """What a request may say; everything else is refused by name."""


class NewMember(_Asked):
    name: str
    password: str
    role: str = "member"


class MemberChange(_Asked):
    disabled: bool | None = None
    role: str | None = None
    password: str | None = None


class Credit(_Asked):
    wallet: str | None = None
    grant: int | None = None
    note: str | None = None


class CapsGiven(_Asked):
    day: str | None = None
    month: str | None = None
    models: list[str] | None = None


class PlanGiven(_Asked):
    plan: str
    days: int | None = None
    quota: str | None = None
    renew: bool = False
    monthly: bool = False


class NewToken(_Asked):
    name: str
    models: list[str] = []
    rpm: int | None = None
    tpm: int | None = None
    calls_at_once: int | None = None
    cap_day: str | None = None
    cap_month: str | None = None
    addresses: list[str] = []
    expires_at: str | None = None


class Decision(_Asked):
    amount: str | None = None
    decline: bool = False
    reason: str = ""


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


def _read(kind: Any) -> Any:
    try:
        return msgspec.json.decode(request.get_data() or b"{}", type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError) as err:
        raise errors.BadRequest(f"The body cannot be read: {err}.") from None


def _key() -> str | None:
    return request.headers.get("Idempotency-Key", "")[: billing.KEY_LENGTH_MAX] or None


def _limit() -> int:
    return min(max(1, request.args.get("limit", PAGE, int)), PAGE_MAX)


def _listed(rows: list[dict], cursor: str, limit: int) -> dict:
    return {"data": rows, "next": rows[-1][cursor] if len(rows) == limit else None}


def _when(at: int | None) -> str | None:
    return None if at is None else f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _yuan(nano: int | None) -> str | None:
    return None if nano is None else billing.yuan(nano)


def _nano(text: str | None) -> int | None:
    return None if text is None else billing.nano(text)


def _of(relay: Relay, user_id: int) -> accounts.Member:
    found = accounts.find(relay.db, user_id)
    if found is None:
        raise errors.NotFound("There is no such member.")
    return found


# ---- members


def _member(relay: Relay, who: accounts.Member) -> dict:
    has, held = billing.balances(relay.db, who.id).values()
    bound = caps.of(relay.db, who.id)
    names = [each.plan for each in plans.active(relay.db, who.id)]
    return {
        "id": who.id,
        "name": who.name,
        "role": who.role,
        "plan": relay.gate.plan_in_force(names),
        "disabled": who.disabled,
        "created_at": _when(who.created_at),
        "balance": _pockets(has),
        "held": _pockets(held),
        "caps": {"day": _yuan(bound.day), "month": _yuan(bound.month), "models": bound.models},
    }


def _pockets(pockets: billing.Pockets) -> dict:
    return {
        "grant": pockets.grant,
        "quota": billing.yuan(pockets.quota),
        "wallet": billing.yuan(pockets.wallet),
    }


def members(relay: Relay, by: int) -> dict:
    """All members, by id; `?name=` those whose name has this in it."""
    limit = _limit()
    found = accounts.members(
        relay.db,
        request.args.get("name", ""),
        after=request.args.get("after", 0, int),
        limit=limit,
    )
    return _listed([_member(relay, each) for each in found], "id", limit)


def add_member(relay: Relay, by: int) -> tuple[dict, int]:
    """A new member."""
    asked = _read(NewMember)
    who = accounts.add(relay.db, asked.name, asked.password, role=asked.role, by=by)
    return _member(relay, who), 201


def member(relay: Relay, by: int, user_id: int) -> dict:
    """One member, with pockets, plan and caps."""
    return _member(relay, _of(relay, user_id))


def change_member(relay: Relay, by: int, user_id: int) -> dict:
    """Disable, enable, another role, another password."""
    who, asked = _of(relay, user_id), _read(MemberChange)
    if asked.role is not None:
        accounts.set_role(relay.db, who.id, asked.role, by=by)
    if asked.password is not None:
        accounts.set_password(relay.db, who.id, asked.password, by=by)
    if asked.disabled is not None:
        (accounts.disable if asked.disabled else accounts.enable)(relay.db, who.id, by=by)
    return _member(relay, _of(relay, user_id))


def give_credit(relay: Relay, by: int, user_id: int) -> dict:
    """Put money or LLM tokens into the pockets, or take them out; once for each Idempotency-Key."""
    who, asked = _of(relay, user_id), _read(Credit)
    given = {"wallet": _nano(asked.wallet), "grant": asked.grant}
    amounts = {pocket: amount for pocket, amount in given.items() if amount}
    if not amounts:
        raise errors.BadRequest("Give 'wallet' or 'grant'.", param="wallet")
    billing.credit_all(relay.db, who.id, amounts, note=asked.note, by=by, key=_key())
    return _member(relay, who)


def put_caps(relay: Relay, by: int, user_id: int) -> dict:
    """Bind a member to amounts and models; what is left out is lifted."""
    who, asked = _of(relay, user_id), _read(CapsGiven)
    models = tuple(asked.models or ())
    if unknown := sorted(set(models) - {each.id for each in relay.settings.models}):
        raise errors.BadRequest(f"There is no model {', '.join(unknown)}.", param="models")
    bound = caps.Caps(_nano(asked.day), _nano(asked.month), models or None)
    caps.put(relay.db, who.id, bound, by=by)
    return _member(relay, who)


def give_plan(relay: Relay, by: int, user_id: int) -> dict:
    """Give a plan without payment; once for each Idempotency-Key. `free` ends all plans."""
    who, asked = _of(relay, user_id), _read(PlanGiven)
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
            key=_key(),
        )
    return _member(relay, who)


# ---- tokens


def _token(row: dict) -> dict:
    times = ("created_at", "expires_at", "revoked_at", "last_used_at")
    money = ("cap_day", "cap_month", "cost")
    return {
        name: _when(value) if name in times else _yuan(value) if name in money else value
        for name, value in row.items()
    }


def list_tokens(relay: Relay, by: int, user_id: int) -> dict:
    """A member's tokens, newest first, with what was used of them."""
    found = tokens.tokens(relay.db, _of(relay, user_id).id)
    return {"data": [_token(each) for each in found], "next": None}


def add_token(relay: Relay, by: int, user_id: int) -> tuple[dict, int]:
    """A new token for calls. Its secret is in this answer and never again."""
    who, asked = _of(relay, user_id), _read(NewToken)
    if unknown := sorted(set(asked.models) - {each.id for each in relay.settings.models}):
        raise errors.BadRequest(f"There is no model {', '.join(unknown)}.", param="models")
    limits = msgspec.structs.asdict(asked)
    del limits["name"]
    limits |= {name: _nano(limits[name]) for name in ("cap_day", "cap_month")}
    if asked.expires_at is not None:
        ends = datetime.fromisoformat(asked.expires_at)
        ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
        limits["expires_at"] = int(ends.timestamp() * 1000)
    most = relay.settings.accounts.tokens_max
    token_id, raw = tokens.mint(relay.db, who.id, asked.name, tokens_max=most, **limits)
    return {"id": token_id, "name": asked.name, "token": raw}, 201


def revoke_token(relay: Relay, by: int, user_id: int, token_id: int) -> dict:
    """The next request with it is refused."""
    if not tokens.revoke(relay.db, token_id, _of(relay, user_id).id):
        raise errors.NotFound("There is no such API key that is not revoked.")
    relay.db.write(audit.record, by, "token.revoke", user_id, {"token": token_id})
    return {"id": token_id, "revoked": True}


# ---- what happened


def calls(relay: Relay, by: int) -> dict:
    """Calls, newest first: `?member=ID`, `?since=` and `?until=` days, `?model=`, `?outcome=`."""
    args, limit = request.args, _limit()
    asked = call_rows.CallFilter(
        args.get("member", None, int),
        model=args.get("model"),
        outcome=args.get("outcome"),
        since=_day(args.get("since")),
        until=_day(args.get("until")),
    )
    rows = call_rows.listed(relay.db, asked, limit, args.get("after"))
    return _listed([_call(each) for each in rows], "id", limit)


def _call(row: dict) -> dict:
    money = ("cost", "upstream_cost")
    row |= {name: _yuan(row[name]) for name in money}
    return row | {
        "created_at": _when(row["created_at"]),
        "charged": _pockets(billing.Pockets(**row["charged"])),
    }


def _day(text: str | None) -> int | None:
    """The first moment (ms, UTC) of a day."""
    if not text:
        return None
    begun = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
    return int(begun.timestamp() * 1000)


def usage(relay: Relay, by: int) -> dict:
    """What was used from `?from=` to `?to=` (days of the site, both included), by member and model."""
    if not all(map(request.args.get, ("from", "to"))):
        raise errors.BadRequest("Give 'from' and 'to', days like 2026-11-30.", param="from")
    first, last = (str(date.fromisoformat(request.args[name])) for name in ("from", "to"))
    rows = tokens.used_between(relay.db, first, last)
    money = [{name: _yuan(row[name]) for name in ("cost", "paid")} for row in rows]
    return {"data": [row | each for row, each in zip(rows, money, strict=True)], "next": None}


def upstreams(relay: Relay, by: int) -> dict:
    """How the providers are."""
    return {"data": relay.upstream_report(), "next": None}


# ---- requests for credit


def _credit_request(each: credit_requests.CreditRequest) -> dict:
    times = {name: _when(getattr(each, name)) for name in ("created_at", "decided_at")}
    return asdict(each) | times | {"amount": _yuan(each.amount), "given": _yuan(each.given)}


def list_credit_requests(relay: Relay, by: int) -> dict:
    """Those that nobody has decided, the oldest first."""
    found = credit_requests.waiting(relay.db)
    return {"data": [_credit_request(each) for each in found], "next": None}


def decide(relay: Relay, by: int, request_id: int) -> dict:
    """Grant a request with `amount`, or decline it."""
    asked = _read(Decision)
    if asked.decline == (asked.amount is not None):
        raise errors.BadRequest("Give 'amount', or 'decline': true.", param="amount")
    given = 0 if asked.decline else _nano(asked.amount) or 0
    if not asked.decline and given <= 0:
        raise errors.BadRequest("An amount such as 10 or 10.50.", param="amount")
    made = credit_requests.decide(relay.db, request_id, given, asked.reason, by=by)
    return _credit_request(made)


# Method, address, what is done, and what the body may say.
ADDRESSES: tuple[tuple[str, str, Callable, Any], ...] = (
    ("GET", "/members", members, None),
    ("POST", "/members", add_member, NewMember),
    ("GET", "/members/<int:user_id>", member, None),
    ("PATCH", "/members/<int:user_id>", change_member, MemberChange),
    ("POST", "/members/<int:user_id>/credit", give_credit, Credit),
    ("PUT", "/members/<int:user_id>/caps", put_caps, CapsGiven),
    ("POST", "/members/<int:user_id>/plan", give_plan, PlanGiven),
    ("GET", "/members/<int:user_id>/tokens", list_tokens, None),
    ("POST", "/members/<int:user_id>/tokens", add_token, NewToken),
    ("DELETE", "/members/<int:user_id>/tokens/<int:token_id>", revoke_token, None),
    ("GET", "/calls", calls, None),
    ("GET", "/usage", usage, None),
    ("GET", "/upstreams", upstreams, None),
    ("GET", "/credit-requests", list_credit_requests, None),
    ("POST", "/credit-requests/<int:request_id>", decide, Decision),
)
