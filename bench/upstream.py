"""The provider of the benchmark: a fast fake in a process of its own, so that it is never the
bottleneck.

What it answers stands in the caller's message, which passes every gateway unchanged: `events=150
rate=50` asks a stream for 150 events, 50 a second (rate 0: as fast as the connection takes them).
Each event carries the time at which it was sent, `@<ns>@` of the machine's monotonic clock, which
the reader at the other end compares with its own.

Run as `python -m bench.upstream`: prints its port, and serves until its standard input is closed.
"""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import time

WISH = re.compile(rb"events=(\d+) rate=(\d+)")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

USAGE = b'"usage":{"prompt_tokens":20,"completion_tokens":10,"total_tokens":30}'
ABOUT = b'"id":"chatcmpl-bench","created":1700000000,"model":"bench"'
PLAIN_BODY = (
    b'{"object":"chat.completion",%b,"choices":[{"index":0,"message":{"role":"assistant","content":"%b"},'
    b'"finish_reason":"stop"}],%b}'
) % (ABOUT, b"All happy relays are alike. " * 10, USAGE)
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(PLAIN_BODY),
    PLAIN_BODY,
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
CHUNK = b'data: {"object":"chat.completion.chunk",%b,"choices":[%%b]%%b}\n\n' % ABOUT
EVENT = CHUNK % (b'{"index":0,"delta":{"content":"@%d@ word"},"finish_reason":null}', b"")
FINISH = CHUNK % (b'{"index":0,"delta":{},"finish_reason":"stop"}', b"")
USAGE_EVENT = CHUNK % (b"", b"," + USAGE)
DONE = b"data: [DONE]\n\n"


def framed(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Provider(asyncio.Protocol):
    """One connection; requests one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self.loop = loop
        self.received = b""
        self.open, self.paused = True, False

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, _) -> None:
        self.open = False

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.rate == 0 and self.left:
            self.loop.call_soon(self.tick)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, blank, body = self.received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not blank or len(body) < int(length[1] if length else 0):
            return
        self.received = b""
        if b'"stream":true' in body or b'"stream": true' in body:
            self.start_stream(body)
        else:
            self.transport.write(PLAIN)

    def start_stream(self, body: bytes) -> None:
        self.left, self.rate = map(int, WISH.search(body).groups())
        self.tail = FINISH + (USAGE_EVENT if b"include_usage" in body else b"") + DONE
        self.due = self.loop.time()
        self.transport.write(STREAM_HEAD)
        self.tick()

    def tick(self) -> None:
        """Send what is due, and come back for the next event."""
        if not self.open or (self.rate == 0 and self.paused):
            return
        if self.left == 0:
            self.transport.write(framed(self.tail) + b"0\r\n\r\n")
            return
        self.left -= 1
        self.transport.write(framed(EVENT % time.monotonic_ns()))
        if self.rate == 0:
            self.loop.call_soon(self.tick)
        else:
            self.due += 1 / self.rate
            self.loop.call_at(self.due, self.tick)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(loop), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    gc.disable()
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
