"""An Anthropic Messages request as a chat request.

Owns `to_chat`. It knows no upstream: what a provider cannot take is its quirks' business.

Chat is stricter about turns than Messages is. A turn here is a run of messages of one side; each
becomes one chat message, and an assistant's tool calls are followed at once by exactly one tool
message each. Members and blocks that are not known are left out without a word, because betas come
and go; wrong types are refused with their path.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import chain, groupby

from relay.errors import BadRequest
from relay.wires.chat import count, flag
from relay.wires.messages.names import chat_id, chat_name

Block = tuple[str, dict]  # a content block, behind its path in the request
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
NO_THREADS = (
    "thread_unsupported_request"  # where Anthropic's SDK reads it, it sends all again by itself
)

_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "true or false",
    int: "a number",
    (int, float): "a number",
}
_billing_line = re.compile(r"\s*x-anthropic-billing-header:[^\n]*\n?").match


def to_chat(body: dict, key: bytes | str = "") -> dict:
    """The chat request that asks for the same. Raises BadRequest, whose `param` is a path such as
    `messages.0.content`, and nothing else. `max_tokens` may be missing here: counting needs none.
    """
    if body.get("thread") is not None:
        raise BadRequest(
            "Threads are not stored here; send all messages, and no 'thread'.",
            param="thread",
            code=NO_THREADS,
        )
    tools = _tools(body)
    stream = flag(body, "stream")
    request = {
        "model": body.get("model"),
        "messages": _messages(body),
        "max_tokens": count(body, "max_tokens"),
        "temperature": _optional(body, "temperature", (int, float)),
        "top_p": _optional(body, "top_p", (int, float)),
        "stop": _stop(body),
        "stream": stream or None,
        "stream_options": {"include_usage": True} if stream else None,
        "tools": tools,
        "user": _user_id(body),
        "response_format": _response_format(body),
        **_tool_choice(body, tools),
        **_thinking(body),
    }
    # Strict servers refuse nulls and empty lists where a lenient one sees nothing.
    return {name: value for name, value in request.items() if value is not None and value != []}


def thinks(body: dict) -> bool:
    """True if the caller asked to see thinking. Others take `content[0]` for the answer's text."""
    thinking = body.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") not in (None, "disabled")


def call_ids(body: dict) -> set[str]:
    """The ids of the tool calls in the conversation so far, of a request that `to_chat` has taken."""
    contents = (
        message["content"] for message in body["messages"] if message["role"] == "assistant"
    )
    return {
        block["id"]
        for content in contents
        if isinstance(content, list)
        for block in content
        if block["type"] == "tool_use"
    }


# The conversation


def _messages(body: dict) -> list[dict]:
    messages = _want(body.get("messages"), list, "messages")
    roles = [_role(message, f"messages.{index}") for index, message in enumerate(messages)]
    leading = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
    system = [
        *_system(body.get("system"), "system"),
        *chain(
            *(
                _system(messages[index].get("content"), f"messages.{index}.content")
                for index in range(leading)
            )
        ),
    ]
    turns: list[dict] = []
    calls: list[str] = []
    for assistant, run in groupby(
        range(leading, len(messages)), key=lambda index: roles[index] == "assistant"
    ):
        blocks = [
            list(_blocks(messages[index], roles[index], f"messages.{index}.content"))
            for index in run
        ]
        turn = [_assistant(blocks)] if assistant else _user([*chain(*blocks)], calls)
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
    role = _want(message, dict, path).get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise BadRequest(f"'{path}.role' must be user, assistant or system.", param=f"{path}.role")
    return "system" if role == "developer" else role


def _system(content: object, path: str) -> list[str]:
    """System texts without Claude Code's billing line: its value changes with every call and would
    spoil the provider's cache.
    """
    texts = []
    for where, block in _listed(content, path):
        if block["type"] == "text":
            text = _string(block, "text", where)
            line = _billing_line(text)
            texts.append(text[line.end() :] if line else text)
    return [text for text in texts if text.strip()]


def _blocks(message: dict, role: str, path: str) -> Iterator[Block]:
    """A message's content blocks. A system message in mid-conversation becomes a reminder in the
    user's turn: strict upstreams take a system message at the beginning only.
    """
    content = message.get("content")
    if role != "system":
        if content is None:
            raise BadRequest(f"'{path}' must be a string or a list.", param=path)
        yield from _listed(content, path)
        return
    text = "\n\n".join(_system(content, path))
    if text:
        reminder = (
            text
            if text.startswith("<system-reminder>")
            else f"<system-reminder>\n{text}\n</system-reminder>"
        )
        yield path, {"type": "text", "text": reminder}


def _listed(content: object, path: str) -> Iterator[Block]:
    if content is None:
        return
    if isinstance(content, str):
        yield path, {"type": "text", "text": content}
        return
    if not isinstance(content, list):
        raise BadRequest(f"'{path}' must be a string or a list.", param=path)
    for index, block in enumerate(content):
        where = f"{path}.{index}"
        _string(_want(block, dict, where), "type", where)
        yield where, block


