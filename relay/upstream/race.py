"""Which of a host's addresses is spoken to: the first that answers (RFC 8305, Happy Eyeballs).

Owns the race: a next address is tried as soon as one refuses, or beside it when it has been silent
for a quarter of a second, and the one that won is tried first from then on.
"""

import itertools
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

NEXT_S = 0.25  # "Connection Attempt Delay": before a next address is tried beside (RFC 8305, 5)
KNOWN_MAX = 256

Address = tuple[int, int, int, tuple[Any, ...]]  # family, kind, protocol, address

_won: dict[tuple[str, int], tuple[Any, ...]] = {}  # host and port -> the address that answered


def addresses(host: str, port: int) -> list[Address]:
    """A host's addresses in the order in which they are tried: the one that answered last time, then
    the two families in turn. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as err:
        raise OSError(f"{host} is no name: {err}") from err
    if not found:
        raise OSError(f"{host} has no address")
    every: list[Address] = [(each[0], each[1], each[2], each[4]) for each in found]
    first = [each for each in every if each[0] == every[0][0]]
    other = [each for each in every if each[0] != every[0][0]]
    turns = itertools.chain.from_iterable(itertools.zip_longest(first, other))
    ordered = [each for each in turns if each is not None]
    known = _won.get((host, port))
    return sorted(ordered, key=lambda each: each[3] != known)


def remember(host: str, port: int, address: tuple[Any, ...]) -> None:
    """This address answered."""
    if len(_won) >= KNOWN_MAX:
        _won.clear()
    _won[host, port] = address


def fastest(
    every: Iterable[Address],
    begin: Callable[[Address], socket.socket],
    cut: Callable[[], bool],
    end_at: float,
) -> tuple[socket.socket, Address]:
    """The first socket that is connected. `begin` makes one that is connecting, without waiting;
    `cut()` tells that nobody needs it any more; `end_at` is by time.monotonic.

    Raises OSError: of the last address that failed, TimeoutError when the time is over.
    """
    waiting, trying = deque(every), dict[int, tuple[socket.socket, Address]]()
    problem, next_at, poll = OSError("the name has no address"), 0.0, select.poll()
    try:
        while waiting or trying:
            now = time.monotonic()
            if cut():
                raise ConnectionAbortedError("the attempt was ended")
            if now >= end_at:
                raise TimeoutError("no address answered in time")
            if waiting and now >= next_at:
                address = waiting.popleft()
                try:
                    sock = begin(address)
                except OSError as err:
                    problem = err
                    continue
                trying[sock.fileno()] = sock, address
                poll.register(sock, select.POLLOUT)
                next_at = now + NEXT_S
            pause_s = min(end_at - now, max(0.0, next_at - now) if waiting else NEXT_S, NEXT_S)
            for number, _ in poll.poll(pause_s * 1000):
                sock, address = trying.pop(number)
                poll.unregister(number)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    return sock, address
                sock.close()
                problem, next_at = OSError(code, os.strerror(code)), 0.0
        raise problem
    finally:
        for sock, _ in trying.values():
            sock.close()
