"""Connections lead to public addresses only, unless the operator says otherwise, and belong to one
call at a time."""

import contextlib
import ipaddress
import socket
import threading
import time
from types import SimpleNamespace

import pytest

import relay.upstream.connection
from relay.catalog import Upstream
from relay.upstream.connection import Connection, PrivateAddress, Watcher, check_public, connect
from relay.upstream.http1 import ConnectionPool
from tests.fake_upstream import Gate, answer, end, head
from tests.stage import LIMIT_S

PRIVATE = [
    "10.0.0.1",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",
    "0.0.0.0",
    "100.64.0.1",
    "224.0.0.1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "::ffff:10.0.0.1",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "ff02::1",
]
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("address", PRIVATE + LOOPBACK)
def test_private_addresses_are_refused(address):
    with pytest.raises(PrivateAddress):
        check_public(address, Connection(allow_private=False))
    check_public(address, Connection(allow_private=True))


@pytest.mark.parametrize("address", ["8.8.8.8", "2400:3200::1", "::ffff:8.8.8.8"])
def test_public_addresses_are_not(address):
    assert ipaddress.ip_address(address)
    check_public(address, Connection(allow_private=False))


@pytest.mark.parametrize(
    "url, outright",
    [
        ("http://127.0.0.1:11434/v1", True),
        ("http://localhost:8000", True),
        ("http://[::1]:80/v1", True),
        ("http://127.0.0.2/", False),
        ("http://2130706433/", False),
        ("http://0x7f000001/", False),
        ("http://[::ffff:127.0.0.1]/", False),
        ("http://house.example/", False),
    ],
)
def test_only_who_writes_this_machines_address_outright_reaches_it(url, outright):
    upstream = Upstream("a", url)
    assert upstream.on_this_machine is outright
    line = Connection(allow_private=False, allow_loopback=upstream.on_this_machine)
    if outright:
        check_public("127.0.0.1", line)
    else:
        with pytest.raises(PrivateAddress):
            check_public("127.0.0.1", line)
    with pytest.raises(PrivateAddress):
        check_public("169.254.169.254", line)


# Whose a connection is


def sent(connections, line, url, body=b"{}", connect_s=5.0):
    return connections.post(line, url, {"Content-Length": str(len(body))}, body, connect_s, 30)


def read(found) -> bytes:
    data = b"".join(iter(found.read, b""))
    found.close()
    return data


@pytest.mark.parametrize(
    "late", [Connection.cut, lambda line: line.wait_at_most(0.01)], ids=["cut", "short of patience"]
)
def test_who_had_a_connection_before_can_no_longer_touch_it(fake, late):
    gate, before, now = Gate(), Connection(allow_private=True), Connection(allow_private=True)
    fake.next(answer(b"one"), [head(), b"two", gate, b"three", end])
    connections = ConnectionPool(4)
    assert read(sent(connections, before, fake.url)) == b"one"
    found = sent(connections, now, fake.url)
    assert not now.fresh and found.read() == b"two"
    late(before)
    threading.Timer(0.1, gate.open).start()
    assert read(found) == b"three"


@pytest.mark.parametrize("kept", [False, True])
def test_a_large_request_may_take_as_long_to_send_as_an_answer_to_come(kept):
    """The provider takes its first bytes and then, for a while, no more."""
    body, connections, line = b"x" * (16 << 20), ConnectionPool(4), Connection(allow_private=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def serve() -> None:
            connection, _ = listener.accept()
            for size in (2, len(body))[not kept :]:
                reader, left = connection.makefile("rb"), size
                while reader.readline() not in (b"\r\n", b""):
                    pass
                threading.Event().wait(0.2)
                while left:
                    left -= len(reader.read(min(left, 1 << 20)))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

        threading.Thread(target=serve, daemon=True).start()
        if kept:
            assert read(sent(connections, line, url)) == b"ok"
            line.wait_at_most(0.05)  # as for the end of a stream
            line = Connection(allow_private=True)
        assert (
            read(sent(connections, line, url, body, connect_s=0.1)) == b"ok"
            and line.fresh is not kept
        )


@pytest.mark.parametrize("secure", [False, True], ids=["to connect", "to shake hands"])
def test_who_waits_for_a_peer_that_does_not_answer_hears_that_the_caller_has_left(secure):
    """The first peer's queue is full, so the kernel takes no further connection.

    The second takes it and is silent.
    """
    line, ended, watcher = Connection(allow_private=True), threading.Event(), Watcher()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(
            socket.create_server(("127.0.0.1", 0), backlog=8 if secure else 0)
        )
        for _ in range(0 if secure else 4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())

        def wait() -> None:
            with contextlib.suppress(OSError):
                connect(line, *listener.getsockname(), secure, 30).close()
            ended.set()

        threading.Thread(target=wait, daemon=True).start()
        if secure:
            peer, _ = listener.accept()
            assert stack.enter_context(peer).recv(1) == b"\x16", "its hello"
        watcher.watch(line, lambda: True)
        assert ended.wait(LIMIT_S)
        watcher.forget(line)


# Who watches for callers that leave


def test_the_watcher_rests_while_no_line_is_open_and_wakes_for_the_next(monkeypatch):
    looks, time_passes, cut = threading.Semaphore(0), threading.Semaphore(0), threading.Event()

    def sleep(seconds):
        if (
            threading.current_thread() is not watcher._thread
        ):  # another test's, which has not come to rest yet
            threading.Event().wait(seconds)
        else:
            looks.release()
            assert time_passes.acquire(timeout=LIMIT_S)

    monkeypatch.setattr(
        relay.upstream.connection, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    )
    watcher, first, second = (
        Watcher(),
        Connection(allow_private=True),
        Connection(allow_private=True),
    )
    watcher.watch(first, lambda: False)
    for _ in range(3):
        assert looks.acquire(timeout=LIMIT_S)
        time_passes.release()
    assert looks.acquire(timeout=LIMIT_S)
    watcher.forget(first)
    time_passes.release()
    assert not looks.acquire(timeout=0.2), "nobody is there to look at"
    second.on_cut(cut.set)
    watcher.watch(second, lambda: True)
    assert looks.acquire(timeout=LIMIT_S)
    time_passes.release()
    assert cut.wait(LIMIT_S) and second.left
    watcher.forget(second)
    time_passes.release(2)
