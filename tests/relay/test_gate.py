"""Who may ask, for what, and how often.

Every limit of a token, a plan and an address, over real sockets.
"""

import shutil
import threading
import time
from contextlib import closing
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

import billing
import plans
from db import Database, Error
from members import caps, terms, tokens
from relay import gate, limits
from settings import check
from tests.client import CHAT, Client, ask, assert_openai_error
from tests.fake_upstream import Gate, stream
from tests.providers import chunk, error, error_frame, openai_stream, plain, usage, words
from tests.stage import LIMIT_S, model_config, upstream_config, wait_until

COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000
PLANS = {
    "free": {"requests_per_minute": 60, "input_tokens_max": 5000},
    "pro": {"requests_per_minute": 600, "discount": "0.5"},
    "small": {
        "requests_per_minute": 60_000,
        "calls_at_once": 2,
    },  # who asks again and again needs many
    "wide": {"requests_per_minute": 60_000},
}


@pytest.fixture
def relay(start_relay, fake):
    fake.always(
        lambda request: openai_stream(COUNTS) if request.json.get("stream") else plain(COUNTS)
    )
    return start_relay(
        plans=PLANS,
        limits={"failures_per_minute": 3},
        upstreams=[upstream_config(fake.url, speaks=["chat", "embeddings"])],
        models=[model_config(), model_config("other-model")],
    )


@pytest.fixture
def token_of(relay):
    """A function: another token of a person, with limits; a client that uses it, and its id."""

    def make(person, **limits) -> tuple[Client, int]:
        token_id, raw = tokens.mint(relay.db, person.id, "bound", **limits)
        return relay.client(raw), token_id

    return make


@pytest.fixture
def later(monkeypatch):
    """A function that lets the windows' clock jump."""
    jumped = [0.0]
    monkeypatch.setattr(
        limits,
        "time",
        SimpleNamespace(monotonic=lambda: time.monotonic() + jumped[0], time=time.time),
    )
    return lambda seconds: jumped.append(jumped.pop() + seconds)


def windows_of(answered) -> tuple[int, int]:
    headers = answered.headers
    return int(headers["x-ratelimit-limit-requests"]), int(
        headers["x-ratelimit-remaining-requests"]
    )


# Requests a minute


def test_a_token_may_ask_as_often_as_its_plan_says_and_every_answer_tells_how_often_still(alice):
    first, second = alice.chat(), alice.chat()
    assert (windows_of(first), windows_of(second)) == ((60, 59), (60, 58))
    assert first.headers["x-ratelimit-reset-requests"] in {
        "1m0s",
        *(f"{each}s" for each in range(50, 60)),
    }


def test_a_tokens_own_limit_is_never_above_its_plans(alice, token_of):
    assert windows_of(token_of(alice, rpm=5)[0].chat())[0] == 5
    assert windows_of(token_of(alice, rpm=100_000)[0].chat())[0] == 60


def test_above_the_limit_there_is_a_429_that_says_how_long_to_wait(
    alice, token_of, fake, later, relay
):
    bound, _ = token_of(alice, rpm=2)
    assert [bound.chat().status for _ in range(2)] == [200, 200]
    limited = bound.chat()
    told = assert_openai_error(limited, 429, "rate_limit_exceeded")
    assert told["type"] == "rate_limit_error" and "2 requests a minute" in told["message"]
    assert 1 <= int(limited.headers["retry-after"]) <= 60 and windows_of(limited) == (2, 0)
    assert "x-should-retry" not in limited.headers
    assert len(fake.requests) == 2 == len(relay.rows()), "a flood writes nothing"
    later(int(limited.headers["retry-after"]))
    assert bound.chat().status == 200


def test_refused_and_failed_requests_count_too(alice, token_of, fake):
    bound, _ = token_of(alice, rpm=3)
    fake.always(error("openai 500"))
    answers = [bound.post(CHAT, {}), bound.chat(model="nobody"), bound.chat(), bound.chat()]
    assert [each.status for each in answers] == [400, 404, 502, 429]


