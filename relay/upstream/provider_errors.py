"""What a provider's error means.

Owns the reading of error bodies and statuses of all providers into our error tree, and their
redaction. It sends nothing and remembers nothing. Sources: the providers' error pages;
tests/test_contract.py holds one body of each.
"""

import base64
import functools
import math
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import msgspec

from relay.errors import (
    RelayError,
    UpstreamAccount,
    UpstreamError,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
)

# Our key or our account: DashScope, Ark, Moonshot, Zhipu (1000-1004 key, 1113 arrears, 1309/1311
# plan), Spark (11200).
ACCOUNT = {
    "arrearage",
    "accountoverdueerror",
    "exceeded_current_quota_error",
    "invalid_api_key",
    "invalid_iam_token",
    "authenticationerror",
    "invalid_authentication_error",
    "authentication_error",
    "billing_error",
    "insufficient_balance",
    "insufficient_user_quota",
    "accessdenied",
    "1000",
    "1001",
    "1002",
    "1003",
    "1004",
    "1110",
    "1111",
    "1112",
    "1113",
    "1309",
    "11200",
}
# Our account has not this model: Ark, Zhipu (1311), DashScope (a model's free quota is used up).
NOT_OPEN = {"modelnotopen", "1311", "model.accessdenied", "allocationquota"}
# There is no such model (any more): the caller named ours, the route is out of date. DashScope,
# Ark, Zhipu, Qianfan.
NO_MODEL = {"model_not_found", "invalidendpointormodel", "1211", "invalid_model"}
# Busy: Zhipu 1302-1305, 1308, 1310, 1312, 1313; Spark 11202, 11203; by words elsewhere.
BUSY = {
    "1302",
    "1303",
    "1304",
    "1305",
    "1308",
    "1310",
    "1312",
    "1313",
    "11202",
    "11203",
    "10008",
    "rate_limit_reached_error",
    "engine_overloaded_error",
    "limit_requests",
    "serveroverloaded",
    "rpm_rate_limit_exceeded",
    "tpm_rate_limit_exceeded",
    "rate_limit_exceeded",
    "overloaded_error",
    "rate_limit_error",
    "service_unavailable",
}
# The content was refused: DashScope, Zhipu 1301, Spark 10013, 10014, 10019.
FILTERED = {
    "data_inspection_failed",
    "content_filter",
    "1301",
    "10013",
    "10014",
    "10019",
    "content_policy_violation",
}
# The request is wrong though the status is 200: Zhipu 1210-1215 and 1261, Spark 10003-10005 and
# 10907, DashScope and Ark by name.
WRONG = {
    "1210",
    "1211",
    "1212",
    "1213",
    "1214",
    "1215",
    "1261",
    "10003",
    "10004",
    "10005",
    "10907",
    "invalid_request_error",
    "invalid_parameter_error",
    "invalidparameter",
    "invalidparametervalue",
    "missingparameter",
    "invalid_request",
    "invalidargument",
    "bad_request",
    "badrequest",
    "context_length_exceeded",
}

# More input than the model takes: Zhipu, Spark, Ark, MiniMax, OpenAI; others say it in words.
TOO_LONG_CODES = {
    "1261",
    "10907",
    "oversizeinput",
    "prompt_tokens_too_long",
    "context_length_exceeded",
    "model_context_window_exceeded",
}
TOO_LONG = "The input is longer than the model's context."

# Where a reason stands: texts, the first that says something, and what they may stand in.
MESSAGES = ("message", "msg", "error_msg", "error_message", "errorMessage", "detail", "reason")
INNER = ("error", "errors", "detail", "message", "data")
NESTED_MAX = 4
EVENT_LINES_MAX = 50

MESSAGE_LENGTH_MAX = 2000
CODE_LENGTH_MAX = 100
RETRY_AFTER_MAX_S = 3600
SECRET_LENGTH_MIN = 12  # of a part of a key that is struck out for itself

