"""A chat answer as an Anthropic message, whole or as a stream of events.

Owns the order of things: Anthropic's blocks come strictly one after the other, chat's pieces as
they please. An answer passes three generators whose state is local variables: `_pieces` flattens
chunks into (kind, value) pairs, `calls.in_order` puts tool calls one after the other, `_events`
opens a block when the kind changes and closes it when it changes again. A whole answer is folded
from the same events, so both forms agree.
"""

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from billing import Usage
from relay import estimate
from relay.errors import RelayError, UpstreamError, UpstreamOverloaded, UpstreamRefused
from relay.wires import chat, sse
from relay.wires.messages.calls import in_order
from relay.wires.messages.names import own_names
from relay.wires.messages.request import NO_THREADS, call_ids, thinks

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    "sensitive": "refusal",
    "model_context_window_exceeded": "model_context_window_exceeded",
}
FAILURES = {
    "insufficient_system_resource": UpstreamOverloaded,
    "network_error": UpstreamError,
    "error": UpstreamError,
}
SIGNATURE = "cmVsYXllZA=="  # clients want one, and give it back unread
HIDDEN_PER_PING = 64  # deltas of thinking that nobody asked to see

TOO_LONG = "prompt is too long"  # Claude Code shortens its history when it reads these words

_too_long = re.compile(
    r"context.{0,10}(?:length|window)|token limit|too long|input length|max message tokens"
    r"|超长|过长",
    re.IGNORECASE,
).search
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class End:
    """How the upstream's answer ended."""

    finish: str
    stop: object = None  # the stop sequence that was met, from servers that tell
    used: dict | None = None  # the usage as it came


def from_chat(doc: dict, ask_body: dict, *, id: str | None = None, input_tokens: int = 0) -> dict:
    """The Message of a chat answer to `ask_body`, a request that `to_chat` has taken.

    `id` of the message ("msg_..."); `input_tokens` is our estimate, for answers without usage.
    Raises UpstreamError if the answer is an error in disguise.
    """
    message, id = {}, id or new_id()
    for event in _events(_pairs(_as_chunks(doc), ask_body, id), ask_body, id, input_tokens):
        kind = event["type"]
        if kind == "message_start":
            message = event["message"]
        elif kind == "content_block_start":
            message["content"].append(event["content_block"])
        elif kind == "content_block_delta":
            block, (_, name) = message["content"][-1], event["delta"]
            block[name] = block.get(name, "") + event["delta"][name]
        elif kind == "content_block_stop" and message["content"][-1]["type"] == "tool_use":
            block = message["content"][-1]
            block["input"] = arguments(block.pop("partial_json", ""))
        elif kind == "message_delta":
            message |= event["delta"] | {"usage": event["usage"]}
    return message


def stream_from_chat(
    chunks: Iterable[dict | RelayError | None],
    ask_body: dict,
    *,
    id: str | None = None,
    input_tokens: int = 0,
    request_id: str = "",
) -> Iterator[bytes]:
    """The events of a streamed chat answer to `ask_body`, each framed.

    A chunk is parsed JSON; None stands for silence and becomes a ping; an error is sent on and ends
    the stream. The stream ends with `message_stop`, or with `error` if the upstream failed or broke
    off before its finish_reason: nobody may take half an answer for a whole one. `id` ("msg_...")
    and `input_tokens` as in `from_chat`.
    """
    id = id or new_id()
    try:
        for event in _events(_pairs(chunks, ask_body, id), ask_body, id, input_tokens):
            yield frame(event)
    except RelayError as err:
        yield error_event(err, request_id)


def error(err: RelayError, request_id: str) -> dict:
    """The error in Anthropic's shape.

    A provider's ways to say that the input is too long become Anthropic's.
    """
    message = err.message
    if isinstance(err, UpstreamRefused) and _too_long(message) and TOO_LONG not in message.lower():
        message = f"{TOO_LONG}: {message}"
    told = {"type": err.anthropic_type, "message": message}
    if err.code == NO_THREADS:
        told["details"] = {"error_code": err.code}
    return {"type": "error", "error": told, "request_id": request_id}


