"""The wire `completions`: OpenAI's legacy text completions.

Owns the turning of a prompt into a chat request and of its answer into text. What a chat model
cannot do (several prompts, a suffix, log probabilities, the best of several) gets a clear 400 from
`to_chat`; an upstream that speaks completions itself is sent the caller's own request and may do
all of it.
"""

from collections.abc import Iterable, Iterator

import msgspec

from relay import estimate
from relay.body import Ask, Body
from relay.errors import BadRequest, RelayError, UpstreamError
from relay.wires import chat, sse
from relay.wires.chat import clean, error, error_event, plain, signs, signs_of, usage

__all__ = [
    "DONE",
    "NAME",
    "PATH",
    "TEXTS",
    "WANTS",
    "as_events",
    "clean",
    "error",
    "error_event",
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
WANTS = ("created_at", "request_id")
TEXTS = ("text",)
DONE = chat.DONE
KEEP_ALIVE = b": keep-alive\n\n"

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
FINISHES = {
    "length": "length",
    "content_filter": "content_filter",
    "sensitive": "content_filter",
    "model_context_window_exceeded": "length",
    "insufficient_system_resource": "length",
    "network_error": "length",
}

_encode = msgspec.json.Encoder().encode


def read(body: Body) -> Ask:
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


def to_chat(body: dict) -> dict:
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
    request = {"model": chat.model(body), "messages": [{"role": "user", "content": prompts[0]}]}
    request |= {name: body[name] for name in ALIKE if body.get(name) is not None}
    if chat.flag(body, "stream"):
        request |= {"stream": True, "stream_options": {"include_usage": True}}
    return request


def from_chat(
    doc: dict, ask_body: dict, *, id: str | None = None, created_at: int | None = None
) -> dict:
    """The text completion of a chat answer.

    `id` ("cmpl-...") and `created_at` (seconds) are the answer's without.
    """
    choices, texts = doc.get("choices"), []
    for index, choice in enumerate(choices if isinstance(choices, list) else ()):
        if isinstance(choice, dict):
            text = _choice(choice, "message", index)
            texts.append(
                text
                | {
                    "text": _echo(ask_body) + text["text"],
                    "finish_reason": text["finish_reason"] or "stop",
                }
            )
    used = _usage(doc)
    return (
        _head(doc, ask_body, id, created_at)
        | {"choices": texts}
        | ({"usage": used} if used else {})
    )


def stream_from_chat(
    chunks: Iterable[dict | RelayError | None],
    ask_body: dict,
    *,
    id: str | None = None,
    created_at: int | None = None,
    request_id: str = "",
) -> Iterator[bytes]:
    """The events of a text completion, [DONE] included.

    `chunks`: parsed chat chunks; None for silence; a RelayError where the upstream died. It, or an
    end without a finish_reason, becomes an error event, after which there is no [DONE].
    """
    head, finished, used, echo = None, False, None, _echo(ask_body)
    told: set[int] = set()  # choices whose prompt has been echoed
    for chunk in chunks:
        if isinstance(chunk, RelayError):
            yield error_event(chunk, request_id)
            return
        if chunk is None:
            yield KEEP_ALIVE
            continue
        head = head or _head(chunk, ask_body, id, created_at)
        used = _usage(chunk) or used
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            text = _choice(choice, "delta", 0)
            if text["index"] not in told:
                text["text"] = echo + text["text"]
            told.add(text["index"])
            finished = finished or text["finish_reason"] is not None
            if text["text"] or text["finish_reason"]:
                yield sse.frame(_encode(head | {"choices": [text]}))
    if not finished:
        yield error_event(UpstreamError("The model's provider broke off its answer."), request_id)
        return
    if used and (ask_body.get("stream_options") or {}).get("include_usage"):
        yield sse.frame(_encode(head | {"choices": [], "usage": used}))
    yield DONE


def as_events(doc: dict) -> list[bytes]:
    """A whole text completion as a stream: its chunks have the same shape."""
    return [sse.frame(_encode(doc)), DONE]


def _prompts(body: dict) -> list[str | list[int]]:
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


def _is_tokens(given: object) -> bool:
    return (
        isinstance(given, list)
        and bool(given)
        and all(isinstance(token, int) and not isinstance(token, bool) for token in given)
    )


def _size(prompt: str | list[int]) -> int:
    return estimate.text(prompt) if isinstance(prompt, str) else len(prompt)


def _echo(ask_body: dict) -> str:
    return _prompts(ask_body)[0] if ask_body.get("echo") is True else ""


def _head(doc: dict, ask_body: dict, id: str | None, created_at: int | None) -> dict:
    theirs, made = doc.get("id"), doc.get("created")
    return {
        "id": id or (theirs if isinstance(theirs, str) and theirs else "cmpl-0"),
        "object": "text_completion",
        "created": created_at if created_at is not None else made if isinstance(made, int) else 0,
        "model": ask_body.get("model"),
    }


def _choice(choice: dict, name: str, index: int) -> dict:
    """A choice of chat as one of completions; `name` is where chat keeps the text.

    Message or delta.
    """
    told, finish, at = choice.get(name), choice.get("finish_reason"), choice.get("index")
    text = told.get("content") if isinstance(told, dict) else None
    finish = FINISHES.get(finish, "stop") if isinstance(finish, str) and finish else None
    return {
        "text": text if isinstance(text, str) else "",
        "index": at if isinstance(at, int) else index,
        "logprobs": None,
        "finish_reason": finish,
    }


def _usage(doc: dict) -> dict | None:
    used = usage(doc)
    if used is None:
        return None
    read_tokens, wrote = max(used.input_tokens, 0), max(used.output_tokens, 0)
    return {
        "prompt_tokens": read_tokens,
        "completion_tokens": wrote,
        "total_tokens": read_tokens + wrote,
    }
