"""The built-in upstream: what it says, in which shapes, and how it is read.

openai's own types check the shapes.
"""

import base64
import json
import math
import struct
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from relay import estimate
from relay.upstream.connection import Connection
from relay.upstream.demo.provider import EVENTS_PER_S, Demo
from relay.upstream.demo.schema import fit
from relay.wires import sse

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "查询一个城市的天气 The weather of a city",
        "parameters": {
            "type": "object",
            "required": ["city", "unit", "days"],
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
                "note": {"type": "string"},
            },
        },
    },
}
SEARCH = {
    "type": "function",
    "function": {
        "name": "search_docs",
        "parameters": {
            "type": "object",
            "required": ["query"],
            "properties": {"query": {"type": "string"}},
        },
    },
}


def send(path, body, pace=0):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Demo(pace).post(Connection(allow_private=True), "demo://" + path, {}, data, 1, 1)


def content(answer):
    """The whole body of an answer."""
    return b"".join(iter(answer.read, b""))


def document(answer):
    return json.loads(content(answer))


def ask(text="Hello there", pace=0, model="qwen3-max", **members):
    return send(
        "/chat/completions",
        {"model": model, "messages": [{"role": "user", "content": text}], **members},
        pace,
    )


def answer(*args, **members):
    response = ask(*args, **members)
    assert response.status == 200
    return ChatCompletion.model_validate(document(response), strict=True, extra="allow")


def chunks(*args, **members):
    response = ask(*args, stream=True, **members)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = sse.Events().feed(content(response))
    assert end == b"data: [DONE]\n\n"
    assert all(event.startswith(b"data: {") and event.endswith(b"}\n\n") for event in events)
    return [
        ChatCompletionChunk.model_validate_json(sse.data(event), strict=True) for event in events
    ]


def joined(parts, index=0):
    """The message that a stream's deltas make, and its finish_reason."""
    message, finish = {"content": "", "reasoning_content": "", "tool_calls": {}}, None
    for choice in (choice for part in parts for choice in part.choices if choice.index == index):
        assert finish is None
        message["content"] += choice.delta.content or ""
        message["reasoning_content"] += getattr(choice.delta, "reasoning_content", None) or ""
        for call in choice.delta.tool_calls or ():
            name, arguments = message["tool_calls"].get(call.index, ("", ""))
            message["tool_calls"][call.index] = (
                call.function.name or name,
                arguments + call.function.arguments,
            )
        finish = choice.finish_reason
    return message, finish


def only_call(completion):
    [call] = completion.choices[0].message.tool_calls
    assert completion.choices[0].finish_reason == "tool_calls"
    return call.function.name, json.loads(call.function.arguments)


@pytest.mark.parametrize(
    "question, says",
    [("What is a relay?", "no model was called"), ("什么是中继？", "没有调用任何模型")],
)
def test_it_answers_in_the_language_of_the_question_and_says_that_it_is_a_demo(question, says):
    completion = answer(question)
    [choice] = completion.choices
    assert question in choice.message.content
    assert says in choice.message.content
    assert (choice.finish_reason, choice.logprobs, choice.index) == ("stop", None, 0)
    assert (completion.object, completion.model) == ("chat.completion", "qwen3-max")


def test_the_same_request_gets_the_same_answer():
    one, other = (answer("Hello", n=2, seed=7).model_dump(exclude={"created"}) for _ in range(2))
    assert one == other
    assert one["id"] != answer("Hello!", n=2, seed=7).id


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"model": "deepseek-r1"},
        {"tools": [WEATHER], "text": "What's the weather in Paris?"},
        {"max_tokens": 9},
        {"response_format": {"type": "json_object"}},
        {"stop": ","},
        {"n": 3},
    ],
)
def test_a_stream_says_the_same_as_a_plain_answer(members):
    plain, parts = answer(**members), chunks(**members)
    assert len({part.id for part in parts}) == 1
    assert {(part.object, part.model) for part in parts} == {("chat.completion.chunk", plain.model)}
    for choice in plain.choices:
        message, finish = joined(parts, choice.index)
        assert message["content"] == (choice.message.content or "")
        assert message["reasoning_content"] == (
            getattr(choice.message, "reasoning_content", None) or ""
        )
        assert list(message["tool_calls"].values()) == [
            (call.function.name, call.function.arguments)
            for call in choice.message.tool_calls or ()
        ]
        assert finish == choice.finish_reason


