"""Answers of an upstream that speaks Anthropic Messages itself.

Owns what the spine must see in bytes that otherwise pass untouched: content, usage, errors, the
end.
"""

from typing import Any

import msgspec
from msgspec.structs import replace

from billing import Usage
from relay.wires import usage as wire_usage
from relay.wires.interface import EventInfo
from relay.wires.messages.answer import STOP_REASONS, frame
from relay.wires.named import passing
from relay.wires.reader import error_in
from relay.wires.usage import PARTS, natural

FINISHES = {
    reason: finish for finish, reason in reversed(STOP_REASONS.items())
}  # back to chat's word

plain = passing(r"message_stop|\"tool_use\"")

_decode = msgspec.json.Decoder().decode


def usage(doc: dict[str, Any]) -> Usage | None:
    """What a message, or a stream's event, says was used; None if it says nothing.

    Anthropic's input excludes what was read from or written to a cache, ours includes it. A stream
    tells its input at the start, at the end, or at both; a count that is not given is -1 and leaves
    standing what was said before.
    """
    used = doc.get("usage")
    if not isinstance(used, dict):
        message = doc.get("message")
        used = message.get("usage") if isinstance(message, dict) else None
    if not isinstance(used, dict):
        return None
    # At the start of a stream nothing is written yet: what stands there keeps the place.
    output = None if doc.get("type") == "message_start" else used.get("output_tokens")
    told = wire_usage.of(used, None, None, output, explicit=True)
    fresh = max(0, natural(used.get("input_tokens")))
    if doc.get("type") == "message_delta":
        told = _unsaid(told, used)
        # What was not cached goes without saying only where a stream has said it before.
        total = fresh and fresh + sum(max(0, getattr(told, part)) for part in PARTS)
    else:
        total = fresh + sum(getattr(told, part) for part in PARTS)
    # No call has no input: a zero is what some providers write before they have counted.
    return replace(told, input_tokens=total or -1)


def _unsaid(told: Usage, used: dict[str, Any]) -> Usage:
    """The usage with -1 for hits and writes of which the end of a stream says nothing."""
    silent = {}
    if not any(used.get(name) is not None for name in wire_usage.CACHED):
        silent["cached_tokens"] = -1
    if not any(used.get(name) is not None for name in (*wire_usage.CREATED, "cache_creation")):
        silent |= {"cache_write_tokens": -1, "cache_write_1h_tokens": -1}
    return replace(told, **silent)


def signs(data: bytes) -> EventInfo:
    """What an event's data tells."""
    try:
        doc = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return EventInfo()
    return signs_of(doc) if isinstance(doc, dict) else EventInfo()


def signs_of(doc: dict[str, Any]) -> EventInfo:
    """The same of a parsed event, or of a whole message."""
    kind = doc.get("type")
    error = error_in(doc) if kind == "error" or "type" not in doc else None
    if error or kind == "error":
        return EventInfo(error=error or {"message": ""})
    told = EventInfo(usage=usage(doc), done=kind == "message_stop")
    given = doc.get("delta")
    delta = given if isinstance(given, dict) else {}
    if kind == "content_block_delta":
        told.content = any(delta.get(name) for name in ("text", "thinking", "partial_json"))
    elif kind == "content_block_start":
        block = doc.get("content_block")
        told.content, told.calls = _filled(block), _is_call(block)
    elif kind == "message":
        content = doc.get("content")
        blocks = content if isinstance(content, list) else []
        told.content, told.calls = any(map(_filled, blocks)), any(map(_is_call, blocks))
    reason = doc.get("stop_reason") or delta.get("stop_reason")
    if isinstance(reason, str):
        told.finish = FINISHES.get(reason, "stop")
    return told


def as_events(doc: dict[str, Any]) -> list[bytes]:
    """A whole message as the events of a stream, for a caller who asked for one."""
    given = doc.get("content")
    content = (
        [block for block in given if isinstance(block, dict)] if isinstance(given, list) else []
    )
    used = (
        doc.get("usage")
        if isinstance(doc.get("usage"), dict)
        else {"input_tokens": 0, "output_tokens": 0}
    )
    start = doc | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": used}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    for index, block in enumerate(content):
        events += _block_events(index, block)
    stop = {name: doc.get(name) for name in ("stop_reason", "stop_sequence")}
    events += [{"type": "message_delta", "delta": stop, "usage": used}, {"type": "message_stop"}]
    return [frame(event) for event in events]


def _block_events(index: int, block: dict[str, Any]) -> list[dict[str, Any]]:
    """A whole block as a start that holds nothing, the deltas that fill it, and a stop."""
    kind = block.get("type")
    empty, deltas = block, []
    if kind in ("text", "thinking"):
        empty = block | {kind: ""}
        deltas = [{"type": f"{kind}_delta", kind: block.get(kind) or ""}]
    elif kind == "tool_use":
        empty = block | {"input": {}}
        given = msgspec.json.encode(block.get("input") or {}).decode()
        deltas = [{"type": "input_json_delta", "partial_json": given}]
    if kind == "thinking":
        empty = empty | {"signature": ""}
        deltas.append({"type": "signature_delta", "signature": block.get("signature") or ""})
    return [
        {"type": "content_block_start", "index": index, "content_block": empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _is_call(block: object) -> bool:
    return isinstance(block, dict) and block.get("type") == "tool_use" and bool(block.get("name"))


def _filled(block: object) -> bool:
    """True if a block holds something that a person or a program can use."""
    if not isinstance(block, dict):
        return False
    kind = block.get("type")
    return bool(block.get(kind)) if kind in ("text", "thinking") else True
