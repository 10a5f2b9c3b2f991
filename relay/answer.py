"""From an upstream's answer to the bytes that the caller reads.

Owns the passing through, the turning into the caller's wire, and the order at the end: the charge
is written before the last bytes leave, so whoever holds a whole answer has been charged for it,
whatever happens next. It decides nothing about how a call ends; it tells the meter what it sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from relay import errors
from relay.body import Ask
from relay.meter import Meter
from relay.upstream import provider_errors
from relay.upstream.sender import CallerLeft, Reply
from relay.wires import chat, sse

KEEP_ALIVE = b": keep-alive\n\n"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Exchange:
    """One call on its way back: the caller's wire, the wire that the upstream speaks, and what was
    asked and answered.

    `told` is what the caller's wire wants to know beside the answer (its WANTS).
    """

    wire: object
    spoken: object
    ask: Ask
    reply: Reply
    meter: Meter
    told: dict = field(default_factory=dict)

    def __post_init__(self):
        if "input_tokens" in getattr(self.wire, "WANTS", ()):
            self.told["input_tokens"] = self.ask.input_tokens


def whole(turn: Exchange) -> bytes:
    """A plain answer, charged. Where the upstream speaks the caller's wire its bytes pass."""
    wire, reply, meter = turn.wire, turn.reply, turn.meter
    meter.used(turn.spoken.usage(reply.doc))
    data = reply.data
    if "spark_chunks" in reply.target.quirks:
        reply.doc = chat.completed(reply.doc, turn.ask.model)
        data = _encode(reply.doc)
    if turn.spoken is not wire:
        told = {name: value for name, value in turn.told.items() if name != "request_id"}
        data = _encode(wire.from_chat(reply.doc, turn.ask.body, **told))
    elif hasattr(wire, "complete"):
        data = _encode(wire.complete(reply.doc, turn.ask.body))
    meter.deliver(reply.data)
    meter.state.complete = True
    reply.close()
    meter.close()
    return data


def stream(turn: Exchange) -> Iterator[bytes]:
    """A streamed answer piece by piece, charged before its last one."""
    reply = turn.reply
    if reply.doc is not None:  # the upstream gave a whole document to who asked for a stream
        reply.held, reply.doc = turn.spoken.as_events(reply.doc), None
    pieces = (
        _passed(turn)
        if turn.spoken is turn.wire
        else turn.wire.stream_from_chat(_chunks(turn), turn.ask.body, **turn.told)
    )
    state = turn.meter.state
    try:
        yield from _gathered(pieces, reply)
    except CallerLeft:
        state.left = True
    else:
        if (
            not state.complete and state.error is None
        ):  # the wire would not take the answer for a good one
            state.error = errors.UpstreamError("The provider's answer could not be used.")


def _gathered(pieces: Iterator[bytes], reply: Reply) -> Iterator[bytes]:
    """What was made of events that came together goes out together.

    To write a piece costs more than to make it.
    """
    waiting: list[bytes] = []
    for piece in pieces:
        waiting.append(piece)
        if not reply.pending:
            yield b"".join(waiting)
            waiting.clear()
    if waiting:
        yield b"".join(waiting)


def finish(turn: Exchange) -> None:
    """After the last byte, or when the caller has left.

    Drain if the policy says so, hang up, close the account.
    """
    state = turn.meter.state
    try:
        if not state.complete and state.error is None:
            state.left = True
            if state.delivered and turn.meter.policy == "drain":
                _drain(turn)
        turn.reply.close()
    finally:
        turn.meter.close()  # whatever went wrong, no hold stays


