"""What is sent to a target: the caller's own bytes, with only what must differ cut in."""

import msgspec

from relay.body import Ask
from relay.catalog import Target
from relay.upstream import quirks
from relay.wires.interface import Wire
from relay.wires.registry import TURNED

_encode = msgspec.json.Encoder().encode


def payload(wire: Wire, ask: Ask, target: Target) -> bytes:
    """The request body for a target, in the wire that the target speaks.

    Raises BadRequest if it cannot be turned.
    """
    native = target.wire == wire.NAME
    body: dict = ask.body
    if not native:
        body = ask.chat if ask.chat is not None else TURNED[wire.NAME].to_chat(ask.body)
    changes: dict[str, object] = (
        {"model": target.model} if target.model != body.get("model") else {}
    )
    if target.wire == "chat":
        if ask.stream:
            changes["stream_options"] = {
                **(body.get("stream_options") or {}),
                "include_usage": True,
            }
        elif "stream_options" in body:
            changes["stream_options"] = None  # with a plain call several providers refuse it
    if target.quirks:
        changes |= quirks.apply(target.quirks, {**body, **changes}, target.wire)
    if native:
        changes |= wire.changes(ask.body)
    drop = [name for name, value in changes.items() if value is None]
    if native:
        return ask.body.bytes(changes, drop)
    return _encode({name: value for name, value in {**body, **changes}.items() if name not in drop})