def _assistant(turn: list[list[Block]]) -> dict | None:
    """An assistant's messages as one.

    Texts of one message belong together as they are: providers cut them anywhere.
    """
    texts, thoughts, calls = [], [], []
    for blocks in turn:
        said = {"text": "", "thinking": ""}
        for path, block in blocks:
            kind = block["type"]
            if kind in said:
                said[kind] += _string(block, kind, path)
            elif kind == "tool_use":
                calls.append(_call(block, path))
        texts.append(said["text"])
        thoughts.append(said["thinking"])
    message = {"role": "assistant", "content": "\n".join(filter(None, texts))}
    if any(thoughts):
        message["reasoning_content"] = "\n".join(filter(None, thoughts))
    if calls:
        message["tool_calls"] = calls
    return message if message["content"] or len(message) > 2 else None


def _call(block: dict, path: str) -> dict:
    given = _want({} if block.get("input") is None else block["input"], dict, f"{path}.input")
    function = {
        "name": chat_name(_string(block, "name", path, least=1)),
        "arguments": json.dumps(given, ensure_ascii=False),
    }
    return {
        "id": chat_id(_string(block, "id", path, least=1)),
        "type": "function",
        "function": function,
    }


def _user(blocks: list[Block], calls: list[str]) -> list[dict]:
    """A user's turn.

    A tool message for each of `calls`, then all else that was said in one message.
    """
    given: dict[str, list] = {}
    parts = []
    for path, block in blocks:
        if block["type"] == "tool_result":
            call = chat_id(_string(block, "tool_use_id", path))
            given.setdefault(call, []).append(_result(block, path))
        else:
            parts += _parts(block, path)
    messages, images = _results(given, calls)
    parts = images + parts
    return messages + ([{"role": "user", "content": _joined(parts)}] if parts else [])


def _results(given: dict[str, list], calls: list[str]) -> tuple[list[dict], list[dict]]:
    """One tool message for each call, in the order of the calls, and the images that tools gave:
    tool messages hold text only. A result that is missing is said to be missing; results of no call
    are dropped.
    """
    messages, images = [], []
    for call in calls:
        text, shown = given[call].pop(0) if given.get(call) else ("(no result)", [])
        messages.append({"role": "tool", "tool_call_id": call, "content": text})
        images += shown
    return messages, images


def _result(block: dict, path: str) -> tuple[str, list[dict]]:
    """A tool result's text and its images."""
    parts = [
        part
        for where, inner in _listed(block.get("content"), f"{path}.content")
        for part in _parts(inner, where, of_tool=True)
    ]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    images = [part for part in parts if part["type"] != "text"]
    text = text or ("(the image follows)" if images else "(no output)")
    failed = block.get("is_error") is not None and _want(
        block["is_error"], bool, f"{path}.is_error"
    )
    return f"Error: {text}" if failed else text, images


def _parts(block: dict, path: str, of_tool: bool = False) -> list[dict]:
    """A content block as chat parts; blocks that chat has no word for give none."""
    kind = block["type"]
    if kind == "text":
        return _text_part(_string(block, "text", path))
    if kind == "image":
        return [_image(block, path)]
    if kind == "document":
        return _document(block, path, of_tool)
    if kind == "search_result":
        head = [block[name] for name in ("title", "source") if isinstance(block.get(name), str)]
        inner = [
            part
            for where, each in _listed(block.get("content"), f"{path}.content")
            for part in _parts(each, where, of_tool)
        ]
        return [*_text_part("\n".join(head)), *inner]
    if kind == "tool_reference":
        return _text_part(
            f"The tool {chat_name(_string(block, 'tool_name', path))} is now available."
        )
    return []


def _document(block: dict, path: str, of_tool: bool) -> list[dict]:
    source = _want(block.get("source"), dict, f"{path}.source")
    head = [block[name] for name in ("title", "context") if isinstance(block.get(name), str)]
    if source.get("type") == "text":
        return _text_part("\n".join([*head, _string(source, "data", f"{path}.source")]))
    if source.get("type") == "content":
        inner = [
            part
            for where, each in _listed(source.get("content"), f"{path}.source.content")
            for part in _parts(each, where, of_tool)
        ]
        return [*_text_part("\n".join(head)), *inner]
    if of_tool:
        # A refusal would stop an agent for good: the file stays in its history. The model can help
        # itself.
        return _text_part("(a document that this model cannot read)")
    raise BadRequest(
        f"'{path}.source': this model reads documents as plain text only, not as PDF or file.",
        param=f"{path}.source",
    )


