"""The wire `completions`: prompts into chat and answers back into text."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion
from pydantic import TypeAdapter

from relay import body, errors
from relay.wires import completions, reader
from relay.wires.interface import KEEP_ALIVE, Context

CONTEXT = Context("req_1", 9)
USED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def parsed(**members) -> body.Body:
    return body.parse(json.dumps({"model": "m", "prompt": "Once", **members}).encode())


def chunk(content=None, finish=None, index=0, **more) -> dict:
    delta = {} if content is None else {"content": content}
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "created": 5, "choices": [choice], **more}


def stream(chunks, **asked) -> list:
    frames = list(
        completions.stream_from_chat(reader.read(chunks), parsed(stream=True, **asked), CONTEXT)
    )
    return [
        frame
        if frame in (completions.DONE, KEEP_ALIVE)
        else json.loads(frame.removeprefix(b"data: "))
        for frame in frames
    ]


def text_of(events: list) -> str:
    return "".join(
        choice["text"] for event in events if isinstance(event, dict) for choice in event["choices"]
    )


def test_a_prompt_is_a_users_message():
    asked = parsed(
        max_tokens=9,
        n=2,
        best_of=2,
        stop=["\n"],
        temperature=0,
        echo=True,
        suffix="",
        user="u",
        logprobs=None,
    )
    assert completions.to_chat(asked) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Once"}],
        "max_tokens": 9,
        "n": 2,
        "stop": ["\n"],
        "temperature": 0,
        "user": "u",
    }
    ask = completions.read(asked)
    assert (ask.output_tokens_max, ask.choices, ask.stream) == (
        9,
        2,
        False,
    ) and ask.input_tokens > 0
    assert completions.to_chat(parsed(prompt=["Once"]))["messages"][0]["content"] == "Once"
    assert completions.to_chat(parsed(stream=True))["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": 0}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"n": 2, "best_of": 4}, "best_of"),
    ],
)
def test_what_a_chat_model_cannot_do_is_refused_when_it_is_turned_into_chat(members, param):
    ask = completions.read(parsed(**members))
    assert ask.chat is None, "an upstream that speaks completions may still answer it"
    with pytest.raises(errors.BadRequest) as caught:
        completions.to_chat(ask.body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("members", "choices"),
    [
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"best_of": 5, "n": 2}, 5),
        ({"prompt": [[1, 2], [3]]}, 2),
    ],
)
def test_the_hold_counts_every_completion_that_is_made(members, choices):
    assert completions.read(parsed(**members)).choices == choices


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"model": ""}, "model"),
        ({"n": 0}, "n"),
        ({"n": 99}, "n"),
        ({"prompt": ["a"] * 9, "n": 2}, "prompt"),
        ({"max_tokens": "x"}, "max_tokens"),
        ({"suffix": 5}, "suffix"),
        ({"stream": 1}, "stream"),
        ({"echo": "yes"}, "echo"),
        ({"stream_options": []}, "stream_options"),
    ],
)
def test_it_names_the_place_of_a_mistake(members, param):
    with pytest.raises(errors.BadRequest) as caught:
        completions.read(parsed(**members))
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop"),
        (None, "stop"),
        ("length", "length"),
        ("sensitive", "content_filter"),
    ],
)
def test_an_answer_is_a_text_completion(theirs, ours):
    doc = {
        "id": "chatcmpl-1",
        "created": 5,
        "usage": USED | {"x": 1},
        "choices": [
            {
                "index": 0,
                "message": {"content": " upon", "reasoning_content": "Hm"},
                "finish_reason": theirs,
            },
            {"index": 1, "message": {"content": None}, "finish_reason": "stop"},
        ],
    }
    told = completions.from_chat(doc, parsed(echo=True), CONTEXT)
    TypeAdapter(Completion).validate_python(told, strict=True)
    assert told == {
        "id": "cmpl_1",
        "object": "text_completion",
        "created": 9,
        "model": "m",
        "usage": USED,
        "choices": [
            {"text": "Once upon", "index": 0, "logprobs": None, "finish_reason": ours},
            {"text": "Once", "index": 1, "logprobs": None, "finish_reason": "stop"},
        ],
    }


def test_a_stream_is_text_completions_and_done():
    events = stream(
        [
            chunk(""),
            None,
            chunk(" upon"),
            chunk(" a time"),
            chunk(finish="stop"),
            {"choices": [], "usage": USED},
        ]
    )
    assert events[0] == KEEP_ALIVE and events[-1] == completions.DONE
    assert text_of(events) == " upon a time"
    assert [event["choices"][0]["finish_reason"] for event in events[1:-1]] == [None, None, "stop"]
    assert all(
        event["id"] == "cmpl_1" and event["object"] == "text_completion" and event["created"] == 9
        for event in events[1:-1]
    )


def test_usage_comes_in_a_last_chunk_to_who_asked_for_it():
    events = stream([chunk("x", "stop", usage=USED)], stream_options={"include_usage": True})
    assert events[-2]["usage"] == USED and events[-2]["choices"] == []
    assert not any("usage" in event for event in stream([chunk("x", "stop", usage=USED)])[:-1])


def test_an_echo_comes_once_before_each_choice():
    events = stream([chunk(""), chunk("a"), chunk("b", index=1), chunk("c", "stop")], echo=True)
    texts = {0: "", 1: ""}
    for event in events[:-1]:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == {0: "Onceac", 1: "Onceb"}


@pytest.mark.parametrize("end", [[], [errors.UpstreamTimeout()]])
def test_a_stream_that_is_cut_ends_in_an_error_without_done(end):
    *_, last = stream([chunk("x"), *end])
    assert last["error"]["type"] == "api_error"


def test_a_whole_answer_can_be_told_as_a_stream():
    doc = {
        "id": "c",
        "object": "text_completion",
        "choices": [{"text": "x", "index": 0, "finish_reason": "stop"}],
    }
    first, last = completions.as_events(doc)
    assert json.loads(first.removeprefix(b"data: ")) == doc and last == completions.DONE


odd = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["index", "delta", "message", "content", "finish_reason", "usage"]),
            inner,
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "prompt",
                "n",
                "best_of",
                "suffix",
                "logprobs",
                "stop",
                "stream",
                "echo",
                "max_tokens",
                "stream_options",
            ]
        ),
        odd,
    )
)
def test_no_request_breaks_it(members):
    try:
        ask = completions.read(parsed(**members))
        completions.to_chat(ask.body)
    except errors.BadRequest as err:
        assert err.param


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"choices": odd, "usage": odd, "id": odd}), max_size=4
    )
)
def test_no_answer_breaks_it(chunks):
    for doc in chunks:
        with contextlib.suppress(errors.UpstreamError):
            completions.from_chat(doc, parsed(), CONTEXT)
    events = stream(chunks, echo=True)
    assert events[-1] == completions.DONE or "error" in events[-1]
