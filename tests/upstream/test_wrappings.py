"""An answer is read in whatever wrapping it comes: packed, as a stream or as a document, under any
type, with or without its end mark."""

import gzip
import json
import zlib

import pytest

from tests.fake_upstream import DONE, answer, cut, end, event, head, stream
from tests.providers import usage, usage_chunk
from tests.stage import model_config, upstream_config
from tests.wires.test_native import MESSAGE_EVENTS, PRICED, RESPONSE, RESPONSE_EVENTS
from tests.wires.test_same_story import ASKS, RAN, call, delta

COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000
WHOLE = {
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}
    ],
    "usage": COUNTS,
}
CHUNKS = [delta(content="hel"), delta(content="lo"), delta("stop"), usage_chunk(COUNTS)]
TYPES = ("application/json", "text/event-stream", "text/plain", "application/octet-stream", "")


def said(wire: str, doc: dict) -> str:
    """The text of a plain answer."""
    if wire == "chat":
        return doc["choices"][0]["message"]["content"]
    if wire == "completions":
        return doc["choices"][0]["text"]
    if wire == "messages":
        return doc["content"][-1]["text"]
    return doc["output"][-1]["content"][0]["text"]


def heard(streamed) -> str:
    return json.dumps(list(streamed.documents()))


@pytest.mark.parametrize("mark", [DONE, b""], ids=["with [DONE]", "without"])
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("wire", ASKS)
def test_a_stream_that_nobody_asked_for_is_a_whole_answer(alice, fake, wire, kind, mark):
    body = b": hi\n\n" + b"".join(map(event, CHUNKS)) + mark
    fake.always([head(content_type=kind), body, end])
    path, ask = ASKS[wire]
    got = alice.post(path, {"model": "test-model"} | ask)
    assert (got.status, said(wire, got.json)) == (200, "hello")
    row = alice.relay.closed_row(got.request_id)
    assert (row["cost"], row["usage_source"]) == (COST, "upstream")


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("wire", ASKS)
def test_a_document_in_the_place_of_a_stream_is_one(alice, fake, wire, kind):
    fake.always(answer(WHOLE, content_type=kind))
    path, ask = ASKS[wire]
    streamed = alice.open("POST", path, {"model": "test-model", "stream": True} | ask)
    assert "hello" in heard(streamed)
    assert alice.relay.closed_row(streamed.request_id)["cost"] == COST


@pytest.mark.parametrize("last", [DONE.rstrip(), event(CHUNKS[-1]).rstrip()])
def test_the_last_event_of_such_a_stream_may_lack_its_end(alice, fake, last):
    chunks = CHUNKS[:-1] if last != DONE.rstrip() else CHUNKS
    pieces = [event(chunk) for chunk in chunks]
    fake.always([head(content_type="text/event-stream"), *pieces, last, end])
    got = alice.chat()
    assert (got.status, said("chat", got.json)) == (200, "hello")
    assert alice.relay.closed_row(got.request_id)["cost"] == COST


def test_what_comes_in_lists_is_kept_whole(alice, fake):
    """One entry a token or a source: later pieces stand behind the earlier ones."""
    pieces = []
    for letter in "ab":
        piece = delta(content=letter, annotations=[{"type": "url_citation", "n": letter}])
        piece["choices"][0]["logprobs"] = {"content": [{"token": letter, "logprob": -1}]}
        pieces.append(piece)
    chunks = [*pieces, delta("stop"), usage_chunk(COUNTS)]
    fake.always([head(), *map(event, chunks), DONE, end])
    (choice,) = alice.chat().json["choices"]
    assert [one["token"] for one in choice["logprobs"]["content"]] == ["a", "b"]
    assert [one["n"] for one in choice["message"]["annotations"]] == ["a", "b"]


