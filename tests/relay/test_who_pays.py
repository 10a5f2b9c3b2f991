"""Whoever makes a provider work pays for it, once, and for no more than they have."""

import pytest

import billing
from members import accounts
from pricing import output_afforded
from tests.client import CHAT, ask
from tests.fake_upstream import DONE, Gate, answer, end, event, head, silence, stream
from tests.providers import chunk, plain, usage, usage_chunk
from tests.stage import model_config, upstream_config, wait_until
from tests.wires.test_native import MESSAGE_EVENTS, RESPONSE_EVENTS

COUNTS = usage(20, 10)
ALL = ["chat", "messages", "responses", "completions"]
ASKS = {
    "chat": (CHAT, ask(), "max_tokens"),
    "messages": ("/api/v1/messages", ask(), "max_tokens"),
    "responses": ("/api/v1/responses", {"model": "test-model", "input": "Hi"}, "max_output_tokens"),
    "completions": ("/api/v1/completions", {"model": "test-model", "prompt": "Hi"}, "max_tokens"),
}


def house(start_relay, fake, speaks=("chat",), output_max: int | None = 8192, **changes):
    upstream = upstream_config(fake.url, speaks=list(speaks))
    model = model_config(output_max=output_max)
    model = {name: value for name, value in model.items() if value is not None}
    return start_relay(upstreams=[upstream], models=[model], **changes)


# Where the pockets end, so does the answer


def granted(affordable: int, peers: int = 0) -> int:
    """The output that a call may ask for where so much could be paid: what it holds, and a quarter of
    the rest, or less beside `peers` that run."""
    return 4_096 + (affordable - 4_096) // (4 * (1 + peers))


@pytest.mark.parametrize("speaks", [["chat"], ALL])
@pytest.mark.parametrize("wire", ASKS)
def test_no_more_output_is_asked_for_than_the_pockets_pay_for(
    start_relay, person, fake, wire, speaks
):
    """At 8 yuan a million 0.04 yuan are 5,000 tokens of output, less what the input costs."""
    fake.always(answer({"error": {"message": "enough"}}, status=400))
    alice = person("alice", house(start_relay, fake, speaks)).given(wallet="0.04")
    path, body, limit = ASKS[wire]
    alice.post(path, body | {limit: 100_000})
    sent = fake.requests[0].json
    (found,) = [sent[name] for name in ("max_tokens", "max_output_tokens") if name in sent]
    assert found == pytest.approx(granted(4_995), abs=12)


@pytest.mark.parametrize(
    "wallet, output_max, asked, sent",
    [
        ("10", 8192, None, None),  # rich: what was asked goes out as it came
        ("10", 8192, 7000, 7000),
        ("0.04", 8192, None, granted(4_995)),
        ("0.04", 8192, 300, 300),
        ("0.04", None, None, granted(4_995)),
        ("10", None, None, None),  # more than any provider may take as a limit
        ("1", None, 500_000, granted(124_995)),
        ("0.04", 4096, None, None),  # the model ends first
    ],
)
def test_only_who_could_not_pay_is_limited(
    start_relay, person, fake, wallet, output_max, asked, sent
):
    fake.always(plain(COUNTS))
    alice = person("alice", house(start_relay, fake, output_max=output_max)).given(wallet=wallet)
    assert alice.post(CHAT, ask() | ({"max_tokens": asked} if asked else {})).status == 200
    limit = fake.requests[0].json.get("max_tokens")
    assert limit is None if sent is None else limit == pytest.approx(sent, abs=10)


def test_the_grant_counts_token_for_token_and_a_free_model_ends_nowhere(start_relay, person, fake):
    fake.always(plain(COUNTS))
    free = model_config("free-model", prices={"input": "0", "output": "0"})
    upstream = upstream_config(fake.url)
    relay = start_relay(upstreams=[upstream], models=[model_config(), free])
    alice = person("alice", relay).given(grant=6_000)
    assert alice.chat().status == 200
    assert fake.requests[0].json["max_tokens"] == pytest.approx(granted(5_990), abs=12)
    assert alice.chat(model="free-model").status == 200
    assert "max_tokens" not in fake.requests[1].json


