"""A chat answer as a Response object.

Owns the object, how an answer can end, and what a Responses caller is told of usage and errors.
"""

from collections.abc import Iterable
from typing import Any

from relay import estimate
from relay.errors import (
    BadRequest,
    RateLimited,
    RelayError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRefused,
)
from relay.wires import chat, reader
from relay.wires.interface import Context
from relay.wires.reader import BROKEN_OFF, CUT, FILTERED, End
from relay.wires.responses import compaction, conversation, tools
from relay.wires.responses.items import Item, Making, home
from relay.wires.usage import natural

REASONS = {CUT: "max_output_tokens", FILTERED: "content_filter"}  # why an answer is incomplete

# What is echoed: name, the types that are believed, what stands there otherwise.
ECHOES = (
    ("instructions", str, None),
    ("max_output_tokens", int, None),
    ("parallel_tool_calls", bool, True),
    ("prompt_cache_key", str, None),
    ("safety_identifier", str, None),
    ("temperature", int | float, 1.0),
    ("top_p", int | float, 1.0),
    ("user", str, None),
)


def from_chat(doc: dict[str, Any], ask_body: dict[str, Any], context: Context) -> dict[str, Any]:
    """The Response object of a chat answer to `ask_body`, a request that `to_chat` has taken.

    Raises UpstreamError if the answer is none.
    """
    items: list[Item] = []
    box = tools.read(ask_body)
    wanted, end = making(ask_body, box, context), None
    for piece in reader.whole(doc):
        end = piece.end or end
        if not piece.end:
            home(piece, items, wanted.compacts)
    if end is None:
        raise UpstreamError(BROKEN_OFF)
    status, reason = ending(end)
    used = usage(end.usage) or estimated(items, context.input_tokens)
    output = _output(items, wanted, status)
    return response(ask_body, box, context, status, output, used, reason=reason)


def _output(items: list[Item], wanted: Making, status: str) -> list[dict[str, Any]]:
    output: list[dict[str, Any]] = []
    for item in kept(items, status, wanted):
        item.open(len(output), wanted)
        output.append(item.form(end_of(item, items, status)))
    return output


def end_of(item: Item, items: list[Item], status: str) -> str:
    """The status of an item of an answer with this status.

    Of what was cut, the last text and the calls cut short.
    """
    cut = not item.whole if item.kind == "call" else bool(items) and item is items[-1]
    return status if cut and status == "incomplete" else "completed"


def making(ask_body: dict[str, Any], box: tools.Toolbox, context: Context) -> Making:
    include = ask_body.get("include")
    wants_seal = isinstance(include, list) and "reasoning.encrypted_content" in include
    compacts = compaction.asked(ask_body)
    return Making(
        context.id("resp").removeprefix("resp_"),
        box,
        context.key if wants_seal or compacts else b"",
        conversation.call_ids(ask_body),
        compacts,
    )


def ending(end: End) -> tuple[str, str | None]:
    """The status of an answer that ended so, and why it is incomplete."""
    reason = REASONS.get(end.kind)
    return ("incomplete", reason) if reason else ("completed", None)


def kept(items: list[Item], status: str, wanted: Making) -> list[Item]:
    """The items that a caller gets. Freeform input that was cut short is kept back: someone might
    run it.

    An answer without any text or call gets an empty message: clients look for one.
    """
    for item in items:
        item.know(wanted)
    left = [
        item
        for item in items
        if not (status == "incomplete" and item.raw and item.index < 0 and not item.whole)
    ]
    if status == "completed" and all(item.kind == "reasoning" for item in left):
        left.append(Item("text"))
    return left


