"""What a call was made of goes with it, and does not wait until somebody looks for circles: a request may
have megabytes, and an error knows all that it came through."""

import gc
import weakref

import pytest

from relay import body, errors
from tests.client import CHAT, ask
from tests.fake_upstream import answer, cut, head, silence, stream
from tests.providers import chunk, openai_stream, plain, usage, words
from tests.stage import model_config, upstream_config, wait_until

COUNTS = usage(20, 10)


def refused(status: int) -> list:
    return answer({"error": {"message": "no", "type": "x"}}, status)


WIRES = {
    CHAT: {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 10},
    "/v1/responses": {"input": "Hello"},
    "/v1/completions": {"prompt": "Hello"},
}


@pytest.fixture
def left(monkeypatch):
    """A function that tells which errors and bodies of requests are still there."""
    known: list[weakref.ref] = []

    def noted(kind):
        made = kind.__init__

        def init(self, *args, **options):
            known.append(weakref.ref(self))
            made(self, *args, **options)

        monkeypatch.setattr(kind, "__init__", init)

    noted(errors.RelayError)
    noted(body.Body)
    gc.collect()
    gc.disable()
    yield lambda: [type(each()).__name__ for each in known if each() is not None]
    gc.enable()
    assert known, "nothing was made"


@pytest.fixture
def member(start_relay, person, fake, other_fake):
    """Somebody whose calls are tried at two upstreams."""
    relay = start_relay(
        upstreams=[upstream_config(fake.url), upstream_config(other_fake.url, "other")],
        models=[model_config(upstreams=("fake", "other"))],
        failover={"wait_s": 0},
    )
    return person("alice", relay).given(wallet="10")


def gone(left):
    wait_until(lambda: not left(), 20)


@pytest.mark.parametrize("address", WIRES)
@pytest.mark.parametrize(
    "change",
    [
        {"model": "nope"},
        {"model": 7},
        {"stream": "yes"},
        {"service": float("nan")},
        {"tools": 64 * [None]},
        {"model": "test-model"},
    ],
    ids=repr,
)
def test_a_request_that_is_refused_leaves_nothing(member, fake, left, address, change):
    fake.always(refused(400))
    member.post(address, {"model": "test-model"} | WIRES[address] | change)
    gone(left)


def test_a_body_that_cannot_be_read_leaves_nothing(member, left):
    for data in (b"", b"{", b'{"a":1,"a":2}', b'{"a":"\\ud800"}', b"\xff", b"[" * 100):
        assert member.call("POST", CHAT, data).status == 400
    gone(left)


def test_who_has_no_money_leaves_nothing(member, person, left):
    assert person("bob", member.relay).chat().status == 402
    gone(left)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("address", WIRES)
@pytest.mark.parametrize(
    "script",
    [
        refused(500),
        refused(429),
        refused(401),
        refused(400),
        [cut],
        [head(), cut],
        [lambda line: line.raw(b"nonsense\r\n\r\n")],
        answer({"error": {"message": "no"}}),
        answer({"choices": []}),
        answer("nonsense"),
        stream(chunk("a"), then=cut, done=False),
        stream(*words(), {"error": {"message": "broken"}}),
        stream(*words(), b"nonsense\n\n"),
    ],
    ids=range(13),
)
def test_a_provider_that_fails_leaves_nothing(
    member, fake, other_fake, left, script, address, streamed
):
    fake.always(script)
    other_fake.always(script)
    member.post(address, {"model": "test-model", "stream": streamed} | WIRES[address])
    gone(left)


@pytest.mark.parametrize("address", WIRES)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://nowhere.invalid/v1"])
def test_a_provider_that_is_away_leaves_nothing(start_relay, person, left, address, url):
    relay = start_relay(upstreams=[upstream_config(url)], failover={"wait_s": 0})
    member = person("alice", relay).given(wallet="10")
    assert member.post(address, {"model": "test-model"} | WIRES[address]).status == 502
    gone(left)


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_a_provider_that_fails_before_another_answers_leaves_nothing(
    member, fake, other_fake, left, streamed
):
    fake.always(refused(500))
    other_fake.always(openai_stream(COUNTS) if streamed else plain(COUNTS))
    assert member.chat(stream=streamed).status == 200
    gone(left)


@pytest.mark.parametrize("address", WIRES)
def test_who_leaves_in_the_middle_leaves_nothing(member, fake, left, address):
    fake.always(stream(*words(), done=False, then=silence))
    streamed = member.open(
        "POST", address, {"model": "test-model", "stream": True} | WIRES[address]
    )
    next(streamed.events())
    streamed.leave()
    gone(left)


def test_who_leaves_before_the_answer_leaves_nothing(member, fake, left):
    fake.always([silence])
    connection = member.send(CHAT, ask())
    fake.wait_for()
    connection.close()
    gone(left)