def _image(block: dict, path: str) -> dict:
    path = f"{path}.source"
    source = _want(block.get("source"), dict, path)
    kind = source.get("type")
    if kind == "base64":
        url = f"data:{_string(source, 'media_type', path)};base64,{_string(source, 'data', path, least=1)}"
    elif kind == "url":
        url = _string(source, "url", path, least=1)
    else:
        raise BadRequest(f"'{path}.type' must be base64 or url.", param=f"{path}.type")
    return {"type": "image_url", "image_url": {"url": url}}


def _text_part(text: str) -> list[dict]:
    return [{"type": "text", "text": text}] if text else []


def _joined(parts: list[dict]) -> str | list[dict]:
    """Text alone as a string, since models without eyes take no lists."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


# Tools and parameters


def _tools(body: dict) -> list[dict]:
    """The caller's own tools.

    Those that Anthropic runs itself, or whose schema only Claude knows, are left out.
    """
    tools = []
    for index, tool in enumerate(_optional(body, "tools", list) or ()):
        path = f"tools.{index}"
        if _want(tool, dict, path).get("type") not in (None, "custom"):
            continue
        function = {
            "name": chat_name(_string(tool, "name", path, least=1)),
            "description": _optional(tool, "description", str, path),
            "parameters": _schema(_optional(tool, "input_schema", dict, path) or {}),
        }
        tools.append(
            {
                "type": "function",
                "function": {name: value for name, value in function.items() if value is not None},
            }
        )
    return tools


def _schema(schema: dict) -> dict:
    """A schema that strict servers take: an object with properties, and no `$schema`."""
    kept = {name: value for name, value in schema.items() if name != "$schema"}
    if not isinstance(kept.get("properties"), dict):
        kept["properties"] = {}
    return {"type": "object"} | kept


def _tool_choice(body: dict, tools: list[dict]) -> dict:
    choice = _optional(body, "tool_choice", dict)
    if choice is None or not tools:
        return {}
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise BadRequest(
            "'tool_choice.type' must be auto, any, tool or none.", param="tool_choice.type"
        )
    chosen = {"auto": "auto", "any": "required", "none": "none"}.get(kind, "auto")
    if kind == "tool":
        name = chat_name(_string(choice, "name", "tool_choice"))
        if any(tool["function"]["name"] == name for tool in tools):
            chosen = {"type": "function", "function": {"name": name}}
    alone = _optional(choice, "disable_parallel_tool_use", bool, "tool_choice")
    return {"tool_choice": chosen} | ({"parallel_tool_calls": False} if alone else {})


def _thinking(body: dict) -> dict:
    """`thinking` and `reasoning_effort`. The effort asked for wins over the budget."""
    config = _optional(body, "output_config", dict) or {}
    effort = _optional(config, "effort", str, "output_config")
    effort = effort if effort in EFFORTS else None
    thinking = _optional(body, "thinking", dict)
    if thinking is None:
        return {"reasoning_effort": effort}
    if _string(thinking, "type", "thinking") == "disabled":
        return {"thinking": {"type": "disabled"}}
    budget = _optional(thinking, "budget_tokens", int, "thinking")
    if effort is None and budget is not None:
        effort = "low" if budget < 4000 else "medium" if budget < 16000 else "high"
    return {"thinking": {"type": "enabled"}, "reasoning_effort": effort}


def _response_format(body: dict) -> dict | None:
    """`output_config.format`, or `output_format`, its name while it was a beta."""
    config = _optional(body, "output_config", dict) or {}
    path = "output_config.format" if config.get("format") is not None else "output_format"
    wanted = _want(config.get("format") or body.get("output_format") or {}, dict, path)
    if wanted.get("type") != "json_schema":
        return None
    schema = _want(wanted.get("schema"), dict, f"{path}.schema")
    return {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": schema, "strict": True},
    }


def _stop(body: dict) -> list[str]:
    sequences = _optional(body, "stop_sequences", list) or []
    return [_want(each, str, f"stop_sequences.{index}") for index, each in enumerate(sequences)]


def _user_id(body: dict) -> str | None:
    """The caller's user id, hashed.

    What Claude Code packs into it, device and session, is no provider's concern.
    """
    user_id = _optional(_optional(body, "metadata", dict) or {}, "user_id", str, "metadata")
    return (
        hashlib.sha256(user_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        if user_id
        else None
    )


def _optional(holder: dict, name: str, kind: type | tuple, path: str = ""):
    value = holder.get(name)
    return None if value is None else _want(value, kind, f"{path}.{name}" if path else name)


def _string(holder: dict, name: str, path: str, least: int = 0) -> str:
    value = _want(holder.get(name), str, f"{path}.{name}")
    if len(value) < least:
        raise BadRequest(f"'{path}.{name}' must not be empty.", param=f"{path}.{name}")
    return value


def _want(value: object, kind: type | tuple, path: str):
    if not isinstance(value, kind) or isinstance(value, bool) and kind is not bool:
        raise BadRequest(f"'{path}' must be {_KINDS[kind]}.", param=path)
    return value
