"""Seven providers, each with its documented peculiarities, as config.example.toml sets them up.

Each is played from scripts: where it writes usage, what it calls things, how its stream is framed,
what it refuses and with which words. The caller must see clean answers on every wire, the ledger
the exact charge, and the provider only what it understands. Nothing here was checked against a live
key: it is the documentation, held fast.
"""

import copy
import json
import shutil
import tomllib
from dataclasses import dataclass
from decimal import Decimal

import pytest

import settings
from relay.catalog import Catalog
from tests.client import CHAT, ask, assert_openai_error
from tests.fake_upstream import DONE, FakeUpstream, answer, end, event, head, stream
from tests.providers import (
    ERRORS,
    TEXT,
    ark_stream,
    chunk,
    dashscope_stream,
    deepseek_finish_stream,
    deepseek_plain,
    deepseek_trailing_stream,
    error,
    moonshot_stream,
    openai_stream,
    plain,
    spark_plain,
    spark_stream,
    usage,
    usage_chunk,
    words,
    zhipu_stream,
)
from tests.stage import ROOT, Person, in_thread, wait_until, write_config

INPUT, CACHED, OUTPUT = 2000, 512, 345
COUNTS = usage(INPUT, OUTPUT, CACHED)
SHIPPED = tomllib.loads((ROOT / "config.example.toml").read_text(encoding="utf-8"))
NAMES = [each["name"] for each in SHIPPED["upstreams"]]
MODELS = {
    "dashscope": "qwen3-max",
    "deepseek": "deepseek-v4-pro",
    "qianfan": "ernie-5.0",
    "moonshot": "kimi-k2.7-code",
    "zhipu": "glm-5",
    "ark": "doubao-pro",
    "spark": "spark-4.0",
}
SENT_AS = {
    "qwen3-max": "qwen3-max",
    "deepseek-v4-pro": "deepseek-v4-pro",
    "ernie-5.0": "ernie-5.0",
    "kimi-k2.7-code": "kimi-k2.7-code",
    "glm-5": "glm-5",
    "doubao-pro": "doubao-seed-2-1-pro-260915",
    "spark-4.0": "4.0Ultra",
}
SPARK_PRICES = {"input": "2", "output": "6"}  # nobody's list price: the model has none

every_provider = pytest.mark.parametrize("name", NAMES)


# The stage: the shipped configuration, but every address leads to one fake


def shipped(url: str) -> dict:
    """config.example.toml with a key for everybody, prices without hours, and addresses at `url`."""
    config = copy.deepcopy(SHIPPED)
    for each in config["upstreams"]:
        each |= {
            "api_key": key(each["name"]),
            "base_url": f"{url}/{each['name']}",
            "first_byte_s": 5,
        }
        each["wire_urls"] = {
            wire: f"{url}/{each['name']}/{wire}/native" for wire in each.get("wire_urls", {})
        }
    for each in config["models"]:
        if each["id"] == "spark-4.0":
            each["prices"] = SPARK_PRICES
        each.get("prices", {}).pop("peak", None)
    return config


def key(name: str) -> str:
    return f"sk-of-{name}-0123456789"


@dataclass
class Stage:
    alice: Person
    fake: FakeUpstream

    def cost(self, answered, model: str) -> int:
        """What a call was charged, once the ledger has been proved.

        All of it comes from the wallet.
        """
        row = self.alice.relay.closed_row(answered.request_id)
        assert (row["outcome"], row["usage_source"], row["usage_note"]) == (
            "complete",
            "upstream",
            None,
        )
        assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"]) == (
            INPUT,
            CACHED,
            OUTPUT,
        )
        assert row["model"] == model and row["cost"] == row["charged_wallet"]
        assert len(json.loads(row["attempts"])) == 1
        return row["cost"]


@pytest.fixture(scope="module")
def running(tmp_path_factory, people_file):
    folder = tmp_path_factory.mktemp("contract")
    with FakeUpstream() as fake:
        config = shipped(fake.url) | {
            "server": {"host": "127.0.0.1", "port": 0, "threads": 32, "drain_s": 1},
            "database": {"path": str(folder / "relay.db")},
            "plans": {"free": {"requests_per_minute": 60_000, "input_tokens_max": 1_000_000}},
        }
        shutil.copyfile(people_file[0], folder / "relay.db")
        relay = in_thread(write_config(folder, config), folder / "relay.db")
        yield Stage(Person("alice", *people_file[1]["alice"], relay).given(wallet="1000"), fake)
        relay.stop()


@pytest.fixture
def stage(running):
    """The running relay, with nothing remembered of earlier tests."""
    running.fake.requests.clear()
    running.fake.always(answer({"error": {"message": "no script"}}, 500))
    running.alice.relay.app.extensions["relay"].sender.health.wake()
    yield running
    wait_until(
        lambda: running.alice.held().wallet == 0
    )  # the end of a call that broke off follows its answer
    assert running.alice.relay.ledger_is_right()


