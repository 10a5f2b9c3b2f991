"""An Anthropic Messages request as a chat request.

Owns `to_chat`. It knows no upstream: what a provider cannot take is its quirks' business.

Chat is stricter about turns than Messages is. A turn here is a run of messages of one side; each
becomes one chat message, and an assistant's tool calls are followed at once by exactly one tool
message each. Members that are not known are left out without a word, because betas come and go.

What stands in the history is never refused for its content, or an agent that repeats it would be
stuck for good: what chat has no word for is said in words in its place. Only the user's own newest
words may be refused, with the path of the part.
"""

import hashlib
import re
from collections.abc import Iterator
from itertools import chain, groupby
from typing import Any

from relay.errors import BadRequest, NotInChat
from relay.wires.chat import count, flag
from relay.wires.messages.checks import optional, string, want
from relay.wires.messages.names import chat_id, chat_name
from relay.wires.messages.tools import left_out, to_functions, tool_choice
from relay.wires.parts import (
    LOST_RESULT,
    call_arguments,
    dicts,
    in_json,
    in_words,
    missing,
    picture,
)

Block = tuple[str, dict[str, Any]]  # a content block, behind its path in the request
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
NO_THREADS = (
    "thread_unsupported_request"  # where Anthropic's SDK reads it, it sends all again by itself
)

CHAT_PARTS = ("image_url", "video_url", "input_audio")
UNREADABLE = ("audio", "video", "file", "input_file", "container_upload")

_billing_line = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n?").match


STRICT_DEPTH_MAX = 20  # levels of a schema that are looked at


def to_chat(
    body: dict[str, Any], key: bytes | str = "", *, lenient: bool = False
) -> dict[str, Any]:
    """The chat request that asks for the same. Raises BadRequest, whose `param` is a path such as
    `messages.0.content`, and nothing else. `max_tokens` may be missing here: counting needs none.
    `lenient`: the newest words are not refused for their content either.
    """
    if body.get("mcp_servers") and not lenient:
        raise NotInChat("'mcp_servers' needs Anthropic's own servers.", param="mcp_servers")
    if body.get("thread") is not None:
        raise BadRequest(
            "Threads are not stored here; send all messages, and no 'thread'.",
            param="thread",
            code=NO_THREADS,
        )
    tools = to_functions(body)
    stream = flag(body, "stream")
    request = {
        "model": body.get("model"),
        "messages": _messages(body, lenient),
        "max_tokens": count(body, "max_tokens"),
        "temperature": optional(body, "temperature", (int, float)),
        "top_p": optional(body, "top_p", (int, float)),
        "stop": _stop(body),
        "stream": stream or None,
        "stream_options": {"include_usage": True} if stream else None,
        "tools": tools,
        "user": _user_id(body),
        "response_format": _response_format(body),
        **tool_choice(body, tools, lenient),
        **_thinking(body),
    }
    # Strict servers refuse nulls and empty lists where a lenient one sees nothing.
    return {name: value for name, value in request.items() if value is not None and value != []}


def thinks(body: dict[str, Any]) -> bool:
    """True if the caller asked to see thinking. Others take `content[0]` for the answer's text."""
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") not in (None, "disabled")


def call_ids(body: dict[str, Any]) -> set[str]:
    """The ids of the tool calls in the conversation so far, of a request that `to_chat` has taken."""
    contents = (
        message.get("content") for message in body["messages"] if message["role"] == "assistant"
    )
    blocks = [block for content in contents for block in dicts(content)]
    ids = [block.get("id") for block in blocks if block.get("type") == "tool_use"]
    return {id for id in ids if isinstance(id, str)}


# The conversation