def test_a_stream_begins_with_the_role_and_ends_with_the_reason():
    first, *_, last = chunks()
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert last.choices[0].delta.model_dump(exclude_none=True) == {}
    assert last.choices[0].finish_reason == "stop"


def test_usage_is_the_estimate_and_streamed_only_if_asked_for():
    completion = answer("Hello there")
    assert completion.usage.prompt_tokens == estimate.chat(
        {"messages": [{"content": "Hello there"}]}
    )
    assert completion.usage.completion_tokens == estimate.text(
        completion.choices[0].message.content
    )
    assert (
        completion.usage.total_tokens
        == completion.usage.prompt_tokens + completion.usage.completion_tokens
    )
    assert completion.usage.prompt_tokens_details.cached_tokens == 0
    assert all(part.usage is None and part.choices for part in chunks("Hello there"))
    *parts, last = chunks("Hello there", stream_options={"include_usage": True})
    assert (last.choices, last.usage) == ([], completion.usage)
    assert all(part.usage is None for part in parts)


@pytest.mark.parametrize(
    "members",
    [
        {"model": "deepseek-r1"},
        {"thinking": {"type": "enabled"}},
        {"enable_thinking": True},
        {"reasoning_effort": "high"},
    ],
)
def test_it_reasons_where_the_model_does_or_the_request_wants_it(members):
    completion = answer(**members)
    message = completion.choices[0].message
    assert message.reasoning_content and message.content
    details = completion.usage.completion_tokens_details
    assert details.reasoning_tokens == estimate.text(message.reasoning_content)
    assert completion.usage.completion_tokens > details.reasoning_tokens


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"thinking": {"type": "disabled"}},
        {"enable_thinking": False},
        {"reasoning_effort": "none"},
    ],
)
def test_it_does_not_reason_otherwise(members):
    assert "reasoning_content" not in answer(**members).choices[0].message.model_fields_set


@pytest.mark.parametrize(
    "question, city",
    [
        ("What's the weather in New York for 3 days?", "New York"),
        ("杭州未来3天的天气怎么样？", "杭州"),
        ("请调用 get_weather 看看 3 天", "Beijing"),
        ("use the tool for Oslo, 3 days", "Oslo"),
    ],
)
def test_it_calls_a_tool_that_the_message_asks_for(question, city):
    assert only_call(
        answer(question, tools=[SEARCH, WEATHER] if "tool " not in question else [WEATHER])
    ) == ("get_weather", {"city": city, "unit": "celsius", "days": 3})


@pytest.mark.parametrize(
    "members",
    [
        {"text": "Good morning!", "tools": [WEATHER]},
        {"text": "What's the weather in Oslo?", "tools": [WEATHER], "tool_choice": "none"},
        {"text": "What's the weather in Oslo? Use a tool.", "tools": []},
        {"text": "What's the weather in Oslo? Use a tool."},
    ],
)
def test_it_calls_no_tool_that_nobody_asks_for(members):
    completion = answer(**members)
    assert completion.choices[0].message.tool_calls is None
    assert completion.choices[0].message.content


def test_a_tool_that_is_demanded_is_called():
    assert only_call(answer("Good morning!", tools=[SEARCH, WEATHER], tool_choice="required"))
    named = {"type": "function", "function": {"name": "search_docs"}}
    assert only_call(answer("Good morning!", tools=[WEATHER, SEARCH], tool_choice=named)) == (
        "search_docs",
        {"query": "Good morning!"},
    )


