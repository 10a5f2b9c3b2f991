"""The wire `responses`: requests into chat, chat answers back, plain and as a stream."""

from __future__ import annotations

import json

import pytest
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from relay import body, errors
from relay.wires import chat, reader, responses
from relay.wires.interface import KEEP_ALIVE, Context
from tests.wires.responses_stage import (
    ERRORS,
    KEY,
    assert_golden,
    final,
    golden,
    load,
    read_stream,
    short,
    unsealed,
    valid_response,
)

REQUEST, ID, CREATED = "req_0a1b", "resp_0a1b", 1700000000


def ask(**members) -> dict:
    return {"model": "m", "input": "x", **members}


def refused(**members) -> errors.BadRequest:
    with pytest.raises(errors.BadRequest) as caught:
        responses.to_chat(
            {name: value for name, value in ask(**members).items() if value is not ...}
        )
    return caught.value


def stream(chunks, asked=None, key=KEY) -> list[bytes]:
    return list(
        responses.stream_from_chat(
            reader.read(chunks),
            asked or ask(stream=True),
            Context(REQUEST, CREATED, key, input_tokens=20),
        )
    )


def chunk(delta: dict | None = None, finish: str | None = None) -> dict:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish}]}


# Requests


@pytest.mark.parametrize("name", golden("requests"))
def test_a_request_becomes_this_chat_request(name):
    case = load("requests", name)
    assert_golden("requests", name, case, "chat", responses.to_chat(case["body"], KEY))


@pytest.mark.parametrize("name", golden("requests"))
def test_a_request_is_read_without_a_change_to_its_bytes(name):
    data = json.dumps(load("requests", name)["body"]).encode()
    parsed = body.parse(data)
    told = responses.read(parsed, Context(key=KEY))
    assert parsed.bytes({}) == data
    assert told.model == "m" and told.stream is bool(parsed.get("stream")) and told.input_tokens > 0
    assert chat.read(body.parse(json.dumps(told.chat).encode())).model == "m"


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ],
)
def test_it_refuses_what_would_need_a_memory(members, param):
    err = refused(**members)
    assert (err.status, err.param, err.code) == (400, param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": 5}, "model"),
        ({"input": ...}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": 5}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
        ({"input": [{"role": "user", "content": [{"type": "smell"}]}]}, "input[0].content[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input[0].content[0].image_url",
        ),
        (
            {
                "input": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_file", "file_data": "data:application/pdf;base64,AA"}
                        ],
                    }
                ]
            },
            "input[0].content[0].file_data",
        ),
        ({"instructions": ["x"]}, "instructions"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": "hot"}, "temperature"),
        ({"reasoning": "high"}, "reasoning"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"tools": {}}, "tools"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters"),
        (
            {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "custom"}]}]},
            "tools[0].tools[0].name",
        ),
        (
            {
                "tools": [
                    {"type": "function", "name": "n__f"},
                    {
                        "type": "namespace",
                        "name": "n",
                        "tools": [{"type": "function", "name": "f"}],
                    },
                ]
            },
            "tools[1].tools[0].name",
        ),
        ({"tool_choice": "maybe"}, "tool_choice"),
        (
            {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}},
            "tool_choice",
        ),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools", "tools": 5}}, "tool_choice.tools"),
    ],
)
def test_it_names_the_place_of_a_mistake(members, param):
    err = refused(**members)
    assert err.param == param
    assert err.message.endswith(".") and responses.error(err, "req_1")["error"]["param"] == param


