"""Connections: one epoll, and threads that each take a request from its first byte until its answer
is written, or has to wait.

Owns the listening sockets, the threads, and who may keep a connection and for how long.

Each connection waits in the epoll for one event, which wakes one thread. That thread alone has the
connection: it reads what has come, serves a request that is whole, writes the answer straight into
the socket, and lets the connection wait again. Nothing is handed from one thread to another but an
answer that pauses, which goes on as one of `server.streams`; and a connection that says nothing costs
nothing.
"""

import contextlib
import errno
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
from waitress.task import ErrorTask

from server.client import UNREAD_S, Client
from server.streams import Streams
from turns import turns

log = logging.getLogger("server")

ACCEPTS_MAX = 64  # connections taken at one event
UNREAD_MS_MAX = int(UNREAD_S * 1000)
LOOK_S = 5.0  # between two looks for connections that have waited too long
THREADS_IDLE_MAX = 16  # threads that wait for work and are kept
THREAD_IDLE_S = 60.0  # after which others end
BACKLOG = 1024
OF_ADDRESS_MAX = 512  # connections
LAST_WORDS_S = 0.5  # for threads to send what their responses have left
ENDS_S = 1.0  # for threads whose sockets were cut
FULL_PAUSE_S = 0.05  # while the system has no more sockets
FIRST_GIVEN_FD = 3
SEND_TIMEOUT = (
    socket.SOL_SOCKET,
    socket.SO_SNDTIMEO,
    struct.pack("ll", UNREAD_MS_MAX // 1000, 0),
)
WAITS = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
CAN_WRITE = select.EPOLLOUT | select.EPOLLONESHOT


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
        self._streams.stop()
        self._join(LAST_WORDS_S)
        for each in [*self._all.values()]:
            with contextlib.suppress(OSError):
                each.sock.shutdown(socket.SHUT_RDWR)
        self._join(ENDS_S)
        for each in [*self._all.values()]:
            self._close(each)
        self._streams.close()
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
        for thread in (*threads, *self._streams.threads):
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
            ready = self._epoll.poll(THREAD_IDLE_S, 1)
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
