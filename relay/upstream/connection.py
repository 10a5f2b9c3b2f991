"""Connections to upstreams that can be cut from another thread.

Owns sockets: where they may lead (public addresses, unless an upstream says allow_private), how
they are made, and the watcher that cuts them when a caller has left. It knows nothing of what is
said over them.
"""

import contextlib
import errno
import functools
import ipaddress
import math
import os
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

import certifi

from relay.upstream import proxy as proxies
from relay.upstream import race
from turns import resting

WATCH_S = 0.25
IN_DISGUISE = [
    ipaddress.ip_network(each)
    for each in (  # IPv6 that may lead to a private IPv4 address, or to a site
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "fec0::/10",
    )
]


class PrivateAddress(OSError):
    """The target's name leads to an address that is not public, and its upstream does not say
    allow_private."""


class Connection:
    """One attempt's connection, so that another thread can cut it."""

    def __init__(
        self,
        allow_private: bool,
        allow_loopback: bool = False,
        life_s: float = math.inf,
        proxy: str = "",
    ):
        self.allow_private, self.allow_loopback = allow_private, allow_loopback
        self.proxy = proxy  # its address, where one stands in the way
        self.fresh = False  # the connection was made for this attempt
        self.left = False  # the caller is gone
        self.ended = False  # the relay goes down
        self.ends_at = time.monotonic() + life_s
        self.overdue = False  # it was cut at that time
        self.barred: Callable[[], bool] = lambda: False  # whether its caller may go on no more
        self.shut_out = False  # it was cut for that
        self.drain_s = 0  # how long the answer may still be read then
        self.cut_at: float | None = None
        self.socket: socket.socket | None = None
        self.patience_s: float | None = None  # what a single read may take
        self._cut = False
        self._shutdown: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def attach(self, sock: socket.socket, patience_s: float | None = None) -> None:
        """This socket is what a cut shuts down. `patience_s`: what its reads may take already."""
        self.socket, self.patience_s = sock, patience_s
        self.on_cut(
            lambda: socket.socket.shutdown(sock, socket.SHUT_RDWR)
        )  # not TLS's own: another thread reads

    def on_cut(self, shutdown: Callable[[], None]) -> None:
        self._shutdown = shutdown
        if self._cut:
            self.cut()

    def detach(self) -> bool:
        """Let go of the socket, which may serve another call from now on.

        False if it has been cut.
        """
        with self._lock:
            self.socket = self._shutdown = None
            return not self._cut

    def cut(self) -> None:
        """End the attempt: its reads and writes fail or end at once. Callable from any thread."""
        with self._lock, contextlib.suppress(OSError):  # closed already
            self._cut = True
            if self._shutdown:
                self._shutdown()

    @property
    def was_cut(self) -> bool:
        return self._cut

    def wait_at_most(self, seconds: float) -> None:
        """How long a read may take from now on."""
        if self.socket is not None and seconds != self.patience_s:
            try:
                _limit(self.socket, seconds)
            except OSError:
                return  # closed already: the next read says so
            self.patience_s = seconds

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes within this time; False if the line is no socket, or is closed."""
        try:
            return self.socket is not None and not readable(self.socket, seconds)
        except (OSError, ValueError):
            return False  # closed: the next read says so


def _limit(sock: socket.socket, seconds: float) -> None:
    """How long a read or write of a socket that is connected may take.

    The kernel looks at the clock for plain ones: Python would ask it before each read whether there
    is something to read. OpenSSL cannot be left alone with such a socket.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    sock.settimeout(None)
    span = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)


