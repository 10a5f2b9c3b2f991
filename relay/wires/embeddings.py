"""The wire `embeddings`: OpenAI's embeddings.

Owns what an embeddings request must look like, where its answer keeps usage, and the two encodings
of a vector. OpenAI's SDKs ask for base64 while many providers know floats only: upstreams are asked
for floats, `complete` encodes.
"""

import base64
import binascii
import struct
from typing import Any

from billing import Usage
from relay import estimate
from relay.body import Ask, Body
from relay.errors import BadRequest, UpstreamError
from relay.wires import chat
from relay.wires.chat import (
    DONE,
    FORWARDED_HEADERS,
    HEADERS,
    as_events,
    clean,
    error,
    error_event,
    folded,
    plain,
    signs,
)
from relay.wires.interface import NO_CONTEXT, Context, EventInfo
from relay.wires.usage import natural

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
    "plain",
    "read",
    "signs",
    "signs_of",
    "usage",
]

NAME = "embeddings"
PATH = "/embeddings"
TEXT_FIELDS: tuple[
    str, ...
] = ()  # vectors are no text: an answer without usage is charged by its input

INPUTS_MAX = 4096


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """An embeddings request. It has no output tokens, so it has no choices either.

    Raises BadRequest.
    """
    encoding = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise BadRequest("'encoding_format' must be float or base64.", param="encoding_format")
    chat.count(body, "dimensions")
    return Ask(model=chat.model(body), body=body, choices=0, input_tokens=_size(body.get("input")))


def changes(ask_body: dict[str, Any]) -> dict[str, Any]:
    """What upstreams are asked otherwise than the caller asked: for floats."""
    return {"encoding_format": "float"} if ask_body.get("encoding_format") == "base64" else {}


def complete(doc: dict[str, Any], ask_body: dict[str, Any]) -> dict[str, Any] | None:
    """The answer with what a caller may count on.

    The encoding asked for, an index and an object each, the model. Raises UpstreamError where there
    is not a vector for each input.
    """
    data = doc.get("data")
    if not isinstance(data, list):
        return None
    if len(data) != _count(ask_body.get("input")):
        raise UpstreamError("The model's provider did not give a vector for each input.")
    as_base64 = ask_body.get("encoding_format") == "base64"
    vectors = [
        {"object": "embedding", "index": index, **vector, "embedding": _encoded(vector, as_base64)}
        for index, vector in enumerate(data)
        if isinstance(vector, dict)
    ]
    return {
        "object": "list",
        **doc,
        "data": vectors,
        "model": doc.get("model") or ask_body.get("model"),
        "usage": _usage(doc),
    }


def usage(doc: dict[str, Any]) -> Usage | None:
    """Embeddings read and write nothing; some providers give the total only."""
    used = doc.get("usage")
    if not isinstance(used, dict):
        return None
    read_tokens = natural(used.get("prompt_tokens"))
    return Usage(read_tokens if read_tokens >= 0 else natural(used.get("total_tokens")), 0, 0)


def signs_of(doc: dict[str, Any]) -> EventInfo:
    """What an answer tells the spine."""
    return EventInfo(content=bool(doc.get("data")), usage=usage(doc), error=chat.error_in(doc))


def _count(inputs: object) -> int:
    """How many texts (or lists of tokens) an input holds."""
    if not isinstance(inputs, list) or all(_is_token(token) for token in inputs):
        return 1
    return len(inputs)


def _size(given: object) -> int:
    """An estimate of the input's LLM tokens; checks it on the way."""
    if isinstance(given, str) and given:
        return estimate.text(given)
    if not isinstance(given, list) or not given:
        raise BadRequest("'input' must be a text, a list of texts, or tokens.", param="input")
    if all(_is_token(token) for token in given):
        return len(given)
    if len(given) > INPUTS_MAX:
        raise BadRequest(f"'input' may hold at most {INPUTS_MAX} texts.", param="input")
    size = 0
    for index, text in enumerate(given):
        if isinstance(text, str) and text:
            size += estimate.text(text)
        elif isinstance(text, list) and text and all(_is_token(token) for token in text):
            size += len(text)
        else:
            raise BadRequest(
                "Each input must be a text or tokens, and not empty.", param=f"input[{index}]"
            )
    return size


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _encoded(vector: dict[str, Any], as_base64: bool) -> object:
    """The vector as asked for; what is neither floats nor base64 stays what it is."""
    given = vector.get("embedding")
    try:
        if as_base64 and isinstance(given, list):
            return base64.b64encode(struct.pack(f"<{len(given)}f", *given)).decode()
        if not as_base64 and isinstance(given, str):
            packed = base64.b64decode(given, validate=True)
            return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    except (struct.error, binascii.Error, ValueError, OverflowError):
        pass
    return given


def _usage(doc: dict[str, Any]) -> dict[str, Any]:
    used = usage(doc)
    read_tokens = max(used.input_tokens, 0) if used else 0
    return {"prompt_tokens": read_tokens, "total_tokens": read_tokens}
