"""What the configuration knows of a model is used on every wire, native and over the hub."""

import json

import pytest

from tests.fake_upstream import answer
from tests.providers import plain
from tests.stage import model_config, upstream_config
from tests.wires.scripted_model import Says

OUTPUT_MAX = 8192
HELLO = [{"role": "user", "content": "Hi"}]
ASKS = {
    "chat": ("/api/v1/chat/completions", {"messages": HELLO}, "max_tokens"),
    "chat's newer name": ("/api/v1/chat/completions", {"messages": HELLO}, "max_completion_tokens"),
    "messages": ("/api/v1/messages", {"messages": HELLO}, "max_tokens"),
    "responses": ("/api/v1/responses", {"input": "Hi"}, "max_output_tokens"),
    "completions": ("/api/v1/completions", {"prompt": "Hi"}, "max_tokens"),
}


@pytest.fixture
def relay(start_relay, fake):
    native = upstream_config(fake.url, "native", speaks=["messages", "responses", "completions"])
    fake.always(Says("Sunny."))
    return start_relay(
        upstreams=[upstream_config(fake.url), native],
        models=[
            model_config("hub", output_max=OUTPUT_MAX),
            model_config("native", ["native", "fake"], output_max=OUTPUT_MAX),
            {k: v for k, v in model_config("unlimited").items() if k != "output_max"},
        ],
    )


def limit_sent(alice, fake, wire: str, model: str, asked: int) -> int:
    path, body, name = ASKS[wire]
    done = alice.post(path, {"model": model, name: asked} | body)
    assert done.status == 200, done.body
    sent = fake.requests[-1].json
    return next(sent[each] for each in sent if each.startswith("max_"))


@pytest.mark.parametrize("asked", [OUTPUT_MAX - 1, OUTPUT_MAX, OUTPUT_MAX + 1, 128_000])
@pytest.mark.parametrize("model", ["hub", "native"])
@pytest.mark.parametrize("wire", ASKS)
def test_no_more_output_is_asked_for_than_the_model_can_give(alice, fake, wire, model, asked):
    assert limit_sent(alice, fake, wire, model, asked) == min(asked, OUTPUT_MAX)


def test_where_no_limit_is_known_the_callers_own_goes_out(alice, fake):
    assert limit_sent(alice, fake, "chat", "unlimited", 128_000) == 128_000


def test_a_budget_for_thinking_stays_below_a_limit_that_was_brought_down(alice, fake):
    thinking = {"type": "enabled", "budget_tokens": 31_999}
    body = {"model": "native", "max_tokens": 32_000, "messages": HELLO, "thinking": thinking}
    assert alice.post("/api/v1/messages", body).status == 200
    sent = next(each.json for each in fake.requests if each.path.endswith("/messages"))
    assert sent["thinking"]["budget_tokens"] < sent["max_tokens"] == OUTPUT_MAX


def test_a_provider_without_schemas_reads_the_schema_in_words(start_relay, person, fake):
    relay = start_relay(upstreams=[upstream_config(fake.url, quirks=["json_object_only"])])
    alice = person("alice", relay).given(wallet="10")
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

    def strict(request):
        kind = request.json.get("response_format", {}).get("type", "text")
        if kind == "json_schema":
            return answer(
                {"error": {"message": "This response_format type is unavailable now"}}, status=400
            )
        return plain(content='{"city":"Paris"}')

    fake.always(strict)
    named = {"name": "place", "schema": schema}
    for path, body in (
        (
            "/api/v1/responses",
            {"input": "Hi", "text": {"format": {"type": "json_schema", **named}}},
        ),
        (
            "/api/v1/chat/completions",
            {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": named}},
        ),
    ):
        assert alice.post(path, {"model": "test-model"} | body).status == 200
        sent = fake.requests[-1].json
        assert sent["response_format"] == {"type": "json_object"}
        assert sent["messages"][0]["role"] == "system"
        assert json.dumps(schema) in sent["messages"][0]["content"]
