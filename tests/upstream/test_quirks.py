"""Quirks are small and do one thing; where there is nothing to change they change nothing."""

import json

import pytest

from relay.upstream import quirks
from tests.providers import plain
from tests.stage import upstream_config

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "name, body, changes",
    [
        (
            "developer_as_system",
            {"messages": [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]},
            {"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]},
        ),
        ("developer_as_system", {"messages": [{"role": "user", "content": "b"}]}, {}),
        (
            "reasoning_content_required",
            {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
            {"messages": [{"role": "assistant", "tool_calls": [CALL], "reasoning_content": " "}]},
        ),
        (
            "reasoning_content_required",
            {"messages": [{"role": "assistant", "tool_calls": [CALL], "reasoning_content": "so"}]},
            {},
        ),
        ("reasoning_content_required", {"messages": [{"role": "assistant", "content": "hi"}]}, {}),
        ("tool_choice_auto", {"tool_choice": "required"}, {"tool_choice": "auto"}),
        (
            "tool_choice_auto",
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": "auto"},
        ),
        ("tool_choice_auto", {"tool_choice": "none"}, {}),
        ("tool_choice_auto", {}, {}),
        (
            "temperature_one",
            {"temperature": 0.2, "top_p": 0.5},
            {"temperature": None, "top_p": None},
        ),
        ("temperature_one", {}, {}),
        ("temperature_above_zero", {"temperature": 0}, {"temperature": 0.01}),
        ("temperature_above_zero", {"temperature": 0.0}, {"temperature": 0.01}),
        ("temperature_above_zero", {"temperature": 0.5}, {}),
        ("temperature_above_zero", {"temperature": "0"}, {}),
        ("top_p_below_one", {"top_p": 1}, {"top_p": 0.99}),
        ("top_p_below_one", {"top_p": 0.5}, {}),
        ("top_p_below_one", {"top_p": "1"}, {}),
        (
            "text_content_only",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                    }
                ]
            },
            {"messages": [{"role": "user", "content": "a\nb"}]},
        ),
        (
            "text_content_only",
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
            {"messages": [{"role": "assistant", "content": "", "tool_calls": [CALL]}]},
        ),
        (
            "text_content_only",
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            {},
        ),
        ("plain_without_thinking", {"stream": False}, {"enable_thinking": False}),
        ("plain_without_thinking", {"stream": True}, {}),
        ("plain_without_thinking", {"enable_thinking": True}, {}),
        (
            "enable_thinking",
            {"thinking": {"type": "disabled"}},
            {"thinking": None, "enable_thinking": False},
        ),
        ("enable_thinking", {"thinking": {"type": "enabled"}}, {"thinking": None}),
        (
            "enable_thinking",
            {"thinking": {"type": "disabled"}, "enable_thinking": True},
            {"thinking": None},
        ),
        ("enable_thinking", {"enable_thinking": True}, {}),
        ("effort_up_to_high", {"reasoning_effort": "xhigh"}, {"reasoning_effort": "high"}),
        ("effort_up_to_high", {"reasoning_effort": "max"}, {"reasoning_effort": "high"}),
        ("effort_up_to_high", {"reasoning_effort": "low"}, {}),
        ("effort_high_or_max", {"reasoning_effort": "minimal"}, {"reasoning_effort": "high"}),
        ("effort_high_or_max", {"reasoning_effort": "xhigh"}, {"reasoning_effort": "max"}),
        ("effort_high_or_max", {"reasoning_effort": "max"}, {}),
        (
            "effort_high_or_max",
            {"reasoning_effort": "none"},
            {"reasoning_effort": None, "thinking": {"type": "disabled"}},
        ),
        ("effort_high_or_max", {}, {}),
        (
            "no_stream_options",
            {"stream_options": {"include_usage": True}},
            {"stream_options": None},
        ),
        ("no_stream_options", {}, {}),
        ("spark_chunks", {"tools": [{}]}, {"tool_calls_switch": True}),
        ("spark_chunks", {}, {}),
    ],
)
def test_a_quirk_changes_what_it_says(name, body, changes):
    assert quirks.apply((name,), body) == changes


def test_a_quirk_of_messages_changes_no_chat_request_and_the_other_way_round():
    body = {
        "tools": [
            {"type": "custom", "name": "a", "input_schema": {}},
            {"type": "bash_20250124"},
            None,
        ],
        "temperature": 0,
    }
    both = ("untyped_tools", "spark_chunks")
    assert quirks.apply(both, body, "messages") == {
        "tools": [{"name": "a", "input_schema": {}}, {"type": "bash_20250124"}, None]
    }
    assert quirks.apply(both, body) == {"tool_calls_switch": True}
    assert quirks.apply(both, {"tools": [{"name": "a"}]}, "messages") == {}