def test_calls_that_run_at_once_share_what_there_is(start_relay, person, fake):
    fake.always(stream(chunk(content="Sunny."), silence, done=False))
    alice = person("alice", house(start_relay, fake, output_max=100_000)).given(wallet="0.4")
    running = [alice.chat_stream() for _ in range(4)]
    for each in running:
        each.next_event()
    limits = [each.json["max_tokens"] for each in fake.requests]
    left, expected = 50_000, []
    for peers in range(4):
        expected.append(granted(left, peers))
        left -= expected[-1]  # what one may write is promised to no other
    assert limits == pytest.approx(expected, rel=0.01)
    for each in running:
        each.leave()


@pytest.mark.parametrize(
    "pockets, overdraft, output",
    [
        (billing.Pockets(0, 0, 100), 0, 8),
        (billing.Pockets(0, 0, 100), 50, 13),
        (billing.Pockets(0, 0, -100), 0, 0),
        (billing.Pockets(10, 0, 0), 0, 0),
        (billing.Pockets(15, 0, 100), 0, 15),
        (billing.Pockets(5, 50, 50), 0, 9),
        (billing.Pockets(-5, 0, 100), 0, 8),
    ],
)
def test_how_far_pockets_reach(pockets, overdraft, output):
    used, price = billing.Usage(10, 0, 999), billing.Price(2, 2, 10)
    assert output_afforded(used, price, pockets, overdraft) == output
    assert output_afforded(used, billing.Price(2, 2, 0), pockets) is None


# Long answers are asked for as streams


STREAMS = {
    "chat": [chunk(content="Sunny."), chunk(finish="stop"), usage_chunk(COUNTS), DONE],
    "messages": MESSAGE_EVENTS,
    "responses": RESPONSE_EVENTS,
}


@pytest.mark.parametrize("wire", STREAMS)
def test_a_long_plain_answer_is_made_as_a_stream_and_given_whole(start_relay, person, fake, wire):
    fake.always([head(content_type="text/event-stream"), *STREAMS[wire], end])
    alice = person("alice", house(start_relay, fake, [wire], 100_000)).given(wallet="10")
    path, body, limit = ASKS[wire]
    got = alice.post(path, body | {limit: 50_000})
    assert got.status == 200 and b"Sunny." in got.body and b"event:" not in got.body
    assert fake.requests[0].json["stream"] is True
    assert fake.requests[0].headers["accept"] == "text/event-stream"
    row = alice.relay.closed_row(got.request_id)
    assert (row["outcome"], row["usage_source"]) == ("complete", "upstream") and row["cost"] > 0


@pytest.mark.parametrize("last", [usage_chunk(COUNTS), DONE], ids=["the usage", "the end mark"])
def test_the_last_event_of_a_long_plain_answer_may_lack_its_end(start_relay, person, fake, last):
    events = STREAMS["chat"][: STREAMS["chat"].index(last)]
    last = last if isinstance(last, bytes) else event(last)
    fake.always([head(content_type="text/event-stream"), *events, last.rstrip(), end])
    alice = person("alice", house(start_relay, fake, output_max=100_000)).given(wallet="10")
    got = alice.chat(max_tokens=50_000)
    assert got.status == 200 and b"Sunny." in got.body
    row = alice.relay.closed_row(got.request_id)
    assert (row["usage_source"], row["cost"]) == ("upstream", 20 * 2_000 + 10 * 8_000)


@pytest.mark.parametrize("asked, streamed", [(8192, False), (8193, True), (None, True)])
def test_a_short_answer_is_asked_for_as_it_was(start_relay, person, fake, asked, streamed):
    fake.always(plain(COUNTS))
    alice = person("alice", house(start_relay, fake, output_max=100_000)).given(wallet="10")
    assert alice.post(CHAT, ask() | ({"max_tokens": asked} if asked else {})).status == 200
    sent = fake.requests[0].json
    assert sent.get("stream", False) is streamed and ("stream_options" in sent) is streamed


def test_a_provider_without_streams_is_asked_for_none(start_relay, person, fake):
    fake.always(plain(COUNTS))
    upstream = upstream_config(fake.url, quirks=["plain_as_plain"])
    relay = start_relay(upstreams=[upstream], models=[model_config(output_max=100_000)])
    assert person("alice", relay).given(wallet="10").chat().status == 200
    assert "stream" not in fake.requests[0].json


