"""Of several addresses the first that answers is spoken to, and tried first from then on."""

import contextlib
import socket
import threading
import time

import pytest

from relay.upstream import race
from relay.upstream.connection import Connection, connect
from tests.stage import LIMIT_S, free_port


@pytest.fixture
def places(monkeypatch):
    """A function: a name leads to these addresses."""
    monkeypatch.setattr(race, "_won", {})

    def lead(*addresses) -> None:
        found = [
            (socket.AF_INET6 if ":" in each[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", each)
            for each in addresses
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)

    return lead


@pytest.fixture
def live():
    with socket.create_server(("127.0.0.1", 0), backlog=8) as listener:
        yield listener.getsockname()


@pytest.fixture
def dead():
    """An address that says nothing at all: its queue is full, so the kernel answers no further one."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def reached(connect_s: float = 30) -> tuple:
    line = Connection(allow_private=True)
    with connect(line, "several.example", 443, False, connect_s) as sock:
        return sock.getpeername()


def test_a_dead_address_costs_one_call_a_quarter_of_a_second(places, live, dead, monkeypatch):
    places(dead, live)
    begun: list[tuple] = []
    real = socket.socket.connect_ex
    monkeypatch.setattr(
        socket.socket, "connect_ex", lambda sock, place: begun.append(place) or real(sock, place)
    )
    assert reached() == live and begun == [dead, live]
    begun.clear()
    assert reached() == live and begun == [live], "the good one is remembered"


def test_an_address_that_refuses_costs_nothing(places, live, monkeypatch):
    monkeypatch.setattr(race, "NEXT_S", 60)
    closed = ("127.0.0.1", free_port())
    places(closed, closed, live)
    assert reached() == live


def test_one_that_answers_late_still_wins_where_the_others_fail(places, live, dead, monkeypatch):
    monkeypatch.setattr(race, "NEXT_S", 0.01)
    places(dead, ("127.0.0.1", free_port()), live)
    assert reached() == live


def test_all_that_a_connection_takes_has_one_deadline(places, dead, monkeypatch):
    monkeypatch.setattr(race, "NEXT_S", 0.05)
    places(dead, dead, dead)
    with pytest.raises(TimeoutError):
        reached(0.2)


def test_the_last_refusal_is_told_where_none_answers(places):
    places(("127.0.0.1", free_port()), ("127.0.0.1", free_port()))
    with pytest.raises(ConnectionRefusedError):
        reached()


def test_the_families_are_tried_in_turn(places):
    six, four = (
        [(f"fd00::{n}", 443, 0, 0) for n in (1, 2, 3)],
        [(f"10.0.0.{n}", 443) for n in (1, 2)],
    )
    places(*six, *four)
    tried = [each[3] for each in race.addresses("several.example", 443)]
    assert tried == [six[0], four[0], six[1], four[1], six[2]]
    race.remember("several.example", 443, four[1])
    assert race.addresses("several.example", 443)[0][3] == four[1]


def test_what_is_remembered_is_bounded():
    for number in range(3 * race.KNOWN_MAX):
        race.remember("host", number, ("127.0.0.1", number))
    assert len(race._won) <= race.KNOWN_MAX


def test_a_name_without_an_address_is_told(places):
    places()
    with pytest.raises(OSError, match="no address"):
        reached()


def test_who_waits_in_the_race_hears_that_the_caller_has_left(places, dead):
    places(dead)
    line, ended = Connection(allow_private=True), threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError):
            connect(line, "several.example", 443, False, 60)
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    line.cut()
    began = time.monotonic()
    assert ended.wait(LIMIT_S) and time.monotonic() - began < 60
