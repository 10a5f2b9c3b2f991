"""The wire `messages`: requests into chat, chat's answers back, and answers of upstreams that speak
it themselves.

The golden files hold one case each: a sentence, what comes in, what goes out (streams: the bytes,
in a file beside). After a change that is meant, `GOLDEN=write pytest tests/test_messages.py` writes
what goes out; the diff is the review.
"""

import copy
import json
import os
from pathlib import Path
from types import SimpleNamespace

import anthropic
import httpx2
import pydantic
import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import Usage
from relay import body, errors
from relay.upstream import provider_errors
from relay.wires import messages, reader, sse
from relay.wires.interface import Context
from relay.wires.messages import request
from relay.wires.messages.names import chat_name, own_id

GOLDEN = Path(__file__).parent / "golden" / "messages"
EVENT = pydantic.TypeAdapter(RawMessageStreamEvent)
ASK = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2048}}


def cases(folder: str) -> list[str]:
    return sorted(path.stem for path in (GOLDEN / folder).glob("*.json"))


def case(folder: str, name: str) -> dict:
    return json.loads((GOLDEN / folder / f"{name}.json").read_text())


def agree(folder: str, name: str, key: str, made: dict) -> None:
    """The case's `key` is `made`, or becomes it if GOLDEN=write."""
    document = case(folder, name)
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / folder / f"{name}.json").write_text(readable(document | {key: made}))
        return
    assert made == document[key], document["about"]


def readable(document: dict) -> str:
    """JSON with a line for each member, and for each item of a list."""

    def line(value):
        return json.dumps(value, ensure_ascii=False)

    def lines(value):
        return (
            "[\n  " + ",\n  ".join(map(line, value)) + "\n ]"
            if isinstance(value, list) and value
            else line(value)
        )

    return (
        "{\n "
        + ",\n ".join(f"{line(name)}: {lines(value)}" for name, value in document.items())
        + "\n}\n"
    )


def items(chunks: list) -> list:
    """Chunks of a golden file, with the errors that it names."""
    return [
        getattr(errors, each["!error"])() if isinstance(each, dict) and "!error" in each else each
        for each in chunks
    ]


def streamed(chunks: list, ask: dict) -> list[bytes]:
    return list(
        messages.stream_from_chat(
            reader.read(items(chunks)), ASK | ask, Context("req_1", input_tokens=7)
        )
    )


def parsed(events: list[bytes]) -> list[dict]:
    """The events' data; each event is named after its type."""
    found = [json.loads(sse.data(event)) for event in events]
    assert [sse.name(event).decode() for event in events] == [event["type"] for event in found]
    return found


def client_for(
    data: bytes, content_type: str = "text/event-stream", status: int = 200
) -> anthropic.Anthropic:
    """Anthropic's own SDK, talking to an upstream that always answers `data`."""
    transport = httpx2.MockTransport(
        lambda request: httpx2.Response(
            status, content=data, headers={"content-type": content_type}
        )
    )
    return anthropic.Anthropic(
        auth_token="sk-alice",
        base_url="http://relay/api",
        max_retries=0,
        http_client=httpx2.Client(transport=transport),
    )


def read_by_sdk(events: list[bytes]) -> Message:
    with client_for(b"".join(events)).messages.stream(**ASK) as stream:
        return stream.get_final_message()


def essence(message: dict) -> list:
    """What a message says, in its order.

    Neighbours of one kind together, without ids and signatures.
    """
    said = []
    for block in message["content"]:
        kind = block["type"]
        told = block[kind] if kind in ("text", "thinking") else (block["name"], block["input"])
        if kind != "tool_use" and said and said[-1][0] == kind:
            said[-1] = (kind, said[-1][1] + told)
        elif told:
            said.append((kind, told))
    return said