@pytest.mark.parametrize(
    "name, body, changes",
    [
        (
            "max_tokens_only",
            {"max_completion_tokens": 9},
            {"max_completion_tokens": None, "max_tokens": 9},
        ),
        (
            "max_tokens_only",
            {"max_completion_tokens": 9, "max_tokens": 5},
            {"max_completion_tokens": None, "max_tokens": 5},
        ),
        ("max_tokens_only", {"max_tokens": 5}, {}),
        (
            "max_completion_tokens_only",
            {"max_tokens": 9},
            {"max_tokens": None, "max_completion_tokens": 9},
        ),
        ("max_completion_tokens_only", {"max_completion_tokens": 5}, {}),
        (
            "max_completion_tokens_only",
            {"max_tokens": 9, "max_completion_tokens": 5},
            {"max_tokens": None, "max_completion_tokens": 5},
        ),
        (
            "prefill_partial",
            {"messages": [{"role": "user"}, {"role": "assistant", "content": "{"}]},
            {
                "messages": [
                    {"role": "user"},
                    {"role": "assistant", "content": "{", "partial": True},
                ]
            },
        ),
        ("prefill_partial", {"messages": [{"role": "assistant", "tool_calls": [1]}]}, {}),
        ("prefill_partial", {"messages": [{"role": "user", "content": "x"}]}, {}),
        ("json_object_only", {"response_format": {"type": "json_object"}}, {}),
    ],
)
def test_a_field_that_a_provider_knows_by_another_name_or_not_at_all(name, body, changes):
    assert quirks.apply((name,), body) == changes


CALLED = "Answer by calling"
LAST = {
    "chat": (
        {"messages": [{"role": "user", "content": "Hi"}], "tool_choice": "required"},
        "one of the tools",
    ),
    "chat, a tool by its name": (
        {
            "messages": [{"role": "tool", "content": "5"}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
        "the tool `f`",
    ),
    "messages": (
        {"messages": [{"role": "user", "content": "Hi"}], "tool_choice": {"type": "any"}},
        "one of the tools",
    ),
    "messages, a tool by its name": (
        {
            "messages": [{"role": "user", "content": [{"type": "tool_result"}]}],
            "tool_choice": {"type": "tool", "name": "f"},
        },
        "the tool `f`",
    ),
    "responses": ({"input": "Hi", "tool_choice": "required"}, "one of the tools"),
    "responses, a tool by its name": (
        {
            "input": [{"type": "function_call_output"}],
            "tool_choice": {"type": "function", "name": "f"},
        },
        "the tool `f`",
    ),
}


@pytest.mark.parametrize("name", LAST)
def test_a_tool_that_cannot_be_demanded_is_asked_for_behind_all_that_was_said(name):
    body, which = LAST[name]
    wire, _, _ = name.partition(",")
    held = "input" if wire == "responses" else "messages"
    changed = quirks.apply(("tool_choice_auto",), body, wire)
    said = json.dumps(changed[held][-1])
    assert f"{CALLED} {which}" in said
    assert len(json.dumps(changed[held])) > len(json.dumps(body[held]))
    if wire == "messages":
        (turn,) = changed["messages"]
        assert turn["role"] == "user" and CALLED in turn["content"][-1]["text"]


@pytest.mark.parametrize("off", [{"thinking": {"type": "disabled"}}, {"enable_thinking": False}])
def test_a_tool_can_be_demanded_of_a_model_that_does_not_think(off):
    names = ("thinking_tool_choice_auto",)
    assert quirks.apply(names, {"tool_choice": "required"}) == {"tool_choice": "auto"}
    assert quirks.apply(names, {"tool_choice": "required"} | off) == {}
    assert quirks.apply(("tool_choice_auto",), {"tool_choice": "required"} | off) != {}


def test_several_quirks_build_on_each_other():
    body = {
        "messages": [{"role": "developer", "content": [{"type": "text", "text": "a"}]}],
        "top_p": 1,
    }
    assert quirks.apply(("developer_as_system", "text_content_only", "top_p_below_one"), body) == {
        "messages": [{"role": "system", "content": "a"}],
        "top_p": 0.99,
    }


@pytest.mark.parametrize("name", quirks.FILTERS)
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": [None, 1, {}]},
        {"messages": "x"},
        {"messages": [{"role": None, "content": [None, {"type": "text"}]}]},
        {"top_p": None, "temperature": None, "tool_choice": None, "tools": None},
    ],
)
def test_no_quirk_stumbles_over_odd_requests(name, body):
    for wire in ("chat", "messages", "responses", "embeddings"):
        quirks.apply((name,), body, wire)


