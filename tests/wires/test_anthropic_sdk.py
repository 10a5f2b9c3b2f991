"""Anthropic's own Python SDK against the running relay, whose upstream speaks chat only."""

from __future__ import annotations

import anthropic
import pytest
from pydantic import BaseModel

from tests.fake_upstream import answer, cut
from tests.providers import ERRORS, openai_stream, usage
from tests.stage import model_config
from tests.wires.scripted_model import CALLS, SCHEMA, TOOL, Says
from tests.wires.sdk_stage import COST, PNG, anthropic_sdk, charged, mint, waits  # noqa: F401

ASK = {
    "model": "test-model",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "How is the weather?"}],
}
THINKING = {"type": "enabled", "budget_tokens": 2048}
TOOLS = [{"name": TOOL, "description": "Tells it.", "input_schema": SCHEMA}]


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.fixture
def sdk(alice):
    return anthropic_sdk(alice)


def streamed(sdk, **asked):
    """The final message of a stream."""
    with sdk.messages.stream(**ASK | asked) as stream:
        return stream.get_final_message()


def plain(sdk, **asked):
    return sdk.messages.create(**ASK | asked)


BOTH = pytest.mark.parametrize("ask", [plain, streamed])


@BOTH
def test_a_message_has_its_text_and_disjoint_usage(fake, alice, sdk, ask):
    fake.always(Says("Sunny.", counts=usage(20, 10, 5)))
    told = ask(
        sdk, system=[{"type": "text", "text": "Be short.", "cache_control": {"type": "ephemeral"}}]
    )
    assert [block.text for block in told.content] == ["Sunny."] and told.stop_reason == "end_turn"
    assert (
        told.usage.input_tokens,
        told.usage.cache_read_input_tokens,
        told.usage.output_tokens,
    ) == (15, 5, 10)
    assert fake.requests[0].json["messages"][0] == {"role": "system", "content": "Be short."}
    assert charged(alice) == COST - 5 * 1500
    assert (
        sdk.headers[0]["request-id"]
        == sdk.headers[0]["x-request-id"]
        == alice.relay.closed_row()["id"]
    )


@BOTH
def test_two_parallel_tool_calls_and_their_results(fake, sdk, ask):
    fake.next(Says("Let me look.", reasoning="Two cities.", calls=CALLS), Says("Both sunny."))
    told = ask(sdk, tools=TOOLS, thinking=THINKING)
    assert [block.type for block in told.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [(block.id, block.input) for block in told.content[2:]] == [
        ("call_1", {"city": "Paris"}),
        ("call_2", {"city": "Rome"}),
    ]
    assert told.stop_reason == "tool_use"
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
        for block in told.content[2:]
    ]
    said = [
        block.model_dump(exclude_none=True, exclude={"parsed_output"}) for block in told.content
    ]
    turns = [
        *ASK["messages"],
        {"role": "assistant", "content": said},
        {"role": "user", "content": results},
    ]
    assert (
        ask(sdk, tools=TOOLS, thinking=THINKING, messages=turns).content[-1].text == "Both sunny."
    )
    messages = fake.requests[1].json["messages"]
    assert [each["role"] for each in messages] == ["user", "assistant", "tool", "tool"]
    assert (
        messages[1]["reasoning_content"] == "Two cities."
        and messages[1]["content"] == "Let me look."
    )


