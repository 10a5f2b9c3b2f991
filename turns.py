"""Turns: of the threads that serve callers, one computes at a time.

Python has one thread compute at a time anyway, and wakes another whenever the one that does asks the
database or a socket something: some forty times a call. With many callers at once a quarter of a
call's processor time went into that. Here threads stand in a line of their own instead, and the turn
changes hands where its holder waits for the world: for a provider, the disk, a caller who reads
slowly.

It is a courtesy and guards nothing. Chores go on beside it, and pages from where they are known to be
pages; and who is held up with the turn, where nobody thought of it, loses it to the next one after
PATIENCE_S.

A stream waits most of its life: its answer gives a `Pause` where it would wait, and the thread that
served it is free until there is more (`server.streams`).
"""

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Self

from processor import home

PATIENCE_S = 0.002  # with who has the turn; what is done with it takes a quarter of that
LOOK_S = 0.02  # between two looks for how long that is, while nobody new comes


class Place:
    """A place in the line: its thread waits here until it is called."""

    __slots__ = ("called", "gave", "thread")

    def __init__(self) -> None:
        self.thread, self.gave = threading.get_ident(), False
        self.called = threading.Lock()
        self.called.acquire()


class Pause(bytes):
    """What an answer gives in place of a piece where it would wait: no bytes, but the descriptor by
    which more will come, or there will be room for more, and the time (monotonic) when it should go
    on anyway. Without a descriptor it may go on at once."""

    fd: int
    until: float
    room: bool

    @classmethod
    def made(cls, fd: int = -1, until: float = 0.0, room: bool = False) -> Self:
        pause = cls()
        pause.fd, pause.until, pause.room = fd, until, room
        return pause


class Turns:
    """The turn, and the line for it; see `turns`, the one of this process.

    `reliefs`: what is called when a thread that has another duty is going to wait, so that somebody
    else does that duty meanwhile.
    """

    def __init__(self) -> None:
        self.reliefs: dict[int, Callable[[], None]] = {}  # by thread
        self._holder: int | None = None  # a thread
        self._since = 0.0
        self._line: deque[Place] = deque()
        self._door = threading.Lock()
        self._taken = self._waited = 0

    def crowded(self) -> bool:
        """Whether most of those who wanted the turn since the last question had to wait for it."""
        with self._door:
            taken, waited, self._taken, self._waited = self._taken, self._waited, 0, 0
        return waited > taken / 2

    def take(self, first: bool = False) -> None:
        """Wait for the turn, in the line or as the first of it. Whoever takes it gives it back."""
        home.stay()
        with self._door:
            self._taken += 1
            if self._holder is None:
                self._holder, self._since = threading.get_ident(), time.monotonic()
                return
            self._waited += 1
            place = Place()
            if first:
                self._line.appendleft(place)
            else:
                self._line.append(place)
            self._look()
        self.wait(place)

    def give(self) -> bool:
        """Let the next one compute. Whether the turn was this thread's; else nothing happens."""
        if self._holder != threading.get_ident():  # nobody else makes it this thread's
            return False
        with self._door:
            if self._holder != threading.get_ident():
                return False
            self._call_next()
        return True

    def rest(self) -> bool:
        """`give` the turn, and any other duty of this thread: it is going to wait."""
        relief = self.reliefs.pop(threading.get_ident(), None) if self.reliefs else None
        if relief is not None:
            relief()
        return self.give()

    def leave(self, place: Place) -> None:
        """Give the turn back until the place is called, if this thread has it."""
        place.gave = self.rest()

    def wait(self, place: Place) -> None:
        """Wait until the place is called: with the turn, if it was left with it."""
        while not place.called.acquire(timeout=LOOK_S):
            with self._door:
                self._look()
        place.gave = False

    def call(self, places: Iterable[Place]) -> None:
        """What these threads waited for has come. Those that left the turn get it again, one after
        the other; so none is woken only to stand in the line."""
        with self._door:
            for place in places:
                if place.gave:
                    self._line.append(place)
                else:
                    place.called.release()
            if self._holder is None:
                self._call_next()

    def _look(self) -> None:
        """Lose patience with who has had the turn for too long."""
        if self._line and time.monotonic() - self._since > PATIENCE_S:
            self._call_next()

    def _call_next(self) -> None:
        self._holder, self._since = None, time.monotonic()
        if self._line:
            place = self._line.popleft()
            self._holder = place.thread
            place.called.release()


class resting:
    """`with resting():` around what waits for the world: the turn is others' meanwhile."""

    __slots__ = ("_gave",)

    def __enter__(self) -> None:
        self._gave = turns.rest()

    def __exit__(self, *_: object) -> None:
        if self._gave:
            turns.take()


def send_now(sock: socket.socket, data: bytes | memoryview) -> int:
    """Send what the other side of a plain socket takes at once; how many bytes that is."""
    try:
        return sock.send(data, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0


def sendall(sock: socket.socket, data: bytes) -> None:
    """Send all of it; the turn is others' only while the other side does not take it."""
    sent = 0 if isinstance(sock, ssl.SSLSocket) else send_now(sock, data)  # TLS knows no flags
    if sent < len(data):
        with resting():
            sock.sendall(memoryview(data)[sent:])


turns = Turns()