def made_cache(how: str) -> int:
    """What 7 LLM tokens that were put into Alibaba's explicit cache cost more than input."""
    return 7 * (3125 - 2500) if how == "explicit cache" else 0


def price_of(model: str, input_tokens: int = INPUT, explicit: bool = False) -> int:
    """The exact charge for COUNTS by the shipped prices, in nano-yuan, computed from the text of
    the file; `explicit`: the hits are those of an explicit cache."""
    prices = (
        SPARK_PRICES
        if model == "spark-4.0"
        else next(each["prices"] for each in SHIPPED["models"] if each["id"] == model)
    )
    tier = next(
        (each for each in reversed(prices.get("tiers", [])) if input_tokens > each["above"]), prices
    )
    cached = tier.get("cached", tier["input"])
    cached = tier.get("cache_read", cached) if explicit else cached
    counts = ((tier["input"], input_tokens - CACHED), (cached, CACHED), (tier["output"], OUTPUT))
    return int(sum(Decimal(price) * 1000 * count for price, count in counts))


# Addresses


ADDRESSES = {
    ("dashscope", "chat"): "https://dashscope.aliyuncs.com/compatible-mode/v1/chat/completions",
    ("dashscope", "messages"): "https://dashscope.aliyuncs.com/apps/anthropic/v1/messages",
    ("dashscope", "embeddings"): "https://dashscope.aliyuncs.com/compatible-mode/v1/embeddings",
    ("deepseek", "chat"): "https://api.deepseek.com/chat/completions",
    ("deepseek", "messages"): "https://api.deepseek.com/anthropic/v1/messages",
    ("qianfan", "chat"): "https://qianfan.baidubce.com/v2/chat/completions",
    ("qianfan", "embeddings"): "https://qianfan.baidubce.com/v2/embeddings",
    ("moonshot", "chat"): "https://api.moonshot.cn/v1/chat/completions",
    ("moonshot", "messages"): "https://api.moonshot.cn/anthropic/v1/messages",
    ("zhipu", "chat"): "https://open.bigmodel.cn/api/paas/v4/chat/completions",
    ("zhipu", "messages"): "https://open.bigmodel.cn/api/anthropic/v1/messages",
    ("zhipu", "embeddings"): "https://open.bigmodel.cn/api/paas/v4/embeddings",
    ("ark", "chat"): "https://ark.cn-beijing.volces.com/api/v3/chat/completions",
    ("ark", "embeddings"): "https://ark.cn-beijing.volces.com/api/v3/embeddings",
    ("spark", "chat"): "https://spark-api-open.xf-yun.com/v1/chat/completions",
}


def test_every_wire_of_every_provider_has_its_documented_address():
    catalog = Catalog(settings.load(str(ROOT / "config.example.toml"), {}))
    known = {
        (name, wire): each.url(wire)
        for name, each in catalog.upstreams.items()
        for wire in each.speaks
    }
    assert known == ADDRESSES


# Answers on chat


@dataclass(frozen=True)
class Provider:
    """What a provider answers on chat.

    A plain answer, and streams with every place where it writes usage.
    """

    plain: list
    streams: dict[str, list]


def reasoned(*first, counts=COUNTS, cached="prompt_tokens_details", finish=None, **more) -> list:
    """A stream that begins with reasoning; `first` are chunks before it."""
    thought = chunk() | {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "Let me think.",
                },
            }
        ]
    }
    last = chunk(finish="stop") if finish is None else finish
    return stream(*first, thought, *words(), last, usage_chunk(counts), **more)


def with_choice(**more) -> list[dict]:
    """The words, with more members in each choice."""
    return [each | {"choices": [each["choices"][0] | more]} for each in words()]


EMPTY_THOUGHT = chunk() | {
    "choices": [{"index": 0, "delta": {"role": "assistant", "reasoning_content": ""}}]
}
SPARK_LAST = {
    "code": 0,
    "message": "Success",
    "sid": "cha1",
    "choices": [{"delta": {"content": ""}, "index": 0}],
}

