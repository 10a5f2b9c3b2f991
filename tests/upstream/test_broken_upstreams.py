"""Upstreams that fail, lie or babble, over real sockets.

What the caller sees, what the row says, what is charged.
"""

import json

import pytest

from tests.client import assert_openai_error
from tests.fake_upstream import DONE, answer, cut, event, head, reset, silence, stream
from tests.providers import (
    ERRORS_INSIDE_200,
    STREAMS,
    TEXT,
    chunk,
    deepseek_plain,
    error,
    error_frame,
    huge_event_stream,
    openai_stream,
    plain,
    spark_plain,
    usage,
    usage_chunk,
    words,
)
from tests.stage import LIMIT_S, upstream_config

PATIENCE_S = 0.3  # of the relay with an upstream that is silent
COUNTS = usage(input_tokens=20, cached_tokens=4, output_tokens=10)
COST = 16 * 2_000 + 4 * 500 + 10 * 8_000  # nano-yuan
BOTH = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])


@pytest.fixture
def relay(start_relay, fake, request):
    """A relay that does not wait long for the moment that the test's name calls silent, and long
    for all others."""
    first_byte_s = PATIENCE_S if "silence before" in request.node.name else LIMIT_S
    idle_s = PATIENCE_S if "silence]" in request.node.name else LIMIT_S
    return start_relay(
        upstreams=[upstream_config(fake.url, first_byte_s=first_byte_s, idle_s=idle_s)]
    )


# Before the first content: (script, status for the caller, code)

SILENT_START = [head(content_type="text/event-stream"), silence]
NOTHING_SAID = {
    "500": (error("openai 500"), 502, "upstream_error"),
    "429": (error("moonshot busy"), 503, "upstream_overloaded"),
    "503": (error("openai 503"), 503, "upstream_overloaded"),
    "our key refused": (error("dashscope key"), 502, "upstream_account"),
    "our account in arrears": (error("zhipu arrears"), 502, "upstream_account"),
    "their 402": (error("deepseek balance"), 502, "upstream_account"),
    "reset before the headers": ([reset], 502, "upstream_error"),
    "closed before the headers": ([cut], 502, "upstream_error"),
    "no HTTP at all": (
        [lambda line: line.raw(b"SSH-2.0-OpenSSH_9\r\n\r\n"), cut],
        502,
        "upstream_error",
    ),
    "silence before the headers": ([silence], 504, "upstream_timeout"),
    "silence before the content": (SILENT_START, 504, "upstream_timeout"),
    "an error page": (
        answer(b"<html>Bad gateway</html>", 502, content_type="text/html"),
        502,
        "upstream_error",
    ),
    "a redirect": (answer(b"", 302, location="http://127.0.0.1:1/"), 502, "upstream_error"),
}


@BOTH
@pytest.mark.parametrize("fault", NOTHING_SAID)
def test_it_charges_nothing_when_no_target_answers(alice, fake, relay, fault, streamed):
    script, status, code = NOTHING_SAID[fault]
    fake.always(script)
    answered = alice.chat(stream=streamed)
    assert_openai_error(answered, status, code)
    assert_nothing_was_charged(alice, relay.closed_row(answered.request_id), status)


INSIDE_200 = {
    "openai": (502, "upstream_error"),
    "spark": (503, "upstream_overloaded"),
    "spark content": (400, "content_filter"),
    "qianfan, old": (502, "upstream_error"),
}


@BOTH
@pytest.mark.parametrize("provider", INSIDE_200)
def test_an_error_inside_a_200_is_an_error(alice, fake, relay, provider, streamed):
    status, code = INSIDE_200[provider]
    document = ERRORS_INSIDE_200[provider]
    fake.always(error_frame(document) if streamed else answer(document))
    answered = alice.chat(stream=streamed)
    assert_openai_error(answered, status, code)
    assert_nothing_was_charged(alice, relay.closed_row(answered.request_id), status)


NO_ANSWERS = [
    b"",
    b"{",
    b'{"choices": [',
    b"[]",
    b"null",
    b'"hello"',
    b"\xff\xfe",
    b"{}",
    b'{"choices": []}',
    b"[" * 5000,
]


