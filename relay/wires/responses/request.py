"""A Responses request as a chat request.

Owns the parameters; `conversation` has the messages and `tools` the tools. What the relay does not
know is passed over in silence, since clients add fields all the time; what would need a memory of
earlier answers is refused aloud.
"""

from typing import Any

from relay.errors import BadRequest
from relay.wires import chat
from relay.wires.parts import missing
from relay.wires.responses import compaction, conversation, tools

EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
ALIKE = (
    "seed",
    "stop",
    "thinking",
    "enable_thinking",
    "thinking_budget",
)  # providers' own, which some add here too
STATEFUL = {
    "previous_response_id": "previous_response_id is not supported; send the full input",
    "conversation": "Conversations are not stored here; send the full input.",
    "prompt": "Prompts are not stored here; send instructions and input.",
}


def to_chat(
    body: dict[str, Any], key: bytes | str = b"", *, lenient: bool = False
) -> dict[str, Any]:
    """The chat request. `key` opens the reasoning that callers carry for us (see `sealed`).

    Raises BadRequest, which names the place, and nothing else. `lenient`: the newest words are not
    refused for their content either.
    """
    _refuse_what_needs_memory(body)
    box = tools.read(body)
    functions, choice = tools.choice(body, box, lenient)
    compacts = compaction.asked(body)
    request: dict[str, Any] = {
        "model": chat.model(body),
        "messages": conversation.messages(body, key, lenient, missing(box.left_out)),
    }
    if functions and not compacts:
        request["tools"] = functions
        request["tool_choice"] = choice
        # True is what providers do anyway, and some refuse to be told.
        request["parallel_tool_calls"] = (
            False if _bool(body, "parallel_tool_calls") is False else None
        )
    request["max_tokens"] = chat.count(body, "max_output_tokens")
    request |= {name: _number(body, name) for name in NUMBERS} | {
        name: body.get(name) for name in ALIKE
    }
    request["user"] = _string(body, "user")
    request |= _thinking(body)
    request["response_format"] = None if compacts else _format(body)
    if chat.flag(body, "stream"):
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in request.items() if value is not None}


def _refuse_what_needs_memory(body: dict[str, Any]) -> None:
    for name, sentence in STATEFUL.items():
        if body.get(name) is not None:
            raise BadRequest(sentence, param=name, code="unsupported_parameter")
    if chat.flag(body, "background"):
        raise BadRequest(
            "Answers are not stored here, so none can be made in the background.",
            param="background",
            code="unsupported_parameter",
        )


def _thinking(body: dict[str, Any]) -> dict[str, Any]:
    """`reasoning.effort`: none switches thinking off, the others are chat's words.

    Unknown ones are dropped.
    """
    reasoning = _object(body, "reasoning")
    effort = reasoning.get("effort")
    if effort is not None and not isinstance(effort, str):
        raise BadRequest("'reasoning.effort' must be a string.", param="reasoning.effort")
    if effort == "none":
        return {"thinking": {"type": "disabled"}}
    if effort == "ultra":
        return {"reasoning_effort": "max"}
    return {"reasoning_effort": effort} if effort in EFFORTS else {}


def _format(body: dict[str, Any]) -> dict[str, Any] | None:
    """`text.format` as chat's response_format."""
    form = _object(body, "text").get("format")
    if form is None:
        return None
    if not isinstance(form, dict):
        raise BadRequest("'text.format' must be an object.", param="text.format")
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": kind}
    if kind != "json_schema":
        raise BadRequest(
            "The format must be text, json_object or json_schema.", param="text.format.type"
        )
    if not isinstance(form.get("name"), str):
        raise BadRequest("A json_schema needs a name.", param="text.format.name")
    if not isinstance(form.get("schema"), dict):
        raise BadRequest("A json_schema needs a schema.", param="text.format.schema")
    kept = {
        name: form[name]
        for name in ("name", "description", "schema", "strict")
        if form.get(name) is not None
    }
    return {"type": kind, "json_schema": kept}


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"'{name}' must be an object.", param=name)
    return value or {}


def _bool(body: dict[str, Any], name: str) -> bool | None:
    return None if body.get(name) is None else chat.flag(body, name)


def _number(body: dict[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise BadRequest(f"'{name}' must be a number.", param=name)
    return value


def _string(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"'{name}' must be a string.", param=name)
    return value
