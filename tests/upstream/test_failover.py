"""The fault matrix: every way in which an upstream fails, at every moment, on every wire, with one
upstream or more.

For each: what the caller reads, every attempt on the row, one charge or none, and what is thought
of the upstream afterwards. Over real sockets; one relay serves the whole matrix.
"""

import itertools
import json
import shutil
import socket
import threading
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from tests.client import CHAT, ask, assert_openai_error
from tests.fake_upstream import (
    FakeUpstream,
    Gate,
    answer,
    cut,
    end,
    event,
    head,
    reset,
    silence,
    stream,
)
from tests.providers import (
    ERRORS_INSIDE_200,
    TEXT,
    chunk,
    error,
    openai_stream,
    plain,
    usage,
    usage_chunk,
    words,
)
from tests.stage import (
    LIMIT_S,
    Person,
    configuration,
    free_port,
    in_thread,
    model_config,
    upstream_config,
    wait_until,
    write_config,
)

COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000
SOON_S = {"before the headers": 0.25, "before the content": 1, "in mid-stream": 0.25}
# That is the relay's patience where an upstream is silent; else it is long.

WIRES = {
    "chat": (CHAT, {"messages": [{"role": "user", "content": "Hello?"}]}),
    "messages": (
        "/api/v1/messages",
        {"messages": [{"role": "user", "content": "Hello?"}], "max_tokens": 50},
    ),
    "responses": ("/api/v1/responses", {"input": "Hello?"}),
}
ENDINGS = {
    "chat": b"data: [DONE]",
    "messages": b"event: message_stop",
    "responses": b"event: response.completed",
}
ANTHROPIC = {502: "api_error", 503: "overloaded_error", 504: "timeout_error"}


@dataclass
class Matrix:
    alice: Person
    one: FakeUpstream
    two: FakeUpstream

    @property
    def relay(self):
        return self.alice.relay

    def call(self, wire: str, model: str, streamed: bool):
        """A call, its answer not yet read."""
        path, body = WIRES[wire]
        return self.alice.open("POST", path, body | {"model": model, "stream": streamed})

    def lose_patience(self, name: str, **patience: float) -> None:
        """With this upstream, until the end of the test."""
        inside = self.relay.app.extensions["relay"]
        inside.configure(
            replace(
                inside.settings,
                upstreams=tuple(
                    replace(each, **patience) if each.name == name else each
                    for each in inside.settings.upstreams
                ),
            )
        )

    def health(self, name: str) -> dict:
        return next(
            each
            for each in self.relay.app.extensions["relay"].upstream_report()
            if each["name"] == name
        )


@pytest.fixture(scope="module")
def running(tmp_path_factory, people_file):
    folder = tmp_path_factory.mktemp("failover")
    with FakeUpstream() as one, FakeUpstream() as two:
        nowhere = [f"http://127.0.0.1:{free_port()}/v1" for _ in range(2)]
        urls = {"one": one.url, "two": two.url, "gone": nowhere[0], "lost": nowhere[1]}
        routes = {
            "alone": ["one"],
            "first": ["one", "two"],
            "gone alone": ["gone"],
            "gone first": ["gone", "two"],
            "gone all": ["gone", "lost"],
        }
        config = configuration(
            folder,
            one.url,
            {
                "upstreams": [
                    upstream_config(url, name, api_key=f"sk-of-{name}-012345")
                    for name, url in urls.items()
                ],
                "models": [model_config(name, upstreams=names) for name, names in routes.items()],
            },
        )
        shutil.copyfile(people_file[0], config["database"]["path"])
        relay = in_thread(write_config(folder, config), folder / "relay.db")
        yield Matrix(
            Person("alice", *people_file[1]["alice"], relay).given(wallet="1000"), one, two
        )
        relay.stop()


@pytest.fixture
def matrix(running, monkeypatch):
    """The running relay, with nothing remembered of earlier tests.

    Who rests has not recovered before a test looks.
    """
    monkeypatch.setattr("relay.upstream.health.PAUSE_S", LIMIT_S)
    monkeypatch.setattr("relay.upstream.health.LAST_RESORT_S", LIMIT_S)
    running.one.requests.clear()
    running.two.requests.clear()
    running.relay.app.extensions["relay"].sender.health.wake()
    running.before = running.alice.balance().wallet
    settings = running.relay.app.extensions["relay"].settings
    yield running
    running.relay.app.extensions["relay"].configure(settings)
    wait_until(
        lambda: running.alice.held().wallet == 0
    )  # the end of a call that broke off follows its answer
    assert running.relay.ledger_is_right()


