"""Connections: one epoll, and threads that each take a request from its first byte until its answer
is written, or has to wait.

Owns the sockets of callers, the threads, and for how long who may keep either. HTTP is waitress':
its parser reads requests, its tasks run the app.

Each connection waits in the epoll for one event, which wakes one thread. That thread alone has the
connection: it reads what has come, serves a request that is whole, writes the answer straight into
the socket, and lets the connection wait again. Nothing is handed from one thread to another but an
answer that pauses, which goes on as one of `server.streams`; and a connection that says nothing costs
nothing.
"""

import contextlib
import errno
import functools
import logging
import os
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import InternalServerError, build_http_date

from server.streams import Streams
from turns import Pause, sendall, turns

log = logging.getLogger("server")

READ_BYTES = 65536
ACCEPTS_MAX = 64  # connections taken at one event
UNREAD_MS_MAX = 60_000  # a client that takes nothing for so long is gone
IDLE_S = 60.0  # between two requests, or two pieces of one
STRANGER_S = 60.0  # for a whole request of whom nobody knows yet
LINGER_S = 5.0  # for a client to read why it was refused, while it still sends
LOOK_S = 5.0  # between two looks for connections that have waited too long
THREADS_IDLE_MAX = 16  # threads that wait for work and are kept
BACKLOG = 1024
STRANGER_BYTES_MAX = 65536  # of a body; whoever sends more must be known
OF_ADDRESS_MAX = 512  # connections
LAST_WORDS_S = 0.5  # for threads to send what their responses have left
ENDS_S = 1.0  # for threads whose sockets were cut
FULL_PAUSE_S = 0.05  # while the system has no more sockets
FIRST_GIVEN_FD = 3
PIECES_MAX = 16  # of one stream on end, while others wait
SEND_TIMEOUT = (
    socket.SOL_SOCKET,
    socket.SO_SNDTIMEO,
    struct.pack("ll", UNREAD_MS_MAX // 1000, 0),
)
WAITS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
CAN_WRITE = select.EPOLLOUT | select.EPOLLONESHOT


class Task(WSGITask):
    """A request for the app. Head and first piece go out together, each further piece at once.

    What waitress does for any app in many steps is done here for ours in few.
    """

    usual = False  # the answer says nothing of what is ours to say: its date, the connection
    pause: Pause | None = None  # the answer is not over: `resume` goes on with it

    def execute(self) -> None:
        environ = self.get_environment()
        environ["server.pauses"] = True
        self._answer = self.channel.server.application(environ, self._start)
        self._pieces = iter(self._answer)
        self._write_on()

    def resume(self) -> None:
        """Go on after a pause."""
        try:
            self._write_on()
            self.finish()
        except OSError:
            self.close_on_finish = True

    def finish(self) -> None:
        if self.pause is None:
            super().finish()

    def give_up(self) -> None:
        """End an answer that pauses: nobody will go on with it."""
        self._let_go()

    def _write_on(self) -> None:
        """Write pieces until the answer is over or pauses."""
        left = PIECES_MAX if self.pause is not None else -1
        self.pause = None
        try:
            for piece in self._pieces:
                if type(piece) is Pause:
                    self.pause = piece
                    return
                if piece:
                    self.write(piece)
                left -= 1
                if not left:
                    self.pause = Pause.for_more()
                    return
            said = self.content_length
            if said not in (None, self.content_bytes_written) and self.request.command != "HEAD":
                log.warning("an answer has %s of %s bytes", self.content_bytes_written, said)
                self.set_close_on_finish()  # or the client waits for the rest
        finally:
            if self.pause is None:
                self._let_go()

    def _let_go(self) -> None:
        if hasattr(self._answer, "close"):
            self._answer.close()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info=None) -> Callable:
        """WSGI's start_response. Raises ValueError for what would be more than one line each."""
        if exc_info and self.wrote_header:
            raise exc_info[1]
        text = "".join([status, *[name + value for name, value in headers]])
        if "\n" in text or "\r" in text:
            raise ValueError("a header of the answer has a line end in it")
        self.complete, self.status, self.response_headers = True, status, list(headers)
        said = {name.lower(): value for name, value in headers}
        if "content-length" in said:
            self.content_length = int(said["content-length"])
        self.usual = said.keys().isdisjoint(("date", "server", "connection"))
        return self.write

    def build_response_header(self) -> bytes:
        """The head: of answers that say their length, on connections that stay, a short way to it."""
        last = self.request.headers.get("CONNECTION", "").lower() == "close"
        sized = self.content_length is not None and self.has_body
        if not (self.usual and sized and self.version == "1.1") or last:
            return super().build_response_header()
        dated = [*self.response_headers, ("Date", _date(int(self.start_time)))]
        lines = [f"{name}: {value}\r\n" for name, value in dated]
        return f"HTTP/1.1 {self.status}\r\n{''.join(lines)}\r\n".encode("latin-1")

    def write(self, data: bytes) -> None:
        super().write(data)
        self.channel.flush()