_decode = msgspec.json.Decoder().decode
_too_long = re.compile(
    r"context.{0,10}(?:length|window)|token limit|(?:prompt|input|request|messages?).{0,20}too long"
    r"|tokens? too long|input length|max message tokens|exceeds? (?:the )?max(?:imum)? (?:length|input)"
    r"|max(?:imum)? input tokens|prompt exceeds|input is too long|超长|过长|超过上限|超出.{0,6}长度",
    re.IGNORECASE,
).search
_names_account = re.compile(
    r"\b(?:api.?)?keys?\b|account|credential|authenticat|authoriz|permission|balance|billing|quota"
    r"|credits?\b|arrears|overdue|subscri|密钥|账户|账号|余额|欠费|鉴权|认证|权限|授权|套餐|额度",
    re.IGNORECASE,
).search
_keys = re.compile(r"\b(?:sk-|bce-v3/|Bearer\s+)[A-Za-z0-9_\-/.*]{8,}", re.IGNORECASE)


def of_status(status: int, body: bytes, headers, key: str | None = None) -> RelayError:
    """The error that an answer with a status of 400 or more stands for.

    `key` is struck out of its message.
    """
    error = _error_of(body.decode(errors="replace"))
    err = read(error, status, retry_after=seconds(headers.get("retry-after")), key=key)
    if isinstance(err, UpstreamError):
        err.words = err.words or f"HTTP {status}"
    return err


def _error_of(body: str) -> dict:
    """The error object of a body, in whatever shape: JSON, an event of a stream, or bare text."""
    text = "".join(_event_data(body)) or body.strip()
    error = _flat(text)
    page = error.get("message") == text and text.startswith("<")  # of a proxy in between
    return {} if page else error


def _flat(said: object, depth: int = 0) -> dict:
    """What is said of an error, as one object with `message` and codes.

    The reason may be a text, JSON in a text, a list of reasons, or an object in an object; what
    stands further in is nearer to the cause.
    """
    if isinstance(said, str) and (said.lstrip()[:1] in ("{", "[") or said == "null"):
        try:
            said = _decode(said)
        except (msgspec.DecodeError, RecursionError):
            pass
    if isinstance(said, str):
        return {"message": said}
    if isinstance(said, list):
        said = next((each for each in said if isinstance(each, dict | str) and each), {})
        return _flat(said, depth)
    if not isinstance(said, dict) or depth > NESTED_MAX:
        return {}
    own = {name: value for name, value in said.items() if isinstance(value, str | int)}
    inner: dict = {}
    for name in INNER:
        if said.get(name) and not isinstance(said[name], int):
            inner = _flat(said[name], depth + 1)
            if inner.get("message"):
                break
    message = next((own[name] for name in MESSAGES if own.get(name)), None)
    if isinstance(message, str) and message.lstrip()[:1] in ("{", "["):
        inner = _flat(message, depth + 1) | inner
    return own | ({"message": message} if message else {}) | inner


def _event_data(body: str) -> list[str]:
    """The data lines of a body that is an event, as DashScope answers who asked for a stream."""
    lines = [line.strip() for line in body.splitlines()[:EVENT_LINES_MAX]]
    return [line[5:].strip() for line in lines if line.startswith("data:")]


def read(
    error: dict, status: int = 200, *, retry_after: int | None = None, key: str | None = None
) -> RelayError:
    """The same of an error object, with the status it came with (200: in place of content)."""
    message = _text(_flat(error).get("message"), key) or ""
    err = _meant(error, message, status, retry_after, key)
    if isinstance(err, UpstreamError):
        err.words = message
    return err


def _meant(
    error: dict, message: str, status: int, retry_after: int | None, key: str | None
) -> RelayError:
    codes = {
        str(error.get(name)).lower()
        for name in ("code", "type", "error_code")
        if error.get(name) is not None
    }
    codes |= {code.split(".")[0] for code in codes}
    if status == 200:  # gateways put the status into the body, and answer 200 themselves
        status = next((int(code) for code in codes if _is_status(code)), status)
    if (status in (400, 404, 413, 422, 500) or status == 200) and is_too_long(codes, message):
        return UpstreamRefused(
            413 if status == 413 else 400, message or TOO_LONG, code="context_length_exceeded"
        )
    if codes & NOT_OPEN:
        return _of_model(UpstreamAccount())
    if status in (401, 402, 403) or codes & ACCOUNT or _is_out_of_money(codes, status, message):
        err = UpstreamAccount()
        err.named = bool(status != 403 or codes & ACCOUNT or _names_account(message))
        return err
    if (
        status in (429, 503, 529)
        or codes & BUSY
        or any(code.startswith(("throttling", "ratelimit", "quotaexceeded")) for code in codes)
    ):
        return UpstreamOverloaded(retry_after=retry_after)
    if status in (408, 504):
        return UpstreamTimeout()
    if codes & FILTERED or any(code.startswith("sensitive") for code in codes):
        return UpstreamRefused(
            400, message or "The provider refused the content.", code="content_filter"
        )
    if status in (400, 404, 413, 422) or (status == 200 and codes & WRONG):
        code, param = (_text(error.get(name), key, CODE_LENGTH_MAX) for name in ("code", "param"))
        refusal = UpstreamRefused(
            400 if status == 200 else status,
            message or "The provider says that the request is not valid.",
            code=code,
            param=param,
        )
        return _of_model(refusal) if codes & NO_MODEL else refusal
    return UpstreamError()


