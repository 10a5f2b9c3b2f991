"""A whole answer that is only looked at is judged as one that is taken apart."""

import pytest
from hypothesis import assume, given

from relay.errors import RelayError
from relay.wires import reader
from tests.wires.bent_json import bent

CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def answered(finish="stop", **message):
    return {"choices": [{"index": 0, "finish_reason": finish, "message": message}]}


def verdict(judge, doc):
    try:
        judge(doc)
    except RelayError as err:
        return type(err), str(err)
    return None


ANSWERS = [
    answered(content="Hello"),
    answered(content="Hello", reasoning_content="Well"),
    answered(content=""),
    answered(content=None),
    answered("length", content="Hel"),
    answered("content_filter", content=""),
    answered(None, content="Hello"),
    answered(7, content="Hello"),
    answered("tool_calls", content="", tool_calls=[CALL]),
    answered("tool_calls", content="Hello"),
    answered("tool_calls", content=""),
    answered("function_call", content=""),
    answered("stop", content="", tool_calls=[CALL | {"function": {"arguments": "{}"}}]),
    answered("stop", content="Hi", tool_calls=[CALL | {"function": {"arguments": 3000 * " "}}]),
    answered("stop", content="", function_call={"name": "", "arguments": "{}"}),
    answered("error", content="Hello"),
    answered("ABORT", content="Hello"),
    answered("insufficient_system_resource", content="Hello"),
    {"choices": []},
    {"choices": [{"finish_reason": "error", "delta": {"content": "a"}, "message": {}}]},
    {"choices": [{"finish_reason": "stop", "text": "Hello"}]},
    {"choices": [*answered(content="a")["choices"], *answered("tool_calls")["choices"]]},
    {"choices": ["Hello"]},
    {},
]


@pytest.mark.parametrize("doc", ANSWERS, ids=repr)
def test_an_answer_is_judged_as_one_that_is_taken_apart(doc):
    assert verdict(reader.check, doc) == verdict(reader.whole, doc)


@given(bent(ANSWERS))
def test_a_bent_answer_is_judged_as_one_that_is_taken_apart(doc):
    assume(isinstance(doc, dict) and reader.error_in(doc) is None)  # that is looked at before
    assert verdict(reader.check, doc) == verdict(reader.whole, doc)


def test_a_text_is_not_taken_apart(monkeypatch):
    monkeypatch.setattr(reader, "whole", None)  # else it would be called
    reader.check(answered(content="Hello"))
