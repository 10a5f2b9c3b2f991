"""POST /responses/compact: a conversation for a summary, as Codex asks for it."""

import pytest

from tests.client import assert_openai_error
from tests.providers import plain, usage

PATH = "/v1/responses/compact"
HISTORY = [
    {"role": "user", "content": "Fix the tests."},
    {"type": "function_call", "call_id": "c", "name": "run", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "2 failed"},
]
TOOLS = [{"type": "function", "name": "run", "parameters": {"type": "object"}}]


def request(**members):
    return {"model": "test-model", "input": HISTORY, "instructions": "Be brief.", **members}


def test_the_summary_stands_for_the_conversation_from_then_on(alice, fake, relay):
    fake.always(plain(usage(100, 20), content="Two tests fail."))
    answer = alice.post(PATH, request(tools=TOOLS, parallel_tool_calls=True))
    assert answer.status == 200, answer.body
    assert answer.json["object"] == "response.compaction"
    assert answer.json["usage"]["input_tokens"] == 100
    asked = fake.requests[-1].json
    assert "tools" not in asked and asked["messages"][-1]["role"] == "user"
    (item,) = answer.json["output"]
    assert item["type"] == "compaction" and "Two tests" not in item["encrypted_content"]
    after = [item, {"role": "user", "content": "Go on."}]
    assert alice.post("/v1/responses", {"model": "test-model", "input": after}).status == 200
    assert "Two tests fail." in str(fake.requests[-1].json["messages"])
    row = relay.row_of(answer.request_id)
    assert (row["wire"], row["outcome"]) == ("compact", "complete")
    assert row["charged_wallet"] == 100 * 2_000 + 20 * 8_000


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_summary_that_was_cut_is_an_error_and_no_loss_of_the_conversation(alice, fake, finish):
    fake.always(plain(content="Two", finish=finish))
    assert alice.post(PATH, request()).status == 502


@pytest.mark.parametrize("given", [None, 5, {}])
def test_what_has_no_conversation_is_refused(alice, fake, given):
    assert_openai_error(alice.post(PATH, request(input=given)), 400, None, "input")


def test_one_text_is_a_conversation_too_and_stream_is_not_heard(alice, fake):
    fake.always(plain(usage(5, 5)))
    assert alice.post(PATH, request(input="Fix it.", stream=True)).json["output"]
    assert fake.requests[-1].json.get("stream") in (None, False)