def response(
    ask_body: dict[str, Any],
    box: tools.Toolbox,
    context: Context,
    status: str,
    output: Iterable[dict[str, Any]] = (),
    usage: dict[str, Any] | None = None,
    failure: RelayError | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    """The object, as openai's SDK wants it.

    What the caller asked for is echoed, as far as it was understood.
    """
    told = {
        name: ask_body[name] if _is(ask_body.get(name), types) else default
        for name, types, default in ECHOES
    }
    metadata = ask_body.get("metadata")
    return told | {
        "max_tool_calls": None,  # what chat cannot do is not said to be in force
        "top_logprobs": None,
        "id": context.id("resp"),
        "object": "response",
        "created_at": context.created_at,
        "status": status,
        "background": False,
        "error": failure and {"code": code(failure), "message": failure.message},
        "incomplete_details": reason and {"reason": reason},
        "metadata": {name: value for name, value in metadata.items() if isinstance(value, str)}
        if isinstance(metadata, dict)
        else {},
        "model": ask_body.get("model"),
        "output": list(output),
        "previous_response_id": None,
        "reasoning": _reasoning(ask_body),
        "service_tier": "default",
        "store": False,
        "text": _text(ask_body),
        "tool_choice": _tool_choice(ask_body, box),
        "tools": box.echo,
        "truncation": "disabled",
        "usage": usage,
    }


def _is(value: object, types: Any) -> bool:
    return isinstance(value, types) and (types is bool or not isinstance(value, bool))


def _reasoning(ask_body: dict[str, Any]) -> dict[str, Any]:
    asked = ask_body.get("reasoning") or {}
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    return {
        "effort": asked["effort"] if asked.get("effort") in efforts else None,
        "summary": asked["summary"]
        if asked.get("summary") in ("auto", "concise", "detailed")
        else None,
    }


def _text(ask_body: dict[str, Any]) -> dict[str, Any]:
    asked = ask_body.get("text") or {}
    return {"format": asked.get("format") or {"type": "text"}}


def _tool_choice(ask_body: dict[str, Any], box: tools.Toolbox) -> object:
    """What `tools.choice` made of it, in the caller's own shape."""
    asked = ask_body.get("tool_choice")
    if not box.functions or asked is None:
        return "auto"
    if isinstance(asked, dict) and asked["type"] not in ("function", "custom", "allowed_tools"):
        return "auto"
    if isinstance(asked, dict) and isinstance(asked.get(asked["type"]), dict):
        return {"type": asked["type"], **asked[asked["type"]]}
    return (
        {"mode": "auto", **asked}
        if isinstance(asked, dict) and asked["type"] == "allowed_tools"
        else asked
    )


def usage(told: dict[str, Any] | None) -> dict[str, Any] | None:
    """Chat's usage in the words of Responses; input includes what was cached.

    None if the answer tells none.
    """
    used = chat.usage({"usage": told})
    if told is None or used is None or used.input_tokens < 0 and used.output_tokens < 0:
        return None
    used = used.possible()
    return _counts(
        used.input_tokens,
        used.output_tokens,
        used.cached_tokens,
        used.cache_write_tokens + used.cache_write_1h_tokens,
        _detail(told, "completion_tokens_details", "reasoning_tokens"),
    )


def estimated(items: list[Item], input_tokens: int) -> dict[str, Any]:
    """Usage where the upstream told none: some clients cannot read an answer without it."""
    thought, said = (
        sum(estimate.text(item.text) for item in items if (item.kind == "reasoning") is of_thought)
        for of_thought in (True, False)
    )
    return _counts(input_tokens, thought + said, 0, 0, thought)


def _counts(read: int, wrote: int, cached: int, cache_write: int, thought: int) -> dict[str, Any]:
    return {
        "input_tokens": read,
        "output_tokens": wrote,
        "total_tokens": read + wrote,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write},
        "output_tokens_details": {"reasoning_tokens": thought},
    }


def _detail(raw: dict[str, Any], group: str, name: str) -> int:
    details = raw.get(group)
    return max(natural(details.get(name)), 0) if isinstance(details, dict) else 0


def code(err: RelayError) -> str:
    """The code of a failed answer.

    Codex asks again after most of them, but not after an invalid prompt.
    """
    if err.code in ("context_length_exceeded", "insufficient_quota"):
        return err.code
    if isinstance(err, RateLimited | UpstreamOverloaded):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(err, BadRequest | UpstreamRefused) else "server_error"
