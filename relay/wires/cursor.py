"""What Cursor posts to /chat/completions.

Owns the recognising of it, its turning into proper chat, and the one change on the way back. In
agent mode Cursor posts a Responses request there, in ask mode a chat request among whose tools some
are flat; both want chat's own answers. The call of a freeform tool comes back as a function's whose
arguments are the raw text: Cursor's adapter reads `function.name` of every call, and hands the
arguments to the tool as they are. (Public reports: litellm PR 34029, codex-proxy PR 708,
CLIProxyAPI PR 658.) It answers to the names of a wire and has no address of its own.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from relay.body import Ask, Body
from relay.errors import BadRequest, RelayError
from relay.wires import chat, reader, responses, sse
from relay.wires.chat import (
    DONE,
    FORWARDED_HEADERS,
    HEADERS,
    PATH,
    TEXT_FIELDS,
    as_events,
    clean,
    error,
    error_event,
    folded,
    plain,
    signs,
    signs_of,
    usage,
)
from relay.wires.interface import KEEP_ALIVE, NO_CONTEXT, Context, changes, complete
from relay.wires.reader import Piece
from relay.wires.responses import conversation, tools

__all__ = [
    "DONE",
    "FORWARDED_HEADERS",
    "HEADERS",
    "NAME",
    "PATH",
    "TEXT_FIELDS",
    "as_events",
    "changes",
    "clean",
    "complete",
    "error",
    "error_event",
    "folded",
    "from_chat",
    "plain",
    "read",
    "recognises",
    "signs",
    "signs_of",
    "stream_from_chat",
    "to_chat",
    "usage",
]

NAME = "cursor"

FIELDS = {"thought": "reasoning_content", "text": "content", "refusal": "refusal"}  # of deltas

_encode = msgspec.json.Encoder().encode


def recognises(body: dict[str, Any]) -> bool:
    """True for a Responses request, and for a chat request with flat tools. Never raises."""
    given = body.get("tools")
    return responses.looks_like_responses(body) or any(
        map(_flat, given if isinstance(given, list) else ())
    )


def _flat(tool: object) -> bool:
    return (
        isinstance(tool, dict)
        and tool.get("type") in ("function", "custom")
        and isinstance(tool.get("name"), str)
        and not isinstance(tool.get(tool["type"]), dict)
    )


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """The request; its `chat` is what upstreams are asked.

    Raises BadRequest, which names the place.
    """
    if responses.looks_like_responses(body):
        ask = responses.read(body, context)
        options = body.get("stream_options")
        ask.usage_asked = isinstance(options, dict) and options.get("include_usage") is True
        return ask
    ask = chat.read(body, context)
    ask.chat = to_chat(body, context.key)
    return ask


def to_chat(body: dict[str, Any], key: bytes | str = "") -> dict[str, Any]:
    """Proper chat, with every tool a nested function. Raises BadRequest."""
    if responses.looks_like_responses(body):
        return responses.to_chat(body, key)
    functions, choice = tools.choice(body, tools.read({"tools": body.get("tools")}))
    request = {
        **body,
        "messages": [
            _message(message, f"messages.{index}") for index, message in enumerate(body["messages"])
        ],
        "tools": functions or None,
        "tool_choice": choice,
    }
    return {name: value for name, value in request.items() if value is not None}


def _message(message: dict[str, Any], at: str) -> dict[str, Any]:
    """An assistant's message with its calls as JSON again; any other as it is."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    return message | {
        "tool_calls": [_call(call, f"{at}.tool_calls.{index}") for index, call in enumerate(calls)]
    }


def _call(call: object, at: str) -> dict[str, Any]:
    kind = call.get("type", "function") if isinstance(call, dict) else None
    inner = call.get(kind) if isinstance(call, dict) and kind in ("function", "custom") else None
    if (
        not isinstance(call, dict)
        or not isinstance(inner, dict)
        or not isinstance(inner.get("name"), str)
        or not isinstance(call.get("id"), str)
    ):
        raise BadRequest("A call must be an object with an id and a function.", param=at)
    given = inner.get("arguments" if kind == "function" else "input")
    return conversation.chat_call(
        call["id"], tools.flat(inner["name"]), given if isinstance(given, str) else ""
    )


