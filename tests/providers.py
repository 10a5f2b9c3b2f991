"""What each provider sends, as scripts for the fake upstream: shapes, places of usage, error
bodies.

Usage is given in our own words, `usage(input_tokens, output_tokens, cached_tokens)`, and is written
where and as each provider writes it. Every stream says the same: the words of `TEXT`, one event
each.
"""

from __future__ import annotations

import json

from tests.fake_upstream import answer, end, event, head, stream

TEXT = ("Hello", ", ", "world", "!")


def usage(input_tokens: int = 20, output_tokens: int = 10, cached_tokens: int = 0) -> dict:
    """OpenAI's own shape; `input_tokens` includes the cached ones."""
    return {
        "prompt_tokens": input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": input_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def chunk(content=None, finish=None, usage=None, **more) -> dict:
    """One `chat.completion.chunk`; without content its delta is empty."""
    choice = {
        "index": 0,
        "delta": {} if content is None else {"content": content},
        "finish_reason": finish,
    }
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "upstream-model",
        "choices": [choice],
    }
    return document | ({"usage": usage} if usage is not None else {}) | more


def usage_chunk(counts: dict) -> dict:
    """The chunk after the last one, which holds usage and no choice."""
    return chunk(usage=counts) | {"choices": []}


def words(text=TEXT) -> list[dict]:
    return [chunk(word) for word in text]


# Plain answers


def plain(
    counts: dict | None = None, content: str = "".join(TEXT), finish: str = "stop", **more
) -> list:
    """A chat completion; `counts` None stands for usage(), an empty dict leaves usage out."""
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "upstream-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": finish,
            }
        ],
    }
    counts = usage() if counts is None else counts
    return answer(document | ({"usage": counts} if counts else {}) | more)


def deepseek_plain(counts: dict | None = None) -> list:
    """DeepSeek sends blank lines while it thinks, before the JSON of a plain answer."""
    *_, body = plain(counts)
    return [head(), b"\n\n\n", body, end]