def test_the_calls_of_such_a_stream_are_put_together(alice, fake):
    thought = delta(role="assistant", reasoning_content="hm")
    second = [
        delta(tool_calls=[call("g", "", index=1, id="call_b")]),
        delta(tool_calls=[call(None, "{}", index=1, id=None)]),
    ]
    chunks = [thought, *RAN, *second, delta("tool_calls"), usage_chunk(COUNTS)]
    fake.always([head(content_type="text/event-stream"), *chunks, end])
    path, ask = ASKS["chat"]
    (choice,) = alice.post(path, {"model": "test-model"} | ask).json["choices"]
    told = choice["message"]
    calls = [(each["id"], *each["function"].values()) for each in told["tool_calls"]]
    assert calls == [("call_a", "f", '{"a":1}'), ("call_b", "g", "{}")]
    assert (told["reasoning_content"], choice["finish_reason"]) == ("hm", "tool_calls")


BROKEN = {
    "without an end": (CHUNKS[:2], "broke off", 502),
    "an error in it": ([*CHUNKS[:2], {"error": {"message": "x"}}], "failed", 502),
    "a refusal": ([{"code": "InvalidParameter", "message": "too loud"}], "too loud", 400),
    "no JSON in it": ([CHUNKS[0], b"oops"], "cannot be read", 502),
    "nothing in it": ([], "broke off", 502),
    "no choices": ([usage_chunk(COUNTS)], "broke off", 502),
}


@pytest.mark.parametrize("how", BROKEN)
def test_such_a_stream_that_is_no_good_is_an_error_and_free(alice, fake, how):
    events, words, status = BROKEN[how]
    fake.always(answer(b": hi\n\n" + b"".join(map(event, events)), content_type="text/plain"))
    path, ask = ASKS["chat"]
    got = alice.post(path, {"model": "test-model"} | ask)
    assert got.status == status and words in got.json["error"]["message"]
    assert not alice.relay.closed_row(got.request_id)["cost"]


@pytest.fixture
def native(start_relay, person, fake):
    speaks = ["messages", "responses"]
    relay = start_relay(
        upstreams=[upstream_config(fake.url, speaks=speaks)], models=[model_config(output_max=64)]
    )
    return person("alice", relay).given(wallet="10")


@pytest.mark.parametrize(
    "wire, events", [("messages", MESSAGE_EVENTS), ("responses", RESPONSE_EVENTS)]
)
def test_a_native_stream_that_nobody_asked_for_is_a_whole_answer(native, fake, wire, events):
    fake.always([head(content_type="application/json"), *events, end])
    path, ask = ASKS[wire]
    got = native.post(path, {"model": "test-model", "max_tokens": 64} | ask)
    assert (got.status, said(wire, got.json)) == (200, "Sunny.")
    assert native.relay.closed_row(got.request_id)["cost"] == PRICED


def folded(native, fake, blocks, deltas, stop) -> dict:
    """The plain answer that is made of such a stream of Messages."""

    def named(**members):
        return b"event: " + members["type"].encode() + b"\n" + event(members)

    starts = [
        named(type="content_block_start", index=at, content_block=block)
        for at, block in enumerate(blocks)
    ]
    pieces = [named(type="content_block_delta", index=at, delta=each) for at, each in deltas]
    last = named(type="message_delta", delta=stop, usage={"output_tokens": 10})
    fake.always(stream(MESSAGE_EVENTS[0], *starts, *pieces, last, done=False))
    path, ask = ASKS["messages"]
    return native.post(path, {"model": "test-model"} | ask).json


def test_a_tools_input_and_a_signature_are_put_together_in_a_native_stream(native, fake):
    blocks = [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "tool_use", "id": "t", "name": "f", "input": {}},
    ]
    deltas = [
        (0, {"type": "thinking_delta", "thinking": "hm"}),
        (0, {"type": "signature_delta", "signature": "c2ln"}),
        (1, {"type": "input_json_delta", "partial_json": '{"a":'}),
        (1, {"type": "input_json_delta", "partial_json": "1}"}),
    ]
    stop = {"stop_reason": "tool_use"}
    got = folded(native, fake, blocks, deltas, stop)
    thinking, used = got["content"]
    assert (thinking["thinking"], thinking["signature"]) == ("hm", "c2ln")
    assert (used["input"], got["stop_reason"]) == ({"a": 1}, "tool_use")
    assert got["usage"]["input_tokens"] == 12 and got["usage"]["output_tokens"] == 10


