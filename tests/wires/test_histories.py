"""What stands in the history of a conversation never stops an agent, on no wire.

An agent repeats its history with every turn: what is refused once is refused for good. Only the
newest words of the user may be, and then the part is named.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_upstream import answer
from tests.stage import model_config, upstream_config
from tests.wires.scripted_model import Says

PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
PNG = {"type": "base64", "media_type": "image/png", "data": "iVBORw0="}
LOST = "no longer in this conversation"

ODD_BLOCKS = {
    "a PDF": {"type": "document", "source": PDF},
    "a file": {"type": "document", "source": {"type": "file", "file_id": "f"}},
    "a document without a source": {"type": "document"},
    "an image by its file": {"type": "image", "source": {"type": "file", "file_id": "f"}},
    "an image of nothing": {"type": "image", "source": None},
    "a container upload": {"type": "container_upload", "file_id": "f"},
    "audio": {"type": "audio", "source": PDF},
    "a block of tomorrow": {"type": "hologram", "depth": 3},
    "a text that is a number": {"type": "text", "text": 7},
    "no type": {"text": "x"},
    "a type that is none": {"type": None},
    "null": None,
    "a number": 5,
    "a text in place of a block": "x",
    "a result of tomorrow": {"type": "code_execution_tool_result", "content": {"stdout": "1"}},
}
odd = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["type", "text", "source", "content", "id", "name", "input", "data"]),
            st.one_of(inner, st.sampled_from(["text", "image", "document", "tool_result"])),
            max_size=4,
        ),
    ),
    max_leaves=6,
)


@pytest.fixture(autouse=True)
def answering(fake):
    fake.always(Says("Sunny."))


def messages(alice, content, *more, **members):
    """Claude Code's second turn: the first one held `content`."""
    turns = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Hm."},
        *more,
        {"role": "user", "content": "Never mind."},
    ]
    return alice.post(
        "/api/v1/messages", {"model": "test-model", "max_tokens": 9, "messages": turns} | members
    )


def said(fake) -> str:
    """All that the upstream was told, as one text."""
    return json.dumps(fake.requests[-1].json["messages"], ensure_ascii=False)


@pytest.mark.parametrize("block", ODD_BLOCKS)
def test_no_block_of_the_history_is_refused(alice, fake, block):
    done = messages(alice, [{"type": "text", "text": "Look."}, ODD_BLOCKS[block]])
    assert done.status == 200, done.body
    assert "Look." in said(fake) and "Never mind." in said(fake)


@pytest.mark.parametrize("block", ODD_BLOCKS)
def test_no_block_of_the_models_own_turns_is_refused(alice, fake, block):
    own = [{"type": "text", "text": "Seen."}, ODD_BLOCKS[block]]
    more = ({"role": "user", "content": "Go on."}, {"role": "assistant", "content": own})
    assert messages(alice, "Hi", *more).status == 200
    assert "Seen." in said(fake)


def test_a_pdf_beside_a_tools_result_is_said_in_words(alice, fake):
    """Claude Code's way to read one; the refusal killed the session for good."""
    turn = [
        {"type": "tool_result", "tool_use_id": "t1", "content": "PDF file read"},
        {"type": "document", "source": PDF},
    ]
    call = {"type": "tool_use", "id": "t1", "name": "Read", "input": {}}
    asked = [
        {"role": "user", "content": "read a.pdf"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": turn},
    ]
    body = {"model": "test-model", "max_tokens": 9, "messages": asked}
    assert alice.post("/api/v1/messages", body).status == 200
    assert "document, which this model cannot read" in said(fake) and "JVBERi0" not in said(fake)
    assert [each["role"] for each in fake.requests[-1].json["messages"]].count("tool") == 1


@pytest.mark.parametrize("block", ["a PDF", "a file", "a container upload", "audio"])
def test_what_is_new_and_cannot_be_read_is_refused_by_its_place(alice, block):
    body = {
        "model": "test-model",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [ODD_BLOCKS[block]]}],
    }
    refused = alice.post("/api/v1/messages", body)
    assert refused.status == 400 and "messages.0.content.0" in refused.json["error"]["message"]
    assert alice.post("/v1/messages/count_tokens", body).status == 200


@given(st.lists(odd, max_size=3), odd)
def test_whatever_stands_in_the_history_the_newest_words_arrive(alice, fake, blocks, content):
    own = {"role": "assistant", "content": content}
    assert messages(alice, blocks, own).status == 200
    assert "Never mind." in said(fake)


def test_a_result_whose_call_was_compacted_away_reaches_the_model(alice, fake):
    result = {"type": "tool_result", "tool_use_id": "gone", "content": "42"}
    assert messages(alice, [result]).status == 200
    assert "42" in said(fake) and LOST in said(fake)


