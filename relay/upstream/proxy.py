"""The way to an upstream through a proxy: HTTP's CONNECT (RFC 9110, 9.3.6) or SOCKS 5 (RFC 1928, with
the password of RFC 1929).

Owns the few words that are said to a proxy before it passes bytes. The name of the upstream is given
to the proxy to look up: behind a firewall it is often the only one who can. A password is told to
nobody else, and stands in no error.
"""

import base64
import ipaddress
import socket
import struct
import time
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

PORTS = {"http": 8080, "socks5": 1080, "socks5h": 1080}
HEAD_BYTES_MAX = 16384  # of a proxy's answer
REFUSALS = {  # of SOCKS 5: RFC 1928, 6
    1: "it failed",
    2: "it is not allowed",
    3: "the network cannot be reached",
    4: "the host cannot be reached",
    5: "the connection was refused",
    6: "the time to live ran out",
    7: "it knows no CONNECT",
    8: "it knows no such address",
}


class ProxyError(OSError):
    """The proxy does not let us through."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where a proxy is, and who we are there."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.scheme}://{self.host}:{self.port})"  # a password must not end in a log


def parsed(url: str) -> Proxy:
    """A proxy from its address, such as socks5://user:password@host:1080. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("a proxy's address is http://host:port or socks5://host:port")
    return Proxy(
        parts.scheme,
        parts.hostname,
        parts.port or PORTS[parts.scheme],
        unquote(parts.username or ""),
        unquote(parts.password or ""),
    )


def open_way(sock: socket.socket, proxy: Proxy, host: str, port: int, end_at: float) -> None:
    """Have a connected proxy pass everything on to a host, until `end_at` by time.monotonic.

    Raises ProxyError when it refuses, OSError when it breaks off, TimeoutError.
    """
    name = host if host.isascii() else host.encode("idna").decode()
    if proxy.scheme == "http":
        _connect(sock, proxy, f"[{name}]" if ":" in name else name, port, end_at)
    else:
        _socks(sock, proxy, name, port, end_at)


def _connect(sock: socket.socket, proxy: Proxy, host: str, port: int, end_at: float) -> None:
    head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n"
    if proxy.user:
        pair = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        head += f"Proxy-Authorization: Basic {pair}\r\n"
    sock.sendall(f"{head}\r\n".encode("latin-1"))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # byte by byte: what follows is the upstream's
        answer += _take(sock, 1, end_at)
        if len(answer) > HEAD_BYTES_MAX:
            raise ProxyError("the proxy's answer is no HTTP")
    words = answer.split(b"\r\n", 1)[0].decode("latin-1").split(None, 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].startswith("2"):
        raise ProxyError(f"the proxy answered {' '.join(words)[:100]}")


def _socks(sock: socket.socket, proxy: Proxy, host: str, port: int, end_at: float) -> None:
    sock.sendall(b"\x05\x01\x02" if proxy.user else b"\x05\x01\x00")
    version, method = _take(sock, 2, end_at)
    if version != 5 or method not in (0, 2) or (method == 2) != bool(proxy.user):
        raise ProxyError("the proxy wants us to sign in otherwise")
    if method == 2:
        user, password = proxy.user.encode()[:255], proxy.password.encode()[:255]
        sock.sendall(b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password)
        if _take(sock, 2, end_at)[1]:
            raise ProxyError("the proxy does not take the user and password")
    sock.sendall(b"\x05\x01\x00" + _place(host) + struct.pack(">H", port))
    version, code, _, kind = _take(sock, 4, end_at)
    if version != 5 or code:
        raise ProxyError(f"the proxy says: {REFUSALS.get(code, f'error {code}')}")
    length = {1: 4, 4: 16}.get(kind) or _take(sock, 1, end_at)[0]
    _take(sock, length + 2, end_at)  # where it connects from, which nobody needs


def _place(host: str) -> bytes:
    """An address as SOCKS writes it: by its bytes, or by its name."""
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.encode("ascii")[:255]
        return b"\x03" + bytes([len(name)]) + name
    return (b"\x01" if ip.version == 4 else b"\x04") + ip.packed


def _take(sock: socket.socket, count: int, end_at: float) -> bytes:
    data = b""
    while len(data) < count:
        left_s = end_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the proxy did not answer in time")
        sock.settimeout(left_s)
        piece = sock.recv(count - len(data))
        if not piece:
            raise ProxyError("the proxy closed the connection")
        data += piece
    return data
