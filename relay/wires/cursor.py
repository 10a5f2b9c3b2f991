"""What Cursor posts to /chat/completions.

Owns the recognising of it, its turning into proper chat, and the one change on the way back. In
agent mode Cursor posts a Responses request there, in ask mode a chat request among whose tools some
are flat; both want chat's own answers. The call of a freeform tool comes back as a function's whose
arguments are the raw text: Cursor's adapter reads `function.name` of every call, and hands the
arguments to the tool as they are. (Public reports: litellm PR 34029, codex-proxy PR 708,
CLIProxyAPI PR 658.) It answers to the names of a wire and has no address of its own.
"""

from collections.abc import Iterable, Iterator

import msgspec

from relay.body import Ask, Body
from relay.errors import BadRequest, RelayError, UpstreamError
from relay.wires import chat, responses, sse
from relay.wires.responses import conversation, tools

NAME = "cursor"
WANTS = ("key", "request_id")
KEEP_ALIVE = b": keep-alive\n\n"

error, error_event = chat.error, chat.error_event

_encode = msgspec.json.Encoder().encode


def recognises(body: dict) -> bool:
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


def read(body: Body, key: bytes | str = b"") -> Ask:
    """The request; its `chat` is what upstreams are asked.

    Raises BadRequest, which names the place.
    """
    if responses.looks_like_responses(body):
        ask = responses.read(body, key)
        options = body.get("stream_options")
        ask.usage_asked = isinstance(options, dict) and options.get("include_usage") is True
        return ask
    ask = chat.read(body)
    ask.chat = to_chat(body, key)
    return ask


def to_chat(body: dict, key: bytes | str = b"") -> dict:
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


def _message(message: dict, at: str) -> dict:
    """An assistant's message with its calls as JSON again; any other as it is."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return message
    return message | {
        "tool_calls": [_call(call, f"{at}.tool_calls.{index}") for index, call in enumerate(calls)]
    }


def _call(call: object, at: str) -> dict:
    kind = call.get("type", "function") if isinstance(call, dict) else None
    inner = call.get(kind) if kind in ("function", "custom") else None
    if (
        not isinstance(inner, dict)
        or not isinstance(inner.get("name"), str)
        or not isinstance(call.get("id"), str)
    ):
        raise BadRequest("A call must be an object with an id and a function.", param=at)
    given = inner.get("arguments" if kind == "function" else "input")
    return conversation.chat_call(
        call["id"], tools.flat(inner["name"]), given if isinstance(given, str) else ""
    )


def from_chat(doc: dict, ask_body: dict, *, key: bytes | str = b"") -> dict:
    """The chat answer, with the raw text in the calls of freeform tools."""
    box, choices = _box(ask_body), doc.get("choices")
    told = []
    for choice in choices if isinstance(choices, list) else ():
        message = choice.get("message") if isinstance(choice, dict) else None
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if isinstance(calls, list):
            choice = choice | {
                "message": message | {"tool_calls": [_raw(call, box) for call in calls]}
            }
        told.append(choice)
    return doc | {"choices": told}


def _raw(call: object, box: tools.Toolbox) -> object:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return call
    tool, arguments = box.tool(function["name"]), function.get("arguments")
    if tool.kind == "custom" and isinstance(arguments, str):
        arguments = tools.freeform(arguments)
    return call | {"function": function | {"name": tool.name, "arguments": arguments}}


def stream_from_chat(
    chunks: Iterable[dict | RelayError | None],
    ask_body: dict,
    *,
    key: bytes | str = b"",
    request_id: str = "",
) -> Iterator[bytes]:
    """The events of a chat stream. The arguments of a freeform call come in one piece, before its
    choice is finished.

    `chunks` as everywhere: None is silence; after an error, or where no finish_reason came, there
    is no [DONE].
    """
    box, finished = _box(ask_body), False
    held: dict[tuple, list[str]] = {}  # arguments of freeform calls, by (choice, call)
    options = ask_body.get("stream_options")
    usage_asked = isinstance(options, dict) and options.get("include_usage") is True
    for chunk in chunks:
        if isinstance(chunk, RelayError):
            yield error_event(chunk, request_id)
            return
        if chunk is None:
            yield KEEP_ALIVE
            continue
        told = chat.signs_of(chunk)
        finished = finished or told.finish is not None
        if usage_asked or not told.usage_only:
            choices = chunk.get("choices")
            turned = (
                [_turned(choice, box, held) for choice in choices]
                if isinstance(choices, list)
                else choices
            )
            yield sse.frame(_encode(chunk | {"choices": turned}))
    broken = UpstreamError("The model's provider broke off its answer.")
    yield chat.DONE if finished else error_event(broken, request_id)


def _turned(choice: object, box: tools.Toolbox, held: dict[tuple, list[str]]) -> object:
    """A choice of a chunk.

    The arguments of freeform calls are taken out, and come back with the finish_reason.
    """
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or delta is not None and not isinstance(delta, dict):
        return choice
    at = choice.get("index") if isinstance(choice.get("index"), int) else 0
    calls = (delta or {}).get("tool_calls")
    told = [_held(call, at, box, held) for call in calls] if isinstance(calls, list) else []
    if choice.get("finish_reason"):
        for place in [place for place in held if place[0] == at]:
            raw = tools.freeform("".join(held.pop(place)))
            told.append({"index": place[1], "function": {"arguments": raw}})
    return choice | {"delta": (delta or {}) | {"tool_calls": told}} if told else choice


def _held(call: object, at: int, box: tools.Toolbox, held: dict[tuple, list[str]]) -> object:
    """A piece of a call, without its arguments if it is a freeform one's."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    place = (at, call.get("index", 0)) if isinstance(call.get("index", 0), int) else (at, 0)
    if isinstance(function.get("name"), str) and function["name"]:
        tool = box.tool(function["name"])
        function = function | {"name": tool.name}
        if tool.kind == "custom":
            held.setdefault(place, [])
    if place in held:
        arguments = function.get("arguments")
        held[place].append(arguments if isinstance(arguments, str) else "")
        function = function | {"arguments": ""}
    return call | {"function": function}


def _box(ask_body: dict) -> tools.Toolbox:
    return tools.read({name: ask_body[name] for name in ("tools", "input") if name in ask_body})