@pytest.mark.parametrize("body", NO_ANSWERS, ids=lambda body: repr(body[:12]))
def test_a_plain_answer_that_is_none_is_an_error(alice, fake, relay, body):
    fake.always(answer(body))
    answered = alice.chat()
    assert_openai_error(answered, 502, "upstream_error")
    assert_nothing_was_charged(alice, relay.closed_row(answered.request_id), 502)


@pytest.mark.parametrize(
    "events", [[], [chunk()], [chunk(finish="stop")]], ids=["none", "empty", "finish"]
)
def test_a_stream_without_content_is_an_error(alice, fake, relay, events):
    fake.always(stream(*events))
    answered = alice.chat(stream=True)
    assert_openai_error(answered, 502, "upstream_error")
    assert_nothing_was_charged(alice, relay.closed_row(answered.request_id), 502)


def test_a_plain_answer_that_is_cut_off_is_an_error(alice, fake, relay):
    fake.always([head(200, 5000), b'{"choices": [', reset])
    answered = alice.chat()
    assert_openai_error(answered, 502, "upstream_error")
    assert_nothing_was_charged(alice, relay.closed_row(answered.request_id), 502)


def assert_nothing_was_charged(alice, row, status):
    assert row["outcome"] == ("refused" if status == 400 else "failed")
    assert (row["status"], row["usage_source"], row["cost"] or 0) == (status, "none", 0)
    assert [attempt["upstream"] for attempt in json.loads(row["attempts"])] == ["fake"]
    assert_wallet_lost(alice, 0)


def assert_wallet_lost(alice, nano_yuan):
    balance, held = alice.balance(), alice.held()
    assert (balance.grant, balance.quota, balance.wallet) == (0, 0, 10_000_000_000 - nano_yuan)
    assert (held.grant, held.quota, held.wallet) == (0, 0, 0)
    assert alice.relay.ledger_is_right()


@BOTH
def test_the_provider_judges_the_request_and_its_words_are_kept(alice, fake, relay, streamed):
    fake.always(error("moonshot context"))
    answered = alice.chat(stream=streamed)
    assert answered.status == 400
    assert "exceeded model token limit: 262144" in answered.json["error"]["message"]
    assert relay.closed_row(answered.request_id)["outcome"] == "refused"
    assert_wallet_lost(alice, 0)


def test_the_upstream_key_is_in_no_answer_and_no_row(alice, fake, relay):
    fake.always(answer({"error": {"message": "bad request for key sk-upstream-secret"}}, 400))
    answered = alice.chat()
    assert b"sk-upstream-secret" not in answered.body
    assert "sk-upstream-secret" not in str(relay.closed_row(answered.request_id))


# Usage, in every place


@pytest.mark.parametrize("provider", STREAMS)
def test_usage_is_found_wherever_the_provider_writes_it(alice, fake, relay, provider):
    fake.always(STREAMS[provider](COUNTS))
    streamed = alice.chat_stream()
    assert streamed.text() == "".join(TEXT)
    assert streamed.body.endswith(DONE) and not streamed.broken
    row = relay.closed_row(streamed.request_id)
    cached = 4
    assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"]) == (20, cached, 10)
    assert (row["outcome"], row["usage_source"], row["cost"]) == ("complete", "upstream", COST)
    assert_wallet_lost(alice, COST)


@pytest.mark.parametrize("provider", STREAMS)
def test_who_did_not_ask_for_usage_gets_no_chunk_without_choices(alice, fake, provider):
    fake.always(STREAMS[provider](COUNTS))
    assert all(document["choices"] for document in alice.chat_stream().documents())
    assert fake.wait_for().json["stream_options"] == {"include_usage": True}


def test_who_asked_for_usage_gets_it(alice, fake):
    fake.always(openai_stream(COUNTS))
    *_, last = alice.chat_stream(stream_options={"include_usage": True}).documents()
    assert (last["choices"], last["usage"]) == ([], COUNTS)


@pytest.mark.parametrize("script", [plain, deepseek_plain, spark_plain])
def test_a_plain_answer_is_charged_by_its_usage(alice, fake, relay, script):
    fake.always(script(COUNTS))
    answered = alice.chat()
    assert answered.json["choices"][0]["message"]["content"] == "".join(TEXT)
    assert relay.closed_row(answered.request_id)["cost"] == COST
    assert_wallet_lost(alice, COST)


