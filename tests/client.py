"""A small raw client over http.client: what a member's tool does, and what a rude one does.

It owns the reading of answers and streams, independently of the relay's own code, and the one
assertion about the shape of errors. It knows no fixtures.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

TIMEOUT_S = (
    60  # only a broken relay takes so long; a busy machine takes much longer than an idle one
)
CHAT = "/api/v1/chat/completions"


@dataclass
class Answer:
    """A complete answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


class Stream:
    """An answer that is still arriving. `broken` says, once it is over, that it was cut off."""

    def __init__(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse):
        self._connection, self._response = connection, response
        self.status = response.status
        self._has_body = response._method != "HEAD" and response.status not in (204, 304)
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = b""  # all that was read so far
        self._seen = 0
        self.broken = False

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives."""
        try:
            while piece := self._response.read1(65536):
                self.body += piece
                yield piece
            self.broken = (
                len(self.body) < int(self.headers.get("content-length", 0)) and self._has_body
            )
        except (http.client.IncompleteRead, ConnectionError):
            self.broken = True

    def events(self) -> Iterator[bytes]:
        """Complete events with their blank line, comments included."""
        more = self.pieces()
        while True:
            while (end := self.body.find(b"\n\n", self._seen)) >= 0:
                one, self._seen = self.body[self._seen : end + 2], end + 2
                yield one
            if next(more, None) is None:
                return

    def documents(self) -> Iterator[dict]:
        """The parsed `data:` of the events, without `[DONE]`."""
        for each in self.events():
            for line in each.splitlines():
                if line.startswith(b"data:") and line[5:].strip() != b"[DONE]":
                    yield json.loads(line[5:])

    def next_event(self) -> bytes:
        return next(self.events())

    def read(self) -> bytes:
        """All of it, to the end."""
        for _ in self.pieces():
            pass
        return self.body

    def text(self) -> str:
        """The content of a chat stream, read to its end."""
        return "".join(
            choice.get("delta", {}).get("content") or ""
            for document in self.documents()
            for choice in document.get("choices") or []
        )

    def leave(self) -> None:
        """Close as a tool does whose user pressed Escape (FIN)."""
        self._response.close()
        self._connection.close()

    def reset(self) -> None:
        """Vanish with RST."""
        connection = self._connection.sock or self._response.fp.raw._sock
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.leave()


class Client:
    """Speaks to the server on `port` of this machine with one API token, a new connection for every
    call."""

    def __init__(self, port: int, token: str | None = None):
        self.port, self.token = port, token

    def _open(self, method: str, path: str, body=None, **headers: str):
        payload = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json"} if body is not None else {}
        if self.token:
            given["authorization"] = f"Bearer {self.token}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.request(method, path, payload, given)
        return connection

    def call(self, method: str, path: str, body=None, **headers: str) -> Answer:
        """One call, answered completely. `body`: JSON-able, or bytes as they are."""
        stream = self.open(method, path, body, **headers)
        stream.read()
        stream.leave()
        if stream.broken:
            raise ConnectionError(f"the answer broke off after {len(stream.body)} bytes")
        return Answer(stream.status, stream.headers, stream.body)

    def open(self, method: str, path: str, body=None, **headers: str) -> Stream:
        """One call whose answer is read piece by piece."""
        connection = self._open(method, path, body, **headers)
        return Stream(connection, connection.getresponse())

    def send(self, path: str, body, **headers: str) -> http.client.HTTPConnection:
        """Send a call and do not wait for any answer.

        `.close()` leaves while the server is still silent.
        """
        return self._open("POST", path, body, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, **headers)

    def post(self, path: str, body, **headers: str) -> Answer:
        return self.call("POST", path, body, **headers)

    def chat(self, text: str = "Say hello.", model: str = "test-model", **more) -> Answer:
        """A plain chat call; `more` are members of the request."""
        return self.post(CHAT, ask(text, model, **more))

    def chat_stream(self, text: str = "Say hello.", model: str = "test-model", **more) -> Stream:
        return self.open("POST", CHAT, ask(text, model, stream=True, **more))


def ask(text: str = "Say hello.", model: str = "test-model", **more) -> dict:
    """The body of a chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def assert_openai_error(answer, status: int, code: str | None, param: str | None = None) -> dict:
    """The one shape of errors on OpenAI's wires; the inner object is returned for closer looks."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"] and answer.request_id
    return error
