"""The relay: `serve` is its spine, `Relay` its parts.

Owns the order of things: who asks, may they, what will it cost, who answers, what did it cost. Everything else is
computed by the modules below, which know nothing of Flask; `relay.api` has the addresses.
"""

import threading
import time

from flask import Response, current_app, g, request

from db import Database
from relay import answer, body, catalog, chat, completions, embeddings, gate, messages, responses
from relay.meter import Books, Meter, texts_of
from relay.payload import payload
from relay.upstream import Sender

WIRES = {wire.NAME: wire for wire in (chat, messages, responses, embeddings, completions)}
TEXTS = {name: texts_of(wire.TEXTS) for name, wire in WIRES.items()}

STREAM_HEADERS = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache, no-transform",
                  "X-Accel-Buffering": "no"}       # the last for nginx, which else holds events back for a second
THREADS_KEPT = 16                  # threads that calls never take: the console and health checks stay reachable


class Relay:
    """The parts of a running relay. `configure` takes over new settings; running calls keep what they began with."""

    def __init__(self, settings, db: Database, limiter):
        self.db = db
        self.limiter = limiter
        self.sender = Sender(settings.server.threads)
        self.books = Books(db, settings)
        self.calls_max = max(1, settings.server.threads - THREADS_KEPT)
        self.slots = threading.BoundedSemaphore(self.calls_max)
        self.draining = False
        self.configure(settings)

    def configure(self, settings) -> None:
        """Make these the settings of all calls from now on."""
        self.gate = gate.Gate(self.db, settings, self.limiter)
        self.catalog = catalog.Catalog(settings)
        self.books.configure(settings)
        self.settings = settings


def current_relay() -> Relay:
    """The relay of the current app."""
    return current_app.extensions["relay"]


def serve(wire, caller: gate.Caller) -> Response:
    """Relay one request. Every decision of the relay is in this function; the rest only computes.

    The body is the current request's. Raises RelayError for whatever keeps the call from being answered.
    """
    relay = current_relay()
    meter = Meter(relay.books, caller, wire.NAME, id=g.request_id)
    try:
        given = given_body()
        if wire is chat and responses.looks_like_responses(given):
            meter.wire, wire = responses.NAME, responses           # Cursor's agent mode posts these there
        ask = wire.read(given, **_wanted(wire, "key"))
        meter.asked(ask)
        model, targets = relay.catalog.targets(ask.model, wire.NAME)
        relay.gate.admit(caller, ask, model)
        meter.hold(ask, model)                          # 402 if the pockets do not cover it
        routes = ((target, WIRES[target.wire], payload(wire, ask, target)) for target in targets)
        reply = relay.sender.send(ask, routes, meter, caller_gone())
        spoken = WIRES[reply.target.wire]
        meter.serve_from(reply.target, TEXTS[spoken.NAME])
        turn = answer.Turn(wire, spoken, ask, reply, meter, _wanted(wire, "key", "created_at", "request_id"))
        if not ask.stream:
            return Response(answer.whole(turn), content_type="application/json")
    except BaseException as err:
        meter.close(err)                                # nothing was delivered: the hold goes back
        raise
    response = Response(answer.stream(turn), headers=STREAM_HEADERS)
    response.call_on_close(lambda: answer.finish(turn))   # not in a `finally`: an unstarted generator runs none
    return response


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


def _wanted(wire, *names: str) -> dict:
    """Of what a wire may want to know beside its request, these that it does."""
    if not hasattr(wire, "WANTS"):
        return {}
    known = {"key": current_app.secret_key, "created_at": int(time.time()), "request_id": g.request_id}
    return {name: known[name] for name in names if name in wire.WANTS}
