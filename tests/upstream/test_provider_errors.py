"""What providers' errors mean.

Whose fault it is decides who hears of it, and whether another target is tried.
"""

import json
import re
import time
from base64 import b64encode, urlsafe_b64encode
from email.utils import formatdate
from urllib.parse import quote

import pytest

from relay import errors
from relay.upstream import provider_errors

KEY = "sk-1234567890abcdef"


def fault(status, body, headers=None):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return provider_errors.of_status(status, data, headers or {}, key=KEY)


@pytest.mark.parametrize(
    "status, body",
    [
        (401, {"error": {"message": "bad key", "code": "invalid_api_key"}}),
        (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
        (403, {"error": {"message": "owing", "code": "AccountOverdueError"}}),
        (429, {"error": {"code": "1113", "message": "arrears"}}),
        (429, {"error": {"message": "quota", "type": "exceeded_current_quota_error"}}),
        (400, {"error": {"code": "Arrearage", "message": "overdue"}}),
        (200, {"error": {"code": 11200, "message": "no licence"}}),
    ],
)
def test_a_refused_key_or_an_overdue_account_is_the_operators_trouble(status, body):
    err = fault(status, body)
    assert type(err) is errors.UpstreamAccount
    assert err.status == 502
    assert body["error"]["message"] not in err.message


@pytest.mark.parametrize(
    "status, body",
    [
        (429, {"error": {"code": "1302", "message": "too fast"}}),
        (429, b""),
        (503, b"<html>busy</html>"),
        (529, {}),
        (429, {"error": {"type": "engine_overloaded_error", "message": "busy"}}),
        (429, {"error": {"code": "Throttling.RateQuota", "message": "busy"}}),
        (200, {"code": 11202, "message": "licc failed", "sid": "cht"}),
    ],
)
def test_a_busy_provider_is_overloaded(status, body):
    assert type(fault(status, body)) is errors.UpstreamOverloaded


@pytest.mark.parametrize(
    "status, code, kind",
    [
        (404, "ModelNotOpen", errors.UpstreamAccount),
        (429, "1311", errors.UpstreamAccount),
        (403, "AllocationQuota.FreeTierOnly", errors.UpstreamAccount),
        (404, "InvalidEndpointOrModel.NotFound", errors.UpstreamRefused),
        (400, "1211", errors.UpstreamRefused),
        (404, "model_not_found", errors.UpstreamRefused),
        (400, "invalid_model", errors.UpstreamRefused),
    ],
)
def test_a_model_that_is_not_to_be_had_says_nothing_of_the_key(status, code, kind):
    err = fault(status, {"error": {"code": code, "message": "no such model"}})
    assert type(err) is kind and err.of_model
    assert not fault(status, {"error": {"code": "other", "message": "no"}}).of_model


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_the_callers_own_mistake_keeps_status_and_message(status):
    err = fault(
        status,
        {
            "error": {
                "message": "max_tokens is too large",
                "code": "invalid_parameter_error",
                "param": "max_tokens",
            }
        },
    )
    assert type(err) is errors.UpstreamRefused
    assert (err.status, err.message, err.param) == (status, "max_tokens is too large", "max_tokens")


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "data_inspection_failed", "message": "no"}},
        {"error": {"code": "1301", "message": "no"}},
        {"error": {"code": "SensitiveContentDetected.Text", "message": "no"}},
        {"code": 10013, "message": "no"},
    ],
)
def test_refused_content_is_told_as_such(body):
    err = fault(200, body)
    assert (type(err), err.status, err.code) == (errors.UpstreamRefused, 400, "content_filter")


@pytest.mark.parametrize(
    "status, body",
    [
        (500, b""),
        (502, b"\xff\xfe"),
        (500, {"error": "boom"}),
        (418, [1]),
        (500, b"[" * 5000),
        (200, {"error": {"message": "?"}}),
        (301, b""),
    ],
)
def test_all_else_is_the_upstreams_failure(status, body):
    err = fault(status, body)
    assert (type(err), err.status) == (errors.UpstreamError, 502)


