"""A stream's events as the whole answer that they tell, for who asked for no stream and got one.

Owns how the deltas of each format are put together. It judges nothing: an answer that does not come
to its end is None, and what it says the wires' `signs_of` look into as in any other.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from relay.wires import reader

_decode = msgspec.json.Decoder().decode

JOINED = (
    "content",
    "reasoning_content",
    "reasoning",
    "refusal",
    "text",
)  # chat's, and completions'
DELTAS = {  # of Messages: a delta's type -> its member, and the block's
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("signature", "signature"),
    "input_json_delta": ("partial_json", "partial_json"),
}
ENDS = ("response.completed", "response.incomplete", "response.failed")  # of Responses


def completion(chunks: Iterable[dict[str, Any]], done: bool) -> dict[str, Any] | None:
    """The completion of a chat's or a completion's chunks. `done`: its [DONE] came.

    Raises UpstreamError for what no answer is made of.
    """
    mender, whole, choices = reader.Reader(), dict[str, Any](), dict[int, dict[str, Any]]()
    for chunk in chunks:
        mended = mender.mended(chunk) or chunk
        usage = mended.get("usage") or whole.get("usage")
        whole = mended | whole | ({"usage": usage} if usage else {})
        given = mended.get("choices")
        for place, choice in enumerate(given if isinstance(given, list) else ()):
            if isinstance(choice, dict):
                number = choice.get("index")
                number = number if isinstance(number, int) else place
                _add(choices.setdefault(number, {"index": number}), choice)
    if not choices or not (done or all(each.get("finish_reason") for each in choices.values())):
        return None
    for choice in choices.values():
        calls = choice.get("message", {}).get("tool_calls")
        choice["finish_reason"] = choice.get("finish_reason") or ("tool_calls" if calls else "stop")
    shape = whole.get("object")
    kind = shape.removesuffix(".chunk") if isinstance(shape, str) else "chat.completion"
    return whole | {"object": kind, "choices": [choices[number] for number in sorted(choices)]}


def _add(whole: dict[str, Any], choice: dict[str, Any]) -> None:
    """A choice of a chunk to what there is of it."""
    for name, value in choice.items():
        if name in ("delta", "message") and isinstance(value, dict):
            _speak(whole.setdefault("message", {"role": "assistant", "content": None}), value)
        elif name == "text" and isinstance(value, str):
            whole[name] = whole.get(name, "") + value
        elif name == "logprobs" and isinstance(value, dict):
            _extend(whole.setdefault(name, {}), value)
        elif name != "index" and value:
            whole[name] = value


def _extend(whole: dict[str, Any], more: dict[str, Any]) -> None:
    """Lists of one entry a token, each behind what there is of it."""
    for name, value in more.items():
        if isinstance(value, list):
            whole[name] = [*(whole.get(name) or ()), *value]


def _speak(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for name, value in delta.items():
        if name in JOINED and isinstance(value, str):
            message[name] = (message.get(name) or "") + value
        elif name == "tool_calls":
            for call in reader.calls_of(delta):
                _call(message.setdefault("tool_calls", []), call)
        elif isinstance(value, list):
            _extend(message, {name: value})
        elif name != "role" and value:
            message[name] = value


def _call(calls: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    number = piece.get("index")
    known: list[dict[str, Any]] = [each for each in calls if each["index"] == number]
    if not known:
        known = [{"index": number, "type": "function", "function": {"name": "", "arguments": ""}}]
        calls += known
    (held,) = known
    if piece.get("id"):
        held["id"] = piece["id"]
    for name in ("name", "arguments"):
        held["function"][name] += reader.text_of(_object(piece, "function").get(name))


def message(events: Iterable[dict[str, Any]], done: bool) -> dict[str, Any] | None:
    """The message of a Messages stream."""
    whole: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    for event in events:
        kind, given = event.get("type"), event.get("delta")
        delta = given if isinstance(given, dict) else {}
        if kind == "error":
            return event
        if kind == "message_start" and isinstance(event.get("message"), dict):
            whole = dict(event["message"])
        elif kind == "content_block_start" and isinstance(event.get("content_block"), dict):
            blocks[_number(event)] = dict(event["content_block"])
        elif kind == "content_block_delta" and _number(event) in blocks:
            _write(blocks[_number(event)], delta)
        elif kind == "message_delta":
            used = {
                name: each for name, each in _object(event, "usage").items() if each is not None
            }
            whole |= delta | {"usage": _object(whole, "usage") | used}
        done |= kind == "message_stop"
    if not whole or not (done or whole.get("stop_reason")):
        return None
    for block in blocks.values():
        if "partial_json" in block:
            block["input"] = _parsed(block.pop("partial_json"))
    return whole | {"content": [blocks[number] for number in sorted(blocks)]}


def _write(block: dict[str, Any], delta: dict[str, Any]) -> None:
    """A delta to its block."""
    name, place = DELTAS.get(str(delta.get("type")), ("", ""))
    if name and isinstance(delta.get(name), str):
        block[place] = (block.get(place) or "") + delta[name]
    elif isinstance(delta.get("citation"), dict):
        _extend(block, {"citations": [delta["citation"]]})


def response(events: Iterable[dict[str, Any]], done: bool) -> dict[str, Any] | None:
    """The Response of a stream of its events: the last of them carries it. Some providers leave out
    there what they have told before."""
    items: dict[int, object] = {}
    for event in events:
        kind = event.get("type")
        if kind == "error":
            return event
        if kind == "response.output_item.done" and isinstance(event.get("item"), dict):
            items[_number(event, "output_index")] = event["item"]
        if kind in ENDS and isinstance(event.get("response"), dict):
            whole: dict[str, Any] = event["response"]
            output = whole.get("output") or [items[number] for number in sorted(items)]
            return whole | {"output": output}
    return None


def _number(event: dict[str, Any], name: str = "index") -> int:
    number = event.get(name)
    return number if isinstance(number, int) else 0


def _object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
