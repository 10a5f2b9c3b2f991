"""Laws of the Responses wire that hold for any request and any upstream, found out with random
ones."""

from __future__ import annotations

import contextlib
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay import body, errors
from relay.wires import chat, reader, responses
from relay.wires.interface import Context
from tests.wires.responses_stage import KEY, final, read_stream, valid_response

CONTEXT = Context("req_1", 1, KEY)
WORDS = [
    "",
    "a",
    "f",
    "n",
    "auto",
    "required",
    "none",
    "user",
    "assistant",
    "system",
    "developer",
    "tool",
    "message",
    "function",
    "custom",
    "namespace",
    "local_shell",
    "web_search",
    "allowed_tools",
    "reasoning",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "local_shell_call",
    "shell_call_output",
    "additional_tools",
    "item_reference",
    "input_text",
    "output_text",
    "refusal",
    "input_image",
    "input_file",
    "summary_text",
    "json_schema",
    "json_object",
    "text",
    "grammar",
    "high",
    "{}",
    '{"a": 1}',
    "data:text/plain,x",
    "data:text/plain;base64,////",
    "reasoning.encrypted_content",
    "rs1.AAAA",
    "c1",
    "c2",
]
MEMBERS = [
    "type",
    "role",
    "content",
    "text",
    "name",
    "namespace",
    "tools",
    "function",
    "custom",
    "parameters",
    "strict",
    "description",
    "format",
    "definition",
    "call_id",
    "id",
    "arguments",
    "input",
    "output",
    "action",
    "summary",
    "encrypted_content",
    "image_url",
    "url",
    "file_data",
    "detail",
    "schema",
    "effort",
    "mode",
    "tool_calls",
]

atoms = st.one_of(
    st.sampled_from(WORDS),
    st.none(),
    st.booleans(),
    st.integers(-2, 9),
    st.floats(0, 1),
    st.text(max_size=3),
)
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5)
    ),
    max_leaves=20,
)
texts = st.text(min_size=1, max_size=30)


def bodies(values):
    """Requests; here and there one of these `values` stands in place of what belongs there."""

    def mostly(*good):
        return st.one_of(*good, *good, *good, values)

    parts = st.one_of(
        *(
            st.fixed_dictionaries({"type": st.just(kind), member: mostly(texts)})
            for kind, member in (
                ("input_text", "text"),
                ("output_text", "text"),
                ("refusal", "refusal"),
                ("input_image", "image_url"),
            )
        )
    )
    contents = mostly(texts, st.lists(parts, max_size=3))
    ids = st.sampled_from(["c1", "c2"])
    items = st.one_of(
        st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "developer"]), "content": contents}
        ),
        st.fixed_dictionaries(
            {
                "type": st.just("function_call"),
                "name": st.sampled_from(["f", "g"]),
                "call_id": ids,
                "arguments": mostly(texts),
            },
            optional={"namespace": mostly(st.just("n"))},
        ),
        st.fixed_dictionaries(
            {
                "type": st.just("custom_tool_call"),
                "name": st.just("p"),
                "call_id": ids,
                "input": texts,
            }
        ),
        st.fixed_dictionaries(
            {"type": st.just("function_call_output"), "call_id": ids, "output": contents}
        ),
        st.fixed_dictionaries(
            {"type": st.just("reasoning"), "summary": mostly(st.lists(parts, max_size=2))}
        ),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["web_search_call", "compaction", "user"]), "id": texts}
        ),
    )
    tool = st.recursive(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["function", "custom", "web_search"]),
                "name": mostly(st.sampled_from(["f", "g", "p"])),
            },
            optional={
                "parameters": mostly(st.just({"type": "object"})),
                "strict": mostly(st.booleans()),
                "description": mostly(texts),
                "format": mostly(st.just({"type": "text"})),
            },
        ),
        lambda inner: st.fixed_dictionaries(
            {
                "type": st.just("namespace"),
                "name": st.just("n"),
                "tools": st.lists(inner, max_size=2),
            }
        ),
        max_leaves=3,
    )
    choices = st.sampled_from(
        [
            "auto",
            "none",
            "required",
            {"type": "function", "name": "f"},
            {"type": "custom", "name": "p"},
            {"type": "web_search"},
            {"type": "allowed_tools", "tools": [{"type": "namespace", "name": "n"}]},
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}],
            },
        ]
    )
    formats = st.sampled_from(
        [
            {},
            {"format": {"type": "json_object"}},
            {"format": {"type": "text"}, "verbosity": "odd"},
            {"format": {"type": "json_schema", "name": "x", "schema": {}, "strict": None}},
        ]
    )
    efforts = st.fixed_dictionaries(
        {}, optional={"effort": mostly(texts), "summary": mostly(st.just("auto"))}
    )
    return st.fixed_dictionaries(
        {
            "model": st.just("m"),
            "input": mostly(texts, st.lists(mostly(items), min_size=1, max_size=6)),
        },
        optional={
            "tools": mostly(st.lists(mostly(tool), max_size=3)),
            "tool_choice": mostly(choices),
            "instructions": mostly(texts),
            "text": mostly(formats),
            "temperature": mostly(st.floats(0, 2)),
            "reasoning": mostly(efforts),
            "metadata": mostly(st.just({"a": "b"})),
            "truncation": mostly(st.just("auto")),
            "max_tool_calls": mostly(st.just(3)),
            "include": mostly(st.just(["reasoning.encrypted_content"])),
            "prompt_cache_key": mostly(texts),
            "top_logprobs": mostly(st.just(3)),
            "parallel_tool_calls": mostly(st.booleans()),
            "max_output_tokens": mostly(st.integers(1, 9)),
            "stream": mostly(st.booleans()),
        },
    )


often = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CHUNKS = [
    {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "content": "x",
                    "reasoning_content": "y",
                    "tool_calls": [
                        {"index": 0, "id": "c", "function": {"name": name, "arguments": '{"a":1}'}}
                    ],
                },
                "finish_reason": finish,
            }
        ]
    }
    for name, finish in (("f", None), ("n__f", "stop"))
]


@often
@given(bodies(st.nothing()))
def test_a_request_that_is_right_is_taken(asked):
    try:
        responses.to_chat(asked, KEY)
    except errors.BadRequest as err:
        flaws = (
            "nothing to answer",
            "cannot be run",
            "not among the tools",
            "both called",
            "Only text",
        )
        assert any(flaw in err.message for flaw in flaws)


@often
@given(st.one_of(bodies(st.nothing()), bodies(values)))
def test_a_request_becomes_chat_or_is_refused_with_a_place(asked):
    parsed = body.parse(json.dumps(asked).encode())
    try:
        ask = responses.read(parsed, Context(key=KEY))
    except errors.BadRequest as err:
        assert err.param and err.message
        return
    request = ask.chat or responses.to_chat(parsed, KEY, lenient=True)
    chat.read(body.parse(json.dumps(request).encode()))
    _calls_are_answered(request["messages"])
    end = final(read_stream(list(responses.stream_from_chat(reader.read(CHUNKS), parsed, CONTEXT))))
    assert end["status"] == "completed"


def _calls_are_answered(messages: list[dict]) -> None:
    """Every tool message follows the calls of an assistant, one for each, in their order."""
    waiting = []
    for message in messages:
        if message["role"] == "tool":
            assert waiting.pop(0) == message["tool_call_id"]
            continue
        assert not waiting
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        assert all(
            isinstance(json.loads(call["function"]["arguments"]), dict)
            for call in message.get("tool_calls", ())
        )
    assert not waiting


# What upstreams send

odd = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "x", "{}", "stop", "f"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(
                [
                    "content",
                    "reasoning",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "index",
                    "id",
                    "text",
                    "prompt_tokens",
                    "completion_tokens",
                    "delta",
                    "error",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=10,
)
odd_calls = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.sampled_from([0, 1, None, "x"]),
            "id": st.sampled_from(["a", "b", "", None]),
            "function": st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from(["f", "p", "s", "", None]),
                    "arguments": st.sampled_from(
                        ["", "{", '{"a":', "1}", "{}", " ", "}", None, {"a": 1}]
                    ),
                },
            ),
        },
    ),
    max_size=2,
)
odd_chunks = st.lists(
    st.one_of(
        st.none(),
        st.just(errors.UpstreamTimeout()),
        st.fixed_dictionaries({}, optional={"choices": odd, "usage": odd, "error": odd}),
        st.builds(
            lambda delta, finish: {
                "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]
            },
            st.fixed_dictionaries(
                {},
                optional={
                    "content": st.sampled_from(["", "x", None]),
                    "tool_calls": odd_calls,
                    "reasoning_content": st.sampled_from(["", "y"]),
                    "refusal": odd,
                },
            ),
            st.sampled_from(
                [None, None, None, "stop", "length", "tool_calls", "sensitive", "network_error"]
            ),
        ),
    ),
    max_size=12,
)
ODD_ASK = {
    "model": "m",
    "input": "x",
    "tools": [{"type": "custom", "name": "p"}, {"type": "local_shell"}],
}


