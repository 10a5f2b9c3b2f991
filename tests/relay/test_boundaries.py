"""Where a rule has a number in it: what happens on both sides of that number."""

import io
from types import SimpleNamespace

import pytest

import billing
from members import call_rows
from relay.spine import Incoming
from relay.upstream.sender import HELD_BYTES_MAX
from tests.client import CHAT, ask
from tests.fake_upstream import silence, stream
from tests.money.ledger_book import ALICE, DAY, NOW, open_book
from tests.providers import chunk, plain, words
from tests.stage import model_config, upstream_config

LONG = "One sentence of a long prompt, which is said again and again. " * 40
CALL = billing.Usage(1, 0, 1)
INPUT, OUTPUT = 2_000, 8_000  # nano-yuan for an LLM token of test-model


def estimated(alice, fake) -> int:
    """LLM tokens that the relay takes the long prompt for: those of a call that nobody counted."""
    fake.next(plain({}))
    return alice.relay.closed_row(alice.post(CHAT, ask(LONG)).request_id)["input_tokens"]


def test_a_hold_is_the_estimated_input_and_15_percent_more_and_the_output_asked_for(
    alice, fake, relay
):
    tokens = estimated(alice, fake)
    fake.always([silence])
    connection = alice.send(CHAT, ask(LONG, max_tokens=100))
    fake.wait_for(2)
    assert alice.held().wallet == -(-tokens * 115 // 100) * INPUT + 100 * OUTPUT
    connection.close()


def test_a_prompt_is_refused_only_a_quarter_above_the_context_of_its_model(
    start_relay, person, fake
):
    first = start_relay()
    tokens = estimated(person("alice", first).given(wallet="10"), fake)
    first.stop()
    fits = -(-tokens * 4 // 5)
    relay = start_relay(
        models=[model_config("fits", context=fits), model_config("tight", context=fits - 1)]
    )
    alice = person("alice", relay)
    fake.always(plain())
    assert alice.post(CHAT, ask(LONG, "fits")).status == 200
    refused = alice.post(CHAT, ask(LONG, "tight"))
    assert (refused.status, refused.json["error"]["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(
    "plans, in_force",
    [
        ({"slow": ("0.8", 60), "fast": ("0.8", 600)}, "fast"),
        ({"cheap": ("0.7", 60), "fast": ("0.8", 600)}, "cheap"),
        ({"free": ("1", 60), "fast": ("1", 61)}, "fast"),
        ({}, "free"),
    ],
)
def test_of_several_plans_the_cheapest_is_in_force_and_of_equally_cheap_ones_the_fastest(
    relay, plans, in_force
):
    doorkeeper = relay.app.extensions["relay"].gate
    doorkeeper._plans = {
        name: SimpleNamespace(discount=float(discount), requests_per_minute=rate)
        for name, (discount, rate) in plans.items()
    }
    assert doorkeeper.plan_in_force([*plans, "one that is no more"]) == in_force


def test_an_upstream_without_the_policy_drain_is_cut_as_soon_as_the_caller_leaves(
    start_relay, person, fake
):
    relay = start_relay(upstreams=[upstream_config(fake.url, drain_s=600)])
    alice = person("alice", relay).given(wallet="10")
    fake.always(stream(*words(), done=False, then=silence))
    streamed = alice.chat_stream()
    next(streamed.events())
    streamed.leave()
    assert fake.wait_for().gone.wait(60)


def test_a_stream_that_says_nothing_in_a_mebibyte_is_given_up(alice, fake):
    """Until the first content all is held back, for another upstream to take over: it must end."""
    empty = chunk("", padding="x" * 60_000)
    enough = HELD_BYTES_MAX // 60_000
    fake.always(stream(*[empty] * enough, *words()))
    assert b"[DONE]" in b"".join(alice.chat_stream().events())
    fake.always(stream(*[empty] * (enough + 1), done=False, then=silence))
    refused = alice.post(CHAT, ask(stream=True))
    assert (refused.status, refused.json["error"]["code"]) == (504, "upstream_timeout")


def test_a_call_is_kept_to_the_last_millisecond_of_its_days(tmp_path):
    book, oldest = open_book(tmp_path), NOW - 90 * DAY
    book.give(ALICE, wallet="1")
    forgotten, kept = (book.hold(ALICE, CALL, at=at) for at in (oldest - 1, oldest))
    for call_id in (forgotten, kept):
        book.close(call_id, None)
    assert call_rows.forget(book.db, 90, NOW) == 1
    assert [row["id"] for row in call_rows.listed(book.db, call_rows.CallFilter())] == [kept]
    book.db.close()


def test_the_bytes_of_a_request_are_not_kept_beside_what_was_read_of_them(relay):
    """An answer may take minutes, and the history of an agent is long."""
    given = io.BytesIO(b'{"model": "m"}')
    incoming = Incoming({"wsgi.input": given, "CONTENT_LENGTH": str(len(given.getvalue()))})
    assert incoming.body(relay.app.extensions["relay"].settings) == {"model": "m"}
    assert given.closed
