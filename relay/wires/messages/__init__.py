"""The wire `messages`: Anthropic's Messages API around the chat hub.

Owns what the spine asks of a wire. The parts: `request` turns a request into chat, `answer` turns
chat's answer back, `names` has what both call differently, `native` reads upstreams that speak
Messages themselves. None of them knows of upstreams, members or money.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from relay import estimate
from relay.body import Ask, Body
from relay.errors import BadRequest, NotInChat
from relay.wires import chat
from relay.wires.folding import message as folded
from relay.wires.interface import NO_CONTEXT, Context, changes, complete
from relay.wires.messages.answer import error, error_event, frame, from_chat, stream_from_chat
from relay.wires.messages.native import as_events, plain, signs, signs_of, usage
from relay.wires.messages.request import to_chat
from relay.wires.named import clean

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
    "count_tokens",
    "error",
    "error_event",
    "folded",
    "from_chat",
    "model",
    "models",
    "plain",
    "read",
    "signs",
    "signs_of",
    "stream_from_chat",
    "to_chat",
    "usage",
]

NAME = "messages"
PATH = "/messages"
HEADERS = {"anthropic-version": "2023-06-01"}  # what upstreams that speak Messages want to see
FORWARDED_HEADERS = ("anthropic-version", "anthropic-beta")  # without its beta a member is refused
TEXT_FIELDS = ("text", "thinking", "partial_json")
DONE = frame({"type": "message_stop"})
PAGE_MAX = 1000  # models


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """A Messages request. Raises BadRequest, which names the place."""
    name, limit = chat.model(body), chat.count(body, "max_tokens")
    if limit is None:
        raise BadRequest("'max_tokens' is required.", param="max_tokens")
    try:
        readable = to_chat(body)
        request: dict[str, Any] | None = readable
    except NotInChat:  # an upstream that speaks Messages may be able to
        request, readable = None, to_chat(body, lenient=True)
    return Ask(
        model=name,
        body=body,
        stream=chat.flag(body, "stream"),
        output_tokens_max=limit,
        input_tokens=estimate.chat(readable),
        chat=request,
    )


def count_tokens(body: dict[str, Any]) -> int:
    """The estimated input tokens of a request, which needs no max_tokens here.

    Raises BadRequest.
    """
    return estimate.chat(to_chat(body, lenient=True))


def models(listed: Iterable[Any], asked: Mapping[str, str] = {}) -> dict[str, Any]:
    """Models in Anthropic's shape. Each has an `id`; `title`, `context` and `output_max` are told
    if it has them.

    `asked`: the query's `limit`, `after_id` and `before_id`; without a limit all come. Raises
    BadRequest.
    """
    data, more = _page([model(each) for each in listed], asked)
    return {
        "data": data,
        "has_more": more,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


def model(each: Any) -> dict[str, Any]:
    """One of them."""
    return {
        "type": "model",
        "id": each.id,
        "display_name": getattr(each, "title", None) or each.id,
        "created_at": "1970-01-01T00:00:00Z",  # Anthropic's own word for a date that is not known
        "lifecycle": "active",
        "max_input_tokens": getattr(each, "context", None),
        "max_tokens": getattr(each, "output_max", None),
    }


def _page(
    data: list[dict[str, Any]], asked: Mapping[str, str]
) -> tuple[list[dict[str, Any]], bool]:
    """The part of a list that is asked for, and whether there is more of it."""
    ids = [each["id"] for each in data]
    for name in ("after_id", "before_id"):
        if name in asked and asked[name] not in ids:
            raise BadRequest(f"'{name}' must be the id of a model.", param=name)
    limit = asked.get("limit", str(PAGE_MAX))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= PAGE_MAX):
        raise BadRequest(f"'limit' must be a whole number from 1 to {PAGE_MAX}.", param="limit")
    if "before_id" in asked:
        left = data[: ids.index(asked["before_id"])]
        return left[-int(limit) :], len(left) > int(limit)
    left = data[ids.index(asked["after_id"]) + 1 :] if "after_id" in asked else data
    return left[: int(limit)], len(left) > int(limit)
