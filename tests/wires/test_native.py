"""Upstreams that speak the caller's wire.

Bytes pass untouched but for the model's name, and are charged exactly.
"""

from __future__ import annotations

import json

import pytest

from tests.fake_upstream import answer, cut, event, stream
from tests.stage import model_config, upstream_config
from tests.wires.scripted_model import Says
from tests.wires.sdk_stage import charged

PRICED = 15 * 2000 + 5 * 500 + 10 * 8000  # 20 input tokens, 5 of them cached, and 10 of output

# Odd spacing, an escape, a number that a double does not hold, members that nobody knows: all of it
# must arrive.
ODD = '"metadata" : {"user_id":"\\u00e9\\/"}, "unknown_beta":[1.10, 123456789012345678901 ],  "temperature":1.0'
ASKS = {
    "messages": '{ "model" :"test-model","max_tokens": 64,"messages":[{"role":"user","content":"Hi"}],%s%s }',
    "responses": '{ "model" :"test-model","input":[{"role":"user","content":"Hi"}],%s%s }',
    "completions": '{ "model" :"test-model","prompt":["Once","Twice"],"logprobs":2,%s%s }',
}
MESSAGE = {
    "id": "msg_up",
    "type": "message",
    "role": "assistant",
    "model": "upstream-model",
    "content": [{"type": "text", "text": "Sunny."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 12,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 5,
        "output_tokens": 10,
    },
}
RESPONSE = {
    "id": "resp_up",
    "object": "response",
    "status": "completed",
    "model": "upstream-model",
    "error": None,
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Sunny.", "annotations": []}],
        }
    ],
    "usage": {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5},
        "output_tokens": 10,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 30,
    },
}
COMPLETION = {
    "id": "cmpl-up",
    "object": "text_completion",
    "created": 1,
    "model": "upstream-model",
    "choices": [
        {"text": "Sunny.", "index": 0, "logprobs": {"tokens": []}, "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "total_tokens": 30,
        "prompt_tokens_details": {"cached_tokens": 5},
    },
}
PLAIN = {"messages": MESSAGE, "responses": RESPONSE, "completions": COMPLETION}


def named(**members) -> bytes:
    return b"event: " + members["type"].encode() + b"\n" + event(members)


MESSAGE_EVENTS = [
    named(
        type="message_start",
        message=MESSAGE
        | {
            "content": [],
            "stop_reason": None,
            "usage": {
                "input_tokens": 12,
                "cache_creation_input_tokens": 3,
                "cache_read_input_tokens": 5,
                "output_tokens": 1,
            },
        },
    ),
    named(type="ping"),
    named(type="content_block_start", index=0, content_block={"type": "text", "text": ""}),
    named(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "Sunny."}),
    named(type="content_block_stop", index=0),
    named(
        type="message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage={"output_tokens": 10},
    ),
    named(type="message_stop"),
]
RESPONSE_EVENTS = [
    named(
        type="response.created",
        sequence_number=0,
        response=RESPONSE | {"status": "in_progress", "usage": None},
    ),
    named(
        type="response.output_text.delta",
        sequence_number=1,
        item_id="msg_1",
        output_index=0,
        content_index=0,
        delta="Sunny.",
        logprobs=[],
    ),
    named(type="response.some.new.kind", sequence_number=2, surprise={"a": 1}),
    named(
        type="response.output_item.done",
        sequence_number=3,
        output_index=0,
        item=RESPONSE["output"][0],
    ),
    named(type="response.completed", sequence_number=4, response=RESPONSE),
]
STREAMS = {"messages": MESSAGE_EVENTS, "responses": RESPONSE_EVENTS}
both = pytest.mark.parametrize("wire", STREAMS)


def asked(wire: str, **more) -> bytes:
    """A request in somebody's own hand."""
    return (
        ASKS[wire]
        % (ODD, "".join(f', "{name}":{json.dumps(value)}' for name, value in more.items()))
    ).encode()


def renamed(body: bytes) -> bytes:
    return body.replace(b'"test-model"', b'"upstream-model"')


