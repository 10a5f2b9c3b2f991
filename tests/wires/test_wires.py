"""What callers of every wire meet.

Addresses, the shape of errors at each layer, look-ups, native upstreams.
"""

from __future__ import annotations

import json

import pytest

from relay.upstream import reply
from tests.client import assert_openai_error
from tests.fake_upstream import Gate, answer, cut, silence, stream
from tests.providers import ERRORS, ERRORS_INSIDE_200, chunk, openai_stream, words
from tests.stage import LIMIT_S, model_config, upstream_config
from tests.wires.scripted_model import CALLS, Says
from tests.wires.sdk_stage import COST, charged, mint

QUESTION = [{"role": "user", "content": "How is the weather?"}]
ASKS = {
    "chat": ("/api/v1/chat/completions", {"messages": QUESTION}),
    "messages": ("/api/v1/messages", {"max_tokens": 100, "messages": QUESTION}),
    "responses": ("/api/v1/responses", {"input": "How is the weather?"}),
    "completions": ("/api/v1/completions", {"prompt": "How is the weather?"}),
    "embeddings": ("/api/v1/embeddings", {"input": "How is the weather?"}),
}
STREAMED = ("chat", "messages", "responses", "completions")
every_wire = pytest.mark.parametrize("wire", ASKS)
every_stream = pytest.mark.parametrize("wire", STREAMED)
VECTORS = model_config("vectors", kind="embeddings", prices={"input": "0.5"})


def call(person, wire: str, token: str | None = None, **changes):
    """A plain call on a wire."""
    path, body = ASKS[wire]
    body = {"model": "vectors" if wire == "embeddings" else "test-model"} | body | changes
    return person.relay.client(token or person.token).post(path, body)


def open_stream(person, wire: str, **changes):
    path, body = ASKS[wire]
    return person.open("POST", path, {"model": "test-model", "stream": True} | body | changes)


def assert_error(wire: str, answer, status: int, kind: str, code: str | None = None) -> str:
    """The one shape of errors of a wire; returns the message.

    `kind` is Anthropic's type, `code` is OpenAI's.
    """
    if wire != "messages":
        assert answer.headers.get("x-should-retry") == ("false" if status < 429 else None)
        return assert_openai_error(answer, status, code, answer.json["error"]["param"])["message"]
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].startswith("application/json")
    assert set(answer.json) == {"type", "error", "request_id"} and answer.json["type"] == "error"
    assert answer.json["error"]["type"] == kind
    assert (
        answer.headers["request-id"] == answer.headers["x-request-id"] == answer.json["request_id"]
    )
    assert answer.headers.get("x-should-retry") == ("false" if status < 429 else None)
    return answer.json["error"]["message"]


@pytest.fixture
def stage(start_relay, person, fake):
    """A function: alice with 10 yuan at a relay that serves all wires on one upstream."""

    def start(**changes):
        usual = {
            "upstreams": [upstream_config(fake.url, speaks=["chat", "embeddings"])],
            "models": [model_config(), model_config("other-model"), VECTORS],
        }
        return person("alice", start_relay(**usual | changes)).given(wallet="10")

    return start


# Errors, in the caller's dialect at every layer


