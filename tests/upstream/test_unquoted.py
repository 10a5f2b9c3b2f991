"""What a provider says of a failure reaches the row, the log and the console, and nothing that it
quotes of the request does.
"""

import json
import logging

import pytest

from relay import unquoted as module
from relay.unquoted import unquoted
from tests.fake_upstream import answer, stream
from tests.stage import wait_until

SECRET = "Project Nightingale moves\nto 上海浦东新区的办公室 in May"
ASKED = {
    "model": "test-model",
    "messages": [
        {"role": "user", "content": SECRET},
        {"role": "tool", "tool_call_id": "call_7", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": 'She said: "never again!"'}]},
    ],
}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("role 'tool' must follow 'assistant' for test-model", None),
        ("messages[1] of call_7 is too short: This will not do", None),
        ("messages[1]: 'Hi' is too short", "messages[1]: '…' is too short"),
        ("no: Project Nightingale moves", "no:…"),
        ("PROJECT NIGHTINGALE is no JSON", "…is no JSON"),
        (f"Invalid value: {SECRET!r}.", "Invalid value: '…'."),
        (f"Invalid value: {json.dumps(SECRET)}.", 'Invalid value: "…".'),
        ("输入“上海浦东新区的办公室”包含敏感词", "输入“…”包含敏感词"),
        ('near "never again!"', "near…"),
        ("", ""),
    ],
)
def test_what_is_quoted_of_a_request_is_a_gap(words, kept):
    assert unquoted(words, ASKED) == (words if kept is None else kept)


@pytest.mark.parametrize("start", range(12))
def test_whatever_is_quoted_over_nine_characters_is_seen_wherever_it_stands(start):
    text = "abcdefghijklmnopqrstuvwxyz"
    quoted = text[start : start + 10]
    for before in ("", "-", "- ", "-- "):
        assert quoted not in unquoted(f"{before}{quoted}!", {"input": text})


def test_of_a_request_that_is_unknown_or_too_long_to_compare_nothing_is_kept():
    assert unquoted("bad", None) == ""
    assert unquoted("bad", {"input": "x" * module.TEXT_MAX}) == "bad"
    assert unquoted("bad", {"input": "x" * (module.TEXT_MAX + 1)}) == ""
    assert unquoted("bad", {"input": ["x"] * module.SHORT_MAX}) == "bad"
    assert unquoted("bad", {"input": ["x"] * (module.SHORT_MAX + 1)}) == ""


def test_words_are_kept_up_to_their_bound():
    assert unquoted("w" * 1000, {}) == "w" * module.LENGTH_MAX
    assert unquoted("w" * 1000, {"input": "x" * module.LONG}) == "w" * module.LENGTH_MAX
    assert unquoted("w" * 1000, {"input": "x" * (module.LONG + 1)}) == "w" * (
        module.LENGTH_MAX // 2
    )


def test_the_names_of_a_tools_parameters_explain_a_refusal():
    schema = {"required": ["path"], "properties": {"mode": {"enum": ["fast", "slow"]}}}
    tools = [{"type": "function", "function": {"name": "read", "parameters": schema}}]
    assert unquoted("'path' or fast is missing", {"tools": tools}) == "'path' or fast is missing"


# ---- through the relay


BUSY = answer({"error": {"code": "1305", "message": "模型当前访问量过大，请稍后再试"}}, 429)


def test_the_words_of_each_attempt_stand_on_the_row_and_in_the_log(alice, fake, relay, caplog):
    fake.always(BUSY)
    with caplog.at_level(logging.WARNING, "relay"):
        answered = alice.chat()
    (attempt,) = json.loads(relay.closed_row(answered.request_id)["attempts"])
    assert attempt["words"] == "模型当前访问量过大，请稍后再试"
    assert "模型当前访问量过大" in caplog.text and answered.status == 503
    assert "模型当前访问量过大" not in answered.body.decode()  # it is not the member's trouble
    (seen,) = relay.app.extensions["relay"].upstream_report()
    assert (seen["last_error"], seen["last_words"]) == ("upstream_overloaded", attempt["words"])


def test_the_notice_of_a_refused_key_has_the_providers_words_and_tells_once(alice, fake, relay):
    told: list[str] = []
    relay.app.extensions["relay"].sender.health.notice = told.append
    for number in range(3):
        said = f"Your account is in arrears (request {number})"
        fake.always(answer({"error": {"code": "Arrearage", "message": said}}, 400))
        alice.chat()
    assert len(told) == 1 and told[0].endswith("It says: Your account is in arrears (request 0)")


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("status", [400, 200])
def test_a_refusal_is_kept_without_what_it_quotes(alice, fake, relay, caplog, status, streamed):
    said = f"Invalid input {SECRET!r} in messages[0]"
    fake.always(answer({"error": {"code": "invalid_request_error", "message": said}}, status))
    messages = [{"role": "user", "content": SECRET}]
    with caplog.at_level(logging.WARNING, "relay"):
        answered = alice.chat(messages=messages, stream=streamed)
    assert "Nightingale" in answered.body.decode()  # the caller reads all of it
    row = relay.closed_row(answered.request_id)
    assert row["message"] == "Invalid input '…' in messages[0]"
    assert "Invalid input" in row["attempts"]
    assert "Nightingale" not in str(tuple(row)) + caplog.text


def test_an_error_after_the_first_words_is_kept_too(alice, fake, relay):
    failure = {"error": {"message": f"overloaded while reading {SECRET!r}", "code": "1305"}}
    word = {"choices": [{"index": 0, "delta": {"content": "once"}}]}
    fake.always(stream(word, failure, done=False))
    answered = alice.chat_stream(messages=[{"role": "user", "content": SECRET}])
    assert answered.status == 200
    row = relay.closed_row(answered.request_id)
    assert "overloaded while reading" in row["attempts"] and "Nightingale" not in row["attempts"]
    report = relay.app.extensions[
        "relay"
    ].upstream_report  # learns a moment after the row is closed
    assert wait_until(lambda: "overloaded while reading" in report()[0]["last_words"])
    assert "Nightingale" not in report()[0]["last_words"]