def test_all_tools_that_are_named_are_called_unless_one_at_a_time_is_wanted():
    members = {
        "text": 'Run get_weather and search_docs for "umbrellas"',
        "tools": [WEATHER, SEARCH],
    }
    calls = answer(**members).choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "search_docs"]
    assert len({call.id for call in calls}) == 2
    assert json.loads(calls[1].function.arguments) == {"query": "umbrellas"}
    assert only_call(answer(**members, parallel_tool_calls=False))[0] == "get_weather"


def test_what_the_message_says_becomes_no_command_and_no_path():
    parameters = {
        "type": "object",
        "required": ["command", "file_path"],
        "properties": {
            "command": {"type": "array", "items": {"type": "string"}},
            "file_path": {"type": "string"},
        },
    }
    bash = {"type": "function", "function": {"name": "Bash", "parameters": parameters}}
    assert only_call(answer('Tell me what "rm -rf ~" does, with a tool', tools=[bash])) == (
        "Bash",
        {"command": ["echo demo"], "file_path": "relay-demo.txt"},
    )


def test_a_word_that_holds_a_tools_name_does_not_name_it():
    tools = [
        {"type": "function", "function": {"name": name}} for name in ("LS", "Read", "Task", "rea")
    ]
    assert (
        answer("He has already read all tools", tools=tools)
        .choices[0]
        .message.tool_calls[0]
        .function.name
        == "Read"
    )
    assert (
        answer("It is an already TOTALLSUM of realms", tools=tools).choices[0].message.tool_calls
        is None
    )


def test_it_tells_what_a_tool_returned_and_calls_none_again():
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": "{}"},
    }
    messages = [
        {"role": "user", "content": "use the tool get_weather"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "7 °C, rain"},
    ]
    for more in ([], [{"role": "user", "content": "call get_weather, and be quick"}]):
        response = send(
            "/chat/completions", {"model": "m", "tools": [WEATHER], "messages": messages + more}
        )
        message = ChatCompletion.model_validate(document(response)).choices[0].message
        assert message.tool_calls is None
        assert "get_weather" in message.content and "7 °C, rain" in message.content


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("most", [1, 2, 7, 20])
@pytest.mark.parametrize("model", ["qwen3-max", "deepseek-r1"])
def test_it_writes_no_more_than_it_may(limit, most, model):
    completion = answer(model=model, **{limit: most})
    [choice] = completion.choices
    assert choice.finish_reason == "length"
    assert completion.usage.completion_tokens == most
    text = (getattr(choice.message, "reasoning_content", None) or "") + choice.message.content
    assert text
    assert estimate.text(text) <= most + 1


def test_arguments_may_be_cut_off_too():
    [choice] = answer("weather in Oslo", tools=[WEATHER], max_tokens=4).choices
    assert choice.finish_reason == "length"
    assert '{"city": "Oslo", "unit"'.startswith(choice.message.tool_calls[0].function.arguments)


def test_a_limit_that_is_not_reached_changes_nothing():
    assert answer(max_tokens=10_000).choices == answer().choices


@pytest.mark.parametrize("stop", ["demo", ["zebra", "demo"], ["demo", "speaking"]])
def test_it_ends_before_a_stop_sequence(stop):
    [choice] = answer(stop=stop).choices
    assert choice.message.content.endswith("This is the built-in ")
    assert choice.finish_reason == "stop"


def test_it_gives_as_many_choices_as_asked_for():
    completion = answer(n=3)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in completion.choices}) == 3
    assert completion.usage.completion_tokens == sum(
        estimate.text(choice.message.content) for choice in completion.choices
    )


