"""What goes out and comes in.

Where connections may lead, which headers pass, how much is read, who sees keys.
"""

import logging
import socket

import pytest

from tests.client import CHAT, ask, assert_openai_error
from tests.fake_upstream import FakeUpstream, answer, cut, head, stream
from tests.providers import ERRORS, chunk, error, openai_stream, plain, usage, words
from tests.stage import LIMIT_S, model_config, upstream_config, wait_until
from tests.tls import Secret, certify

COUNTS = usage(20, 10)
KEY = "0123456789abcdef.UpstreamSecret789"  # of Zhipu's shape: nothing tells that it is one


@pytest.fixture
def canary():
    """Somebody who must not hear anything."""
    with FakeUpstream() as listener:
        yield listener.always(plain(COUNTS))


@pytest.fixture
def start(start_relay, person):
    """A function: alice with 10 yuan at a relay of her own."""
    return lambda **changes: person("alice", start_relay(**changes)).given(wallet="10")


# Where connections may lead


ODD_ADDRESSES = [
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.2",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "0.0.0.0",
    "[::]",
    "0",
]
NAMES = {
    "loopback.example": ["127.0.0.1"],
    "private.example": ["10.1.2.3"],
    "metadata.example": ["169.254.169.254"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "several.example": ["192.168.0.1", "127.0.0.1", "fc00::1"],
    "shared.example": ["100.64.0.1"],
    "translated.example": ["64:ff9b::7f00:1"],
    "old.example": ["::7f00:1"],
    "site.example": ["fec0::1"],
    "multicast.example": ["224.0.0.251"],
}


@pytest.fixture
def names(monkeypatch):
    """These names lead to these addresses; all other names are looked up as ever."""
    real = socket.getaddrinfo

    def look_up(host, port, *args, **options):
        if host not in NAMES:
            return real(host, port, *args, **options)
        return [
            (
                socket.AF_INET6 if ":" in each else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (each, port, 0, 0) if ":" in each else (each, port),
            )
            for each in NAMES[host]
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_private_addresses_are_refused_when_connecting_however_they_are_written(
    start, canary, names, caplog
):
    """One upstream for each spelling; the canary listens where they lead."""
    hosts = [*ODD_ADDRESSES, *NAMES]
    alice = start(
        upstreams=[
            upstream_config(
                f"http://{host}:{canary.port}/v1", f"u{number}", allow_private=False, connect_s=2
            )
            for number, host in enumerate(hosts)
        ],
        models=[
            model_config(f"m{number}", upstreams=[f"u{number}"]) for number in range(len(hosts))
        ],
    )
    for number, host in enumerate(hosts):
        refused = alice.chat(model=f"m{number}")
        assert refused.status == 502, host
        assert_openai_error(refused, 502, "upstream_error")
        assert b"127." not in refused.body and b"private" not in refused.body
    assert canary.connections == 0
    assert "must say allow_private" in caplog.text, "the log tells the operator why"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_who_writes_this_machines_own_address_means_it(start, canary, host):
    alice = start(
        upstreams=[upstream_config(f"http://{host}:{canary.port}/v1", allow_private=False)]
    )
    assert alice.chat().status == 200


def test_a_private_address_is_reached_if_its_upstream_says_so(start, canary, names):
    alice = start(
        upstreams=[upstream_config(f"http://loopback.example:{canary.port}/v1", allow_private=True)]
    )
    assert alice.chat().status == 200
    assert canary.requests[0].headers["host"] == f"loopback.example:{canary.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(start, fake, canary, status):
    alice = start()
    for streamed in (False, True):
        fake.always(answer(b"", status, location=f"{canary.url}/chat/completions"))
        assert_openai_error(alice.chat(stream=streamed), 502, "upstream_error")
    assert canary.connections == 0 and len(fake.requests) == 2


def test_what_a_caller_sends_is_fetched_by_nobody_here(start, fake, canary):
    fake.always(plain(COUNTS))
    alice, url = start(), canary.url + "/image.png"
    images = {
        CHAT: {"type": "image_url", "image_url": {"url": url}},
        "/api/v1/messages": {"type": "image", "source": {"type": "url", "url": url}},
    }
    for path, image in images.items():
        assert (
            alice.post(
                path,
                {
                    "model": "test-model",
                    "max_tokens": 5,
                    "messages": [{"role": "user", "content": [image]}],
                },
            ).status
            == 200
        )
    assert canary.connections == 0


def test_the_environment_has_no_say(start, fake, canary, monkeypatch, tmp_path):
    """Neither proxies nor .netrc."""
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    (tmp_path / "netrc").write_text(
        "machine 127.0.0.1 login a password b\ndefault login a password b\n"
    )
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fake.always(plain(COUNTS))
    assert start().chat().status == 200
    assert canary.connections == 0
    assert fake.requests[0].headers["authorization"] == "Bearer sk-upstream-secret"


def test_certificates_are_verified(start, tmp_path):
    with Secret(certify(tmp_path)) as upstream:
        upstream.always(plain(COUNTS))
        alice = start(upstreams=[upstream_config(upstream.url.replace("http:", "https:"))])
        assert_openai_error(alice.chat(), 502, "upstream_error")
        assert upstream.connections and not upstream.requests


# Headers, both ways


def test_no_cookie_is_kept_or_passed_on(start, fake):
    script = plain(COUNTS)
    fake.always([head(200, len(script[1]), set_cookie="id=1; Path=/"), script[1]])
    alice = start()
    told = [alice.post(CHAT, ask(), cookie="mine=1") for _ in range(2)]
    assert all("cookie" not in request.headers for request in fake.requests)
    assert all("set-cookie" not in each.headers for each in told)


ODD_HEADERS = {
    "set_cookie": "a=b",
    "server": "secret/1",
    "x_ratelimit_remaining_requests": "0",
    "x_secret": "1",
    "access_control_allow_origin": "http://evil",
    "location": "http://evil",
    "x_request_id": "theirs",
    "retry_after": "9",
    "content_encoding": "identity",
    "x_should_retry": "true",
    "www_authenticate": "Basic",
    "strict_transport_security": "max-age=1",
    "refresh": "0; url=http://evil",
    "alt_svc": "h3",
}
ALWAYS = {
    "x-request-id",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "content-type",
    "date",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "via",
    "vary",
}


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_of_an_upstreams_headers_none_passes(start, fake, streamed):
    fake.always(
        openai_stream(COUNTS, **ODD_HEADERS)
        if streamed
        else [head(200, len(plain(COUNTS)[1]), **ODD_HEADERS), plain(COUNTS)[1]]
    )
    told = start().chat(stream=streamed)
    more = (
        {"cache-control", "x-accel-buffering", "transfer-encoding", "connection"}
        if streamed
        else {"content-length"}
    )
    assert told.status == 200 and set(told.headers) <= ALWAYS | more
    assert (
        told.headers["x-request-id"].startswith("req_")
        and told.headers["access-control-allow-origin"] == "*"
    )
    assert told.headers["x-ratelimit-remaining-requests"] != "0"


def test_of_an_erring_upstreams_headers_none_passes(start, fake):
    fake.always(answer({"error": {"message": "no"}}, 400, **ODD_HEADERS))
    told = start().chat()
    assert set(told.headers) <= ALWAYS | {"content-length", "x-should-retry"}
    assert told.headers["x-should-retry"] == "false"


def test_an_absurd_header_of_a_caller_harms_nobody(start, fake):
    fake.always(plain(COUNTS))
    alice = start(upstreams=[upstream_config(fake.url, speaks=["messages"])])
    body = {
        "model": "test-model",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    for odd in ("x" * 5000, "\xe4\xf6", "a\tb"):
        alice.post("/api/v1/messages", body, anthropic_beta=odd)
    alice.post("/api/v1/messages", body, anthropic_beta="context-1m-2025-08-07")
    betas = [request.headers.get("anthropic-beta") for request in fake.requests]
    assert betas == [None, None, None, "context-1m-2025-08-07"]


# How much is read


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_plain_answer_that_is_too_large_is_given_up(start, fake, framing):
    def endless(line):
        while True:
            line.send(b" " * 4096)

    fake.always([head(framing=framing), endless])
    alice = start(upstreams=[upstream_config(fake.url, answer_bytes_max=20_000)])
    assert_openai_error(alice.chat(), 502, "upstream_error")
    assert fake.wait_for().gone.wait(LIMIT_S)


def test_a_stream_that_is_too_large_is_cut_and_charged_as_delivered(start, fake):
    def endless(line):
        while True:
            for each in words():
                line.send(
                    b"data: "
                    + str(each).replace("'", '"').replace("None", "null").encode()
                    + b"\n\n"
                )

    fake.always(stream(chunk("Hello"), endless, done=False))
    alice = start(upstreams=[upstream_config(fake.url, answer_bytes_max=20_000)])
    streamed = alice.chat_stream()
    *said, last = streamed.documents()
    assert last["error"]["code"] == "upstream_error" and 20 < len(said) < 500
    row = alice.relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"]) == ("upstream_cut", "estimated") and row[
        "output_tokens"
    ] > 20
    assert (
        fake.wait_for().gone.wait(LIMIT_S)
        and alice.held().wallet == 0
        and alice.relay.ledger_is_right()
    )


def test_an_endless_error_page_is_read_no_further_than_needed(start, fake):
    def endless(line):
        while True:
            line.send(b"<p>" * 4096)

    fake.always([head(500), endless])
    assert_openai_error(start().chat(), 502, "upstream_error")
    assert fake.wait_for().gone.wait(LIMIT_S)


# The provider's key


def test_the_providers_key_is_in_no_log_error_row_or_page(start, fake, caplog, capfd):
    """Every failure that there is, with the key in whatever the provider says."""
    caplog.set_level(logging.DEBUG)
    said = {
        "error": {
            "message": f"bad key {KEY}, Authorization: Bearer {KEY}",
            "code": KEY,
            "param": KEY,
            "type": KEY,
        }
    }
    wrong = {"error": {"message": f"not with {KEY}", "param": KEY, "type": "invalid_request_error"}}
    scripts = [error(name) for name in ERRORS]
    scripts += [answer(said, status, x_key=KEY) for status in (200, 400, 401, 404, 422, 429, 500)]
    scripts += [answer(KEY.encode(), 500), [head(200, 10, x_key=KEY)]]
    scripts.append([lambda line: line.raw(f"{KEY}\r\n".encode()), cut])
    scripts += [
        stream(*said_before, each, done=False)
        for each in (said, wrong)
        for said_before in ((), words())
    ]
    scripts.append(plain(COUNTS))
    alice = start(upstreams=[upstream_config(fake.url, api_key=KEY, first_byte_s=0.3)])
    inside, seen = alice.relay.app.extensions["relay"], []
    for script in scripts:
        for path, body in (
            (CHAT, ask(stream=True)),
            (CHAT, ask()),
            ("/api/v1/messages", ask(max_tokens=5)),
        ):
            fake.always(script)
            inside.sender.health.wake()
            seen.append(alice.post(path, body).body)
    assert (
        all(request.headers["authorization"] == f"Bearer {KEY}" for request in fake.requests)
        and fake.requests
    )
    seen += [
        alice.get(path).body for path in ("/readyz", "/metrics", "/healthz", "/v1/models", "/")
    ]
    told = (
        b"".join(seen).decode()
        + caplog.text
        + str(alice.relay.rows())
        + "".join(capfd.readouterr())
    )
    told += repr(inside.settings) + repr(inside.catalog.upstreams) + str(inside.upstream_report())
    assert KEY not in told and KEY[-12:] not in told
    assert (
        wait_until(lambda: all(row["closed_at"] for row in alice.relay.rows()))
        and alice.relay.ledger_is_right()
    )