def from_chat(doc: dict[str, Any], ask_body: dict[str, Any], context: Context) -> dict[str, Any]:
    """The chat answer, with the raw text in the calls of freeform tools.

    Raises UpstreamError if the answer is none.
    """
    choices: dict[int, _Choice] = {}
    box, used = _box(ask_body), None
    for piece in reader.whole(doc):
        choice = choices.setdefault(piece.choice, _Choice(piece.choice, box))
        choice.take(piece)
        used = piece.end.usage if piece.end else used
    answer = _head(ask_body, context, "chat.completion")
    spoken = [choice.message() for choice in choices.values()]
    return answer | {"choices": spoken} | ({"usage": used} if used else {})


def stream_from_chat(
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[bytes]:
    """The events of a chat stream, [DONE] included, or an error that the pieces raise.

    The arguments of a freeform call come in one piece, when it is whole.
    """
    choices: dict[int, _Choice] = {}
    box, used = _box(ask_body), None
    head = _head(ask_body, context, "chat.completion.chunk")
    try:
        for piece in pieces:
            if piece is None:
                yield KEEP_ALIVE
                continue
            used = piece.end.usage if piece.end else used
            choice = choices.setdefault(piece.choice, _Choice(piece.choice, box))
            for delta in choice.take(piece):
                yield sse.frame(_encode(head | {"choices": [choice.chunk(delta)]}))
    except RelayError as err:
        yield error_event(err, context.request_id)
        return
    options = ask_body.get("stream_options")
    if used and isinstance(options, dict) and options.get("include_usage") is True:
        yield sse.frame(_encode(head | {"choices": [], "usage": used}))
    yield chat.DONE


class _Choice:
    """A choice in the making, as chat's deltas and as chat's message."""

    def __init__(self, index: int, box: tools.Toolbox):
        self._index, self._box = index, box
        self._texts: dict[str, str] = {}
        self._calls: list[dict[str, Any]] = []
        self._raw: list[str] | None = None  # the arguments of a freeform call so far
        self._finish: str | None = None

    def take(self, piece: Piece) -> list[dict[str, Any]]:
        """The deltas that a piece makes."""
        if piece.kind in FIELDS:
            name = FIELDS[piece.kind]
            self._texts[name] = self._texts.get(name, "") + piece.text
            return [{name: piece.text}]
        if piece.kind == "arguments":
            return self._arguments(piece.text)
        deltas = self._freeform()
        if piece.kind == "call":
            return [*deltas, self._call(piece)]
        self._finish = piece.text
        return [*deltas, {}]

    def chunk(self, delta: dict[str, Any]) -> dict[str, Any]:
        """A delta as a choice of a chunk."""
        return {
            "index": self._index,
            "delta": delta,
            "finish_reason": None if delta else self._finish,
        }

    def message(self) -> dict[str, Any]:
        """The whole as a choice of an answer."""
        message: dict[str, Any] = {"role": "assistant", "content": None} | self._texts
        message |= {"tool_calls": self._calls} if self._calls else {}
        return {"index": self._index, "message": message, "finish_reason": self._finish}

    def _call(self, piece: Piece) -> dict[str, Any]:
        tool = self._box.tool(piece.text)
        self._raw = [] if tool.kind == "custom" else None
        function = {"name": tool.name, "arguments": ""}
        call: dict[str, Any] = {"id": piece.id, "type": "function", "function": function}
        self._calls.append(call)
        at = {"index": len(self._calls) - 1}
        return {"tool_calls": [at | call | {"function": dict(function)}]}

    def _arguments(self, text: str) -> list[dict[str, Any]]:
        if self._raw is not None:
            self._raw.append(text)
            return []
        self._calls[-1]["function"]["arguments"] += text
        at = {"index": len(self._calls) - 1}
        return [{"tool_calls": [at | {"function": {"arguments": text}}]}]

    def _freeform(self) -> list[dict[str, Any]]:
        """The raw text of a freeform call that is over."""
        raw, self._raw = self._raw, None
        return self._arguments(tools.freeform("".join(raw))) if raw else []


def _head(ask_body: dict[str, Any], context: Context, kind: str) -> dict[str, Any]:
    return {
        "id": context.id("chatcmpl"),
        "object": kind,
        "created": context.created_at,
        "model": ask_body.get("model"),
    }


def _box(ask_body: dict[str, Any]) -> tools.Toolbox:
    return tools.read({name: ask_body[name] for name in ("tools", "input") if name in ask_body})