@every_wire
def test_a_bad_token_is_turned_away_in_the_callers_dialect(stage, wire):
    alice = stage(limits={"failures_per_minute": 2})
    for token in ("sk-" + "x" * 43, "hello"):
        assert_error(wire, call(alice, wire, token), 401, "authentication_error", "invalid_api_key")
    limited = call(alice, wire, "sk-" + "x" * 43)
    assert_error(wire, limited, 429, "rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    assert alice.relay.rows() == []


def test_programs_find_the_words_by_which_they_tell_errors_apart(stage):
    """litellm, and so aider and others, goes by OpenAI's sentences; Claude Code by Anthropic's."""
    alice = stage(models=[model_config(context=10)])
    assert (
        call(alice, "chat", "sk-" + "x" * 43)
        .json["error"]["message"]
        .startswith("Incorrect API key provided")
    )
    for wire in ("chat", "messages", "responses"):
        long = (
            {"input": "word " * 50}
            if wire == "responses"
            else {"messages": [{"role": "user", "content": "word " * 50}]}
        )
        message = call(alice, wire, **long).json["error"]["message"]
        assert (
            message.startswith("prompt is too long: ")
            and "This model's maximum context length is 10 tok" in message
        )


@every_wire
def test_the_limiter_speaks_the_callers_dialect(stage, fake, wire):
    alice = stage()
    token = mint(alice, rpm=1)
    call(alice, wire, token)
    limited = call(alice, wire, token)
    assert_error(wire, limited, 429, "rate_limit_error", "rate_limit_exceeded")
    assert (
        limited.headers["x-ratelimit-remaining-requests"] == "0"
        and int(limited.headers["retry-after"]) >= 1
    )
    assert len(fake.requests) == 1


@every_wire
def test_addresses_and_methods_speak_the_callers_dialect(stage, wire):
    alice, path = stage(), ASKS[wire][0]
    assert_error(wire, alice.post(path + "/nothing", {}), 404, "not_found_error", "unknown_url")
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        refused = alice.call(method, path)
        assert_error(wire, refused, 405, "invalid_request_error", "method_not_allowed")
        assert refused.headers["allow"] == "POST"


@every_wire
def test_any_method_at_all_is_refused_in_the_callers_dialect(stage, wire):
    alice, path = stage(), ASKS[wire][0]
    for method in ("TRACE", "PROPFIND", "MADE-UP"):
        assert_error(
            wire, alice.call(method, path), 405, "invalid_request_error", "method_not_allowed"
        )
        assert_error(
            wire, alice.call(method, path + "/nothing"), 404, "not_found_error", "unknown_url"
        )
    told = alice.call(
        "OPTIONS", path, origin="https://example.org", access_control_request_headers="x-api-key"
    )
    assert (told.status, told.headers["allow"]) == (200, "POST")
    assert told.headers["access-control-allow-headers"] == "x-api-key"


def test_the_bare_beginnings_of_addresses_are_none(alice):
    for path in (
        "/api",
        "/v1",
        "/api/",
        "/v1/",
        "/v1//",
        "/v1///x",
        "/api/v1",
        "/api/v1/",
        "/api/v1//",
    ):
        for method in ("GET", "POST", "DELETE"):
            assert_error("chat", alice.call(method, path), 404, "not_found_error", "unknown_url")


@every_wire
def test_who_leaves_the_base_address_out_is_told_where_it_ends(alice, wire):
    told = alice.post(ASKS[wire][0].removeprefix("/api/v1"), ASKS[wire][1])
    assert "/api/v1" in assert_error(wire, told, 404, "not_found_error", "unknown_url")


@every_wire
def test_what_is_no_request_is_refused_in_the_callers_dialect(stage, fake, wire):
    alice = stage()
    twice = b'{"model": "test-model", "model": "x"}'
    for body in (b"", b"{", b"[]", twice, b"\xff", b"{}", b'{"model": 5}', b"[" * 1000):
        assert_error(wire, alice.post(ASKS[wire][0], body), 400, "invalid_request_error")
    assert charged(alice) == 0 and not fake.requests


@every_wire
def test_bodies_that_are_too_large_or_oddly_encoded(stage, wire):
    alice, path = stage(server={"body_bytes_max": 2000, "inflated_bytes_max": 2000}), ASKS[wire][0]
    oddly = alice.post(path, b"{}", content_encoding="zstd")
    assert_error(wire, oddly, 415, "invalid_request_error", "unsupported_encoding")
    assert_error(wire, alice.post(path, b" " * 3000), 413, "request_too_large", "body_too_large")


@every_wire
def test_money_models_and_context_in_the_callers_dialect(stage, person, fake, wire):
    alice = stage(plans={"free": {"requests_per_minute": 60, "input_tokens_max": 50}})
    bob = person("bob", alice.relay)
    assert_error(wire, call(bob, wire), 402, "billing_error", "insufficient_balance")
    bound = call(alice, wire, mint(alice, models=["other-model"]))
    assert_error(wire, bound, 403, "permission_error", "model_not_allowed")
    assert_error(wire, call(alice, wire, model="nobody"), 404, "not_found_error", "model_not_found")
    member = (
        "input" if "input" in ASKS[wire][1] else "prompt" if wire == "completions" else "messages"
    )
    long = "word " * 200
    too_long = call(
        alice,
        wire,
        **{member: [{"role": "user", "content": long}] if member == "messages" else long},
    )
    assert_error(wire, too_long, 400, "invalid_request_error", "context_length_exceeded")
    assert charged(alice) == 0 and not fake.requests
    assert {row["outcome"] for row in alice.relay.rows()} == {"refused"}


def test_codex_shows_what_the_plan_takes_and_not_its_own_words_for_a_full_context(stage):
    alice = stage(plans={"free": {"requests_per_minute": 60, "input_tokens_max": 50}})
    ask = {"model": "test-model", "input": "word " * 200}
    refused = alice.post("/api/v1/responses", ask, originator="codex_exec")
    assert (
        "the plan 'free' takes at most 50"
        in assert_openai_error(refused, 400, None, "messages")["message"]
    )
    assert alice.relay.row_of(refused.request_id)["error"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("name", "status", "kind", "code"),
    [
        ("openai 500", 502, "api_error", "upstream_error"),
        ("dashscope key", 502, "api_error", "upstream_account"),
        ("deepseek balance", 502, "api_error", "upstream_account"),
        ("openai 503", 503, "overloaded_error", "upstream_overloaded"),
        ("dashscope bad parameter", 400, "invalid_request_error", "invalid_parameter_error"),
        ("deepseek bad parameter", 422, "invalid_request_error", "invalid_request_error"),
    ],
)
def test_an_upstreams_error_becomes_the_callers(stage, fake, name, status, kind, code):
    names = [
        *ASKS,
        *(f"{wire}-streamed" for wire in STREAMED),
    ]  # an upstream each, or their health would tell
    alice = stage(
        upstreams=[
            upstream_config(fake.url, each, speaks=["chat", "embeddings"]) for each in names
        ],
        models=[
            model_config(each, [each], kind="embeddings" if each == "embeddings" else "chat")
            for each in names
        ],
    )
    fake.always(answer(ERRORS[name][1], ERRORS[name][0]))
    for wire in ASKS:
        assert_error(wire, call(alice, wire, model=wire), status, kind, code)
    for wire in STREAMED:  # a stream that has not begun says no like any other call
        assert_error(
            wire, call(alice, wire, model=f"{wire}-streamed", stream=True), status, kind, code
        )
    assert charged(alice) == 0 and len(fake.requests) == len(names)


@every_wire
def test_an_upstream_that_is_silent_is_a_timeout(stage, fake, wire):
    alice = stage(
        upstreams=[upstream_config(fake.url, speaks=["chat", "embeddings"], first_byte_s=0.1)]
    )
    fake.always([silence])
    assert_error(wire, call(alice, wire), 504, "timeout_error", "upstream_timeout")


# Errors in mid-stream


def last_event(stream) -> tuple[str | None, dict]:
    """The name and the document of a stream's last event."""
    *_, last = [each for each in stream.events() if not each.startswith(b":")]
    lines = dict(line.split(": ", 1) for line in last.decode().splitlines() if line)
    return lines.get("event"), json.loads(lines["data"])


BREAKS = {
    "cut": lambda: [*openai_stream()[:4], cut],
    "ended early": lambda: stream(*words(), done=False),
    "an error": lambda: stream(*words(), ERRORS_INSIDE_200["openai"], done=False),
    "no JSON": lambda: stream(*words(), b"data: {oops\n\n", done=False),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_stream_that_breaks_off_never_ends_in_success(stage, fake, how):
    alice = stage()
    fake.always(BREAKS[how]())
    for wire in STREAMED:
        told = open_stream(alice, wire)
        assert_failed(wire, told, *last_event(told))
        row = alice.relay.closed_row(told.request_id)
        assert (row["outcome"], row["usage_source"]) == ("upstream_cut", "estimated")
    assert 0 < charged(alice) < len(STREAMED) * COST, "what was delivered is charged, and no more"


def assert_failed(wire: str, told, name: str | None, document: dict) -> None:
    """A stream that was read to its end ended in its wire's way to fail, and in nothing like
    success."""
    for mark in (
        b"[DONE]",
        b"message_stop",
        b"message_delta",
        b"response.completed",
        b"response.incomplete",
    ):
        assert mark not in told.body
    if wire == "messages":
        assert (
            name == "error"
            and document["type"] == "error"
            and document["request_id"] == told.request_id
        )
        assert document["error"]["type"] in ("api_error", "overloaded_error")
    elif wire == "responses":
        assert name == "response.failed" and document["response"]["status"] == "failed"
        assert document["response"]["error"]["code"] in ("server_error", "rate_limit_exceeded")
    else:
        assert name is None and set(document["error"]) == {"message", "type", "param", "code"}


def test_a_tool_call_that_is_cut_is_no_success(stage, fake):
    alice = stage()
    begun = Says(calls=CALLS).pieces()[:4]
    fake.always(stream(*begun, done=False, then=cut))
    told = b"".join(open_stream(alice, wire).read() for wire in STREAMED)
    for mark in (b"[DONE]", b"message_stop", b"response.completed", b'"status":"completed"'):
        assert mark not in told


@every_stream
def test_silence_is_filled_and_content_is_not_held_back(stage, fake, wire):
    alice, gate = stage(), Gate()
    fake.always(stream(chunk("Hello"), b": keep-alive\n\n", gate, chunk(finish="stop")))
    told = open_stream(alice, wire)
    events = told.events()
    seen = next(events)
    while b"Hello" not in seen:
        seen = next(events)
    alive = next(events)
    while not (alive.startswith(b":") or b'"ping"' in alive):
        alive = next(events)
    assert gate.reached.wait(LIMIT_S), (
        "the caller has read all of this while the upstream still waits"
    )
    gate.open()
    told.read()
    assert alice.relay.closed_row(told.request_id)["outcome"] == "complete"


def heard(told) -> list[bytes]:
    """The next two signs of life in a stream after the first words, which must have come before."""
    seen, found = [], []
    for each in told.events():
        found += [each] if each.startswith(b":") or b'"ping"' in each else []
        seen.append(each)
        if b"Hello" in b"".join(seen) and len(found) >= 3:  # messages begins with a ping
            return found
    raise AssertionError(told.body)


@every_stream
def test_the_caller_hears_that_the_line_stands_while_the_upstream_is_silent(
    stage, fake, wire, monkeypatch
):
    monkeypatch.setattr(reply, "SILENCE_S", 0.05)
    alice, gate = stage(), Gate()
    fake.always(stream(chunk("Hello"), gate, chunk(finish="stop")))
    told = open_stream(alice, wire)
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    assert set(heard(told)) == {ping if wire == "messages" else b": keep-alive\n\n"}
    gate.open()
    told.read()
    assert alice.relay.closed_row(told.request_id)["outcome"] == "complete"


def test_a_silence_without_end_is_cut_all_the_same(stage, fake, monkeypatch):
    monkeypatch.setattr(reply, "SILENCE_S", 0.05)
    alice = stage(upstreams=[upstream_config(fake.url, idle_s=0.12)])
    fake.always(stream(chunk("Hello"), done=False, then=silence))
    told = open_stream(alice, "chat").read()
    assert (
        told.count(b": keep-alive\n\n") == 2
        and b"upstream_timeout" in told
        and b"[DONE]" not in told
    )


# Addresses


@pytest.mark.parametrize("prefix", ["/api/v1", "/v1", "/api/v1/v1", "/v1/v1"])
@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_messages_are_served_wherever_claude_code_may_look(alice, fake, prefix, header):
    fake.always(Says("Sunny."))
    token = (
        {"authorization": f"Bearer {alice.token}"}
        if header == "authorization"
        else {"x_api_key": alice.token}
    )
    nobody = alice.relay.client()
    body = ASKS["messages"][1] | {"model": "test-model"}
    told = nobody.post(
        f"{prefix}/messages?beta=true", body, anthropic_beta="claude-code-20250219,made-up", **token
    )
    assert told.json["content"] == [{"type": "text", "text": "Sunny."}]
    counted = nobody.post(f"{prefix}/messages/count_tokens?beta=true", body, **token)
    assert counted.json["input_tokens"] > 0
    assert charged(alice) == COST


@every_wire
def test_a_base_address_that_was_pasted_untidily_is_understood(stage, fake, wire):
    alice, vectors = stage(), {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 20}}
    fake.always(answer(vectors) if wire == "embeddings" else Says("Sunny."))
    path, body = ASKS[wire]
    body = body | {"model": "vectors" if wire == "embeddings" else "test-model"}
    tail = path.removeprefix("/api/v1")
    untidy = (f"/api/v1/v1{tail}", f"/v1/v1{tail}", f"/api/v1/{tail}", f"/v1/{tail}", f"/v1{tail}/")
    for each in untidy:
        assert alice.post(each, body).status == 200, each
        assert_error(
            wire, alice.call("PUT", each), 405, "invalid_request_error", "method_not_allowed"
        )
    assert len(fake.requests) == len(untidy)
    assert alice.get("/v1//models/").json == alice.get("/api/v1/models").json


@pytest.mark.parametrize("path", ["/api/hello", "/api/api/hello"])
def test_claude_code_finds_somebody_at_home(relay, path):
    assert relay.client().call("HEAD", path).status == relay.client().get(path).status == 200


@pytest.mark.parametrize("path", ["/api/v1/responses", "/v1/responses", "/api/v1/realtime?model=x"])
def test_codex_is_told_at_once_that_there_is_no_websocket(alice, path):
    upgrade = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "openai_beta": "responses_websockets=2026-02-06",
        "sec_websocket_version": "13",
        "sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    told = alice.get(path, **upgrade)
    assert told.status == 426 and told.json["error"]["code"] == "websocket_not_supported"
    assert alice.get("/api/v1/responses").status == 405


def test_javas_wish_for_another_http_is_passed_over(alice, fake):
    fake.always(Says("Sunny."))
    upgrade = {
        "upgrade": "h2c",
        "connection": "Upgrade, HTTP2-Settings",
        "http2_settings": "AAEAAEAAAAIAAAAB",
    }
    told = alice.post(ASKS["chat"][0], {"model": "test-model", "messages": QUESTION}, **upgrade)
    assert told.json["choices"][0]["message"]["content"] == "Sunny."


def test_models_are_listed_in_the_dialect_of_who_asks(alice):
    assert alice.get("/api/v1/models").json["object"] == "list"
    told = alice.get("/api/v1/models?limit=20", anthropic_version="2023-06-01").json
    assert told["data"][0]["type"] == "model" and told["has_more"] is False
    for version in ({}, {"anthropic_version": "2023-06-01"}):
        assert alice.get("/v1/models/test-model", **version).json["id"] == "test-model"
        assert_error(
            "messages" if version else "chat",
            alice.get("/v1/models/nobody", **version),
            404,
            "not_found_error",
            "model_not_found",
        )


def test_anthropics_pages_of_models(stage):
    alice = stage()

    def page(query: str) -> tuple[list[str], bool]:
        told = alice.get(f"/api/v1/models?{query}", anthropic_version="2023-06-01").json
        ids = [each["id"] for each in told["data"]]
        assert [told["first_id"], told["last_id"]] == (ids[:1] + ids[-1:] or [None, None])
        return ids, told["has_more"]

    assert page("") == page("limit=20") == (["test-model", "other-model", "vectors"], False)
    assert page("limit=1") == (["test-model"], True)
    assert page("limit=1&after_id=test-model") == (["other-model"], True)
    assert page("limit=2&after_id=test-model") == (["other-model", "vectors"], False)
    assert page("after_id=vectors") == ([], False)
    assert page("limit=1&before_id=vectors") == (["other-model"], True)
    assert page("before_id=other-model") == (["test-model"], False)
    for query in (
        "limit=0",
        "limit=1001",
        "limit=many",
        "limit=",
        "after_id=nobody",
        "before_id=nobody",
    ):
        told = alice.get(f"/api/v1/models?{query}", anthropic_version="2023-06-01")
        assert_error("messages", told, 400, "invalid_request_error")


def test_sealed_reasoning_is_believed_by_who_it_was_given_to(stage, person, fake):
    alice = stage()
    bob = person("bob", alice.relay).given(wallet="10")
    fake.always(Says("Sunny.", "Hm, a secret."))
    asked = {"model": "test-model", "input": "How?", "include": ["reasoning.encrypted_content"]}
    thought, said = alice.post("/v1/responses", asked).json["output"]
    given = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "In short."}],
        "encrypted_content": thought["encrypted_content"],
    }
    forged = given | {"encrypted_content": given["encrypted_content"][:-4] + "AAAA"}
    seen = []
    for who, item in ((alice, given), (bob, given), (alice, forged)):
        more = asked | {"input": [item, said, {"role": "user", "content": "And?"}]}
        assert who.post("/v1/responses", more).status == 200
        seen.append(fake.requests[-1].json["messages"][0]["reasoning_content"])
    assert seen == ["Hm, a secret.", "In short.", "In short."]