def error_event(err: RelayError, request_id: str) -> bytes:
    """The error as the last event of a stream. No message_stop follows it."""
    return frame(error(err, request_id))


def frame(event: dict) -> bytes:
    """An event as its bytes: its name is its type."""
    return sse.frame(_encode(event), event["type"])


def new_id() -> str:
    """A message's id."""
    return f"msg_{uuid.uuid4().hex}"


def usage_of(used: object, guess: Usage) -> dict:
    """A chat answer's usage in Anthropic's buckets, which do not overlap: their sum is chat's
    prompt_tokens.

    What the upstream did not say is our `guess`.
    """
    used = used if isinstance(used, dict) else {}
    told = chat.usage({"usage": used})
    total = told.input_tokens if told.input_tokens >= 0 else guess.input_tokens
    cached = min(told.cached_tokens, total)
    details = used.get("prompt_tokens_details")
    places = [
        holder.get(name)
        for holder in (used, details if isinstance(details, dict) else {})
        for name in ("cache_creation_input_tokens", "cache_write_tokens")
    ]
    written = min(max(0, *map(chat.natural, places)), total - cached)
    counts = {
        "input_tokens": total - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": told.output_tokens if told.output_tokens >= 0 else guess.output_tokens,
    }
    details = used.get("completion_tokens_details")
    thought = chat.natural(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    return counts | ({"output_tokens_details": {"thinking_tokens": thought}} if thought > 0 else {})


def arguments(text: str) -> dict:
    """A tool call's input.

    What is no JSON object stays readable as `_raw`: the tool can then say what it misses.
    """
    try:
        value = json.loads(text, strict=False) if text.strip() else {}
        if isinstance(value, str):  # some models quote the object once more
            value = json.loads(value, strict=False)
        if isinstance(value, dict):
            _encode(value)  # a lone surrogate cannot be sent
            return value
    except (ValueError, RecursionError):
        pass
    return {"_raw": text}


# From chunks to pairs


def _as_chunks(doc: dict) -> list[dict]:
    """A whole answer as the one chunk of a stream.

    Spark's has no finish_reason: it is whole all the same.
    """
    choice = _choice(doc)
    message = dict(choice["message"]) if isinstance(choice.get("message"), dict) else {}
    message["tool_calls"] = [
        {"index": number} | call for number, call in enumerate(_calls(message))
    ]
    finish = choice.get("finish_reason")
    return [{**doc, "choices": [{**choice, "delta": message, "finish_reason": finish or "stop"}]}]


def _pairs(
    chunks: Iterable[dict | RelayError | None], ask_body: dict, id: str
) -> Iterator[tuple[str, object]]:
    stem = f"toolu_{id.removeprefix('msg_')}"
    return in_order(_pieces(chunks, ask_body), own_names(ask_body), stem, call_ids(ask_body))


def _pieces(
    chunks: Iterable[dict | RelayError | None], ask_body: dict
) -> Iterator[tuple[str, object]]:
    """Chunks as pairs: start; thinking, text, hidden (thinking that nobody asked for), call, ping;
    and at last end.

    Raises RelayError when the upstream failed or its answer broke off.
    """
    thinking = "thinking" if thinks(ask_body) else "hidden"
    end, started = End(""), False
    for chunk in chunks:
        if isinstance(chunk, RelayError):
            raise chunk
        if chunk is not None and chat.error_in(chunk):
            raise UpstreamError()
        if not started:
            started = True
            yield "start", None
        if chunk is None:
            yield "ping", None
            continue
        choice = _choice(chunk)
        end.used = _used(chunk, choice) or end.used
        end.stop = choice.get("stop_reason") or end.stop
        finish = choice.get("finish_reason")
        end.finish = end.finish or (finish if isinstance(finish, str) else "")
        delta = choice.get("delta")
        if isinstance(delta, dict):
            yield from _flat(delta, thinking)
    if not end.finish:
        raise UpstreamError("The model's provider broke off before its answer was complete.")
    if end.finish in FAILURES:
        raise FAILURES[end.finish]()
    yield "end", end


def _flat(delta: dict, thinking: str) -> Iterator[tuple[str, object]]:
    reasoning = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
    if reasoning:
        yield thinking, reasoning
    text = _text(delta.get("content")) or _text(delta.get("refusal"))
    if text:
        yield "text", text
    for call in _calls(delta):
        yield "call", call


def _choice(chunk: dict) -> dict:
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _used(chunk: dict, choice: dict) -> dict | None:
    for holder in (chunk, choice):
        if isinstance(holder.get("usage"), dict):
            return holder["usage"]
    return None


def _text(value: object) -> str:
    if isinstance(value, list):  # parts, as a few gateways send them
        return "".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def _calls(delta: dict) -> list[dict]:
    """The tool calls, also where Spark sends an object for the list, and the legacy
    `function_call`."""
    calls = delta.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if not calls and isinstance(delta.get("function_call"), dict):
        calls = [{"function": delta["function_call"]}]
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


# Events


def _events(
    pieces: Iterable[tuple[str, object]], ask_body: dict, id: str, input_tokens: int
) -> Iterator[dict]:
    """Pairs as events.

    A block is open as long as the kind does not change, and a tool call is a block of its own.
    """
    index, opened, called, said, end = -1, None, False, [], None
    hidden = 0
    for kind, value in pieces:
        if kind == "start":
            yield {
                "type": "message_start",
                "message": _message(id, ask_body)
                | {
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": usage_of(
                        {"prompt_tokens": input_tokens, "completion_tokens": 1}, Usage(0, 0, 0)
                    ),
                },
            }
        elif kind == "ping":
            yield {"type": "ping"}
        elif kind == "end":
            end = value
        elif kind == "hidden":
            said.append(value)
            if hidden % HIDDEN_PER_PING == 0:
                yield {"type": "ping"}
            hidden += 1
        else:
            if kind == "tool_use" or kind not in (opened, "json"):
                yield from _closed(opened, index)
                index, opened, called = index + 1, kind, called or kind == "tool_use"
                yield {
                    "type": "content_block_start",
                    "index": index,
                    "content_block": _block(kind, value),
                }
            if kind != "tool_use":
                said.append(value)
                yield _delta(index, kind, value)
    if index < 0:
        index, opened = 0, "text"
        yield {"type": "content_block_start", "index": 0, "content_block": _block("text")}
    yield from _closed(opened, index)
    yield {
        "type": "message_delta",
        "delta": _stop(end, called, ask_body),
        "usage": usage_of(end.used, Usage(input_tokens, 0, estimate.text("".join(said)))),
    }
    yield {"type": "message_stop"}


