"""A chat answer as a Response object.

Owns the object, how an answer can end, and what a Responses caller is told of usage and errors.
"""

import time
import uuid
from collections.abc import Iterable

from relay import estimate
from relay.errors import (
    BadRequest,
    RateLimited,
    RelayError,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRefused,
)
from relay.wires import chat
from relay.wires.responses import compaction, conversation, tools
from relay.wires.responses.items import Item, Making, pieces

INCOMPLETE = {
    "length": "max_output_tokens",
    "model_context_window_exceeded": "max_output_tokens",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
}
FAILED = ("insufficient_system_resource", "network_error", "error")

# What is echoed: name, the types that are believed, what stands there otherwise.
ECHOES = (
    ("instructions", str, None),
    ("max_output_tokens", int, None),
    ("max_tool_calls", int, None),
    ("parallel_tool_calls", bool, True),
    ("prompt_cache_key", str, None),
    ("safety_identifier", str, None),
    ("temperature", int | float, 1.0),
    ("top_p", int | float, 1.0),
    ("top_logprobs", int, None),
    ("user", str, None),
)


def from_chat(
    doc: dict,
    ask_body: dict,
    *,
    id: str | None = None,
    created_at: int | None = None,
    key: bytes | str = b"",
    input_tokens: int = 0,
) -> dict:
    """The Response object of a chat answer to `ask_body`, a request that `to_chat` has taken.

    `id` of the answer ("resp_..."), from which all its items' ids are made; `created_at` in seconds
    since the epoch; `key` seals reasoning for callers that ask for it; `input_tokens`: what is told
    if the upstream tells no usage.
    """
    id, created_at = named(id, created_at)
    box = tools.read(ask_body)
    finish, told = _first(doc)
    wanted = making(id, ask_body, box, key)
    items = []
    for piece in pieces(told, wanted.compacts):
        item = Item(piece.kind)
        item.take(piece)
        items.append(item)
    failure = flaw(doc, finish, items) if told is not None else UpstreamError()
    status, reason = ("failed", None) if failure else ending(finish)
    output = [] if failure else _output(items, wanted, status)
    used = usage(doc) or (None if failure else estimated(items, input_tokens))
    return response(ask_body, box, id, created_at, status, output, used, failure, reason)


def _first(doc: dict) -> tuple[str | None, dict | None]:
    """(finish_reason, message) of the first choice."""
    choices = doc.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict):
        return None, None
    finish = first.get("finish_reason")
    return finish if isinstance(finish, str) else None, message


def _output(items: list[Item], wanted: Making, status: str) -> list[dict]:
    output = []
    for item in given(items, status, wanted):
        item.open(len(output), wanted)
        output.append(item.form(end_of(item, items, status)))
    return output


def end_of(item: Item, items: list[Item], status: str) -> str:
    """The status of an item of an answer with this status.

    Of what was cut, the last text and the calls cut short.
    """
    cut = not item.whole if item.kind == "call" else bool(items) and item is items[-1]
    return status if cut and status == "incomplete" else "completed"


def named(id: str | None, created_at: int | None) -> tuple[str, int]:
    return id or f"resp_{uuid.uuid4().hex}", int(time.time()) if created_at is None else created_at


def making(id: str, ask_body: dict, box: tools.Toolbox, key: bytes | str) -> Making:
    include = ask_body.get("include")
    wants_seal = isinstance(include, list) and "reasoning.encrypted_content" in include
    compacts = compaction.asked(ask_body)
    return Making(
        id.removeprefix("resp_"),
        box,
        key if wants_seal or compacts else b"",
        conversation.call_ids(ask_body),
        compacts,
    )


def ending(finish: str | None) -> tuple[str, str | None]:
    """(status, why it is incomplete) for a finish_reason; unknown ones count as an end."""
    reason = INCOMPLETE.get(finish or "")
    return ("incomplete", reason) if reason else ("completed", None)


def flaw(doc: dict, finish: str | None, items: list[Item]) -> RelayError | None:
    """What is wrong with an answer that came to its end.

    A turn that lost its calls must not look like a success.
    """
    if chat.error_in(doc) or finish in FAILED:
        return UpstreamError()
    calls = [item for item in items if item.kind == "call"]
    if calls and not any(call.name for call in calls) and finish not in INCOMPLETE:
        return UpstreamError("The model called a tool without naming it.")
    return None