def readable(sock: socket.socket, seconds: float) -> bool:
    """Whether there is something to read, or the end, within this time."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if seconds <= 0:
        return bool(poll.poll(0))
    with resting():
        return bool(poll.poll(seconds * 1000))


def come(sock: socket.socket, bytes_max: int) -> bytes | None:
    """What has come, b"" for the end, None if nothing has: or only a part of a TLS record."""
    if not isinstance(sock, ssl.SSLSocket):
        try:
            return sock.recv(bytes_max, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
    patience_s = sock.gettimeout()
    sock.settimeout(0)
    try:
        return sock.recv(bytes_max)
    except ssl.SSLWantReadError:
        return None
    finally:
        sock.settimeout(patience_s)


class Watcher:
    """Looks, four times a second while lines are open, whether their callers are still there."""

    def __init__(self):
        self._lines: dict[Connection, Callable[[], bool]] = {}
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def watch(self, line: Connection, gone: Callable[[], bool]) -> None:
        self._lines[line] = gone
        if not self._busy.is_set():  # to set it again costs as much as to wake somebody
            self._busy.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
                    self._thread.start()

    def forget(self, line: Connection) -> None:
        self._lines.pop(line, None)

    def cut_all(self) -> None:
        """End all attempts: the relay goes down."""
        for line in list(self._lines):
            line.ended = True
            line.cut()

    def _run(self) -> None:
        while self._busy.wait():
            time.sleep(WATCH_S)
            self._busy.clear()
            self._look()
            if self._lines:
                self._busy.set()

    def _look(self) -> None:
        """Look at all lines once; apart from who waits, who would hold the last one, and its call."""
        now = time.monotonic()
        for line, gone in list(self._lines.items()):
            if now >= line.ends_at and not line.left:
                line.overdue = True
                line.cut()
            elif not line.left and line.barred():
                line.shut_out = True
                line.cut()
            elif not line.left and gone():
                line.left, line.cut_at = True, now + line.drain_s
            if line.left and now >= line.cut_at:
                line.cut()  # again and again, until it is closed: it may only now be connecting


def connect(
    line: Connection, host: str, port: int, secure: bool, connect_s: float
) -> socket.socket:
    """A connection to the first of the host's addresses that answers, all of it within `connect_s`:
    the name, its addresses, a proxy on the way, TLS.

    Raises OSError: TimeoutError if it took too long, PrivateAddress if it may not lead there.
    """
    line.fresh, end_at = True, time.monotonic() + connect_s
    via = proxies.parsed(line.proxy) if line.proxy else None
    if via:
        _check_host(host, line)
    first_host, first_port = (via.host, via.port) if via else (host, port)

    def begin(address: race.Address) -> socket.socket:
        family, kind, protocol, place = address
        if via is None:  # a proxy is where the settings say, often in this network
            check_public(place[0], line)
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            code = sock.connect_ex(place)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError:
            sock.close()
            raise
        return sock

    every = race.addresses(first_host, first_port)
    sock, address = race.fastest(every, begin, lambda: line.was_cut, end_at)
    try:
        sock.settimeout(max(0.01, end_at - time.monotonic()))
        line.attach(sock)
        if via:
            proxies.open_way(sock, via, host, port, end_at)
            sock.settimeout(max(0.01, end_at - time.monotonic()))
        if secure:
            sock = _trust().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
            line.attach(sock)
            sock.do_handshake()
        line.wait_at_most(connect_s)
    except OSError:
        sock.close()
        raise
    race.remember(first_host, first_port, address[3])
    return sock


@functools.cache
def _trust() -> ssl.SSLContext:
    """Whose certificates are believed: the system's authorities and Mozilla's."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


def _check_host(host: str, line: Connection) -> None:
    """The same of a host that a proxy looks up, as far as its name tells."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return
    check_public(host, line)


def check_public(address: str, line: Connection) -> None:
    """Raise PrivateAddress if this line may not lead there."""
    if line.allow_private:
        return
    ip = ipaddress.ip_address(address.partition("%")[0])
    if line.allow_loopback and ip.is_loopback:
        return
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if not ip.is_global or ip.is_multicast or any(ip in network for network in IN_DISGUISE):
        raise PrivateAddress(
            f"{ip} is not a public address; the upstream must say allow_private = true"
        )