class Client:
    """One client. What waitress' tasks ask of a channel: `server`, `adj`, `addr`, `write_soon`,
    `check_client_disconnected`."""

    def __init__(self, server: "Connections", sock: socket.socket, addr: tuple):
        self.server, self.adj, self.sock, self.addr = server, server.adj, sock, addr
        self.fd = sock.fileno()
        self.claim = threading.Lock()  # who holds it has the connection to itself
        self.closed = False
        self.lingers_until: float | None = None  # refused: what still comes is thrown away
        self.since = self.begun = time.monotonic()  # the last byte; the first of this request
        self.request: HTTPRequestParser | None = None  # one that is not whole yet
        self.known = False  # its sender may send a large body
        self.unread = b""  # requests that wait until their sender reads, or has his answer
        self._task: Task | None = None  # whose answer pauses
        self._out: list[bytes] = []

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

    def _end(self, request: HTTPRequestParser) -> bool:
        """After the last request of a connection: whether the connection lingers."""
        return self._linger() if request.error or self.unread else False

    def flush(self) -> None:
        """Send what has been written. Raises ClientDisconnected."""
        if not self._out:
            return
        data, self._out = b"".join(self._out), []
        try:
            sendall(self.sock, data)
        except OSError as err:
            raise ClientDisconnected from err

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
            self._task.give_up()
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
            self.request, self.known, self.begun = HTTPRequestParser(self.adj), False, self.since
        request = self.request
        headers_before = request.headers_finished
        count = request.received(data)
        if request.headers_finished and not headers_before and not request.error:
            self._headers_came(request)
        return count

    def _headers_came(self, request: HTTPRequestParser) -> None:
        if request.chunked or request.content_length > STRANGER_BYTES_MAX:
            request.error = self.server.admit(request, self.addr[0])
            request.completed = request.error is not None
            self.known = request.error is None
        if request.expect_continue and not request.completed:
            request.expect_continue = False
            with contextlib.suppress(OSError):
                self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _answer(self, request: HTTPRequestParser) -> bool:
        """Serve a request; whether the connection may serve another, or the answer pauses."""
        task = (self.server.error_task if request.error else Task)(self, request)
        return self._served(task, task.service)

    def _served(self, task: WSGITask | ErrorTask, step: Callable[[], None]) -> bool:
        self._task, kept = None, False
        try:
            step()
            self.flush()
            if isinstance(task, Task) and task.pause is not None:
                self._task = task
                return True
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

    def _say_sorry(self, request: HTTPRequestParser) -> None:
        failed = HTTPRequestParser(self.adj)
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