def _passed(turn: Exchange) -> Iterator[bytes]:
    """The upstream speaks the caller's wire.

    Its bytes pass, but for what would break the caller's client.
    """
    wire, reply, meter = turn.wire, turn.reply, turn.meter
    finished = None
    for event, chunk in _pieces(turn):
        if chunk is not None:
            meter.deliver(chunk)
            yield chunk
            continue
        cleaned, data = wire.clean(event), sse.data(event)
        if not data:
            if cleaned:
                yield cleaned  # a comment
            continue
        told = wire.signs(data)
        meter.used(told.usage)
        finished = told.finish or finished
        if told.error:
            yield _cut(wire, meter, provider_errors.read(told.error, key=reply.key))
            return
        if told.done:
            _complete(turn)
            yield cleaned
            return
        if told.usage_only and not turn.ask.usage_asked:
            continue
        meter.deliver(cleaned)
        yield cleaned
    if finished:
        _complete(turn)
        if wire.DONE:
            yield wire.DONE
    else:
        yield _cut(
            wire, meter, reply.problem or errors.UpstreamError("The provider's answer broke off.")
        )


def _chunks(turn: Exchange) -> Iterator[dict | errors.RelayError | None]:
    """The parsed chunks of a chat stream; None for a comment (the upstream is alive); an error if
    it is cut.

    When it ends well the call is charged before the iterator ends, and so before the caller's final
    events.
    """
    reply, meter, finished = turn.reply, turn.meter, None
    for event, _ in _pieces(turn):
        data = sse.data(event)
        if not data:
            yield None
            continue
        told = turn.spoken.signs(data)
        meter.used(told.usage)
        finished = told.finish or finished
        if told.error:
            yield _noted(meter, provider_errors.read(told.error, key=reply.key))
            return
        if told.done:
            break
        meter.deliver(event)
        yield _decode(data)
    if finished:
        _complete(turn)
    else:
        yield _noted(
            meter, reply.problem or errors.UpstreamError("The provider's answer broke off.")
        )


def _pieces(turn: Exchange) -> Iterator[tuple[bytes | None, bytes | None]]:
    """What comes in: (event, None), or (None, chunk) for whole events that can pass unseen; a
    comment in silence.

    Why it ended badly, if it did, stands in `reply.problem`; CallerLeft goes through.
    """
    reply = turn.reply
    mend = _mended(turn.ask.model) if "spark_chunks" in reply.target.quirks else None
    passes = turn.wire.plain if turn.spoken is turn.wire and mend is None else lambda chunk: False
    for event in reply.counted(reply.held):
        yield mend(event) if mend else event, None
    reply.held = []
    while True:
        for _ in reply.silences():
            yield KEEP_ALIVE, None
        try:
            chunk = reply.read()
            if not chunk:
                break
            unseen = reply.events.empty and passes(chunk)
            events = () if unseen else reply.cut(chunk)
        except errors.UpstreamError as err:
            reply.problem = err
            return
        if unseen:
            yield None, chunk
        for event in reply.counted(events):
            yield mend(event) if mend else event, None
    if reply.events.rest().strip():
        yield reply.events.rest(), None


def _mended(model: str):
    """A function that completes the chunk in an event; what is no chunk stays as it is."""

    def mend(event: bytes) -> bytes:
        data = sse.data(event)
        if not data or data.strip() == b"[DONE]":
            return event
        try:
            doc = _decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return event
        return sse.frame(_encode(chat.completed(doc, model))) if isinstance(doc, dict) else event

    return mend


def _complete(turn: Exchange) -> None:
    """The upstream has finished; if the caller had left before, its policy has the word."""
    state = turn.meter.state
    state.left = turn.reply.line.left
    state.complete = not state.left
    turn.meter.close()


def _cut(wire, meter: Meter, err: errors.RelayError) -> bytes:
    return wire.error_event(_noted(meter, err), meter.id)


def _noted(meter: Meter, err: errors.RelayError) -> errors.RelayError:
    """Charge what was delivered before the caller reads that there will be no more."""
    meter.close(err)
    return err


def _drain(turn: Exchange) -> None:
    """Read on for the exact usage. The line's watcher ends it after the upstream's drain_s."""
    try:
        for event, _ in _pieces(turn):
            data = (
                sse.data(event) if event is not None else None
            )  # what passes unseen holds no usage
            told = turn.spoken.signs(data) if data else None
            if told is not None:
                turn.meter.used(told.usage)
                if told.done or told.error:
                    return
    except CallerLeft:
        pass  # the time is up; what was delivered is estimated