def test_a_native_upstream_is_sent_what_only_it_can_read(start_relay, person, fake):
    relay = start_relay(
        upstreams=[upstream_config(fake.url, speaks=["messages"])], models=[model_config()]
    )
    alice = person("alice", relay).given(wallet="10")
    message = {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Read."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 2},
    }
    fake.always(answer(message))
    block = {"type": "document", "source": PDF}
    body = {
        "model": "test-model",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [block]}],
    }
    assert alice.post("/api/v1/messages", body).status == 200
    assert fake.requests[-1].json["messages"][0]["content"] == [block]


DATA = "data:image/png;base64,iVBORw0="
PICTURES = {
    "OpenAI's": {"type": "image_url", "image_url": {"url": DATA}},
    "of Responses": {"type": "input_image", "image_url": DATA},
    "Anthropic's": {"type": "image", "source": PNG},
    "by its address": {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}},
    "of MCP": {"type": "image", "data": "iVBORw0=", "mimeType": "image/png"},
}
WRAPPED = {
    "a list": lambda part: json.dumps([part]),
    "a list with a text": lambda part: json.dumps([{"type": "text", "text": "shot"}, part]),
    "alone": json.dumps,
    "a result of MCP": lambda part: json.dumps({"content": [part], "isError": False}),
}


@pytest.mark.parametrize("wrapping", WRAPPED)
@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("wire", ["messages", "responses"])
def test_a_picture_in_the_json_of_a_tools_output_is_seen_as_one(alice, fake, wire, shape, wrapping):
    """As text a screenshot costs more LLM tokens than any model takes."""
    output = WRAPPED[wrapping](PICTURES[shape])
    if wire == "messages":
        call = {"type": "tool_use", "id": "t", "name": "shot", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "t", "content": output}
        more = ({"role": "assistant", "content": [call]}, {"role": "user", "content": [result]})
        assert messages(alice, "Hi", {"role": "user", "content": "look"}, *more).status == 200
    else:
        answered = {"type": "function_call_output", "call_id": "c", "output": output}
        assert responses(alice, CALL, answered).status == 200
    sent = fake.requests[-1].json["messages"]
    parts = [part for each in sent if isinstance(each["content"], list) for part in each["content"]]
    (url,) = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert url in (DATA, "https://x.test/a.png")
    assert "iVBORw0" not in "".join(
        each["content"] for each in sent if isinstance(each["content"], str)
    )


@pytest.mark.parametrize("shape", PICTURES)
@pytest.mark.parametrize("place", ["a result", "the users words"])
def test_a_picture_is_seen_in_whichever_words_it_is_told(alice, fake, shape, place):
    call = {"type": "tool_use", "id": "t", "name": "shot", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [PICTURES[shape]]}
    turns = (
        [
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": [call]},
            {"role": "user", "content": [result]},
        ]
        if place == "a result"
        else [{"role": "user", "content": [PICTURES[shape], {"type": "text", "text": "look"}]}]
    )
    body = {"model": "test-model", "max_tokens": 9, "messages": turns}
    assert alice.post("/api/v1/messages", body).status == 200
    assert '"image_url"' in said(fake)


def test_what_servers_did_in_the_history_is_told_with_its_words_and_without_its_seals(alice, fake):
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "tides"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "s",
            "content": [
                {"type": "web_search_result", "title": "Tables", "encrypted_content": "c2VhbA=="}
            ],
        },
        {"type": "code_execution_tool_result", "content": {"stdout": "42", "file_id": "f_1"}},
        {"type": "hologram", "cube": "A" * 400},
    ]
    assert messages(alice, "Hi", {"role": "assistant", "content": blocks}).status == 200
    told = said(fake)
    assert all(word in told for word in ("web_search", "tides", "Tables", "42"))
    assert not any(word in told for word in ("c2VhbA", "f_1", "AAAA"))


@pytest.mark.parametrize(
    "content, text", [(5, "5"), (True, "true"), ({"a": "b"}, "(part)\nb"), (None, "(no output)")]
)
def test_a_result_that_is_no_text_is_told_as_one(alice, fake, content, text):
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": content}
    more = ({"role": "assistant", "content": [call]}, {"role": "user", "content": [result]})
    assert messages(alice, "Hi", *more).status == 200
    assert [
        each["content"] for each in fake.requests[-1].json["messages"] if each["role"] == "tool"
    ] == [text]


@pytest.mark.parametrize(
    "given, sent",
    [('{"a": 1}', {"a": 1}), ("ls", {"input": "ls"}), ("", {}), (None, {}), ([1], {"input": [1]})],
)
def test_the_input_of_a_call_is_an_object_whatever_the_client_kept(alice, fake, given, sent):
    call = {"type": "tool_use", "id": "t", "name": "f", "input": given}
    assert messages(alice, "Hi", {"role": "assistant", "content": [call]}).status == 200
    (turn,) = [each for each in fake.requests[-1].json["messages"] if each.get("tool_calls")]
    assert json.loads(turn["tool_calls"][0]["function"]["arguments"]) == sent


