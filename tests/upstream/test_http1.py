"""One HTTP/1.1 exchange.

What an upstream may send, in whatever pieces, and which connections serve again.
"""

import itertools
import socket
import threading
import time
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.upstream.connection import Connection
from relay.upstream.http1 import (
    ConnectionPool,
    HTTPResponse,
    ProtocolError,
    ServerDisconnected,
    place_of,
)
from tests.fake_upstream import FakeUpstream, Gate, answer, cut, end, head, reset, silence

HEADERS = {"Content-Type": "application/json", "Content-Length": "2"}


@pytest.fixture
def upstream():
    with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def post(upstream):
    """A function that posts to the upstream over one set of connections: (answer, line)."""
    connections = ConnectionPool(kept_max=2)

    def post(body: bytes = b"{}", answer_s: float = 10):
        line = Connection(allow_private=True)
        headers = HEADERS | {"Content-Length": str(len(body))}
        return connections.post(line, upstream.url + "/chat", headers, body, 10, answer_s), line

    return post


def raw(data: bytes):
    return lambda line: line.raw(data)


def body_of(answer) -> bytes:
    return b"".join(iter(answer.read, b""))


def test_the_request_arrives_as_it_was_given(upstream, post):
    upstream.always(answer({}))
    post(b'{"a": 1}')
    [request] = upstream.requests
    assert (request.method, request.path, request.json) == ("POST", "/v1/chat", {"a": 1})
    assert request.headers == {
        "host": f"127.0.0.1:{upstream.port}",
        "content-type": "application/json",
        "content-length": "8",
    }


@pytest.mark.parametrize(
    "url, secure, host, port, start",
    [
        (
            "http://a.example/v1/chat",
            False,
            "a.example",
            80,
            b"POST /v1/chat HTTP/1.1\r\nHost: a.example\r\n",
        ),
        (
            "https://a.example:8443",
            True,
            "a.example",
            8443,
            b"POST / HTTP/1.1\r\nHost: a.example:8443\r\n",
        ),
        ("http://[::1]:81/v1", False, "::1", 81, b"POST /v1 HTTP/1.1\r\nHost: [::1]:81\r\n"),
        (
            "https://a.example/模型/a%20b",
            True,
            "a.example",
            443,
            b"POST /%E6%A8%A1%E5%9E%8B/a%20b HTTP/1.1\r\nHost: a.example\r\n",
        ),
    ],
)
def test_an_address_leads_to_a_place(url, secure, host, port, start):
    place = place_of(url)
    assert (place.secure, place.host, place.port, place.start) == (secure, host, port, start)


WHOLE = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-Y:  z \r\n\r\nhello world",
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    b"6;ext=1\r\nhello \r\n5\r\nworld\r\n0\r\nTrailer: a\r\n\r\n",
    "early hints": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
}


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 150), max_size=6))
def test_an_answer_is_the_same_however_it_is_cut(name, cuts):
    data, places = WHOLE[name], sorted({0, *cuts, len(WHOLE[name])})
    pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Connection(allow_private=True)
        ours.settimeout(10)
        line.attach(ours)
        kept = []
        found = HTTPResponse(line, ours, lambda: kept.append(True))
        writer = threading.Thread(target=lambda: [theirs.sendall(piece) for piece in pieces])
        writer.start()
        found.await_head(time.monotonic() + 10)
        assert (
            found.status == 200 and "link" not in found.headers and "trailer" not in found.headers
        )
        assert body_of(found) == b"hello world" and found.at_end(0)
        writer.join()
        found.close()
        assert kept == [True]


def test_an_end_by_closing_is_an_end_where_no_length_was_told(upstream, post):
    upstream.always([head(framing="close"), b"hello"])
    found, _ = post()
    assert body_of(found) == b"hello"
    found.close()
    post()
    assert upstream.connections == 2


@pytest.mark.parametrize(
    "script",
    [
        [head(200, 10), b"hello", cut],
        [head(), b"hello", cut],
        [head(), b"hello", reset],
        [head(), raw(b"xyz\r\nhello\r\n"), silence],
    ],
    ids=["length", "chunks", "reset", "no chunk"],
)
def test_an_answer_that_breaks_off_is_an_error(upstream, post, script):
    upstream.always(script)
    with pytest.raises(OSError):
        with closing(post()[0]) as found:
            body_of(found)
    upstream.always(answer({}))
    assert body_of(post()[0]) == b"{}" and upstream.connections == 2


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad header\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    ],
)
def test_what_is_no_http_answer_is_refused(upstream, post, data):
    upstream.always([raw(data), cut])
    with pytest.raises(OSError):
        body_of(post()[0])