def _messages(body: dict[str, Any], lenient: bool) -> list[dict[str, Any]]:
    messages = want(body.get("messages"), list, "messages")
    roles = [_role(message, f"messages.{index}") for index, message in enumerate(messages)]
    leading = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
    system = [
        *_system(body.get("system"), "system", new=True),
        *chain(
            *(
                _system(messages[index].get("content"), f"messages.{index}.content")
                for index in range(leading)
            )
        ),
    ]
    system += filter(None, [missing(left_out(body))])
    turns: list[dict[str, Any]] = []
    calls: list[str] = []
    for assistant, run in groupby(
        range(leading, len(messages)), key=lambda index: roles[index] == "assistant"
    ):
        at = list(run)
        new = not lenient and not assistant and at[-1] == len(messages) - 1
        blocks = [
            list(_blocks(messages[index], roles[index], f"messages.{index}.content", new))
            for index in at
        ]
        said = [*chain(*blocks)]
        new = new and not any(block["type"] == "tool_result" for _, block in said)
        turn = [_assistant(blocks)] if assistant else _user(said, calls, new)
        turns += [message for message in turn if message is not None]
        calls = (
            [call["id"] for call in turns[-1].get("tool_calls", ())] if assistant and turns else []
        )
    turns += _results({}, calls)[0]
    if not turns:
        raise BadRequest(
            "'messages' must hold at least one message with content.", param="messages"
        )
    return ([{"role": "system", "content": "\n\n".join(system)}] if system else []) + turns


def _role(message: object, path: str) -> str:
    role = want(message, dict, path).get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise BadRequest(f"'{path}.role' must be user, assistant or system.", param=f"{path}.role")
    return "system" if role == "developer" else role


def _system(content: object, path: str, new: bool = False) -> list[str]:
    """System texts without Claude Code's billing line: its value changes with every call and would
    spoil the provider's cache.
    """
    texts = []
    for where, block in _listed(content, path, new):
        if block["type"] == "text":
            text = string(block, "text", where) if new else _text(block, "text")
            line = _billing_line(text)
            texts.append(text[line.end() :] if line else text)
    return [text for text in texts if text.strip()]


def _text(block: dict[str, Any], name: str) -> str:
    value = block.get(name)
    return value if isinstance(value, str) else ""


def _blocks(message: dict[str, Any], role: str, path: str, new: bool) -> Iterator[Block]:
    """A message's content blocks. A system message in mid-conversation becomes a reminder in the
    user's turn: strict upstreams take a system message at the beginning only.
    """
    content = message.get("content")
    if role != "system":
        if content is None and new:
            raise BadRequest(f"'{path}' must be a string or a list.", param=path)
        yield from _listed(content, path, new)
        return
    text = "\n\n".join(_system(content, path))
    if text:
        reminder = (
            text
            if text.startswith("<system-reminder>")
            else f"<system-reminder>\n{text}\n</system-reminder>"
        )
        yield path, {"type": "text", "text": reminder}


def _listed(content: object, path: str, new: bool = False) -> Iterator[Block]:
    """Content as blocks. What is no block is refused if it is `new`, else said as far as it can be."""
    if content is None:
        return
    if isinstance(content, str):
        yield path, {"type": "text", "text": content}
        return
    if not isinstance(content, list):
        if new:
            raise BadRequest(f"'{path}' must be a string or a list.", param=path)
        content = [content]
    for index, block in enumerate(content):
        where = f"{path}.{index}"
        if new:
            string(want(block, dict, where), "type", where)
        if isinstance(block, dict) and isinstance(block.get("type"), str):
            yield where, block
        elif block is not None:
            yield where, {"type": "text", "text": in_words(block)}


def _assistant(turn: list[list[Block]]) -> dict[str, Any] | None:
    """An assistant's messages as one.

    Texts of one message belong together as they are: providers cut them anywhere.
    """
    texts, thoughts, calls = [], [], []
    for blocks in turn:
        said = {"text": "", "thinking": ""}
        for _, block in blocks:
            kind = block["type"]
            if kind in said:
                said[kind] += _text(block, kind)
            elif kind == "tool_use" and block.get("id") and block.get("name"):
                calls.append(_call(block))
            elif kind != "redacted_thinking":
                said["text"] += ("\n" if said["text"] else "") + f"{in_words(block)}\n"
        texts.append(said["text"])
        thoughts.append(said["thinking"])
    message: dict[str, Any] = {"role": "assistant", "content": "\n".join(filter(None, texts))}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(filter(None, thoughts))
    if calls:
        message["tool_calls"] = calls
    return message if message["content"] or len(message) > 2 else None


