"""The API's addresses under /api/v1 and /v1 that are no calls: models, counts, look-ups, and what
does not exist.

Owns their routing. Calls come in by `relay.door`; how errors look `relay.refusals` knows.
"""

from dataclasses import replace
from datetime import date

from flask import Blueprint, Response, current_app, g, request
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Rule

import billing
from members import tokens
from relay import administration, door, errors, gate, lookups, refusals
from relay.body import Body
from relay.meter import new_id
from relay.spine import Incoming, Relay, seal_key
from relay.wires import messages, responses
from relay.wires.registry import ADDRESSED

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
UNKNOWN = "api.unknown"
CREATED = 1_767_225_600  # 2026-01-01: no provider tells, and tools show or sort by it


def blueprint() -> Blueprint:
    """The API. Every address under its prefixes answers in JSON, those that do not exist too."""
    api = Blueprint("api", __name__)
    api.before_request(_begin)
    api.after_request(_dress)
    api.register_error_handler(Exception, _failed)

    def add(path: str, view, *methods: str) -> None:
        api.add_url_rule(
            path,
            path.replace(".", "_"),
            view,
            methods=methods or ("GET",),
            provide_automatic_options=False,
        )

    for path in door.CALLS:  # for what they say to other methods: a POST never comes to here
        add(path, unknown, "POST")
    for prefix in (*door.PREFIXES, *door.DOUBLED):
        add(prefix + messages.PATH + "/count_tokens", count_tokens, "POST")
        add(prefix + responses.PATH + "/input_tokens", count_input_tokens, "POST")
        add(prefix + "/models", models)
        add(prefix + "/models/<path:model_id>", model)
    administration.register(api, current_relay)
    for path, shape in lookups.ADDRESSES.items():
        add(path, _lookup(shape))
    for path in ("/api/hello", "/api/api/hello"):
        add(path, hello)
    api.record_once(lambda state: _add_unknown(state.app))
    for path in (
        "/api/<path:rest>",
        "/v1/<path:rest>",
    ):  # else Werkzeug finds no address for a websocket
        api.add_url_rule(path, f"{path}:websocket", websocket, methods=("GET",), websocket=True)
    return api


class _Anything(BaseConverter):
    """The rest of an address: `path`, but it may be empty or begin with slashes too."""

    regex = ".*?"
    part_isolating = False
    weight = 300


def _add_unknown(app) -> None:
    """Everywhere under the API's prefixes, and where a wire's address would be without one, an
    answer in JSON.

    Flask's own way of adding an address cannot say "any method at all".
    """
    app.view_functions[UNKNOWN] = unknown
    app.url_map.converters["anything"] = _Anything
    under = ("/api", "/v1", "/api/<anything:rest>", "/v1/<anything:rest>")
    for path in (*under, *(wire.PATH for wire in ADDRESSED)):
        app.url_map.add(Rule(path, endpoint=UNKNOWN, merge_slashes=False))


def current_relay() -> Relay:
    """The relay of the current app."""
    return current_app.extensions["relay"]


def identify() -> gate.Caller:
    """The caller of the current request. Raises NotAuthenticated or RateLimited."""
    return door.identify(current_relay(), request.environ)


def given_body() -> Body:
    """The current request's body. Raises BadRequest, BodyTooLarge or UnsupportedEncoding."""
    return Incoming(request.environ, g.request_id).body(current_relay().settings)


def models() -> dict:
    """The models that this token may use, in the shape of who asks."""
    caller = identify()
    listed = [each for each in current_relay().catalog.models.values() if _may_use(caller, each)]
    if "anthropic-version" in request.headers:
        others = [replace(each, id=name) for each in listed for name in each.other_names]
        return messages.models([*listed, *others], request.args)
    return {"object": "list", "data": [_listed(each) for each in listed]}


def model(model_id: str) -> dict:
    """One of them."""
    caller = identify()
    found = current_relay().catalog.find(model_id)
    if found is None or not _may_use(caller, found):
        raise errors.ModelNotFound(model_id)
    named = replace(found, id=model_id)  # by the name that was asked for
    if "anthropic-version" in request.headers:
        return messages.model(named)
    return _listed(named)


def _may_use(caller: gate.Caller, found) -> bool:
    return caller.models is None or found.id in caller.models


def _listed(found) -> dict:
    return {
        "id": found.id,
        "object": "model",
        "created": CREATED,
        "owned_by": found.provider,
        "name": found.title,
        "context_length": found.context,
        "max_output_tokens": found.output_max,
        "available": found.available,
        "architecture": {"input_modalities": ["text", "image"] if found.images else ["text"]},
    }


def count_tokens() -> dict:
    """Anthropic's count of a request's input, estimated here.

    Free of charge and outside the rate limit.
    """
    identify()
    return {"input_tokens": messages.count_tokens(given_body())}


def count_input_tokens() -> dict:
    """The same in OpenAI's words, for a Responses request."""
    caller = identify()
    return responses.count_tokens(given_body(), seal_key(current_relay(), caller))


