"""What Cursor posts to /chat/completions: recognised, turned into proper chat, answered as chat."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from relay import body, errors
from relay.wires import chat, cursor, reader
from relay.wires.interface import Context
from tests.wires.test_responses_laws import odd, odd_chunks, values

PATCH = "*** Begin Patch\n*** End Patch\n"
SHELL = {
    "type": "function",
    "function": {"name": "Shell", "parameters": {"type": "object", "properties": {}}},
}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "x"}
APPLY_PATCH = {"type": "custom", "name": "ApplyPatch", "format": GRAMMAR}
AGENT = {
    "model": "m",
    "input": [{"role": "user", "content": "patch"}],
    "tools": [APPLY_PATCH],
    "stream": True,
}
ASK = {
    "model": "m",
    "messages": [{"role": "user", "content": "patch"}],
    "tools": [SHELL, APPLY_PATCH],
}


def call(name: str, arguments: str, index: int = 0) -> dict:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": f"call_{index}", "type": "function", "function": function}


def chunk(delta: dict, finish: str | None = None) -> dict:
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def events(chunks, asked=AGENT) -> list:
    frames = list(cursor.stream_from_chat(reader.read(chunks), asked, Context("req_1")))
    return [
        frame
        if frame == chat.DONE or frame.startswith(b":")
        else json.loads(frame.removeprefix(b"data: "))
        for frame in frames
    ]


def told(events: list) -> dict[str, str]:
    """The calls of a stream as its reader adds them up: name -> arguments."""
    names, arguments = {}, {}
    for event in events:
        for each in (
            event["choices"][0]["delta"].get("tool_calls", ()) if isinstance(event, dict) else ()
        ):
            index, function = each["index"], each["function"]
            names[index] = names.get(index, "") + function.get("name", "")
            arguments[index] = arguments.get(index, "") + function.get("arguments", "")
    return {names[index]: arguments[index] for index in names}


def test_both_of_its_modes_are_recognised_and_proper_chat_is_not():
    assert cursor.recognises(AGENT) and cursor.recognises(ASK)
    assert cursor.recognises(
        {"messages": [{}], "tools": [{"type": "function", "name": "f", "parameters": {}}]}
    )
    assert not cursor.recognises(ASK | {"tools": [SHELL]})
    assert not cursor.recognises(
        {"messages": [{}], "tools": [{"type": "custom", "custom": {"name": "p"}}]}
    )
    assert not cursor.recognises({"messages": [{}], "tools": 5})


@pytest.mark.parametrize("asked", [AGENT, ASK])
def test_upstreams_see_nested_functions_only(asked):
    ask = cursor.read(body.parse(json.dumps(asked).encode()))
    assert chat.read(body.parse(json.dumps(ask.chat).encode())).model == "m"
    assert {tool["type"] for tool in ask.chat["tools"]} == {"function"}
    assert ask.chat["tools"][-1]["function"]["name"] == "ApplyPatch"
    assert ask.chat["tools"][-1]["function"]["parameters"]["required"] == ["input"]
    assert ask.chat["messages"] == [{"role": "user", "content": "patch"}]
    assert ask.stream is bool(asked.get("stream")) and ask.usage_asked is False


def test_raw_calls_in_its_history_become_json_again():
    history = [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "ApplyPatch", "arguments": PATCH},
                },
                {"id": "c2", "type": "custom", "custom": {"name": "ApplyPatch", "input": PATCH}},
                {
                    "id": "c3",
                    "type": "function",
                    "function": {"name": "Shell", "arguments": '{"cmd": "ls"}'},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "ok"},
    ]
    calls = cursor.to_chat(ASK | {"messages": history})["messages"][1]["tool_calls"]
    assert [json.loads(each["function"]["arguments"]) for each in calls] == [
        {"input": PATCH},
        {"input": PATCH},
        {"cmd": "ls"},
    ]
    assert {each["type"] for each in calls} == {"function"}


@pytest.mark.parametrize(
    "calls", [[5], [{}], [{"id": "c"}], [{"id": 5, "function": {"name": "f"}}]]
)
def test_a_broken_call_in_its_history_is_refused_by_place(calls):
    with pytest.raises(errors.BadRequest) as caught:
        cursor.to_chat(ASK | {"messages": [{"role": "assistant", "tool_calls": calls}]})
    assert caught.value.param == "messages.0.tool_calls.0"


@pytest.mark.parametrize("asked", [AGENT, ASK])
def test_an_answer_is_chat_with_the_raw_patch_as_arguments(asked):
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            call("ApplyPatch", json.dumps({"input": PATCH})),
            call("Shell", '{"cmd":"ls"}', 1),
        ],
    }
    doc = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [
            {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
        ],
    }
    answer = cursor.from_chat(doc, asked, Context("req_1"))
    TypeAdapter(ChatCompletion).validate_python(answer)
    assert [each["function"] for each in answer["choices"][0]["message"]["tool_calls"]] == [
        {"name": "ApplyPatch", "arguments": PATCH},
        {"name": "Shell", "arguments": '{"cmd":"ls"}'},
    ]
    assert (
        doc["choices"][0]["message"] is message
        and message["tool_calls"][0]["function"]["arguments"] != PATCH
    )


def test_a_stream_is_chat_with_the_raw_patch_before_the_finish():
    first, rest = (
        call("ApplyPatch", '{"input": "*** Begin'),
        {"index": 0, "function": {"arguments": json.dumps(PATCH).removeprefix('"*** Begin') + "}"}},
    )
    got = events(
        [
            chunk({"content": "Now."}),
            None,
            chunk({"tool_calls": [first]}),
            chunk({"tool_calls": [rest]}),
            chunk({"tool_calls": [call("Shell", '{"cmd":', 1)]}),
            chunk({"tool_calls": [{"index": 1, "function": {"arguments": '"ls"}'}}]}),
            chunk({}, "tool_calls"),
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
        ]
    )
    assert told(got) == {"ApplyPatch": PATCH, "Shell": '{"cmd":"ls"}'}
    assert got[1].startswith(b":") and got[-1] == chat.DONE
    assert got[-2]["choices"][0]["finish_reason"] == "tool_calls", (
        "usage that nobody asked for is left out"
    )
    for event in got:
        if isinstance(event, dict):
            TypeAdapter(ChatCompletionChunk).validate_python(event)


def test_a_call_in_one_piece_with_its_finish_is_whole():
    got = events(
        [chunk({"tool_calls": [call("ApplyPatch", json.dumps({"input": PATCH}))]}, "tool_calls")]
    )
    assert told(got) == {"ApplyPatch": PATCH}


def test_usage_comes_to_who_asked_for_it():
    got = events(
        [chunk({"content": "x"}, "stop"), {"choices": [], "usage": {"prompt_tokens": 1}}],
        AGENT | {"stream_options": {"include_usage": True}},
    )
    assert got[-2]["usage"] == {"prompt_tokens": 1}


@pytest.mark.parametrize("end", [[], [errors.UpstreamTimeout()]])
def test_a_stream_that_is_cut_ends_in_an_error_without_done(end):
    *_, last = events([chunk({"content": "x"}), *end])
    assert last["error"]["type"] == "api_error"


@settings(max_examples=200, deadline=None)
@given(values, values)
def test_no_request_breaks_it(messages, given_tools):
    for members in ({"messages": messages}, {"input": messages}):
        asked = body.parse(json.dumps({"model": "m", "tools": given_tools, **members}).encode())
        if cursor.recognises(asked):
            try:
                cursor.read(asked)
            except errors.BadRequest as err:
                assert err.message


@settings(max_examples=200, deadline=None)
@given(odd_chunks, odd)
def test_no_answer_breaks_it(chunks, message):
    asked = AGENT | {"tools": [{"type": "custom", "name": "p"}]}
    assert events(chunks, asked)
    cursor.from_chat({"choices": [{"message": message}, message]}, asked, Context("req_1"))