def assert_legal(events: list[dict]) -> None:
    """Blocks one after the other between message_start and message_stop.

    Or an error, and nothing after it.
    """
    events = [event for event in events if event["type"] != "ping"]
    failed = events[-1]["type"] == "error"
    told = events[:-1] if failed else events
    assert failed or [event["type"] for event in told[-2:]] == ["message_delta", "message_stop"]
    assert all(event["type"] == "message_start" for event in told[:1])
    opened, next_index = None, 0
    for event in told[1:] if failed else told[1:-2]:
        kind = event["type"]
        if kind == "content_block_start":
            assert opened is None and event["index"] == next_index
            opened, next_index = event["content_block"]["type"], next_index + 1
        else:
            assert kind in ("content_block_delta", "content_block_stop"), kind
            assert event["index"] == next_index - 1 and opened is not None
            assert (
                kind != "content_block_delta"
                or event["delta"]["type"]
                in {
                    "text": ("text_delta",),
                    "thinking": ("thinking_delta", "signature_delta"),
                    "tool_use": ("input_json_delta",),
                }[opened]
            )
            opened = None if kind == "content_block_stop" else opened
    assert failed or opened is None and next_index > 0


# Requests


@pytest.mark.parametrize("name", cases("requests"))
def test_it_turns_a_request_into_chat(name):
    request = case("requests", name)["request"]
    before = copy.deepcopy(request)
    agree("requests", name, "chat", messages.to_chat(request))
    assert request == before


@pytest.mark.parametrize("name", cases("requests"))
def test_it_makes_conversations_that_strict_upstreams_take(name):
    assert_strict(messages.to_chat(case("requests", name)["request"])["messages"])


def assert_strict(conversation: list[dict]) -> None:
    """The system first and once.

    After an assistant's calls, one tool message each, in their order.
    """
    assert [message["role"] for message in conversation].count("system") == (
        conversation[0]["role"] == "system"
    )
    owed = []
    for message in conversation:
        if message["role"] == "tool":
            assert message["tool_call_id"] == owed.pop(0) and isinstance(message["content"], str)
        else:
            assert not owed
            owed = [call["id"] for call in message.get("tool_calls", ())]
    assert not owed


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": ["Hi"]}, "messages.0"),
        ({"messages": [{"content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages.0.content.0"),
        (
            {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]},
            "messages.0.content.0.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
            "messages.0.content.0.text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
            "messages.0.content.0.source",
        ),
        ({"system": {"type": "text"}}, "system"),
        ({"system": [{"type": "text", "text": 1}]}, "system.0.text"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": ""}]}, "tools.0.name"),
        ({"tools": [{"name": "f", "input_schema": "{}"}]}, "tools.0.input_schema"),
        ({"tools": [{"name": "f"}], "tool_choice": "auto"}, "tool_choice"),
        ({"tools": [{"name": "f"}], "tool_choice": {"type": "required"}}, "tool_choice.type"),
        ({"tools": [{"name": "f"}], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"stop_sequences": "x"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences.0"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id"),
        ({"thinking": True}, "thinking"),
        ({"thinking": {"type": "enabled", "budget_tokens": "many"}}, "thinking.budget_tokens"),
        ({"output_config": {"effort": 3}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"model": ""}, "model"),
        ({"model": 4}, "model"),
    ],
)
def test_it_names_the_place_of_a_mistake(change, param):
    with pytest.raises(errors.BadRequest) as refused:
        messages.read(body.parse(json.dumps(ASK | change).encode()))
    assert refused.value.param == param
    assert f"'{param}'" in refused.value.message or param.startswith("messages.0.content.0.source")


def test_it_reads_what_the_spine_needs():
    ask = messages.read(
        body.parse(json.dumps(ASK | {"stream": True, "max_tokens": 32000}).encode())
    )
    assert (ask.model, ask.stream, ask.output_tokens_max, ask.choices, ask.usage_asked) == (
        "m",
        True,
        32000,
        1,
        True,
    )
    assert ask.input_tokens == messages.count_tokens(ASK) > 0
    assert ask.chat["messages"] == [{"role": "user", "content": "Hi"}]


def test_it_counts_system_tools_and_messages():
    counts = [
        messages.count_tokens({name: ASK[name] for name in ("model", "messages")} | more)
        for more in (
            {},
            {"system": "Be kind and brief."},
            {"tools": [{"name": "get_weather", "input_schema": {"type": "object"}}]},
            {
                "messages": [
                    *ASK["messages"],
                    {"role": "assistant", "content": "Hello"},
                    {"role": "user", "content": "Go"},
                ]
            },
        )
    ]
    assert all(count > counts[0] > 0 for count in counts[1:])
    MessageTokensCount.model_validate({"input_tokens": counts[0]}, strict=True)


def test_it_hashes_the_user_id_and_never_sends_it():
    made = messages.to_chat(ASK | {"metadata": {"user_id": "device of alice"}})
    assert "alice" not in json.dumps(made)
    assert (
        made["user"] == messages.to_chat(ASK | {"metadata": {"user_id": "device of alice"}})["user"]
    )
    assert (
        made["user"] != messages.to_chat(ASK | {"metadata": {"user_id": "device of bob"}})["user"]
    )


@given(st.text(min_size=1))
def test_every_id_survives_the_journey_through_anthropics_alphabet(call_id):
    spelled = own_id(call_id)
    assert spelled.replace("-", "a").replace("_", "a").isalnum() and spelled.isascii()
    history = [
        {"role": "user", "content": "Go"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": spelled, "name": "f", "input": {}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": spelled, "content": "1"}],
        },
    ]
    _, assistant, tool = messages.to_chat({"messages": history})["messages"]
    assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"] == call_id
    assert tool["content"] == "1"


