"""The wire `embeddings`: what it takes, and vectors in either encoding."""

from __future__ import annotations

import base64
import contextlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse
from pydantic import TypeAdapter

from relay import body, errors
from relay.wires import embeddings

VECTOR = [0.5, -0.25, 1.0]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def read(**members):
    asked = {"model": "m", "input": "Hello", **members}
    return embeddings.read(body.parse(json.dumps(asked).encode()))


def answer(vector, **members) -> dict:
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "model": "up",
        "usage": {"prompt_tokens": 4, "total_tokens": 4},
        **members,
    }


def test_a_call_has_input_tokens_and_no_output():
    ask = read(input="Hello there")
    assert ask.input_tokens > 0 and ask.choices == 0 and not ask.stream
    assert read(input=["Hello there", "Hello there"]).input_tokens == 2 * ask.input_tokens
    assert read(input=[1, 2, 3]).input_tokens == 3
    assert read(input=[[1, 2], [3]]).input_tokens == 3


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"model": None}, "model"),
        ({"input": None}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": {}}, "input"),
        ({"input": ["x", ""]}, "input[1]"),
        ({"input": ["x", 5]}, "input[1]"),
        ({"input": [[1], ["x"]]}, "input[1]"),
        ({"input": [True]}, "input[0]"),
        ({"input": ["x"] * 5000}, "input"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"encoding_format": []}, "encoding_format"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "many"}, "dimensions"),
    ],
)
def test_it_names_the_place_of_a_mistake(members, param):
    with pytest.raises(errors.BadRequest) as caught:
        read(**members)
    assert caught.value.param == param


def test_upstreams_are_asked_for_floats_and_the_caller_gets_what_it_asked_for():
    assert embeddings.changes({"encoding_format": "base64"}) == {"encoding_format": "float"}
    assert embeddings.changes({"encoding_format": "float"}) == embeddings.changes({}) == {}
    for given_vector in (VECTOR, PACKED):
        packed = embeddings.complete(answer(given_vector), {"encoding_format": "base64"})
        assert packed["data"][0]["embedding"] == PACKED
        floats = embeddings.complete(answer(given_vector), {})
        assert floats["data"][0]["embedding"] == VECTOR


def test_what_a_provider_leaves_out_is_completed():
    told = embeddings.complete(
        {"data": [{"embedding": [1]}, {"embedding": [2.5]}], "usage": {"total_tokens": 7}},
        {"model": "m", "input": ["a", "b"]},
    )
    TypeAdapter(CreateEmbeddingResponse).validate_python(told)
    assert [each["index"] for each in told["data"]] == [0, 1]
    assert told["model"] == "m" and told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


@pytest.mark.parametrize("inputs", ["a", ["a", "b", "c"], [1, 2, 3], [[1], [2], [3]]])
def test_each_input_has_a_vector_or_the_answer_is_none(inputs):
    with pytest.raises(errors.UpstreamError):
        embeddings.complete({"data": [{"embedding": [1]}, {"embedding": [2]}]}, {"input": inputs})


def test_usage_is_input_only():
    used = embeddings.usage(answer(VECTOR))
    assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (4, 0, 0)
    assert embeddings.usage({"usage": {"total_tokens": 7}}).input_tokens == 7
    assert embeddings.usage({"usage": None}) is None and embeddings.usage({}) is None
    assert embeddings.usage({"usage": {"prompt_tokens": -3}}).input_tokens == -1


def test_the_spine_sees_content_and_errors():
    assert embeddings.signs_of(answer(VECTOR)).content
    assert not embeddings.signs_of({"data": []}).content
    assert embeddings.signs_of({"error": {"message": "no"}}).error == {"message": "no"}


odd = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["data", "embedding", "usage", "prompt_tokens", "index", "error"]),
            inner,
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": st.one_of(odd, st.lists(st.fixed_dictionaries({"embedding": odd}))),
            "usage": odd,
        },
    ),
    st.sampled_from(["base64", "float", None]),
)
def test_no_answer_breaks_it(doc, encoding):
    with contextlib.suppress(errors.UpstreamError):
        embeddings.complete(doc, {"encoding_format": encoding})
    embeddings.signs_of(doc)


@settings(max_examples=300, deadline=None)
@given(odd)
def test_no_input_breaks_it(value):
    try:
        ask = embeddings.read(
            body.Body([("model", "m"), ("input", value), ("dimensions", 3)], "", {}, 0)
        )
    except errors.BadRequest as err:
        assert err.param.startswith("input")
    else:
        assert ask.input_tokens > 0