def test_what_came_before_what_cannot_be_read_is_read_first(upstream, post):
    """Whether they came in one piece is chance; the end of a stream may be in it."""
    upstream.always(
        [raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nHello\r\nodd\r\n")]
    )
    answer, _ = post()
    assert answer.read() == b"Hello"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            answer.read()
    answer.close()


def test_a_connection_that_ends_unheard_is_told_apart(upstream, post):
    upstream.always([cut])
    with pytest.raises(ServerDisconnected):
        post()
    upstream.always([raw(b"HTTP/1.1 2"), cut])
    with pytest.raises(ProtocolError):
        post()


def test_a_connection_serves_again_after_a_whole_answer(upstream, post):
    upstream.next(answer({"n": 1}), [head(), b"{}", end], answer(b"", 204), answer({"n": 3}, 500))
    for _ in range(4):
        found, line = post()
        body_of(found)
        assert found.at_end(10)
        found.close()
    assert upstream.connections == 1 and not line.fresh


@pytest.mark.parametrize(
    "script",
    [
        [head(200, 2, connection="close"), b"{}"],
        [head(200, 2), b"{}HTTP/1.1 200 OK\r\n"],
        [raw(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}")],
    ],
)
def test_a_connection_that_is_over_or_has_said_too_much_does_not(upstream, post, script):
    upstream.always(script)
    for _ in range(2):
        found, _ = post()
        assert body_of(found) == b"{}"
        found.close()
    assert upstream.connections == 2


def test_an_answer_that_was_not_read_to_its_end_frees_no_connection(upstream, post):
    gate = Gate()
    upstream.next([head(), b"hello", gate, end])
    found, _ = post()
    assert found.read() == b"hello" and not found.at_end(0)
    found.close()
    assert upstream.requests[0].gone.wait(10)


def test_a_kept_connection_that_was_closed_meanwhile_is_not_used(upstream, post):
    upstream.always([head(200, 2), b"{}", cut])
    for _ in range(3):
        found, line = post()
        assert body_of(found) == b"{}" and line.fresh
        found.close()
        assert upstream.requests[-1].gone.wait(10)
    assert len(upstream.requests) == 3


def test_one_that_closes_in_this_very_moment_is_replaced_once(upstream, post):
    """The kept one takes the request and hangs up; the request goes out again over a new one."""
    upstream.next(answer({}), [reset], answer({"n": 2}))
    first, _ = post()
    body_of(first)
    first.close()
    found, line = post()
    assert body_of(found) == b'{"n": 2}' and line.fresh and upstream.connections == 2
    upstream.next([reset])
    found.close()
    upstream.always([reset])
    with pytest.raises(ServerDisconnected):
        post()
    assert len(upstream.requests) == 5


def test_headers_must_come_in_time_however_they_drip(upstream, post):
    def drip(line):
        while True:
            line.raw(b"X: y\r\n")
            line.wait_for(None, 0.01)

    for script in ([silence], [raw(b"HTTP/1.1 200 OK\r\n"), drip]):
        upstream.always(script)
        with pytest.raises(TimeoutError):
            post(answer_s=0.2)
        assert upstream.requests[-1].gone.wait(10)


def test_who_answers_before_having_read_everything_is_heard(upstream, post):
    """A body too large for the provider: it says so, and closes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            )
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 20):
                pass

    thread = threading.Thread(target=refuse)
    thread.start()
    body = b"x" * (8 << 20)
    found = ConnectionPool(1).post(
        Connection(allow_private=True),
        f"http://127.0.0.1:{listener.getsockname()[1]}/",
        HEADERS | {"Content-Length": str(len(body))},
        body,
        10,
        10,
    )
    assert found.status == 413 and body_of(found) == b"{}"
    found.close()
    thread.join(10)
    listener.close()


def test_a_cut_from_another_thread_ends_a_wait_at_once(upstream, post):
    gate = Gate()
    upstream.always([head(), b"hello", gate])
    found, line = post()
    assert found.read() == b"hello"
    cutter = threading.Thread(target=line.cut)
    cutter.start()
    with pytest.raises(OSError):
        found.read()
    cutter.join()
    found.close()
    assert upstream.requests[0].gone.wait(10)


def test_no_more_connections_are_kept_than_agreed(upstream, post):
    upstream.always(answer({}))
    finish([post()[0] for _ in range(4)])
    assert all(request.gone.wait(10) for request in upstream.requests[:2])
    assert not any(request.gone.is_set() for request in upstream.requests[2:])


def test_a_connection_that_waited_too_long_is_closed_when_another_comes_back(
    upstream, post, monkeypatch
):
    upstream.always(answer({}))
    both = [post()[0] for _ in range(2)]
    finish(both[:1])
    monkeypatch.setattr("relay.upstream.http1.KEPT_IDLE_S", -1)
    finish(both[1:])
    assert upstream.requests[0].gone.wait(10)


def finish(answers):
    for found in answers:
        body_of(found)
        found.close()


def test_each_call_over_a_kept_connection_has_a_patience_of_its_own(upstream, post):
    gate = Gate()
    upstream.next(answer(b"one"), [gate, *answer(b"two")], [silence], answer(b"four"))
    found, line = post(answer_s=0.05)
    assert body_of(found) == b"one" and line.fresh
    found.close()
    threading.Timer(0.2, gate.open).start()
    found, line = post(answer_s=10)
    assert body_of(found) == b"two" and not line.fresh
    found.close()
    with pytest.raises(TimeoutError):
        post(answer_s=0.05)
