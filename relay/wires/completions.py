"""The wire `completions`: OpenAI's legacy text completions.

Owns the turning of a prompt into a chat request and of its answer into text. What a chat model
cannot do (several prompts, a suffix, log probabilities, the best of several) gets a clear 400 from
`to_chat`; an upstream that speaks completions itself is sent the caller's own request and may do
all of it.
"""

from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard

import msgspec

from relay import estimate
from relay.body import Ask, Body
from relay.errors import BadRequest, RelayError
from relay.wires import chat, reader, sse
from relay.wires.chat import (
    DONE,
    FORWARDED_HEADERS,
    HEADERS,
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
from relay.wires.reader import CUT, FILTERED, Piece

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

NAME = "completions"
PATH = "/completions"
TEXT_FIELDS = ("text",)

ALIKE = (
    "max_tokens",
    "n",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
)
FINISHES = {CUT: "length", FILTERED: "content_filter"}  # else stop

SAID = ("text", "refusal")  # pieces that are part of a completion; thoughts and calls are none

_encode = msgspec.json.Encoder().encode


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """A completions request. Its `chat` is None where a chat model cannot answer it: `to_chat` then
    says why.

    Raises BadRequest for what nobody could answer.
    """
    prompts = _prompts(body)
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object.", param="stream_options")
    if body.get("suffix") is not None and not isinstance(body["suffix"], str):
        raise BadRequest("'suffix' must be a string.", param="suffix")
    choices = [chat.count(body, name, most=chat.CHOICES_MAX) or 1 for name in ("n", "best_of")]
    if len(prompts) * max(choices) > chat.CHOICES_MAX:
        raise BadRequest(
            f"At most {chat.CHOICES_MAX} completions can be asked for at once.", param="prompt"
        )
    ask = Ask(
        model=chat.model(body),
        body=body,
        stream=chat.flag(body, "stream"),
        usage_asked=bool((options or {}).get("include_usage")),
        output_tokens_max=chat.count(body, "max_tokens"),
        choices=len(prompts) * max(choices),
        input_tokens=sum(map(_size, prompts)),
    )
    chat.flag(body, "echo")
    try:
        ask.chat = to_chat(body)
    except BadRequest:
        pass  # an upstream that speaks completions may still be able to
    return ask


def to_chat(body: dict[str, Any], key: bytes | str = "") -> dict[str, Any]:
    """The chat request. Raises BadRequest for what a chat model cannot do."""
    prompts = _prompts(body)
    if not isinstance(prompts[0], str):
        raise BadRequest("This model reads text, not tokens.", param="prompt")
    if len(prompts) > 1:
        raise BadRequest("This model answers one prompt at a time.", param="prompt")
    if body.get("suffix"):
        raise BadRequest("This model cannot fill in before a suffix.", param="suffix")
    if body.get("logprobs") is not None and body["logprobs"] is not False:  # 0 asks for some too
        raise BadRequest("This model gives no log probabilities.", param="logprobs")
    if (chat.count(body, "best_of") or 1) > (chat.count(body, "n") or 1):
        raise BadRequest(
            "This model cannot choose the best of several completions; ask for 'n'.",
            param="best_of",
        )
    request: dict[str, Any] = {
        "model": chat.model(body),
        "messages": [{"role": "user", "content": prompts[0]}],
    }
    request |= {name: body[name] for name in ALIKE if body.get(name) is not None}
    if chat.flag(body, "stream"):
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return request


def from_chat(doc: dict[str, Any], ask_body: dict[str, Any], context: Context) -> dict[str, Any]:
    """The text completion of a chat answer. Raises UpstreamError if the answer is none."""
    texts: dict[int, dict[str, Any]] = {}
    used = None
    for piece in reader.whole(doc):
        choice = texts.setdefault(piece.choice, _choice(piece.choice, _echo(ask_body)))
        if piece.kind in SAID:
            choice["text"] += piece.text
        elif piece.end:
            choice["finish_reason"] = FINISHES.get(piece.end.kind, "stop")
            used = piece.end.usage
    answer = _head(ask_body, context) | {"choices": list(texts.values())}
    return answer | ({"usage": _usage(used)} if used else {})


def stream_from_chat(
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[bytes]:
    """The events of a text completion, [DONE] included, or an error that the pieces raise."""
    head, used, echo = _head(ask_body, context), None, _echo(ask_body)
    echoed: set[int] = set()  # choices whose prompt has been echoed
    try:
        for piece in pieces:
            if piece is None or piece.kind not in (*SAID, "end"):
                yield KEEP_ALIVE
                continue
            text = "" if piece.choice in echoed else echo
            echoed.add(piece.choice)
            choice = _choice(piece.choice, text + ("" if piece.end else piece.text))
            if piece.end:
                choice["finish_reason"] = FINISHES.get(piece.end.kind, "stop")
                used = piece.end.usage
            yield sse.frame(_encode(head | {"choices": [choice]}))
    except RelayError as err:
        yield error_event(err, context.request_id)
        return
    if used and (ask_body.get("stream_options") or {}).get("include_usage"):
        yield sse.frame(_encode(head | {"choices": [], "usage": _usage(used)}))
    yield DONE


def as_events(doc: dict[str, Any]) -> list[bytes]:
    """A whole text completion as a stream: its chunks have the same shape."""
    return [sse.frame(_encode(doc)), DONE]


def _prompts(body: dict[str, Any]) -> list[str | list[int]]:
    """The prompts, each a text or tokens."""
    given = body.get("prompt")
    if isinstance(given, str):
        return [given]
    if _is_tokens(given):
        return [given]
    if not isinstance(given, list) or not given:
        raise BadRequest("'prompt' must be a text or a list of texts.", param="prompt")
    for index, prompt in enumerate(given):
        if not isinstance(prompt, str) and not _is_tokens(prompt):
            raise BadRequest("Each prompt must be a text.", param=f"prompt[{index}]")
    return given


def _is_tokens(given: object) -> TypeGuard[list[int]]:
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(token, int) and not isinstance(token, bool) for token in given)
    )


def _size(prompt: str | list[int]) -> int:
    return estimate.text(prompt) if isinstance(prompt, str) else len(prompt)


def _echo(ask_body: dict[str, Any]) -> str:
    return str(_prompts(ask_body)[0]) if ask_body.get("echo") is True else ""


def _head(ask_body: dict[str, Any], context: Context) -> dict[str, Any]:
    return {
        "id": context.id("cmpl"),
        "object": "text_completion",
        "created": context.created_at,
        "model": ask_body.get("model"),
    }


def _choice(index: int, text: str) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": None}


def _usage(counts: dict[str, Any]) -> dict[str, Any]:
    used = usage({"usage": counts})
    read_tokens, wrote = (max(used.input_tokens, 0), max(used.output_tokens, 0)) if used else (0, 0)
    return {
        "prompt_tokens": read_tokens,
        "completion_tokens": wrote,
        "total_tokens": read_tokens + wrote,
    }
