"""The HTTP server around the app: what it refuses, how it goes down, and its chores.

Owns signals, draining, whom it believes about a caller's address, and the answers that never reach
the app. Sockets and threads are `server.connections`'.
"""

import contextlib
import http
import logging
import os
import re
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser
from waitress.proxy_headers import PROXY_HEADERS, proxy_headers_middleware
from waitress.task import ErrorTask
from waitress.utilities import Error

from processor import home
from relay import errors, refusals
from relay.door import PREFIXES, meant
from relay.meter import new_id
from server import memory
from server.connections import UNREAD_MS_MAX, Connections
from turns import turns

log = logging.getLogger("server")

CONNECTIONS_MAX = 4096
FOR_TOKENS = tuple(f"{each}/" for each in PREFIXES)
PAGE_BODY_BYTES_MAX = 8 << 20  # for who is not seen to be known: a form of the console
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST")
PROXY_SAYS = frozenset(f"HTTP_{name}" for name in PROXY_HEADERS)
MAPPED = re.compile(r"(?<![\w:])::ffff:(\d+(?:\.\d+){3})", re.ASCII | re.IGNORECASE)
CUT_S = 2.0  # for streams that were cut to tell their callers
CHORE_S = 1.0
PROCESSOR_S = 2.0  # between two looks where calls had best be served
CHORES_END_S = 10

SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (
            ("TCP_USER_TIMEOUT", UNREAD_MS_MAX),
            ("TCP_KEEPIDLE", 30),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
        )
        if hasattr(socket, name)
    ),
]


class NotAdmitted(Error):
    """A request whose body is not read: waitress' form of an error of ours."""

    def __init__(self, err: errors.RelayError):
        self.err, self.code = err, err.status
        self.reason = http.HTTPStatus(err.status).phrase
        super().__init__("")


class Refusal(ErrorTask):
    """What waitress itself refuses (a body too large, a request that it cannot read), in the API's
    shape."""

    def execute(self) -> None:
        found = self.request.error
        err = _error_of(found)
        asked = {f"HTTP_{name}": value for name, value in self.request.headers.items()}
        asked["PATH_INFO"] = getattr(self.request, "path", "")
        _, headers, body = refusals.answer(err, asked, new_id(), {})
        self.status = f"{found.code} {found.reason}"
        self.response_headers = list(headers.items())
        self.set_close_on_finish()
        self.write(body)


def _error_of(found: Error) -> errors.RelayError:
    if isinstance(found, NotAdmitted):
        return found.err
    if found.code >= 500:
        return errors.RelayError()
    if found.code == 413:
        return errors.BodyTooLarge()
    return errors.BadRequest("The HTTP request could not be read.")


class Drain:
    """A WSGI wrapper that counts open responses, and turns new calls away once the server is going
    down."""

    def __init__(self, app: Callable):
        self._app = app
        self._open, self._lock = 0, threading.Lock()
        self._ends = threading.Condition(self._lock)
        self.begun = False

    def __call__(self, environ, start_response):
        if self.begun:
            return self._turn_away(environ, start_response)
        with self._lock:
            self._open += 1
        try:
            return _Counted(self._app(environ, start_response), self._ended)
        except BaseException:
            self._ended()
            raise

    def wait(self, seconds: float) -> bool:
        """Turn new calls away and wait for open responses.

        False if some are still open after that time.
        """
        with self._lock:
            self.begun = True
            return self._ends.wait_for(lambda: self._open == 0, seconds)

    def _ended(self) -> None:
        with self._lock:
            self._open -= 1
            if self.begun:  # else nobody waits
                self._ends.notify_all()

    def _turn_away(self, environ, start_response):
        err = errors.Restarting(retry_after=2)
        status, headers, body = refusals.answer(err, environ, new_id(), {})
        start_response(status, list(headers.items()))
        return [body]


class _Counted:
    """A response whose end is told."""

    def __init__(self, response, ended: Callable[[], None]):
        self._response, self._ended = response, ended

    def __iter__(self):
        return iter(self._response)

    def close(self) -> None:
        ended, self._ended = self._ended, lambda: None
        try:
            if hasattr(self._response, "close"):
                self._response.close()
        finally:
            ended()


