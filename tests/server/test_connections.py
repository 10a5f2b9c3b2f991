"""Connections: what strangers, members in a hurry and clients that do not read may take of them."""

import contextlib
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from members import tokens
from server import client, connections
from server import task as tasks
from tests.client import CHAT, TIMEOUT_S, ask
from tests.fake_upstream import Gate
from tests.providers import plain, usage
from tests.stage import wait_until

COUNTS = usage(20, 10)


def connected(relay):
    return socket.create_connection(("127.0.0.1", relay.port), TIMEOUT_S)


def head(path, length, *headers, method="POST"):
    lines = [f"{method} {path} HTTP/1.1", "Host: relay", f"Content-Length: {length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def everything(sock):
    """What comes until the other side closes."""
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_large_body_of_a_stranger_is_refused_before_it_comes(relay):
    with connected(relay) as sock:
        sock.sendall(head(CHAT, 5_000_000, "Authorization: Bearer nobody"))
        answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 401 ") and b"invalid_api_key" in answer


def test_the_refusal_is_read_by_a_client_that_is_still_sending(relay):
    with connected(relay) as sock:
        sock.sendall(head("/v1/messages", 5_000_000, "x-api-key: nobody"))
        sock.sendall(b"x" * 300_000)
        assert b'"type":"error"' in everything(sock)


def test_a_body_that_is_too_large_for_everybody_is_refused_in_the_dialect_of_its_address(relay):
    with connected(relay) as sock:
        sock.sendall(head("/v1/messages", 5_000_000_000))
        answer = everything(sock)
    assert answer.startswith(b"HTTP/1.1 413 ") and b'"type":"error"' in answer


def test_an_address_that_cannot_be_taken_apart_gets_an_answer(relay):
    with connected(relay) as sock:
        sock.sendall(head("http://[v1/models", 0, method="GET"))
        assert everything(sock).startswith(b"HTTP/1.1 400 ")


def test_a_large_body_of_a_member_is_read(alice, fake):
    fake.always(plain(COUNTS))
    assert alice.chat("x" * 200_000).status == 200


def test_who_expects_a_word_before_the_body_gets_it(alice, fake, relay):
    fake.always(plain(COUNTS))
    body = json.dumps(ask("x" * 100_000)).encode()
    with connected(relay) as sock:
        key = f"Authorization: Bearer {alice.token}"
        sock.sendall(head(CHAT, len(body), key, "Expect: 100-continue"))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 Continue")
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_requests_sent_together_are_answered_in_their_order(relay):
    paths = ["/healthz", "/nowhere", "/healthz", "/v1/nowhere"]
    asked = b"".join(head(path, 0, method="GET") for path in paths)
    with connected(relay) as sock:
        sock.sendall(asked[:-30])
        sock.sendall(asked[-30:].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answers = everything(sock).split(b"HTTP/1.1 ")[1:]
    assert [int(answer[:3]) for answer in answers] == [200, 404, 200, 404]


@pytest.mark.parametrize("said", [(), ("Connection: keep-alive",), ("Connection: close",)])
@pytest.mark.parametrize("path", ["/healthz", "/static/console.css", "/v1/nowhere"])
def test_an_answer_says_once_when_it_was_made_and_how_long_it_is(relay, path, said):
    with connected(relay) as sock:
        second = head("/healthz", 0, "Connection: close", method="GET")
        sock.sendall(head(path, 0, *said, method="GET") + second)
        answers = everything(sock).split(b"HTTP/1.1 ")[1:]
    heads = [answer.lower().partition(b"\r\n\r\n")[0] for answer in answers]
    closes = [b"\r\nconnection: close" in each for each in heads]
    assert closes == ([True] if "Connection: close" in said else [False, True])
    for each in heads:
        assert (each.count(b"\r\ndate: "), each.count(b"\r\ncontent-length: ")) == (1, 1)


@pytest.mark.parametrize("header", [("x-a", "b\r\nx-c: d"), ("x-a\nx-c", "d"), ("x-a", "b\rc")])
def test_a_header_of_an_answer_is_one_line_or_there_is_no_answer(header):
    task = tasks.Task(None, SimpleNamespace(version="1.1"))
    with pytest.raises(ValueError, match="line end"):
        task._start("200 OK", [("content-type", "text/plain"), header])
    assert not task.complete


def test_who_reads_no_answer_holds_no_thread(start_relay):
    """More clients than threads ask for much and read nothing; another one is served."""
    relay = start_relay(server={"threads": 4})
    asked = head("/static/console.css", 0, method="GET") * 400
    rude = [connected(relay) for _ in range(8)]
    for sock in rude:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(asked[:60_000])
    polite = wait_until(lambda: relay.client().get("/healthz"))
    assert polite.status == 200
    for sock in rude:
        sock.close()


def test_half_a_request_holds_no_thread(start_relay, person, fake):
    relay = start_relay(server={"threads": 4})
    fake.always(plain(COUNTS))
    half = [connected(relay) for _ in range(20)]
    for sock in half:
        sock.sendall(head(CHAT, 100)[:-10])
    alice = person("alice", relay).given(wallet="10")
    assert alice.chat().status == 200
    for sock in half:
        sock.close()


def test_what_never_becomes_whole_is_closed(monkeypatch, start_relay):
    monkeypatch.setattr(connections, "LOOK_S", 0.01)
    monkeypatch.setattr(client, "STRANGER_S", 0.05)
    relay = start_relay()
    with connected(relay) as sock:
        sock.sendall(head(CHAT, 100)[:-10])
        assert everything(sock) == b""


def test_a_connection_that_says_nothing_is_closed(monkeypatch, start_relay):
    monkeypatch.setattr(connections, "LOOK_S", 0.01)
    monkeypatch.setattr(client, "IDLE_S", 0.05)
    with connected(start_relay()) as sock:
        assert everything(sock) == b""


def test_a_call_that_takes_longer_than_connections_may_idle_is_not_closed(
    monkeypatch, start_relay, person, fake
):
    monkeypatch.setattr(connections, "LOOK_S", 0.01)
    monkeypatch.setattr(client, "IDLE_S", 0.05)
    relay, gate, answers = start_relay(), Gate(), []
    alice = person("alice", relay).given(wallet="10")
    fake.always([gate, *plain(COUNTS)])
    caller = threading.Thread(target=lambda: answers.append(alice.chat().status))
    caller.start()
    fake.wait_for(1)
    until = time.monotonic() + 0.2
    wait_until(lambda: time.monotonic() > until)
    gate.open()
    caller.join(TIMEOUT_S)
    assert answers == [200]


def test_one_address_has_only_so_many_connections_and_the_oldest_idle_one_goes(
    monkeypatch, start_relay
):
    monkeypatch.setattr(connections, "OF_ADDRESS_MAX", 3)
    relay = start_relay()
    monkeypatch.setattr(relay.server._connections, "_spared", lambda address: False)
    socks = [connected(relay) for _ in range(5)]
    assert everything(socks[0]) == b"" and everything(socks[1]) == b""
    socks[4].sendall(head("/healthz", 0, "Connection: close", method="GET"))
    assert everything(socks[4]).startswith(b"HTTP/1.1 200")
    for sock in socks:
        sock.close()


@pytest.mark.parametrize("end", ["leave", "reset"])
def test_numbers_of_sockets_that_are_used_again_confuse_nobody(alice, fake, relay, end):
    """Many short connections in parallel, some of which end at once: each answer is one's own."""
    fake.always(plain(COUNTS))
    wrong = []

    def hurry(number):
        for turn in range(15):
            answer = alice.post(CHAT, ask(), x_number=f"{number}-{turn}")
            if answer.status != 200:
                wrong.append(answer)
            stream = alice.open("GET", "/healthz")
            getattr(stream, end)()

    callers = [threading.Thread(target=hurry, args=(number,)) for number in range(12)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(TIMEOUT_S)
    assert not wrong
    assert len(relay.rows("outcome = 'complete'")) == 12 * 15
    assert relay.ledger_is_right()


def test_sockets_that_the_supervisor_opened_are_used(start_relay, monkeypatch):
    """systemd hands them over as descriptors from 3 on, and keeps them over a restart."""
    given = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(connections, "FIRST_GIVEN_FD", given.fileno())
    monkeypatch.setenv("LISTEN_PID", str(connections.os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    relay = start_relay()
    assert relay.port == given.getsockname()[1]
    assert relay.client().get("/healthz").status == 200
    given.detach()  # the relay closes it


def test_who_sends_on_after_a_refusal_is_closed_and_holds_no_thread(monkeypatch, start_relay):
    monkeypatch.setattr(connections, "LOOK_S", 0.01)
    monkeypatch.setattr(client, "LINGER_S", 0.1)
    relay = start_relay(server={"threads": 4})
    stubborn = [connected(relay) for _ in range(6)]

    def send_on(sock):
        sock.sendall(head(CHAT, 2_000_000_000, "Authorization: Bearer nobody"))
        with contextlib.suppress(OSError):
            while True:
                sock.sendall(b"x" * 65_536)

    senders = [threading.Thread(target=send_on, args=(sock,)) for sock in stubborn]
    for sender in senders:
        sender.start()
    assert relay.client().get("/healthz").status == 200
    for sender in senders:
        sender.join(TIMEOUT_S)
        assert not sender.is_alive()
    for sock in stubborn:
        sock.close()


def test_counting_a_large_request_takes_a_body_as_large_as_its_call(alice):
    body = ask("x" * (9 << 20)) | {"max_tokens": 5}
    assert alice.post("/v1/messages/count_tokens", body).status == 200


def test_a_large_body_hears_why_its_token_works_no_more_and_counts_as_an_attempt(
    start_relay, person
):
    relay = start_relay(limits={"failures_per_minute": 2})
    alice = person("alice", relay)
    tokens.revoke(relay.db, tokens.tokens(relay.db, alice.id)[0]["id"])
    answers = []
    for _ in range(3):
        with connected(relay) as sock:
            sock.sendall(head(CHAT, 500_000, f"Authorization: Bearer {alice.token}"))
            answers.append(everything(sock))
    assert b"has been revoked" in answers[0]
    assert [int(answer[9:12]) for answer in answers] == [401, 401, 429]


def test_pages_take_no_large_bodies(relay):
    for framing in ("Content-Length: 9000000", "Transfer-Encoding: chunked"):
        with connected(relay) as sock:
            sock.sendall(f"POST /login HTTP/1.1\r\nHost: relay\r\n{framing}\r\n\r\n".encode())
            assert everything(sock).startswith(b"HTTP/1.1 413 ")


def test_metrics_are_told_while_the_database_is_away(relay):
    relay.database.rename(relay.database.with_name("away.db"))
    try:
        answer = relay.client().get("/metrics")
        assert answer.status == 200 and b"relay_threads_max" in answer.body
    finally:
        relay.database.with_name("away.db").rename(relay.database)