def _is_status(code: str) -> bool:
    return len(code) == 3 and code.isascii() and code.isdigit() and "400" <= code <= "599"


def is_too_long(codes: set[str], message: str) -> bool:
    """Whether a refusal says that the input is longer than the model takes."""
    return bool(codes & TOO_LONG_CODES or _too_long(message))


def _text(said: object, key: str | None, length_max: int = MESSAGE_LENGTH_MAX) -> str | None:
    """What a provider said, as it may be shown; None if it is no text."""
    return (
        redacted(str(said), key)[:length_max]
        if isinstance(said, str | int) and said != ""
        else None
    )


def _of_model(err: UpstreamError) -> UpstreamError:
    err.of_model = True
    return err


def seconds(retry_after: str | None) -> int | None:
    """A Retry-After header (a number of seconds, or a date) in whole seconds.

    None if there is none that we read.
    """
    if not retry_after:
        return None
    try:
        wait_s = float(retry_after)
    except ValueError:
        wait_s = _seconds_until(retry_after)
    return (
        max(1, min(RETRY_AFTER_MAX_S, math.ceil(wait_s)))
        if wait_s is not None and math.isfinite(wait_s)
        else None
    )


def _seconds_until(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def _is_out_of_money(codes: set[str], status: int, message: str) -> bool:
    """`insufficient_quota` is OpenAI's word for an account without money, and with a 429
    DashScope's for too many LLM tokens a minute, in OpenAI's sentence. OpenAI links to its own
    pages.
    """
    return "insufficient_quota" in codes and (status != 429 or "platform.openai.com" in message)


def redacted(message: str, key: str | None = None) -> str:
    """A provider's message without the key, however it is spelled, and without anything else that
    looks like one."""
    if key:
        message = _spelled(key).sub("***", message)
    return _keys.sub("***", message)[:MESSAGE_LENGTH_MAX]


def cause(err: BaseException, key: str) -> str:
    """What lies under an error, for the log, on one line: the innermost reason.

    What a provider says of a request may quote it, so of that only the status and the code are
    told.
    """
    if isinstance(err, UpstreamRefused):
        return redacted(" ".join(f"({err.status} {err.code or ''}".split()) + ")", key)
    while err.__cause__ is not None or err.__context__ is not None:
        err = err.__cause__ or err.__context__
    return redacted(" ".join(f"({type(err).__name__}: {err})".split()), key)


@functools.lru_cache(maxsize=256)
def _spelled(key: str) -> re.Pattern:
    """A pattern that finds a key, its long parts (`id.secret`), and either in addresses, JSON, hex
    and base64."""
    parts = [key, *(part for part in re.split("[.:/]", key) if len(part) >= SECRET_LENGTH_MIN)]
    found = {key}
    for part in parts if len(key) >= SECRET_LENGTH_MIN else ():
        found |= {
            part,
            quote(part, safe=""),
            part.replace("/", "\\/"),
            part.encode().hex(),
            *_in_base64(part),
        }
    return re.compile("|".join(map(re.escape, sorted(found, key=len, reverse=True))), re.IGNORECASE)


def _in_base64(text: str) -> Iterator[str]:
    """The letters that stand for it and for nothing else, wherever in what is encoded it begins."""
    data = text.encode()
    for before in range(3):
        letters = base64.b64encode(bytes(before) + data).decode()
        letters = letters[math.ceil(before * 8 / 6) : (before + len(data)) * 8 // 6]
        yield from (letters, letters.translate(str.maketrans("+/", "-_")))