def _delta(index: int, kind: str, value: str) -> dict:
    name = "partial_json" if kind == "json" else kind
    form = "input_json" if kind == "json" else kind
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": f"{form}_delta", name: value},
    }


def _closed(opened: str | None, index: int) -> Iterator[dict]:
    if opened == "thinking":
        yield {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": "signature_delta", "signature": SIGNATURE},
        }
    if opened is not None:
        yield {"type": "content_block_stop", "index": index}


def _block(kind: str, value: object = None) -> dict:
    """An empty block."""
    if kind == "tool_use":
        return {"type": kind, "id": value[0], "name": value[1], "input": {}}
    return {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})


def _message(id: str, ask_body: dict) -> dict:
    return {"id": id, "type": "message", "role": "assistant", "model": ask_body.get("model")}


def _stop(end: End, called: bool, ask_body: dict) -> dict:
    """Why the answer ended. A tool call decides, even where the provider says `stop`.

    Raises UpstreamError if the provider says `tool_calls` and there are none: an agent would wait
    for nothing.
    """
    reason, sequence = STOP_REASONS.get(end.finish, "end_turn"), None
    if reason == "tool_use" and not called:
        raise UpstreamError("The model announced a tool call and made none.")
    if called and reason == "end_turn":
        reason = "tool_use"
    elif (
        reason == "end_turn"
        and isinstance(end.stop, str)
        and end.stop in (ask_body.get("stop_sequences") or ())
    ):
        reason, sequence = "stop_sequence", end.stop
    return {"stop_reason": reason, "stop_sequence": sequence}
