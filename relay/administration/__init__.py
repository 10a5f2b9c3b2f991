"""The administrators' API under /api/v1/admin: what the console and the command line do, for programs.

Owns its addresses and shapes, one module a topic, whose rows stand in its ADDRESSES. It holds no
rules: they are those of the modules that own the matter, which write the audit trail too. A token
with the scope `admin`, held by an administrator, opens it.

Lists are `{"data": [...], "next": cursor or null}`; `?after=` goes on where a list ended, `?limit=`
says how much is wanted. Money is decimal strings in yuan, times are ISO 8601. A header
`Idempotency-Key` lets what moves money or makes a secret be sent twice and done once. What is wrong
in a request is named in the error's `param`.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec
from flask import Blueprint, Response, request

import billing
from codes import CodesGone
from members.credit_requests import CreditRequestError
from members.tokens import SecretGone
from relay import door, errors
from relay.administration import (
    calls,
    codes,
    configured,
    house,
    identities,
    members,
    money,
    providers,
    teams,
    tokens,
)
from relay.administration.shape import Address, Desk
from relay.spine import Relay

PREFIX = "/api/v1/admin"
PATH_ID_MAX = 2**63 - 1  # the largest integer of SQLite
TOPICS = (members, identities, tokens, money, teams, codes, calls, providers, configured, house)
ADDRESSES: tuple[Address, ...] = tuple(each for topic in TOPICS for each in topic.ADDRESSES)
KNOWN = (
    ValueError,  # AccountError, TokenError, TeamError, ConnectError and UnknownName among them
    billing.LedgerError,
    CreditRequestError,
)
WHERE = re.compile(r" - at `\$\.?([^`]*)`$|unknown field `([^`]*)`$|required field `([^`]*)`")


def register(api: Blueprint, relay_of: Callable[[], Relay]) -> None:
    """Put the addresses on the API's blueprint."""
    for each in ADDRESSES:
        api.add_url_rule(
            PREFIX + each.path,
            f"admin_{each.method}_{each.act.__name__}",
            _guarded(each, relay_of),
            methods=[each.method],
            provide_automatic_options=False,
        )


def _guarded(address: Address, relay_of: Callable[[], Relay]) -> Callable:
    def view(**values: Any) -> Any:
        relay = relay_of()
        caller = door.identify(relay, request.environ)
        if not caller.administers:
            raise errors.ModelNotAllowed(
                "This needs an API key with the scope 'admin', held by an administrator.",
                code="admin_scope_needed",
            )
        for name, value in values.items():
            if isinstance(value, int) and value > PATH_ID_MAX:
                raise errors.NotFound(f"Nothing has the {name} {value}.", code="not_found")
        desk = Desk(relay, caller.user_id, _key(), _query(address), _body(address), _base(relay))
        try:
            answer = address.act(desk, **values)
        except KNOWN as err:
            raise _refusal(err) from err
        if isinstance(answer, Response):
            return answer
        return Response(
            msgspec.json.encode(answer), address.status, content_type="application/json"
        )

    return view


def _key() -> str | None:
    """The Idempotency-Key of a request. Raises BadRequest for one that is too long."""
    key = request.headers.get("Idempotency-Key") or None
    if key is not None and len(key) > billing.KEY_LENGTH_MAX:
        raise errors.BadRequest(
            f"A key has at most {billing.KEY_LENGTH_MAX} characters.", param="Idempotency-Key"
        )
    return key


def _query(address: Address) -> Any:
    """What the address asks for. Raises BadRequest, which names the parameter."""
    if address.query is None:
        return None
    try:
        return msgspec.convert(request.args.to_dict(), address.query, strict=False)
    except msgspec.ValidationError as err:
        raise _unreadable("address", err) from None


def _body(address: Address) -> Any:
    """What the body says. Raises BadRequest, which names the field."""
    if address.body is None:
        return None
    if address.body is bytes:
        return request.get_data()
    try:
        return msgspec.json.decode(request.get_data() or b"{}", type=address.body)
    except (msgspec.ValidationError, msgspec.DecodeError) as err:
        raise _unreadable("body", err) from None


def _unreadable(what: str, err: Exception) -> errors.BadRequest:
    said = str(err)
    named = WHERE.search(said)
    param = next(filter(None, named.groups()), None) if named else None
    return errors.BadRequest(f"The {what} cannot be read: {said}.", param=param)


def _refusal(err: Exception) -> errors.RelayError:
    """What a module would not do, as an error that names the field where that is known."""
    if isinstance(err, billing.Unknown):
        return errors.NotFound(str(err), code="not_found")
    if isinstance(err, billing.KeyReused | SecretGone | CodesGone):
        return errors.BadRequest(str(err), param="Idempotency-Key", code="idempotency_key_used")
    return errors.BadRequest(str(err), param=getattr(err, "field", None), code="refused")


def _base(relay: Relay) -> str:
    return str(relay.settings.site.public_url or request.host_url).rstrip("/")
