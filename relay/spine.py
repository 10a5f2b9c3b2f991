"""The relay: `serve` is its spine, `Relay` its parts.

Owns the order of things: who asks, may they, what will it cost, who answers, what did it cost.
Everything else is computed by the modules below. None of it knows Flask: calls come in by
`relay.door` and by the console's model test, and `relay.api` has the other addresses.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from msgspec.structs import replace
from werkzeug.datastructures import EnvironHeaders

from db import Database, StorageError
from members.turned_away import TurnedAway
from relay import answer, body, catalog, errors, gate
from relay.meter import Meter, new_id, texts_of
from relay.settlement import Settlement
from relay.upstream.payload import spoken
from relay.upstream.sender import Dispatch, Dispatcher
from relay.wires import chat, cursor
from relay.wires.interface import Context, Wire
from relay.wires.registry import TURNED, WIRES
from server.clock import Clock
from server.notices import Notices

TEXTS = {name: texts_of(wire.TEXT_FIELDS) for name, wire in WIRES.items()}

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
        self.secret: Any = b""  # the app's, which seals what callers carry for us
        self.limiter = limiter
        self.sender = Dispatcher(settings.server.threads)
        self.settlement = Settlement(db, settings)
        self.notices = Notices(settings, self.sender.notify)
        self.clock = Clock()
        self.sender.health.notice = lambda message: self.notices.tell("upstream", message)
        self.calls_max = settings.server.threads - min(THREADS_KEPT, settings.server.threads // 4)
        self.draining = False
        self.in_order = True  # False: what a start has to write is not written yet
        self.out_of_order = ""  # why not
        self.turned_away = TurnedAway()
        # The server's own count, once there is one: (that serve somebody, that there may be).
        self.threads: Callable[[], tuple[int, int]] = lambda: (0, settings.server.threads)
        share = max(1, int(self.calls_max * MEMBER_SHARE))
        self.at_once = gate.ConcurrencyLimit(share, self.calls_max)
        self.settlement.on_close = lambda caller, usage: self.gate.spent(
            caller, usage.input_tokens + usage.output_tokens
        )
        self.configure(settings)

    def configure(self, settings) -> None:
        """Make these the settings of all calls from now on."""
        self.gate = gate.Gate(self.db, settings, self.limiter, self.at_once, self.turned_away)
        self.catalog = catalog.Catalog(settings)
        self.settlement.configure(settings)
        self.notices.settings = self.settings = settings

    @property
    def disk_problem(self) -> str | None:
        """Why calls cannot be recorded, and so are refused; None if they can."""
        return self.db.problem or (None if self.in_order else self.out_of_order)

    def close(self) -> None:
        """Write what is only counted yet, and let the database go."""
        with contextlib.suppress(StorageError):
            self.turned_away.write(self.db)
        self.settlement.end()
        self.db.close()

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
            raise errors.Restarting(retry_after=2)
        if not self.in_order:
            raise errors.StorageFull(retry_after=5)
        return self.gate.enter(caller)


class Incoming(msgspec.Struct):
    """A call's request, whoever took it in: WSGI's environ, its id, and the headers that its answer
    gets, whatever that will be."""

    environ: dict
    id: str = msgspec.field(default_factory=lambda: new_id())
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    pauses: bool = False  # whoever serves it waits for an answer's pieces without a thread

    def body(self, settings) -> body.Body:
        """Raises BadRequest, BodyTooLarge or UnsupportedEncoding."""
        length = int(self.environ.get("CONTENT_LENGTH") or 0)
        if length > settings.server.body_bytes_max:
            raise errors.BodyTooLarge()
        given = self.environ["wsgi.input"]
        with contextlib.closing(given):  # else it is kept for as long as the answer takes
            data = given.read(length)
        encoding = self.environ.get("HTTP_CONTENT_ENCODING")
        if encoding:
            data = body.inflate(data, encoding, settings.server.inflated_bytes_max)
        return body.parse(data)

    def caller_gone(self) -> Callable[[], bool]:
        """A function that tells, from any thread, whether the caller has left."""
        return self.environ.get("waitress.client_disconnected", lambda: False)


class Answer:
    """An answer on its way to the caller: its headers and its pieces.

    `close` ends the call; it must be called, whether or not anything was read, and a second time
    does nothing.
    """

    def __init__(
        self,
        headers: dict[str, str],
        pieces: Iterable[bytes],
        end: Callable[[], None] = lambda: None,
    ):
        self.headers, self._pieces, self._end = headers, pieces, end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        end, self._end = self._end, lambda: None
        end()


def place(relay: Relay, wire: Wire, caller: gate.Caller, incoming: Incoming) -> Answer:
    """Place a request as a call of this caller: counted, with a place until its end.

    Raises RelayError for whatever keeps it from being answered; `incoming.headers` has what is left
    of the window either way.
    """
    incoming.headers.update(relay.gate.count(caller).headers())
    return serve(relay, wire, caller, incoming, relay.enter(caller))


def serve(
    relay: Relay,
    wire: Wire,
    caller: gate.Caller,
    incoming: Incoming,
    leave: Callable[[], None],
) -> Answer:
    """Relay one request. Every decision about a call is in this function; the rest only computes.

    `leave` gives its place back. The meter does that when it closes, which is before the last bytes
    go out: whoever holds a whole answer may call again.
    Raises RelayError for whatever keeps the call from being answered.
    """
    meter = Meter(relay.settlement, caller, wire.NAME, id=incoming.id, leave=leave)
    reply = None
    try:
        body_given = incoming.body(relay.settings)
        if wire is chat and cursor.recognises(body_given):
            wire = cursor  # its row says chat: that is what it is asked and answered
        context = Context(incoming.id, int(time.time()), seal_key(relay, caller))
        ask = wire.read(body_given, context)
        meter.asked(ask)
        model, targets = relay.catalog.targets(ask.model, meter.wire)
        relay.gate.admit(caller, ask, model)
        meter.hold(ask, model, relay.gate.caps(caller))  # 402 if the pockets do not cover it
        reply = relay.sender.send(_dispatch(relay, wire, ask, meter, incoming), targets)
        spoken = WIRES[reply.target.wire]
        reply.pauses = incoming.pauses
        meter.serve_from(reply.target, TEXTS[spoken.NAME])
        turned = None if spoken is wire else TURNED[wire.NAME]
        context = replace(context, input_tokens=ask.input_tokens)
        turn = answer.Exchange(wire, spoken, turned, ask, reply, meter, context)
        if not ask.stream:
            data = answer.whole(turn)
            sized = {"Content-Type": "application/json", "Content-Length": str(len(data))}
            return Answer(sized, (data,))
    except BaseException as err:
        try:
            meter.close(err)  # nothing was delivered: the hold goes back
        finally:
            if reply is not None:  # it came, and was of no use
                reply.close()
        raise
    # `finish` is no `finally` of the stream: a generator that has not begun runs none.
    return Answer(dict(STREAM_HEADERS), answer.stream(turn), lambda: answer.finish(turn))


def _dispatch(
    relay: Relay, wire: Wire, ask: body.Ask, meter: Meter, incoming: Incoming
) -> Dispatch:
    policy = relay.settings.failover
    return Dispatch(
        ask,
        meter,
        incoming.caller_gone(),
        lambda target: spoken(wire, ask, target),
        conversation(ask, meter.caller, incoming.environ),
        EnvironHeaders(incoming.environ),
        meter.caller.user_id,
        lambda: relay.gate.disabled(meter.caller.user_id),
        lambda target, data: meter.deliver_unread(target, TEXTS[target.wire], data),
        policy.attempts_max,
        policy.total_s,
        policy.wait_s,
        relay.settings.server.answer_s_max,
    )


def conversation(ask: body.Ask, caller: gate.Caller, given: dict) -> str | None:
    """What is the same for all calls of one conversation, if the client tells.

    `given` is WSGI's environ. Never the same for two members.
    """
    for name in CONVERSATION_HEADERS:
        if given.get(name):
            return f"{caller.user_id}|{given[name][:200]}"
    metadata = ask.body.get("metadata")
    names = (
        ask.body.get("prompt_cache_key"),
        metadata.get("user_id") if isinstance(metadata, dict) else None,
        ask.body.get("user"),
    )
    key = next((value for value in names if isinstance(value, str) and value), None)
    return key and f"{caller.user_id}|{key[:200]}"


def seal_key(relay: Relay, caller: gate.Caller) -> str:
    """What seals the reasoning that a caller carries for us.

    What another member got is not believed.
    """
    return f"{relay.secret!s}|{caller.user_id}"
