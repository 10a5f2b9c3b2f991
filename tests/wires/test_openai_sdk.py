"""OpenAI's own Python SDK against the running relay, whose upstream speaks chat only."""

from __future__ import annotations

import json

import openai
import pytest
from pydantic import BaseModel

from tests.fake_upstream import answer, cut
from tests.providers import ERRORS, openai_stream, plain, usage
from tests.stage import model_config, upstream_config
from tests.wires.scripted_model import CALLS, SCHEMA, TOOL, Says
from tests.wires.sdk_stage import COST, PNG, charged, mint, openai_sdk, waits  # noqa: F401

QUESTION = [{"role": "user", "content": "How is the weather?"}]
CHAT_TOOL = {
    "type": "function",
    "function": {"name": TOOL, "description": "Tells it.", "parameters": SCHEMA},
}
FLAT_TOOL = {"type": "function", "name": TOOL, "parameters": SCHEMA, "strict": False}


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def sdk(alice):
    return openai_sdk(alice)


# Chat


def test_chat_plain_and_streamed(fake, alice, sdk):
    fake.always(Says("Sunny.", counts=usage(20, 10, 5)))
    told = sdk.chat.completions.create(model="test-model", messages=QUESTION)
    assert (
        told.choices[0].message.content == "Sunny."
        and told.usage.prompt_tokens_details.cached_tokens == 5
    )
    with sdk.chat.completions.create(model="test-model", messages=QUESTION, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Sunny."
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"
    asked = {"stream_options": {"include_usage": True}}
    *_, last = sdk.chat.completions.create(
        model="test-model", messages=QUESTION, stream=True, **asked
    )
    assert (last.choices, last.usage.completion_tokens) == ([], 10)
    assert charged(alice) == 3 * (COST - 5 * 1500)


def test_two_parallel_tool_calls_and_their_results_in_chat(fake, sdk):
    fake.next(Says("Let me look.", calls=CALLS), Says("Both sunny."))
    with sdk.chat.completions.stream(
        model="test-model", messages=QUESTION, tools=[CHAT_TOOL]
    ) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [
        (call.id, call.function.name, json.loads(call.function.arguments)["city"])
        for call in message.tool_calls
    ] == [("call_1", TOOL, "Paris"), ("call_2", TOOL, "Rome")]
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": "sunny"} for call in message.tool_calls
    ]
    said = message.model_dump(include={"role", "content", "tool_calls"})
    told = sdk.chat.completions.create(
        model="test-model", messages=[*QUESTION, said, *results], tools=[CHAT_TOOL]
    )
    assert told.choices[0].message.content == "Both sunny."
    assert [each["role"] for each in fake.requests[1].json["messages"]] == [
        "user",
        "assistant",
        "tool",
        "tool",
    ]


def test_reasoning_images_and_structured_output_in_chat(fake, sdk):
    fake.always(Says('{"city": "Paris", "degrees": 21}', reasoning="It is June."))
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    told = sdk.chat.completions.parse(
        model="test-model",
        response_format=Weather,
        messages=[{"role": "user", "content": [{"type": "text", "text": "Where is this?"}, image]}],
    )
    assert told.choices[0].message.parsed == Weather(city="Paris", degrees=21)
    assert told.choices[0].message.reasoning_content == "It is June."
    asked = fake.requests[0].json
    assert asked["messages"][0]["content"][1] == image
    assert asked["response_format"]["json_schema"]["name"] == "Weather"


# Responses


def test_responses_plain_and_streamed(fake, alice, sdk):
    fake.always(Says("Sunny.", reasoning="It is June.", counts=usage(20, 10, 5)))
    told = sdk.responses.create(
        model="test-model", input="How is the weather?", instructions="Be short."
    )
    assert told.output_text == "Sunny." and told.status == "completed"
    assert [item.type for item in told.output] == ["reasoning", "message"]
    assert (
        told.usage.input_tokens,
        told.usage.input_tokens_details.cached_tokens,
        told.usage.output_tokens,
    ) == (20, 5, 10)
    with sdk.responses.stream(model="test-model", input="How is the weather?") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "Sunny." and final.output[0].summary[0].text == "It is June."
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert fake.requests[0].json["messages"][0] == {"role": "system", "content": "Be short."}
    assert charged(alice) == 2 * (COST - 5 * 1500)