# The faults. Each: the scripts for a plain call and a stream, what one upstream makes of it, and
# its state then


@dataclass(frozen=True)
class Fault:
    plain: list
    stream: list
    status: int = 502
    code: str = "upstream_error"
    seen: int | None = None  # the status that the upstream gave
    state: str = "ok"
    retry_after: str | None = None


def alike(script, *told, **more) -> Fault:
    return Fault(script, script, *told, **more)


EVENTS = head(content_type="text/event-stream")
SAID_NOTHING = [EVENTS, b": keep-alive\n\n", event(chunk())]
SAYS_BUSY = {"error": {"message": "too many", "code": "rpm_rate_limit_exceeded"}}
HALF = [head(200, 5000), b'{"choices": [']

BEFORE_HEADERS = {
    "reset": alike([reset]),
    "closed": alike([cut]),
    "500": alike(error("openai 500"), seen=500),
    "502 of a proxy": alike(
        answer(b"<html>Bad gateway</html>", 502, content_type="text/html"), seen=502
    ),
    "503": alike(error("openai 503"), 503, "upstream_overloaded", 503, "busy", "1"),
    "429": alike(
        answer({"error": {"message": "slow down"}}, 429),
        503,
        "upstream_overloaded",
        429,
        "busy",
        "1",
    ),
    "429 with retry-after": alike(
        answer({"error": {"message": "slow down"}}, 429, retry_after="7"),
        503,
        "upstream_overloaded",
        429,
        "busy",
        "7",
    ),
    "401": alike(error("dashscope key"), 502, "upstream_account", 401, "refused"),
    "402": alike(error("deepseek balance"), 502, "upstream_account", 402, "refused"),
    "403": alike(error("ark arrears"), 502, "upstream_account", 403, "refused"),
    "silence": alike([silence], 504, "upstream_timeout"),
    "no HTTP": alike([lambda line: line.raw(b"SSH-2.0-OpenSSH_9\r\n\r\n"), cut]),
    "a redirect": alike(answer(b"", 307, location="http://127.0.0.1:1/"), seen=307),
}
BEFORE_CONTENT = {
    "reset": Fault([*HALF, reset], [*SAID_NOTHING, reset], seen=200),
    "cut": Fault([*HALF, cut], [*SAID_NOTHING, cut], seen=200),
    "silence": Fault([*HALF, silence], [*SAID_NOTHING, silence], 504, "upstream_timeout", 200),
    "an error": Fault(
        answer(ERRORS_INSIDE_200["openai"]),
        [*SAID_NOTHING, event(ERRORS_INSIDE_200["openai"]), end],
        seen=200,
    ),
    "an error that says busy": Fault(
        answer(SAYS_BUSY),
        [*SAID_NOTHING, event(SAYS_BUSY), end],
        503,
        "upstream_overloaded",
        200,
        "busy",
        "1",
    ),
    "an empty answer": Fault(plain(content=""), stream(chunk(), chunk(finish="stop")), seen=200),
    "no event at all": Fault(answer(b""), [EVENTS, end], seen=200),
    "malformed JSON": Fault(
        answer(b'{"choices": [{'), [EVENTS, event(b'{"choices": [{'), end], seen=200
    ),
    "a page": alike(answer(b"<html>Welcome</html>", content_type="text/html"), seen=200),
}
IN_MIDSTREAM = {
    "reset": ([reset], "upstream_error"),
    "cut": ([cut], "upstream_error"),
    "ended too early": ([end], "upstream_error"),
    "silence": ([silence], "upstream_timeout"),
    "an error": ([event(ERRORS_INSIDE_200["openai"]), end], "upstream_error"),
    "an error that says busy": ([event(SAYS_BUSY), end], "upstream_overloaded"),
    "malformed JSON": ([event(b'{"choices": [{'), end], "upstream_error"),
}
FAULTS = [
    pytest.param("before the headers", name, id=f"before the headers: {name}")
    for name in BEFORE_HEADERS
] + [
    pytest.param("before the content", name, id=f"before the content: {name}")
    for name in BEFORE_CONTENT
]
each_fault = pytest.mark.parametrize(("moment", "name"), FAULTS)
each_wire = pytest.mark.parametrize("wire", WIRES)
each_way = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])


def fault_of(moment: str, name: str) -> Fault:
    return (BEFORE_HEADERS if moment == "before the headers" else BEFORE_CONTENT)[name]


