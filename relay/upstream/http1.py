"""HTTP/1.1 to upstreams: a request goes out over a line, its answer is read as it comes.

Owns the connections that are kept for the next call, and the framing of both directions; what an
answer's bytes mean is httptools' (Node's parser). It knows no redirects or cookies: nothing of the
outside leaks in. It is here because the general libraries were a third of a call's work, and cannot
be cut from another thread while they wait for headers.
"""

import functools
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httptools

from relay.upstream import coding
from relay.upstream.connection import Connection, come, connect, readable
from turns import resting, sendall

READ_BYTES = 16384  # what a TLS record holds
FEW_BYTES = 2048  # hundreds of streams that say little each wait with a buffer of this size
HEAD_BYTES_MAX = 65536  # of an answer's status and headers
KEPT_IDLE_S = (
    55.0  # a kept connection is used again within this time: most servers close after a minute
)
STALE_S = 1.0  # a kept connection that ends sooner was closed before it was used
BODILESS = (204, 304)
PORTS = {"http": 80, "https": 443}


class ProtocolError(OSError):
    """What came is no HTTP answer, or broke off."""


class ServerDisconnected(OSError):
    """The connection ended before a single byte of an answer."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an address leads."""

    secure: bool
    host: str
    port: int
    start: bytes  # of every request to this address: its first line and its Host


class Rested(NamedTuple):
    """A connection that waits for the next call."""

    socket: socket.socket
    since: float
    patience_s: float | None  # what its reads may take


@functools.lru_cache(512)
def place_of(url: str) -> Origin:
    """The place of an http or https address. Raises ValueError."""
    parts = urlsplit(url)
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        path += "?" + quote(parts.query, safe="/?%:@!$&'()*+,;=~")
    host = parts.netloc.rpartition("@")[2]
    host = host if host.isascii() else host.encode("idna").decode()
    return Origin(
        parts.scheme == "https",
        parts.hostname or "",
        parts.port or PORTS[parts.scheme],
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\n".encode("ascii"),
    )


class ConnectionPool:
    """Sends requests; keeps up to `kept_max` connections to a place for later ones.

    Safe to use from many threads.
    """

    def __init__(self, kept_max: int):
        self._kept_max = kept_max
        self._kept: dict[tuple, deque[Rested]] = defaultdict(deque)
        self._lock = threading.Lock()

    def post(
        self,
        line: Connection,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        connect_s: float,
        answer_s: float,
    ) -> "HTTPResponse":
        """The answer to a POST, once its status and headers are there, which they must be within
        `answer_s`.

        Raises OSError: TimeoutError when it took too long, ProtocolError for what cannot be read.
        """
        place, started = place_of(url), time.monotonic()
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = b"%b%b\r\n%b" % (place.start, lines.encode("latin-1"), body)
        kept = self._take(place, line.proxy)
        if kept is not None:
            line.attach(kept.socket, kept.patience_s)
            try:
                return self._exchange(line, place, kept.socket, request, answer_s)
            except ServerDisconnected:
                if line.left or time.monotonic() - started > STALE_S:
                    raise
                # A kept connection that the provider closed in this very moment: it has read
                # nothing of this.
        with resting():
            sock = connect(line, place.host, place.port, place.secure, connect_s)
        return self._exchange(line, place, sock, request, answer_s)

    def get(
        self,
        line: Connection,
        url: str,
        headers: Mapping[str, str],
        connect_s: float,
        answer_s: float,
    ) -> "HTTPResponse":
        """The answer to a GET over a connection of its own. Raises as `post` does."""
        place = place_of(url)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = b"GET%b%b\r\n" % (place.start.removeprefix(b"POST"), lines.encode("latin-1"))
        sock = connect(line, place.host, place.port, place.secure, connect_s)
        return self._exchange(line, place, sock, request, answer_s)

    def keep(self, place: Origin, line: Connection, sock: socket.socket) -> None:
        """Take a line's connection back that has nothing more to say, and close those that have
        waited too long."""
        now = time.monotonic()
        with self._lock:
            kept = self._kept[place.secure, place.host, place.port, line.proxy]
            kept.append(Rested(sock, now, line.patience_s))
            over = [kept.popleft() for _ in range(len(kept) - self._kept_max)]
            while kept and now - kept[0].since > KEPT_IDLE_S:
                over.append(kept.popleft())
        for each in over:
            each.socket.close()

    def _take(self, place: Origin, proxy: str) -> Rested | None:
        """The connection that was used last, if it still stands; those that do not are closed."""
        kept = self._kept.get((place.secure, place.host, place.port, proxy))
        while kept:
            with self._lock:
                last = kept.pop() if kept else None
            if last is None:
                break
            try:
                rested_s = time.monotonic() - last.since
                if rested_s < KEPT_IDLE_S and not readable(last.socket, 0):
                    return last
            except (OSError, ValueError):
                pass
            last.socket.close()
        return None

    def _exchange(
        self, line: Connection, place: Origin, sock: socket.socket, request: bytes, answer_s: float
    ) -> "HTTPResponse":
        end_at = time.monotonic() + answer_s
        answer = HTTPResponse(line, sock, lambda: self.keep(place, line, sock))
        try:
            line.wait_at_most(answer_s)
            try:
                sendall(sock, request)
            except (BrokenPipeError, ConnectionResetError):
                pass  # perhaps it has answered before it had read everything
            except BlockingIOError:
                raise TimeoutError("the request was not taken in time") from None
            answer.await_head(end_at)
            return answer
        except TimeoutError:
            answer.close()
            raise
        except OSError as err:
            answer.close()
            if answer.heard:
                raise
            raise ServerDisconnected("the connection ended without an answer") from err