def _call(block: dict[str, Any]) -> dict[str, Any]:
    name = chat_name(str(block["name"]))
    return {
        "id": chat_id(str(block["id"])),
        "type": "function",
        "function": {"name": name, "arguments": call_arguments(block.get("input"))},
    }


def _user(blocks: list[Block], calls: list[str], new: bool) -> list[dict[str, Any]]:
    """A user's turn.

    A tool message for each of `calls`, then all else that was said in one message. `new`: the
    user's newest words, which may be refused for what they hold.
    """
    given: dict[str, list[Any]] = {}
    parts = []
    for path, block in blocks:
        if block["type"] == "tool_result":
            call = block.get("tool_use_id")
            given.setdefault(chat_id(call) if isinstance(call, str) else "", []).append(
                _result(block, path)
            )
        else:
            parts += _parts(block, path) if new else _told(block, path)
    messages, images = _results(given, calls)
    lost = [
        part
        for call, results in given.items()
        if call not in calls
        for result in results
        for part in _lost(*result)
    ]
    parts = images + lost + parts
    return messages + ([{"role": "user", "content": _joined(parts)}] if parts else [])


def _results(
    given: dict[str, list[Any]], calls: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One tool message for each call, in the order of the calls, and the images that tools gave:
    tool messages hold text only. A result that is missing is said to be missing; those of no call
    stay in `given`.
    """
    messages, images = [], []
    for call in calls:
        text, shown = given[call].pop(0) if given.get(call) else ("(no result)", [])
        messages.append({"role": "tool", "tool_call_id": call, "content": text})
        images += shown
    return messages, images


def _lost(text: str, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The result of a call that was compacted away, or came late: strict providers refuse it as a
    tool's, and its content is often the point."""
    return [{"type": "text", "text": f"{LOST_RESULT}\n{text}"}, *images]


def _result(block: dict[str, Any], path: str) -> tuple[str, list[dict[str, Any]]]:
    """A tool result's text and its images."""
    content = in_json(block.get("content"))
    parts = [
        part for where, inner in _listed(content, f"{path}.content") for part in _told(inner, where)
    ]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    images = [part for part in parts if part["type"] != "text"]
    text = text or ("(the image follows)" if images else "(no output)")
    return f"Error: {text}" if block.get("is_error") is True else text, images


def _told(block: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """A block of the history as chat parts, or in words."""
    try:
        return _parts(block, path)
    except BadRequest:
        return _text_part(in_words(block))


def _parts(block: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """A content block as chat parts. Raises BadRequest for what chat has no word for."""
    kind = block["type"]
    if kind == "text":
        return _text_part(string(block, "text", path))
    if kind in ("image", "input_image"):
        return [_image(block, path)]
    if kind in CHAT_PARTS and isinstance(block.get(kind), dict | str):  # in OpenAI's words
        given = block[kind]
        return [{"type": kind, kind: {"url": given} if isinstance(given, str) else given}]
    if kind == "document":
        return _document(block, path)
    if kind == "search_result":
        head = [block[name] for name in ("title", "source") if isinstance(block.get(name), str)]
        inner = [
            part
            for where, each in _listed(block.get("content"), f"{path}.content")
            for part in _told(each, where)
        ]
        return [*_text_part("\n".join(head)), *inner]
    if kind == "tool_reference":
        return _text_part(
            f"The tool {chat_name(string(block, 'tool_name', path))} is now available."
        )
    if kind in UNREADABLE:
        raise NotInChat(f"'{path}': this model cannot read a {kind}.", param=path)
    return _text_part(in_words(block))


def _document(block: dict[str, Any], path: str) -> list[dict[str, Any]]:
    source = want(block.get("source"), dict, f"{path}.source")
    head = [block[name] for name in ("title", "context") if isinstance(block.get(name), str)]
    if source.get("type") == "text":
        return _text_part("\n".join([*head, string(source, "data", f"{path}.source")]))
    if source.get("type") == "content":
        inner = [
            part
            for where, each in _listed(source.get("content"), f"{path}.source.content")
            for part in _told(each, where)
        ]
        return [*_text_part("\n".join(head)), *inner]
    raise NotInChat(
        f"'{path}.source': this model reads documents as plain text only, not as PDF or file.",
        param=f"{path}.source",
    )


def _image(block: dict[str, Any], path: str) -> dict[str, Any]:
    path = f"{path}.source"
    if "source" not in block and (elsewhere := picture(block)):  # in the words of OpenAI or MCP
        return {"type": "image_url", "image_url": {"url": elsewhere}}
    source = want(block.get("source"), dict, path)
    kind = source.get("type")
    if kind == "base64":
        url = f"data:{string(source, 'media_type', path)};base64,{string(source, 'data', path, least=1)}"
    elif kind == "url":
        url = string(source, "url", path, least=1)
    else:
        raise NotInChat(f"'{path}.type' must be base64 or url.", param=f"{path}.type")
    return {"type": "image_url", "image_url": {"url": url}}


def _text_part(text: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text}] if text else []


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Text alone as a string, since models without eyes take no lists."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


# Parameters


def _thinking(body: dict[str, Any]) -> dict[str, Any]:
    """`thinking` and `reasoning_effort`. The effort asked for wins over the budget."""
    config = optional(body, "output_config", dict) or {}
    effort = optional(config, "effort", str, "output_config")
    effort = effort if effort in EFFORTS else None
    thinking = optional(body, "thinking", dict)
    if thinking is None:
        return {"reasoning_effort": effort}
    if string(thinking, "type", "thinking") == "disabled":
        return {"thinking": {"type": "disabled"}}
    budget = optional(thinking, "budget_tokens", int, "thinking")
    if effort is None and budget is not None:
        effort = "low" if budget < 4000 else "medium" if budget < 16000 else "high"
    return {"thinking": {"type": "enabled"}, "reasoning_effort": effort}


def _response_format(body: dict[str, Any]) -> dict[str, Any] | None:
    """`output_config.format`, or `output_format`, its name while it was a beta."""
    config = optional(body, "output_config", dict) or {}
    path = "output_config.format" if config.get("format") is not None else "output_format"
    wanted = want(config.get("format") or body.get("output_format") or {}, dict, path)
    if wanted.get("type") != "json_schema":
        return None
    schema = want(wanted.get("schema"), dict, f"{path}.schema")
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema}
        | ({"strict": True} if _allows_strict(schema) else {}),
    }