def test_names_that_were_shortened_stay_apart():
    names = [chat_name("x" * 100 + end) for end in ("a", "b")] + [
        chat_name("a.b"),
        chat_name("a_b"),
    ]
    assert len(set(names)) == 4 and all(len(name) <= 64 for name in names)


# Answers


@pytest.mark.parametrize("name", cases("answers"))
def test_it_turns_an_answer_into_a_message(name):
    told = case("answers", name)
    made = messages.from_chat(told["doc"], ASK | told["ask"], Context("req_1", input_tokens=7))
    agree("answers", name, "message", made)
    Message.model_validate(made, strict=True)
    read = client_for(json.dumps(made).encode(), "application/json").messages.create(**ASK)
    assert read.content[0].type in ("text", "thinking", "tool_use")


@pytest.mark.parametrize("name", cases("answers"))
def test_a_plain_answer_and_its_stream_say_the_same(name):
    told = case("answers", name)
    choice = told["doc"]["choices"][0]
    delta = dict(choice["message"])
    if isinstance(delta.get("tool_calls"), list):
        delta["tool_calls"] = [
            {"index": index, **call} for index, call in enumerate(delta["tool_calls"])
        ]
    choice = {**choice, "delta": delta, "finish_reason": choice.get("finish_reason", "stop")}
    events = parsed(streamed([told["doc"] | {"choices": [choice]}], told["ask"]))
    made = messages.from_chat(told["doc"], ASK | told["ask"], Context("req_1", input_tokens=7))
    assert [
        event["content_block"]["type"] for event in events if event["type"] == "content_block_start"
    ] == [block["type"] for block in made["content"]]
    assert events[-2]["usage"] == made["usage"]
    assert events[-2]["delta"] == {name: made[name] for name in ("stop_reason", "stop_sequence")}


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("insufficient_system_resource", errors.UpstreamOverloaded),
        ("network_error", errors.UpstreamError),
        ("tool_calls", errors.UpstreamError),
    ],
)
def test_an_answer_that_is_an_error_in_disguise_is_one(finish, expected):
    said = None if finish == "tool_calls" else "Half"
    doc = {"choices": [{"message": {"content": said}, "finish_reason": finish}]}
    with pytest.raises(expected):
        messages.from_chat(doc, ASK, Context("req_1"))