PROVIDERS = {
    "dashscope": Provider(
        plain(COUNTS),
        {
            "usage in an extra chunk": dashscope_stream(COUNTS),
            "named events with numbers, CRLF": stream(
                *(
                    f"id:{number}\r\nevent:result\r\n:HTTP_STATUS/200\r\ndata:{json.dumps(each)}\r\n\r\n".encode()
                    for number, each in enumerate(
                        [*words(), chunk(finish="stop"), usage_chunk(COUNTS)]
                    )
                ),
                newline="\r\n",
            ),
            "reasoning first": reasoned(),
            "explicit cache": stream(
                *words(),
                chunk(finish="stop"),
                usage_chunk(
                    COUNTS
                    | {
                        "prompt_tokens_details": {
                            "cached_tokens": CACHED,
                            "cache_creation_input_tokens": 7,
                        }
                    }
                ),
            ),
        },
    ),
    "deepseek": Provider(
        deepseek_plain(COUNTS),
        {
            "usage on the finish chunk": deepseek_finish_stream(COUNTS),
            "usage in a trailing chunk": deepseek_trailing_stream(COUNTS),
            "empty reasoning, then reasoning": reasoned(
                b": keep-alive\n\n", EMPTY_THOUGHT, b": keep-alive\n\n"
            ),
        },
    ),
    "qianfan": Provider(
        plain(COUNTS, need_clear_history=False),
        {
            "usage in the last chunk": stream(
                *with_choice(flag=0, ban_round=0, need_clear_history=False),
                chunk("", finish="stop", usage=COUNTS),
            ),
            "searches beside the cache": stream(
                *words(),
                chunk(
                    finish="stop",
                    usage=COUNTS
                    | {"prompt_tokens_details": {"cached_tokens": CACHED, "search_tokens": 99}},
                ),
            ),
        },
    ),
    "moonshot": Provider(
        plain(
            {
                "prompt_tokens": INPUT,
                "completion_tokens": OUTPUT,
                "total_tokens": INPUT + OUTPUT,
                "cached_tokens": CACHED,
            }
        ),
        {
            "usage in the choice": moonshot_stream(COUNTS),
            "usage in the choice and in a chunk": stream(
                *words(),
                chunk(finish="stop")
                | {"choices": [chunk(finish="stop")["choices"][0] | {"usage": COUNTS}]},
                usage_chunk(COUNTS),
            ),
            "reasoning first": reasoned(EMPTY_THOUGHT),
        },
    ),
    "zhipu": Provider(
        plain(COUNTS, request_id="1"),
        {
            "usage on the finish chunk": zhipu_stream(COUNTS),
            "reasoning first": reasoned(finish=chunk("", finish="stop", usage=COUNTS)),
        },
    ),
    "ark": Provider(
        plain(COUNTS, service_tier="default"),
        {
            "growing usage in every chunk": ark_stream(COUNTS),
            "moderation": stream(
                *with_choice(moderation_hit_type=""),
                chunk(finish="stop"),
                usage_chunk(
                    COUNTS
                    | {"prompt_tokens_details": {"cached_tokens": CACHED, "provisioned_tokens": 3}}
                ),
            ),
        },
    ),
    "spark": Provider(
        spark_plain({"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "cached_tokens": CACHED}),
        {
            "no space, no model, no finish": spark_stream(COUNTS),
            "usage on an empty last chunk": stream(
                *(
                    {
                        "code": 0,
                        "message": "Success",
                        "sid": "cha1",
                        "choices": [{"delta": {"content": word}, "index": 0}],
                    }
                    for word in TEXT
                ),
                SPARK_LAST | {"usage": COUNTS},
                prefix="data:",
            ),
            "ended without [DONE]": stream(
                *(
                    {
                        "code": 0,
                        "message": "Success",
                        "sid": "cha1",
                        "choices": [{"delta": {"content": word}, "index": 0}],
                    }
                    for word in TEXT
                ),
                SPARK_LAST | {"usage": COUNTS},
                prefix="data:",
                done=False,
            ),
        },
    ),
}
STREAMS = [(name, how) for name, each in PROVIDERS.items() for how in each.streams]


@every_provider
def test_a_plain_answer_is_whole_and_charged_exactly(stage, name):
    model = MODELS[name]
    stage.fake.always(PROVIDERS[name].plain)
    answered = stage.alice.chat(model=model)
    (choice,) = answered.json["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("".join(TEXT), "stop")
    assert (
        answered.json["id"]
        and answered.json["object"] == "chat.completion"
        and "created" in answered.json
    )
    assert answered.json["usage"]["prompt_tokens"] == INPUT
    assert stage.cost(answered, model) == price_of(model)
    assert "x-request-id" in answered.headers and answered.headers["x-request-id"] != "upstream-1"


@pytest.mark.parametrize(("name", "how"), STREAMS)
def test_a_stream_is_clean_and_charged_exactly(stage, name, how):
    model = MODELS[name]
    stage.fake.always(PROVIDERS[name].streams[how])
    streamed = stage.alice.chat_stream(model=model)
    assert streamed.text() == "".join(TEXT)
    assert_clean(streamed.body)
    assert stage.cost(streamed, model) == price_of(model) + made_cache(how)


@pytest.mark.parametrize(("name", "how"), STREAMS)
def test_a_stream_is_clean_however_its_bytes_are_cut(stage, name, how):
    model = MODELS[name]
    _, *rest = PROVIDERS[name].streams[how]
    stage.fake.always([lambda line: setattr(line, "bytes_at_once", 7), *rest])
    streamed = stage.alice.chat_stream(model=model, stream_options={"include_usage": True})
    assert streamed.text() == "".join(TEXT)
    lines = [line for line in streamed.body.split(b"\n") if line and not line.startswith(b":")]
    assert all(line.startswith(b"data: ") for line in lines) and b"\r" not in streamed.body
    assert any(b'"prompt_tokens"' in line for line in lines), "who asks for usage gets it"
    assert stage.cost(streamed, model) == price_of(model) + made_cache(how)


def assert_clean(body: bytes) -> None:
    """What every chat client can bear.

    Only data lines and comments, LF, choices in each chunk, and one end.
    """
    assert b"\r" not in body and body.endswith(DONE) and body.count(b"[DONE]") == 1
    events = body.removesuffix(DONE).split(b"\n\n")
    assert events.pop() == b""
    chunks = []
    for each in events:
        assert b"\n" not in each, "one line an event"
        if each.startswith(b":"):
            continue
        assert each.startswith(b"data: ")
        chunks.append(json.loads(each.removeprefix(b"data: ")))
    for each in chunks:
        assert (
            each["choices"]
            and each["object"] == "chat.completion.chunk"
            and each["id"]
            and each["model"]
        )
        assert isinstance(each["created"], int) and "error" not in each
    finishes = [each["choices"][0].get("finish_reason") for each in chunks]
    assert finishes[-1] == "stop" and not any(finishes[:-1])


def test_sparks_tool_call_that_comes_as_an_object_is_a_list(stage):
    called = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    first = {
        "code": 0,
        "sid": "cha1",
        "choices": [{"delta": {"role": "assistant", "tool_calls": called}, "index": 0}],
    }
    events = [first, SPARK_LAST | {"usage": COUNTS}]
    stage.fake.always(stream(*events, prefix="data:"))
    streamed = stage.alice.chat_stream(model="spark-4.0", tools=[TOOL])
    first, *_ = streamed.documents()
    assert first["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **called}]
    assert stage.cost(streamed, "spark-4.0") == price_of("spark-4.0")


@pytest.mark.parametrize(
    ("model", "input_tokens"),
    [
        ("qwen3-max", 32_000),
        ("qwen3-max", 32_001),
        ("qwen3-max", 128_001),
        ("qwen3-plus", 256_001),
        ("glm-5", 32_001),
        ("ernie-5.0", 32_001),
    ],
)
def test_the_tier_is_that_of_the_whole_input(stage, model, input_tokens):
    stage.fake.always(openai_stream(usage(input_tokens, OUTPUT, CACHED)))
    streamed = stage.alice.chat_stream("word " * input_tokens, model=model)
    streamed.read()
    row = stage.alice.relay.closed_row(streamed.request_id)
    assert (row["input_tokens"], row["cost"]) == (input_tokens, price_of(model, input_tokens))


# What is sent


TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
PARTS = [{"type": "text", "text": "How"}, {"type": "text", "text": "is it?"}]
WISHES = {
    "messages": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."},
    ],
    "tools": [TOOL],
    "tool_choice": "required",
    "temperature": 0,
    "top_p": 1,
    "presence_penalty": 0.5,
    "reasoning_effort": "xhigh",
    "thinking": {"type": "disabled"},
    "max_tokens": 100,
    "seed": 7,
    "response_format": {"type": "json_object"},
}
UNCHANGED = {
    "tools": [TOOL],
    "max_tokens": 100,
    "seed": 7,
    "response_format": {"type": "json_object"},
}
ABSENT = object()
JOINED = "How\nis it?"
WANTED = {
    "dashscope": {
        "tool_choice": "auto",
        "thinking": ABSENT,
        "enable_thinking": False,
        "temperature": 0,
        "top_p": 1,
    },
    "deepseek": {
        "tool_choice": "required",
        "user": JOINED,
        "content": "",
        "reasoning": " ",
        "reasoning_effort": "xhigh",
        "thinking": {"type": "disabled"},
    },
    "qianfan": {"tool_choice": "required", "reasoning_effort": "max", "temperature": 0},
    "moonshot": {
        "tool_choice": "auto",
        "reasoning": " ",
        "user": JOINED,
        "content": "",
        "temperature": ABSENT,
        "top_p": ABSENT,
        "presence_penalty": ABSENT,
        "thinking": {"type": "disabled"},
    },
    "zhipu": {
        "tool_choice": "auto",
        "top_p": 0.99,
        "reasoning_effort": "max",
        "thinking": {"type": "disabled"},
    },
    "ark": {
        "tool_choice": "required",
        "reasoning_effort": "high",
        "thinking": {"type": "disabled"},
        "top_p": 1,
    },
    "spark": {
        "user": JOINED,
        "content": "",
        "temperature": 0.01,
        "stream_options": ABSENT,
        "tool_calls_switch": True,
    },
}


@every_provider
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
def test_a_provider_is_sent_what_it_understands(stage, name, streamed):
    model, wanted = MODELS[name], dict(WANTED[name])
    stage.fake.always(
        next(iter(PROVIDERS[name].streams.values())) if streamed else PROVIDERS[name].plain
    )
    stage.alice.post(CHAT, WISHES | {"model": model, "stream": streamed})
    sent = stage.fake.wait_for()
    assert (sent.method, sent.path) == ("POST", f"/v1/{name}/chat/completions")
    assert sent.headers["authorization"] == f"Bearer {key(name)}"
    body = sent.json
    assert body["model"] == SENT_AS[model] and body["stream"] is streamed
    assert {each: body.get(each) for each in UNCHANGED} == UNCHANGED
    system, user, assistant, tool, *more = body["messages"]
    assert len(more) == (body.get("tool_choice") == "auto")  # that a tool is demanded, in words
    assert system == {"role": "system", "content": "Be brief."} and tool == WISHES["messages"][3]
    assert user["content"] == wanted.pop("user", PARTS)
    assert assistant["content"] == wanted.pop("content", None)
    assert assistant.get("reasoning_content") == wanted.pop("reasoning", None)
    usage_asked = wanted.pop("stream_options", {"include_usage": True} if streamed else ABSENT)
    assert body.get("stream_options", ABSENT) == usage_asked
    assert {each: body.get(each, ABSENT) for each in wanted} == wanted


@every_provider
def test_nothing_of_the_caller_but_the_request_goes_out(stage, name):
    stage.fake.always(PROVIDERS[name].plain)
    stage.alice.post(
        CHAT,
        ask(model=MODELS[name]),
        cookie="a=b",
        x_forwarded_for="1.2.3.4",
        referer="http://secret/",
        user_agent="Mine/1",
        openai_organization="org",
        x_custom="x",
        accept_language="zh",
        origin="http://o",
    )
    sent = stage.fake.wait_for()
    assert set(sent.headers) == {
        "host",
        "content-type",
        "content-length",
        "accept-encoding",
        "accept",
        "user-agent",
        "authorization",
    }
    assert sent.headers["user-agent"] == "relay" and sent.headers["accept-encoding"] == "identity"
    assert stage.alice.token.encode() not in sent.raw


# Messages and responses, native or turned into chat


def messages_stream(start: dict, last: dict, **options) -> list:
    """A Messages stream of a provider that speaks it.

    `start` and `last` are what it says of usage.
    """
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": start,
    }
    events = [
        {"type": "message_start", "message": message},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word},
            }
            for word in TEXT
        ),
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": last,
        },
        {"type": "message_stop"},
    ]
    return stream(
        *(b"event: " + each["type"].encode() + b"\n" + event(each) for each in events),
        done=False,
        **options,
    )