@often
@given(odd_chunks)
def test_whatever_an_upstream_sends_the_stream_keeps_the_rules(chunks):
    final(read_stream(list(responses.stream_from_chat(reader.read(chunks), ODD_ASK, CONTEXT))))


@often
@given(odd, odd)
def test_whatever_an_upstream_answers_the_response_is_valid(message, usage):
    for doc in (
        {"choices": [{"message": message}], "usage": usage},
        {"choices": message},
        {"choices": [message]},
    ):
        with contextlib.suppress(errors.UpstreamError):
            valid_response(responses.from_chat(doc, ODD_ASK, CONTEXT))
        for told in (responses.usage(doc), responses.usage({"response": message})):
            assert told is None or told.cached_tokens >= 0


# There and back

arguments = st.dictionaries(st.sampled_from(["a", "b"]), st.text(max_size=5), max_size=2).map(
    json.dumps
)
answers = st.fixed_dictionaries(
    {
        "content": st.text(max_size=20),
        "reasoning_content": st.text(max_size=20),
        "calls": st.lists(st.tuples(st.sampled_from(["f", "n__g", "p"]), arguments), max_size=3),
    }
)
ASK = {
    "model": "m",
    "input": "x",
    "include": ["reasoning.encrypted_content"],
    "tools": [
        {"type": "function", "name": "f"},
        {"type": "custom", "name": "p"},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}]},
    ],
}


def message_of(answer: dict) -> dict:
    """The answer as a chat message; what a freeform tool is given stands in `input`."""
    message = {"role": "assistant", "content": answer["content"]}
    if answer["reasoning_content"]:
        message["reasoning_content"] = answer["reasoning_content"]
    told = [
        json.dumps({"input": args}, ensure_ascii=False) if name == "p" else args
        for name, args in answer["calls"]
    ]
    if told:
        message["tool_calls"] = [
            {
                "id": f"call_{index}",
                "type": "function",
                "function": {"name": name, "arguments": args},
            }
            for index, ((name, _), args) in enumerate(zip(answer["calls"], told, strict=True))
        ]
    return message


@often
@given(answers)
def test_an_answer_that_is_sent_back_is_the_assistants_turn_again(answer):
    message = message_of(answer)
    doc = {"choices": [{"message": message, "finish_reason": "stop"}]}
    output = responses.from_chat(doc, ASK, CONTEXT)["output"]
    results = [
        {"type": item["type"] + "_output", "call_id": item["call_id"], "output": "ok"}
        for item in output
        if "call_id" in item
    ]
    asked = ASK | {
        "input": [
            {"role": "user", "content": "x"},
            *output,
            *results,
            {"role": "user", "content": "y"},
        ]
    }
    told = responses.to_chat(asked, KEY)["messages"]
    expected = [message] if message["content"] or "tool_calls" in message else []
    assert told[1:-1] == expected + [
        {"role": "tool", "tool_call_id": call["id"], "content": "ok"}
        for call in message.get("tool_calls", ())
    ]


@often
@given(answers, st.data())
def test_however_a_stream_is_cut_its_end_is_the_plain_answer(answer, data):
    message = message_of(answer)
    plain = responses.from_chat(
        {"choices": [{"message": message, "finish_reason": "stop"}]},
        ASK,
        CONTEXT,
    )
    deltas = [
        {name: piece}
        for name in ("reasoning_content", "content")
        for piece in cut(data, message.get(name, ""))
    ]
    parts = [
        [
            {
                "tool_calls": [
                    {
                        "index": index,
                        **(call if at == 0 else {}),
                        "function": {**(call["function"] if at == 0 else {}), "arguments": piece},
                    }
                ]
            }
            for at, piece in enumerate(cut(data, call["function"]["arguments"]))
        ]
        for index, call in enumerate(message.get("tool_calls", ()))
    ]
    if parts and data.draw(st.booleans()):
        parts = [interleaved(parts)]
    chunks = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        for delta in deltas + [delta for part in parts for delta in part]
    ]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    stream = responses.stream_from_chat(reader.read(chunks), ASK, CONTEXT)
    assert final(read_stream(list(stream))) == plain


def cut(data, text: str) -> list[str]:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def interleaved(parts: list[list[dict]]) -> list[dict]:
    """One piece of each call in turn, while there are any."""
    longest = max(map(len, parts))
    return [part[at] for at in range(longest) for part in parts if at < len(part)]
