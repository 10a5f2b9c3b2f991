"""The relay: `serve` is its spine, `Relay` its parts.

Owns the order of things: who asks, may they, what will it cost, who answers, what did it cost.
Everything else is computed by the modules below, which know nothing of Flask; `relay.api` has the
addresses.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from flask import Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from db import Database
from relay import answer, body, catalog, errors, gate, metrics
from relay.meter import Meter, Settlement, texts_of
from relay.upstream.payload import payload
from relay.upstream.sender import Dispatch, Dispatcher
from relay.wires import chat, cursor
from relay.wires.interface import Context, Wire
from relay.wires.registry import TURNED, WIRES
from server.notices import Notices

TEXTS = {name: texts_of(wire.TEXT_FIELDS) for name, wire in WIRES.items()}

log = logging.getLogger("relay")

STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}  # the last for nginx, which else holds events back for a second
CONVERSATION_HEADERS = (
    "HTTP_SESSION_ID",
    "HTTP_X_SESSION_ID",
    "HTTP_X_SESSION_AFFINITY",
    "HTTP_X_CLAUDE_CODE_SESSION_ID",
    "HTTP_THREAD_ID",
)  # as WSGI names them
MEMBER_SHARE = 0.75  # of the places for calls that one member may have, where no plan says
THREADS_KEPT = 16  # threads that calls never take: the console and health checks stay reachable


class Relay:
    """The parts of a running relay.

    `configure` takes over new settings; running calls keep what they began with.
    """

    def __init__(self, settings, db: Database, limiter):
        self.db = db
        self.limiter = limiter
        self.sender = Dispatcher(settings.server.threads)
        self.settlement = Settlement(db, settings)
        self.notices = Notices(settings, self.sender.notify)
        self.sender.health.notice = lambda message: self.notices.tell("upstream", message)
        self.calls_max = settings.server.threads - min(THREADS_KEPT, settings.server.threads // 4)
        self.slots = threading.BoundedSemaphore(self.calls_max)
        self.draining = False
        self.at_once = gate.ConcurrencyLimit(max(1, int(self.calls_max * MEMBER_SHARE)))
        self.settlement.on_close = lambda caller, usage: self.gate.spent(
            caller, usage.input_tokens + usage.output_tokens
        )
        self.configure(settings)

    def configure(self, settings) -> None:
        """Make these the settings of all calls from now on."""
        self.gate = gate.Gate(self.db, settings, self.limiter, self.at_once)
        self.catalog = catalog.Catalog(settings)
        self.settlement.configure(settings)
        self.notices.settings = self.settings = settings

    def upstream_report(self) -> list[dict]:
        """The state of all configured upstreams; see `Health.report`.

        One without a key is `keyless`.
        """
        listed = list(self.catalog.upstreams.values())
        return [
            found if each.usable else found | {"state": "keyless"}
            for each, found in zip(listed, self.sender.health.report(listed), strict=True)
        ]

    def enter(self, caller: gate.Caller) -> Callable[[], None]:
        """Take a place for a call; returns what gives it back.

        Raises Unavailable, or RateLimited by who calls.
        """
        if self.draining:
            raise errors.Unavailable(
                "The relay is restarting. Try again soon.", code="restarting", retry_after=2
            )
        if not self.slots.acquire(blocking=False):
            raise errors.Unavailable(
                "The relay has all the calls that it can hold. Try again soon.",
                code="relay_overloaded",
                retry_after=2,
            )
        try:
            entered = self.gate.enter(caller)
        except errors.RelayError:
            self.slots.release()
            raise
        metrics.in_flight.inc()

        def leave() -> None:
            self.gate.leave(entered)
            self.slots.release()
            metrics.in_flight.dec()

        return leave


def current_relay() -> Relay:
    """The relay of the current app."""
    return current_app.extensions["relay"]


def place(wire: Wire, caller: gate.Caller) -> Response:
    """Place the current request as a call of this caller: counted, with a place until its end.

    Raises RelayError for whatever keeps it from being answered; `g.headers` has what is left of the
    window either way.
    """
    relay = current_relay()
    g.headers.update(relay.gate.count(caller).headers())
    leave = relay.enter(caller)
    try:
        response = serve(wire, caller)
    except BaseException:
        leave()
        raise
    response.call_on_close(leave)
    return response


def serve(wire: Wire, caller: gate.Caller) -> Response:
    """Relay one request. Every decision about a call is in this function; the rest only computes.

    The body is the current request's. Raises RelayError for whatever keeps the call from being
    answered.
    """
    relay = current_relay()
    meter = Meter(relay.settlement, caller, wire.NAME, id=g.request_id)
    try:
        body_given = given_body()
        if wire is chat and cursor.recognises(body_given):
            wire = cursor  # its row says chat: that is what it is asked and answered
        context = Context(g.request_id, int(time.time()), seal_key(caller))
        ask = wire.read(body_given, context)
        meter.asked(ask)
        model, targets = relay.catalog.targets(ask.model, meter.wire)
        relay.gate.admit(caller, ask, model)
        meter.hold(ask, model, relay.gate.caps(caller))  # 402 if the pockets do not cover it
        reply = relay.sender.send(_dispatch(relay, wire, ask, meter), targets)
        spoken = WIRES[reply.target.wire]
        meter.serve_from(reply.target, TEXTS[spoken.NAME])
        turned = None if spoken is wire else TURNED[wire.NAME]
        context = replace(context, input_tokens=ask.input_tokens)
        turn = answer.Exchange(wire, spoken, turned, ask, reply, meter, context)
        if not ask.stream:
            return Response(answer.whole(turn), content_type="application/json")
    except BaseException as err:
        meter.close(err)  # nothing was delivered: the hold goes back
        raise
    response = Response(answer.stream(turn), headers=STREAM_HEADERS)
    # Not in a `finally`: a generator that has not begun runs none.
    response.call_on_close(lambda: answer.finish(turn))
    return response


def refusal(err: Exception) -> errors.RelayError:
    """The error to tell a caller: the relay's own, or what stands for Flask's or for a fault of ours."""
    if isinstance(err, errors.RelayError):
        return err
    if isinstance(err, HTTPException):
        known = {404: errors.NotFound, 405: errors.MethodNotAllowed, 413: errors.BodyTooLarge}
        return known.get(err.code or 0, errors.BadRequest)()
    log.exception("a request failed: %s", g.request_id)
    return errors.RelayError()


def _dispatch(relay: Relay, wire: Wire, ask: body.Ask, meter: Meter) -> Dispatch:
    policy = relay.settings.failover
    return Dispatch(
        ask,
        meter,
        caller_gone(),
        lambda target: (WIRES[target.wire], payload(wire, ask, target)),
        conversation(ask, meter.caller),
        request.headers,
        meter.caller.user_id,
        policy.attempts_max,
        policy.total_s,
        policy.wait_s,
    )


def conversation(ask: body.Ask, caller: gate.Caller) -> str | None:
    """What is the same for all calls of one conversation, if the client tells.

    Never the same for two members.
    """
    given = request.environ
    for name in CONVERSATION_HEADERS:
        if given.get(name):
            return f"{caller.user_id}|{given[name][:200]}"
    metadata = ask.body.get("metadata")
    told = (
        ask.body.get("prompt_cache_key"),
        metadata.get("user_id") if isinstance(metadata, dict) else None,
        ask.body.get("user"),
    )
    key = next((value for value in told if isinstance(value, str) and value), None)
    return key and f"{caller.user_id}|{key[:200]}"


def given_body() -> body.Body:
    """The current request's body. Raises BadRequest, BodyTooLarge or UnsupportedEncoding."""
    data = request.get_data(cache=False)
    encoding = request.headers.get("Content-Encoding")
    if encoding:
        data = body.inflate(data, encoding, current_relay().settings.server.inflated_bytes_max)
    return body.parse(data)


def caller_gone():
    """A function that tells, from any thread, whether the current request's caller has left."""
    return request.environ.get("waitress.client_disconnected", lambda: False)


def seal_key(caller: gate.Caller) -> str:
    """What seals the reasoning that a caller carries for us.

    What another member got is not believed.
    """
    return f"{current_app.secret_key!s}|{caller.user_id}"
