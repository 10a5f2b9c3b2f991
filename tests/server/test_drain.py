"""SIGTERM: what is in flight ends well, what is new is turned away, and nothing hangs.

In a process of its own.
"""

import signal
import threading

import pytest

from tests.client import assert_openai_error
from tests.fake_upstream import DONE, Gate, silence, stream
from tests.providers import TEXT, chunk, plain, usage, usage_chunk, words
from tests.stage import LIMIT_S, wait_until

COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000


@pytest.fixture
def relay(start_relay):
    """One that would wait for its calls longer than any test does."""
    return start_relay(process=True, server={"drain_s": 2 * LIMIT_S})


def gated_stream(gate):
    return stream(*words(), gate, chunk(finish="stop"), usage_chunk(COUNTS))


def test_streams_in_flight_end_well_and_new_calls_are_turned_away(alice, fake, relay):
    gate = Gate()
    fake.always(gated_stream(gate))
    streams = [alice.chat_stream() for _ in range(10)]
    for streamed in streams:
        streamed.next_event()
    relay.process.send_signal(signal.SIGTERM)
    refused = until_refused(alice)
    assert refused.json["error"]["code"] and int(refused.headers["retry-after"]) > 0
    gate.open()
    for streamed in streams:
        assert streamed.text() == "".join(TEXT[1:])
        assert streamed.body.endswith(DONE) and not streamed.broken
    assert relay.process.wait(LIMIT_S) == 0
    assert [row["outcome"] for row in relay.rows("stream = 1")] == 10 * ["complete"]
    assert alice.balance().wallet == 10_000_000_000 - 10 * COST
    assert alice.held().wallet == 0
    assert relay.ledger_is_right()


def until_refused(alice):
    """The first 503; the signal takes a moment to arrive."""
    return wait_until(
        lambda: answered if (answered := alice.get("/api/v1/models")).status == 503 else None
    )


def test_an_idle_relay_ends_at_once(relay):
    assert relay.end(signal.SIGTERM) == 0


def test_a_second_signal_ends_it_at_once(alice, fake, relay):
    fake.always(stream(*words(), done=False, then=silence))
    streamed = alice.chat_stream()
    streamed.next_event()
    relay.process.send_signal(signal.SIGTERM)
    until_refused(alice)
    relay.end(signal.SIGTERM)


@pytest.mark.parametrize("wire", ["chat", "messages", "responses"])
def test_a_stream_past_the_grace_ends_with_an_error_and_costs_what_was_read(
    start_relay, person, fake, wire
):
    relay = start_relay(process=True, server={"drain_s": 1})
    alice = person("alice", relay).given(wallet="10")
    fake.next(stream(*words(), done=False, then=silence)).always(plain(COUNTS))
    streamed = begun(alice, wire)
    streamed.next_event()
    relay.end(signal.SIGTERM)
    assert b"restarting" in streamed.read()
    relay.start_again()
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["error"]) == ("upstream_cut", "restarting")
    assert row["usage_source"] == "estimated" and row["cost"] > 0
    assert alice.held().wallet == 0 and relay.ledger_is_right()
    assert alice.chat().status == 200


@pytest.mark.parametrize("wire", ["chat", "messages", "responses"])
def test_no_stream_lives_for_ever(start_relay, person, fake, wire):
    """A provider that says a word now and then is never silent too long, and holds a place."""
    relay = start_relay(server={"answer_s_max": 0.3})
    alice = person("alice", relay).given(wallet="10")
    fake.next(stream(*words(), done=False, then=silence)).always(plain(COUNTS))
    streamed = begun(alice, wire)
    read = streamed.read()
    assert b"took longer than this relay lets one take" in read
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["error"]) == ("upstream_cut", "answer_time_limit")
    assert row["usage_source"] == "estimated" and row["cost"] > 0
    assert alice.chat().status == 200, "it says nothing of the upstream"
    (seen,) = relay.app.extensions["relay"].upstream_report()
    assert seen["state"] == "ok" and relay.ledger_is_right()


def test_an_answer_that_has_not_begun_by_then_costs_nothing(start_relay, person, fake):
    relay = start_relay(server={"answer_s_max": 0.3})
    alice = person("alice", relay).given(wallet="10")
    fake.always([silence])
    ended = alice.chat()
    assert_openai_error(ended, 504, "answer_time_limit")
    row = relay.closed_row(ended.request_id)
    assert row["cost"] == 0 and alice.held().wallet == 0


def begun(alice, wire):
    if wire == "chat":
        return alice.chat_stream()
    path, said = {
        "messages": ("/v1/messages", {"messages": [{"role": "user", "content": "Hi"}]}),
        "responses": ("/v1/responses", {"input": "Hi"}),
    }[wire]
    return alice.open(
        "POST", path, {"model": "test-model", "stream": True, "max_tokens": 100} | said
    )


def test_calls_under_way_when_the_signal_comes_are_answered(alice, fake, relay):
    gate, statuses = Gate(), []
    fake.always([gate, *plain(COUNTS)])
    callers = [
        threading.Thread(target=lambda: statuses.append(alice.chat().status)) for _ in range(10)
    ]
    for caller in callers:
        caller.start()
    fake.wait_for(10)
    relay.process.send_signal(signal.SIGTERM)
    until_refused(alice)
    gate.open()
    for caller in callers:
        caller.join(LIMIT_S)
    assert statuses == 10 * [200]
    assert relay.process.wait(LIMIT_S) == 0