def test_the_sdks_tool_runner_sends_all_again_where_no_thread_is_kept(fake, alice, sdk):
    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Tells it."""
        return f"Hail in {city}."

    fake.next(Says(calls=CALLS[:1]), Says("Take a hat."))
    *_, last = sdk.beta.messages.tool_runner(**ASK, tools=[get_weather])
    assert last.content[0].text == "Take a hat."
    assert [message["role"] for message in fake.requests[1].json["messages"]] == [
        "user",
        "assistant",
        "tool",
    ]
    assert sdk.statuses == [400, 200, 200] and charged(alice) == 2 * COST


@BOTH
def test_an_image_is_seen_and_structured_output_is_asked_for(fake, sdk, ask):
    fake.always(Says('{"city": "Paris", "degrees": 21}'))
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    content = [{"type": "text", "text": "Where is this?"}, image]
    schema = Weather.model_json_schema()
    told = ask(
        sdk,
        messages=[{"role": "user", "content": content}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert Weather.model_validate_json(told.content[0].text) == Weather(city="Paris", degrees=21)
    asked = fake.requests[0].json
    assert asked["messages"][0]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{PNG}"
    assert asked["response_format"]["json_schema"]["schema"]["required"] == ["city", "degrees"]


def test_structured_output_is_parsed_by_the_sdk(fake, sdk):
    fake.always(Says('{"city": "Paris", "degrees": 21}'))
    told = sdk.messages.parse(**ASK, output_format=Weather)
    assert told.parsed_output == Weather(city="Paris", degrees=21)


def test_tokens_are_counted_for_nothing(alice, fake, sdk):
    short = sdk.messages.count_tokens(model="test-model", messages=ASK["messages"])
    long = sdk.messages.count_tokens(
        model="test-model", messages=ASK["messages"], tools=TOOLS, system="Be short. " * 50
    )
    assert 0 < short.input_tokens < long.input_tokens
    assert charged(alice) == 0 and not fake.requests and not alice.relay.rows()


def test_models_are_listed_and_retrieved(sdk):
    assert [(model.id, model.type) for model in sdk.models.list()] == [("test-model", "model")]
    assert sdk.models.retrieve("test-model").display_name == "test-model"
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("nobody")


# Errors: the class that each raises, and how often the SDK asks


def test_what_a_retry_cannot_mend_is_asked_once(fake, start_relay, person, waits):  # noqa: F811
    relay = start_relay(models=[model_config(), model_config("other-model")])
    alice, bob = person("alice", relay).given(wallet="10"), person("bob", relay)
    bound = anthropic_sdk(alice, token=mint(alice, models=["other-model"]))
    status, document = ERRORS["moonshot context"]
    fake.always(answer(document, status))
    for sdk, changes, kind, name in (
        (
            anthropic_sdk(alice, token="sk-" + "x" * 43),
            {},
            anthropic.AuthenticationError,
            "authentication_error",
        ),
        (anthropic_sdk(bob), {}, anthropic.APIStatusError, "billing_error"),
        (bound, {}, anthropic.PermissionDeniedError, "permission_error"),
        (anthropic_sdk(alice), {"model": "nobody"}, anthropic.NotFoundError, "not_found_error"),
        (
            anthropic_sdk(alice),
            {"messages": []},
            anthropic.BadRequestError,
            "invalid_request_error",
        ),
        (anthropic_sdk(alice), {}, anthropic.BadRequestError, "invalid_request_error"),
    ):
        for ask in (plain, streamed):
            with pytest.raises(kind) as caught:
                ask(sdk, **changes)
            assert caught.value.body["error"]["type"] == name and caught.value.request_id
        assert len(sdk.statuses) == 2 and sdk.headers[0]["x-should-retry"] == "false"
    assert caught.value.body["error"]["message"].startswith("prompt is too long"), (
        "Claude Code then shortens it"
    )
    assert waits == [] and len(fake.requests) == 2, "only the last two reached the upstream"
    assert charged(alice) == 0


@BOTH
def test_a_rate_limit_is_waited_for_as_long_as_it_says(fake, alice, ask, waits):  # noqa: F811
    fake.always(Says("Sunny."))
    sdk = anthropic_sdk(alice, token=mint(alice, rpm=1), max_retries=1)
    ask(sdk)
    with pytest.raises(anthropic.RateLimitError):
        ask(sdk)
    assert sdk.statuses == [200, 429, 429]
    assert waits == [float(sdk.headers[1]["retry-after"])] and 1 <= waits[0] <= 60


@BOTH
def test_a_failure_is_tried_again_and_charged_once(fake, alice, sdk, ask, waits):  # noqa: F811
    fake.next(answer(ERRORS["openai 500"][1], 500)).always(Says("Sunny."))
    assert ask(sdk).content[0].text == "Sunny."
    assert sdk.statuses == [502, 200] and len(waits) == 1
    assert [row["outcome"] for row in alice.relay.rows()] == ["failed", "complete"] and charged(
        alice
    ) == COST


def test_a_cut_stream_is_no_answer(fake, sdk):
    fake.always([*openai_stream()[:4], cut])
    with pytest.raises(anthropic.APIStatusError) as caught:
        streamed(sdk)
    assert caught.value.body["error"]["type"] == "api_error"
    assert len(fake.requests) == 1, "what has begun is not asked again"
