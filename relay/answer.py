"""From an upstream's answer to the bytes that the caller reads.

Owns the passing through, the turning into the caller's wire, and the order at the end: the charge
is written before the last bytes leave, so whoever holds a whole answer has been charged for it,
whatever happens next. Whether an answer is good `reader` judges, for every wire; what the caller
reads is what the meter hears.
"""

from collections.abc import Iterator

import msgspec

from relay import errors
from relay.body import Ask
from relay.meter import Meter
from relay.upstream import provider_errors
from relay.upstream.reply import CallerLeft, Reply
from relay.wires import chat, sse
from relay.wires.interface import KEEP_ALIVE, Context, EventInfo, TurnedWire, Wire
from relay.wires.reader import PLAIN_END, Piece, Reader

END: dict = {}  # a stream's end mark among its chunks

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Exchange(msgspec.Struct):
    """One call on its way back: what was asked and answered, and on which wires.

    `turned` is the caller's wire where the upstream speaks chat in its place; else bytes pass.
    """

    wire: Wire
    spoken: Wire
    turned: TurnedWire | None
    ask: Ask
    reply: Reply
    meter: Meter
    context: Context


def whole(turn: Exchange) -> bytes:
    """A plain answer, charged. Where the upstream speaks the caller's wire its bytes pass."""
    reply, meter, ask = turn.reply, turn.meter, turn.ask
    meter.used(reply.usage)
    doc = None
    if "spark_chunks" in reply.target.quirks:
        doc = reply.doc = chat.completed(reply.doc, ask.model)
    if turn.turned:
        doc = turn.turned.from_chat(reply.doc, ask.body, turn.context)
    else:
        doc = turn.wire.complete(reply.doc, ask.body) or doc
    meter.deliver(reply.data)
    meter.state.complete = True
    reply.close()
    meter.close()
    return reply.data if doc is None else _encode(doc)


def stream(turn: Exchange) -> Iterator[bytes]:
    """A streamed answer piece by piece, charged before its last one."""
    reply = turn.reply
    if reply.doc:  # the upstream gave a whole document where a stream was asked for
        reply.held, reply.doc = turn.spoken.as_events(reply.doc), {}
    pieces = (
        turn.turned.stream_from_chat(_heard(turn), turn.ask.body, turn.context)
        if turn.turned
        else _passed(turn)
    )
    try:
        yield from gathered(pieces, reply)
    except CallerLeft:
        turn.meter.state.left = True


def gathered(pieces: Iterator[bytes], reply: Reply) -> Iterator[bytes]:
    """What was made of events that came together goes out together.

    To write a piece costs more than to make it.
    """
    waiting: list[bytes] = []
    for piece in pieces:
        if reply.pause is not None:  # the piece was made of silence
            pause, reply.pause = reply.pause, None
            yield pause
            continue
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
                turn.reply.pauses = False
                _drain(turn)
        turn.reply.close()
    finally:
        turn.meter.close()  # whatever went wrong, no hold stays
        for err in (state.error, turn.reply.problem):
            if err is not None:
                errors.let_go(err)


def _passed(turn: Exchange) -> Iterator[bytes]:
    """The upstream speaks the caller's wire.

    Its bytes pass, but for what would break the caller's client.
    """
    wire, reply, meter, last = turn.wire, turn.reply, turn.meter, turn.wire.DONE
    reading, done = Reader(), False
    for event, chunk in _pieces(turn, reading):
        if chunk is not None:
            reading.note(said=True)
            meter.deliver(chunk)
            yield chunk
            continue
        assert event is not None
        cleaned, data = wire.clean(event), sse.data(event)
        if not data:
            if cleaned:
                yield cleaned  # a comment
            continue
        info = wire.signs(data)
        meter.used(info.usage)
        if info.error:
            reply.problem = provider_errors.read(info.error, key=reply.key)
            break
        mended = _read(reading, info)
        if info.done:
            last, done = cleaned, True
            break
        if info.usage_only and not turn.ask.usage_asked:
            continue
        cleaned = cleaned if mended is None else sse.frame(_encode(mended))
        meter.deliver(cleaned)
        yield cleaned
    try:
        if reply.problem:
            raise reply.problem
        reading.close(PLAIN_END if done else "")
    except errors.RelayError as err:
        yield wire.error_event(_noted(meter, err), meter.id)
        return
    _complete(turn)
    if last:
        yield last


def _read(reading: Reader, info: EventInfo) -> dict | None:
    """Tell the reader what an event tells; the event's chunk if it had to be mended."""
    if info.chunk is not None:
        return reading.mended(info.chunk)
    reading.note(info.content, info.calls, info.finish)
    return None


def _heard(turn: Exchange) -> Iterator[Piece | None]:
    """What a chat stream says, read for the other wires; None in silence.

    When it ends well the call is charged before the last pieces, and so before the caller's final
    events; when it does not, before the error is raised that the caller will read.
    """
    reading, done = Reader(), False
    try:
        for chunk in _chunks(turn):
            done = chunk is END
            yield from () if done else reading.heard(chunk)
        last = reading.close(PLAIN_END if done else "")
    except errors.RelayError as err:
        raise _noted(turn.meter, err)
    _complete(turn)
    yield from last


def _chunks(turn: Exchange) -> Iterator[dict | None]:
    """The parsed chunks of a chat stream, END last if there is an end mark.

    None for a comment: the upstream is alive.

    Raises UpstreamError where it is cut.
    """
    reply, meter = turn.reply, turn.meter
    for event, _ in _pieces(turn):
        data = sse.data(event) if event else None
        if not event or not data:
            yield None
            continue
        if data.strip() == b"[DONE]":
            yield END
            return
        chunk = chat.parsed(data)
        if chunk is None:
            raise provider_errors.read({"message": "not a JSON object"}, key=reply.key)
        if error := chat.error_in(chunk):
            raise provider_errors.read(error, key=reply.key)
        meter.used(chat.usage(chunk))
        meter.deliver(event)
        yield chunk
    if reply.problem:
        raise reply.problem


def _pieces(
    turn: Exchange, reading: Reader | None = None
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """What comes in: (event, None), or (None, chunk) for whole events that can pass unseen; a
    comment in silence.

    Why it ended badly, if it did, stands in `reply.problem`; CallerLeft goes through.
    """
    reply = turn.reply
    mend = _mended(turn.ask.model) if "spark_chunks" in reply.target.quirks else None
    seen = turn.turned or mend is not None or turn.ask.choices > 1  # what must be looked at
    for event in reply.counted(reply.held):
        yield mend(event) if mend else event, None
    reply.held = []
    try:
        for chunk in reply.pieces():
            if chunk is None:
                yield KEEP_ALIVE, None
                continue
            lump = b"" if seen or (reading and reading.odd) else reply.events.whole(chunk)
            if lump and turn.wire.plain(lump):
                reply.events.skip(chunk)
                yield None, lump
                continue
            for event in reply.counted(reply.cut(chunk)):
                yield mend(event) if mend else event, None
    except errors.RelayError as err:
        reply.problem = err
        return
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
            info = turn.spoken.signs(data) if data else None
            if info is not None:
                turn.meter.used(info.usage)
                if info.done or info.error:
                    return
    except CallerLeft:
        pass  # the time is up; what was delivered is estimated