def test_the_input_of_a_response_is_counted_for_nothing(stage, fake):
    alice = stage()
    one = alice.relay.client(mint(alice, rpm=1))
    counts = []
    for asked in (
        {"input": "Hi"},
        {"input": "Hi", "tools": [{"type": "function", "name": "f"}]},
        {"input": []},
    ):
        told = one.post("/v1/responses/input_tokens", {"model": "test-model"} | asked)
        counts.append(told.json.get("input_tokens"))
    assert 0 < counts[0] < counts[1] and told.status == 400
    assert set(
        one.post("/api/v1/responses/input_tokens", {"model": "test-model", "input": "Hi"}).json
    ) == {"object", "input_tokens"}
    assert not fake.requests and not alice.relay.rows()


def test_a_token_sees_the_models_that_it_may_use(stage):
    alice = stage()
    bound = alice.relay.client(mint(alice, models=["other-model"]))
    assert [each["id"] for each in bound.get("/api/v1/models").json["data"]] == ["other-model"]
    assert bound.get("/api/v1/models/test-model").status == 404


LOOKUPS = {  # address -> where a tool reads what is left, in yuan or units of it
    "/dashboard/billing/subscription": lambda told: told["hard_limit_usd"],
    "/v1/dashboard/billing/subscription": lambda told: told["system_hard_limit_usd"],
    "/api/user/self": lambda told: told["data"]["quota"] / 500_000,
    "/api/usage/token/": lambda told: told["data"]["total_available"] / 500_000,
    "/v1/usage": lambda told: told["remaining"],
    "/api/v1/key": lambda told: told["data"]["limit_remaining"],
}


