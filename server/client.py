"""One client: a socket, the requests that come over it, and how long each may take.

Owns the order on a connection: what has come is parsed, what is whole is answered, and then the next.
HTTP is waitress': its parser reads requests.
"""

import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import InternalServerError

from server.request import Request
from server.task import Task
from turns import Pause, send_now, sendall

log = logging.getLogger("server")

READ_BYTES = 65536
UNREAD_S = 60.0  # a client that takes nothing for so long is gone
IDLE_S = 60.0  # between two requests, or two pieces of one
STRANGER_S = 60.0  # for a whole request of whom nobody knows yet
LINGER_S = 5.0  # for a client to read why it was refused, while it still sends
STRANGER_BYTES_MAX = 65536  # of a body; whoever sends more must be known


class Client:
    """One client. What waitress' tasks ask of a channel: `server`, `adj`, `addr`, `write_soon`,
    `check_client_disconnected`."""

    def __init__(self, server: Any, sock: socket.socket, addr: tuple):
        self.server, self.adj, self.sock, self.addr = server, server.adj, sock, addr
        self.fd = sock.fileno()
        self.claim = threading.Lock()  # who holds it has the connection to itself
        self.closed = False
        self.lingers_until: float | None = None  # refused: what still comes is thrown away
        self.since = self.begun = time.monotonic()  # the last byte; the first of this request
        self.request: Request | None = None  # one that is not whole yet
        self.known = False  # its sender may send a large body
        self.unread = b""  # requests that wait until their sender reads, or has his answer
        self._task: Task | None = None  # whose answer pauses
        self._gone_at: float | None = None  # if it takes nothing until then of what waits for it
        self._out: list[bytes | memoryview] = []

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self.request is None and not self.unread

    def overdue(self, now: float) -> bool:
        """Whether it has waited too long for what should come."""
        if self.lingers_until is not None:
            return now > self.lingers_until
        late = self.request is not None and not self.known and now - self.begun > STRANGER_S
        return late or now - self.since > IDLE_S

    @property
    def pause(self) -> Pause | None:
        """Where the answer that it is given waits."""
        return self._task.pause if self._task else None

    def go_on(self) -> bool:
        """Read what has come, and answer what is whole. Whether the connection is kept.

        It has a `pause` then if its answer is not over: that goes on with `resume`.
        """
        data, self.unread = self.unread or self._received(), b""
        if self.lingers_until is not None:  # one look an event: who sends on holds no thread
            return data != b"" and time.monotonic() < self.lingers_until
        while data:
            self.since = time.monotonic()
            data = data[self._parse(data) :]
            request = self.request
            if request is None or not request.completed:
                data = data or self._received()
                continue
            self.request = None
            if not request.empty:
                self.unread = data
                if not self._answer(request):
                    return self._end(request)
                if self.pause is not None:
                    return True
                self.unread = b""
            if data and not self._takes():
                self.unread = data  # who does not read his answers gets no more of them
                return True
            if not data:
                return True
        return data is None

    def resume(self) -> bool:
        """Go on with the answer that paused. Whether the connection is kept; see `go_on`."""
        assert self._task is not None
        request = self._task.request
        return self._served(self._task, self._task.resume) or self._end(request)

    def _end(self, request: Request) -> bool:
        """After the last request of a connection: whether the connection lingers, as it must where
        more has come that nobody will read."""
        return self._linger() if request.error or self.unread or self._received() else False

    def flush(self) -> None:
        """Send what has been written. Raises ClientDisconnected."""
        if not self._out:
            return
        data, self._out = b"".join(self._out), []
        try:
            sendall(self.sock, data)
        except OSError as err:
            raise ClientDisconnected from err

    def push(self) -> Pause | None:
        """Send what the client takes at once of what has been written. Where to wait for room if that
        is not all. Raises ClientDisconnected, also for who takes nothing for UNREAD_S."""
        if not self._out:
            return None
        # What was left over is not copied once more: it may be an event of megabytes.
        data, self._out = self._out[0] if len(self._out) == 1 else b"".join(self._out), []
        try:
            sent = send_now(self.sock, data)
        except OSError as err:
            raise ClientDisconnected from err
        if sent == len(data):
            self._gone_at = None
            return None
        self._out, now = [memoryview(data)[sent:]], time.monotonic()
        if sent or self._gone_at is None:
            self._gone_at = now + UNREAD_S
        elif now >= self._gone_at:
            raise ClientDisconnected
        return Pause.made(self.fd, self._gone_at, room=True)

    def write_soon(self, data) -> int:
        """Take bytes to send, or a file. Raises ClientDisconnected."""
        if not isinstance(data, ReadOnlyFileBasedBuffer):
            self._out.append(data)
            return len(data)
        with contextlib.closing(data):
            while piece := data.get(READ_BYTES, skip=True):
                self._out.append(piece)
                self.flush()
        return 0

    def check_client_disconnected(self) -> bool:
        """Whether the client has left, or will send nothing more. Callable from any thread."""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self.fd, select.POLLRDHUP)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Whoever has the claim closes it."""
        self.closed = True
        if self._task is not None:
            try:
                self._task.let_go()
            except Exception:
                log.exception("an answer that paused could not be ended")
        if self.request is not None:
            self.request.close()
        self.sock.close()

    def _received(self) -> bytes | None:
        """What has come; None if nothing has, b"" at the end."""
        try:
            return self.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _parse(self, data: bytes) -> int:
        """Let the parser see bytes; how many of them belong to this request."""
        if self.request is None:
            self.request, self.known, self.begun = Request(self.adj), False, self.since
        request = self.request
        headers_before = request.headers_finished
        count = request.received(data)
        if request.headers_finished and not headers_before and not request.error:
            self._headers_came(request)
        return count

    def _headers_came(self, request: Request) -> None:
        if request.chunked or request.content_length > STRANGER_BYTES_MAX:
            request.error = self.server.admit(request, self.addr[0])
            request.completed = request.error is not None
            self.known = request.error is None
        if request.expect_continue and not request.completed:
            request.expect_continue = False
            with contextlib.suppress(OSError):
                self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: Request) -> bool:
        """Serve a request; whether the connection may serve another, or the answer pauses."""
        task = (self.server.error_task if request.error else Task)(self, request)
        return self._served(task, task.service)

    def _served(self, task: WSGITask | ErrorTask, step: Callable[[], None]) -> bool:
        self._task, kept = None, False
        try:
            step()
            if isinstance(task, Task) and task.pause is not None:
                self._task = task
                return True
            self.flush()
            kept = not task.close_on_finish
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("a request could not be served")
            self._out.clear()
            if not task.wrote_header:
                self._say_sorry(task.request)
        task.request.close()
        return kept

    def _say_sorry(self, request: Request) -> None:
        failed = Request(self.adj)
        failed.version, failed.path = request.version, request.path
        failed.error = InternalServerError("")
        with contextlib.suppress(ClientDisconnected):
            self.server.error_task(self, failed).service()
            self.flush()

    def _linger(self) -> bool:
        """Say that no more will come. Were it closed with bytes unread, the client would hear of a
        reset and not read its answer."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        self.lingers_until = time.monotonic() + LINGER_S
        return True

    def _takes(self) -> bool:
        """Whether there is room for another answer on its way to the client."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        return bool(poll.poll(0))
