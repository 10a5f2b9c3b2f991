"""Answers of an upstream that speaks Responses itself.

Owns what the spine must see in bytes that otherwise pass untouched: content, usage, errors, the
end.
"""

from typing import Any

import msgspec

from billing import Usage
from relay.wires import sse
from relay.wires import usage as wire_usage
from relay.wires.interface import EventInfo
from relay.wires.named import passing
from relay.wires.reader import error_in

ENDS = ("response.completed", "response.incomplete", "response.failed")

plain = passing(r"response\.(?:completed|incomplete|failed)")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def usage(doc: dict[str, Any]) -> Usage | None:
    """What a Response, or the event that carries one, says was used.

    Input includes what was cached.
    """
    response = doc.get("response")
    inner = response if isinstance(response, dict) else doc
    used = inner.get("usage")
    if not isinstance(used, dict):
        return None
    return wire_usage.of(
        used, used.get("input_tokens_details"), used.get("input_tokens"), used.get("output_tokens")
    )


def signs(data: bytes) -> EventInfo:
    """What an event's data tells."""
    if data.strip() == b"[DONE]":
        return EventInfo()
    try:
        doc = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return EventInfo()
    if not isinstance(doc, dict):
        return EventInfo()
    kind = doc.get("type")
    if isinstance(doc.get("response"), dict) and kind in ENDS:
        told = signs_of(doc["response"])
        told.done = told.error is None
        return told
    error = error_in(doc) if kind == "error" or "type" not in doc else None
    if error or kind == "error":
        return EventInfo(error=error or {"message": ""})
    return EventInfo(
        content=kind == "response.output_item.done" or bool(doc.get("delta")), usage=usage(doc)
    )


def signs_of(doc: dict[str, Any]) -> EventInfo:
    """The same of a whole Response."""
    status, error = doc.get("status"), error_in(doc)
    told = EventInfo(content=bool(doc.get("output")), usage=usage(doc))
    if error or status == "failed":
        told.error = error or {"message": ""}
    else:
        told.finish = "length" if status == "incomplete" else "stop"
    return told


def as_events(doc: dict[str, Any]) -> list[bytes]:
    """A whole Response as the events of a stream, for a caller who asked for one."""
    given = doc.get("output")
    output = given if isinstance(given, list) else []
    events = [
        (
            "response.created",
            {"response": doc | {"status": "in_progress", "output": [], "usage": None}},
        )
    ]
    for index, item in enumerate(output):
        if isinstance(item, dict):
            events += _item_events(index, item)
    status = doc.get("status") if doc.get("status") in ("incomplete", "failed") else "completed"
    events.append((f"response.{status}", {"response": doc}))
    return [
        sse.frame(_encode({"type": kind, "sequence_number": number, **fields}), kind)
        for number, (kind, fields) in enumerate(events)
    ]


def _item_events(index: int, item: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """An item as a start that holds nothing, the deltas that fill it, and an end."""
    at = {"item_id": item.get("id"), "output_index": index}
    given = item.get("content")
    content = given if item.get("type") == "message" and isinstance(given, list) else []
    arguments = item.get("arguments") if item.get("type") == "function_call" else None
    empty: dict[str, Any] = {"content": []} if content else {"arguments": ""} if arguments else {}
    events = [("response.output_item.added", {"output_index": index, "item": item | empty})]
    for number, part in enumerate(content):
        if (
            isinstance(part, dict)
            and part.get("type") == "output_text"
            and isinstance(part.get("text"), str)
        ):
            here = at | {"content_index": number}
            events += [
                ("response.content_part.added", here | {"part": part | {"text": ""}}),
                ("response.output_text.delta", here | {"delta": part["text"], "logprobs": []}),
                ("response.output_text.done", here | {"text": part["text"], "logprobs": []}),
                ("response.content_part.done", here | {"part": part}),
            ]
    if arguments:
        events += [
            ("response.function_call_arguments.delta", at | {"delta": arguments}),
            (
                "response.function_call_arguments.done",
                at | {"arguments": arguments, "name": item.get("name")},
            ),
        ]
    return [*events, ("response.output_item.done", {"output_index": index, "item": item})]