class HTTPResponse:
    """One answer: `status` and `headers` (names in lower case), and its body piece by piece."""

    def __init__(self, line: Connection, sock: socket.socket, keep):
        self.status = 0
        self.headers: dict[str, str] = {}
        self._line, self._sock, self._keep = line, sock, keep
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._packed: coding.Unpacker | None = None
        self._room = FEW_BYTES  # for the next read
        self._drained = False  # the last read took all that had come
        self._broken: ProtocolError | None = None  # what came behind the pieces cannot be read
        self.heard = False  # a byte of it has come
        self._head_done = self._ended = self._extra = self._reusable = self._closed = False

    def await_head(self, end_at: float) -> None:
        """Read until the headers are there. Raises OSError."""
        read_bytes = 0
        while not self._head_done:
            left_s = end_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("no answer in time")
            if read_bytes:
                self._line.wait_at_most(left_s)
            read_bytes += self._feed()
            if read_bytes > HEAD_BYTES_MAX and not self._head_done:
                raise ProtocolError("the answer's headers are too long")
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in coding.PLAIN and self.status not in BODILESS:
            self._packed = coding.Unpacker(encoding)

    def read(self, wait: bool = True) -> bytes | None:
        """The next bytes of the body, unpacked, as soon as there are any; b"" at its end.

        Without `wait` None where nothing has come that could be read. Raises OSError.
        """
        if self._packed is None:
            return self._read(wait)
        while not (data := self._packed.more()):
            packed = self._read(wait)
            if packed is None:
                return None
            if not packed:
                self._packed.finish()
                return b""
            self._packed.give(packed)
        return data

    def fileno(self) -> int:
        """The descriptor by which more of the answer comes."""
        return self._sock.fileno()

    def _read(self, wait: bool) -> bytes | None:
        waits_since = 0.0  # since then only framing has come
        while not self._pieces and not self._ended:
            count = self._feed(wait)
            if count is None:
                return None
            if count and not self._pieces:
                waits_since = waits_since or time.monotonic()
                patience_s = self._line.patience_s
                if patience_s is not None and time.monotonic() - waits_since > patience_s:
                    raise TimeoutError("nothing but framing came")
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return data

    def at_end(self, seconds: float) -> bool:
        """Whether the body is over, or ends within this time without another byte.

        Raises OSError.
        """
        while not self._ended and not self._pieces and not self._line.silent(seconds):
            self._feed()
        return self._ended and not self._pieces

    def close(self) -> None:
        """Let the connection go: it is kept if the body was read to its end."""
        if self._closed:
            return
        self._closed = True
        self._parser = None  # it knows us, and we it: who waits for the garbage collector costs
        if self._line.detach() and self._ended and self._reusable and not self._extra:
            self._keep()
        else:
            self._sock.close()

    def _feed(self, wait: bool = True) -> int | None:
        """Read once, and let the parser see it; how many bytes there were. Without `wait` None where
        nothing has come. Raises OSError."""
        if self._broken is not None:
            raise self._broken
        try:
            if wait:
                with resting():
                    data = self._sock.recv(self._room)
            elif (data := self._come()) is None:
                return None
        except BlockingIOError:  # the kernel's way to say that it has waited long enough
            raise TimeoutError("nothing came in time") from None
        if not data:
            self._close_framed()
            return 0
        self.heard = True
        if len(data) == self._room:  # there may be more
            self._room = READ_BYTES
        elif len(data) < FEW_BYTES:
            self._room = FEW_BYTES
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as err:
            if self._ended:
                self._extra = True
                return len(data)
            self._broken = ProtocolError(f"no HTTP answer: {err}")
            if not self._pieces:  # else they are read first: they may be the end of a stream
                raise self._broken from None
        return len(data)

    def _come(self) -> bytes | None:
        """What has come, None if nothing has. Of what came last a part of the room was left, so that
        there is nothing more: to look again would only cost."""
        if self._drained:
            self._drained = False
            return None
        data = come(self._sock, self._room)
        self._drained = data is not None and 0 < len(data) < self._room
        return data

    def _close_framed(self) -> None:
        """The other side has closed.

        The end of a body that says nothing of its length, else a break.
        """
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if not self._head_done or framed:
            raise ProtocolError("the connection was closed before the answer was complete")
        self._ended = True

    # What httptools calls

    def on_message_begin(self) -> None:
        self._extra = self._ended

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # else it is a trailer
            self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._head_done:
            return
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:  # the real one follows
            self.headers.clear()
        else:
            self._head_done = True

    def on_body(self, data: bytes) -> None:
        if not self._ended:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._head_done and not self._ended:
            self._ended, self._reusable = True, self._parser.should_keep_alive()