@pytest.mark.parametrize(
    "status, kind", [(504, errors.UpstreamTimeout), (408, errors.UpstreamTimeout)]
)
def test_a_provider_that_gave_up_waiting_timed_out(status, kind):
    assert type(fault(status, b"")) is kind


def test_no_key_comes_through_in_a_message():
    err = fault(
        400,
        {
            "error": {
                "message": f"key {KEY} and sk-abcdefghijklmnop and Bearer abcdefgh1234 are wrong"
            }
        },
    )
    assert err.message == "key *** and *** and *** are wrong"
    err = fault(400, {"error": {"message": "no", "code": KEY, "param": f"x {KEY}"}})
    assert (err.code, err.param) == ("***", "x ***")


KEYS = {
    "zhipu": "0123456789abcdef0123456789abcdef.AbCdEfGhIjKlMnOp",
    "spark": "5f6b8d8c3a1e4b7d9e0f:YzE4NmQ2ZjA2Nm+N",
    "qianfan": "bce-v3/ALTAK-IS6uG1qXcgDDP9Rr/ede55d516092e0ca5e90",
}
SPELLINGS = {
    "as it is": lambda key: key,
    "in capitals": str.upper,
    "its first half": lambda key: re.split("[.:/]", key)[-2],
    "its second half": lambda key: re.split("[.:/]", key)[-1],
    "in an address": lambda key: quote(key, safe=""),
    "in hex": lambda key: key.encode().hex(),
    "in JSON": lambda key: key.replace("/", "\\/"),
    "in base64": lambda key: b64encode(key.encode()).decode(),
    "as a basic user": lambda key: b64encode(f"me:{key}".encode()).decode(),
    "as a bearer": lambda key: b64encode(f"Bearer {key}, ".encode()).decode(),
    "in base64 for addresses": lambda key: urlsafe_b64encode(f"?{key}".encode()).decode(),
}


@pytest.mark.parametrize("spelled", SPELLINGS)
@pytest.mark.parametrize("provider", KEYS)
def test_a_key_is_struck_out_however_it_is_spelled(provider, spelled):
    key = KEYS[provider]
    told = SPELLINGS[spelled](key)
    body = {"message": f"the key <{told}> is wrong", "code": f"bad {told}", "param": told}
    err = provider_errors.read(body, 400, key=key)
    for text in (err.message, err.code, err.param):
        assert "***" in text and not any(
            told[at : at + 11] in text for at in range(max(1, len(told) - 10))
        )


def test_what_is_no_text_is_no_message():
    err = provider_errors.read({"message": {"detail": [7]}, "code": {"a": 1}, "param": [1]}, 400)
    assert (err.message, err.code, err.param) == (
        "The provider says that the request is not valid.",
        None,
        None,
    )


