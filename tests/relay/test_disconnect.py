"""Callers that leave, vanish or stop reading.

The upstream call ends, the policy charges, the thread is free.
"""

import socket

import pytest
from waitress.adjustments import Adjustments

from relay.upstream import connection
from server import http
from tests.client import CHAT, ask, assert_openai_error
from tests.fake_upstream import Gate, head, silence, stream
from tests.providers import TEXT, chunk, openai_stream, plain, usage, usage_chunk, words
from tests.stage import model_config, upstream_config, wait_until

NOTICED_S = 60  # on a busy machine; on an idle one the relay promises a second
COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000


def leave(streamed):
    streamed.leave()


def vanish(streamed):
    streamed.reset()


def test_the_relay_looks_often_enough_to_notice_within_a_second():
    assert connection.WATCH_S <= 0.5


WAYS = pytest.mark.parametrize("go", [leave, vanish], ids=["FIN", "RST"])


def assert_wallet_lost(alice, nano_yuan):
    assert alice.balance().wallet == 10_000_000_000 - nano_yuan
    assert (alice.held().grant, alice.held().wallet) == (0, 0)
    assert alice.relay.ledger_is_right()


def begun_stream(alice, count=2):
    """A stream of which `count` events have been read."""
    streamed = alice.chat_stream()
    events = streamed.events()
    for _ in range(count):
        next(events)
    return streamed


@WAYS
def test_a_caller_who_leaves_a_talking_upstream_is_charged_for_what_was_delivered(
    alice, fake, relay, go
):
    steps = [step for _ in range(2000) for step in (chunk(" again"), pause)]
    fake.always(stream(*words(), *steps, done=False, then=silence))
    streamed = begun_stream(alice)
    go(streamed)
    assert fake.wait_for().gone.wait(NOTICED_S)
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"]) == ("client_left", "estimated")
    assert 1 <= row["output_tokens"] < 2000
    assert_wallet_lost(alice, row["cost"])


def pause(line):
    """The pace of a talking upstream: 5 ms, or less if the peer leaves."""
    line.wait_for(None, seconds=0.005)


@WAYS
def test_a_caller_who_leaves_while_the_upstream_is_silent_in_the_middle_is_noticed(
    alice, fake, relay, go
):
    fake.always(stream(*words(), done=False, then=silence))
    streamed = begun_stream(alice, len(TEXT))
    go(streamed)
    assert fake.wait_for().gone.wait(NOTICED_S)
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"]) == ("client_left", "estimated")
    assert 2 <= row["output_tokens"] <= 8
    assert_wallet_lost(alice, row["cost"])


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    "script",
    [[silence], [head(content_type="text/event-stream"), silence]],
    ids=["before the headers", "before the content"],
)
def test_a_caller_who_leaves_before_the_first_content_pays_nothing(
    alice, fake, relay, script, streamed
):
    fake.always(script)
    connection = alice.send(CHAT, ask(stream=streamed))
    request = fake.wait_for()
    assert alice.held().wallet > 0
    connection.close()
    assert request.gone.wait(NOTICED_S)
    row = relay.closed_row()
    assert (row["outcome"], row["usage_source"], row["cost"] or 0) == ("client_left", "none", 0)
    assert (row["status"], row["error"]) == (499, None), "nothing went wrong here"
    assert_wallet_lost(alice, 0)


def test_a_caller_who_left_is_not_sent_to_the_next_target(start_relay, person, fake, other_fake):
    relay = start_relay(
        upstreams=[upstream_config(fake.url), upstream_config(other_fake.url, "other")],
        models=[model_config(upstreams=("fake", "other"))],
    )
    alice = person("alice", relay).given(wallet="10")
    fake.always([silence])
    connection = alice.send(CHAT, ask())
    request = fake.wait_for()
    connection.close()
    assert request.gone.wait(NOTICED_S)
    assert relay.closed_row()["outcome"] == "client_left"
    assert other_fake.requests == []