WHOLE = {
    "input_tokens": INPUT - CACHED,
    "cache_read_input_tokens": CACHED,
    "cache_creation_input_tokens": 0,
    "output_tokens": OUTPUT,
}
NATIVE = {
    "input at the start": messages_stream(WHOLE | {"output_tokens": 1}, {"output_tokens": OUTPUT}),
    "all at the end": messages_stream({"input_tokens": 0, "output_tokens": 0}, WHOLE),
    "both": messages_stream(WHOLE | {"output_tokens": 0}, WHOLE),
    "CRLF": [
        lambda line: setattr(line, "bytes_at_once", 5),
        head(content_type="text/event-stream"),
        *(
            each.replace(b"\n", b"\r\n")
            for each in messages_stream(WHOLE, WHOLE)
            if isinstance(each, bytes)
        ),
        end,
    ],
}
SPEAK_MESSAGES = [
    each["name"] for each in SHIPPED["upstreams"] if "messages" in each.get("speaks", ())
]
MESSAGE = {"max_tokens": 100, "messages": [{"role": "user", "content": "How is it?"}]}


@pytest.mark.parametrize("name", SPEAK_MESSAGES)
@pytest.mark.parametrize("how", NATIVE)
def test_messages_of_a_provider_that_speaks_them_pass_and_are_charged_exactly(stage, name, how):
    model = MODELS[name]
    stage.fake.always(NATIVE[how])
    tools = [{"type": "custom", "name": "f", "input_schema": {"type": "object"}}]
    streamed = stage.alice.open(
        "POST", "/api/v1/messages", MESSAGE | {"model": model, "stream": True, "tools": tools}
    )
    streamed.read()
    assert_clean_messages(streamed.body)
    assert stage.cost(streamed, model) == price_of(model, explicit=True)
    sent = stage.fake.wait_for()
    assert sent.path == f"/v1/{name}/messages/native" and sent.json["model"] == SENT_AS[model]
    assert (sent.headers["authorization"], sent.headers["anthropic-version"]) == (
        f"Bearer {key(name)}",
        "2023-06-01",
    )
    assert sent.json["tools"] == (
        [{"name": "f", "input_schema": {"type": "object"}}] if name == "deepseek" else tools
    )