def websocket(rest: str) -> Response:
    """Codex first tries a websocket, and posts at once when told that there is none."""
    raise errors.UpgradeRequired()


def hello() -> dict:
    """Claude Code looks here whether anybody is at home."""
    return {"status": "ok"}


def _lookup(shape):
    def lookup() -> dict:
        caller = identify()
        return shape(account_of(caller))

    return lookup


def _days_asked(caller: gate.Caller) -> tuple[tuple[str, int], ...] | None:
    """What was spent on the days from `start_date` to `end_date` of the query; None without."""
    asked = [request.args.get(name, "") for name in ("start_date", "end_date")]
    if not any(asked):
        return None
    try:
        first, last = (str(date.fromisoformat(each[:10])) if each else "" for each in asked)
    except ValueError:
        raise errors.BadRequest("Dates are written like 2026-11-30.", param="start_date") from None
    spent = tokens.spent_by_day(current_relay().db, caller.user_id, first, last or "9999-12-31")
    return tuple(spent)


def account_of(caller: gate.Caller) -> lookups.Account:
    """What a caller has and has used, for the balance look-ups."""
    db = current_relay().db
    has, held = billing.balances(db, caller.user_id).values()
    used = tokens.used(db, caller.user_id, caller.token_id)
    return lookups.Account(
        user_id=caller.user_id,
        user_name=caller.user_name,
        token_name=caller.token_name,
        plan=caller.plan,
        requests_per_minute=caller.requests_per_minute,
        grant=has.grant - held.grant,
        quota=has.quota - held.quota,
        wallet=has.wallet - held.wallet,
        team=billing.available(db.read(), caller.user_id, billing.now_ms()).team,
        spent=used.cost,
        spent_by_token=used.cost_by_token,
        calls=used.calls,
        expires_at=used.expires_at,
        days=_days_asked(caller),
        grant_worth=max(0, has.grant - held.grant) * _least_price(caller),
        room=_room(caller),
    )


def _room(caller: gate.Caller) -> int | None:
    """What the caps of a caller's token, the member and the site leave, in nano-yuan; None: no cap."""
    db, caps = current_relay().db, current_relay().gate.caps(caller)
    left = (
        cap.amount - billing.spent(db.read(), cap.scope, cap.since, caller.user_id, caller.token_id)
        for cap in caps
    )
    return min((max(0, each) for each in left), default=None)


def _least_price(caller: gate.Caller) -> int:
    """What a token of input costs at least that a grant would pay for, in nano-yuan."""
    now = billing.now_ms()
    prices = [
        each.price(caller.plan, now).input
        for each in current_relay().catalog.models.values()
        if each.available and _may_use(caller, each)
    ]
    return min((price for price in prices if price > 0), default=0)


def unknown(rest: str = ""):
    """No such address, or not for this method; leave for browsers to ask elsewhere.

    An address with slashes too many, which comes of base addresses that end in one, is served as
    what it means.
    """
    adapter = current_app.create_url_adapter(request)
    meant = door.meant(request.path)
    endpoint, values = _found(adapter, meant, request.method)
    if meant != request.path and endpoint != UNKNOWN:
        return current_app.view_functions[endpoint](**values)
    allowed = sorted(method for method in METHODS if _found(adapter, meant, method)[0] != UNKNOWN)
    if request.method == "OPTIONS":
        return Response(headers={"Allow": ", ".join(allowed)})
    if allowed:
        raise errors.MethodNotAllowed(headers={"Allow": ", ".join(allowed)})
    raise errors.NotFound(
        f"There is nothing at {request.path[:200]}. The API's base address ends in /api/v1."
    )


def _found(adapter, path: str, method: str) -> tuple[str, dict]:
    """The endpoint of an address and what its path holds for it."""
    try:
        return adapter.match(path, method=method)
    except HTTPException:
        return UNKNOWN, {}


def _begin() -> None:
    g.request_id = new_id()


def _dress(response: Response) -> Response:
    """The headers of every API answer; a preflight's, too."""
    headers = response.headers
    headers.update(refusals.dressed({}, request.environ, g.request_id))
    if request.method == "OPTIONS":
        headers["Access-Control-Allow-Methods"] = headers.get("Allow", "GET, POST, OPTIONS")
        headers["Access-Control-Allow-Headers"] = request.headers.get(
            "Access-Control-Request-Headers", "authorization, content-type, x-api-key"
        )
        headers["Access-Control-Max-Age"] = "86400"
    return response


def _failed(err: Exception) -> Response:
    """Any error in the shape of the address's wire."""
    error = refusals.error_of(err, g.request_id)
    if not request.path.startswith(administration.PREFIX):  # an administrator is whom to ask
        site = current_relay().settings.site
        error.mention(site.contact, site.public_url)
    status, headers, data = refusals.answer(error, request.environ, g.request_id, {})
    return Response(data, status, headers)