# Streams


@pytest.mark.parametrize("name", cases("streams"))
def test_it_turns_a_stream_into_events(name):
    told = case("streams", name)
    made = b"".join(streamed(told["chunks"], told["ask"]))
    path = GOLDEN / "streams" / f"{name}.sse"
    if os.environ.get("GOLDEN") == "write":
        (GOLDEN / "streams" / f"{name}.json").write_text(readable(told))
        path.write_bytes(made)
    assert made.decode() == path.read_bytes().decode(), told["about"]


@pytest.mark.parametrize("name", cases("streams"))
def test_every_event_is_one_of_the_sdks_own_and_in_its_place(name):
    told = case("streams", name)
    events = parsed(streamed(told["chunks"], told["ask"]))
    assert_legal(events)
    for event in events:
        if event["type"] not in ("ping", "error"):
            EVENT.validate_python(event, strict=True)


@pytest.mark.parametrize("name", cases("streams"))
def test_the_official_sdk_reads_every_stream(name):
    told = case("streams", name)
    events = streamed(told["chunks"], told["ask"])
    last = parsed(events)[-1]
    if last["type"] == "error":
        with pytest.raises(anthropic.APIStatusError) as raised:
            read_by_sdk(events)
        assert raised.value.body == last
        return
    message = read_by_sdk(events)
    Message.model_validate(json.loads(message.model_dump_json(exclude={"parsed_output"})))
    used = message.usage
    assert message.stop_reason and used.input_tokens + used.cache_read_input_tokens > 0
    assert all(block.signature for block in message.content if block.type == "thinking")


def test_the_start_of_a_stream_estimates_its_input():
    start = parsed(streamed([None], {}))[0]
    assert start["message"]["usage"] == {
        "input_tokens": 7,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
    }


def test_a_streams_first_call_does_not_wait_for_its_end():
    def chunks():
        yield {
            "choices": [
                {
                    "delta": {
                        "tool_calls": [
                            {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"x":'}}
                        ]
                    }
                }
            ]
        }
        raise AssertionError("it read on before it gave what it had")

    events = messages.stream_from_chat(reader.read(chunks()), ASK, Context("req_1"))
    told = [json.loads(sse.data(next(events)))["type"] for _ in range(3)]
    assert told == ["message_start", "content_block_start", "content_block_delta"]


def test_a_call_whose_id_stands_in_the_history_gets_another():
    """Some servers number the calls of each answer from 0.

    Claude Code drops a call that it knows already.
    """
    ask = (
        ASK
        | TOOLS
        | {
            "messages": [
                *ASK["messages"],
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "call_0", "name": "f"}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_0"}]},
            ]
        }
    )
    call = {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    doc = {
        "choices": [
            {
                "message": {"tool_calls": [call, call | {"id": "call_1"}]},
                "finish_reason": "tool_calls",
            }
        ]
    }
    first, second = (
        block["id"] for block in messages.from_chat(doc, ask, Context("req_1"))["content"]
    )
    assert first.startswith("toolu_") and second == "call_1"
    assert [
        block["id"] for block in messages.from_chat(doc, ASK | TOOLS, Context("req_1"))["content"]
    ] == [
        "call_0",
        "call_1",
    ]


def test_long_thinking_that_nobody_sees_keeps_the_line_warm():
    thought = {"choices": [{"delta": {"reasoning_content": "hm "}}]}
    kinds = [event["type"] for event in parsed(streamed([thought] * 500, {}))]
    assert 5 < kinds.count("ping") < 50 and "content_block_start" not in kinds


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.RelayError)
    ],
)
def test_errors_have_anthropics_shape(kind):
    err = {
        errors.ModelNotFound: lambda: kind("gpt"),
        errors.UpstreamRefused: lambda: kind(422, "no"),
    }.get(kind, kind)()
    told = messages.error(err, "req_1")
    assert told == {
        "type": "error",
        "error": {"type": err.anthropic_type, "message": err.message},
        "request_id": "req_1",
    }
    event = messages.error_event(err, "req_1")
    assert sse.name(event) == b"error" and json.loads(sse.data(event)) == told
    with pytest.raises(anthropic.APIStatusError) as raised:
        client_for(json.dumps(told).encode(), "application/json", err.status).messages.create(**ASK)
    assert raised.value.type == err.anthropic_type


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Range of input length should be [1, 9]", "prompt is too long: Range of input length"),
        ("Prompt is too long", "Prompt is too long"),
        ("max_tokens must be at most 8192", "max_tokens must be at most 8192"),
    ],
)
def test_claude_code_is_told_in_its_words_that_its_history_is_too_long(message, told):
    err = provider_errors.read({"message": message}, 400)
    assert messages.error(err, "req_1")["error"]["message"].startswith(told)


