"""The wire `responses`: OpenAI's Responses API around the chat hub.

Owns what the spine asks of a wire. The parts: `request` and `conversation` turn a request into
chat, `tools` names tools both ways, `items`, `answer` and `stream` turn a chat answer back,
`sealed` lets callers carry reasoning and `compaction` a summary of what went before, `native` reads
upstreams that speak Responses themselves. None of them knows of upstreams, members or money.
Answers are not stored: what would need that gets a clear 400.
"""

import time
from typing import Any

import msgspec

from relay import estimate
from relay.body import Ask, Body
from relay.errors import NotInChat, RelayError
from relay.wires import chat, sse
from relay.wires.chat import FORWARDED_HEADERS, HEADERS
from relay.wires.folding import response as folded
from relay.wires.interface import NO_CONTEXT, Context, changes, complete
from relay.wires.named import clean
from relay.wires.responses import answer, tools
from relay.wires.responses.answer import from_chat
from relay.wires.responses.native import as_events, plain, signs, signs_of, usage
from relay.wires.responses.request import to_chat
from relay.wires.responses.stream import stream_from_chat

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
    "looks_like_responses",
    "plain",
    "read",
    "signs",
    "signs_of",
    "stream_from_chat",
    "to_chat",
    "usage",
]

NAME = "responses"
PATH = "/responses"
TEXT_FIELDS = ("delta",)  # `text` and `arguments` of the closing events say it all again
DONE = b""  # the event with the whole Response is the end

error = chat.error


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """A Responses request. Raises BadRequest, which names the place."""
    try:
        readable = to_chat(body, context.key)
        as_chat: dict[str, Any] | None = readable
    except NotInChat:  # an upstream that speaks Responses may be able to
        as_chat, readable = None, to_chat(body, context.key, lenient=True)
    return Ask(
        model=readable["model"],
        body=body,
        stream=chat.flag(body, "stream"),
        output_tokens_max=readable.get("max_tokens"),
        input_tokens=estimate.chat(readable),
        chat=as_chat,
    )


def count_tokens(body: dict[str, Any], key: bytes | str = b"") -> dict[str, Any]:
    """The estimated input tokens of a request, as OpenAI's /responses/input_tokens tells them.

    Raises BadRequest.
    """
    return {
        "object": "response.input_tokens",
        "input_tokens": estimate.chat(to_chat(body, key, lenient=True)),
    }


def error_event(err: RelayError, request_id: str) -> bytes:
    """The end of a stream that passed untouched until its upstream died."""
    context = Context(request_id, int(time.time()))
    failed = answer.response({"model": ""}, tools.Toolbox(), context, "failed", failure=err)
    return sse.frame(
        msgspec.json.encode({"type": "response.failed", "sequence_number": 0, "response": failed}),
        "response.failed",
    )


def looks_like_responses(body: dict[str, Any]) -> bool:
    """True for a Responses request that was posted to /chat/completions, as Cursor's agent mode
    does."""
    return "input" in body and not body.get("messages")
