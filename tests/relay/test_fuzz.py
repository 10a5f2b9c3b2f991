"""Requests and answers of about the right shape, by the hundred.

Never a 500, never a charge for what was refused.
"""

from __future__ import annotations

import json
import logging
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings

from relay.upstream.health import Health
from tests.fake_upstream import answer, event, stream
from tests.providers import chunk, usage
from tests.stage import model_config, upstream_config
from tests.wires.bent_json import bent, junk
from tests.wires.scripted_model import CALLS, SCHEMA, TOOL, Says
from tests.wires.sdk_stage import PNG, charged
from tests.wires.test_native import COMPLETION, MESSAGE, RESPONSE

CALL_S = 3.0  # processor seconds that no call takes, whatever it holds
EXAMPLES = int(
    os.environ.get("FUZZ", "40")
)  # FUZZ=2000 looks longer, and at other examples each time

IMAGE = f"data:image/png;base64,{PNG}"
CHAT_TOOL = {"type": "function", "function": {"name": TOOL, "parameters": SCHEMA, "strict": True}}
CHAT_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": TOOL, "arguments": '{"city": "Paris"}'},
}
FLAT_TOOL = {"type": "function", "name": TOOL, "parameters": SCHEMA, "strict": False}
TALK = [
    {"role": "system", "content": "Be short."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Hi"},
            {"type": "image_url", "image_url": {"url": IMAGE}},
        ],
    },
    {"role": "assistant", "content": None, "reasoning_content": "Hm.", "tool_calls": [CHAT_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sunny"}]},
]
REQUESTS = {
    "chat": [
        {
            "model": "test-model",
            "messages": TALK,
            "tools": [CHAT_TOOL],
            "tool_choice": "auto",
            "n": 1,
            "max_tokens": 50,
            "temperature": 0.5,
            "stop": ["x"],
            "response_format": {"type": "json_object"},
        },
        {
            "model": "test-model",
            "messages": TALK[:1],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    ],
    "cursor": [
        {
            "model": "test-model",
            "input": [{"role": "user", "content": "Hi"}],
            "tools": [FLAT_TOOL],
            "stream": True,
        },
        {
            "model": "test-model",
            "messages": TALK,
            "tools": [FLAT_TOOL, {"type": "custom", "name": "patch"}],
        },
    ],
    "messages": [
        {
            "model": "test-model",
            "max_tokens": 50,
            "stream": True,
            "thinking": {"type": "enabled", "budget_tokens": 9},
            "system": [
                {"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}
            ],
            "tools": [{"name": TOOL, "description": "Tells.", "input_schema": SCHEMA}],
            "tool_choice": {"type": "any"},
            "metadata": {"user_id": "u"},
            "stop_sequences": ["x"],
            "output_config": {"effort": "high"},
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Hi"},
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                        },
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                        {"type": "text", "text": "Let me look."},
                        {"type": "tool_use", "id": "t1", "name": TOOL, "input": {"city": "Paris"}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "t1",
                            "is_error": False,
                            "content": [{"type": "text", "text": "sunny"}],
                        },
                        {
                            "type": "document",
                            "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                        },
                    ],
                },
                {"role": "system", "content": "Soon."},
            ],
        },
        {"model": "test-model", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]},
    ],
    "responses": [
        {
            "model": "test-model",
            "stream": True,
            "instructions": "Be short.",
            "max_output_tokens": 50,
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"effort": "high", "summary": "auto"},
            "tools": [
                FLAT_TOOL,
                {
                    "type": "custom",
                    "name": "patch",
                    "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"},
                },
                {"type": "namespace", "name": "agents", "tools": [FLAT_TOOL]},
                {"type": "web_search"},
                {"type": "local_shell"},
            ],
            "parallel_tool_calls": True,
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": TOOL}],
            },
            "text": {
                "format": {"type": "json_schema", "name": "w", "schema": SCHEMA},
                "verbosity": "low",
            },
            "input": [
                {
                    "type": "message",
                    "role": "developer",
                    "content": [{"type": "input_text", "text": "Be short."}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Hi"},
                        {"type": "input_image", "image_url": IMAGE, "detail": "low"},
                    ],
                },
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "Hm."}],
                    "encrypted_content": "rs1.AAAA",
                },
                {
                    "type": "function_call",
                    "call_id": "c1",
                    "name": TOOL,
                    "namespace": "agents",
                    "arguments": "{}",
                },
                {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "x"},
                {
                    "type": "local_shell_call",
                    "call_id": "c3",
                    "action": {"type": "exec", "command": ["ls"]},
                },
                {
                    "type": "function_call_output",
                    "call_id": "c1",
                    "output": [{"type": "input_text", "text": "sunny"}],
                },
                {"type": "custom_tool_call_output", "call_id": "c2", "output": "done"},
                {"type": "additional_tools", "tools": [{"type": "function", "name": "other"}]},
            ],
        },
        {"model": "test-model", "input": "Hi"},
    ],
    "completions": [
        {
            "model": "test-model",
            "prompt": ["Once"],
            "max_tokens": 5,
            "echo": True,
            "stream": True,
            "n": 1,
            "stop": ["x"],
            "logprobs": None,
            "suffix": "",
            "stream_options": {"include_usage": True},
        },
        {"model": "test-model", "prompt": "Once"},
    ],
    "embeddings": [
        {
            "model": "vectors",
            "input": ["Hi", "there"],
            "encoding_format": "base64",
            "dimensions": 3,
        },
        {"model": "vectors", "input": [1, 2, 3]},
    ],
    "count_tokens": [
        {"model": "test-model", "system": "x", "messages": [{"role": "user", "content": "Hi"}]}
    ],
}
PATHS = {wire: f"/api/v1/{wire}" for wire in REQUESTS} | {
    "chat": "/api/v1/chat/completions",
    "cursor": "/api/v1/chat/completions",
    "count_tokens": "/v1/messages/count_tokens",
}
VECTORS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "model": "v",
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}