def alice_with_policy(start_relay, person, fake, **changes):
    relay = start_relay(upstreams=[upstream_config(fake.url, **changes)])
    return person("alice", relay).given(wallet="10"), relay


def test_the_drain_policy_reads_on_for_the_exact_usage(start_relay, person, fake):
    alice, relay = alice_with_policy(start_relay, person, fake, on_disconnect="drain", drain_s=10)
    gate = Gate()
    fake.always(stream(*words(), gate, chunk(finish="stop"), usage_chunk(COUNTS)))
    streamed = begun_stream(alice)
    assert gate.reached.wait(NOTICED_S)
    streamed.leave()
    assert not fake.wait_for().gone.wait(0.6)  # the watcher has looked twice, and let it be
    gate.open()
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"], row["cost"]) == ("client_left", "upstream", COST)
    assert_wallet_lost(alice, COST)


def test_the_drain_policy_gives_up_after_its_time(start_relay, person, fake):
    alice, relay = alice_with_policy(start_relay, person, fake, on_disconnect="drain", drain_s=1)
    fake.always(stream(*words(), done=False, then=silence))
    streamed = begun_stream(alice, len(TEXT))
    streamed.leave()
    assert fake.wait_for().gone.wait(NOTICED_S)
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"]) == ("client_left", "estimated")
    assert_wallet_lost(alice, row["cost"])


def test_the_free_policy_charges_nothing(start_relay, person, fake):
    alice, relay = alice_with_policy(start_relay, person, fake, on_disconnect="free")
    fake.always(stream(*words(), done=False, then=silence))
    streamed = begun_stream(alice)
    streamed.leave()
    assert fake.wait_for().gone.wait(NOTICED_S)
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["cost"] or 0) == ("client_left", 0)
    assert_wallet_lost(alice, 0)


def test_a_caller_who_leaves_right_after_done_has_a_complete_call(alice, fake, relay):
    fake.always(openai_stream(COUNTS))
    for _ in range(5):
        streamed = alice.chat_stream()
        for each in streamed.events():
            if each == b"data: [DONE]\n\n":
                break
        streamed.reset()
        row = relay.closed_row(streamed.request_id)
        assert (row["outcome"], row["cost"]) == ("complete", COST)
    assert_wallet_lost(alice, 5 * COST)


def test_threads_of_callers_who_left_serve_others(start_relay, person, fake):
    # One thread is never for calls; the plan lets one member have all the others.
    relay = start_relay(server={"threads": 5}, plans={"free": {"calls_at_once": 4}})
    alice = person("alice", relay).given(wallet="10")
    fake.next(*[[silence]] * 4).always(plain(COUNTS))
    leavers = [alice.send(CHAT, ask()) for _ in range(4)]
    fake.wait_for(4)
    assert_openai_error(alice.chat(), 503, "relay_overloaded")
    for leaver in leavers:
        leaver.close()
    wait_until(lambda: alice.chat().status == 200)
    assert relay.ledger_is_right()


@pytest.fixture
def impatient_sockets(monkeypatch):
    """Give up clients that read nothing after half a second, not after a minute."""
    option = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    monkeypatch.setattr(Adjustments, "socket_options", list(Adjustments.socket_options))
    kept = [each for each in http.SOCKET_OPTIONS if each[1] != socket.TCP_USER_TIMEOUT]
    monkeypatch.setattr(http, "SOCKET_OPTIONS", [*kept, option])


def test_a_client_that_stops_reading_frees_its_thread(impatient_sockets, alice, fake, relay):
    def torrent(line):
        while True:
            line.run([chunk("x" * 50_000)])

    fake.always(stream(*words(), torrent, done=False))
    alice.chat_stream()  # and nobody reads
    row = relay.closed_row()
    assert row["outcome"] == "client_left"
    assert fake.wait_for().gone.wait(NOTICED_S)
    assert_wallet_lost(alice, row["cost"])