def test_reasoning_comes_back_only_with_our_own_seal():
    asked = ask(stream=True, include=["reasoning.encrypted_content"])
    chunks = [chunk({"reasoning_content": "the truth"}), chunk({"content": "x"}, "stop")]
    done = final(read_stream(stream(chunks, asked)))
    item, message = done["output"]

    def remembered(key=KEY, **changes) -> str:
        history = [
            {"role": "user", "content": "a"},
            item | changes,
            message,
            {"role": "user", "content": "b"},
        ]
        return responses.to_chat(ask(input=history), key)["messages"][1].get("reasoning_content")

    seal = item["encrypted_content"]
    bare = {"summary": []}
    assert remembered(**bare) == "the truth"
    assert remembered(key=b"another key", **bare) is None
    assert remembered(key=b"", **bare) is None
    for forged in (
        seal[:-4] + "AAAA",
        seal.swapcase(),
        "rs1.AAAA",
        "rs1.é",
        seal[:-1],
        5,
        "",
        None,
    ):
        assert remembered(**bare, encrypted_content=forged) is None
        assert remembered(encrypted_content=forged) == "the truth", (
            "the summary stands in for a broken seal"
        )


def compacting(**members) -> dict:
    """A conversation that its caller, as Codex does, wants to have summed up."""
    history = [
        {"role": "user", "content": "Fix it."},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "done"},
        {"type": "compaction_trigger"},
    ]
    return ask(
        input=history,
        tools=[{"type": "function", "name": "f"}],
        tool_choice="required",
        text={"format": {"type": "json_object"}},
        **members,
    )


def test_a_conversation_that_is_too_long_is_summed_up_without_tools():
    asked = responses.to_chat(compacting())
    assert [message["role"] for message in asked["messages"]] == [
        "user",
        "assistant",
        "tool",
        "user",
    ]
    assert "summary" in asked["messages"][-1]["content"]
    assert not {"tools", "tool_choice", "response_format"} & set(asked)


def test_a_summary_is_one_sealed_item_that_stands_for_the_conversation_later():
    chunks = [
        chunk({"reasoning_content": "Hm."}),
        chunk({"content": "All is "}),
        chunk({"reasoning": "Hm."}),
        chunk({"content": "done."}),
        chunk({"content": ""}, "stop"),
    ]
    end = final(read_stream(stream(chunks, compacting(stream=True))))
    message = {"role": "assistant", "reasoning_content": "Hm.", "content": "All is done."}
    plain = responses.from_chat(
        {"choices": [{"message": message, "finish_reason": "stop"}]},
        compacting(),
        Context(REQUEST, CREATED, KEY),
    )
    assert unsealed(end["output"]) == unsealed(plain["output"])
    (item,) = end["output"]
    assert item["type"] == "compaction" and unsealed(item)["encrypted_content"] == "All is done."

    def remembered(key) -> str:
        history = [
            {"role": "user", "content": "Fix it."},
            item,
            {"role": "user", "content": "And now?"},
        ]
        fix, before, now = responses.to_chat(ask(input=history), key)["messages"]
        assert (fix["content"], now["content"]) == ("Fix it.", "And now?")
        return before["content"]

    assert remembered(KEY).endswith("\n\nAll is done.")
    assert "lost" in remembered(b"another key"), "nobody may think that there was nothing"


def test_a_summary_that_was_cut_is_no_success():
    end = final(
        read_stream(stream([chunk({"content": "All is"}, "length")], compacting(stream=True)))
    )
    assert end["status"] == "incomplete"
    assert (
        final(read_stream(stream([chunk({"content": "All is"})], compacting(stream=True))))[
            "status"
        ]
        == "failed"
    )


def test_without_a_key_nothing_is_sealed():
    asked = ask(stream=True, include=["reasoning.encrypted_content"])
    done = final(read_stream(stream([chunk({"reasoning_content": "x"}, "stop")], asked, key=b"")))
    assert done["output"][0]["encrypted_content"] is None


def test_cursors_bodies_are_recognised():
    assert responses.looks_like_responses({"model": "m", "input": []})
    assert responses.looks_like_responses({"model": "m", "input": "x", "messages": []})
    assert not responses.looks_like_responses({"model": "m", "messages": [{}], "input": "x"})
    assert not responses.looks_like_responses({"model": "m"})


