"""A scripted LLM provider: a real HTTP/1.1 server on a real socket that does exactly what a test
says.

It owns the bytes on the wire and when they leave. It knows nothing of the relay: a script is a list
of steps, and a step is one of

    dict, list     one SSE event, `data: {...}` and a blank line bytes          these bytes of the
    body, as they are Gate           wait here until the test opens the gate (or the peer leaves)
    function       called with the Line: `end`, `cut`, `reset` and `silence` below, or one of your
    own

The request is always read to its last byte before the script starts, so that a reset is the
script's and never the kernel's answer to unread data. Nothing here sleeps: tests wait for
`Request.gone`, `Gate.reached` or `FakeUpstream.wait_for`.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

PATIENCE_S = 120  # no script waits longer than this, so that a broken test ends

DONE = b"data: [DONE]\n\n"


class PeerLeft(Exception):
    """The other side closed or reset the connection while the script was still running."""


@dataclass
class Request:
    """One request as it arrived.

    `gone` is set when the peer has closed the connection that it came on.
    """

    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: bytes
    raw: bytes  # head and body, exactly as received
    gone: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)  # its script ran to the end

    @property
    def json(self):
        """The parsed body; ValueError if it is not JSON."""
        return json.loads(self.body)


class Gate:
    """A place in a script where the upstream stops.

    `reached` tells the test, `open()` lets it go on.
    """

    def __init__(self):
        self.reached = threading.Event()
        self._inside, self._outside = socket.socketpair()

    def open(self) -> None:
        self._outside.close()

    def __call__(self, line: Line) -> None:
        self.reached.set()
        line.wait_for(self._inside)


class Line:
    """One connection while a script runs on it.

    Sends bytes in the framing that the head announced.
    """

    def __init__(self, connection: socket.socket, stopped: socket.socket):
        self.connection = connection
        self.request: Request | None = None
        self.chunked = False
        self.keep_alive = True
        self.bytes_at_once = 0  # 0: each step in one piece
        self._stopped = stopped

    def send(self, payload: bytes) -> None:
        """Send a piece of the body.

        In one chunk, or in many small ones if `bytes_at_once` says so.
        """
        size = self.bytes_at_once or max(len(payload), 1)
        for start in range(0, len(payload), size):
            piece = payload[start : start + size]
            self.raw(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)

    def raw(self, data: bytes) -> None:
        """Send bytes without any framing."""
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise PeerLeft from error

    def wait_for(self, signal: socket.socket | None, seconds: float = PATIENCE_S) -> None:
        """Wait until `signal` is readable, or so long; PeerLeft if the peer closes first.

        None: just wait.
        """
        poll = select.poll()
        watched = [self.connection, self._stopped] + ([signal] if signal else [])
        for each in watched:
            poll.register(each, select.POLLIN)
        ready = {number for number, _ in poll.poll(seconds * 1000)}
        if ready and not (signal and signal.fileno() in ready):
            raise PeerLeft

    def run(self, steps) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self.send(step)
            elif isinstance(step, (dict, list)):
                self.send(event(step))
            else:
                step(self)


# Steps


def event(document, newline: str = "\n", prefix: str = "data: ") -> bytes:
    """One SSE event holding `document` as JSON (bytes are taken as they are)."""
    text = (
        document
        if isinstance(document, bytes)
        else json.dumps(document, ensure_ascii=False).encode()
    )
    return prefix.encode() + text + 2 * newline.encode()


def head(
    status: int = 200, framing: str | int = "chunked", **headers: str
) -> Callable[[Line], None]:
    """The status line and headers.

    `framing`: "chunked", "close" (ends with the connection) or a length.
    """

    def step(line: Line) -> None:
        lines = {"content_type": "application/json", "x_request_id": "upstream-1"} | headers
        line.chunked = framing == "chunked"
        line.keep_alive = framing != "close"
        if line.chunked:
            lines["transfer_encoding"] = "chunked"
        elif framing == "close":
            lines["connection"] = "close"
        else:
            lines["content_length"] = str(framing)
        text = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        line.raw(f"HTTP/1.1 {status} Scripted\r\n{text}\r\n".encode())

    return step


def end(line: Line) -> None:
    """The body is complete.

    The last chunk, or the end of the connection where that is the framing.
    """
    if line.chunked:
        line.raw(b"0\r\n\r\n")


def cut(line: Line) -> None:
    """Close in the ordinary way (FIN), but without the end of the body."""
    line.keep_alive = False


def reset(line: Line) -> None:
    """Close with RST."""
    line.keep_alive = False
    line.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def silence(line: Line) -> None:
    """Say nothing more until the peer leaves."""
    line.wait_for(None)
    line.keep_alive = False


# Whole scripts


def answer(document=None, status: int = 200, **headers: str) -> list:
    """A plain answer with a length. `document`: JSON-able, or bytes taken as they are."""
    body = (
        document
        if isinstance(document, bytes)
        else json.dumps(document, ensure_ascii=False).encode()
    )
    return [head(status, len(body), **headers), body]


def stream(
    *steps,
    done: bool = True,
    then=end,
    framing: str = "chunked",
    newline: str = "\n",
    prefix: str = "data: ",
    bytes_at_once: int = 0,
    **headers: str,
) -> list:
    """A stream of server-sent events that ends with `[DONE]` if `done`, and then as `then` says."""

    def cut_finely(line: Line) -> None:
        line.bytes_at_once = bytes_at_once

    def encoded(step):
        return event(step, newline, prefix) if isinstance(step, (dict, list)) else step

    start = head(framing=framing, **({"content_type": "text/event-stream"} | headers))
    last = [event(b"[DONE]", newline, prefix)] if done else []
    return [cut_finely, start, *map(encoded, steps), *last, then]


class FakeUpstream:
    """The server. Use it as a context manager; `url` is the base address for a configuration.

    `next(*scripts)` queues a script for each of the next requests; when the queue is empty
    `always(script)` answers. A script may also be a function of the Request that returns the steps.
    """

    def __init__(self):
        self.requests: list[Request] = []
        self.connections = 0
        self._arrived = threading.Condition()
        self._queue: deque = deque()
        self._always = answer({"error": {"message": "no script for this request"}}, status=500)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._stopped, self._stop = socket.socketpair()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True, name="fake-upstream").start()
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening (later connections are refused) and end every script that still waits."""
        self._stop.close()
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()

    def next(self, *scripts) -> FakeUpstream:
        self._queue.extend(scripts)
        return self

    def always(self, script) -> FakeUpstream:
        self._always = script
        return self

    def wait_for(self, count: int = 1, timeout_s: float = 60) -> Request:
        """The `count`-th request, as soon as it has arrived; AssertionError if it does not."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.requests) >= count, timeout_s):
                raise AssertionError(f"the upstream saw {len(self.requests)} requests, not {count}")
            return self.requests[count - 1]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        line, seen = Line(connection, self._stopped), []
        try:
            with connection, connection.makefile("rb") as reader:
                while line.keep_alive and (request := read_request(reader, connection)):
                    seen.append(request)
                    self._play(line, request)
        except (PeerLeft, OSError, ValueError):
            pass
        for request in seen:
            request.gone.set()

    def _play(self, line: Line, request: Request) -> None:
        with self._arrived:
            self.requests.append(request)
            script = self._queue.popleft() if self._queue else self._always
            self._arrived.notify_all()
        line.request, line.bytes_at_once = request, 0
        line.run(script(request) if callable(script) else script)
        request.finished.set()


def read_request(reader, connection: socket.socket) -> Request | None:
    """The next request of a connection, its body complete; None at the end of the connection."""
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        line = reader.readline()
        if not line:
            return None
        raw += line
    first, *lines = raw.decode("latin-1").rstrip().split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)
    }
    if headers.get("expect") == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if headers.get("transfer-encoding") == "chunked":
        body, wire = read_chunks(reader)
    else:
        length = int(headers.get("content-length", 0))
        body = wire = reader.read(length)
        if len(body) < length:
            return None
    return Request(method, path, headers, body, raw + wire)


def read_chunks(reader) -> tuple[bytes, bytes]:
    """A chunked body: its content, and its bytes as they stood on the wire."""
    body = wire = b""
    while True:
        size = reader.readline()
        piece = reader.read(int(size, 16) + 2)
        body, wire = body + piece[:-2], wire + size + piece
        if int(size, 16) == 0:
            return body, wire