@pytest.mark.parametrize("streamed", [False, True])
def test_two_parallel_tool_calls_and_their_results_in_responses(fake, sdk, streamed):
    fake.next(Says(reasoning="Which cities?", calls=CALLS), Says("Both sunny."))
    items = [{"role": "user", "content": "How is the weather?"}]
    asked = {
        "model": "test-model",
        "tools": [FLAT_TOOL],
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if streamed:
        with sdk.responses.stream(input=items, **asked) as stream:
            told = stream.get_final_response()
    else:
        told = sdk.responses.create(input=items, **asked)
    calls = [item for item in told.output if item.type == "function_call"]
    assert [(call.call_id, json.loads(call.arguments)["city"]) for call in calls] == [
        ("call_1", "Paris"),
        ("call_2", "Rome"),
    ]
    items += [
        item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in told.output
    ]
    items += [
        {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        for call in calls
    ]
    assert sdk.responses.create(input=items, **asked).output_text == "Both sunny."
    messages = fake.requests[1].json["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool"]
    assert (
        messages[1]["reasoning_content"] == "Which cities?" and len(messages[1]["tool_calls"]) == 2
    )


def test_images_and_structured_output_in_responses(fake, sdk):
    fake.always(Says('{"city": "Paris", "degrees": 21}'))
    url = f"data:image/png;base64,{PNG}"
    content = [
        {"type": "input_text", "text": "Where is this?"},
        {"type": "input_image", "image_url": url},
    ]
    told = sdk.responses.parse(
        model="test-model", input=[{"role": "user", "content": content}], text_format=Weather
    )
    assert told.output_parsed == Weather(city="Paris", degrees=21)
    asked = fake.requests[0].json
    assert asked["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": url}}
    assert asked["response_format"]["json_schema"]["schema"]["required"] == ["city", "degrees"]


def test_what_needs_a_memory_is_a_bad_request_in_responses(alice, sdk):
    with pytest.raises(openai.BadRequestError) as caught:
        sdk.responses.create(model="test-model", input="And now?", previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == (
        "previous_response_id",
        "unsupported_parameter",
    )
    assert sdk.statuses == [400] and charged(alice) == 0


# The smaller wires


def test_embeddings_in_both_encodings(start_relay, person, fake):
    relay = start_relay(
        upstreams=[upstream_config(fake.url, speaks=["embeddings"])],
        models=[model_config("vectors", kind="embeddings", prices={"input": "0.5"})],
    )
    alice = person("alice", relay).given(wallet="10")
    sdk = openai_sdk(alice)
    data = [{"object": "embedding", "index": 0, "embedding": [0.5, -0.25]}]
    counts = {"prompt_tokens": 4, "total_tokens": 4}
    fake.always(answer({"object": "list", "data": data, "model": "v", "usage": counts}))
    for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        told = sdk.embeddings.create(model="vectors", input=["Hello"], **encoding)
        assert told.usage.prompt_tokens == 4
        assert told.data[0].embedding == (
            [0.5, -0.25] if encoding.get("encoding_format") != "base64" else "AAAAPwAAgL4="
        )
    assert charged(alice) == 3 * 4 * 500


def test_models_are_listed_and_retrieved(sdk):
    assert [model.id for model in sdk.models.list()] == ["test-model"]
    assert sdk.models.retrieve("test-model").object == "model"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nobody")
    assert sdk.statuses == [200, 200, 404]


def test_legacy_completions_plain_and_streamed(fake, alice, sdk):
    fake.always(Says(" upon a time"))
    told = sdk.completions.create(model="test-model", prompt="Once", max_tokens=5, echo=True)
    assert told.choices[0].text == "Once upon a time" and told.usage.completion_tokens == 10
    chunks = list(sdk.completions.create(model="test-model", prompt="Once", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == " upon a time"
    assert charged(alice) == 2 * COST


# Errors: the class that each raises, and how often the SDK asks


def sorts(sdk, wire: str, **changes):
    """One call on a wire."""
    if wire == "chat":
        return sdk.chat.completions.create(
            **{"model": "test-model", "messages": QUESTION} | changes
        )
    return sdk.responses.create(**{"model": "test-model", "input": "How is the weather?"} | changes)


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_what_a_retry_cannot_mend_is_asked_once(fake, start_relay, person, wire, waits):  # noqa: F811
    relay = start_relay(models=[model_config(), model_config("other-model")])
    alice, bob = person("alice", relay).given(wallet="10"), person("bob", relay)
    bound = openai_sdk(alice, token=mint(alice, models=["other-model"]))
    status, document = ERRORS["moonshot context"]
    fake.always(answer(document, status))
    for sdk, changes, kind, code in (
        (
            openai_sdk(alice, token="sk-" + "x" * 43),
            {},
            openai.AuthenticationError,
            "invalid_api_key",
        ),
        (openai_sdk(bob), {}, openai.APIStatusError, "insufficient_balance"),
        (bound, {}, openai.PermissionDeniedError, "model_not_allowed"),
        (openai_sdk(alice), {"model": "nobody"}, openai.NotFoundError, "model_not_found"),
        (
            openai_sdk(alice),
            {"temperature": 1} | ({"messages": []} if wire == "chat" else {"input": []}),
            openai.BadRequestError,
            None,
        ),
        (openai_sdk(alice), {}, openai.BadRequestError, "context_length_exceeded"),
    ):
        with pytest.raises(kind) as caught:
            sorts(sdk, wire, **changes)
        assert caught.value.code == code and caught.value.request_id and len(sdk.statuses) == 1, (
            sdk.statuses
        )
        assert sdk.headers[0]["x-should-retry"] == "false"
    assert waits == [] and len(fake.requests) == 1, "only the last one reached the upstream"
    assert charged(alice) == 0


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_a_rate_limit_is_waited_for_as_long_as_it_says(fake, alice, wire, waits):  # noqa: F811
    fake.always(Says("Sunny."))
    sdk = openai_sdk(alice, token=mint(alice, rpm=1), max_retries=1)
    sorts(sdk, wire)
    with pytest.raises(openai.RateLimitError) as caught:
        sorts(sdk, wire)
    assert caught.value.code == "rate_limit_exceeded" and sdk.statuses == [200, 429, 429]
    assert waits == [float(sdk.headers[1]["retry-after"])] and 1 <= waits[0] <= 60


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_an_overload_is_tried_again_and_charged_once(fake, alice, sdk, wire, waits):  # noqa: F811
    fake.next(answer(ERRORS["openai 500"][1], 500)).always(Says("Sunny."))
    sorts(sdk, wire)
    assert sdk.statuses == [502, 200] and len(waits) == 1
    assert [row["outcome"] for row in alice.relay.rows()] == ["failed", "complete"] and charged(
        alice
    ) == COST


@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_a_cut_stream_is_no_answer(fake, sdk, wire):
    fake.always([*openai_stream()[:4], cut])
    if wire == "chat":
        with pytest.raises(openai.APIError):
            list(sdk.chat.completions.create(model="test-model", messages=QUESTION, stream=True))
    else:
        events = list(sdk.responses.create(model="test-model", input="Hi", stream=True))
        assert (
            events[-1].type == "response.failed"
            and events[-1].response.error.code == "server_error"
        )


def test_a_plain_answer_of_a_provider_without_usage_is_estimated(fake, alice, sdk):
    fake.always(plain({}, content="Sunny."))
    sdk.responses.create(model="test-model", input="How is the weather?")
    assert alice.relay.closed_row()["usage_source"] == "estimated" and charged(alice) > 0
