"""A provider for the soak that fails at random, and remembers what it did for whom.

It owns one listening socket. What a call is called stands in its message (`soak-000123`), so that
every attempt can be matched with the caller's side: `attempts` has, by that name, how each ended,
the text that was sent and the counts that were given.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from collections import defaultdict
from dataclasses import dataclass

NAME = re.compile(rb"soak-\d{7}")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
WORDS = (
    "relay",
    "记账",
    "streams",
    "你好",
    "well,",
    "and",
    "世界",
    "never",
    "counts",
    "twice",
    "🎉",
    "a",
    "promise",
)

# Fates and their weights. Good ones differ in where they write usage (OpenAI, DeepSeek, Moonshot,
# nobody).
GOOD = {"extra": 40, "finish": 15, "choice": 10, "none": 5}
BEFORE_CONTENT = {
    "reset": 5,
    "500": 4,
    "429": 3,
    "429 later": 0.3,
    "refused": 0.2,
    "arrears": 0.1,
    "silence": 0.5,
    "empty": 2,
    "garbage": 2,
    "error": 3,
    "page": 1,
}
IN_MIDSTREAM = {"broken": 3, "cut": 2, "error later": 2, "idle": 0.5}
FATES = GOOD | BEFORE_CONTENT | IN_MIDSTREAM
SILENT_S = 20

BUSY = {"error": {"message": "busy", "code": "rate_limit_exceeded"}}
SICK = {"error": {"message": "overloaded", "type": "server_error"}}
EMPTY = {
    "choices": [
        {"index": 0, "delta": {"content": ""}, "message": {"content": ""}, "finish_reason": "stop"}
    ]
}
ANSWERS = {  # fate -> status, body, a header
    "500": (500, {"error": {"message": "boom"}}, ""),
    "429": (429, BUSY, ""),
    "429 later": (429, BUSY, "retry-after: 1\r\n"),
    "refused": (
        401,
        {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}},
        "",
    ),
    "arrears": (400, {"error": {"message": "Access denied", "code": "Arrearage"}}, ""),
    "empty": (200, EMPTY, ""),
    "error": (200, SICK, ""),
    "garbage": (200, '{"choices": [', ""),
    "page": (200, "<html>Welcome</html>", ""),
}


EXPLICIT_SHARE = 0.4  # of the answers that tell what was used


@dataclass
class Attempt:
    """How a provider met one attempt.

    Its fate, what it said, and the counts it gave: plain input, cached, read from an explicit cache,
    written to one, output.
    """

    fate: str
    text: str = ""
    counts: tuple[int, int, int, int, int] | None = None
    whole: bool = False  # it was answered well and to the end


class Provider:
    """Listens from `start` to `stop`, in a thread of its own; `calm` lets it answer well."""

    def __init__(self, name: str, seed: int):
        self.name, self.port, self.calm = name, 0, False
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()

    def start(self) -> Provider:
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", backlog=512)
        )
        self.port = server.sockets[0].getsockname()[1]
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(await read_request(reader), writer):
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the relay has hung up
        finally:
            writer.close()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Meet one attempt; whether the connection can be used again."""
        fate = "extra" if self.calm else self._random.choices(list(FATES), list(FATES.values()))[0]
        attempt, streamed = Attempt(fate), json.loads(body).get("stream")
        self.attempts[NAME.search(body)[0].decode()].append(attempt)
        if fate in BEFORE_CONTENT:
            return await self._fail(fate, streamed, writer)
        return await (self._stream if streamed else self._plain)(attempt, writer)

    async def _fail(self, fate: str, streamed: bool, writer: asyncio.StreamWriter) -> bool:
        """Fail before the first content.

        In a stream half of what comes with a 200 comes as an event.
        """
        if fate == "silence":
            await asyncio.sleep(SILENT_S)
        if fate in ("reset", "silence"):
            writer.transport.abort()
            return False
        status, document, header = ANSWERS[fate]
        text = document if isinstance(document, str) else json.dumps(document)
        if status == 200 and streamed and self._random.random() < 0.5:
            writer.write(STREAM_HEAD + chunk(f": keep-alive\n\ndata: {text}\n\n") + LAST_CHUNK)
        else:
            writer.write(plain(status, text.encode(), header))
        return True

    async def _stream(self, attempt: Attempt, writer: asyncio.StreamWriter) -> bool:
        rng, count = self._random, self._random.randint(3, 40)
        writer.write(STREAM_HEAD)
        for _ in range(rng.randint(1, count - 1) if attempt.fate in IN_MIDSTREAM else count):
            word = " " + rng.choice(WORDS)
            attempt.text += word
            writer.write(chunk(event({"content": word})))
            await writer.drain()
            await asyncio.sleep(rng.random() * 0.02)
        if attempt.fate in IN_MIDSTREAM:
            return await self._break(attempt.fate, writer)
        writer.write(chunk(self._ending(attempt)) + LAST_CHUNK)
        attempt.whole = True
        return True

    async def _break(self, fate: str, writer: asyncio.StreamWriter) -> bool:
        if fate == "idle":
            await asyncio.sleep(SILENT_S)
        if fate == "broken":
            writer.transport.abort()
        if fate == "error later":
            writer.write(chunk(f"data: {json.dumps(SICK)}\n\n") + LAST_CHUNK)
        return fate == "error later"

    async def _plain(self, attempt: Attempt, writer: asyncio.StreamWriter) -> bool:
        rng = self._random
        await asyncio.sleep(rng.random() * 0.1)
        text = " ".join(rng.choices(WORDS, k=rng.randint(3, 60)))
        document = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
        }
        if attempt.fate in IN_MIDSTREAM:
            whole = plain(200, json.dumps(document).encode())
            writer.write(whole[: -len(text)])
            await writer.drain()
            writer.transport.abort()
            return False
        if attempt.fate != "none":
            document["usage"] = self._usage(attempt)
        attempt.text, attempt.whole = text, True
        writer.write(plain(200, json.dumps(document).encode()))
        return True

    def _ending(self, attempt: Attempt) -> str:
        """The last events of a good stream, with usage where this fate writes it."""
        usage = {} if attempt.fate == "none" else {"usage": self._usage(attempt)}
        finish = event(
            {},
            "stop",
            beside=usage if attempt.fate == "finish" else {},
            inside=usage if attempt.fate == "choice" else {},
        )
        extra = (
            f"data: {json.dumps({'id': '1', 'choices': [], **usage})}\n\n"
            if attempt.fate == "extra"
            else ""
        )
        return f"{finish}{extra}data: [DONE]\n\n"

    def _usage(self, attempt: Attempt) -> dict:
        """What was used, as OpenAI says it or, with an explicit cache, as Alibaba does."""
        given = self._random.randint(5, 60)
        cached, output = self._random.randint(0, given), self._random.randint(1, 200)
        details: dict = {"cached_tokens": cached}
        explicit = self._random.random() < EXPLICIT_SHARE
        written = self._random.randint(0, given - cached) if explicit else 0
        if explicit:
            details |= {"cache_type": "ephemeral", "cache_creation_input_tokens": written}
        read = cached if explicit else 0
        attempt.counts = given - cached - written, cached - read, read, written, output
        return {
            "prompt_tokens": given,
            "completion_tokens": output,
            "total_tokens": given + output,
            "prompt_tokens_details": details,
        }


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The body of the next request on a connection."""
    header = await reader.readuntil(b"\r\n\r\n")
    return await reader.readexactly(int(LENGTH.search(header)[1]))


def plain(status: int, body: bytes, header: str = "") -> bytes:
    """A whole answer that is no stream."""
    return (
        f"HTTP/1.1 {status} Scripted\r\ncontent-type: application/json\r\n{header}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def chunk(text: str) -> bytes:
    """One chunk of a chunked body."""
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(
    delta: dict,
    finish: str | None = None,
    *,
    beside: dict | None = None,
    inside: dict | None = None,
) -> str:
    """One event of a chat stream, with more members beside its choices or inside the one there is."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish} | (inside or {})
    document = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    return f"data: {json.dumps(document | (beside or {}))}\n\n"