def test_look_ups_use_nothing_up(alice, token_of):
    bound, _ = token_of(alice, rpm=1)
    for path in (
        "/api/v1/models",
        "/v1/models/test-model",
        "/v1/dashboard/billing/subscription",
        "/v1/usage",
    ):
        assert bound.get(path).status == 200
    assert bound.chat().status == 200 and bound.chat().status == 429
    assert bound.get("/api/v1/models").status == 200


def test_of_a_crowd_exactly_so_many_pass(alice, token_of, fake):
    bound, _ = token_of(alice, rpm=7)
    statuses = together(20, lambda: bound.chat().status)
    assert sorted(statuses) == 7 * [200] + 13 * [429] and len(fake.requests) == 7


def test_all_keys_of_a_member_may_make_so_many_together(start_relay, person, fake):
    plan = {"requests_per_minute": 3, "member_requests_per_minute": 2}
    relay = start_relay(plans={"free": plan})
    alice = person("alice", relay)
    fake.always(plain(usage(5, 3)))
    answers = [alice.given(wallet="1").chat() for _ in range(3)]
    assert [each.status for each in answers] == [200, 200, 429]
    assert (
        "All API keys of a member may make 2 requests a minute"
        in answers[2].json["error"]["message"]
    )


def test_a_window_ends_when_its_time_is_over(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    limiter, few = limits.EnduringLimiter(limits.Memory()), limits.rate_of("2 per hour")
    assert few == limits.Rate(2, 3600)
    assert [limiter.count(few, "a", "b").count for _ in range(2)] == [1, 2]
    assert limiter.count(few, "a", "c").count == 1
    now[0] += 3599.5
    assert limiter.count(few, "a", "b").wait_s == 1 and limiter.look(few, "a", "b").count == 3
    now[0] += 0.5
    assert limiter.look(few, "a", "b").count == 0
    window = limiter.count(few, "a", "b", cost=5)
    assert (window.count, window.wait_s) == (5, 3600)
    limiter.clear(few, "a", "b")
    assert limiter.look(few, "a", "b") == limits.Window(0, 0.0)


def together(count, call) -> list:
    """What so many threads that call at once get."""
    found, start = [], threading.Barrier(count)

    def run():
        start.wait(LIMIT_S)
        found.append(call())

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    return found


# LLM tokens a minute


def test_llm_tokens_a_minute_are_limited_by_what_calls_have_used(alice, token_of, fake, later):
    bound, _ = token_of(alice, tpm=60)
    assert [bound.chat().status for _ in range(2)] == [200, 200]  # 30 each
    limited = bound.chat()
    told = assert_openai_error(limited, 429, "rate_limit_exceeded")
    assert (
        "60 tokens a minute" in told["message"] and 1 <= int(limited.headers["retry-after"]) <= 60
    )
    assert alice.chat().status == 200, "another token of the same member is free"
    assert len(fake.requests) == 3
    later(int(limited.headers["retry-after"]))
    assert bound.chat().status == 200


def test_llm_tokens_of_streams_count_and_failed_calls_use_none(alice, token_of, fake):
    bound, _ = token_of(alice, tpm=30)
    fake.next(*3 * [error("openai 500")])
    assert [bound.chat().status for _ in range(3)] == 3 * [502]
    bound.chat_stream().read()
    assert bound.chat().status == 429


# Calls at once


def held_open(fake, count: int = 1) -> list[Gate]:
    """The next calls are streams that wait behind these gates."""
    gates = [Gate() for _ in range(count)]
    fake.next(*(stream(*words(), each, chunk(finish="stop", usage=COUNTS)) for each in gates))
    return gates


def begin(client):
    """A stream whose first event has been read."""
    streamed = client.chat_stream()
    streamed.next_event()
    return streamed


def test_a_token_may_have_so_many_calls_at_once(alice, token_of, fake, relay):
    bound, _ = token_of(alice, calls_at_once=2)
    gates = held_open(fake, 2)
    streams = [begin(bound), begin(bound)]
    limited = bound.chat()
    told = assert_openai_error(limited, 429, "rate_limit_exceeded")
    assert (
        "token may have 2 calls at once" in told["message"]
        and limited.headers["retry-after"] == "1"
    )
    assert alice.chat().status == 200, "another token of the same member is free"
    gates[0].open()
    streams[0].read()
    assert wait_until(lambda: bound.chat().status == 200)
    gates[1].open()
    streams[1].read()


def test_a_member_may_have_as_many_calls_at_once_as_the_plan_says_over_all_tokens(
    alice, bob, token_of, fake, relay
):
    plans.give_plan(relay.db, alice.id, "small", quota=0, days=1)
    gates = held_open(fake, 2)
    streams = [begin(alice), begin(token_of(alice)[0])]
    told = assert_openai_error(alice.chat(), 429, "rate_limit_exceeded")
    assert "member may have 2 calls at once" in told["message"]
    assert bob.chat().status == 200
    for gate_, streamed in zip(gates, streams, strict=True):
        gate_.open()
        streamed.read()
    assert wait_until(lambda: alice.chat().status == 200)


def ways_to_end(fake, bound):
    (gate_,) = held_open(fake)
    streamed = begin(bound)
    streamed.leave()
    yield "left"
    (gate_,) = held_open(fake)
    streamed = begin(bound)
    streamed.reset()
    yield "reset"
    fake.next(error("openai 500"))
    assert bound.chat().status == 502
    yield "failed"
    fake.next(error("moonshot context"))
    assert bound.chat().status == 400
    yield "refused by the provider"
    fake.next(error_frame(after=2))
    bound.chat_stream().read()
    yield "broken off"
    assert bound.post(CHAT, b"{").status == 400
    yield "no request"
    assert bound.chat(model="nobody").status == 404
    yield "no model"


def test_however_a_call_ends_it_gives_its_place_back(alice, token_of, fake, relay):
    plans.give_plan(relay.db, alice.id, "wide", quota=0, days=1)
    bound, _ = token_of(alice, calls_at_once=1)
    for _ in ways_to_end(fake, bound):
        assert wait_until(lambda: bound.chat().status == 200)


# Money a day or month


class Tomorrow(datetime):
    days = 1

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(days=cls.days)


@pytest.mark.parametrize("span", ["day", "month"])
def test_a_token_may_spend_so_much_a_day_or_month(alice, token_of, fake, relay, span):
    bound, _ = token_of(alice, **{f"cap_{span}": 2 * COST})
    assert [bound.chat().status for _ in range(2)] == [200, 200]
    refused = bound.chat()
    told = assert_openai_error(refused, 402, "spending_cap_reached")
    assert told["type"] == "insufficient_quota"
    assert f"0.000240000 yuan a {span}" in told["message"] and "free again on 20" in told["message"]
    assert refused.headers["x-should-retry"] == "false" and len(fake.requests) == 2
    row = relay.closed_row(refused.request_id)
    assert (row["outcome"], row["status"], row["error"]) == ("refused", 402, "spending_cap_reached")
    assert alice.chat().status == 200, "another token of the same member is free"
    assert alice.balance().wallet == 10_000_000_000 - 3 * COST and relay.ledger_is_right()


def test_a_cap_frees_when_the_day_ends(alice, token_of, monkeypatch):
    bound, _ = token_of(alice, cap_day=1)
    assert [bound.chat().status for _ in range(2)] == [200, 402]
    monkeypatch.setattr(gate, "datetime", Tomorrow)
    assert bound.chat().status == 200


def test_a_cap_of_a_month_outlasts_the_day_and_frees_with_the_next_month(
    alice, token_of, monkeypatch, relay
):
    bound, _token_id = token_of(alice, cap_month=1)
    assert [bound.chat().status for _ in range(2)] == [200, 402]
    relay.db.write(
        lambda conn: conn.execute("UPDATE daily SET day = strftime('%Y-%m', day) || '-01'") and None
    )
    assert bound.chat().status == 402
    monkeypatch.setattr(gate, "datetime", type("NextMonth", (Tomorrow,), {"days": 32}))
    assert bound.chat().status == 200


def test_a_cap_of_nothing_allows_what_is_free_of_charge_to_look_at_only(alice, token_of, fake):
    bound, _ = token_of(alice, cap_day=0)
    assert (
        bound.chat().status == 402 and bound.get("/v1/models").status == 200 and not fake.requests
    )


def test_gifts_are_no_money_spent(person, relay, token_of):
    alice = person("alice", relay).given(grant=1_000_000)
    bound, _ = token_of(alice, cap_day=1)
    assert [bound.chat().status for _ in range(3)] == 3 * [200]


# Addresses and models


@pytest.mark.parametrize(
    ("networks", "status"),
    [
        (["127.0.0.1"], 200),
        (["10.0.0.0/8", "127.0.0.0/8"], 200),
        (["::ffff:127.0.0.1"], 200),
        (["::ffff:127.0.0.0/104"], 200),
        (["::ffff:10.0.0.0/104"], 403),
        (["10.0.0.0/8"], 403),
        (["::1"], 403),
        (["127.0.0.2"], 403),
    ],
)
def test_a_token_may_be_bound_to_addresses(alice, token_of, fake, networks, status):
    bound, _ = token_of(alice, addresses=networks)
    answered = bound.chat()
    assert answered.status == status
    if status == 403:
        assert_openai_error(answered, 403, "address_not_allowed")
        assert answered.headers["x-should-retry"] == "false" and not fake.requests
        assert bound.get("/v1/models").status == 403
        for name in ("x_forwarded_for", "x_real_ip", "forwarded"):
            assert bound.post(CHAT, ask(), **{name: networks[0].partition("/")[0]}).status == 403


def test_behind_a_trusted_proxy_the_callers_own_address_counts(start_relay, person, fake):
    fake.always(plain(COUNTS))
    alice = person("alice", start_relay(server={"trusted_proxy": "127.0.0.1"})).given(wallet="10")
    _, raw = tokens.mint(alice.relay.db, alice.id, "bound", addresses=["203.0.113.0/24"])
    bound = alice.relay.client(raw)
    assert bound.post(CHAT, ask(), x_forwarded_for="203.0.113.9").status == 200
    assert bound.post(CHAT, ask(), x_forwarded_for="198.51.100.9").status == 403
    assert bound.post(CHAT, ask(), x_forwarded_for="203.0.113.9, 198.51.100.9").status == 403, (
        "what the caller adds"
    )
    assert bound.post(CHAT, ask(), x_forwarded_for="::ffff:203.0.113.9").status == 200, (
        "as some proxies write it"
    )
    assert bound.post(CHAT, ask(), x_forwarded_for="203.0.113.9, ::FFFF:198.51.100.9").status == 403


def test_a_token_may_be_bound_to_models(alice, token_of, fake, relay):
    bound, _ = token_of(alice, models=["other-model"])
    refused = bound.chat()
    told = assert_openai_error(refused, 403, "model_not_allowed", "model")
    assert (
        "other-model" in told["message"]
        and relay.closed_row(refused.request_id)["outcome"] == "refused"
    )
    assert not fake.requests and bound.chat(model="other-model").status == 200


# At the very next request


def change(relay, sql: str, *values) -> None:
    relay.db.write(lambda conn: conn.execute(sql, values) and None)


def test_a_token_that_is_revoked_is_refused_at_the_very_next_request(alice, token_of, relay):
    bound, token_id = token_of(alice)
    assert bound.chat().status == 200
    tokens.revoke(relay.db, token_id)
    refused = bound.chat()
    assert_openai_error(refused, 401, "invalid_api_key")
    assert refused.headers["x-should-retry"] == "false"


def test_a_token_that_is_revoked_in_mid_stream_has_this_answer_and_no_other(
    alice, token_of, fake, relay
):
    bound, token_id = token_of(alice)
    (gate_,) = held_open(fake)
    streamed = begin(bound)
    tokens.revoke(relay.db, token_id)
    gate_.open()
    assert streamed.read().endswith(b"data: [DONE]\n\n") and bound.chat().status == 401
    assert relay.closed_row(streamed.request_id)["cost"] == COST


def test_a_token_expires(alice, token_of, relay):
    bound, token_id = token_of(alice, expires_at=time.time_ns() // 1_000_000 + 60_000)
    assert bound.chat().status == 200
    change(
        relay,
        "UPDATE tokens SET expires_at = ? WHERE id = ?",
        time.time_ns() // 1_000_000,
        token_id,
    )
    assert_openai_error(bound.chat(), 401, "invalid_api_key")


def test_a_member_who_is_switched_off_is_refused_and_let_in_again(alice, relay):
    change(relay, "UPDATE users SET disabled_at = 1 WHERE id = ?", alice.id)
    assert_openai_error(alice.chat(), 401, "invalid_api_key")
    change(relay, "UPDATE users SET disabled_at = NULL WHERE id = ?", alice.id)
    assert alice.chat().status == 200


def test_limits_that_change_hold_at_the_next_request(alice, token_of, relay):
    bound, token_id = token_of(alice)
    assert windows_of(bound.chat())[0] == 60
    assert tokens.change(relay.db, alice.id, token_id, "bound", rpm=1)
    assert bound.chat().status == 200 and bound.chat().status == 429


def test_the_plan_in_force_decides_how_often_how_long_and_for_how_much(alice, fake, relay):
    long = "word " * 6000
    assert_openai_error(alice.chat(long), 400, "context_length_exceeded", "messages")
    plans.give_plan(relay.db, alice.id, "pro", quota=0, days=1)
    answered = alice.chat(long)
    assert (answered.status, windows_of(answered)[0]) == (200, 600)
    assert relay.closed_row(answered.request_id)["cost"] == COST // 2
    (subscription,) = plans.active(relay.db, alice.id)
    plans.end_plan(relay.db, subscription.id)
    assert alice.chat(long).status == 400 and windows_of(alice.chat())[0] == 60


def test_of_several_plans_the_cheapest_is_in_force_and_one_that_is_no_more_does_not_count(
    alice, relay
):
    for name in ("small", "gone", "pro"):
        plans.give_plan(relay.db, alice.id, name, quota=0, days=1)
    assert relay.closed_row(alice.chat().request_id)["cost"] == COST // 2


def test_an_allowance_that_ended_while_the_relay_was_down_is_there_for_the_first_call(
    start_relay, person, fake, people_file, tmp_path
):
    shutil.copyfile(people_file[0], tmp_path / "relay.db")
    with closing(Database(tmp_path / "relay.db", writer=False)) as before:
        long_ago = billing.now_ms() - 100 * 86_400_000
        plans.give_plan(
            before, people_file[1]["alice"][0], "pro", quota=COST, days=30, renew=True, now=long_ago
        )
    fake.always(plain(COUNTS))
    relay = start_relay(plans=PLANS, billing={"hold_output_tokens": 10})
    answered = person("alice", relay).chat()
    assert (answered.status, relay.closed_row(answered.request_id)["charged_quota"]) == (
        200,
        COST // 2,
    )


# Failed authentication


def test_attempts_with_bad_tokens_are_limited_by_address_and_good_ones_still_work(
    alice, relay, fake, later
):
    stranger = relay.client("sk-" + "x" * 43)
    assert [stranger.chat().status for _ in range(5)] == [401, 401, 401, 429, 429]
    limited = stranger.chat()
    assert_openai_error(limited, 429, "rate_limit_exceeded")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert alice.chat().status == 200, "a whole office may sit behind one address"
    assert len(relay.rows()) == 1 == len(fake.requests)
    later(60)
    assert stranger.chat().status == 401


def test_an_ipv6_network_is_one_address(relay):
    inside = relay.app.extensions["relay"].gate

    def attempt(address):
        with pytest.raises(Exception) as refused:
            inside.identify("Bearer nonsense", None, address)
        return refused.value.status

    assert [attempt(f"2001:db8::{number:x}") for number in range(1, 5)] == [401, 401, 401, 429]
    assert attempt("2001:db8:0:1::1") == 401
    assert attempt("not an address") == 401


ODD = {
    "nothing": {},
    "empty": {"authorization": ""},
    "a word": {"authorization": "Bearer"},
    "a space": {"authorization": "Bearer "},
    "no scheme": {"authorization": "{token}"},
    "basic": {"authorization": "Basic {token}"},
    "two tokens": {"authorization": "Bearer {token} {token}"},
    "joined": {"authorization": "Bearer {token}, Bearer {token}"},
    "a comma": {"authorization": "Bearer {token},"},
    "quoted": {"authorization": 'Bearer "{token}"'},
    "cut": {"authorization": "Bearer {token:.45}"},
    "longer": {"authorization": "Bearer {token}x"},
    "huge": {"authorization": "Bearer " + "x" * 20_000},
    "no letters": {"authorization": "Bearer \xe4\xf6\xfc"},
    "a tab": {"authorization": "Bearer\t{token}"},
    "SQL": {"authorization": "Bearer ' OR 1=1 --"},
    "an odd key": {"x_api_key": "{token}{token}"},
    "an empty key": {"x_api_key": " "},
    "in a cookie": {"cookie": "token={token}"},
    "in another header": {"api_key": "{token}"},
}


def presented(alice, written: dict[str, str]):
    """An answer to a call whose headers are written so."""
    headers = {name: each.format(token=alice.token) for name, each in written.items()}
    return alice.relay.client().post(CHAT, ask(), **headers)


def test_odd_headers_let_nobody_in(start_relay, person, fake):
    alice = person("alice", start_relay(limits={"failures_per_minute": 100}))
    for name, written in ODD.items():
        refused = presented(alice, written)
        assert refused.status == 401, name
        assert_openai_error(refused, 401, "invalid_api_key")
        assert alice.token.encode() not in refused.body
    assert not fake.requests and alice.relay.rows() == []


GOOD = {
    "usual": {"authorization": "Bearer {token}"},
    "small": {"authorization": "bearer {token}"},
    "large": {"authorization": "BEARER {token}"},
    "spaces": {"authorization": "  Bearer   {token}  "},
    "a key": {"x_api_key": "{token}"},
    "a key with spaces": {"x_api_key": " {token} "},
    "a key beside nonsense": {"authorization": "Bearer", "x_api_key": "{token}"},
    "a key beside another house's": {
        "authorization": "Bearer sk-ant-oat01-elsewhere",
        "x_api_key": "{token}",
    },
    "another house's key beside it": {
        "authorization": "Bearer {token}",
        "x_api_key": "sk-ant-api03-elsewhere",
    },
    "both": {"authorization": "Bearer {token}", "x_api_key": "{token}"},
}


def test_a_token_may_be_written_in_any_usual_way(alice):
    assert {
        name: presented(alice, written).status for name, written in GOOD.items()
    } == dict.fromkeys(GOOD, 200)


def test_a_token_in_the_address_is_none(alice, relay):
    assert (
        relay.client().get(f"/api/v1/models?api_key={alice.token}&key={alice.token}").status == 401
    )


@pytest.mark.parametrize("stream", [False, True])
def test_whoever_holds_a_whole_answer_may_call_again_at_once(start_relay, person, fake, stream):
    fake.always(openai_stream() if stream else plain())
    relay = start_relay(
        plans={"free": {"requests_per_minute": 10_000, "calls_at_once": 1}},
    )
    alice = person("alice", relay).given(wallet="10")
    for _ in range(60):
        if stream:
            streamed = alice.chat_stream()
            assert streamed.status == 200
            assert any(b"[DONE]" in event for event in streamed.events())
        else:
            assert alice.chat().status == 200


def test_the_watcher_goes_on_where_the_database_cannot_be_read(monkeypatch):
    """One thread watches everybody's calls: its last look holds until it can look again."""
    monkeypatch.setattr(gate, "LOOK_S", -1)  # every time
    rows = [[(7,)], Error("disk I/O error"), []]

    class Reader:
        def read(self):
            return self

        def execute(self, sql):
            found = rows.pop(0)
            if isinstance(found, Exception):
                raise found
            return found

    settings = SimpleNamespace(
        site=SimpleNamespace(timezone="UTC", cap_month=None),
        plans={},
        limits=SimpleNamespace(failures_per_minute=1),
    )
    door = gate.Gate(Reader(), settings, None, None, None)
    assert [door.disabled(7) for _ in range(3)] == [True, True, False]


# ---- who keeps a caller from a model, and whom to ask


def test_the_refusal_of_a_model_says_who_binds_and_whom_to_ask(start_relay, people_file):
    models = [model_config(), model_config("other-model")]
    plan = {"requests_per_minute": 60_000, "models": ["test-model"]}
    pro = {"price": "1", "quota": "1", "requests_per_minute": 600}
    relay = start_relay(
        models=models, plans={"free": plan, "pro": pro}, site={"contact": "Li Hua, room 5"}
    )
    alice = people_file[1]["alice"][0]
    raw = tokens.mint(relay.db, alice, "mine")[1]
    client = relay.client(raw)

    def said():
        answer = client.call("POST", CHAT, ask(model="other-model"))
        assert answer.status == 403
        assert answer.json["error"]["message"].endswith("Ask for help: Li Hua, room 5")
        return answer.json["error"]["message"]

    assert said().startswith("The plan 'free' does not include 'other-model'.")
    settings = settings_of(plans={"free": plan, "pro": pro}, models=models)
    terms.give_plan(relay.db, settings, alice, "pro")
    caps.put(relay.db, alice, caps.Caps(models=("test-model",)))
    assert said().startswith("The administrators do not let this member use 'other-model'.")
    caps.put(relay.db, alice, caps.Caps())
    client = relay.client(tokens.mint(relay.db, alice, "bound", models=["test-model"])[1])
    assert said().startswith("This API key may not use 'other-model'. Models for it: test-model.")


def settings_of(**given):
    return check(given | {"upstreams": [upstream_config("http://127.0.0.1:9")]}, {})


def test_who_held_a_token_that_has_ended_learns_whom_to_ask_and_a_guesser_does_not(
    start_relay, people_file
):
    relay = start_relay(site={"contact": "Li Hua, room 5"})
    made, raw = tokens.mint(relay.db, people_file[1]["alice"][0], "mine")
    tokens.revoke(relay.db, made)
    for path in ("/v1/chat/completions", "/v1/models"):
        method = "GET" if path.endswith("models") else "POST"
        body = None if method == "GET" else ask()
        ended = relay.client(raw).call(method, path, body).json["error"]["message"]
        assert "revoked" in ended and ended.endswith("Ask for help: Li Hua, room 5"), path
        guess = relay.client("sk-" + "x" * 43).call(method, path, body)
        assert "Li Hua" not in guess.json["error"]["message"] and guess.status == 401


def test_a_402_says_where_to_ask_for_credit(start_relay, people_file):
    relay = start_relay(site={"public_url": "https://relay.example", "contact": "Li Hua"})
    said = relay.client(people_file[1]["bob"][1]).call("POST", CHAT, ask())
    assert said.status == 402
    assert said.json["error"]["message"].endswith(
        " Ask for credit: https://relay.example/console/credit Ask for help: Li Hua"
    )