@pytest.fixture
def alice(start_relay, person, fake):
    """alice with 10 yuan at a relay whose upstream speaks everything."""
    speaks = ["chat", "messages", "responses", "completions"]
    wire_urls = {"messages": fake.url.removesuffix("/v1") + "/anthropic/v1/messages"}
    relay = start_relay(
        upstreams=[upstream_config(fake.url, speaks=speaks, wire_urls=wire_urls)],
        models=[model_config(output_max=64)],
    )
    return person("alice", relay).given(wallet="10")


@pytest.mark.parametrize("wire", PLAIN)
def test_plain_bytes_pass_both_ways_and_are_charged_exactly(alice, fake, wire):
    body = b" " + json.dumps(PLAIN[wire], indent=1).encode()
    fake.always(answer(body))
    told = alice.post(f"/api/v1/{wire}", asked(wire))
    assert told.body == body
    assert fake.requests[0].body == renamed(asked(wire))
    assert fake.requests[0].path == {"messages": "/anthropic/v1/messages"}.get(wire, f"/v1/{wire}")
    assert ("anthropic-version" in fake.requests[0].headers) == (wire == "messages")
    assert "sk-upstream-secret" in fake.requests[0].headers["authorization"]
    assert alice.token.encode() not in fake.requests[0].raw
    row = alice.relay.closed_row()
    assert (
        row["input_tokens"],
        row["cached_tokens"],
        row["output_tokens"],
        row["usage_source"],
    ) == (20, 5, 10, "upstream")
    assert charged(alice) == PRICED


@both
@pytest.mark.parametrize("bytes_at_once", [0, 1, 7])
def test_streamed_bytes_pass_and_are_charged_exactly(alice, fake, wire, bytes_at_once):
    fake.always(stream(*STREAMS[wire], done=False, bytes_at_once=bytes_at_once))
    told = alice.open("POST", f"/api/v1/{wire}", asked(wire, stream=True))
    assert told.read() == b"".join(STREAMS[wire])
    assert fake.requests[0].body == renamed(asked(wire, stream=True)), (
        "nothing is asked for that was not"
    )
    assert charged(alice) == PRICED


def test_the_callers_betas_pass_to_an_upstream_of_its_wire_and_nothing_else_does(alice, fake):
    fake.always(answer(MESSAGE))
    alice.post(
        "/api/v1/messages?beta=true",
        asked("messages"),
        anthropic_beta="context-management-2025-06-27",
        anthropic_version="2026-10-21",
        x_app="cli",
        cookie="a=b",
        user_agent="claude-cli/2.1.330",
    )
    sent = fake.requests[0].headers
    assert (sent["anthropic-beta"], sent["anthropic-version"]) == (
        "context-management-2025-06-27",
        "2026-10-21",
    )
    assert sent["user-agent"] == "relay" and not {"x-app", "cookie", "x-api-key"} & set(sent)
    alice.post("/api/v1/messages", asked("messages"))
    assert fake.requests[1].headers[
        "anthropic-version"
    ] == "2023-06-01" and "anthropic-beta" not in (fake.requests[1].headers)
    fake.always(Says("Sunny."))
    alice.chat()
    assert not any(name.startswith("anthropic") for name in fake.requests[2].headers)


@both
def test_a_native_stream_that_is_cut_never_ends_in_success(alice, fake, wire):
    fake.always(stream(*STREAMS[wire][:-2], done=False, then=cut))
    told = alice.open("POST", f"/api/v1/{wire}", asked(wire, stream=True)).read()
    assert told.startswith(b"".join(STREAMS[wire][:-2])), "what came is passed on"
    last = told.removeprefix(b"".join(STREAMS[wire][:-2]))
    assert last.startswith(
        {"messages": b"event: error\n", "responses": b"event: response.failed\n"}[wire]
    )
    assert b"message_stop" not in told and b"response.completed" not in told
    row = alice.relay.closed_row()
    assert (row["outcome"], row["usage_source"]) == ("upstream_cut", "estimated") and 0 < charged(
        alice
    ) < PRICED