# Answers


@pytest.mark.parametrize("name", golden("answers"))
def test_a_chat_answer_becomes_this_response(name):
    case = load("answers", name)
    responses.to_chat(case["ask"])
    told = responses.from_chat(
        case["doc"], case["ask"], Context(REQUEST, CREATED, KEY, input_tokens=20)
    )
    assert_golden("answers", name, case, "response", unsealed(told))
    valid_response(told)


@pytest.mark.parametrize(
    "doc",
    [
        {},
        {"choices": []},
        {"choices": [5]},
        {"error": {"message": "secret"}},
        {"choices": None, "usage": {"prompt_tokens": "x"}},
    ],
)
def test_an_answer_that_is_none_has_failed(doc):
    with pytest.raises(errors.UpstreamError) as failed:
        responses.from_chat(doc, ask(), Context(REQUEST))
    assert "secret" not in failed.value.message


# Streams


def chunks_of(case: dict) -> list:
    return [
        ERRORS[each["error"]] if each and each.get("error") in ("UpstreamError", *ERRORS) else each
        for each in case["chunks"]
    ]


@pytest.mark.parametrize("name", golden("streams"))
def test_a_chat_stream_becomes_these_events(name):
    case = load("streams", name)
    events = read_stream(stream(chunks_of(case), case["ask"]))
    final(events)
    assert_golden("streams", name, case, "events", short(events))


@pytest.mark.parametrize("name", golden("streams"))
def test_the_sdk_puts_the_stream_together_again(name):
    case = load("streams", name)
    events = read_stream(stream(chunks_of(case), case["ask"]))
    state = ResponseStreamState(input_tools=[], text_format=omit)
    for event in events:
        state.handle_event(TypeAdapter(ResponseStreamEvent).validate_python(event))


def test_silence_is_a_comment_and_so_is_what_has_to_wait():
    frames = stream(
        [None, chunk({"role": "assistant"}), chunk({"content": "x"}), None, chunk({}, "stop")]
    )
    assert frames.count(KEEP_ALIVE) == 2
    nameless = {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}
    named = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "}"}}]}
    assert stream([chunk(nameless), chunk(named), chunk({}, "stop")]).count(KEEP_ALIVE) == 1


def test_it_reads_nothing_after_the_upstream_died():
    def chunks():
        yield errors.UpstreamTimeout()
        raise AssertionError("read on")

    assert final(read_stream(stream(chunks())))["error"] == {
        "code": "server_error",
        "message": errors.UpstreamTimeout.sentence,
    }


