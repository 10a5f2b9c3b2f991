"""POST /responses/compact: the other way in which Codex has a conversation summed up.

Owns its two shapes. The request is a Responses request without a trigger, and the answer an object
`response.compaction` whose output stands for the conversation; everything between is `responses`'.
Codex calls a 404 here "high demand" and gives up on its session. It answers to the names of a wire,
and upstreams are asked in chat: hardly any has this address.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from relay import estimate
from relay.body import Ask, Body
from relay.errors import UpstreamError
from relay.wires import responses
from relay.wires.interface import NO_CONTEXT, Context, changes, complete
from relay.wires.reader import Piece
from relay.wires.responses import (
    DONE,
    FORWARDED_HEADERS,
    HEADERS,
    TEXT_FIELDS,
    as_events,
    clean,
    compaction,
    error,
    error_event,
    folded,
    plain,
    signs,
    signs_of,
    usage,
)

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
    "signs",
    "signs_of",
    "stream_from_chat",
    "to_chat",
    "usage",
]

NAME = "compact"
PATH = "/responses/compact"
BROKE_OFF = "The summary of the conversation broke off."


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """A request to sum up. Its answer is never a stream. Raises BadRequest, which names the place."""
    readable = to_chat(body, context.key)
    return Ask(
        model=readable["model"],
        body=body,
        stream=False,
        output_tokens_max=readable.get("max_tokens"),
        input_tokens=estimate.chat(readable),
        chat=readable,
    )


def to_chat(body: dict[str, Any], key: bytes | str = "") -> dict[str, Any]:
    """The conversation, and the request to sum it up. Raises BadRequest."""
    return responses.to_chat(_triggered(body), key, lenient=True) | {"stream": False}


def from_chat(doc: dict[str, Any], ask_body: dict[str, Any], context: Context) -> dict[str, Any]:
    """The summary as the only item that is left of the conversation. Raises UpstreamError."""
    answer = responses.from_chat(doc, _triggered(ask_body), context)
    if answer["status"] != "completed" or not any(
        item["type"] == "compaction" for item in answer["output"]
    ):
        raise UpstreamError(BROKE_OFF)
    return {
        "id": answer["id"],
        "object": "response.compaction",
        "created_at": answer["created_at"],
        "output": answer["output"],
        "usage": answer["usage"],
    }


def stream_from_chat(
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[bytes]:
    """Never called: no answer of this wire is a stream."""
    return responses.stream_from_chat(pieces, ask_body, context)


def _triggered(body: dict[str, Any]) -> dict[str, Any]:
    """The Responses request that asks for the same."""
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        return body  # `responses` says what is wrong with it
    return {**body, "input": [*items, {"type": compaction.TRIGGER}], "stream": False}