def good(request):
    """What an upstream that is well answers."""
    return openai_stream(COUNTS) if request.json.get("stream") else plain(COUNTS)


def assert_refused(told, wire: str, fault: Fault) -> None:
    """The error in the caller's dialect, as the whole answer."""
    told.read()
    assert told.status == fault.status and told.headers["content-type"].startswith(
        "application/json"
    )
    error = json.loads(told.body)["error"]
    if wire == "messages":
        assert error["type"] == ANTHROPIC[fault.status]
    else:
        assert (error["code"], error["param"]) == (fault.code, None)
    assert (
        told.headers.get("retry-after") == fault.retry_after
        and "x-should-retry" not in told.headers
    )


def assert_said(told, wire: str, streamed: bool) -> None:
    """One clean answer: the words once, the end once, and nothing of any failure."""
    body = told.read()
    assert told.status == 200 and b"error" not in body.replace(b'"error":null', b"")
    assert body.count(b"Hello") >= 1
    if streamed:
        assert body.count(ENDINGS[wire]) == 1
        if wire == "chat":
            assert body.count(b"Hello") == 1


def attempts(row) -> list[tuple]:
    return [
        (each["upstream"], each["status"], each.get("error"))
        for each in json.loads(row["attempts"])
    ]


def assert_charged(matrix, row, outcome: str, cost: int) -> None:
    assert (row["outcome"], row["cost"] or 0) == (outcome, cost)
    assert matrix.before - matrix.alice.balance().wallet == cost


# Before the headers and before the content


@each_fault
@each_wire
@each_way
def test_with_one_upstream_the_caller_is_told_and_charged_nothing(
    matrix, moment, name, wire, streamed
):
    fault = fault_of(moment, name)
    matrix.one.always(fault.stream if streamed else fault.plain)
    if name == "silence":
        matrix.lose_patience("one", first_byte_s=SOON_S[moment])
    told = matrix.call(wire, "alone", streamed)
    assert_refused(told, wire, fault)
    row = matrix.relay.closed_row(told.request_id)
    assert attempts(row) == [("one", fault.seen, fault.code)] and row["status"] == fault.status
    assert_charged(matrix, row, "failed", 0)
    health = matrix.health("one")
    assert (health["state"], health["last_error"]) == (fault.state, fault.code)


@each_fault
@each_wire
@each_way
def test_with_two_upstreams_the_caller_sees_one_clean_answer(matrix, moment, name, wire, streamed):
    fault = fault_of(moment, name)
    matrix.one.always(fault.stream if streamed else fault.plain)
    if name == "silence":
        matrix.lose_patience("one", first_byte_s=SOON_S[moment])
    matrix.two.always(good)
    told = matrix.call(wire, "first", streamed)
    assert_said(told, wire, streamed)
    row = matrix.relay.closed_row(told.request_id)
    assert attempts(row) == [("one", fault.seen, fault.code), ("two", 200, None)]
    assert (row["upstream"], row["status"], row["error"]) == ("two", 200, None)
    assert_charged(matrix, row, "complete", COST)
    assert matrix.health("one")["state"] == fault.state and matrix.health("two")["state"] == "ok"
    assert len(matrix.two.requests) == 1


@each_fault
@each_wire
def test_when_all_fail_the_caller_is_told_what_the_last_one_said(matrix, moment, name, wire):
    fault = fault_of(moment, name)
    matrix.one.always(error("openai 500"))
    matrix.two.always(fault.stream)
    if name == "silence":
        matrix.lose_patience("two", first_byte_s=SOON_S[moment])
    told = matrix.call(wire, "first", True)
    assert_refused(told, wire, fault)
    row = matrix.relay.closed_row(told.request_id)
    assert attempts(row) == [("one", 500, "upstream_error"), ("two", fault.seen, fault.code)]
    assert_charged(matrix, row, "failed", 0)


@each_wire
@each_way
def test_a_refused_connection_is_a_failure_like_others(matrix, wire, streamed):
    matrix.two.always(good)
    failed = [("gone", None, "upstream_error"), ("lost", None, "upstream_error")]
    for model, tried in (("gone alone", failed[:1]), ("gone all", failed)):
        told = matrix.call(wire, model, streamed)
        assert_refused(told, wire, Fault([], []))
        assert attempts(matrix.relay.closed_row(told.request_id)) == tried
    told = matrix.call(wire, "gone first", streamed)
    assert_said(told, wire, streamed)
    row = matrix.relay.closed_row(told.request_id)
    assert attempts(row) == [failed[0], ("two", 200, None)]
    assert_charged(matrix, row, "complete", COST)