class Server:
    """The app on a port.

    `run` serves until SIGTERM or SIGINT; `start` and `stop` do the same from another thread.
    """

    def __init__(self, app, settings):
        self._relay = app.extensions["relay"]
        self._settings = settings
        self._proxies = _believed(settings.server.trusted_proxy)
        self._drain = Drain(app.wsgi_app)
        self._stopped = threading.Event()
        self._chores: list[tuple[float, Callable[[], None]]] = []
        self._hands = threading.Thread(target=self._do_chores, name="chores", daemon=True)
        _raise_descriptor_limit()
        memory.share_arenas()
        try:
            adj = _adjusted(settings.server)
            self._connections = Connections(
                adj,
                self._application(adj),
                Refusal,
                self._admit,
                _believed(f"127.0.0.0/8,::1,{settings.server.trusted_proxy}"),
            )
            self._relay.threads = lambda: (self._connections.busy, adj.threads)
        except (OSError, ValueError) as err:  # the latter for a host whose name nobody knows
            there = f"{settings.server.host}:{settings.server.port}"
            raise OSError(
                f"{there} cannot be listened on: {getattr(err, 'strerror', None) or err}"
            ) from err

    @property
    def port(self) -> int:
        """The port that is listened on (the system's choice if the settings say 0)."""
        return self._connections.effective_port

    @property
    def addresses(self) -> list[str]:
        """The addresses at which browsers reach it: of all addresses of a host, those of this
        machine that others can use come after 127.0.0.1."""
        host = self._settings.server.host
        if host not in ("0.0.0.0", "::"):
            hosts = [host]
        else:
            hosts = ["127.0.0.1", *_machine_addresses()]
        return [f"http://{f'[{each}]' if ':' in each else each}:{self.port}" for each in hosts]

    def every(self, seconds: float, chore: Callable[[], None]) -> None:
        """Do a chore now and then, in a thread of their own, one after the other.

        Call it before serving.
        """
        self._chores.append((seconds, chore))

    def run(self) -> None:
        """Serve until a signal ends it: the first drains, the second ends at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        memory.keep()
        self.every(PROCESSOR_S, lambda: home.look(turns.crowded()))
        self._hands.start()
        self._serve()

    def start(self) -> None:
        """Serve in a thread (for tests)."""
        self._hands.start()
        self._thread = threading.Thread(target=self._serve, name="server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Drain and end what `start` began."""
        self._go_down()
        self._thread.join()

    def _serve(self) -> None:
        try:
            _tell_supervisor("READY=1")  # the port is listened on since we were made
            self._connections.serve()
        finally:
            self._stopped.set()
            self._hands.join(CHORES_END_S)  # the database may be closed when this returns

    def _application(self, adj: Adjustments) -> Callable:
        """The app behind those who may say for whom they ask."""
        proxied = proxy_headers_middleware(
            self._drain,
            trusted_proxy=adj.trusted_proxy,
            trusted_proxy_count=adj.trusted_proxy_count,
            trusted_proxy_headers=adj.trusted_proxy_headers,
            clear_untrusted=adj.clear_untrusted_proxy_headers,
        )
        trusted = self._settings.server.trusted_proxy
        proxied = _behind_proxies(_unmapped(proxied), trusted)

        def call(environ, start_response):
            # The usual case: nobody speaks for another. A trusted proxy may do so in a header of its
            # own, which sign_in names.
            plain = not trusted and environ.keys().isdisjoint(PROXY_SAYS)
            return (self._drain if plain else proxied)(environ, start_response)

        return call

    def _admit(self, request: HTTPRequestParser, address: str) -> NotAdmitted | None:
        """Why a large body is not read; None if it is. At the API only who has a token may send one,
        and is looked at before it comes, by the same rules as later."""
        if not meant(request.path).startswith(FOR_TOKENS):
            large = request.chunked or request.content_length > PAGE_BODY_BYTES_MAX
            return NotAdmitted(errors.BodyTooLarge()) if large else None
        headers = request.headers
        seen = (
            None if self._proxies(address) else address
        )  # behind a proxy the app reads whose it is
        try:
            self._relay.gate.identify(headers.get("AUTHORIZATION"), headers.get("X_API_KEY"), seen)
        except errors.RelayError as err:
            return NotAdmitted(err)
        return None

    def _on_signal(self, number: int, frame) -> None:
        if self._drain.begun:
            log.warning("second signal: ending at once")
            self._relay.sender.cut_all()
            self._connections.stop()
            return
        log.warning("going down: open calls have %s s to end", self._settings.server.drain_s)
        threading.Thread(target=self._go_down, name="drain", daemon=True).start()

    def _go_down(self) -> None:
        self._relay.draining = True
        _tell_supervisor("STOPPING=1")
        if not self._drain.wait(self._settings.server.drain_s):
            log.warning("some calls did not end in time and are cut")
            self._relay.sender.cut_all()
            self._drain.wait(CUT_S)
        self._connections.stop()

    def _do_chores(self) -> None:
        due = [0.0] * len(self._chores)
        while not self._stopped.wait(CHORE_S):
            for index, (seconds, chore) in enumerate(self._chores):
                if time.monotonic() < due[index]:
                    continue
                due[index] = time.monotonic() + seconds
                try:
                    chore()
                except Exception:
                    log.exception("a chore failed; it will be done again")