def test_another_agents_message_is_one_to_be_answered(alice, fake):
    """At the end it would else be taken for the beginning of the model's own answer."""
    item = {
        "type": "agent_message",
        "author": "/root/reviewer",
        "content": [
            {"type": "input_text", "text": "All is well."},
            {"type": "encrypted_content", "encrypted_content": "c2VhbA=="},
        ],
    }
    body = {"model": "test-model", "input": [{"role": "user", "content": "Go."}, item]}
    assert alice.post("/api/v1/responses", body).status == 200
    last = fake.requests[-1].json["messages"][-1]
    assert last["role"] == "user" and "/root/reviewer\nAll is well." in last["content"]
    assert "c2VhbA" not in last["content"]


@pytest.mark.parametrize(
    "tools, choice",
    [
        (
            [{"type": "web_search_20250305", "name": "web_search"}],
            {"type": "tool", "name": "web_search"},
        ),
        ([{"type": "web_search_20250305", "name": "web_search"}], {"type": "any"}),
        (
            [{"name": "f"}, {"type": "web_fetch_20250910", "name": "w"}],
            {"type": "tool", "name": "w"},
        ),
    ],
)
def test_a_tool_that_is_demanded_and_cannot_be_had_is_refused(alice, tools, choice):
    refused = messages(alice, "Hi", tools=tools, tool_choice=choice)
    assert refused.status == 400 and "tool" in refused.json["error"]["message"]


@pytest.mark.parametrize("kind", ["bash_20250124", "text_editor_20250728", "memory_20250818"])
def test_tools_that_the_caller_runs_are_offered_to_the_model(alice, fake, kind):
    tools = [{"type": kind, "name": "it"}]
    assert messages(alice, "Hi", tools=tools, tool_choice={"type": "any"}).status == 200
    (tool,) = fake.requests[-1].json["tools"]
    assert tool["function"]["name"] == "it" and tool["function"]["parameters"]["properties"]


# ---- responses


def responses(alice, *items, **members):
    """Codex's next turn: `items` stand in its history."""
    asked = [{"role": "user", "content": "Go."}, *items, {"role": "user", "content": "Never mind."}]
    body = {"model": "test-model", "input": asked} | members
    return alice.post("/api/v1/responses", body)


CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
ODD_ITEMS = {
    "an item of tomorrow": {"type": "hologram", "depth": 3},
    "a web search": {"type": "web_search_call", "id": "ws_1", "status": "completed"},
    "a call without a name": {"type": "function_call", "call_id": "c", "arguments": "{}"},
    "a call without an id": {"type": "function_call", "name": "f", "arguments": "{}"},
    "a call whose arguments are an object": CALL | {"arguments": {"a": 1}},
    "a shell's call of nothing": {"type": "shell_call", "call_id": "c", "action": None},
    "an output that is a number": {"type": "function_call_output", "call_id": "c", "output": 5},
    "an output without an id": {"type": "function_call_output", "output": "5"},
    "an output of an unknown part": {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "hologram"}],
    },
    "reasoning that is a text": {"type": "reasoning", "summary": "x"},
    "a message of a king": {"role": "king", "content": "x"},
    "an assistant's picture": {
        "role": "assistant",
        "content": [{"type": "input_image", "image_url": "x"}],
    },
    "an assistant's null": {"role": "assistant", "content": None},
    "a PDF": {
        "role": "user",
        "content": [{"type": "input_file", "file_data": "data:application/pdf;base64,AA"}],
    },
    "a picture by its file": {
        "role": "user",
        "content": [{"type": "input_image", "file_id": "f"}],
    },
    "a type that is a number": {"type": 5},
    "a text": "x",
    "null": None,
}


@pytest.mark.parametrize("item", ODD_ITEMS)
def test_no_item_of_the_history_is_refused(alice, fake, item):
    own = {"role": "assistant", "content": "Seen."}
    done = responses(alice, ODD_ITEMS[item], own)
    assert done.status == 200, done.body
    assert "Go." in said(fake) and "Seen." in said(fake) and "Never mind." in said(fake)


@given(st.lists(odd, max_size=4))
def test_whatever_items_stand_in_the_history_the_newest_words_arrive(alice, fake, items):
    done = responses(alice, *items, {"role": "assistant", "content": "Seen."})
    if done.status != 200:  # only what refers to an answer that is not stored here
        assert done.json["error"]["code"] == "unsupported_parameter"
    else:
        assert "Never mind." in said(fake)


