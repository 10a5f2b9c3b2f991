"""One provider, one answer, four wires: all tell the same story, and so do row, charge and metrics.

A provider's habit is a list of chat chunks; how its bytes are cut is drawn. What a caller of each
wire read is boiled down to: was it an error, and which text and which calls.
"""

import json
import re
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client import Stream
from tests.fake_upstream import DONE, answer, cut, end, event, head
from tests.providers import usage, usage_chunk

STREAMED = ("chat", "messages", "responses", "completions")
ASKS = {
    "chat": ("/api/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
    "messages": (
        "/api/v1/messages",
        {"max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "responses": ("/api/v1/responses", {"input": "Hi"}),
    "completions": ("/api/v1/completions", {"prompt": "Hi"}),
}
COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000


def delta(finish: str | None = None, **members) -> dict:
    return {"choices": [{"index": 0, "delta": members, "finish_reason": finish}]}


def message(finish: str = "stop", **members) -> dict:
    return {"choices": [{"index": 0, "message": members, "finish_reason": finish}]}


def call(name: str | None, arguments: str, index: int = 0, id: str | None = "call_a") -> dict:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    made = {"index": index, "type": "function", "function": function}
    return made | ({"id": id} if id else {})


@dataclass(frozen=True)
class Habit:
    """What a provider sends, and what everybody should read of it."""

    chunks: list
    good: bool
    text: str = ""
    calls: tuple = ()  # names
    how: tuple = (DONE, end)  # its end


HELLO = delta(content="hel"), delta(content="lo")
RAN = (delta(tool_calls=[call("f", '{"a":')]), delta(tool_calls=[call(None, "1}", id=None)]))
HABITS = {
    "the usual": Habit([*HELLO, delta("stop")], True, "hello"),
    "an end in the last words": Habit([HELLO[0], delta("stop", content="lo")], True, "hello"),
    "cut by its length": Habit([*HELLO, delta("length")], True, "hello"),
    "filtered": Habit([*HELLO, delta("content_filter")], True, "hello"),
    "an unknown end": Habit([*HELLO, delta("eos")], True, "hello"),
    "without [DONE]": Habit([*HELLO, delta("stop")], True, "hello", how=(end,)),
    "without an end": Habit([*HELLO], False, "hello", how=(end,)),
    "broken off": Habit([*HELLO], False, "hello", how=(cut,)),
    "network_error": Habit([*HELLO, delta("network_error")], False, "hello"),
    "out of resources": Habit([*HELLO, delta("insufficient_system_resource")], False, "hello"),
    "error as a finish": Habit([*HELLO, delta("error")], False, "hello"),
    "an error frame": Habit([*HELLO, {"error": {"message": "x", "code": "500"}}], False, "hello"),
    "a code and a reason": Habit([*HELLO, {"code": 500, "msg": "x"}], False, "hello"),
    "nothing but a reason": Habit([*HELLO, {"detail": "x"}], False, "hello"),
    "a status beside no choices": Habit(
        [*HELLO, {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "x"}}],
        False,
        "hello",
    ),
    "a status that is good": Habit(
        [*HELLO, delta("stop"), {"choices": [], "base_resp": {"status_code": 0}}], True, "hello"
    ),
    "a code that is good": Habit(
        [*HELLO, delta("stop"), {"code": 0, "message": "Success"}], True, "hello"
    ),
    "a frame that is no JSON": Habit([*HELLO, b"{oops"], False, "hello"),
    "a call announced, none made, but a text": Habit([*HELLO, delta("tool_calls")], True, "hello"),
    "a function announced, and a text": Habit([*HELLO, delta("function_call")], True, "hello"),
    "[DONE] without a reason": Habit([*HELLO], True, "hello"),
    "a text among the pieces of a call": Habit(
        [*HELLO, RAN[0], delta(content="\n"), RAN[1], delta("tool_calls")],
        True,
        "hello\n",
        ("f",),
    ),
    "a text and a piece of a call in one": Habit(
        [RAN[0], delta(content="hello", **RAN[1]["choices"][0]["delta"]), delta("tool_calls")],
        True,
        "hello",
        ("f",),
    ),
    "two calls with one index": Habit(
        [
            delta(tool_calls=[call("f", '{"a":1}')]),
            delta(tool_calls=[call("g", '{"a":2}', id="call_b")]),
            delta("tool_calls"),
        ],
        True,
        "",
        ("f", "g"),
    ),
    "two calls with one index and no ids": Habit(
        [
            delta(tool_calls=[call("f", '{"a":1}', id=None)]),
            delta(tool_calls=[call("g", '{"a":2}', id=None)]),
            delta("tool_calls"),
        ],
        True,
        "",
        ("f", "g"),
    ),
    "arguments as an object": Habit(
        [delta(tool_calls=[call("f", {"a": 1})]), delta("tool_calls")], True, "", ("f",)
    ),
    "a role that is empty": Habit(
        [delta(role="", content="hel"), delta(role="", content="lo"), delta("stop", role="")],
        True,
        "hello",
    ),
    "a name with each piece": Habit(
        [RAN[0], delta(tool_calls=[call("f", "1}")]), delta("tool_calls")], True, "", ("f",)
    ),
    "the arguments once more at the end": Habit(
        [*RAN, delta(tool_calls=[call("f", '{"a":1}')]), delta("tool_calls")], True, "", ("f",)
    ),
    "the arguments once more without a name": Habit(
        [*RAN, delta(tool_calls=[call(None, '{"a":1}')]), delta("tool_calls")], True, "", ("f",)
    ),
    "a call without a name": Habit(
        [*HELLO, delta(tool_calls=[call(None, "{}")]), delta("tool_calls")], False, "hello"
    ),
    "a call": Habit([*HELLO, *RAN, delta("tool_calls")], True, "hello", ("f",)),
    "a call that ends in stop": Habit([*HELLO, *RAN, delta("stop")], True, "hello", ("f",)),
    "a call as an object": Habit(
        [*HELLO, delta("tool_calls", tool_calls=call("f", "{}"))], True, "hello", ("f",)
    ),
    "a whole message in a chunk": Habit([message(content="hello")], True, "hello"),
    "a whole message behind a role": Habit(
        [delta(role="assistant", content=""), message(content="hello")], True, "hello"
    ),
    "the message once more at the end": Habit([*HELLO, message(content="hello")], True, "hello"),
    "a refusal": Habit([delta(refusal="no"), delta("stop")], True, "no"),
    "a refusal beside content": Habit(
        [delta(content="well, ", refusal="no"), delta("stop")], True, "well, no"
    ),
    "content in parts": Habit(
        [delta(content=[{"type": "text", "text": "hello"}]), delta("stop")], True, "hello"
    ),
    "nulls": Habit(
        [delta(role="assistant", content=None, tool_calls=None), *HELLO, delta("stop")],
        True,
        "hello",
    ),
    "an empty list of calls": Habit(
        [delta(content="hello", tool_calls=[]), delta("stop", tool_calls=[])], True, "hello"
    ),
}


def documents(streamed: Stream) -> list[dict]:
    """Everything that came, parsed; `[DONE]` and comments left out."""
    return list(streamed.documents())


def put_together(call: dict, calls: dict) -> None:
    """Add a piece of a call as OpenAI's SDK does: each text to what there is of it."""
    so_far = calls.setdefault(call["index"], {"name": "", "arguments": "", "id": ""})
    for name, text in [("id", call.get("id")), *call["function"].items()]:
        so_far[name] += text or ""


def read_chat(streamed: Stream) -> tuple:
    said, calls, failed = "", {}, False
    for doc in documents(streamed):
        failed |= "error" in doc
        for choice in doc.get("choices", ()):
            delta = choice.get("delta") or {}
            content = delta.get("content") or ""
            said += (
                "".join(part["text"] for part in content) if isinstance(content, list) else content
            )
            said += delta.get("refusal") or ""
            for each in delta.get("tool_calls") or []:
                put_together(each, calls)
    good = not failed and b"[DONE]" in streamed.body
    assert all(json.loads(each["arguments"]) is not None for each in calls.values() if good)
    ids = [each["id"] for each in calls.values()]
    assert all(re.fullmatch(r"call_(?:[ab]|[0-9a-f]{24})", id) for id in ids) and len(
        {*ids}
    ) == len(ids)
    return good, said, tuple(each["name"] for each in calls.values() if each["name"])


def numbers_of(streamed: Stream) -> list[int]:
    """The indexes of the calls that a caller of chat puts together."""
    choices = [choice for doc in streamed.documents() for choice in doc.get("choices", ())]
    deltas = [choice["delta"] for choice in choices if choice.get("delta")]
    assert not any(delta.get("role", "assistant") == "" for delta in deltas)
    calls = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    assert all(isinstance(call["function"].get("arguments", ""), str) for call in calls)
    return [call["index"] for call in calls]


def read_completions(streamed: Stream) -> tuple:
    docs = documents(streamed)
    said = "".join(choice["text"] for doc in docs for choice in doc.get("choices", ()))
    return not any("error" in doc for doc in docs) and b"[DONE]" in streamed.body, said, None


def read_messages(streamed: Stream) -> tuple:
    docs = documents(streamed)
    said = "".join(doc["delta"].get("text", "") for doc in docs if "delta" in doc)
    blocks = [doc["content_block"] for doc in docs if doc["type"] == "content_block_start"]
    names = tuple(block["name"] for block in blocks if block["type"] == "tool_use")
    good = docs[-1]["type"] == "message_stop"
    arguments: dict[int, str] = {}
    for doc in docs:
        if "partial_json" in doc.get("delta", {}):
            place = doc["index"]
            arguments[place] = arguments.get(place, "") + doc["delta"]["partial_json"]
    assert all(isinstance(json.loads(each or "{}"), dict) for each in arguments.values() if good)
    return good, said, names


def read_responses(streamed: Stream) -> tuple:
    docs = documents(streamed)
    told = ("response.output_text.delta", "response.refusal.delta")
    said = "".join(doc["delta"] for doc in docs if doc["type"] in told)
    items = [doc["item"] for doc in docs if doc["type"] == "response.output_item.added"]
    names = tuple(item["name"] for item in items if item["type"] == "function_call")
    good = docs[-1]["type"] in ("response.completed", "response.incomplete")
    ended = [doc for doc in docs if doc["type"] == "response.function_call_arguments.done"]
    assert all(isinstance(json.loads(doc["arguments"]), dict) for doc in ended if good)
    return good, said, names


@pytest.fixture
def never_resting(monkeypatch):
    """Answers that break off again and again put the upstream to rest, in other tests."""
    monkeypatch.setattr("relay.upstream.health.FAILURES_TO_REST", 10**9)


READ = {
    "chat": read_chat,
    "messages": read_messages,
    "responses": read_responses,
    "completions": read_completions,
}


def bytes_of(habit: Habit) -> bytes:
    return b"".join(
        event(each) if isinstance(each, (dict, bytes)) else each
        for each in [*habit.chunks, *([usage_chunk(COUNTS)] if habit.good else [])]
    ) + b"".join(each for each in habit.how if isinstance(each, bytes))


def told(alice, fake, wire: str, habit: Habit, places=()) -> tuple[tuple, dict]:
    """What the caller of a wire read of a provider with this habit, and the row of the call."""
    data = bytes_of(habit)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    parts = [data[start:stop] for start, stop in pairwise(edges)]
    fake.next([head(content_type="text/event-stream"), *filter(None, parts), habit.how[-1]])
    path, body = ASKS[wire]
    streamed = alice.open("POST", path, {"model": "test-model", "stream": True} | body)
    read = READ[wire](streamed)
    return read, alice.relay.closed_row(streamed.request_id)


@pytest.mark.parametrize("habit", HABITS)
@pytest.mark.parametrize("wire", STREAMED)
def test_every_wire_tells_the_same_and_the_row_says_what_was_read(alice, fake, wire, habit):
    expected = HABITS[habit]
    (good, text, calls), row = told(alice, fake, wire, expected)
    assert good == expected.good
    assert text == expected.text
    assert calls in (expected.calls, None) or not expected.good
    if expected.good:
        assert (row["outcome"], row["error"], row["cost"]) == ("complete", None, COST)
    else:
        assert row["outcome"] == "upstream_cut" and row["error"]
        assert row["usage_source"] == "estimated" and 0 < row["cost"] < COST
    assert alice.relay.ledger_is_right()


@given(st.sampled_from(sorted(HABITS)), st.lists(st.integers(0, 2000), max_size=6))
def test_however_the_bytes_are_cut_the_story_is_the_same(alice, fake, never_resting, habit, places):
    stories = {wire: told(alice, fake, wire, HABITS[habit], places) for wire in STREAMED}
    assert {read[:2] for read, _ in stories.values()} == {(HABITS[habit].good, HABITS[habit].text)}
    rows = [row for _, row in stories.values()]
    assert len({(row["outcome"], row["error"]) for row in rows}) == 1


WHOLE = {
    "network_error": ({"content": "hello"}, "network_error", 502),
    "out of resources": ({"content": "hello"}, "insufficient_system_resource", 503),
    "nothing at all": ({"content": ""}, "stop", 502),
}


@pytest.mark.parametrize("habit", WHOLE)
@pytest.mark.parametrize("wire", STREAMED)
def test_a_plain_answer_that_is_no_good_is_an_error_on_every_wire(alice, fake, wire, habit):
    said, finish, status = WHOLE[habit]
    doc = message(finish, role="assistant", **said) | {"usage": COUNTS}
    fake.always(answer(doc))
    path, body = ASKS[wire]
    refused = alice.post(path, {"model": "test-model"} | body)
    assert refused.status == status and "error" in refused.json
    row = alice.relay.closed_row(refused.request_id)
    assert (row["outcome"], row["status"], row["cost"] or 0) == ("failed", status, 0)


CODED = {
    "a name": ({"code": "InvalidParameter", "message": "too loud"}, 400),
    "a name with a place": ({"code": "MissingParameter.input", "message": "too loud"}, 400),
    "a status": ({"code": 400, "msg": "too loud", "success": False}, 400),
    "a status within": ({"error": {"code": 422, "message": "too loud"}}, 422),
    "a status of overload": ({"code": "429", "message": "too loud"}, 503),
    "a status of theirs": ({"code": 500, "msg": "too loud"}, 502),
    "an account": ({"code": 401, "message": "too loud"}, 502),
    "of MiniMax": (
        {"choices": None, "base_resp": {"status_code": 1000, "status_msg": "too loud"}},
        502,
    ),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("said", CODED)
@pytest.mark.parametrize("wire", STREAMED)
def test_a_code_in_a_200_has_the_status_that_it_means(alice, fake, wire, said, streamed):
    body, status = CODED[said]
    fake.always(
        [head(content_type="text/event-stream"), event(body), end] if streamed else answer(body)
    )
    path, ask = ASKS[wire]
    refused = alice.post(path, {"model": "test-model", "stream": streamed} | ask)
    assert refused.status == status
    assert ("too loud" in refused.json["error"]["message"]) == (status in (400, 422))
    assert alice.relay.closed_row(refused.request_id)["cost"] in (0, None)


@pytest.mark.parametrize(
    "habit", ["two calls with one index", "two calls with one index and no ids"]
)
def test_a_caller_of_chat_can_tell_calls_apart_that_came_with_one_index(alice, fake, habit):
    """openai's SDK puts pieces together by their index, and made one call of two."""
    data = bytes_of(HABITS[habit])
    fake.always([head(content_type="text/event-stream"), data, end])
    path, body = ASKS["chat"]
    streamed = alice.open("POST", path, {"model": "test-model", "stream": True} | body)
    assert numbers_of(streamed) == [0, 1]


@pytest.mark.parametrize("given", [None, "", "absent"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_without_an_id_gets_one_by_which_its_result_can_be_named(
    alice, fake, given, streamed
):
    calls = [call("f", "{}", index=0, id=None), call("g", "{}", index=1, id=None)]
    for each in calls if given != "absent" else ():
        each["id"] = given
    for each in calls:
        del each["type"]
    path, body = ASKS["chat"]
    if streamed:
        chunks = [delta(tool_calls=calls), delta("tool_calls"), usage_chunk(COUNTS)]
        fake.always([head(content_type="text/event-stream"), *chunks, end])
        got = alice.open("POST", path, {"model": "test-model", "stream": True} | body)
        told = [
            each
            for doc in got.documents()
            for choice in doc["choices"]
            for each in choice["delta"].get("tool_calls", ())
        ]
    else:
        fake.always(answer(message("tool_calls", tool_calls=calls) | {"usage": COUNTS}))
        told = alice.post(path, {"model": "test-model"} | body).json["choices"][0]["message"][
            "tool_calls"
        ]
    assert len({each["id"] for each in told}) == 2
    assert all(each["id"].startswith("call_") and each["type"] == "function" for each in told)


def test_of_two_answers_one_that_broke_off_is_no_good_end(alice, fake):
    """Both were asked for; the first ended, the second did not."""
    first, second = delta("stop", content="a"), delta(content="b")
    second["choices"][0]["index"] = 1
    fake.always([head(content_type="text/event-stream"), event(first), event(second), end])
    path, body = ASKS["chat"]
    streamed = alice.open("POST", path, {"model": "test-model", "stream": True, "n": 2} | body)
    assert not read_chat(streamed)[0]
    assert alice.relay.closed_row(streamed.request_id)["outcome"] == "upstream_cut"


ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "plain"])
@pytest.mark.parametrize("wire", STREAMED)
def test_an_answer_with_a_usage_of_zeros_is_not_free(alice, fake, wire, streamed):
    """A zero beside what was delivered is no count: both are estimated, and noted."""
    if streamed:
        said = b"".join(map(event, [*HELLO, delta("stop"), usage_chunk(ZEROS)]))
        fake.always([head(content_type="text/event-stream"), said + DONE, end])
    else:
        fake.always(answer(message(content="hello there") | {"usage": ZEROS}))
    path, body = ASKS[wire]
    if streamed:
        opened = alice.open("POST", path, {"model": "test-model", "stream": True} | body)
        READ[wire](opened)
    else:
        opened = alice.post(path, {"model": "test-model"} | body)
    row = alice.relay.closed_row(opened.request_id)
    assert row["input_tokens"] > 0 and row["output_tokens"] > 0 and row["cost"] > 0
    assert row["usage_source"] == "estimated" and "estimated" in row["usage_note"]


@pytest.mark.parametrize(
    "said",
    [
        [usage(100, 20), ZEROS],
        [ZEROS, usage(100, 20)],
        [usage(100, 5), usage(100, 20)],
        [usage(100, 20), usage(100, 20)],
        [usage(100, 20), {"completion_tokens": 20}],
        [{"prompt_tokens": 100}, {"completion_tokens": 20}],
    ],
)
@pytest.mark.parametrize("wire", STREAMED)
def test_of_usages_that_come_again_the_last_that_counts_holds(alice, fake, wire, said):
    chunks = [*HELLO, delta("stop"), *map(usage_chunk, said)]
    data = b"".join(map(event, chunks)) + DONE
    fake.always([head(content_type="text/event-stream"), data, end])
    path, body = ASKS[wire]
    streamed = alice.open("POST", path, {"model": "test-model", "stream": True} | body)
    READ[wire](streamed)
    row = alice.relay.closed_row(streamed.request_id)
    assert (row["input_tokens"], row["output_tokens"]) == (100, 20)