def test_it_answers_in_json_if_asked_to():
    assert isinstance(
        json.loads(answer(response_format={"type": "json_object"}).choices[0].message.content), dict
    )
    schema = {
        "type": "object",
        "required": ["a"],
        "additionalProperties": False,
        "properties": {
            "a": {"type": "integer"},
            "b": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        },
        "$defs": {"tag": {"type": "string", "enum": ["red", "blue"]}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    assert json.loads(answer("Take 12", response_format=wanted).choices[0].message.content) == {
        "a": 12,
        "b": ["red"],
    }


@pytest.mark.parametrize(
    "schema, value",
    [
        (None, {}),
        ({}, {}),
        (True, None),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {}),
        ({"type": "object", "required": ["a"]}, {"a": "Send 42 eggs"}),
        ({"required": ["a"], "properties": {"a": {"type": ["null", "boolean"]}}}, {"a": True}),
        ({"const": 5}, 5),
        ({"type": "string", "default": "x"}, "x"),
        ({"enum": ["b", "a"]}, "b"),
        ({"type": "string", "examples": ["e"]}, "e"),
        ({"type": "null"}, None),
        ({"type": "integer"}, 42),
        ({"type": "integer", "maximum": 10}, 10),
        ({"type": "integer", "minimum": 50}, 50),
        ({"type": "integer", "exclusiveMaximum": 10}, 9),
        ({"type": "integer", "multipleOf": 5}, 45),
        ({"type": "integer", "multipleOf": 5, "maximum": 43}, 40),
        ({"type": "number", "maximum": 0.5}, 0.5),
        ({"type": "integer", "minimum": 1.5, "maximum": 2.5}, 2),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"type": "string", "maxLength": 4}, "Send"),
        ({"type": "string", "minLength": 14}, "Send 42 eggs.."),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "array"}, ["Send 42 eggs"]),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 42),
        (
            {
                "type": "object",
                "allOf": [
                    {"required": ["a"], "properties": {"a": {"const": 1}}},
                    {"required": ["b"], "properties": {"b": {"const": 2}}},
                ],
            },
            {"a": 1, "b": 2},
        ),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 3}}}, 3),
        ({"$ref": "#/nowhere"}, None),
    ],
)
def test_values_fit_their_schema(schema, value):
    assert fit(schema, "Send 42 eggs") == value


def test_a_schema_that_never_ends_gets_a_value_that_does():
    width = {f"p{number}": {"$ref": "#"} for number in range(40)}
    for whole in (True, False):
        value = fit(
            {"type": "object", "properties": width, "required": list(width)}, "x", whole=whole
        )
        assert len(json.dumps(value)) < 100_000
    assert fit({"$ref": "#"}) is None


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
)
keywords = st.sampled_from(
    [
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "anyOf",
        "allOf",
        "$ref",
        "minimum",
        "maximum",
        "multipleOf",
        "minItems",
        "maxLength",
        "format",
        "default",
        "description",
    ]
)
schemas = st.recursive(
    values | st.sampled_from(["object", "array", "integer", "number", "string", "date", "#"]),
    lambda inner: st.dictionaries(keywords, inner) | st.lists(inner, max_size=4),
)
members = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(
            st.dictionaries(
                st.sampled_from(["role", "content", "tool_calls", "tool_call_id"]), values
            )
        ),
        "tools": st.lists(
            values
            | st.fixed_dictionaries(
                {
                    "function": st.fixed_dictionaries(
                        {"name": st.just("tool")},
                        optional={"parameters": schemas, "description": values},
                    )
                }
            )
        ),
        "response_format": st.fixed_dictionaries(
            {"type": st.just("json_schema")},
            optional={"json_schema": st.fixed_dictionaries({"schema": schemas})},
        ),
        **dict.fromkeys(
            [
                "model",
                "stream",
                "stream_options",
                "n",
                "max_tokens",
                "stop",
                "tool_choice",
                "thinking",
                "reasoning_effort",
                "input",
                "dimensions",
                "encoding_format",
            ],
            values,
        ),
    },
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["/chat/completions", "/embeddings"]), members)
def test_no_request_breaks_it(path, body):
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "use the tool"}],
        "input": "x",
    } | body
    response = send(path, body)
    assert response.status in (200, 400)
    assert content(response)


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": ["hi"]}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"n": 0}, "n"),
        ({"n": 999}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": []}, "stream_options"),
        ({"temperature": 3}, "temperature"),
    ],
)
def test_a_wrong_chat_request_gets_an_error_that_names_the_place(body, param):
    rest = (
        {"model": "m"}
        if "messages" in body or not body
        else {"model": "m", "messages": [{"role": "user"}]}
    )
    assert_refused(send("/chat/completions", rest | body), 400, param)


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [1, "a"]}, "input"),
        ({"input": ["a"] * 5000}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": 1}, "model"),
    ],
)
def test_a_wrong_embeddings_request_gets_one_too(body, param):
    assert_refused(send("/embeddings", {"model": "m"} | body), 400, param)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(body):
    assert_refused(send("/chat/completions", body), 400, None)


