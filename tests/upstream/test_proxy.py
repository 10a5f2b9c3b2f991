"""The way through a proxy: CONNECT and SOCKS 5, as a real proxy speaks them."""

import base64
import ipaddress
import logging
import select
import socket
import struct
import threading
import time

import pytest

from relay.upstream import proxy as proxies
from tests.providers import plain, usage
from tests.stage import upstream_config

COUNTS = usage(20, 10)
USER, PASSWORD = "team", "p@ss:Word"
QUOTED = "team:p%40ss%3AWord"


class FakeProxy:
    """A proxy that leads every way to one port of this machine, whatever host it is asked for.

    `how`: "http" or "socks5"; with `password` it wants one; `refuses` is its answer in place of a
    way: a status, or a code of SOCKS. `asked` is whom it was asked for.
    """

    def __init__(self, how: str, port: int, password: bool = False, refuses: int = 0):
        self.how, self.target, self.password, self.refuses = how, port, password, refuses
        self.asked: list[tuple[str, int]] = []
        self.signed: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def close(self) -> None:
        for each in (self._listener, *self._open):
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        try:
            if not (self._http(client) if self.how == "http" else self._socks(client)):
                client.close()
                return
            target = socket.create_connection(("127.0.0.1", self.target))
            self._open.append(target)
            while True:
                for each in select.select([client, target], [], [])[0]:
                    if not (data := each.recv(65536)):
                        client.close()
                        target.close()
                        return
                    (target if each is client else client).sendall(data)
        except (OSError, ValueError):
            client.close()

    def _http(self, client: socket.socket) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        first, *lines = head.decode().split("\r\n")
        host, _, port = first.split()[1].rpartition(":")
        self.asked.append((host, int(port)))
        self.signed += [line for line in lines if line.lower().startswith("proxy-auth")]
        if self.password and not self.signed:
            client.sendall(b"HTTP/1.1 407 Who are you?\r\n\r\n")
            return False
        if self.refuses:
            client.sendall(b"HTTP/1.1 %d No way\r\nX: y\r\n\r\n" % self.refuses)
            return False
        client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: fake\r\n\r\n")
        return True

    def _socks(self, client: socket.socket) -> bool:
        methods = client.recv(2 + 255)[2:]
        if self.password:
            if 2 not in methods:
                client.sendall(b"\x05\xff")
                return False
            client.sendall(b"\x05\x02")
            said = client.recv(600)
            user = said[2 : 2 + said[1]].decode()
            self.signed.append(f"{user}:{said[3 + said[1] :].decode()}")
            good = self.signed[-1] == f"{USER}:{PASSWORD}"
            client.sendall(b"\x01" + (b"\0" if good else b"\1"))
            if not good:
                return False
        else:
            client.sendall(b"\x05\x00")
        said = client.recv(600)
        if said[3] == 3:
            host, rest = said[5 : 5 + said[4]].decode(), said[5 + said[4] :]
        else:
            length = {1: 4, 4: 16}[said[3]]
            host, rest = str(ipaddress.ip_address(said[4 : 4 + length])), said[4 + length :]
        self.asked.append((host, struct.unpack(">H", rest)[0]))
        client.sendall(bytes([5, self.refuses, 0, 3, 4]) + b"here" + b"\0\1")
        return not self.refuses


@pytest.fixture
def proxy(fake):
    """A function: a proxy before the fake provider."""
    made = []

    def start(how: str, **options) -> FakeProxy:
        made.append(FakeProxy(how, fake.port, **options))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def behind(start_relay, person):
    """A function: alice at a relay whose provider is known to the proxy alone."""

    def start(url: str, base: str = "http://provider.example:8443/v1", **more):
        upstream = upstream_config(base, proxy=url, allow_private=False, **more)
        return person("alice", start_relay(upstreams=[upstream])).given(wallet="10")

    return start


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_a_call_goes_through_the_proxy_which_looks_the_name_up(behind, proxy, fake, scheme):
    fake.always(plain(COUNTS))
    way = proxy("http" if scheme == "http" else "socks5")
    alice = behind(f"{scheme}://127.0.0.1:{way.port}")
    assert [alice.chat().status for _ in range(3)] == [200] * 3
    assert way.asked == [("provider.example", 8443)], "the way is kept, and used again"
    assert fake.requests[0].path == "/v1/chat/completions"
    assert fake.requests[0].headers["host"] == "provider.example:8443"