ON_NATIVE_WIRES = [
    ("temperature_one", "messages", {"temperature": 0.2}, {"temperature": None}),
    ("temperature_above_zero", "responses", {"temperature": 0}, {"temperature": 0.01}),
    ("top_p_below_one", "messages", {"top_p": 1}, {"top_p": 0.99}),
    (
        "tool_choice_auto",
        "messages",
        {"tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "auto"}},
    ),
    (
        "tool_choice_auto",
        "messages",
        {"tool_choice": {"type": "tool", "name": "f"}},
        {"tool_choice": {"type": "auto"}},
    ),
    ("tool_choice_auto", "messages", {"tool_choice": {"type": "none"}}, {}),
    ("tool_choice_auto", "responses", {"tool_choice": "required"}, {"tool_choice": "auto"}),
    (
        "effort_up_to_high",
        "responses",
        {"reasoning": {"effort": "xhigh", "summary": "auto"}},
        {"reasoning": {"effort": "high", "summary": "auto"}},
    ),
    (
        "effort_up_to_high",
        "messages",
        {"output_config": {"effort": "max"}},
        {"output_config": {"effort": "high"}},
    ),
    ("effort_up_to_high", "messages", {"output_config": {"effort": "low"}}, {}),
    (
        "effort_high_or_max",
        "responses",
        {"reasoning": {"effort": "medium"}},
        {"reasoning": {"effort": "high"}},
    ),
    ("effort_high_or_max", "responses", {"reasoning": {"effort": "none"}}, {}),
    (
        "effort_high_or_max",
        "messages",
        {"output_config": {"effort": "xhigh"}},
        {"output_config": {"effort": "max"}},
    ),
    (
        "developer_as_system",
        "responses",
        {"input": [{"role": "developer", "content": "x"}, None]},
        {"input": [{"role": "system", "content": "x"}, None]},
    ),
    ("developer_as_system", "responses", {"input": "Hi"}, {}),
    (
        "known_fields_only",
        "responses",
        {"metadata": {}, "store": False, "user": None},
        {"metadata": None, "user": None},
    ),
    ("known_fields_only", "chat", {"metadata": {}}, {}),
    (
        "reasoning_content_required",
        "messages",
        {"messages": [{"role": "assistant", "tool_calls": [1]}]},
        {},
    ),
]


@pytest.mark.parametrize("name, wire, body, changes", ON_NATIVE_WIRES)
def test_what_a_model_refuses_it_refuses_on_every_wire(name, wire, body, changes):
    assert quirks.apply((name,), body, wire) == changes


@pytest.mark.parametrize(
    "url, beta",
    [
        (
            "https://api.deepseek.com/chat/completions",
            "https://api.deepseek.com/beta/chat/completions",
        ),
        (
            "https://api.deepseek.com/v1/chat/completions",
            "https://api.deepseek.com/beta/chat/completions",
        ),
        (
            "https://api.deepseek.com/beta/chat/completions",
            "https://api.deepseek.com/beta/chat/completions",
        ),
    ],
)
def test_a_turn_to_be_continued_goes_below_beta_and_nothing_else_does(url, beta):
    begun = b'{"messages":[{"role":"assistant","content":"{","prefix":true}]}'
    said = b'{"messages":[{"role":"user","content":"\\"prefix\\":true"}]}'
    names = ("prefill_prefix",)
    assert quirks.address(names, url, begun) == beta
    assert quirks.address(names, url, begun.replace(b":t", b": t")) == beta
    assert quirks.address(names, url, said) == url
    assert quirks.address((), url, begun) == url


def test_deepseek_is_asked_to_continue_what_was_begun(start_relay, person, fake):
    relay = start_relay(upstreams=[upstream_config(fake.url, quirks=["prefill_prefix"])])
    alice = person("alice", relay).given(wallet="10")
    fake.always(plain())
    for path in ("/v1/chat/completions", "/v1/messages"):
        turns = [{"role": "user", "content": "JSON?"}, {"role": "assistant", "content": "{"}]
        body = {"model": "test-model", "max_tokens": 9, "messages": turns}
        assert alice.post(path, body).status == 200
        asked = fake.requests[-1]
        assert asked.json["messages"][-1]["prefix"] is True
        assert asked.path.endswith("/beta/chat/completions")
    assert alice.chat().status == 200
    assert "/beta" not in fake.requests[-1].path
