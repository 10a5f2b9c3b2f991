"""The wire `chat`: OpenAI Chat Completions, and the hub that the other wires are turned into.

Owns what a chat request must look like, where chat answers keep their usage, and how a provider's
stream is made clean. It decides nothing about money, members or targets. Facts: OpenAI's API
reference for the shapes; what providers really send is pinned down by the fixtures of
tests/test_contract.py.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from billing import Usage
from relay import estimate
from relay.body import Ask, Body
from relay.errors import BadRequest, RelayError
from relay.wires import reader, sse
from relay.wires import usage as wire_usage
from relay.wires.folding import completion as folded
from relay.wires.interface import NO_CONTEXT, Context, EventInfo, changes
from relay.wires.reader import error_in

NAME = "chat"
PATH = "/chat/completions"
TEXT_FIELDS = ("content", "reasoning_content", "reasoning", "arguments", "refusal")
DONE = b"data: [DONE]\n\n"
HEADERS: dict[str, str] = {}
FORWARDED_HEADERS: tuple[str, ...] = ()

CHOICES_MAX = 16
COUNT_MAX = 2**31 - 1
SEARCH_TOOL = "$web_search"  # a built-in function of Moonshot: platform.kimi.ai/docs/pricing/tools

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
    "completed",
    "count",
    "error",
    "error_event",
    "error_in",
    "flag",
    "folded",
    "model",
    "parsed",
    "plain",
    "read",
    "signs",
    "signs_of",
    "usage",
    "with_deltas",
]

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
# Calls are seen for the sake of their numbers, the rest of the second line for that of odd providers.
_notable = re.compile(
    rb'"usage"\s*:\s*\{|"error"|"finish_reason"\s*:\s*"|\[DONE\]|\r|\n(?!data: \{|\n|\Z)'
    rb'|"tool_calls"\s*:\s*[\[{]\s*["{]|"function_call"\s*:\s*\{'
    rb'|"message"\s*:\s*\{|"role"\s*:\s*""|"content"\s*:\s*\['
).search
# What the pattern looks for, as plain words; and fields of which only these values are not looked for.
_WORDS = (
    *(b'"usage"', b'"error"', b'"tool_calls"', b'"function_call"', b'"message"'),
    *(b"[DONE]", b"\r"),
)
_CALM = (
    (b'"finish_reason"', (b'"finish_reason":null',)),
    (b'"content"', (b'"content":"', b'"content":null')),
    (b'"role"', (b'"role":"assistant"',)),
)


def read(body: Body, context: Context = NO_CONTEXT) -> Ask:
    """A chat request, checked as far as the relay depends on it.

    The rest is the provider's to judge.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a list with at least one message.", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise BadRequest("A message must be an object.", param=f"messages.{index}")
        if not isinstance(message.get("role"), str):
            raise BadRequest("A message needs a role.", param=f"messages.{index}.role")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object.", param="stream_options")
    limits = [count(body, name) for name in ("max_completion_tokens", "max_tokens")]
    return Ask(
        model=model(body),
        body=body,
        stream=flag(body, "stream"),
        usage_asked=bool((options or {}).get("include_usage")),
        output_tokens_max=max((limit for limit in limits if limit is not None), default=None),
        choices=count(body, "n", most=CHOICES_MAX) or 1,
        input_tokens=estimate.chat(body),
    )


def model(body: Mapping[str, Any]) -> str:
    """The model that a request names; BadRequest if it names none."""
    name = body.get("model")
    if not isinstance(name, str) or not name.strip():
        raise BadRequest("'model' must be the id of a model.", param="model")
    return name.strip()


def flag(body: Mapping[str, Any], name: str) -> bool:
    """A member that may be true, false, null or absent."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise BadRequest(f"'{name}' must be true or false.", param=name)


def count(body: Mapping[str, Any], name: str, most: int = COUNT_MAX) -> int | None:
    """A member that may be a number from 1 to `most`, null or absent.

    Quantities multiply money: no other is let in.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadRequest(f"'{name}' must be a whole number from 1 to {most}.", param=name)
    return value


def usage(doc: dict[str, Any]) -> Usage | None:
    """What an answer or a chunk says was used, or None if it says nothing.

    It stands in `usage` or, at Moonshot, in `choices[0].usage`. A count that is no natural number
    is given as -1: the meter estimates it. Moonshot bills a call of its search tool, which stands
    only among the calls.
    """
    searched = int(SEARCH_TOOL in _called(doc))
    used = doc.get("usage")
    if not isinstance(used, dict):
        choices = doc.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        used = first.get("usage") if isinstance(first, dict) else None
    if not isinstance(used, dict):
        return Usage(-1, 0, -1, searches=searched) if searched else None
    read_usage = wire_usage.of(
        used,
        used.get("prompt_tokens_details"),
        used.get("prompt_tokens"),
        used.get("completion_tokens"),
    )
    return replace(read_usage, searches=read_usage.searches + searched) if searched else read_usage