class Connections:
    """The listening sockets and all connections; `adj.threads` threads serve them at most.

    What waitress' tasks ask of a server: `adj`, `application`, `effective_port`, `server_name`.
    `admit(request, address)` gives waitress an error for a request whose body should not be read;
    `spared(address)` tells who may have any number of connections. Raises OSError for an address
    that cannot be listened on.
    """

    def __init__(
        self,
        adj: Adjustments,
        application: Callable,
        error_task: type[ErrorTask],
        admit: Callable,
        spared: Callable[[str], bool],
    ):
        self.adj, self.application, self.error_task = adj, application, error_task
        self.admit, self._spared, self.server_name = admit, spared, adj.server_name
        self._listeners = {sock.fileno(): sock for sock in _listening(adj.listen)}
        self.effective_port = next(iter(self._listeners.values())).getsockname()[1]
        self._epoll = select.epoll()
        self._bell, self._bell_pull = socket.socketpair()
        self._epoll.register(self._bell, select.EPOLLIN)  # wakes every thread, to end
        self._all: dict[int, Client] = {}
        self._by_address: Counter = Counter()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._waiting, self._stopped = 0, threading.Event()
        self._streams = Streams(self._resume)

    @property
    def busy(self) -> int:
        """Threads that serve somebody now."""
        with self._lock:
            return len(self._threads) - self._waiting

    def serve(self) -> None:
        """Serve in threads until `stop`; this one looks after connections that wait too long."""
        for fd in self._listeners:
            self._epoll.register(fd, WAITS)
        self._add_thread()
        while not self._stopped.wait(LOOK_S):
            self._close_overdue()
        self._bell_pull.send(b"!")
        self._streams.stop(LAST_WORDS_S)
        self._join(LAST_WORDS_S)
        for each in [*self._all.values()]:
            with contextlib.suppress(OSError):
                each.sock.shutdown(socket.SHUT_RDWR)
        self._join(ENDS_S)
        for each in [*self._all.values()]:
            self._close(each)
        for sock in (*self._listeners.values(), self._bell, self._bell_pull):
            sock.close()
        self._epoll.close()

    def stop(self) -> None:
        """End `serve`: what still runs is cut. Callable from any thread."""
        self._stopped.set()

    def _join(self, seconds: float) -> None:
        """Wait until all threads have ended what they do, or so long."""
        end_at = time.monotonic() + seconds
        with self._lock:
            threads = [*self._threads]
        for thread in threads:
            thread.join(max(0, end_at - time.monotonic()))

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="caller", daemon=True)
        with self._lock:
            if len(self._threads) >= self.adj.threads:
                return
            self._threads.add(thread)
            self._waiting += 1
            thread.start()

    def _work(self) -> None:
        while not self._stopped.is_set():
            ready = self._epoll.poll(IDLE_S, 1)
            with self._lock:
                self._waiting -= 1
                last, many = self._waiting == 0, self._waiting >= THREADS_IDLE_MAX
            if self._stopped.is_set() or (not ready and many):
                break
            if last and ready:
                self._add_thread()  # there is always one that listens
            for fd, _ in ready:
                try:
                    self._serve(fd)
                except Exception:
                    log.exception("a connection could not be served")
            with self._lock:
                self._waiting += 1
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _serve(self, fd: int) -> None:
        if fd in self._listeners:
            return self._accept(self._listeners[fd])
        connection = self._all.get(fd)
        # Numbers of sockets are used again at once: an event may be that of a connection that is
        # gone, and come to one that another thread has. That one will let it wait again.
        if connection is None or not connection.claim.acquire(blocking=False):
            return None
        kept = False
        turns.take()
        try:
            kept = not connection.closed and connection.go_on()
        finally:
            turns.give()
            self._leave(connection, kept)
        return None

    def _resume(self, connection: Client) -> None:
        """Go on with a connection whose answer has paused."""
        kept = False
        try:
            kept = connection.resume()
        finally:
            self._leave(connection, kept)

    def _leave(self, connection: Client, kept: bool) -> None:
        """Let a connection wait that was served, for whatever it waits for."""
        if kept and (pause := connection.pause) is not None:
            self._streams.wait(connection, pause)
        elif kept:
            connection.since = time.monotonic()
            self._await(connection)
        else:
            self._close(connection)

    def _await(self, connection: Client) -> None:
        """Give the claim back, and let the connection wait for its next event: in this order, or an
        event that comes between would find it taken and be lost."""
        connection.claim.release()
        with contextlib.suppress(OSError):  # closed meanwhile, by who looks after the overdue
            self._epoll.modify(connection.fd, CAN_WRITE if connection.unread else WAITS)

    def _close(self, connection: Client) -> None:
        """Close a connection whose claim the caller has."""
        with self._lock:
            if self._all.get(connection.fd) is connection:
                del self._all[connection.fd]
                self._by_address[connection.addr[0]] -= 1
                if not self._by_address[connection.addr[0]]:
                    del self._by_address[connection.addr[0]]
        connection.close()

    def _close_overdue(self) -> None:
        now = time.monotonic()
        for each in [*self._all.values()]:
            if each.overdue(now) and each.claim.acquire(blocking=False):
                if each.overdue(now):
                    self._close(each)
                else:
                    self._await(each)

    def _accept(self, listener: socket.socket) -> None:
        try:
            for _ in range(ACCEPTS_MAX):
                self._begin(*listener.accept())
        except BlockingIOError:
            pass
        except OSError as err:  # of sockets, or the client has thought better of it
            if err.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log.warning("a connection could not be taken: %s", err)
                self._close_oldest(None)
                time.sleep(FULL_PAUSE_S)
        with contextlib.suppress(OSError):
            self._epoll.modify(listener.fileno(), WAITS)

    def _begin(self, sock: socket.socket, addr: tuple) -> None:
        if not self._has_room(addr[0]):
            sock.close()
            return
        sock.setblocking(True)
        for option in (*self.adj.socket_options, SEND_TIMEOUT):
            sock.setsockopt(*option)
        connection = Client(self, sock, addr)
        with self._lock:
            self._all[connection.fd] = connection
            self._by_address[addr[0]] += 1
        self._epoll.register(connection.fd, WAITS)

    def _has_room(self, address: str) -> bool:
        """Whether one more connection may begin: the oldest idle one goes for it."""
        if self._by_address[address] >= OF_ADDRESS_MAX and not self._spared(address):
            return self._close_oldest(address)
        return len(self._all) < self.adj.connection_limit or self._close_oldest(None)

    def _close_oldest(self, address: str | None) -> bool:
        """Close the connection that has been idle longest, of this address or of all."""
        idle = (
            each
            for each in [*self._all.values()]
            if each.idle and address in (None, each.addr[0]) and not each.claim.locked()
        )
        oldest = min(idle, key=lambda each: each.since, default=None)
        if oldest is None or not oldest.claim.acquire(blocking=False):
            return False
        self._close(oldest)
        return True


@functools.lru_cache(2)
def _date(second: int) -> str:
    """A second as HTTP writes it."""
    return build_http_date(second)


def _listening(addresses: list) -> list[socket.socket]:
    """Sockets that listen: those that the system's supervisor has opened for us, which keep callers
    waiting over a restart (sd_listen_fds(3)), else one for each of waitress' addresses."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        count = int(os.environ.get("LISTEN_FDS", "0"))
        given = [socket.socket(fileno=fd) for fd in range(FIRST_GIVEN_FD, FIRST_GIVEN_FD + count)]
        for sock in given:
            sock.setblocking(False)
        if given:
            return given
    opened: list[socket.socket] = []
    for family, kind, protocol, address in addresses:
        sock = socket.socket(family, kind, protocol)
        opened.append(sock)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            port = address[1] or (opened[0].getsockname()[1] if len(opened) > 1 else 0)
            sock.bind((address[0], port, *address[2:]))
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError:
            for each in opened:
                each.close()
            raise
    return opened