# In mid-stream: never again from the beginning


@pytest.mark.parametrize("name", IN_MIDSTREAM)
@pytest.mark.parametrize("model", ["alone", "first"])
@each_wire
def test_in_mid_stream_the_caller_is_told_and_nobody_else_is_asked(matrix, name, model, wire):
    steps, code = IN_MIDSTREAM[name]
    matrix.one.always([EVENTS, b"".join(map(event, words()[:2])), *steps])
    if name == "silence":
        matrix.lose_patience("one", idle_s=SOON_S["in mid-stream"])
    told = matrix.call(wire, model, True)
    body = told.read()
    assert told.status == 200 and b"Hello" in body
    assert_broken_off(body, wire, code)
    row = matrix.relay.closed_row(told.request_id)
    assert attempts(row) == [("one", 200, None)] and not matrix.two.requests
    assert (row["usage_source"], row["error"]) == ("estimated", code)
    assert 1 <= row["output_tokens"] <= 3
    assert_charged(
        matrix, row, "upstream_cut", row["input_tokens"] * 2_000 + row["output_tokens"] * 8_000
    )
    health = wait_until(
        lambda: matrix.health("one") if matrix.health("one")["last_error"] == code else None
    )
    assert health["state"] == ("busy" if code == "upstream_overloaded" else "ok")


def assert_broken_off(body: bytes, wire: str, code: str) -> None:
    """The last event is the wire's own failure, and no end of success stands anywhere."""
    for success in (b"[DONE]", b"message_stop", b"message_delta", b"response.completed"):
        assert success not in body
    *_, last = body.strip().split(b"\n\n")
    lines = dict(line.split(": ", 1) for line in last.decode().splitlines())
    told = json.loads(lines["data"])
    if wire == "messages":
        assert (lines["event"], told["type"]) == ("error", "error") and told["error"]["message"]
    elif wire == "responses":
        assert lines["event"] == "response.failed" and told["response"]["status"] == "failed"
    else:
        assert "event" not in lines and told["error"]["code"] == code


def test_an_upstream_whose_answers_keep_breaking_off_rests_and_the_next_is_asked(matrix):
    matrix.one.always(stream(*words()[:1], done=False, then=reset))
    matrix.two.always(good)
    for _ in range(5):
        matrix.call("chat", "first", True).read()
    assert wait_until(lambda: matrix.health("one")["state"] == "failing")
    told = matrix.call("chat", "first", True)
    assert_said(told, "chat", True)
    assert attempts(matrix.relay.closed_row(told.request_id)) == [("two", 200, None)]


# The caller's own mistakes


@pytest.mark.parametrize(
    "name",
    [
        "moonshot context",
        "dashscope bad parameter",
        "deepseek bad parameter",
        "dashscope inspection",
        "zhipu sensitive",
        "spark model",
    ],
)
@each_wire
def test_the_callers_own_mistake_is_passed_on_and_tried_nowhere_else(matrix, name, wire):
    matrix.one.always(error(name))
    told = matrix.call(wire, "first", True)
    told.read()
    assert told.status in (400, 422) and told.headers["x-should-retry"] == "false"
    assert not matrix.two.requests and matrix.health("one")["state"] == "ok"
    assert_charged(matrix, matrix.relay.closed_row(told.request_id), "refused", 0)


def test_a_hundred_bad_requests_change_no_health(matrix):
    names = ("moonshot context", "deepseek bad parameter", "dashscope inspection", "spark model")
    odd = (
        answer({"error": {"message": "too large", "code": f"too large {number}"}}, 413)
        for number in range(20)
    )
    matrix.one.next(*(each for one in odd for each in (*map(error, names), one))).always(good)
    before = matrix.health("one")
    for _ in range(100):
        assert matrix.alice.chat(model="alone").status in (400, 413, 422)
    after = matrix.health("one")
    assert b"too large" not in matrix.alice.get("/metrics").body, "a label has few values"
    assert after["calls"] == before["calls"] + 100
    assert {
        name: after[name]
        for name in ("state", "failed", "keys_usable", "last_error", "last_error_at")
    } == {
        name: before[name]
        for name in ("state", "failed", "keys_usable", "last_error", "last_error_at")
    }
    assert matrix.alice.chat(model="alone").status == 200