# Usage that is missing or absurd


def no_usage(streamed):
    return stream(*words(), chunk(finish="stop")) if streamed else plain({})


@BOTH
def test_without_usage_an_estimate_is_charged_and_flagged(alice, fake, relay, streamed):
    fake.always(no_usage(streamed))
    answered = alice.chat(stream=streamed)
    row = relay.closed_row(answered.request_id)
    assert (row["outcome"], row["usage_source"]) == ("complete", "estimated")
    assert 2 <= row["input_tokens"] <= 20
    assert 2 <= row["output_tokens"] <= 8
    assert_wallet_lost(alice, row["cost"])
    assert row["cost"] == row["input_tokens"] * 2_000 + row["output_tokens"] * 8_000


ABSURD = {
    "negative": usage(-5, -7),
    "beyond 64 bits": {"prompt_tokens": 10**18 * 100, "completion_tokens": 10**18 * 100},
    "1e18": {"prompt_tokens": 1e18, "completion_tokens": 1e18},
    "strings": {"prompt_tokens": "20", "completion_tokens": "many"},
    "null": {"prompt_tokens": None, "completion_tokens": None},
    "fractions": {"prompt_tokens": 1.5, "completion_tokens": 0.1},
    "booleans": {"prompt_tokens": True, "completion_tokens": True},
    "missing": {"total_tokens": 30},
    "lists": {"prompt_tokens": [20], "completion_tokens": {"a": 1}, "prompt_tokens_details": [1]},
    "more cached than read": usage(20, 10, cached_tokens=10**12),
    "negative cached": usage(20, 10, cached_tokens=-3),
}


@BOTH
@pytest.mark.parametrize("kind", ABSURD)
def test_absurd_usage_is_not_believed(alice, fake, relay, kind, streamed):
    counts = ABSURD[kind]
    fake.always(openai_stream(counts) if streamed else plain(counts))
    answered = alice.chat(stream=streamed)
    assert answered.status == 200
    row = relay.closed_row(answered.request_id)
    assert row["outcome"] == "complete"
    assert 0 <= row["cached_tokens"] <= row["input_tokens"] <= 20_000
    assert 1 <= row["output_tokens"] <= 8192
    assert row["usage_note"] or kind == "negative cached"
    assert_wallet_lost(alice, row["cost"])


@BOTH
@pytest.mark.parametrize("counts", [[], "none", 7, True], ids=repr)
def test_usage_that_is_no_object_counts_as_none(alice, fake, relay, counts, streamed):
    fake.always(
        stream(*words(), chunk(finish="stop", usage=counts))
        if streamed
        else plain({}, usage=counts)
    )
    row = relay.closed_row(alice.chat(stream=streamed).request_id)
    assert (row["outcome"], row["usage_source"]) == ("complete", "estimated")
    assert_wallet_lost(alice, row["cost"])


# In mid-stream


@pytest.mark.parametrize("end_of_it", [reset, cut, silence], ids=lambda step: step.__name__)
@pytest.mark.parametrize("events", [1, 3])
def test_a_stream_that_breaks_off_ends_with_an_error_and_is_charged_as_delivered(
    alice, fake, relay, events, end_of_it
):
    fake.always(stream(b"".join(map(event, words()[:events])), done=False, then=end_of_it))
    streamed = alice.chat_stream()
    *said, last = streamed.documents()
    assert [each["choices"][0]["delta"]["content"] for each in said] == list(TEXT[:events])
    assert last["error"]["code"] == (
        "upstream_timeout" if end_of_it is silence else "upstream_error"
    )
    assert b"[DONE]" not in streamed.body
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"]) == ("upstream_cut", "estimated")
    assert 1 <= row["output_tokens"] <= 4
    assert_wallet_lost(alice, row["cost"])
    assert fake.wait_for().gone.wait(LIMIT_S)


@pytest.mark.parametrize("name", [None, "error"], ids=["data", "event: error"])
def test_an_error_in_mid_stream_reaches_the_caller_as_the_last_event(alice, fake, relay, name):
    fake.always(error_frame(after=2, name=name))
    streamed = alice.chat_stream()
    *said, last = streamed.documents()
    assert len(said) == 2 and last["error"]["message"]
    assert b"event:" not in streamed.body and b"[DONE]" not in streamed.body
    row = relay.closed_row(streamed.request_id)
    assert (row["outcome"], row["usage_source"]) == ("upstream_cut", "estimated")
    assert_wallet_lost(alice, row["cost"])