def assert_clean_messages(body: bytes) -> None:
    """Named events in Anthropic's order, each once where it may be once."""
    assert b"\r" not in body and b"[DONE]" not in body
    kinds = []
    for each in body.split(b"\n\n")[:-1]:
        first, second = each.split(b"\n")
        kinds.append(first.removeprefix(b"event: ").decode())
        assert json.loads(second.removeprefix(b"data: "))["type"] == kinds[-1]
    assert kinds[0] == "message_start" and kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("message_start") == kinds.count("message_delta") == 1
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") > 0


TURNED = [(name, how) for name, how in STREAMS if name not in SPEAK_MESSAGES]


@pytest.mark.parametrize(("name", "how"), TURNED)
def test_messages_over_chat_are_charged_exactly(stage, name, how):
    model = MODELS[name]
    stage.fake.always(PROVIDERS[name].streams[how])
    streamed = stage.alice.open(
        "POST", "/api/v1/messages", MESSAGE | {"model": model, "stream": True}
    )
    streamed.read()
    assert_clean_messages(streamed.body)
    assert stage.cost(streamed, model) == price_of(model) + made_cache(how)
    assert stage.fake.wait_for().path == f"/v1/{name}/chat/completions"


@pytest.mark.parametrize(("name", "how"), STREAMS)
def test_responses_over_chat_are_charged_exactly(stage, name, how):
    model = MODELS[name]
    stage.fake.always(PROVIDERS[name].streams[how])
    streamed = stage.alice.open(
        "POST", "/api/v1/responses", {"model": model, "input": "How is it?", "stream": True}
    )
    *_, last = streamed.documents()
    assert (
        last["type"] == "response.completed"
        and b"\r" not in streamed.body
        and b"[DONE]" not in streamed.body
    )
    assert last["response"]["usage"]["input_tokens"] == INPUT
    (message,) = [item for item in last["response"]["output"] if item["type"] == "message"]
    assert [part["text"] for part in message["content"]] == ["".join(TEXT)]
    assert stage.cost(streamed, model) == price_of(model) + made_cache(how)