@pytest.mark.parametrize("name", ["ark model", "zhipu model"])
def test_a_model_that_one_provider_has_no_more_is_asked_for_at_the_next(matrix, name):
    matrix.one.always(error(name))
    matrix.two.always(good)
    for _ in range(3):
        told = matrix.call("chat", "first", False)
        assert_said(told, "chat", False)
    assert matrix.health("one")["state"] == "ok" and len(matrix.one.requests) == 3
    matrix.two.always(error("openai 500"))
    assert_openai_error(matrix.alice.chat(model="first"), 502, "upstream_error")
    assert matrix.alice.chat(model="alone").status in (400, 404), (
        "as the provider says, if nothing better is known"
    )


# Bounds


@pytest.fixture
def start(start_relay, person, people_file):
    """A function: alice with 10 yuan at a relay of her own."""
    return lambda **changes: person("alice", start_relay(**changes)).given(wallet="10")


def several(fakes, **more) -> dict:
    """Upstreams a, b, c ... and one model with a route to each, all alike."""
    names = "abcdefgh"[: len(fakes)]
    routes = [{"upstream": name, "model": "upstream-model"} for name in names]
    return {
        "upstreams": [
            upstream_config(each.url, name, **more) for name, each in zip(names, fakes, strict=True)
        ],
        "models": [model_config(routes=routes)],
    }


def test_no_more_targets_are_tried_than_the_settings_say(start, fake):
    fake.always(error("openai 500"))
    alice = start(**several(6 * [fake]), failover={"attempts_max": 3})
    answered = alice.chat()
    assert_openai_error(answered, 502, "upstream_error")
    assert len(attempts(alice.relay.closed_row(answered.request_id))) == 3 == len(fake.requests)


def test_no_further_target_is_tried_after_so_long(start, fake, monkeypatch):
    now = itertools.count(step=100)  # the seconds fly
    monkeypatch.setattr("relay.upstream.sender.time", SimpleNamespace(monotonic=lambda: next(now)))
    fake.always(error("openai 500"))
    alice = start(
        **several(6 * [fake], first_byte_s=3000), failover={"attempts_max": 6, "total_s": 1000}
    )
    assert_openai_error(alice.chat(), 502, "upstream_error")
    assert 1 < len(fake.requests) < 6


def babbling(line):
    """Comments without end."""
    while True:
        line.send(b": keep-alive\n\n")
        line.wait_for(None, 0.02)


def test_an_upstream_that_only_says_that_it_is_alive_is_given_up(start, fake):
    fake.always([EVENTS, babbling])
    alice = start(upstreams=[upstream_config(fake.url, first_byte_s=0.3)])
    assert_openai_error(alice.chat(stream=True), 504, "upstream_timeout")
    assert fake.wait_for().gone.wait(LIMIT_S)


def dripping(start: bytes, drop: bytes):
    """Something that begins well and then comes byte by byte, without end."""

    def step(line):
        line.raw(start)
        while True:
            line.raw(drop)
            line.wait_for(None, 0.02)

    return step


@pytest.mark.parametrize(
    "step",
    [dripping(b"HTTP/1.1 200 ", b"O"), dripping(b"HTTP/1.1 200 OK\r\nserver: ", b"x")],
    ids=["status", "header"],
)
@each_way
def test_headers_that_only_drip_are_given_up(start, fake, step, streamed):
    fake.always([step])
    alice = start(upstreams=[upstream_config(fake.url, connect_s=0.1, first_byte_s=0.1)])
    assert_openai_error(alice.chat(stream=streamed), 504, "upstream_timeout")
    assert fake.wait_for().gone.wait(5)


@each_way
def test_a_chunk_that_only_drips_is_given_up(start, fake, streamed):
    fake.always([EVENTS if streamed else head(), dripping(b"", b"0")])
    alice = start(upstreams=[upstream_config(fake.url, first_byte_s=0.3)])
    assert_openai_error(alice.chat(stream=streamed), 504, "upstream_timeout")


def test_a_chunk_that_only_drips_in_mid_stream_is_silence(start, fake):
    fake.always([EVENTS, *map(event, words()[:2]), dripping(b"", b"0")])
    told = start(upstreams=[upstream_config(fake.url, idle_s=0.3)]).chat_stream()
    assert list(told.documents())[-1]["error"]["code"] == "upstream_timeout"


def test_a_plain_answer_that_only_drips_is_given_up(start, fake, monkeypatch):
    monkeypatch.setattr("relay.upstream.sender.WHOLE_S", 0.3)
    fake.always([head(), babbling])
    alice = start(upstreams=[upstream_config(fake.url, first_byte_s=0.3)])
    assert_openai_error(alice.chat(), 504, "upstream_timeout")


