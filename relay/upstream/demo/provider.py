"""The built-in upstream `demo://`: a provider without a model, for trying the relay without any
key.

Owns how its answers travel: OpenAI's shapes, plain or streamed at a natural pace, read like a
connection. What is said stands in `relay.upstream.demo.answers`. It knows nothing of the relay: it
sees what a provider would see.
"""

import base64
import json
import operator
import re
import struct
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from zlib import crc32

import msgspec

from relay import estimate
from relay.upstream.demo.answers import DemoAnswer, answer
from relay.wires import sse
from turns import resting

EVENTS_PER_S = 45
CHOICES_MAX = 16
DIMENSIONS = 1024  # of a vector, if the request names no other number,
DIMENSIONS_MAX = 4096  # and the most
INPUTS_MAX = 2048  # texts in one embeddings request
EMBEDDED_CHARS = 20_000  # of each text

_encode = msgspec.json.Encoder().encode
_bits = re.compile(
    "\\s*(?:[\u3400-\u9fff]{1,2}|[^\\s\u3400-\u9fff]{1,12})|\\s+"
).findall  # about an LLM token each


class Demo:
    """Answers what is posted to `demo://` addresses. Safe to use from many threads."""

    def __init__(self, pace: float = 1.0):
        """`pace` 1 streams about as fast as a model, 2 takes twice the time, 0 does not wait at
        all."""
        self._pause_s = pace / EVENTS_PER_S

    def post(
        self, line, url: str, headers, body: bytes, connect_s: float, answer_s: float
    ) -> "DemoResponse":
        """The answer to a request. Errors are answers too; it raises nothing."""
        try:
            status, pieces = 200, _serve(url, body)
        except _Refused as err:
            status, pieces = (
                err.status,
                [
                    _encode(
                        {
                            "error": {
                                "message": str(err),
                                "type": "invalid_request_error",
                                "param": err.param,
                                "code": err.code,
                            }
                        }
                    )
                ],
            )
        answer = DemoResponse(status, pieces, self._pause_s)
        line.on_cut(answer.close)
        return answer


class DemoResponse:
    """An answer that arrives piece by piece, read like an `http1.HTTPResponse`.

    A list of pieces does not wait.
    """

    def __init__(self, status: int, pieces: Iterable[bytes], pause_s: float):
        streamed = not isinstance(pieces, list)
        self.status = status
        self.headers = {
            "content-type": "text/event-stream; charset=utf-8" if streamed else "application/json"
        }
        self._pieces = iter(pieces)
        self._pause_s = pause_s if streamed else 0
        self._due = time.monotonic()
        self._over = threading.Event()

    def read(self, wait: bool = True) -> bytes:
        """The next piece when its time has come; b"" at the end and after `close`. It always waits."""
        self._due += self._pause_s
        with resting():
            if self._over.wait(max(0.0, self._due - time.monotonic())):
                return b""
        piece = next(self._pieces, b"")
        if not piece:
            self._over.set()
        return piece

    def at_end(self, seconds: float) -> bool:
        """Whether everything was read."""
        return self._over.is_set()

    def close(self) -> None:
        """End the answer now. Callable from another thread: a read that waits returns b""."""
        self._over.set()


class _Refused(Exception):
    """The request is wrong; what is, in OpenAI's words."""

    def __init__(
        self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None
    ):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