def test_the_end_without_done_is_complete_if_it_was_finished(alice, fake, relay):
    fake.always(stream(*words(), chunk(finish="stop", usage=COUNTS), done=False))
    streamed = alice.chat_stream()
    assert streamed.text() == "".join(TEXT) and streamed.body.endswith(DONE)
    assert relay.closed_row(streamed.request_id)["outcome"] == "complete"
    assert_wallet_lost(alice, COST)


def test_an_event_of_nonsense_in_mid_stream_harms_nothing(alice, fake, relay):
    fake.always(
        stream(
            *words()[:2],
            event(b'{"choices": [{'),
            *words()[2:],
            chunk(finish="stop"),
            usage_chunk(COUNTS),
        )
    )
    streamed = alice.chat_stream()
    streamed.read()
    row = relay.closed_row(streamed.request_id)
    assert row["outcome"] in ("complete", "upstream_cut")
    assert_wallet_lost(alice, row["cost"])


# Bytes, cut and joined in every way


FRAMINGS = {
    "one byte at a time": {"bytes_at_once": 1},
    "CRLF": {"newline": "\r\n"},
    "CR": {"newline": "\r"},
    "CRLF, three bytes at a time": {"newline": "\r\n", "bytes_at_once": 3},
    "no space": {"prefix": "data:"},
    "ended by closing": {"framing": "close"},
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_any_framing_gives_the_same_clean_stream(alice, fake, relay, framing):
    text = ("你好，", "世界 🎉", " \r\n\\n ", '"quoted"')
    fake.always(openai_stream(COUNTS, text, **FRAMINGS[framing]))
    streamed = alice.chat_stream()
    assert streamed.text() == "".join(text)
    assert streamed.body.endswith(DONE) and b"\r" not in streamed.body
    assert all(each.startswith(b"data: ") for each in streamed.body.strip().split(b"\n\n"))
    relay.closed_row(streamed.request_id)
    assert_wallet_lost(alice, COST)


def test_what_needs_no_change_passes_byte_for_byte(alice, fake):
    odd = b'data: {"id":"1","choices" : [{"delta":{"content":"\\u4f60"}} ] ,"x":1.50, "y":{"b":1,"a":2}}\n\n'
    finish = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    fake.always(stream(odd, odd, finish))
    assert alice.chat_stream().read() == odd + odd + finish + DONE
    body = b'{"choices" :[{"message":{"content":"\\u4f60"},"finish_reason":"stop"}],"x":1.50}'
    fake.always(answer(body))
    assert alice.chat().body == body


def test_an_event_of_five_megabytes_passes(alice, fake, relay):
    size = 5 * 1024 * 1024
    fake.always(huge_event_stream(size, COUNTS))
    streamed = alice.chat_stream()
    assert len(streamed.text()) == len("".join(TEXT)) + size
    relay.closed_row(streamed.request_id)
    assert_wallet_lost(alice, COST)


def test_an_event_without_end_is_cut_and_not_kept_in_memory(alice, fake, relay):
    def endless(line):
        line.send(b'data: {"choices":[{"delta":{"content":"')
        for _ in range(64):
            line.send(b"x" * (1 << 20))

    fake.always(stream(*words()[:1], endless, done=False))
    streamed = alice.chat_stream()
    *_, last = streamed.documents()
    assert last["error"] and len(streamed.body) < 32 << 20
    assert relay.closed_row(streamed.request_id)["outcome"] == "upstream_cut"
    assert alice.relay.ledger_is_right()


def test_comments_keep_the_line_warm_and_break_no_client(alice, fake, relay):
    fake.always(
        stream(
            b": keep-alive\n\n",
            *words()[:2],
            b": keep-alive\n\n",
            *words()[2:],
            chunk(finish="stop"),
            usage_chunk(COUNTS),
        )
    )
    streamed = alice.chat_stream()
    assert streamed.text() == "".join(TEXT)
    relay.closed_row(streamed.request_id)
    assert_wallet_lost(alice, COST)