def test_an_error_that_only_drips_is_read_as_its_status(start, fake, monkeypatch):
    monkeypatch.setattr("relay.upstream.sender.ERROR_S", 0.2)
    fake.always([head(429), babbling])
    assert_openai_error(start().chat(), 503, "upstream_overloaded")


def test_a_caller_who_leaves_while_one_is_silent_is_asked_for_nowhere_else(start, fake, other_fake):
    fake.always([silence])
    other_fake.always(good)
    alice = start(
        upstreams=[upstream_config(fake.url, "a"), upstream_config(other_fake.url, "b")],
        models=[model_config(upstreams=["a", "b"])],
    )
    connection = alice.send(CHAT, ask())
    asked = fake.wait_for()
    connection.close()
    assert asked.gone.wait(LIMIT_S)
    row = alice.relay.closed_row()
    assert (
        row["outcome"] == "client_left"
        and attempts(row) == [("a", None, "caller_left")]
        and not other_fake.requests
    )


def test_a_kept_connection_that_just_closed_is_no_failure(matrix, monkeypatch):
    """The provider closes an idle connection in the very moment in which it is used again."""
    monkeypatch.setattr("relay.upstream.http1.STALE_S", LIMIT_S)
    matrix.one.next(plain(COUNTS), [reset]).always(plain(COUNTS))
    told = [matrix.alice.chat(model="alone") for _ in range(3)]
    assert [each.status for each in told] == 3 * [200]
    assert attempts(matrix.relay.closed_row(told[1].request_id)) == [("one", 200, None)]


def test_when_all_rest_callers_are_told_at_once_how_long_to_wait(matrix):
    matrix.one.always(answer({}, 429, retry_after="30"))
    matrix.alice.chat(model="alone")
    busy = matrix.alice.chat(model="alone")
    assert_openai_error(busy, 429, "upstream_busy")
    assert 1 <= int(busy.headers["retry-after"]) <= 30 and len(matrix.one.requests) == 1
    matrix.relay.app.extensions["relay"].sender.health.wake()
    matrix.one.always([reset])
    for _ in range(5):
        matrix.alice.chat(model="alone")
    broken = matrix.alice.chat(model="alone")
    assert_openai_error(broken, 503, "upstream_unavailable")
    assert int(broken.headers["retry-after"]) >= 1 and len(matrix.one.requests) in (6, 7)
    row = matrix.relay.closed_row(broken.request_id)
    assert attempts(row) == [] and (row["outcome"], row["cost"]) == ("failed", 0)


def test_a_busy_upstream_that_does_not_say_for_how_long_is_asked_again_if_it_is_the_only_one(
    matrix,
):
    matrix.one.next(answer({}, 429)).always(good)
    assert [matrix.alice.chat(model="alone").status for _ in range(2)] == [503, 200]


# Two upstreams, one of which dies again and again