def _called(doc: dict[str, Any]) -> Iterator[str]:
    """The names of the tools that a chunk or an answer calls."""
    choices = doc.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        words = isinstance(choice, dict) and (choice.get("delta") or choice.get("message"))
        if isinstance(words, dict) and (words.get("tool_calls") or words.get("function_call")):
            yield from (name for kind, _, _, name, _ in reader.said(words) if kind == "call")


def error(err: RelayError, request_id: str) -> dict[str, Any]:
    """The error in OpenAI's shape."""
    return {
        "error": {"message": err.message, "type": err.type, "param": err.param, "code": err.code},
        "request_id": request_id,
    }


def error_event(err: RelayError, request_id: str) -> bytes:
    """The error as the last event of a stream. No [DONE] follows it."""
    return sse.frame(_encode(error(err, request_id)))


def signs(data: bytes) -> EventInfo:
    """What an event's data tells: an answer's chunk, or a whole answer."""
    if data.strip() == b"[DONE]":
        return EventInfo(done=True)
    doc = parsed(data)
    return EventInfo(error={"message": "not a JSON object"}) if doc is None else signs_of(doc)


def parsed(data: bytes) -> dict[str, Any] | None:
    """A chunk from the data of its event; None if it is no JSON object."""
    try:
        doc = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return doc if isinstance(doc, dict) else None


def signs_of(doc: dict[str, Any]) -> EventInfo:
    """The same of a parsed chunk or answer."""
    info = EventInfo(usage=usage(doc), error=error_in(doc), chunk=doc)
    choices = doc.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if not isinstance(choice, dict):
            continue
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict):
            parts = list(reader.said(delta))
            info.content |= bool(parts or delta.get("audio") or delta.get("images"))
            info.calls |= any(kind == "call" and name for kind, _, _, name, _ in parts)
        info.content |= bool(choice.get("text"))
        if isinstance(choice.get("finish_reason"), str):
            info.finish = choice["finish_reason"]
    info.usage_only = info.usage is not None and not choices
    return info


def plain(chunk: bytes) -> bool:
    """True if these whole events can pass as they are: no usage, no error, no end, nothing to
    clean.

    This runs for every piece of every stream; parsing each event would cost four times as much.
    """
    shaped = chunk.startswith(b"data: {") and chunk.endswith(b"}\n\n")
    # What holds no choices is no answer, and may say why.
    answers = chunk.count(b'"choices":[') + chunk.count(b'"choices": [')
    return (
        shaped
        and answers == chunk.count(b"\n\ndata: {") + 1
        and (_calm(chunk) or not _notable(chunk))
    )


def _calm(chunk: bytes) -> bool:
    """Whether plain words are enough to see that nothing is notable, which takes a third of the
    pattern's time. It may say no too often: then the pattern looks."""
    return (
        not any(word in chunk for word in _WORDS)
        and chunk.count(b"\n") == 2 * chunk.count(b"\n\ndata: {") + 2
        and all(chunk.count(field) == sum(map(chunk.count, values)) for field, values in _CALM)
    )


def clean(event: bytes) -> bytes:
    """The event as chat clients can bear it: one `data: ` line, or comments.

    No event:, no id:, no CR. May be empty.
    """
    if event.startswith(b":"):
        return event.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = sse.data(event)
    return sse.frame(data) if data else b""


def complete(doc: dict[str, Any], ask_body: dict[str, Any]) -> dict[str, Any] | None:
    """The whole answer as clients know it; None if it is so already."""
    return reader.Reader().mended(doc, "message")


def completed(doc: dict[str, Any], model: str) -> dict[str, Any]:
    """An answer or chunk of a provider that leaves out what others send (quirk `spark_chunks`),
    with it put in.

    The last chunk is the one with usage; tool calls may come as one object.
    """
    whole = {"id": doc.get("sid") or "chatcmpl-0", "model": model, "created": 0, **doc}
    last, choices, given = usage(doc) is not None, [], doc.get("choices")
    for index, choice in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(choice, dict):
            continue
        place = "message" if "message" in choice else "delta"
        message = dict(choice[place]) if isinstance(choice.get(place), dict) else {}
        if isinstance(message.get("tool_calls"), dict):
            message["tool_calls"] = [{"index": 0, **message["tool_calls"]}]
        finish = ("tool_calls" if message.get("tool_calls") else "stop") if last else None
        choices.append({"index": index, "finish_reason": finish, **choice, place: message})
    plain_answer = any("message" in choice for choice in choices)
    return {
        "object": "chat.completion" if plain_answer else "chat.completion.chunk",
        **whole,
        "choices": choices,
    }


def as_events(doc: dict[str, Any]) -> list[bytes]:
    """A whole answer as the events of a stream, where the caller asked for one and got none."""
    return [sse.frame(_encode(with_deltas(doc))), DONE]


def with_deltas(doc: dict[str, Any]) -> dict[str, Any]:
    """A whole answer as a chunk."""
    choices = []
    for choice in doc["choices"]:
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        delta = message | reader.numbered(message) if isinstance(message, dict) else {}
        without = {name: value for name, value in choice.items() if name != "message"}
        choices.append({**without, "delta": choice.get("delta") or delta})
    return {**doc, "object": "chat.completion.chunk", "choices": choices}