def test_models_have_anthropics_shape():
    listed = [
        SimpleNamespace(
            id="deepseek-v4-pro", title="DeepSeek V4 Pro", context=1000000, output_max=384000
        ),
        SimpleNamespace(id="bare"),
    ]
    told = messages.models(listed)
    for model in told["data"]:
        ModelInfo.model_validate(model)
    assert [model["display_name"] for model in told["data"]] == ["DeepSeek V4 Pro", "bare"]
    page = client_for(json.dumps(told).encode(), "application/json").models.list(limit=20)
    assert [model.id for model in page] == ["deepseek-v4-pro", "bare"]
    assert messages.models([]) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


# Upstreams that speak it themselves


NATIVE = {
    "id": "msg_9",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "content": [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Oslo"}},
    ],
    "usage": {
        "input_tokens": 90,
        "cache_read_input_tokens": 10,
        "cache_creation_input_tokens": 5,
        "output_tokens": 20,
    },
}


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        (NATIVE, Usage(105, 10, 20, 10, 5)),
        ({"type": "message_start", "message": NATIVE}, Usage(105, 10, -1, 10, 5)),
        ({"type": "message_delta", "usage": {"output_tokens": 20}}, Usage(-1, -1, 20, 0, -1, -1)),
        (
            {
                "type": "message_delta",
                "usage": {"input_tokens": 0, "output_tokens": 20, "cache_read_input_tokens": 8},
            },
            Usage(-1, 8, 20, 8, -1, -1),
        ),
        (
            {
                "type": "message_start",
                "message": {"usage": {"input_tokens": 0, "output_tokens": 0}},
            },
            Usage(-1, 0, -1),
        ),
        (
            {
                "usage": {
                    "input_tokens": -5,
                    "output_tokens": "many",
                    "cache_read_input_tokens": None,
                }
            },
            Usage(-1, 0, -1),
        ),
        ({"type": "content_block_stop", "index": 0}, None),
        ({"usage": None}, None),
        ({"message": "x", "usage": 1}, None),
    ],
)
def test_usage_of_a_native_answer_counts_cached_input_as_input(doc, expected):
    assert messages.usage(doc) == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "ping"}, {}),
        ({"type": "content_block_start", "content_block": {"type": "text", "text": ""}}, {}),
        (
            {
                "type": "content_block_start",
                "content_block": {"type": "tool_use", "id": "a", "name": "f"},
            },
            {"content": True, "calls": True},
        ),
        (
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}},
            {"content": True},
        ),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": ""}}, {}),
        (
            {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "s"}},
            {},
        ),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"finish": "stop"}),
        ({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, {"finish": "length"}),
        ({"type": "message_stop"}, {"done": True}),
        (
            {"type": "error", "error": {"type": "overloaded_error", "message": "x"}},
            {"error": {"type": "overloaded_error", "message": "x"}},
        ),
        ({"error": "x"}, {"error": {"message": "x"}}),
        (
            NATIVE,
            {
                "content": True,
                "calls": True,
                "finish": "tool_calls",
                "usage": Usage(105, 10, 20, 10, 5),
            },
        ),
        ({"type": "message", "content": [{"type": "text", "text": ""}]}, {}),
    ],
)
def test_it_sees_in_native_events_what_the_spine_must_know(event, expected):
    told = messages.signs(json.dumps(event).encode())
    assert told == type(told)(**expected)