def _tell_supervisor(words: str) -> None:
    """Say how it stands to systemd, if it has started us and wants to know (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(words.encode(), address.replace("@", "\0", 1))


def _machine_addresses() -> list[str]:
    """The address from which this machine speaks to others, and those of its own name.

    Nothing is sent: a UDP socket is only told where it would send to.
    """
    known = {}
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        known[probe.getsockname()[0]] = None
    with contextlib.suppress(OSError):
        name = socket.gethostname()
        for _family, *_, address in socket.getaddrinfo(name, None, socket.AF_INET):
            known[address[0]] = None
    return [each for each in known if not each.startswith("127.")]


def _behind_proxies(app: Callable, trusted: str) -> Callable:
    """The app, to which X-Forwarded-* comes only from these addresses and networks, and which is
    told that it was one of them.

    waitress knows one address, or everybody.
    """
    if trusted in ("", "*"):
        return app
    believed = _believed(trusted)

    def call(environ, start_response):
        if believed(environ["REMOTE_ADDR"]):
            environ["relay.from_proxy"] = True
        else:
            for name in FORWARDED:
                environ.pop(name, None)
        return app(environ, start_response)

    return call


def _believed(networks: str) -> Callable[[str], bool]:
    """A function that tells whether an address is one of these, or in one of these networks; `*` is
    all of them."""
    names = [each.strip() for each in networks.split(",") if each.strip()]
    if "*" in names:
        return lambda address: True
    known = [ip_network(each, strict=False) for each in names]

    def believed(address: str) -> bool:
        given = ip_address(address.partition("%")[0])
        given = getattr(given, "ipv4_mapped", None) or given
        return any(given in network for network in known)

    return believed


def _unmapped(app: Callable) -> Callable:
    """The app behind a proxy that may write IPv4 addresses as IPv6, which waitress would cut at
    their last colon."""

    def call(environ, start_response):
        if "HTTP_X_FORWARDED_FOR" in environ:
            environ["HTTP_X_FORWARDED_FOR"] = MAPPED.sub(r"\1", environ["HTTP_X_FORWARDED_FOR"])
        return app(environ, start_response)

    return call


def _adjusted(server) -> Adjustments:
    Adjustments.socket_options = [
        *Adjustments.socket_options,
        *(option for option in SOCKET_OPTIONS if option not in Adjustments.socket_options),
    ]
    proxy = {
        "trusted_proxy": "*",  # who is believed, `_behind_proxies` says
        "trusted_proxy_count": 1,
        "trusted_proxy_headers": "x-forwarded-for x-forwarded-proto x-forwarded-host",
    }
    return Adjustments(
        host=server.host,
        port=server.port,
        threads=server.threads,
        ident=None,
        connection_limit=CONNECTIONS_MAX,
        max_request_body_size=server.body_bytes_max + 1,
        max_request_header_size=32768,
        clear_untrusted_proxy_headers=True,
        **(proxy if server.trusted_proxy else {}),
    )


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CONNECTIONS_MAX + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        if most < wanted:
            log.warning(
                "only %s open files are allowed; raise the limit to %s for many streams",
                most,
                wanted,
            )