def spark_plain(counts: dict | None = None) -> list:
    """Spark's answer has code, message and sid, and no id, created or finish_reason."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": "".join(TEXT)}}]
    return answer(
        {
            "code": 0,
            "message": "Success",
            "sid": "cha1",
            "choices": choices,
            "usage": counts or usage(),
        }
    )


# Streams, with usage in every known place


def openai_stream(counts: dict | None = None, text=TEXT, **options) -> list:
    """The reference: words, finish, usage in an extra chunk without choices."""
    return stream(*words(text), chunk(finish="stop"), usage_chunk(counts or usage()), **options)


def dashscope_stream(counts: dict | None = None) -> list:
    """An extra chunk with `choices: []`; all others say `usage: null`."""
    events = [each | {"usage": None} for each in [*words(), chunk(finish="stop")]]
    return stream(*events, usage_chunk(counts or usage()))


def deepseek_counts(counts: dict) -> dict:
    cached = counts["prompt_tokens_details"]["cached_tokens"]
    missed = counts["prompt_tokens"] - cached
    return counts | {"prompt_cache_hit_tokens": cached, "prompt_cache_miss_tokens": missed}


def deepseek_finish_stream(counts: dict | None = None) -> list:
    """Usage on the finish chunk; comments keep the line warm; the first reasoning is empty."""
    first = chunk() | {
        "choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": ""}}]
    }
    finish = chunk("", finish="stop", usage=deepseek_counts(counts or usage()))
    return stream(b": keep-alive\n\n", first, b": keep-alive\n\n", *words(), finish)


def deepseek_trailing_stream(counts: dict | None = None) -> list:
    """Usage in a chunk of its own after the finish chunk.

    The cached count only in DeepSeek's own field.
    """
    counts = deepseek_counts(counts or usage())
    del counts["prompt_tokens_details"]
    return stream(*words(), chunk("", finish="stop"), usage_chunk(counts))


def moonshot_stream(counts: dict | None = None) -> list:
    """Usage inside `choices[0]` of the last chunk, the cached count at its top level."""
    counts = dict(counts or usage())
    counts["cached_tokens"] = counts.pop("prompt_tokens_details")["cached_tokens"]
    last = chunk(finish="stop")
    last["choices"][0]["usage"] = counts
    return stream(*words(), last)


def zhipu_stream(counts: dict | None = None) -> list:
    """Usage on the finish chunk, whose choices are not empty."""
    return stream(*words(), chunk("", finish="stop", usage=counts or usage()))


def ark_stream(counts: dict | None = None) -> list:
    """`chunk_include_usage`: cumulative usage in every chunk; the last one holds."""
    counts = counts or usage()
    growing = [
        each | {"usage": usage(counts["prompt_tokens"], number)}
        for number, each in enumerate(words(), 1)
    ]
    return stream(*growing, chunk(finish="stop", usage=counts), usage_chunk(counts))


def spark_stream(counts: dict | None = None) -> list:
    """`data:` without a space, no model, object or finish_reason.

    Usage on the last content chunk.
    """
    events = [
        {
            "code": 0,
            "message": "Success",
            "sid": "cha1",
            "id": "cha1",
            "created": 1700000000,
            "choices": [{"delta": {"role": "assistant", "content": word}, "index": 0}],
        }
        for word in TEXT
    ]
    events[-1]["usage"] = counts or usage()
    return stream(*events, prefix="data:")


STREAMS = {
    "openai": openai_stream,
    "dashscope": dashscope_stream,
    "deepseek on finish": deepseek_finish_stream,
    "deepseek trailing": deepseek_trailing_stream,
    "moonshot": moonshot_stream,
    "zhipu": zhipu_stream,
    "ark": ark_stream,
    "spark": spark_stream,
}

# Errors: (status, body) as the providers write them


def _error(status: int, message: str, kind: str | None = None, code: str | None = None, **more):
    inside = (
        {"message": message} | ({"type": kind} if kind else {}) | ({"code": code} if code else {})
    )
    return status, {"error": inside} | more


ERRORS = {
    "openai 500": _error(500, "The server had an error", "server_error"),
    "openai 503": _error(503, "overloaded", "server_error", "overloaded"),
    "dashscope bad parameter": _error(
        400,
        "parameter.enable_thinking must be set to false",
        "invalid_request_error",
        "invalid_parameter_error",
    ),
    "dashscope key": _error(
        401, "Incorrect API key provided.", "invalid_request_error", "invalid_api_key"
    ),
    "dashscope arrears": _error(
        400, "Access denied, account not in good standing.", "Arrearage", "Arrearage"
    ),
    "dashscope inspection": _error(
        400,
        "Input data may contain inappropriate content.",
        "data_inspection_failed",
        "data_inspection_failed",
    ),
    "dashscope busy": _error(
        429, "You exceeded your current requests list.", "limit_requests", "limit_requests"
    ),
    "deepseek balance": _error(
        402, "Insufficient Balance", "unknown_error", "invalid_request_error"
    ),
    "deepseek bad parameter": _error(
        422, "bad parameter", "invalid_request_error", "invalid_request_error"
    ),
    "qianfan key": _error(
        401, "The IAM token is invalid.", "invalid_request_error", "invalid_iam_token", id="as-1"
    ),
    "qianfan busy": _error(
        429, "Rate limit reached for RPM", "rate_limit_exceeded", "rpm_rate_limit_exceeded"
    ),
    "moonshot quota": _error(429, "Your account is suspended", "exceeded_current_quota_error"),
    "moonshot busy": _error(429, "The engine is currently overloaded", "engine_overloaded_error"),
    "moonshot context": _error(
        400,
        "Invalid request: Your request exceeded model token limit: 262144 (requested: 269030)",
        "invalid_request_error",
    ),
    "zhipu key": _error(401, "身份验证失败。", code="1000"),
    "zhipu arrears": _error(429, "您的账户已欠费，请充值后重试。", code="1113"),
    "zhipu model": _error(400, "模型不存在，请检查模型代码。", code="1211"),
    "zhipu sensitive": _error(
        400, "系统检测到输入或生成内容可能包含不安全或敏感内容。", code="1301"
    ),
    "zhipu busy": _error(429, "您当前使用该API的并发数过高。", code="1302"),
    "ark key": _error(
        401, "The API key is invalid. Request id: 1", "Unauthorized", "AuthenticationError"
    ),
    "ark arrears": _error(
        403, "The account has an overdue balance. Request id: 1", "Forbidden", "AccountOverdueError"
    ),
    "ark model": _error(
        404,
        "The model does not exist. Request id: 1",
        "NotFound",
        "InvalidEndpointOrModel.NotFound",
    ),
    "spark model": _error(
        400, "invalid param model:gpt-4x (sid: cha1)", "invalid_request_error", "10005"
    ),
}

ERRORS_INSIDE_200 = {
    "openai": {"error": {"message": "overloaded", "type": "server_error", "code": "overloaded"}},
    "spark": {"code": 11202, "message": "AppIdQpsOverFlowError:(11202)", "sid": "cha1"},
    "spark content": {"code": 10013, "message": "input content audit failed", "sid": "cha1"},
    "qianfan, old": {"error_code": 110, "error_msg": "Access token invalid or no longer valid"},
}


def error(name: str, **headers: str) -> list:
    """The script of one of ERRORS."""
    status, document = ERRORS[name]
    return answer(document, status, **headers)


def error_frame(document: dict | None = None, after: int = 0, name: str | None = None) -> list:
    """A stream that turns into an error after `after` words.

    `name` adds an `event:` line, as some do.
    """
    document = document or ERRORS_INSIDE_200["openai"]
    frame = (f"event: {name}\n".encode() if name else b"") + event(json.dumps(document).encode())
    return stream(*words()[:after], frame, done=False)


def huge_event_stream(size_bytes: int, counts: dict | None = None) -> list:
    """A stream in which one event alone holds `size_bytes` of content."""
    return stream(
        *words(), chunk("x" * size_bytes), chunk(finish="stop"), usage_chunk(counts or usage())
    )