def vectors(inputs) -> dict:
    """A vector for each input, as providers give."""
    several = isinstance(inputs, list) and not all(isinstance(each, int) for each in inputs)
    return VECTORS | {"data": VECTORS["data"] * (len(inputs) if several else 1)}


GOOD_ENDS = (b"data: [DONE]\n\n", b'data: {"type":"message_stop"}\n\n')


def hundred(strategy, check) -> None:
    """Check many examples, the same ones each time: a failure that comes and goes helps nobody."""
    settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize="FUZZ" not in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(check))()


def call(person, wire: str, body):
    """A call whose answer is read to its end; it must be cheap, whole, and nobody's accident."""
    started = time.process_time()
    told = person.open("POST", PATHS[wire], body)
    told.read()
    told.leave()
    assert time.process_time() - started < CALL_S
    assert not told.broken and told.status != 500, told.body
    return told


def ended_well(told) -> bool:
    if "event-stream" not in told.headers["content-type"]:
        return told.status == 200
    return told.body.endswith(GOOD_ENDS) or b"event: response.completed\n" in told.body


@pytest.fixture
def alice(start_relay, person, fake):
    """alice with 10 yuan at a relay that serves all wires on an upstream that answers everything
    well."""
    upstreams = [
        upstream_config(fake.url, speaks=["chat", "embeddings"]),
        upstream_config(fake.url, "native", speaks=["messages", "responses", "completions"]),
        upstream_config(fake.url, "spark", quirks=["spark_chunks"]),
    ]
    relay = start_relay(
        upstreams=upstreams,
        models=[
            model_config(),
            model_config("vectors", kind="embeddings"),
            model_config("native", ["native"]),
            model_config("spark", ["spark"]),
        ],
    )
    fake.always(
        lambda request: (
            answer(vectors(request.json.get("input")))
            if request.path.endswith("embeddings")
            else Says("Sunny.", "Hm.")(request)
        )
    )
    return person("alice", relay).given(wallet="10")