def test_balance_lookups_are_free_and_outside_the_limit(stage, fake):
    alice = stage()
    fake.always(Says("Sunny.", counts={"prompt_tokens": 500_000, "completion_tokens": 125_000}))
    assert (
        alice.client.chat("word " * 500_000, max_tokens=8192).status == 200
    )  # 1 yuan and 65,536 millionths
    spent = charged(alice) / 10**9
    one = alice.relay.client(mint(alice, rpm=1))
    for path, left in LOOKUPS.items():
        told = one.get(path)
        assert told.status == 200 and "x-ratelimit-limit-requests" not in told.headers
        assert abs(left(told.json) - (10 if "subscription" in path else 10 - spent)) < 1e-5, path
        assert_openai_error(alice.relay.client().get(path), 401, "invalid_api_key")
    dates = "?start_date=2026-01-01&end_date=2030-01-01"
    for path in ("/dashboard/billing/usage", "/v1/dashboard/billing/usage"):
        assert one.get(path + dates).json["total_usage"] == pytest.approx(100 * spent, abs=1e-3)
    assert len(alice.relay.rows()) == 1 and charged(alice) / 10**9 == spent


def test_counting_and_listing_use_up_no_budget(stage):
    alice = stage()
    one = alice.relay.client(mint(alice, rpm=1))
    for _ in range(3):
        assert (
            one.post(
                "/v1/messages/count_tokens", {"model": "test-model", "messages": QUESTION}
            ).status
            == 200
        )
        assert one.get("/v1/models").status == 200
    assert alice.relay.rows() == []


# Cursor


def test_what_cursor_posts_to_chat_completions_is_answered_as_chat(alice, fake):
    fake.always(Says("Let me look.", calls=CALLS[:1]))
    asked = {
        "model": "test-model",
        "input": [{"role": "user", "content": "How is the weather?"}],
        "stream": True,
        "tools": [{"type": "function", "name": CALLS[0][1], "parameters": {}}],
        "reasoning": {"effort": "high"},
    }
    told = alice.open("POST", "/api/v1/chat/completions", asked)
    assert told.text() == "Let me look." and told.body.endswith(b"data: [DONE]\n\n")
    assert b'"name":"get_weather"' in told.body and b"event:" not in told.body
    assert fake.requests[0].json["tools"][0]["function"]["name"] == "get_weather"
    assert (
        alice.post("/api/v1/chat/completions", asked | {"stream": False}).json["object"]
        == "chat.completion"
    )
    assert charged(alice) == 2 * COST
