"""From an upstream's answer to the bytes that the caller reads.

Owns the passing through, the turning into the caller's wire, and the order at the end: the charge is written before
the last bytes leave, so whoever holds a whole answer has been charged for it, whatever happens next. It decides
nothing about how a call ends; it tells the meter what it sees.
"""

from collections.abc import Iterator

import msgspec

from relay import errors, faults, sse
from relay.meter import Meter
from relay.upstream import CallerLeft, Reply

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def whole(wire, spoken, ask, reply: Reply, meter: Meter) -> bytes:
    """A plain answer, charged. `spoken` is the wire of the upstream; where it is the caller's, its bytes pass."""
    meter.used(spoken.usage(reply.doc))
    meter.deliver(reply.data)
    meter.fate.complete = True
    data = reply.data if spoken is wire else _encode(wire.from_chat(reply.doc, ask))
    reply.close()
    meter.close()
    return data


def stream(wire, spoken, ask, reply: Reply, meter: Meter) -> Iterator[bytes]:
    """A streamed answer piece by piece, charged before its last one."""
    if reply.doc is not None:              # the upstream gave a whole document to who asked for a stream
        reply.held, reply.doc = spoken.as_events(reply.doc), None
    pieces = _passed(wire, ask, reply, meter) if spoken is wire else _turned(wire, spoken, ask, reply, meter)
    try:
        yield from pieces
    except CallerLeft:
        meter.fate.left = True


def finish(reply: Reply, spoken, meter: Meter) -> None:
    """After the last byte, or when the caller has left: drain if the policy says so, hang up, close the account."""
    fate = meter.fate
    if not fate.complete and fate.error is None:
        fate.left = True
        if fate.delivered and meter.policy == "drain":
            _drain(reply, spoken, meter)
    reply.close()
    meter.close()


def _passed(wire, ask, reply: Reply, meter: Meter) -> Iterator[bytes]:
    """The upstream speaks the caller's wire: its bytes pass, but for what would break the caller's client."""
    finished = None
    for event, chunk in _pieces(reply, wire):
        if chunk is not None:
            meter.deliver(chunk)
            yield chunk
            continue
        data = sse.data(event)
        if not data:
            if comment := wire.clean(event):
                yield comment
            continue
        told = wire.signs(data)
        meter.used(told.usage)
        finished = told.finish or finished
        if told.error:
            yield _cut(wire, meter, faults.read(told.error))
            return
        if told.done:
            _complete(reply, meter)
            yield wire.clean(event)
            return
        if told.usage_only and not ask.usage_asked:
            continue
        cleaned = wire.clean(event)
        meter.deliver(cleaned)
        yield cleaned
    if finished:
        _complete(reply, meter)
        yield wire.DONE
    else:
        yield _cut(wire, meter, reply.problem or errors.UpstreamError("The provider's answer broke off."))


def _turned(wire, spoken, ask, reply: Reply, meter: Meter) -> Iterator[bytes]:
    """The upstream speaks chat and the caller does not: each chunk is turned into the caller's events."""
    return wire.stream_from_chat(_chunks(spoken, reply, meter), ask)


def _chunks(spoken, reply: Reply, meter: Meter) -> Iterator[dict | errors.RelayError | None]:
    """The parsed chunks of a chat stream; None for a comment (the upstream is alive); an error if it is cut.

    When it ends well the call is charged before the iterator ends, and so before the caller's final events.
    """
    finished = None
    for event, chunk in _pieces(reply, None):
        data = sse.data(event if chunk is None else chunk)
        if not data:
            yield None
            continue
        told = spoken.signs(data)
        meter.used(told.usage)
        finished = told.finish or finished
        if told.error:
            yield _noted(meter, faults.read(told.error))
            return
        if told.done:
            break
        doc = _parsed(data)
        if doc is not None:
            meter.deliver(event)
            yield doc
    if finished:
        _complete(reply, meter)
    else:
        yield _noted(meter, reply.problem or errors.UpstreamError("The provider's answer broke off."))


def _pieces(reply: Reply, wire) -> Iterator[tuple[bytes | None, bytes | None]]:
    """What comes in: (event, None), or (None, chunk) for whole events that can pass unseen.

    Why it ended badly, if it did, stands in `reply.problem`; CallerLeft goes through.
    """
    for event in reply.held:
        yield event, None
    reply.held = []
    while True:
        try:
            chunk = reply.read()
            if not chunk:
                break
            unseen = wire is not None and not reply.events.rest() and wire.plain(chunk)
            found = [] if unseen else reply.cut(chunk)
        except errors.UpstreamError as err:
            reply.problem = err
            return
        if unseen:
            yield None, chunk
        for event in found:
            yield event, None
    if reply.events.rest().strip():
        yield reply.events.rest(), None


def _complete(reply: Reply, meter: Meter) -> None:
    meter.fate.complete = True
    reply.close()
    meter.close()


def _cut(wire, meter: Meter, err: errors.RelayError) -> bytes:
    return wire.error_event(_noted(meter, err), meter.id)


def _noted(meter: Meter, err: errors.RelayError) -> errors.RelayError:
    """Charge what was delivered before the caller reads that there will be no more."""
    meter.close(err)
    return err


def _drain(reply: Reply, spoken, meter: Meter) -> None:
    """Read on for the exact usage. The line's watcher ends it after the upstream's drain_s."""
    try:
        for event, _ in _pieces(reply, None):
            data = sse.data(event)
            told = spoken.signs(data) if data is not None else None
            if told is not None:
                meter.used(told.usage)
                if told.done or told.error:
                    return
    except CallerLeft:
        pass                               # the time is up; what was delivered is estimated


def _parsed(data: bytes) -> dict | None:
    try:
        doc = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return doc if isinstance(doc, dict) else None