@pytest.fixture(autouse=True)
def no_accidents(caplog):
    """Nothing may be logged as an error: an accident in mid-stream has no status that tells."""
    yield
    assert [
        record for record in caplog.get_records("call") if record.levelno >= logging.ERROR
    ] == []


@pytest.mark.parametrize("wire", REQUESTS)
def test_a_bent_request_is_answered_or_refused_and_only_answers_are_charged(alice, fake, wire):
    answered = []

    def check(body) -> None:
        told = call(alice, wire, body)
        if told.status == 200:
            assert ended_well(told), told.body[-500:]
            answered.append(body)
        else:
            assert 400 <= told.status < 500 and "error" in json.loads(told.body), told.body

    hundred(bent(REQUESTS[wire]), check)
    rows = alice.relay.rows()
    assert all(
        (row["outcome"] == "complete") == (row["cost"] is not None and row["cost"] > 0)
        for row in rows
    )
    assert charged(alice) == sum(row["cost"] or 0 for row in rows)
    assert len(fake.requests) == len([row for row in rows if row["outcome"] == "complete"])
    if wire != "count_tokens":
        assert len(answered) == len(fake.requests) > 2, "some of them were still right"


@pytest.mark.parametrize("wire", REQUESTS)
def test_any_json_at_all_is_refused_without_an_accident(alice, wire):
    def check(body) -> None:
        call(alice, wire, body)

    hundred(junk, check)
    assert charged(alice) == 0


# What upstreams answer

STREAM = Says("Sunny.", "Hm.", CALLS)
CHUNKS = [*STREAM.pieces(), chunk(finish="tool_calls"), chunk(usage=usage()) | {"choices": []}]
ASKS = {
    "chat": {"model": "test-model", "messages": TALK[:1]},
    "messages": {
        "model": "test-model",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": "Hi"}],
        "thinking": {"type": "adaptive"},
    },
    "responses": REQUESTS["responses"][1] | {"tools": REQUESTS["responses"][0]["tools"]},
    "completions": {"model": "test-model", "prompt": "Once"},
}


def forget_failures(person) -> None:
    """One bad answer must not spare the upstream the next call."""
    person.relay.app.extensions["relay"].sender.health = Health()


@pytest.mark.parametrize("case", [*ASKS, "spark chat"])
def test_a_bent_stream_never_makes_an_accident(alice, fake, case):
    wire = case.split()[-1]
    asked = ASKS[wire] | {"stream": True} | ({"model": "spark"} if wire != case else {})

    def check(chunks) -> None:
        forget_failures(alice)
        fake.always(stream(*[event(each) for each in chunks]))
        told = call(alice, wire, asked)
        if told.status == 200 and not any(
            b"finish_reason" in json.dumps(each).encode() for each in chunks
        ):
            assert not ended_well(told), "without a finish_reason it was cut"

    hundred(bent([CHUNKS], most=4), check)
    assert charged(alice) >= 0 and all(row["outcome"] for row in alice.relay.rows())


ANSWERS = {
    "embeddings": VECTORS,
    "native messages": MESSAGE,
    "native responses": RESPONSE,
    "native completions": COMPLETION,
}


@pytest.mark.parametrize("case", [*ASKS, "spark chat", "spark messages", *ANSWERS])
def test_a_bent_answer_never_makes_an_accident(alice, fake, case):
    wire = case.split()[-1]
    asked = ASKS.get(wire, REQUESTS["embeddings"][0])
    if wire != case:
        asked = asked | {"model": case.split()[0]}

    def check(document) -> None:
        forget_failures(alice)
        fake.always(answer(document))
        for body in (asked, asked | {"stream": True}):
            call(alice, wire, body)

    hundred(bent([ANSWERS.get(case) or STREAM.whole()], most=4), check)
    assert charged(alice) >= 0 and all(row["outcome"] for row in alice.relay.rows())