def test_an_output_whose_call_was_compacted_away_reaches_the_model(alice, fake):
    output = {"type": "function_call_output", "call_id": "gone", "output": "42"}
    alone = alice.post("/api/v1/responses", {"model": "test-model", "input": [output]})
    assert alone.status == 200 and "42" in said(fake) and LOST in said(fake)
    assert responses(alice, output).status == 200 and "42" in said(fake)


@pytest.mark.parametrize(
    "output",
    [
        '[{"type":"text","text":"an image"}]',
        '[{"image":1}]',
        "[image",
        '{"type":"image"}',
        '{"type":"image","url":7}',
        '{"image":"x","content":[]}',
        '[{"type":"image","data":"x"}]',
        '[{"type":"image","url":"https://x.test"},5]',
    ],
)
def test_other_json_of_a_tool_stays_the_text_that_it_is(alice, fake, output):
    answered = {"type": "function_call_output", "call_id": "c", "output": output}
    assert responses(alice, CALL, answered).status == 200
    assert output in [each["content"] for each in fake.requests[-1].json["messages"]]


def test_what_the_developer_says_later_stays_in_its_place(alice, fake):
    """Moved to the front it would cost the provider's cache of the whole conversation."""
    early = {"role": "developer", "content": "Be kind."}
    late = {"role": "developer", "content": "Be brief."}
    own = {"role": "assistant", "content": "Seen."}
    body = {"model": "test-model", "input": [early, {"role": "user", "content": "Go."}, own, late]}
    assert alice.post("/api/v1/responses", body).status == 200
    sent = fake.requests[-1].json["messages"]
    assert [each["role"] for each in sent] == ["system", "user", "assistant", "user"]
    assert sent[0]["content"] == "Be kind." and "Be brief." in sent[3]["content"]


@pytest.mark.parametrize("item", ["a PDF", "a picture by its file"])
def test_a_new_part_that_cannot_be_read_is_refused_by_its_place(alice, item):
    body = {"model": "test-model", "input": [ODD_ITEMS[item]]}
    refused = alice.post("/api/v1/responses", body)
    assert refused.status == 400 and refused.json["error"]["param"].startswith("input[0].content")
    assert alice.post("/api/v1/responses/input_tokens", body).status == 200


@pytest.mark.parametrize(
    "kind, arguments, item",
    [
        ("shell", {"commands": ["ls"]}, {"type": "shell_call", "action": {"commands": ["ls"]}}),
        (
            "apply_patch",
            {"type": "delete_file", "path": "a"},
            {"type": "apply_patch_call", "operation": {"type": "delete_file", "path": "a"}},
        ),
    ],
)
def test_tools_that_the_caller_of_responses_runs_come_back_as_their_calls(
    alice, fake, kind, arguments, item
):
    function = {"name": kind, "arguments": json.dumps(arguments)}
    message = {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "function", "function": function}],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    fake.next(answer({"object": "chat.completion", "choices": [choice]}))
    done = responses(alice, tools=[{"type": kind}], tool_choice={"type": kind})
    assert done.status == 200, done.body
    assert fake.requests[-1].json["tool_choice"]["function"]["name"] == kind
    (made,) = done.json["output"]
    for name, value in item.items():
        expected = value if isinstance(value, str) else made[name] | value
        assert made[name] == expected


def instructions(fake) -> str:
    first = fake.requests[-1].json["messages"][0]
    return first["content"] if first["role"] == "system" else ""


MISSING = "These tools cannot be used in this conversation: "


def test_tools_that_cannot_be_had_are_said_behind_the_instructions(alice, fake):
    tools = [
        {"type": "web_search_20250305", "name": "web_search"},
        {"name": "f", "input_schema": {"type": "object"}},
        {"type": "mcp_toolset", "mcp_server_name": "files"},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "web_search_20250305", "name": "web_search"},
    ]
    assert messages(alice, "Hi", tools=tools, system="Be kind.").status == 200
    assert instructions(fake) == f"Be kind.\n\n{MISSING}web_search, files."
    hosted = [
        {"type": "web_search"},
        {"type": "image_generation"},
        {"type": "function", "name": "f"},
    ]
    assert responses(alice, tools=hosted, instructions="Be kind.").status == 200
    assert instructions(fake) == f"Be kind.\n\n{MISSING}web_search, image_generation."
    added = {"type": "additional_tools", "tools": [{"type": "web_search"}]}
    assert responses(alice, added).status == 200
    assert instructions(fake) == f"{MISSING}web_search."


def test_where_every_tool_can_be_had_nothing_is_said(alice, fake):
    tools = [
        {"type": "custom", "name": "g"},
        {"name": "f"},
        {"type": "memory_20250818", "name": "m"},
    ]
    assert messages(alice, "Hi", tools=tools).status == 200 and not instructions(fake)
    assert responses(alice, tools=[{"type": "shell"}]).status == 200 and not instructions(fake)