@pytest.mark.parametrize(
    "data", [b"", b"[DONE]", b"null", b"[1]", b"\xff", b'{"type": 1, "delta": 2, "content": 3}']
)
def test_events_that_are_none_tell_nothing(data):
    told = messages.signs(data)
    assert told == type(told)()


@pytest.mark.parametrize("name", cases("streams"))
def test_native_streams_pass_and_what_matters_in_them_is_seen(name):
    """Our own streams are native to who reads them.

    The plain pieces hold nothing that must be seen.
    """
    told = case("streams", name)
    for event in streamed(told["chunks"], told["ask"]):
        signs = messages.signs(sse.data(event))
        assert not messages.plain(event) or not (
            signs.usage or signs.done or signs.error or signs.finish
        )
        assert messages.clean(event) == event


def test_a_native_event_is_cleaned_of_what_breaks_clients():
    assert (
        messages.clean(b'data: {"type":"ping"}\r\n\r\n')
        == b'event: ping\ndata: {"type":"ping"}\n\n'
    )
    assert messages.clean(b": hello\r\n\r\n") == b": hello\n\n"
    assert messages.clean(b"data: [DONE]\n\n") == b"" == messages.clean(b"event: ping\n\n")
    assert messages.clean(b"data: {\n\n") == b"data: {\n\n"


def test_a_whole_native_message_becomes_a_stream_that_says_the_same():
    events = messages.as_events(NATIVE)
    assert_legal(parsed(events))
    unsent = {"content": {"__all__": "parsed_output"}}
    read = read_by_sdk(events).model_dump(mode="json", exclude_none=True, exclude=unsent)
    assert {name: read[name] for name in ("id", "content", "stop_reason", "usage")} == {
        name: NATIVE[name] for name in ("id", "content", "stop_reason", "usage")
    }


@pytest.mark.parametrize("content", [5, "text", {"text": "x"}, [5, None], None])
def test_a_whole_native_message_without_blocks_becomes_a_stream_without_blocks(content):
    events = parsed(messages.as_events(NATIVE | {"content": content, "stop_reason": "max_tokens"}))
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]


# Properties


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
IDS = st.sampled_from(["a", "b", "functions.f:0", "", "toolu_as_x", "toolu_as_ZnVu"])
NAMES = st.sampled_from(["f", "g", "a.b", "x" * 70, ""])
TEXT = st.text(max_size=12)


def anything_like(**members) -> st.SearchStrategy:
    """Objects with these members, some of which are missing or of some other type, and members
    nobody knows."""
    spoiled = {name: st.one_of(value, value, value, value, JSON) for name, value in members.items()}
    return st.fixed_dictionaries({}, optional=spoiled | {"tomorrow": JSON})