def _serve(url: str, data: bytes) -> list[bytes] | Iterator[bytes]:
    """A whole document as a list of one piece, or a stream's events one by one."""
    path = url.partition("?")[0]
    serve = next(
        (
            each
            for end, each in (
                ("/chat/completions", _chat),
                ("/embeddings", _embeddings),
                ("/rerank", _rerank),
            )
            if path.endswith(end)
        ),
        None,
    )
    if serve is None:
        raise _Refused("Unknown address.", status=404, code="unknown_url")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError, TypeError):
        raise _Refused("The body is not valid JSON.") from None
    if not isinstance(body, dict):
        raise _Refused("The body must be a JSON object.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise _Refused("'model' must be the id of a model.", "model")
    return serve(body)


# ---- chat


@dataclass(slots=True)
class _DemoChoice:
    """One choice, cut into what its events carry: (kind, text) pairs.

    `calls` are the tools called.
    """

    bits: list[
        tuple[str | int, str]
    ]  # kind: a delta's member, or the number of the call whose arguments these are
    calls: list[str]
    finish: str
    output_tokens: int
    reasoning_tokens: int

    def said(self, kind: str | int) -> str:
        return "".join(text for each, text in self.bits if each == kind)


def _chat(body: dict) -> list[bytes] | Iterator[bytes]:
    _check_chat(body)
    choices = [_choice(body, answer(body, index)) for index in range(body.get("n") or 1)]
    name = sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[
        :24
    ]  # the same for the same request
    head = {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
    }
    if body.get("stream"):
        options = body.get("stream_options") or {}
        return _events(
            head | {"object": "chat.completion.chunk"},
            choices,
            name,
            _usage(body, choices) if options.get("include_usage") else None,
        )
    listed = [
        {
            "index": index,
            "message": _message(choice, f"{name}{index}"),
            "logprobs": None,
            "finish_reason": choice.finish,
        }
        for index, choice in enumerate(choices)
    ]
    return [
        _encode(
            head
            | {"choices": listed, "usage": _usage(body, choices), "system_fingerprint": "fp_demo"}
        )
    ]


def _check_chat(body: dict) -> None:
    """Raises _Refused for what OpenAI refuses, as far as it concerns what the demo does."""
    messages = body.get("messages")
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(each, dict) for each in messages)
    ):
        raise _Refused("'messages' must be a list of at least one message.", "messages")
    if not all(isinstance(message.get("role"), str) for message in messages):
        raise _Refused("A message needs a role.", "messages")
    for name, most in (("n", CHOICES_MAX), ("max_tokens", None), ("max_completion_tokens", None)):
        _check_count(body, name, most)
    if not isinstance(body.get("stream"), bool | None):
        raise _Refused("'stream' must be true or false.", "stream")
    options = body.get("stream_options")
    if options is not None and (not isinstance(options, dict) or not body.get("stream")):
        raise _Refused(
            "'stream_options' must be an object, and needs 'stream' to be true.", "stream_options"
        )
    temperature = body.get("temperature")
    if temperature is not None and not (
        isinstance(temperature, int | float) and 0 <= temperature <= 2
    ):
        raise _Refused("'temperature' must be a number from 0 to 2.", "temperature")


def _check_count(body: dict, name: str, most: int | None) -> None:
    value = body.get(name)
    if value is not None and (type(value) is not int or value < 1 or (most and value > most)):
        raise _Refused(
            f"'{name}' must be a whole number from 1{f' to {most}' if most else ''}.", name
        )


def _choice(body: dict, said: DemoAnswer) -> _DemoChoice:
    """The answer within `stop` and `max_tokens`."""
    text = _until_stop(said.text, body.get("stop"))
    bits = [("reasoning_content", bit) for bit in _bits(said.thoughts)] + [
        ("content", bit) for bit in _bits(text)
    ]
    for number, (_, arguments) in enumerate(said.calls):
        bits += [(number, ""), *((number, bit) for bit in _bits(arguments))]
    finish = "tool_calls" if said.calls else "stop"
    most = body.get("max_completion_tokens") or body.get("max_tokens")
    whole = _size(bits)
    if most is not None and whole > most:
        bits = bits[
            : max(
                1, bisect_right(range(len(bits)), most, key=lambda count: _size(bits[:count])) - 1
            )
        ]
        finish, whole = "length", most
    thoughts = estimate.text("".join(text for kind, text in bits if kind == "reasoning_content"))
    return _DemoChoice(bits, [name for name, _ in said.calls], finish, whole, min(whole, thoughts))


def _until_stop(text: str, stop: object) -> str:
    """The text before the first of the stop sequences."""
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    places = [text.find(each) for each in stops if isinstance(each, str) and each]
    return text[: min((place for place in places if place >= 0), default=len(text))]


def _size(bits: list[tuple[str | int, str]]) -> int:
    return estimate.text("".join(text for _, text in bits))


def _message(choice: _DemoChoice, call_id: str) -> dict:
    calls = [number for number in range(len(choice.calls)) if (number, "") in choice.bits]
    message = {
        "role": "assistant",
        "content": choice.said("content") if not choice.calls else None,
        "refusal": None,
    }
    if thoughts := choice.said("reasoning_content"):
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = [
            _call(choice, number, call_id, choice.said(number)) for number in calls
        ]
    return message