def test_the_sources_of_a_text_in_a_native_stream_stay_with_it(native, fake):
    sources = [{"type": "web_search_result_location", "url": f"https://{one}"} for one in "ab"]
    deltas = [(0, {"type": "citations_delta", "citation": source}) for source in sources]
    deltas.insert(1, (0, {"type": "text_delta", "text": "It is so."}))
    blocks = [{"type": "text", "text": "", "citations": []}]
    got = folded(native, fake, blocks, deltas, {"stop_reason": "end_turn"})
    assert got["content"] == [{"type": "text", "text": "It is so.", "citations": sources}]


def test_what_the_end_of_a_native_stream_leaves_out_was_told_before(native, fake):
    last = {"type": "response.completed", "response": RESPONSE | {"output": []}}
    fake.always([head(content_type="text/event-stream"), *RESPONSE_EVENTS[:-1], last, end])
    path, ask = ASKS["responses"]
    got = native.post(path, {"model": "test-model"} | ask)
    assert said("responses", got.json) == "Sunny."


# Packed


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare),
    "in capitals": (" GZIP ", gzip.compress),
    "identity": ("identity", bytes),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", PACKED)
def test_an_answer_is_unpacked_although_it_was_asked_for_plain(alice, fake, name, streamed):
    coding, pack = PACKED[name]
    body = b"".join(map(event, CHUNKS)) + DONE if streamed else json.dumps(WHOLE).encode()
    packed = pack(body)
    pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    kind = "text/event-stream" if streamed else "application/json"
    fake.always([head(content_type=kind, content_encoding=coding), *pieces, end])
    path, ask = ASKS["chat"]
    asked = {"model": "test-model", "stream": streamed} | ask
    got = alice.open("POST", path, asked) if streamed else alice.post(path, asked)
    assert ("lo" in heard(got)) if streamed else (said("chat", got.json) == "hello")
    assert alice.relay.closed_row(got.request_id)["cost"] == COST
    assert alice.post(path, asked).status == 200, "and the connection serves again"


def test_the_reason_of_a_packed_refusal_arrives(alice, fake):
    body = gzip.compress(json.dumps({"error": {"message": "too loud"}}).encode())
    fake.always(answer(body, status=400, content_encoding="gzip"))
    path, ask = ASKS["chat"]
    got = alice.post(path, {"model": "test-model"} | ask)
    assert (got.status, got.json["error"]["message"]) == (400, "too loud")


@pytest.mark.parametrize(
    "script",
    [
        answer(b"no gzip at all", content_encoding="gzip"),
        answer(gzip.compress(json.dumps(WHOLE).encode())[:-20], content_encoding="gzip"),
        answer(b"", content_encoding="gzip"),
        answer(json.dumps(WHOLE).encode(), content_encoding="br"),
        [head(content_encoding="gzip"), gzip.compress(b"{}")[:5], cut],
    ],
    ids=["damaged", "cut off", "nothing", "another packing", "broken off"],
)
def test_what_cannot_be_unpacked_is_the_providers_failure(alice, fake, script):
    fake.always(script)
    path, ask = ASKS["chat"]
    got = alice.post(path, {"model": "test-model"} | ask)
    assert (got.status, got.json["error"]["code"]) == (502, "upstream_error")


def test_a_small_answer_that_unpacks_to_a_huge_one_is_cut_off(start_relay, person, fake):
    upstream = upstream_config(fake.url, answer_bytes_max=1_000_000)
    alice = person("alice", start_relay(upstreams=[upstream])).given(wallet="10")
    fake.always(answer(gzip.compress(b" " * 50_000_000), content_encoding="gzip"))
    path, ask = ASKS["chat"]
    got = alice.post(path, {"model": "test-model"} | ask)
    assert got.status == 502
