"""What strangers, members and providers send is read in linear time, and one member's appetite is
nobody else's hunger."""

import json
import time
import tracemalloc

import pytest

from members import tokens
from relay import body, errors, estimate, gate
from relay.errors import BadRequest
from relay.meter import texts_of
from relay.upstream import health as health_module
from relay.upstream.health import Health
from tests.client import CHAT, ask
from tests.fake_upstream import answer, stream
from tests.providers import chunk, plain, usage, usage_chunk
from tests.stage import Person


def seconds(function, *args) -> float:
    started = time.process_time()
    try:
        function(*args)
    except BadRequest:
        pass
    return time.process_time() - started


OPEN = b"[" * 70
HOSTILE = {
    "an open string of escaped quotes": b'{"a":' + OPEN + b'"' + rb"\"" * 500_000,
    "an open string of backslashes": b'{"a":' + OPEN + b'"' + b"\\" * 1_000_001,
    "quotes": b'{"a":' + OPEN + b'"' * 1_000_001,
    "a long text": b'{"a":' + b'"' + b"x" * 1_000_000 + b'","b":' + b"[[]," * 70,
    "brackets in a text": b'{"a":"' + b"[" * 1_000_000 + b'"}',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_any_body_is_read_in_linear_time(name):
    assert min(seconds(body.parse, HOSTILE[name]) for _ in range(3)) < 0.5


def test_a_picture_in_a_long_conversation_costs_a_few_times_its_bytes():
    picture = {
        "type": "image_url",
        "image_url": {"url": "data:image/png;base64," + "A" * 4_000_000},
    }
    messages = [{"role": "user", "content": [picture if n == 40 else {"n": n}]} for n in range(70)]
    data = json.dumps({"model": "m", "messages": messages}).encode()
    tracemalloc.start()
    body.parse(data)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * len(data)


@pytest.mark.parametrize("text", [b"[]", b"{}", b"[[]]", b"0", b'""', b'{"a":1}'])
def test_a_body_of_more_values_than_any_tool_sends_is_refused(text):
    data = b'{"a":[' + text + (b"," + text) * body.VALUES_MAX + b"]}"
    with pytest.raises(BadRequest, match="values"):
        body.parse(data)
    fits = b'{"a":[0' + b",0" * (body.VALUES_MAX - 2) + b"]}"
    assert len(body.parse(fits)["a"]) == body.VALUES_MAX - 1


@pytest.mark.parametrize("depth", [body.DEPTH_MAX - 1, body.DEPTH_MAX])
def test_depth_is_counted_outside_of_strings_whatever_is_escaped_in_them(depth):
    text = rb'"\\" , "\"[[[" , "\\\"{{{" , ' * 30
    data = b'{"s":[' + text + b'0],"a":' + b"[" * depth + b"]" * depth + b"}"
    if depth < body.DEPTH_MAX:
        assert body.parse(data)["s"][1] == '"[[['
    else:
        with pytest.raises(BadRequest, match="levels"):
            body.parse(data)


@pytest.mark.parametrize("tail", [rb"\"" * 500_000, b"x" * 1_000_000, b"\\" * 1_000_001])
def test_texts_of_an_answer_are_found_in_linear_time(tail):
    pattern = texts_of(("content",))
    data = b'{"content":"fine"}' + b'{"content":"' * 50 + tail
    assert min(seconds(pattern.findall, data) for _ in range(3)) < 0.5
    assert pattern.findall(data)[0] == b"fine"


@pytest.mark.parametrize("filler", ["\x00", "\x01", " ", "x", "\u200b"])
def test_no_text_is_read_for_nothing_whatever_it_is_made_of(filler):
    assert estimate.text(filler * 3_000_000) >= 3_000_000 / estimate.CHARS_MOST
    assert estimate.text(filler * 24_000) >= 2_000


def test_nobody_can_know_which_parts_of_a_long_text_are_counted():
    size = estimate.TEXT_CHARS_MAX // estimate.BLOCKS
    step = 1_000_000 / estimate.BLOCKS
    text = list("word " * 200_000)
    for block in range(estimate.BLOCKS):
        at = int(block * step)
        text[at : at + 2 * size] = "\x00" * (2 * size)
    assert estimate.text("".join(text)) > 0.8 * estimate._count("".join(text))


# ---- one member, and all others


def minted(relay, who) -> str:
    return tokens.mint(relay.db, who.id, "one more")[1]


def test_all_tokens_of_a_member_have_a_window_together(start_relay, person, fake):
    relay = start_relay(plans={"free": {"requests_per_minute": 2}})
    fake.always(plain(usage(5, 3)))
    alice = person("alice", relay).given(wallet="10")
    hers = [Person("alice", alice.id, minted(relay, alice), relay) for _ in range(5)]
    statuses = [each.chat().status for each in hers for _ in range(2)]
    assert statuses == [200] * 6 + [429] * 4
    refused = Person("alice", alice.id, minted(relay, alice), relay).chat()
    assert "together" in refused.json["error"]["message"] and int(refused.headers["retry-after"])
    assert person("bob", relay).given(wallet="1").chat().status == 200


def test_one_member_never_has_the_last_places(start_relay, person, fake):
    relay = start_relay(server={"threads": 32})
    alice, bob = (person(name, relay).given(wallet="100") for name in ("alice", "bob"))
    most = relay.app.extensions["relay"].at_once.share
    assert most == 18
    gates = gate.ConcurrencyLimit(most)
    names = {("member", 1): most}
    assert [gates.enter(names) for _ in range(most)] == [None] * most
    assert gates.enter(names) == ("member", 1) and gates.enter({("member", 2): most}) is None
    assert alice.chat().status and bob.chat().status


def test_tokens_that_have_expired_leave_room_for_others(start_relay, person):
    relay = start_relay()
    alice = person("alice", relay)
    held = [tokens.mint(relay.db, alice.id, f"t{n}", tokens_max=9)[0] for n in range(3)]
    relay.db.write(
        lambda conn: conn.execute("UPDATE tokens SET expires_at = 5 WHERE user_id = ?", (alice.id,))
    )
    assert held and tokens.mint(relay.db, alice.id, "new", tokens_max=1)
    with pytest.raises(tokens.TokenError, match="may hold 1"):
        tokens.mint(relay.db, alice.id, "one more", tokens_max=1)


STOPPED = {"choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}]}


def test_an_answer_that_the_callers_stop_ended_at_once_is_one_and_paid(alice, bob, relay, fake):
    doc = STOPPED | {"id": "1", "usage": usage(20, 1)}
    doc["choices"] = [STOPPED["choices"][0] | {"finish_reason": "stop"}]
    fake.always(answer(doc))
    for _ in range(6):
        done = alice.post(CHAT, ask("Hello") | {"stop": ["H"]})
        assert done.status == 200
    row = relay.closed_row(done.request_id)
    assert (row["outcome"], row["input_tokens"], row["output_tokens"]) == ("complete", 20, 1)
    assert row["cost"] > 0 and bob.chat().status >= 500  # without a stop nothing was said


def test_a_stream_that_the_callers_stop_ended_at_once_is_one_and_paid(alice, relay, fake):
    fake.always(stream(chunk(""), chunk(finish="stop"), usage_chunk(usage(20, 1))))
    done = alice.chat_stream(stop=["H"])
    assert done.status == 200
    row = relay.closed_row(done.request_id)
    assert (row["outcome"], row["input_tokens"]) == ("complete", 20) and row["cost"] > 0


# ---- where there is nobody else to ask


class Name:
    def __init__(self, name="one"):
        self.name, self.keys, self.calls_at_once = name, ("k",), None


def failed(health, upstream, times=health_module.FAILURES_TO_REST):
    for number in range(times):
        health.begin(upstream, 0, set(), True, number)
        health.end(upstream.name)
        health.learn(upstream.name, "k", errors.UpstreamError(), 1, number)


def test_the_only_upstream_is_probed_every_two_seconds_however_long_it_rests():
    now = [1000.0]
    health, one = Health(notice=lambda text: None, clock=lambda: now[0]), Name()
    for _ in range(6):  # the pauses grow to a minute
        failed(health, one)
        now[0] += 2.0
    assert health.begin(one, 0, set(), True, "x") == "k"
    assert health.begin(one, 0, set(), True, "x") is None
    assert health.begin(one, 0, set(), False, "x") is None
    assert health.free_in([one]) == pytest.approx(2.0)
    now[0] += 1.9
    assert health.begin(one, 0, set(), True, "x") is None
    now[0] += 0.2
    assert health.begin(one, 0, set(), True, "x") == "k"


def test_a_short_pause_is_waited_out_and_a_long_one_is_told(start_relay, person, fake):
    relay = start_relay(failover={"wait_s": 2})
    alice = person("alice", relay).given(wallet="10")
    fake.next(answer({}, 429, retry_after="1")).always(plain(usage(5, 3)))
    assert alice.chat().status == 503
    assert alice.chat().status == 200 and len(fake.requests) == 2
    fake.always(answer({}, 429, retry_after="30"))
    assert alice.chat().status == 503
    told = alice.chat()
    assert told.status == 429 and int(told.headers["retry-after"]) > 2


def test_a_long_wait_for_a_place_is_no_recursion(start_relay, person, fake, monkeypatch):
    """Each look at a full provider is short; a minute of them is more than Python nests."""
    relay = start_relay(failover={"wait_s": 60})
    sender, alice = relay.app.extensions["relay"].sender, person("alice", relay).given(wallet="10")
    looks = iter([True] * 1500)
    monkeypatch.setattr(sender, "_waited", lambda dispatch, upstreams: next(looks, False))
    monkeypatch.setattr(sender, "_choices", lambda dispatch, targets: iter(()))
    assert alice.chat().json["error"]["code"] != "internal_error" and next(looks, None) is None