@every_provider
@pytest.mark.parametrize("wire", ["messages", "responses"])
def test_a_plain_answer_over_any_wire_is_charged_exactly(stage, name, wire):
    model, native = MODELS[name], wire == "messages" and name in SPEAK_MESSAGES
    stage.fake.always(
        answer(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "m",
                "usage": WHOLE,
                "stop_reason": "end_turn",
                "content": [{"type": "text", "text": "Hello"}],
            }
        )
        if native
        else PROVIDERS[name].plain
    )
    body = MESSAGE if wire == "messages" else {"input": "How is it?"}
    answered = stage.alice.post(f"/api/v1/{wire}", body | {"model": model})
    assert answered.status == 200
    assert stage.cost(answered, model) == price_of(model, explicit=wire == "messages")


@pytest.mark.parametrize(
    ("name", "model"), [("dashscope", "text-embedding-v4"), ("zhipu", "embedding-3")]
)
@pytest.mark.parametrize(
    "counts", [{"prompt_tokens": 40, "total_tokens": 40}, {"total_tokens": 40}]
)
def test_embeddings_are_charged_exactly(stage, name, model, counts):
    stage.fake.always(answer({"data": [{"embedding": [0.5, -1.0], "index": 0}], "usage": counts}))
    answered = stage.alice.post("/api/v1/embeddings", {"model": model, "input": "你好，世界" * 5})
    assert answered.json["data"][0]["embedding"] == [0.5, -1.0]
    row = stage.alice.relay.closed_row(answered.request_id)
    assert (row["input_tokens"], row["output_tokens"], row["cost"]) == (40, 0, 40 * 500)
    assert stage.fake.wait_for().path == f"/v1/{name}/embeddings"


# Errors: what the caller is told, and what is thought of the provider afterwards


def told_as(status: int, code: str | None, state: str = "ok") -> tuple:
    return status, code, state