def _call(choice: _DemoChoice, number: int, call_id: str, arguments: str) -> dict:
    return {
        "id": f"call_{call_id}{number}",
        "type": "function",
        "function": {"name": choice.calls[number], "arguments": arguments},
    }


def _usage(body: dict, choices: list[_DemoChoice]) -> dict:
    read, written = estimate.chat(body), sum(choice.output_tokens for choice in choices)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": sum(choice.reasoning_tokens for choice in choices)
        },
    }


def _events(
    head: dict, choices: list[_DemoChoice], name: str, usage: dict | None
) -> Iterator[bytes]:
    """The stream: the choices in turn, then usage if it was asked for, then the end mark."""
    for deltas in zip_longest(
        *(_deltas(choice, f"{name}{index}") for index, choice in enumerate(choices))
    ):
        for index, delta in enumerate(deltas):
            if delta is not None:
                choice = {
                    "index": index,
                    "delta": delta[0],
                    "logprobs": None,
                    "finish_reason": delta[1],
                }
                yield sse.frame(_encode(head | {"choices": [choice]}))
    if usage:
        yield sse.frame(_encode(head | {"choices": [], "usage": usage}))
    yield b"data: [DONE]\n\n"


def _deltas(choice: _DemoChoice, call_id: str) -> Iterator[tuple[dict, str | None]]:
    """(delta, finish_reason) of one choice's events."""
    yield {"role": "assistant", "content": "" if not choice.calls else None}, None
    for kind, text in choice.bits:
        if isinstance(kind, str):
            yield {kind: text}, None
        elif not text:
            yield {"tool_calls": [{"index": kind} | _call(choice, kind, call_id, "")]}, None
        else:
            yield {"tool_calls": [{"index": kind, "function": {"arguments": text}}]}, None
    yield {}, choice.finish


# ---- embeddings


def _embeddings(body: dict) -> list[bytes]:
    given = body.get("input")
    if isinstance(given, str) or (
        isinstance(given, list) and given and all(type(each) is int for each in given)
    ):
        given = [given]
    if (
        not isinstance(given, list)
        or not 0 < len(given) <= INPUTS_MAX
        or not all(each and isinstance(each, str | list) for each in given)
    ):
        raise _Refused(
            "'input' must be a text that is not empty, or a list of such texts, or tokens.", "input"
        )
    _check_count(body, "dimensions", DIMENSIONS_MAX)
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise _Refused("'encoding_format' must be float or base64.", "encoding_format")
    vectors = (
        _vector(
            each if isinstance(each, str) else _encode(each).decode(),
            body.get("dimensions") or DIMENSIONS,
        )
        for each in given
    )
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector if encoding == "float" else _packed(vector),
        }
        for index, vector in enumerate(vectors)
    ]
    read = sum(estimate.text(each) if isinstance(each, str) else len(each) for each in given)
    return [
        _encode(
            {
                "object": "list",
                "data": data,
                "model": body["model"],
                "usage": {"prompt_tokens": read, "total_tokens": read},
            }
        )
    ]


def _rerank(body: dict) -> list[bytes]:
    """Documents by how alike their vectors and the query's are."""
    query, documents = body["query"], body["documents"]
    texts = [each["text"] if isinstance(each, dict) else each for each in documents]
    wanted = _vector(query, DIMENSIONS)
    scores = [round(sum(map(operator.mul, wanted, _vector(text, DIMENSIONS))), 6) for text in texts]
    order = sorted(range(len(texts)), key=lambda index: -scores[index])
    results = [{"index": index, "relevance_score": scores[index]} for index in order]
    read = sum(map(estimate.text, texts)) + estimate.text(query) * len(texts)
    return [
        _encode(
            {
                "model": body["model"],
                "results": results[: body.get("top_n") or None],
                "usage": {"prompt_tokens": read, "total_tokens": read},
            }
        )
    ]


def _vector(text: str, dimensions: int) -> list[float]:
    """A unit vector of the text's runs of three characters, hashed.

    Texts that look alike have vectors that do.
    """
    vector, text = [0.0] * dimensions, f"\0{text[:EMBEDDED_CHARS].lower()}\0"
    for at in range(len(text) - 2):
        place = crc32(text[at : at + 3].encode("utf-8", "surrogatepass"))
        vector[place % dimensions] += 1.0 if place >> 31 else -1.0
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