def test_a_call_whose_id_is_taken_gets_another():
    """Some servers count each answer's calls from 0.

    Agents take an id that they know for the call that they ran.
    """
    asked = ask(
        stream=True,
        tools=[{"type": "function", "name": "f"}],
        input=[
            {"role": "user", "content": "Hi"},
            {"type": "function_call", "call_id": "call_0", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_0", "output": "1"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "user", "content": "Again"},
        ],
    )
    calls = [
        {"index": at, "id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
        for at, id in enumerate(("call_0", "call_1", "call_2", "call_2"))
    ]
    made = [f"call_{ID.removeprefix('resp_')}_{at}" for at in (0, 1)] + [
        "call_2",
        f"call_{ID.removeprefix('resp_')}_3",
    ]
    whole = responses.from_chat(
        {"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]},
        asked,
        Context(REQUEST, CREATED),
    )
    assert [item["call_id"] for item in whole["output"]] == made
    pieces = [
        call | {"function": {"name": "f", "arguments": part}}
        for call in calls
        for part in ("{", "}")
    ]
    told = stream(
        [*(chunk({"tool_calls": [piece]}) for piece in pieces), chunk({}, "tool_calls")], asked
    )
    assert [item["call_id"] for item in final(read_stream(told))["output"]] == made


def test_the_codes_of_failures_are_those_that_codex_knows():
    from relay.wires.responses.answer import code

    assert code(errors.ContextTooLong()) == "context_length_exceeded"
    assert code(errors.UpstreamRefused(400, "x")) == "invalid_prompt"
    assert code(errors.UpstreamOverloaded()) == code(errors.RateLimited()) == "rate_limit_exceeded"
    assert code(errors.UpstreamTimeout()) == code(errors.RelayError()) == "server_error"


# Upstreams that speak Responses themselves


def native_stream() -> list[dict]:
    case = load("streams", "one_call")
    return read_stream(stream(case["chunks"], case["ask"]))


def test_usage_is_read_from_a_response_and_from_the_event_at_its_end():
    usage = {"input_tokens": 20, "input_tokens_details": {"cached_tokens": 8}, "output_tokens": 10}
    for doc in (
        {"usage": usage},
        *(
            {"type": f"response.{end}", "response": {"usage": usage}}
            for end in ("completed", "incomplete", "failed")
        ),
    ):
        used = responses.usage(doc)
        assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (20, 8, 10)
    assert responses.usage({"response": {"usage": None}}) is None
    assert responses.usage({}) is None
    odd = responses.usage(
        {"usage": {"input_tokens": -5, "output_tokens": "9", "input_tokens_details": []}}
    )
    assert (odd.input_tokens, odd.cached_tokens, odd.output_tokens) == (-1, 0, -1)


def test_the_spine_sees_content_usage_end_and_errors_in_native_events():
    signs = [responses.signs(json.dumps(event).encode()) for event in native_stream()]
    assert [each.content for each in signs[:4]] == [False, False, False, True]
    assert signs[-1].done and signs[-1].finish == "stop" and signs[-1].usage.output_tokens == 10
    assert not any(each.done or each.error for each in signs[:-1])
    failed = responses.signs(
        b'{"type":"response.failed","response":{"status":"failed","error":{"code":"x"}}}'
    )
    assert failed.error == {"code": "x"} and not failed.done
    assert responses.signs(b'{"type":"error","code":"c","message":"m"}').error == {
        "type": "error",
        "code": "c",
        "message": "m",
    }
    assert responses.signs(b'{"error":"m"}').error["message"] == "m"
    for noise in (b"[DONE]", b"{", b"[]", b"5", b'{"type":5}'):
        assert not responses.signs(noise).error and not responses.signs(noise).done


def test_native_events_pass_unseen_unless_they_matter():
    frames = [
        frame
        for frame in stream(load("streams", "one_call")["chunks"])
        if frame != b": keep-alive\n\n"
    ]
    assert [responses.plain(frame) for frame in frames[2:]] == [True] * (len(frames) - 3) + [False]
    assert [responses.clean(frame) for frame in frames] == frames
    assert responses.clean(b'data: {"type":"x"}\r\n\r\n') == b'event: x\ndata: {"type":"x"}\n\n'
    assert responses.clean(b"data: [DONE]\n\n") == b""
    assert responses.clean(b": hello\r\n\r\n") == b": hello\n\n"


def test_a_whole_native_answer_can_be_told_as_a_stream():
    doc = native_stream()[-1]["response"]
    assert responses.signs_of(doc).content
    assert (
        final(
            [
                {"type": "response.in_progress", **event}
                if event["type"] == "response.in_progress"
                else event
                for event in _with_progress(read_stream(responses.as_events(doc)))
            ]
        )
        == doc
    )


def _with_progress(events: list[dict]) -> list[dict]:
    return [events[0], {"type": "response.in_progress"}, *events[1:]]


def test_an_untouched_stream_that_is_cut_ends_in_a_failure():
    (event,) = read_stream([responses.error_event(errors.UpstreamError(), "req_77")])
    assert event["type"] == "response.failed" and event["response"]["id"] == "resp_77"
    assert event["response"]["error"]["message"] == errors.UpstreamError.sentence
    valid_response(event["response"])