ACCOUNT, BUSY = (
    told_as(502, "upstream_account", "refused"),
    told_as(503, "upstream_overloaded", "busy"),
)
SAYS = {
    "dashscope bad parameter": told_as(400, "invalid_parameter_error"),
    "dashscope key": ACCOUNT,
    "dashscope arrears": ACCOUNT,
    "dashscope inspection": told_as(400, "content_filter"),
    "dashscope busy": BUSY,
    "deepseek balance": ACCOUNT,
    "deepseek bad parameter": told_as(422, "invalid_request_error"),
    "qianfan key": ACCOUNT,
    "qianfan busy": BUSY,
    "moonshot quota": ACCOUNT,
    "moonshot busy": BUSY,
    "moonshot context": told_as(400, "context_length_exceeded"),
    "zhipu key": ACCOUNT,
    "zhipu arrears": ACCOUNT,
    "zhipu model": told_as(400, "1211"),
    "zhipu sensitive": told_as(400, "content_filter"),
    "zhipu busy": BUSY,
    "ark key": ACCOUNT,
    "ark arrears": ACCOUNT,
    "ark model": told_as(404, "InvalidEndpointOrModel.NotFound"),
    "spark model": told_as(400, "10005"),
}
MORE = {  # (provider, status, body, what it is told as)
    "dashscope throttle": (
        "dashscope",
        429,
        {
            "error": {
                "message": "You exceeded your current quota, please check your plan and billing details. For"
                " more information on this error, read the docs: https://help.aliyun.com/zh/model-studio/error-code#token-limit",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            },
            "request_id": "1",
        },
        BUSY,
    ),
    "dashscope thinking": (
        "dashscope",
        400,
        {
            "error": {
                "code": "invalid_parameter_error",
                "param": None,
                "type": "invalid_request_error",
                "message": "parameter.enable_thinking must be set to false for non-streaming calls",
            },
            "request_id": "1",
        },
        told_as(400, "invalid_parameter_error"),
    ),
    "dashscope free quota of a model": (
        "dashscope",
        403,
        {
            "error": {
                "code": "AllocationQuota.FreeTierOnly",
                "message": "The free tier of the model has been exhausted.",
            }
        },
        told_as(502, "upstream_account"),
    ),
    "dashscope overloaded": (
        "dashscope",
        500,
        {"error": {"code": "internal_error", "message": "An internal error"}},
        told_as(502, "upstream_error"),
    ),
    "deepseek busy": (
        "deepseek",
        503,
        {"error": {"message": "Service is too busy.", "type": "service_unavailable"}},
        BUSY,
    ),
    "deepseek key": (
        "deepseek",
        401,
        {
            "error": {
                "message": "Authentication Fails",
                "type": "authentication_error",
                "param": None,
                "code": "invalid_request_error",
            }
        },
        ACCOUNT,
    ),
    "deepseek reasoning": (
        "deepseek",
        400,
        {
            "error": {
                "message": "The `reasoning_content` in the thinking mode must be passed back to the API.",
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_request_error",
            }
        },
        told_as(400, "invalid_request_error"),
    ),
    "qianfan model": (
        "qianfan",
        400,
        {
            "error": {
                "code": "invalid_model",
                "message": "no such model",
                "type": "invalid_request_error",
            },
            "id": "as-1",
        },
        told_as(400, "invalid_model"),
    ),
    "moonshot rate": (
        "moonshot",
        429,
        {"error": {"message": "slow down", "type": "rate_limit_reached_error"}},
        BUSY,
    ),
    "moonshot key": (
        "moonshot",
        401,
        {"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}},
        ACCOUNT,
    ),
    "zhipu too long": (
        "zhipu",
        400,
        {"error": {"code": "1261", "message": "Prompt 超长"}},
        told_as(400, "context_length_exceeded"),
    ),
    "zhipu plan has not this model": (
        "zhipu",
        429,
        {"error": {"code": "1311", "message": "套餐不含该模型"}},
        told_as(502, "upstream_account"),
    ),
    "zhipu plan is over": (
        "zhipu",
        429,
        {"error": {"code": "1309", "message": "套餐已到期"}},
        ACCOUNT,
    ),
    "zhipu used up": ("zhipu", 429, {"error": {"code": "1308", "message": "已达到使用上限"}}, BUSY),
    "zhipu traffic": ("zhipu", 429, {"error": {"code": "1305", "message": "访问量过大"}}, BUSY),
    "ark not opened": (
        "ark",
        404,
        {
            "error": {
                "code": "ModelNotOpen",
                "message": "not activated",
                "param": "",
                "type": "NotFound",
            }
        },
        told_as(502, "upstream_account"),
    ),
    "ark rate": (
        "ark",
        429,
        {
            "error": {
                "code": "RateLimitExceeded.EndpointTPMExceeded",
                "message": "TPM",
                "type": "TooManyRequests",
            }
        },
        BUSY,
    ),
    "ark overloaded": (
        "ark",
        429,
        {"error": {"code": "ServerOverloaded", "message": "too busy"}},
        BUSY,
    ),
    "ark sensitive": (
        "ark",
        400,
        {"error": {"code": "SensitiveContentDetected.SevereViolation", "message": "no"}},
        told_as(400, "content_filter"),
    ),
    "spark licence": (
        "spark",
        200,
        {"code": 11200, "message": "AppIdNoAuthError", "sid": "cha1"},
        ACCOUNT,
    ),
    "spark rate": (
        "spark",
        200,
        {"code": 11202, "message": "AppIdQpsOverFlowError", "sid": "cha1"},
        BUSY,
    ),
    "spark content": (
        "spark",
        200,
        {"code": 10013, "message": "input content audit failed", "sid": "cha1"},
        told_as(400, "content_filter"),
    ),
    "spark tools": (
        "spark",
        200,
        {"code": 10907, "message": "too many tokens", "sid": "cha1"},
        told_as(400, "context_length_exceeded"),
    ),
    "spark parameter": (
        "spark",
        400,
        {
            "error": {
                "message": "invalid param (sid: cha1)",
                "param": None,
                "code": "10005",
                "type": "invalid_request_error",
            }
        },
        told_as(400, "10005"),
    ),
    "error in a 200": (
        "qianfan",
        200,
        {"error": {"message": "Rate limit reached", "code": "rpm_rate_limit_exceeded"}},
        BUSY,
    ),
}
SAID = {name: (name.split()[0], *ERRORS[name], told) for name, told in SAYS.items()} | MORE


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("name", SAID)
def test_a_providers_error_is_told_as_what_it_is(stage, name, streamed):
    provider, status, document, told = SAID[name]
    stage.fake.always(answer(document, status))
    answered = stage.alice.chat(model=MODELS[provider], stream=streamed)
    assert_told(stage, answered, provider, document, told)


@pytest.mark.parametrize(
    "name", [name for name, (_, status, *_) in SAID.items() if status == 200 or "busy" in name]
)
def test_the_same_is_told_of_an_error_in_the_first_event_of_a_stream(stage, name):
    provider, _, document, told = SAID[name]
    prefix = "data:" if provider == "spark" else "data: "
    stage.fake.always(stream(event(document, prefix=prefix), done=False))
    assert_told(
        stage, stage.alice.chat(model=MODELS[provider], stream=True), provider, document, told
    )


def test_the_same_is_told_of_an_error_that_is_announced_as_a_stream_and_is_none(stage):
    provider, _, document, told = SAID["spark licence"]
    stage.fake.always(
        [head(content_type="text/event-stream"), json.dumps(document, indent=1).encode(), end]
    )
    assert_told(
        stage, stage.alice.chat(model=MODELS[provider], stream=True), provider, document, told
    )


def assert_told(stage, answered, provider, document, told):
    status, code, state = told
    found = assert_openai_error(answered, status, code, answered.json["error"]["param"])
    inside = document.get("error", document)
    words_kept = str(inside["message"]) in found["message"]
    assert words_kept == (status in (400, 404, 413, 422)), (
        "the caller's own mistakes are told in the provider's words"
    )
    report = {
        each["name"]: each for each in stage.alice.relay.app.extensions["relay"].upstream_report()
    }
    shown = report.pop(provider)
    assert shown["state"] == state and shown["keys_usable"] == (state == "ok")
    assert all(each["state"] == "ok" for each in report.values())
    row = stage.alice.relay.closed_row(answered.request_id)
    assert (row["cost"] or 0, row["outcome"]) == (0, "refused" if words_kept else "failed")
    assert key(provider) not in str(row) + str(answered.body)


@every_provider
def test_a_key_that_a_provider_repeats_is_struck_out(stage, name):
    stage.fake.always(
        answer({"error": {"message": f"bad thing with {key(name)} and Bearer abcdef123456"}}, 400)
    )
    answered = stage.alice.chat(model=MODELS[name])
    assert answered.json["error"]["message"] == "bad thing with *** and ***"


@pytest.mark.parametrize("name", SPEAK_MESSAGES)
@pytest.mark.parametrize(
    ("status", "kind", "told", "state"),
    [
        (529, "overloaded_error", 503, "busy"),
        (429, "rate_limit_error", 503, "busy"),
        (401, "authentication_error", 502, "refused"),
        (400, "invalid_request_error", 400, "ok"),
        (413, "request_too_large", 413, "ok"),
        (500, "api_error", 502, "ok"),
    ],
)
def test_errors_of_messages_are_told_as_what_they_are(stage, name, status, kind, told, state):
    stage.fake.always(
        answer({"type": "error", "error": {"type": kind, "message": "Words."}}, status)
    )
    answered = stage.alice.post("/api/v1/messages", MESSAGE | {"model": MODELS[name]})
    assert (answered.status, answered.json["type"]) == (told, "error")
    assert ("Words." in answered.json["error"]["message"]) == (told in (400, 413))
    report = {
        each["name"]: each for each in stage.alice.relay.app.extensions["relay"].upstream_report()
    }
    assert report[name]["state"] == state


@pytest.mark.parametrize("finish", ["insufficient_system_resource", "network_error"])
def test_a_provider_that_ran_out_of_resources_gave_no_answer(stage, finish):
    for streamed, script in (
        (True, stream(chunk(finish=finish))),
        (False, plain({}, content="", finish=finish)),
    ):
        stage.fake.always(script)
        answered = stage.alice.chat(model="glm-5", stream=streamed)
        assert_openai_error(answered, 502, "upstream_error")


def test_what_a_filter_or_limit_cut_before_the_first_word_reaches_the_caller(stage):
    for finish in ("content_filter", "sensitive", "length", "model_context_window_exceeded"):
        stage.fake.always(stream(chunk(finish=finish)))
        *_, last = stage.alice.chat_stream(model="glm-5").documents()
        assert last["choices"][0]["finish_reason"] == finish


def test_errors_that_are_not_in_the_example_are_not_forgotten():
    assert {name for name in ERRORS if not name.startswith("openai")} == set(SAYS) and error(
        "openai 500"
    )
