"""A chat answer as an Anthropic message, whole or as a stream of events.

Owns how the pieces of an answer become blocks: one is opened when the kind of piece changes, and
closed when it changes again. A whole answer is folded from the same events, so both forms agree.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import msgspec
from msgspec.structs import replace

from billing import Usage
from relay import estimate
from relay.errors import RelayError, UpstreamRefused
from relay.wires import chat, reader, sse
from relay.wires import usage as wire_usage
from relay.wires.interface import Context
from relay.wires.messages.names import own_id, own_names
from relay.wires.messages.request import NO_THREADS, call_ids, thinks
from relay.wires.reader import CUT, FILTERED, End, Piece
from relay.wires.usage import natural

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
    "sensitive": "refusal",
    "model_context_window_exceeded": "model_context_window_exceeded",
}
KINDS = {
    "thought": "thinking",
    "text": "text",
    "refusal": "text",
    "call": "tool_use",
    "arguments": "json",
}  # of pieces, as blocks
PING = {"type": "ping"}
SIGNATURE = "cmVsYXllZA=="  # clients want one, and give it back unread
HIDDEN_PER_PING = 64  # deltas of thinking that nobody asked to see

TOO_LONG = "prompt is too long"  # Claude Code shortens its history when it reads these words

_encode = msgspec.json.Encoder().encode


def from_chat(doc: dict[str, Any], ask_body: dict[str, Any], context: Context) -> dict[str, Any]:
    """The Message of a chat answer to `ask_body`, a request that `to_chat` has taken.

    It is folded from the events of a stream, so both forms agree. Raises UpstreamError if the
    answer is none.
    """
    message: dict[str, Any] = {}
    for event in _events(reader.whole(doc), ask_body, context):
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
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[bytes]:
    """The events of a streamed chat answer to `ask_body`, each framed.

    Silence becomes a ping. The stream ends with `message_stop`, or with `error` where the pieces
    raise one: nobody may take half an answer for a whole one.
    """
    try:
        for event in _events(pieces, ask_body, context):
            yield frame(event)
    except RelayError as err:
        yield error_event(err, context.request_id)


def error(err: RelayError, request_id: str) -> dict[str, Any]:
    """The error in Anthropic's shape.

    A provider's ways to say that the input is too long become Anthropic's.
    """
    message = err.message
    too_long = isinstance(err, UpstreamRefused) and err.code == "context_length_exceeded"
    if too_long and TOO_LONG not in message.lower():
        message = f"{TOO_LONG}: {message}"
    error: dict[str, Any] = {"type": err.anthropic_type, "message": message}
    if err.code == NO_THREADS:
        error["details"] = {"error_code": err.code}
    return {"type": "error", "error": error, "request_id": request_id}


def error_event(err: RelayError, request_id: str) -> bytes:
    """The error as the last event of a stream. No message_stop follows it."""
    return frame(error(err, request_id))


def frame(event: dict[str, Any]) -> bytes:
    """An event as its bytes: its name is its type."""
    return sse.frame(_encode(event), event["type"])


def usage_of(used: object, guess: Usage) -> dict[str, Any]:
    """A chat answer's usage in Anthropic's buckets, which do not overlap: their sum is chat's
    prompt_tokens.

    What the upstream did not say is our `guess`.
    """
    used = used if isinstance(used, dict) else {}
    usage = chat.usage({"usage": used}) or guess
    total = usage.input_tokens if usage.input_tokens >= 0 else guess.input_tokens
    output = usage.output_tokens if usage.output_tokens >= 0 else guess.output_tokens
    usage = replace(usage, input_tokens=total, output_tokens=output).possible()
    kinds = usage.by_kind()
    counts = {
        "input_tokens": kinds["input"],
        "cache_creation_input_tokens": kinds["cache_write"] + kinds["cache_write_1h"],
        "cache_read_input_tokens": usage.cached_tokens,
        **wire_usage.details(usage),
        "output_tokens": usage.output_tokens,
    }
    if usage.searches:
        counts["server_tool_use"] = {"web_search_requests": usage.searches}
    details = used.get("completion_tokens_details")
    thought = natural(details.get("reasoning_tokens")) if isinstance(details, dict) else 0
    return counts | ({"output_tokens_details": {"thinking_tokens": thought}} if thought > 0 else {})


def arguments(text: str) -> dict[str, Any]:
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


# Events


def _events(
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[dict[str, Any]]:
    """Pieces as events. A block is open as long as the kind does not change; a call is a block of
    its own."""
    blocks = _Blocks(ask_body, context)
    end, hidden, started = None, 0, False
    for piece in pieces:
        if not started:
            started = True
            yield blocks.start()
        if piece is None:
            yield PING
        elif piece.kind == "end":
            end = piece.end
        elif piece.kind == "thought" and not blocks.thinks:
            blocks.said.append(piece.text)
            if hidden % HIDDEN_PER_PING == 0:
                yield PING
            hidden += 1
        else:
            yield from blocks.add(piece)
    yield from blocks.finish(end)


class _Blocks:
    """The blocks of a message in the making."""

    def __init__(self, ask_body: dict[str, Any], context: Context):
        self.thinks = thinks(ask_body)
        self.said: list[str] = []  # all texts, for an estimate of the usage
        self._ask_body, self._context = ask_body, context
        self._index, self._opened, self._called = -1, "", False
        self._names, self._known = own_names(ask_body), set(call_ids(ask_body))
        self._made = count()

    def start(self) -> dict[str, Any]:
        """The event with the message, before anything is said."""
        used = usage_of(
            {"prompt_tokens": self._context.input_tokens, "completion_tokens": 1}, Usage(0, 0, 0)
        )
        message: dict[str, Any] = {
            "id": self._context.id("msg"),
            "type": "message",
            "role": "assistant",
            "model": self._ask_body.get("model"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": used,
        }
        return {"type": "message_start", "message": message}

    def add(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The events of a piece."""
        kind = KINDS[piece.kind]
        if kind == "tool_use" or kind not in (self._opened, "json"):
            self._called |= kind == "tool_use"
            yield from self._open(
                kind, self._tool_use(piece) if kind == "tool_use" else _block(kind)
            )
        if kind != "tool_use":
            self.said.append(piece.text)
            yield _delta(self._index, kind, piece.text)

    def finish(self, end: End | None) -> Iterator[dict[str, Any]]:
        """The events that end the message. One without any block gets an empty text."""
        if self._index < 0:
            yield from self._open("text", _block("text"))
        yield from self._close()
        guess = Usage(self._context.input_tokens, 0, estimate.text("".join(self.said)))
        yield {
            "type": "message_delta",
            "delta": _stop(end, self._called, self._ask_body),
            "usage": usage_of(end and end.usage, guess),
        }
        yield {"type": "message_stop"}

    def _open(self, kind: str, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield from self._close()
        self._index, self._opened = self._index + 1, kind
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _close(self) -> Iterator[dict[str, Any]]:
        if self._opened == "thinking":
            signed = {"type": "signature_delta", "signature": SIGNATURE}
            yield {"type": "content_block_delta", "index": self._index, "delta": signed}
        if self._opened:
            yield {"type": "content_block_stop", "index": self._index}

    def _tool_use(self, call: Piece) -> dict[str, Any]:
        """A call's block, under the caller's own name for the tool.

        Ids that are missing or known from the conversation are made: some servers count each
        answer's calls from 0, and Claude Code drops a call that it has seen.
        """
        made = f"{self._context.id('toolu')}_{next(self._made)}"
        id = own_id(call.id) if call.id else made
        id = made if id in self._known else id
        self._known.add(id)
        name = self._names.get(call.text, call.text)
        return {"type": "tool_use", "id": id, "name": name, "input": {}}


def _delta(index: int, kind: str, value: str) -> dict[str, Any]:
    name = "partial_json" if kind == "json" else kind
    form = "input_json" if kind == "json" else kind
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": f"{form}_delta", name: value},
    }


def _block(kind: str) -> dict[str, Any]:
    """An empty block of text or thinking."""
    return {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})


def _stop(end: End | None, called: bool, ask_body: dict[str, Any]) -> dict[str, Any]:
    """Why the answer ended. A tool call decides, even where the provider says `stop`."""
    reason, sequence = STOP_REASONS.get(end.finish if end else "", "end_turn"), None
    if end and end.kind == CUT and reason == "end_turn":
        reason = "max_tokens"
    elif end and end.kind == FILTERED:
        reason = "refusal"
    if called and reason == "end_turn":
        reason = "tool_use"
    elif end and reason == "end_turn" and end.stop in (ask_body.get("stop_sequences") or ()):
        reason, sequence = "stop_sequence", end.stop
    return {"stop_reason": reason, "stop_sequence": sequence}