def test_other_addresses_are_refused():
    assert_refused(send("/responses", {"model": "m"}), 404, None)


def assert_refused(response, status, param):
    assert response.status == status
    assert response.headers["content-type"] == "application/json"
    error = document(response)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["param"] == param


def embedded(given, **more):
    answered = document(send("/embeddings", {"model": "text-embedding-v4", "input": given, **more}))
    return CreateEmbeddingResponse.model_validate(answered)


def test_vectors_are_units_the_same_each_time_and_close_for_texts_that_look_alike():
    near, alike, far = (
        each.embedding for each in embedded(["the red fox", "the red foxes", "库存"]).data
    )
    assert near == embedded("the red fox").data[0].embedding
    assert all(math.isclose(math.hypot(*vector), 1) for vector in (near, alike, far))
    assert sum(map(float.__mul__, near, alike)) > 0.7
    assert sum(map(float.__mul__, near, far)) < 0.3


@pytest.mark.parametrize("dimensions", [1, 7, 256])
def test_vectors_have_the_dimensions_and_the_encoding_asked_for(dimensions):
    floats = embedded("fox", dimensions=dimensions).data[0].embedding
    packed = base64.b64decode(
        document(
            send(
                "/embeddings",
                {
                    "model": "m",
                    "input": "fox",
                    "dimensions": dimensions,
                    "encoding_format": "base64",
                },
            )
        )["data"][0]["embedding"]
    )
    assert struct.unpack(f"<{dimensions}f", packed) == pytest.approx(floats)


@pytest.mark.parametrize(
    "given, count, read",
    [("a fox", 1, 2), (["a fox", "a dog"], 2, 4), ([1, 2, 3], 1, 3), ([[1, 2, 3], [4]], 2, 4)],
)
def test_it_embeds_texts_and_tokens_and_counts_them(given, count, read):
    answered = embedded(given)
    assert [each.index for each in answered.data] == list(range(count))
    assert (answered.usage.prompt_tokens, answered.usage.total_tokens) == (read, read)


# ---- how it is read


def test_a_stream_is_read_event_by_event_and_a_document_at_once():
    told = ask(stream=True)
    first = told.read()
    assert sse.Events().feed(first) == [first] and not told.at_end(0)
    assert content(told).endswith(b"data: [DONE]\n\n")
    assert (told.read(), told.at_end(0)) == (b"", True)
    assert json.loads(ask().read())


def test_it_streams_at_a_natural_pace():
    told = ask(pace=0.5, stream=True)
    started = time.monotonic()
    for _ in range(10):
        assert told.read()
    assert time.monotonic() - started >= 10 * 0.5 / EVENTS_PER_S - 0.001


def test_a_document_does_not_wait():
    assert ask(pace=1e9).read()


def test_ending_it_from_another_thread_wakes_who_reads():
    told, read = ask(pace=1e9, stream=True), []
    reader = threading.Thread(target=lambda: read.append(told.read()))
    reader.start()
    told.close()
    reader.join(60)
    assert not reader.is_alive()
    assert read == [b""] and told.read() == b"" and told.at_end(0)