class Mortal(FakeUpstream):
    """An upstream that can die, with all its connections, and come back at the same port."""

    def __init__(self):
        super().__init__()
        self._lines: set[socket.socket] = set()
        self._port = free_port()
        self._listener.close()
        self._listener = self._listening()

    @property
    def port(self) -> int:
        return self._port

    def _serve(self, connection: socket.socket) -> None:
        self._lines.add(connection)
        super()._serve(connection)
        self._lines.discard(connection)

    def die(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._lines):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has just ended by itself

    def _listening(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", self._port), backlog=1024)

    def revive(self) -> None:
        self._listener = self._listening()
        threading.Thread(target=self._accept, daemon=True).start()


CALLS, CALLERS, LIFE = 2000, 8, 50


def test_two_thousand_calls_see_nothing_of_an_upstream_that_keeps_dying(start, fake):
    with Mortal() as mortal:
        mortal.always(good)
        fake.always(good)
        alice = start(**several([mortal, fake]))
        statuses, counted = [], threading.Condition()

        def call():
            while len(statuses) < CALLS:
                answered = alice.chat()
                with counted:
                    statuses.append(answered.status)
                    counted.notify_all()

        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for life in range(CALLS // LIFE):
            with counted:
                assert counted.wait_for(lambda: len(statuses) >= (life + 1) * LIFE, LIMIT_S)  # noqa: B023
            (mortal.revive if life % 2 else mortal.die)()
        for caller in callers:
            caller.join(LIMIT_S)
        if life % 2 == 0:
            mortal.revive()
        rows = alice.relay.rows()
        assert len(rows) == len(statuses) >= CALLS and set(statuses) == {200}
        assert {(row["outcome"], row["cost"]) for row in rows} == {("complete", COST)}
        assert (
            alice.balance().wallet == 10_000_000_000 - len(rows) * COST and alice.held().wallet == 0
        )
        assert {row["upstream"] for row in rows} == {"a", "b"}
        assert (
            any(len(attempts(row)) > 1 for row in rows)
            and max(len(attempts(row)) for row in rows) == 2
        )
        assert alice.relay.ledger_is_right()


# Keys


def keys_used(fake) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in fake.requests]


def keyed(fake, *keys) -> dict:
    return {"upstreams": [upstream_config(fake.url, api_key="", api_keys=list(keys))]}


def test_several_keys_are_used_in_turn(start, fake):
    fake.always(good)
    alice = start(**keyed(fake, "k1", "k2", "k3"))
    for _ in range(6):
        alice.chat()
    first = keys_used(fake)[:3]
    assert sorted(first) == ["k1", "k2", "k3"] and keys_used(fake) == 2 * first


@pytest.mark.parametrize(
    "name", ["dashscope key", "zhipu arrears", "moonshot quota", "moonshot busy"]
)
def test_a_key_that_is_refused_or_busy_is_replaced_within_the_call_and_rests(start, fake, name):
    fake.always(
        lambda request: (
            error(name) if request.headers["authorization"] == "Bearer k1" else good(request)
        )
    )
    alice = start(**keyed(fake, "k1", "k2", "k3"))
    told = [alice.chat() for _ in range(6)]
    assert [each.status for each in told] == 6 * [200]
    assert keys_used(fake).count("k1") == 1, "it rests"
    assert sorted(len(attempts(row)) for row in alice.relay.rows()) == [1, 1, 1, 1, 1, 2]
    health = alice.relay.app.extensions["relay"].upstream_report()[0]
    assert (health["state"], health["keys"], health["keys_usable"]) == ("ok", 3, 2)


def test_a_key_that_rests_is_probed_by_one_call_and_used_again(start, fake, monkeypatch):
    monkeypatch.setattr("relay.upstream.health.REFUSED_S", 0.0)
    gate = Gate()
    fake.next(error("deepseek balance"), [gate, *plain(COUNTS)]).always(good)
    alice = start(failover={"wait_s": 0.1})
    assert alice.chat().status == 502
    probing = threading.Thread(target=alice.chat)
    probing.start()
    fake.wait_for(2)
    assert_openai_error(alice.chat(), 502, "upstream_account")
    assert len(fake.requests) == 2
    gate.open()
    probing.join(LIMIT_S)
    assert alice.chat().status == 200


# Conversations, weights, limits


def test_calls_of_one_conversation_go_to_one_place_and_others_are_spread(start, fake, other_fake):
    fakes = {"a": fake, "b": other_fake}
    for each in fakes.values():
        each.always(good)
    alice = start(**several(list(fakes.values()), api_key="", api_keys=["k1", "k2", "k3"]))

    def places() -> set:
        return {(name, key) for name, each in fakes.items() for key in keys_used(each)}

    conversations = [
        *({"body": {"prompt_cache_key": f"conversation {number}"}} for number in range(4)),
        *({"body": {"user": f"user {number}"}} for number in range(4)),
        *(
            {"headers": {name: "1234"}}
            for name in ("session_id", "x_session_id", "x_claude_code_session_id")
        ),
    ]
    seen = set()
    for each in conversations:
        for one in fakes.values():
            one.requests.clear()
        for _ in range(4):
            assert (
                alice.post(CHAT, ask(**each.get("body", {})), **each.get("headers", {})).status
                == 200
            )
        assert len(places()) == 1
        seen |= places()
    assert len(seen) > 2, "conversations are spread"


def test_a_conversation_moves_when_its_place_fails_and_comes_back(start, fake, other_fake):
    fake.always(good)
    other_fake.always(good)
    alice = start(**several([fake, other_fake]))
    home, other = (
        (fake, other_fake)
        if alice.chat(prompt_cache_key="x") and fake.requests
        else (other_fake, fake)
    )
    home.next(error("openai 500"))
    assert alice.chat(prompt_cache_key="x").status == 200 and len(other.requests) == 1
    assert alice.chat(prompt_cache_key="x").status == 200 and len(home.requests) == 3


def test_calls_are_shared_by_weight(start, fake, other_fake):
    fake.always(good)
    other_fake.always(good)
    routes = [
        {"upstream": "a", "model": "m", "weight": 4},
        {"upstream": "b", "model": "m", "weight": 1},
    ]
    alice = start(
        upstreams=[upstream_config(fake.url, "a"), upstream_config(other_fake.url, "b")],
        models=[model_config(routes=routes)],
    )
    for _ in range(100):
        alice.chat()
    assert (
        8 <= len(other_fake.requests) <= 35 and len(fake.requests) + len(other_fake.requests) == 100
    )


def test_an_upstream_has_no_more_calls_at_once_than_it_takes_and_the_rest_goes_elsewhere(
    start, fake, other_fake
):
    gate = Gate()
    fake.always(stream(*words(), gate, chunk(finish="stop"), usage_chunk(COUNTS)))
    other_fake.always(good)
    alice = start(
        failover={"wait_s": 0.1},
        upstreams=[
            upstream_config(fake.url, "a", calls_at_once=2),
            upstream_config(other_fake.url, "b"),
        ],
        models=[model_config(upstreams=["a", "b"]), model_config("only-a", upstreams=["a"])],
    )
    streams = [alice.chat_stream(), alice.chat_stream()]
    for each in streams:
        each.next_event()
    assert alice.chat().status == 200 and len(other_fake.requests) == 1
    full = alice.chat(model="only-a")
    assert_openai_error(full, 429, "upstream_busy")
    assert full.headers["retry-after"] == "1" and len(fake.requests) == 2
    gate.open()
    for each in streams:
        each.read()
    fake.always(good)
    assert wait_until(lambda: alice.chat(model="only-a").status == 200)


def test_when_all_places_are_taken_the_surplus_is_told_at_once_and_everything_else_answers(
    start, fake
):
    gate = Gate()
    fake.always(stream(*words(), gate, chunk(finish="stop"), usage_chunk(COUNTS)))
    alice = start(server={"threads": 8}, plans={"free": {"calls_at_once": 8}})
    inside = alice.relay.app.extensions["relay"]
    streams = [alice.chat_stream() for _ in range(inside.calls_max)]
    for each in streams:
        each.next_event()
    for wire, (path, body) in WIRES.items():
        surplus = alice.post(path, body | {"model": "test-model", "stream": True})
        assert surplus.status == 503 and int(surplus.headers["retry-after"]) >= 1
        kind = surplus.json["error"]
        assert (
            kind["type"] == "overloaded_error"
            if wire == "messages"
            else kind["code"] == "relay_overloaded"
        )
    stranger = alice.relay.client("sk-" + "x" * 43)
    for client, path, status in 5 * (
        (stranger, "/healthz", 200),
        (alice, "/api/v1/models", 200),
        (alice, "/v1/usage", 200),
        (stranger, "/api/v1/models", 401),
        (stranger, "/", 200),
        (alice, "/readyz", 200),
    ):
        assert client.get(path).status == status
    gate.open()
    for each in streams:
        assert each.read().endswith(b"data: [DONE]\n\n")
    fake.always(good)
    assert wait_until(lambda: alice.chat().status == 200)
    assert len(alice.relay.rows()) == len(fake.requests), "who was turned away left no row"


# What operators see


def test_the_state_of_upstreams_stands_in_readyz_and_metrics(matrix):
    matrix.one.always(error("deepseek balance"))
    matrix.alice.chat(model="alone")
    ready = matrix.alice.get("/readyz")
    assert ready.json["upstreams"] == {"one": "refused", "two": "ok", "gone": "ok", "lost": "ok"}
    text = matrix.alice.get("/metrics").body.decode()
    assert (
        'relay_upstream_up{upstream="one"} 0.0' in text
        and 'relay_upstream_up{upstream="two"} 1.0' in text
    )
    assert 'relay_upstream_attempts_total{result="upstream_account",upstream="one"}' in text
    assert "sk-of" not in text + ready.body.decode() and TEXT[0] not in text


def test_an_upstream_without_a_key_gives_no_alarm(start_relay, fake):
    keyless = upstream_config("https://api.example.com", "keyless", api_key="", allow_private=False)
    relay = start_relay(upstreams=[upstream_config(fake.url), keyless])
    seen = [
        line
        for line in relay.client().get("/metrics").body.decode().splitlines()
        if line.startswith("relay_upstream_up{")
    ]
    assert seen == ['relay_upstream_up{upstream="fake"} 1.0']