def test_who_leaves_a_long_plain_answer_pays_for_what_was_written(start_relay, person, fake):
    written, said = [chunk(content="A word, and another one. ") for _ in range(40)], Gate()
    fake.always(stream(*written, said, done=False))
    alice = person("alice", house(start_relay, fake, output_max=100_000)).given(wallet="10")
    connection = alice.send(CHAT, ask())
    assert said.reached.wait(10)
    connection.close()
    assert fake.requests[0].gone.wait(10), "the provider is told"
    (row,) = wait_until(lambda: alice.relay.rows("closed_at IS NOT NULL"))
    assert row["outcome"] == "client_left" and row["output_tokens"] > 100 and row["cost"] > 0


def test_a_long_plain_answer_that_breaks_off_is_free_and_another_is_asked(
    start_relay, person, fake, other_fake
):
    fake.always(stream(chunk(content="Sun"), done=False))
    other_fake.always(plain(COUNTS))
    upstreams = [upstream_config(fake.url), upstream_config(other_fake.url, name="other")]
    model = model_config(upstreams=("fake", "other"), output_max=100_000)
    alice = person("alice", start_relay(upstreams=upstreams, models=[model])).given(wallet="10")
    got = alice.chat()
    assert got.status == 200 and len(other_fake.requests) == 1
    assert alice.relay.closed_row(got.request_id)["cost"] == 20 * 2_000 + 10 * 8_000


# Who is disabled


def test_what_a_disabled_member_runs_ends_and_is_charged_as_far_as_it_came(alice, bob, fake):
    opened = Gate()
    fake.always(
        stream(chunk(content="A word, and another one. " * 9), opened, chunk(finish="stop"))
    )
    his, hers = (each.open("POST", CHAT, ask(stream=True)) for each in (bob, alice))
    assert his.next_event() and hers.next_event()
    accounts.disable(alice.relay.db, alice.id)
    last = list(hers.documents())[-1]
    assert last["error"]["code"] == "invalid_api_key" and "disabled" in last["error"]["message"]
    row = alice.relay.closed_row(hers.request_id)
    assert (row["outcome"], row["usage_source"]) == ("upstream_cut", "estimated") and row[
        "cost"
    ] > 0
    opened.open()
    assert not any("error" in each for each in his.documents()), "and others go on"
    assert alice.chat().status == 401


# What costs extra

SEARCHES = {
    "enable_search": True,
    "search_options": {"forced_search": True},
    "web_search_options": {"search_context_size": "high"},
    "plugins": [{"id": "web"}],
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_nobody_pays_for_is_refused(start_relay, person, fake, name):
    fake.always(plain(COUNTS))
    alice = person("alice", house(start_relay, fake)).given(wallet="10")
    refused = alice.chat(**{name: SEARCHES[name]})
    assert (refused.status, refused.json["error"]["param"]) == (400, name)
    assert "costs extra" in refused.json["error"]["message"] and not fake.requests
    assert alice.chat(**{name: None}).status == 200


def test_a_search_with_no_wishes_of_its_own_is_one(start_relay, person, fake):
    alice = person("alice", house(start_relay, fake)).given(wallet="10")
    refused = alice.chat(web_search_options={})
    assert (refused.status, refused.json["error"]["param"]) == (400, "web_search_options")
    assert not fake.requests


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("how", ["a price of searches", "the route"])
def test_a_search_passes_where_it_is_paid_for_or_allowed(start_relay, person, fake, how, name):
    fake.always(plain(COUNTS))
    model = model_config()
    if how == "the route":
        model["routes"][0]["extras"] = [name]
    else:
        model["prices"] = model["prices"] | {"search": "5"}
    alice = person("alice", start_relay(models=[model])).given(wallet="10")
    assert alice.chat(**{name: SEARCHES[name]}).status == 200
    assert fake.requests[0].json[name] == SEARCHES[name]


@pytest.mark.parametrize(
    "tier, sent", [("priority", None), ("scale", None), ("default", "default"), ("flex", "flex")]
)
def test_a_dearer_tier_is_not_asked_for(start_relay, person, fake, tier, sent):
    fake.always(plain(COUNTS))
    alice = person("alice", house(start_relay, fake)).given(wallet="10")
    assert alice.chat(service_tier=tier).status == 200
    assert fake.requests[0].json.get("service_tier") == sent