@pytest.mark.parametrize(
    "header, seconds",
    [
        ("5", 5),
        ("0.2", 1),
        ("2.5", 3),
        ("0", 1),
        ("-3", 1),
        ("99999", 3600),
        ("soon", None),
        (None, None),
        ("", None),
        ("1e999", None),
        ("nan", None),
        ("Mon, 23 Nov 1998 20:00:00 GMT", 1),
        ("Mon, 23 Nov 2998 20:00:00 GMT", 3600),
        ("Mon, 99 Nov 2026", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(header, seconds):
    assert provider_errors.seconds(header) == seconds


def test_a_date_to_wait_for_is_turned_into_seconds():
    assert 1 <= provider_errors.seconds(formatdate(time.time() + 30, usegmt=True)) <= 31


QUOTA = {
    "message": "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, read the docs: %s",
    "type": "insufficient_quota",
    "code": "insufficient_quota",
}


@pytest.mark.parametrize(
    "status, link, kind",
    [
        (
            429,
            "https://help.aliyun.com/zh/model-studio/error-code#token-limit",
            errors.UpstreamOverloaded,
        ),
        (
            429,
            "https://platform.openai.com/docs/guides/error-codes/api-errors",
            errors.UpstreamAccount,
        ),
        (403, "", errors.UpstreamAccount),
    ],
)
def test_too_many_tokens_a_minute_are_not_taken_for_an_empty_account(status, link, kind):
    assert type(fault(status, {"error": {**QUOTA, "message": QUOTA["message"] % link}})) is kind


@pytest.mark.parametrize("headers, seconds", [({}, None), ({"retry-after": "7"}, 7)])
def test_only_a_provider_that_says_so_is_busy_for_a_certain_time(headers, seconds):
    assert fault(429, b"", headers).retry_after == seconds


def test_the_cause_of_an_error_is_its_innermost_reason_without_the_key():
    try:
        try:
            raise OSError(f"nobody\nat {KEY}")
        except OSError as err:
            raise errors.UpstreamError() from err
    except errors.UpstreamError as err:
        assert provider_errors.cause(err, KEY) == "(OSError: nobody at ***)"


def test_the_cause_of_a_refusal_is_told_without_the_providers_words_which_may_quote_a_prompt():
    body = b'{"error": {"message": "Invalid content: my secret plan", "code": "bad_one"}}'
    err = provider_errors.of_status(400, body, {})
    assert "my secret plan" in err.message and provider_errors.cause(err, KEY) == "(400 bad_one)"
    assert (
        provider_errors.cause(provider_errors.of_status(422, b"my secret plan", {}), KEY) == "(422)"
    )


REASON = "Input should be 'user' or 'assistant'"
SHAPES = {
    "FastAPI's": {"detail": [{"loc": ["body", "messages", 1, "role"], "msg": REASON}]},
    "a detail": {"detail": REASON},
    "an object of detail": {"detail": {"error": {"message": REASON}}},
    "msg": {"code": 400, "msg": REASON},
    "error_msg": {"error_code": 336003, "error_msg": REASON},
    "a message in a message": {"error": {"message": {"message": REASON}}},
    "a list of errors": {"errors": [{"message": REASON}]},
    "a list": [{"error": {"code": 400, "message": REASON}}],
    "JSON in a message": {"error": {"message": json.dumps({"error": {"message": REASON}})}},
    "JSON in an error": {"error": json.dumps({"message": REASON})},
    "an error that is a text": {"error": REASON},
    "Anthropic's": {"type": "error", "error": {"type": "invalid_request_error", "message": REASON}},
    "a text": REASON.encode(),
    "an event": f'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{{"code":"X","message":"{REASON}"}}\n\n'.encode(),
}


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_reason_of_a_refusal_is_found_wherever_it_stands(shape, status):
    err = fault(status, SHAPES[shape])
    assert (type(err), err.status, err.message) == (errors.UpstreamRefused, status, REASON)


@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"{}", b"[]", b"null", b'{"error": {"message": {}}}']
)
def test_a_refusal_that_gives_no_reason_gets_a_sentence_of_ours(body):
    assert fault(400, body).message == "The provider says that the request is not valid."


@pytest.mark.parametrize(
    "status, body",
    [
        (400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}),
        (200, {"code": 10907, "message": "token数量超过上限。对话历史+问题的字数太多"}),
        (400, {"error": {"code": "OversizeInput", "message": "Total tokens of image and text"}}),
        (400, {"error": {"message": "the max input tokens of model is 65536", "type": "invalid"}}),
        (400, {"error": {"message": "Range of input length should be [1, 129024]"}}),
        (400, {"error": {"message": "This model's maximum context length is 131072 tokens."}}),
        (400, {"error": {"message": "Invalid request: Your request exceeded model token limit"}}),
        (400, {"error": {"message": "Prompt tokens too long"}}),
        (400, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
        (400, {"error": {"message": "输入内容过长，请缩短"}}),
        (413, b"Prompt exceeds max length"),
        (500, {"error": {"message": "Input length exceeds the context window"}}),
    ],
)
def test_an_input_that_is_too_long_is_known_by_code_and_words(status, body):
    err = fault(status, body)
    assert (type(err), err.code) == (errors.UpstreamRefused, "context_length_exceeded")
    assert err.status == (413 if status == 413 else 400)


@pytest.mark.parametrize(
    "message",
    ["Range of max_tokens should be [1, 8192]", "stop is too long", "the name is too long"],
)
def test_not_all_that_is_too_long_is_the_prompt(message):
    assert fault(400, {"error": {"message": message}}).code != "context_length_exceeded"