def _allows_strict(schema: object, depth: int = 0) -> bool:
    """Whether strict providers take a schema as strict: in every object all properties are required
    and no others allowed (OpenAI's guide to structured outputs)."""
    if depth > STRICT_DEPTH_MAX:
        return False
    if isinstance(schema, list):
        return all(_allows_strict(each, depth + 1) for each in schema)
    if not isinstance(schema, dict):
        return True
    properties = schema.get("properties")
    if schema.get("type") == "object" or isinstance(properties, dict):
        names = set(properties) if isinstance(properties, dict) else set()
        required = schema.get("required")
        if schema.get("additionalProperties") is not False or not isinstance(required, list):
            return False
        if names != {each for each in required if isinstance(each, str)}:
            return False
    return all(_allows_strict(each, depth + 1) for each in schema.values())


def _stop(body: dict[str, Any]) -> list[str]:
    sequences = optional(body, "stop_sequences", list) or []
    return [want(each, str, f"stop_sequences.{index}") for index, each in enumerate(sequences)]


def _user_id(body: dict[str, Any]) -> str | None:
    """The caller's user id, hashed.

    What Claude Code packs into it, device and session, is no provider's concern.
    """
    user_id = optional(optional(body, "metadata", dict) or {}, "user_id", str, "metadata")
    return (
        hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if user_id
        else None
    )