@pytest.mark.parametrize("how", ["http", "socks5"])
def test_a_password_is_told_to_the_proxy_and_to_nobody_else(behind, proxy, fake, how, caplog):
    fake.always(plain(COUNTS))
    way = proxy(how, password=True)
    alice = behind(f"{how}://{QUOTED}@127.0.0.1:{way.port}")
    assert alice.chat().status == 200
    pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert way.signed == [
        f"Proxy-Authorization: Basic {pair}" if how == "http" else f"{USER}:{PASSWORD}"
    ]
    assert "proxy-authorization" not in fake.requests[0].headers
    assert PASSWORD not in repr(proxies.parsed(f"{how}://{QUOTED}@127.0.0.1:1"))


@pytest.mark.parametrize(
    "how, options, words",
    [
        ("http", {"refuses": 403}, "the proxy answered HTTP/1.1 403 No way"),
        ("http", {"password": True}, "the proxy answered HTTP/1.1 407 Who are you?"),
        ("socks5", {"refuses": 5}, "the proxy says: the connection was refused"),
        ("socks5", {"refuses": 99}, "the proxy says: error 99"),
        ("socks5", {"password": True}, "the proxy wants us to sign in otherwise"),
    ],
)
def test_a_proxy_that_refuses_is_the_providers_failure_and_the_log_says_why(
    behind, proxy, fake, how, options, words, caplog
):
    way = proxy(how, **options)
    with caplog.at_level(logging.WARNING, "relay.upstream"):
        refused = behind(f"{how}://127.0.0.1:{way.port}").chat()
    assert (refused.status, refused.json["error"]["code"]) == (502, "upstream_error")
    assert words in caplog.text and not fake.requests


def test_a_wrong_password_is_told_without_it(behind, proxy, fake, caplog):
    way = proxy("socks5", password=True)
    with caplog.at_level(logging.WARNING, "relay.upstream"):
        assert behind(f"socks5://team:wrongword@127.0.0.1:{way.port}").chat().status == 502
    assert "does not take the user and password" in caplog.text and "wrongword" not in caplog.text


@pytest.mark.parametrize(
    "host, port", [("10.1.2.3", 80), ("[fc00::1]", 443), ("169.254.169.254", 80)]
)
def test_no_proxy_leads_into_a_private_network(behind, proxy, fake, host, port):
    way = proxy("http")
    assert behind(f"http://127.0.0.1:{way.port}", f"http://{host}:{port}/v1").chat().status == 502
    assert not way.asked and not fake.requests


def test_a_proxy_that_says_nothing_costs_no_more_than_the_time_for_connecting(behind, fake):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert behind(url, connect_s=0.3).chat().status == 504
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "said",
    [b"", b"\x05", b"\x04\x00", b"\x05\x02", b"\x05\xff", b"HTTP/1.1 400 Bad\r\n\r\n"],
)
def test_what_is_no_proxy_is_told_so(said):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(proxies.ProxyError):
            way = proxies.parsed("socks5://127.0.0.1:1")
            proxies.open_way(ours, way, "provider.example", 443, time.monotonic() + 5)


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"A" * 20000])
def test_what_is_no_http_proxy_is_told_so(said):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(proxies.ProxyError):
            way = proxies.parsed("http://127.0.0.1:1")
            proxies.open_way(ours, way, "2001:db8::1", 443, time.monotonic() + 5)


def test_a_query_of_the_base_address_stays_behind_every_path(behind, proxy, fake):
    fake.always(plain(COUNTS))
    way = proxy("http")
    base = "http://provider.example/openai?api-version=2026-01-01"
    assert behind(f"http://127.0.0.1:{way.port}", base).chat().status == 200
    assert fake.requests[0].path == "/openai/chat/completions?api-version=2026-01-01"