@both
def test_a_native_error_in_mid_stream_ends_it_in_the_callers_dialect(alice, fake, wire):
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    if wire == "responses":
        error = {
            "type": "response.failed",
            "sequence_number": 9,
            "response": RESPONSE
            | {"status": "failed", "error": {"code": "server_error", "message": "Overloaded"}},
        }
    fake.always(stream(*STREAMS[wire][:4], named(**error), done=False))
    told = alice.open("POST", f"/api/v1/{wire}", asked(wire, stream=True)).read()
    assert told.count(b"event: error\n") + told.count(b"event: response.failed\n") == 1
    assert b"completed\n" not in told and alice.relay.closed_row()["outcome"] == "upstream_cut"


@both
def test_a_whole_native_answer_becomes_a_stream_for_who_asked_for_one(alice, fake, wire):
    fake.always(answer(PLAIN[wire]))
    told = alice.open("POST", f"/api/v1/{wire}", asked(wire, stream=True)).read()
    assert b"Sunny." in told and told.count(b"event: ") > 3
    assert b"event: message_stop" in told or b"event: response.completed" in told
    assert charged(alice) == PRICED


@both
def test_a_native_refusal_is_the_callers_own_and_costs_nothing(alice, fake, wire):
    fake.always(
        answer({"type": "error", "error": {"type": "invalid_request_error", "message": "No."}}, 400)
    )
    told = alice.post(f"/api/v1/{wire}", asked(wire))
    assert (
        told.status == 400
        and told.json["error"]
        == {
            "messages": {"type": "invalid_request_error", "message": "No."},
            "responses": {
                "message": "No.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            },
        }[wire]
    )
    assert charged(alice) == 0 and len(fake.requests) == 2, "natively, and once over chat"


@both
def test_another_upstream_that_speaks_chat_takes_over(start_relay, person, fake, other_fake, wire):
    relay = start_relay(
        upstreams=[
            upstream_config(fake.url, speaks=[wire]),
            upstream_config(other_fake.url, "other"),
        ],
        models=[model_config(upstreams=("fake", "other"))],
    )
    alice = person("alice", relay).given(wallet="10")
    fake.always(answer({"error": {"message": "Broken."}}, 500))
    other_fake.always(Says("Sunny."))
    for streamed in (False, True):
        told = alice.open("POST", f"/api/v1/{wire}", asked(wire, stream=streamed)).read()
        assert b"Sunny" in told
    assert other_fake.requests[0].path == "/v1/chat/completions"
    assert charged(alice) == 2 * (20 * 2000 + 10 * 8000)


@both
@pytest.mark.parametrize("streamed", [False, True])
def test_a_code_in_place_of_a_native_answer_has_the_status_that_it_means(
    alice, fake, wire, streamed
):
    body = {"code": "InvalidParameter", "message": "too loud"}
    fake.always(stream(body) if streamed else answer(body))
    refused = alice.post(f"/api/v1/{wire}", asked(wire, stream=streamed))
    assert refused.status == 400 and "too loud" in refused.json["error"]["message"]


@both
def test_a_reason_in_the_middle_of_a_native_stream_ends_it_as_an_error(alice, fake, wire):
    fake.always(stream(*STREAMS[wire][:4], {"message": "out of memory"}))
    streamed = alice.open("POST", f"/api/v1/{wire}", asked(wire, stream=True))
    kinds = [doc["type"] for doc in streamed.documents()]
    assert kinds[-1] in ("error", "response.failed")
    assert alice.relay.closed_row(streamed.request_id)["error"] == "upstream_error"


def test_the_output_at_the_start_of_a_stream_is_no_count(alice, fake):
    """Anthropic writes 1 there; where the end says nothing the answer is estimated."""
    silent = named(type="message_delta", delta={"stop_reason": "end_turn"})
    many = named(
        type="content_block_delta", index=0, delta={"type": "text_delta", "text": "Sunny. " * 50}
    )
    fake.always(stream(*MESSAGE_EVENTS[:3], many, MESSAGE_EVENTS[4], silent, MESSAGE_EVENTS[6]))
    streamed = alice.open("POST", "/api/v1/messages", asked("messages", stream=True))
    assert list(streamed.documents())[-1]["type"] == "message_stop"
    assert alice.relay.closed_row(streamed.request_id)["output_tokens"] > 50
