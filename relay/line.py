"""Connections to upstreams that can be cut from another thread.

Owns sockets: where they may lead (public addresses, unless an upstream says allow_private), how they are made, and the
watcher that cuts them when a caller has left. It knows nothing of what is said over them.

urllib3 offers no handle on a request that waits for its headers, so a connection registers its socket with the `Line`
of the attempt that this thread makes. It gives a connection back to the pool with an answer's last byte, and so before
who reads the answer knows: from the moment another call takes it, the line of the call before has no hold on it.
"""

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import urllib3
from requests import Response
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

WATCH_S = 0.25
SEND_S = 120.0
CHUNK_END = b"\r\n"                # http.client reads it with the chunk that follows
IN_DISGUISE = [ipaddress.ip_network(each) for each in (    # IPv6 that may lead to a private IPv4 address, or to a site
    "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "fec0::/10")]

_thread = threading.local()


@contextlib.contextmanager
def calling(line: "Line") -> Iterator[None]:
    """Connections that this thread uses belong to that line."""
    _thread.line = line
    try:
        yield
    finally:
        del _thread.line


class PrivateAddress(OSError):
    """The target's name leads to an address that is not public, and its upstream does not say allow_private."""


class Line:
    """One attempt's connection, so that another thread can cut it. Sending the request may take `send_s`."""

    def __init__(self, allow_private: bool, allow_loopback: bool = False, send_s: float = SEND_S):
        self.allow_private, self.allow_loopback, self.send_s = allow_private, allow_loopback, send_s
        self.fresh = False                     # the connection was made for this attempt
        self.left = False                      # the caller is gone
        self.drain_s = 0                       # how long the answer may still be read then
        self.cut_at: float | None = None
        self._cut = False
        self._shutdown: Callable[[], None] | None = None
        self.socket: socket.socket | None = None
        self._lock = threading.Lock()

    def attach(self, sock: socket.socket) -> None:
        """This socket is what a cut shuts down."""
        self.socket = sock
        self.on_cut(lambda: sock.shutdown(socket.SHUT_RDWR))

    def detach(self, sock: socket.socket) -> None:
        """This socket is another call's from now on."""
        with self._lock:
            if self.socket is sock:
                self.socket = self._shutdown = None

    def on_cut(self, shutdown: Callable[[], None]) -> None:
        self._shutdown = shutdown
        if self._cut:
            self.cut()

    def cut(self) -> None:
        """End the attempt: its reads and writes fail or end at once. Callable from any thread."""
        self._cut = True
        with self._lock, contextlib.suppress(OSError):         # closed already
            if self._shutdown:
                self._shutdown()

    def wait_at_most(self, seconds: float) -> None:
        """How long a read may take from now on."""
        with self._lock, contextlib.suppress(OSError):         # closed already: the next read says so
            if self.socket is not None:
                self.socket.settimeout(seconds)

    def silent(self, peek: Callable[[], bytes], seconds: float) -> bool:
        """Whether nothing more comes within this time; False if the line is no socket, or is closed.

        `peek` looks, without waiting, into what has come and is not read yet: the socket knows nothing of that.
        """
        if self.socket is None:
            return False
        patience_s = self.socket.gettimeout()
        try:
            self.socket.settimeout(0)
            try:
                if peek() not in (b"", CHUNK_END):
                    return False
            except (BlockingIOError, ssl.SSLWantReadError):
                pass                   # nothing has come
            finally:
                self.socket.settimeout(patience_s)
            poll = select.poll()
            poll.register(self.socket, select.POLLIN)
            return not poll.poll(seconds * 1000)
        except (OSError, ValueError):
            return False               # closed: the next read says so


class Watcher:
    """Looks, four times a second while lines are open, whether their callers are still there."""

    def __init__(self):
        self._lines: dict[Line, Callable[[], bool]] = {}
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def watch(self, line: Line, gone: Callable[[], bool]) -> None:
        self._lines[line] = gone
        self._busy.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
                    self._thread.start()

    def forget(self, line: Line) -> None:
        self._lines.pop(line, None)

    def _run(self) -> None:
        while self._busy.wait():
            time.sleep(WATCH_S)
            self._busy.clear()
            now = time.monotonic()
            for line, gone in list(self._lines.items()):
                if not line.left and gone():
                    line.left, line.cut_at = True, now + line.drain_s
                if line.left and now >= line.cut_at:
                    self.forget(line)
                    line.cut()
            if self._lines:
                self._busy.set()


class _Tracked:
    """A connection that reaches public addresses only, and can be cut from its first moment on."""

    _unsent: list[bytes] | None = None
    _lent: tuple[Line, socket.socket] | None = None        # whose call it serves, or served last, and by which socket

    def _new_conn(self) -> socket.socket:
        line: Line = _thread.line
        line.fresh = True
        problem: Exception = OSError("the name has no address")
        try:
            found = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as err:
            raise NewConnectionError(self, f"no address: {err}") from err
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            try:
                check_public(address[0], line)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(self.timeout)
                line.attach(sock)
                sock.connect(address)
                return sock
            except OSError as err:
                sock.close()
                problem = err
        if isinstance(problem, TimeoutError):
            raise urllib3.exceptions.ConnectTimeoutError(self, "connecting took too long") from problem
        raise NewConnectionError(self, f"cannot connect: {problem}") from problem

    def connect(self) -> None:
        super().connect()
        self._lend()                           # over TLS it is another socket than _new_conn's

    def _lend(self) -> None:
        """This connection serves this thread's line, and no longer that of the call before."""
        if self._lent:
            self._lent[0].detach(self._lent[1])
        self._lent = _thread.line, self.sock
        _thread.line.attach(self.sock)

    def request(self, *args, **options) -> None:
        self._unsent = []
        try:
            super().request(*args, **options)
            data = b"".join(self._unsent)
        finally:
            self._unsent = None
        if self.sock is None:
            self.connect()
        else:
            self._lend()
        self.sock.settimeout(_thread.line.send_s)
        self.send(data)

    def send(self, data) -> None:
        """Keep the pieces of a request together: http.client sends head and body apart, which wakes the peer twice."""
        if self._unsent is None:
            super().send(data)
        else:
            self._unsent.append(data)


class _Plain(_Tracked, HTTPConnection):
    pass


class _Secure(_Tracked, HTTPSConnection):
    pass


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


class Adapter(HTTPAdapter):
    """requests' adapter over tracked connections, without cookies."""

    def init_poolmanager(self, *args, **options):
        super().init_poolmanager(*args, **options)
        self._pools: dict[tuple[str, str], urllib3.HTTPConnectionPool] = {}
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool}

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        """The pool of the request's host; made once, where requests looks it up anew each time."""
        scheme, _, rest = request.url.partition("://")
        host = (scheme, rest.partition("/")[0])
        pool = self._pools.get(host)
        if pool is None:
            pool = self._pools[host] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return pool

    def build_response(self, req, resp) -> Response:
        response = Response()
        response.status_code, response.raw, response.request = resp.status, resp, req
        response.headers = CaseInsensitiveDict(resp.headers)
        return response


def check_public(address: str, line: Line) -> None:
    """Raise PrivateAddress if this line may not lead there."""
    if line.allow_private:
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    if line.allow_loopback and ip.is_loopback:
        return
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if not ip.is_global or ip.is_multicast or any(ip in network for network in IN_DISGUISE):
        raise PrivateAddress(f"{ip} is not a public address; the upstream must say allow_private = true")
