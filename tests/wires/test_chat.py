"""The chat wire: what it reads, where it finds usage, and what it makes of odd streams."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import Usage
from relay.body import parse
from relay.errors import BadRequest, RelayError
from relay.wires import chat

HELLO = [{"role": "user", "content": "Hello"}]


def ask(**members):
    return chat.read(parse(json.dumps({"model": "m", "messages": HELLO} | members).encode()))


def test_it_reads_what_the_spine_needs():
    read = ask(stream=True, max_tokens=7, n=2, stream_options={"include_usage": True})
    assert (read.model, read.stream, read.output_tokens_max, read.choices, read.usage_asked) == (
        "m",
        True,
        7,
        2,
        True,
    )
    assert 1 <= read.input_tokens <= 20
    assert ask().usage_asked is False
    for one, other in ((3, 9), (9, 3)):  # providers differ in which of them they heed
        assert ask(max_completion_tokens=one, max_tokens=other).output_tokens_max == 9


@pytest.mark.parametrize(
    "members, param",
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"model": 7}, "model"),
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages.0"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream_options": 1}, "stream_options"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": True}, "n"),
        ({"n": 10**9}, "n"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": 2**40}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ],
)
def test_it_names_the_member_that_is_wrong(members, param):
    with pytest.raises(BadRequest) as refused:
        ask(**members)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "doc, expected",
    [
        ({"usage": {"prompt_tokens": 5, "completion_tokens": 3}}, Usage(5, 0, 3)),
        (
            {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "prompt_tokens_details": {"cached_tokens": 2},
                }
            },
            Usage(5, 2, 3),
        ),
        (
            {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "cached_tokens": 4}},
            Usage(5, 4, 3),
        ),
        (
            {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_cache_hit_tokens": 1}},
            Usage(5, 1, 3),
        ),
        ({"choices": [{"usage": {"prompt_tokens": 5, "completion_tokens": 3}}]}, Usage(5, 0, 3)),
        (
            {"usage": None, "choices": [{"usage": {"prompt_tokens": 5, "completion_tokens": 3}}]},
            Usage(5, 0, 3),
        ),
        ({"usage": {"prompt_tokens": -5, "completion_tokens": "3"}}, Usage(-1, 0, -1)),
        ({"usage": {"prompt_tokens": 1e18, "completion_tokens": True}}, Usage(10**18, 0, -1)),
        (
            {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "prompt_tokens_details": {"cached_tokens": -9},
                }
            },
            Usage(5, 0, 3),
        ),
        ({"usage": None}, None),
        ({}, None),
        ({"choices": None}, None),
        ({"usage": []}, None),
        ({"choices": [None]}, None),
    ],
)
def test_it_finds_usage_in_every_known_place(doc, expected):
    assert chat.usage(doc) == expected


def chunk(**members):
    return b"data: " + json.dumps(members).encode() + b"\n\n"


PLAIN = chunk(choices=[{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}], usage=None)


def test_a_chunk_of_content_passes_unseen():
    assert chat.plain(PLAIN)
    assert chat.plain(PLAIN * 3)


@pytest.mark.parametrize(
    "data",
    [
        chunk(choices=[], usage={"prompt_tokens": 1}),
        chunk(error={"message": "no"}),
        b"data: [DONE]\n\n",
        chunk(choices=[{"delta": {}, "finish_reason": "stop"}]),
        PLAIN.replace(b"data: ", b"data:"),
        PLAIN.replace(b"\n", b"\r\n"),
        b"event: x\n" + PLAIN,
        b": keep-alive\n\n" + PLAIN,
        PLAIN[:-1],
        PLAIN[:-2],
        PLAIN + b"id: 7\n" + PLAIN,
        PLAIN + PLAIN.replace(b"data: ", b"data:"),
        PLAIN + b"data: [DONE]\n\n",
        b"",
    ],
)
def test_whatever_matters_is_looked_at_closely(data):
    assert not chat.plain(data)


@pytest.mark.parametrize(
    "event, cleaned",
    [
        (b"data:{}\n\n", b"data: {}\n\n"),
        (b"data: {}\r\n\r\n", b"data: {}\n\n"),
        (b"event: message\nid: 5\ndata: {}\n\n", b"data: {}\n\n"),
        (b": ping\r\n\r\n", b": ping\n\n"),
        (b"\n", b""),
        (b"event: x\n\n", b""),
        (b"data: \n\n", b""),
    ],
)
def test_it_cleans_what_breaks_clients(event, cleaned):
    assert chat.clean(event) == cleaned


@pytest.mark.parametrize(
    "data, content, finish",
    [
        (b'{"choices":[{"delta":{"content":""}}]}', False, None),
        (b'{"choices":[{"delta":{"content":"a"}}]}', True, None),
        (b'{"choices":[{"delta":{"role":"assistant","content":null}}]}', False, None),
        (b'{"choices":[{"delta":{"reasoning_content":"a"}}]}', True, None),
        (b'{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}', False, None),
        (b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"a"}]}}]}', True, None),
        (b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}', True, "stop"),
        (b'{"choices":null}', False, None),
        (b'{"choices":[]}', False, None),
        (b'{"choices":[{"delta":null}]}', False, None),
    ],
)
def test_it_knows_content_when_it_sees_it(data, content, finish):
    told = chat.signs(data)
    assert (told.content, told.finish, told.error) == (content, finish, None)


@pytest.mark.parametrize(
    "data",
    [
        b'{"error":{"message":"x"}}',
        b'{"error":"x"}',
        b'{"code":10013,"message":"x"}',
        b'{"error_code":110,"error_msg":"x"}',
        b"nonsense",
        b"[1]",
        b'{"a":',
    ],
)
def test_an_error_or_garbage_in_place_of_content_is_an_error(data):
    assert chat.signs(data).error


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "usage",
                        "delta",
                        "message",
                        "content",
                        "finish_reason",
                        "error",
                        "prompt_tokens",
                        "code",
                        "tool_calls",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_no_answer_however_odd_makes_it_stumble(doc):
    if isinstance(doc, dict):
        told = chat.signs_of(doc)
        chat.completed(doc, "m")
        if told.content and isinstance(doc.get("choices"), list):
            chat.as_events(doc)


@pytest.mark.parametrize(
    "doc",
    [
        {"choices": 5},
        {"choices": "ab"},
        {"choices": [1]},
        {"choices": [{"delta": "ab"}]},
        {"choices": [{"message": 1.5}]},
        {"choices": {"delta": {}}},
    ],
)
def test_a_chunk_that_is_completed_may_be_none(doc):
    whole = chat.completed(doc, "m")
    assert whole["model"] == "m" and all(isinstance(choice, dict) for choice in whole["choices"])


def test_an_error_has_openais_shape():
    err = RelayError()
    assert chat.error(err, "req_1") == {
        "error": {
            "message": err.message,
            "type": "api_error",
            "param": None,
            "code": "internal_error",
        },
        "request_id": "req_1",
    }
    assert chat.error_event(err, "req_1").startswith(b'data: {"error":{')