SOURCES = anything_like(
    type=st.sampled_from(["base64", "url", "text", "content", "file"]),
    data=TEXT,
    url=TEXT,
    media_type=TEXT,
    content=TEXT,
)
INNER = anything_like(
    type=st.sampled_from(["text", "image", "document", "search_result", "tool_reference", "x"]),
    text=TEXT,
    source=SOURCES,
    tool_name=NAMES,
    content=st.lists(anything_like(type=st.just("text"), text=TEXT), max_size=2),
)
BLOCKS = INNER | anything_like(
    type=st.sampled_from(
        [
            "tool_use",
            "tool_result",
            "thinking",
            "redacted_thinking",
            "server_tool_use",
            "compaction",
        ]
    ),
    id=IDS,
    name=NAMES,
    input=st.dictionaries(TEXT, JSON, max_size=2),
    tool_use_id=IDS,
    is_error=st.booleans(),
    content=TEXT | st.lists(INNER, max_size=2),
    thinking=TEXT,
    signature=TEXT,
)
BODIES = anything_like(
    model=TEXT,
    max_tokens=st.integers(-1, 10**6),
    stream=st.booleans(),
    temperature=st.floats(0, 2),
    top_p=st.just(1),
    system=TEXT | st.lists(anything_like(type=st.just("text"), text=TEXT), max_size=2),
    messages=st.lists(
        anything_like(
            role=st.sampled_from(["user", "assistant", "system"]),
            content=TEXT | st.lists(BLOCKS, max_size=4),
        ),
        max_size=5,
    ),
    tools=st.lists(
        anything_like(
            name=NAMES,
            description=TEXT,
            type=st.sampled_from(["custom", "bash_1", None]),
            input_schema=st.dictionaries(TEXT, JSON, max_size=2),
        ),
        max_size=2,
    ),
    tool_choice=anything_like(
        type=st.sampled_from(["auto", "any", "tool", "none"]),
        name=NAMES,
        disable_parallel_tool_use=st.booleans(),
    ),
    stop_sequences=st.lists(TEXT, max_size=2),
    metadata=anything_like(user_id=TEXT),
    thinking=anything_like(
        type=st.sampled_from(["enabled", "adaptive", "disabled"]), budget_tokens=st.integers()
    ),
    output_config=anything_like(
        effort=TEXT, format=anything_like(type=st.just("json_schema"), schema=JSON)
    ),
)


@settings(max_examples=400, deadline=None)
@given(BODIES)
def test_whatever_a_client_sends_is_served_or_refused_with_a_sentence(request):
    try:
        ask = messages.read(body.parse(json.dumps(request).encode()))
    except errors.BadRequest as refused:
        assert refused.message
        return
    assert_strict(ask.chat["messages"])
    assert None not in ask.chat.values()
    json.dumps(ask.chat, allow_nan=False)


CALLS = anything_like(
    index=st.integers(0, 2),
    id=IDS,
    type=st.just("function"),
    function=anything_like(
        name=NAMES, arguments=st.sampled_from(["", "{", "}", "{}", '{"a":1}', " "])
    ),
)
DELTAS = anything_like(
    role=st.just("assistant"),
    content=TEXT,
    reasoning_content=TEXT,
    reasoning=TEXT,
    tool_calls=st.lists(CALLS, max_size=3),
    function_call=JSON,
    refusal=TEXT,
)
USAGES = anything_like(
    prompt_tokens=st.integers(),
    completion_tokens=st.integers(),
    cached_tokens=st.integers(),
    prompt_tokens_details=anything_like(cached_tokens=st.integers()),
    completion_tokens_details=anything_like(reasoning_tokens=st.integers()),
)
CHUNKS = st.none() | anything_like(
    usage=USAGES,
    error=st.none(),
    choices=st.lists(
        anything_like(
            index=st.just(0),
            delta=DELTAS,
            usage=USAGES,
            finish_reason=st.sampled_from([None, None, "stop", "length", "tool_calls", "strange"]),
        ),
        max_size=2,
    ),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(CHUNKS, max_size=8), st.sampled_from([{}, THINKING]))
def test_whatever_an_upstream_sends_the_caller_reads_a_legal_stream(chunks, ask):
    events = streamed(chunks, ask)
    assert_legal(parsed(events))
    for event in parsed(events):
        if event["type"] not in ("ping", "error"):
            EVENT.validate_python(event)


@st.composite
def answers(draw) -> dict:
    """A chat answer as a good upstream gives it."""
    calls = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["f", "g", "x" * 70]), st.dictionaries(TEXT, JSON, max_size=2)
            ),
            max_size=3,
        )
    )
    message = {"role": "assistant", "content": draw(TEXT)}
    if reasoning := draw(TEXT):
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = [
            {
                "id": f"functions.{name[:9]}:{number}",
                "type": "function",
                "function": {
                    "name": chat_name(name),
                    "arguments": json.dumps(given, ensure_ascii=False),
                },
            }
            for number, (name, given) in enumerate(calls)
        ]
    return message


