"""A head that is read in few steps is read as waitress reads it, and every other is waitress' own."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

from server import request as module
from server.request import Request

ADJ = Adjustments(max_request_header_size=4096, max_request_body_size=1000)
KNOWN = (
    *("command", "version", "path", "query", "fragment", "request_uri", "headers", "url_scheme"),
    *("proxy_scheme", "proxy_netloc", "completed", "empty", "headers_finished", "chunked"),
    *("content_length", "connection_close", "expect_continue"),
)
USUAL = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


def told(kind: type[HTTPRequestParser], data: bytes) -> dict:
    """All that is known of a request that came in one piece."""
    parser = kind(ADJ)
    taken = parser.received(data)
    taken += parser.received(data[taken:])
    known = {name: getattr(parser, name, "nothing") for name in KNOWN}
    error = parser.error and (type(parser.error).__name__, parser.error.body)
    body = parser.get_body_stream().read() if not error else b""
    parser.close()
    return known | {"taken": taken, "error": error, "body": body}


HEADS = [
    USUAL + b"abcd",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a?b=c&d=%20&e=?/ HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a? HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a%20b%C3%A9 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET //a//b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n",
    b"GET /a\r\nHost: a\r\n\r\n",
    b"get /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET  /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1 \r\nHost: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\n\r\n",
    b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nHost\r\n\r\n",
    b"GET /a HTTP/1.1\r\n: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: a\r\n folded\r\n\r\n",
    b"GET /a HTTP/1.1\r\n X: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: a\nY: b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: a\rY: b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: a\x00b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: a\x7fb\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: \xe4\xbd\xa0\xff\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: \t a\t b \t\r\nY:\r\nZ: \t\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: a\r\nx: b\r\nX: c\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX-Y: a\r\nX_Y: b\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX!#$%&'*+.^`|~: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX\xff: a\r\n\r\n",
    b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
    b"GET /a HTTP/1.1\r\nConnection: Close\r\n\r\n",
    b"GET /a HTTP/1.1\r\nConnection: keep-alive, close\r\n\r\n",
    b"POST /a HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nContent-Length: 004\r\n\r\nabcdef",
    b"POST /a HTTP/1.1\r\nContent-Length: +4\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: -4\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: 4_0\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: \r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: 1000\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: 999\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: " + 20 * b"9" + b"\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nContent-Length: \xb2\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nTransfer_Encoding: chunked\r\nContent-Length: 4\r\n\r\nabcd",
    b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
    b"GET /a HTTP/1.1\r\nX: " + 5000 * b"a" + b"\r\n\r\n",
    USUAL + b"abcd" + USUAL,
]


@pytest.mark.parametrize("data", HEADS, ids=lambda data: repr(data[:60]))
def test_a_request_is_read_as_waitress_reads_it(data):
    assert told(Request, data) == told(HTTPRequestParser, data)


@given(
    st.integers(0, len(USUAL)),
    st.integers(0, 8),
    st.one_of(
        st.binary(max_size=6), st.sampled_from([b"\r\n", b": ", b"\r", b"\n ", b"%41", b"?"])
    ),
)
@example(4, 0, b"/")
def test_a_damaged_head_is_read_as_waitress_reads_it(at, gone, more):
    data = USUAL[:at] + more + USUAL[at + gone :] + b"abcd"
    assert told(Request, data) == told(HTTPRequestParser, data)


@given(st.lists(st.tuples(st.text("Aa-_ :\t", min_size=1), st.binary(max_size=5)), max_size=4))
def test_odd_fields_are_read_as_waitress_reads_them(fields):
    lines = b"".join(name.encode() + b":" + value + b"\r\n" for name, value in fields)
    data = b"GET /a HTTP/1.1\r\n" + lines + b"\r\n"
    assert told(Request, data) == told(HTTPRequestParser, data)


def test_the_usual_head_takes_the_short_way(monkeypatch):
    monkeypatch.setattr(module.HTTPRequestParser, "parse_header", None)  # else it would be called
    assert told(Request, USUAL + b"abcd")["body"] == b"abcd"
    query = b"GET /a-b_c/~d.e?f=%20&g HTTP/1.1\r\nHost: a\r\nX-Stainless-Lang: js\r\n\r\n"
    assert told(Request, query)["query"] == "f=%20&g"


def test_a_length_that_no_number_holds_is_refused():
    head = b"POST /a HTTP/1.1\r\nContent-Length: " + 4000 * b"9" + b"\r\n\r\n"
    assert len(head) < ADJ.max_request_header_size
    assert told(Request, head)["error"][0] in ("BadRequest", "RequestEntityTooLarge")


def test_an_address_that_cannot_be_taken_apart_is_refused():
    assert told(Request, b"GET http://[a HTTP/1.1\r\nHost: a\r\n\r\n")["error"] == (
        "BadRequest",
        "Bad URI",
    )