def given(items: list[Item], status: str, wanted: Making) -> list[Item]:
    """The items that a caller gets. Freeform input that was cut short is kept back: someone might
    run it.

    An answer without any text or call gets an empty message: clients look for one.
    """
    for item in items:
        item.know(wanted)
    kept = [
        item
        for item in items
        if (item.name or item.kind != "call")
        and not (status == "incomplete" and item.raw and item.index < 0 and not item.whole)
    ]
    if status == "completed" and all(item.kind == "reasoning" for item in kept):
        kept.append(Item("text"))
    return kept


def response(
    ask_body: dict,
    box: tools.Toolbox,
    id: str,
    created_at: int,
    status: str,
    output: Iterable[dict] = (),
    usage: dict | None = None,
    failure: RelayError | None = None,
    reason: str | None = None,
) -> dict:
    """The object, as openai's SDK wants it.

    What the caller asked for is echoed, as far as it was understood.
    """
    told = {
        name: ask_body[name] if _is(ask_body.get(name), types) else default
        for name, types, default in ECHOES
    }
    metadata = ask_body.get("metadata")
    return told | {
        "id": id,
        "object": "response",
        "created_at": created_at,
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


def _is(value: object, types: type) -> bool:
    return isinstance(value, types) and (types is bool or not isinstance(value, bool))


def _reasoning(ask_body: dict) -> dict:
    asked = ask_body.get("reasoning") or {}
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    return {
        "effort": asked["effort"] if asked.get("effort") in efforts else None,
        "summary": asked["summary"]
        if asked.get("summary") in ("auto", "concise", "detailed")
        else None,
    }


def _text(ask_body: dict) -> dict:
    asked = ask_body.get("text") or {}
    told = {"format": asked.get("format") or {"type": "text"}}
    return (
        told | {"verbosity": asked["verbosity"]}
        if asked.get("verbosity") in ("low", "medium", "high")
        else told
    )


def _tool_choice(ask_body: dict, box: tools.Toolbox) -> object:
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


def usage(doc: dict) -> dict | None:
    """Chat's usage in the words of Responses; input includes what was cached.

    None if the answer tells none.
    """
    used = chat.usage(doc)
    if used is None or used.input_tokens < 0 and used.output_tokens < 0:
        return None
    raw = doc.get("usage") if isinstance(doc.get("usage"), dict) else doc["choices"][0]["usage"]
    cached = min(used.cached_tokens, max(used.input_tokens, 0))
    wrote_cache = max(
        _detail(raw, "prompt_tokens_details", "cache_write_tokens"),
        _detail(raw, "prompt_tokens_details", "cache_creation_input_tokens"),
    )
    return _counts(
        max(used.input_tokens, 0),
        max(used.output_tokens, 0),
        cached,
        wrote_cache,
        _detail(raw, "completion_tokens_details", "reasoning_tokens"),
    )


def estimated(items: list[Item], input_tokens: int) -> dict:
    """Usage where the upstream told none: some clients cannot read an answer without it."""
    thought, said = (
        sum(estimate.text(item.text) for item in items if (item.kind == "reasoning") is of_thought)
        for of_thought in (True, False)
    )
    return _counts(input_tokens, thought + said, 0, 0, thought)


def _counts(read: int, wrote: int, cached: int, cache_write: int, thought: int) -> dict:
    return {
        "input_tokens": read,
        "output_tokens": wrote,
        "total_tokens": read + wrote,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": cache_write},
        "output_tokens_details": {"reasoning_tokens": thought},
    }


def _detail(raw: dict, group: str, name: str) -> int:
    details = raw.get(group)
    return max(chat.natural(details.get(name)), 0) if isinstance(details, dict) else 0


def code(err: RelayError) -> str:
    """The code of a failed answer.

    Codex asks again after most of them, but not after an invalid prompt.
    """
    if err.code in ("context_length_exceeded", "insufficient_quota"):
        return err.code
    if isinstance(err, RateLimited | UpstreamOverloaded):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(err, BadRequest | UpstreamRefused) else "server_error"