TOOLS = {"tools": [{"name": "f"}, {"name": "g"}, {"name": "x" * 70}]}


@settings(max_examples=200, deadline=None)
@given(answers())
def test_an_answer_that_comes_back_as_history_is_what_it_was(message):
    ask = ASK | THINKING | TOOLS
    doc = {
        "choices": [
            {
                "message": message,
                "finish_reason": "tool_calls" if "tool_calls" in message else "stop",
            }
        ]
    }
    made = messages.from_chat(doc, ask, Context("req_1"))
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": block["id"]}
        for block in made["content"]
        if block["type"] == "tool_use"
    ]
    history = [
        *ASK["messages"],
        {"role": "assistant", "content": made["content"]},
        {"role": "user", "content": [*results, {"type": "text", "text": "Go on"}]},
    ]
    chat = messages.to_chat(ask | {"messages": history})["messages"]
    if not any(message.get(name) for name in ("content", "reasoning_content", "tool_calls")):
        assert [each["role"] for each in chat] == ["user", "user"]
        return
    assert chat[1] == message
    assert [each["tool_call_id"] for each in chat[2:-1]] == [
        call["id"] for call in message.get("tool_calls", ())
    ]


@settings(max_examples=200, deadline=None)
@given(answers(), st.data())
def test_however_an_answer_is_cut_into_chunks_the_sdk_puts_it_together_again(message, data):
    ask = THINKING | TOOLS
    finish = "tool_calls" if "tool_calls" in message else "stop"
    deltas = [
        {name: piece}
        for name in ("reasoning_content", "content")
        if message.get(name)
        for piece in cut(message[name], data)
    ]
    deltas += interleaved(message.get("tool_calls", ()), data)
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    read = read_by_sdk(
        streamed([*chunks, {"choices": [{"delta": {}, "finish_reason": finish}]}], ask)
    )
    made = messages.from_chat(
        {"choices": [{"message": message, "finish_reason": finish}]}, ASK | ask, Context("req_1")
    )
    assert essence(json.loads(read.model_dump_json())) == essence(made)


def cut(text: str, data) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def interleaved(calls: list[dict], data) -> list[dict]:
    """The calls' pieces as deltas, in any order that keeps each call's own and that in which they
    begin."""
    queues = []
    for index, call in enumerate(calls):
        first = {
            "index": index,
            "id": call["id"],
            "function": {"name": call["function"]["name"], "arguments": ""},
        }
        pieces = cut(call["function"]["arguments"], data)
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        queues.append([first, *rest])
    deltas = []
    while any(queues):
        next_one = next((queue for queue in queues if queue and "id" in queue[0]), None)
        queue = data.draw(
            st.sampled_from(
                [queue for queue in queues if queue and ("id" not in queue[0] or queue is next_one)]
            )
        )
        deltas.append({"tool_calls": [queue.pop(0)]})
    return deltas


STRICT = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (STRICT, True),
        (STRICT | {"required": []}, False),
        (STRICT | {"additionalProperties": True}, False),
        (STRICT | {"required": ["a", "b"]}, False),
        (STRICT | {"properties": {"a": {"type": "object"}}}, False),
        (STRICT | {"properties": {"a": {"type": "array", "items": STRICT}}}, True),
        (STRICT | {"properties": {"a": {"anyOf": [STRICT, {"type": "object"}]}}}, False),
        ({"type": "string"}, True),
    ],
)
def test_a_schema_is_strict_only_where_strict_providers_take_it(schema, strict):
    body = {
        "model": "m",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": "Hi"}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}},
    }
    asked = request.to_chat(body)["response_format"]["json_schema"]
    assert asked.get("strict", False) is strict and asked["schema"] == schema
