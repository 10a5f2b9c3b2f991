"""The `input` of a Responses request as chat messages.

Owns how items become messages. Three rules carry the rest: all that the assistant did between two
other items (reasoning, text, calls) is ONE message; the outputs of its calls follow it at once, in
the order of the calls; a system message stands at the beginning only, and what the developer says
later is a reminder in its place: to move it would cost the provider's cache of all that follows.

What stands in the history is never refused for its content, or an agent that repeats it would be
stuck for good: what chat has no word for is said in words. Only the newest words of the user, those
behind all that the assistant and its tools did, may be refused, with the place of the part.
"""

import base64
import binascii
import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes

from relay.errors import BadRequest, NotInChat
from relay.wires.parts import LOST_RESULT, TEXTS, call_arguments, dicts, in_json, in_words, picture
from relay.wires.responses import compaction, sealed, tools

CALLS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
}
OUTPUTS = tuple(f"{kind}_output" for kind in CALLS)
ROLES = {
    "user": "user says",
    "assistant": "assistant says",
    "system": "system says",
    "developer": "system says",
    "tool": "function_call_output",
}
# Items that say nothing to the model.
SILENT = ("additional_tools", "mcp_list_tools", "tool_search_call", "tool_search_output")
NAMES = {
    "local_shell_call": "local_shell",
    "shell_call": "shell",
    "apply_patch_call": "apply_patch",
}


@dataclass(slots=True)
class AssistantTurn:
    """What the assistant did in one go."""

    thoughts: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.thoughts or self.texts or self.calls)

    def messages(self, outputs: dict[str, deque[Any]]) -> list[dict[str, Any]]:
        """The turn's message and the outputs of its calls.

        Thoughts that led to nothing are left out.
        """
        if not self.texts and not self.calls:
            return []
        said: dict[str, Any] = {"role": "assistant", "content": "\n\n".join(self.texts)}
        if self.thoughts:
            said["reasoning_content"] = "\n\n".join(self.thoughts)
        if not self.calls:
            return [said]
        said["tool_calls"] = self.calls
        told: list[dict[str, Any]] = [said]
        shown: list[dict[str, Any]] = []
        for call in self.calls:
            waiting = outputs.get(call["id"])
            text, images = waiting.popleft() if waiting else ("(no result)", [])
            text = text or ("(the image follows)" if images else "(no output)")
            told.append({"role": "tool", "tool_call_id": call["id"], "content": text})
            shown += images
        return told + ([{"role": "user", "content": shown}] if shown else [])


def messages(
    body: dict[str, Any], key: bytes | str, lenient: bool = False, note: str = ""
) -> list[dict[str, Any]]:
    """Chat's messages. `key` is what sealed reasoning is believed by; `note` is said behind the
    instructions.

    Raises BadRequest, which names the place. `lenient`: the newest words are not refused for their
    content either.
    """
    items = _items(body, key, lenient)
    outputs = _outputs(items)
    called = _ids(items)
    talk: list[dict[str, Any]] = []
    system, turn = [_instructions(body)], AssistantTurn()
    for at, kind, item, new in items:
        if kind == "reasoning":
            turn.thoughts.append(_thought(item, key))
        elif kind in CALLS or kind == "assistant says":
            _done(turn, item, kind, at)
        elif kind == "system says" and not talk and turn.empty:
            system.append(_text(item, at, new))
        elif kind in ("user says", "system says") or kind in OUTPUTS:
            talk += _kept(turn).messages(outputs)
            turn = AssistantTurn()
            if said := _said(item, kind, at, new, called):
                talk.append({"role": "user", "content": said})
        elif kind not in SILENT:
            turn.texts.append(in_words(item))
    talk += _kept(turn).messages(outputs)
    head = "\n\n".join(text for text in (*system, note) if text)
    told = ([{"role": "system", "content": head}] if head else []) + talk
    if not told:
        raise BadRequest("'input' holds nothing to answer.", param="input")
    return told


def _done(turn: AssistantTurn, item: dict[str, Any], kind: str, at: str) -> None:
    """Add what the assistant said or called; a call that cannot be understood is said in words."""
    if kind in CALLS:
        try:
            turn.calls.append(_call(item, kind, at))
        except BadRequest:
            turn.texts.append(in_words(item))
        return
    turn.texts.append(_text(item, at))
    thought = item.get("reasoning_content")
    turn.thoughts.append(thought if isinstance(thought, str) else "")
    turn.calls += _chat_calls(item, at)


def _said(
    item: dict[str, Any], kind: str, at: str, new: bool, called: set[str]
) -> str | list[dict[str, Any]]:
    """What stands in the user's place for an item: nothing for the output of a call that is there."""
    if kind == "user says":
        content = item.get("content")
        return _collapsed(_parts(content, f"{at}.content", new)) if new or content else ""
    if kind == "system says":
        text = _text(item, at, new)
        return f"<system-reminder>\n{text}\n</system-reminder>" if text else ""
    if _call_id(item) in called:
        return ""
    text, images = _output(item, kind, at)
    return _collapsed([{"type": "text", "text": f"{LOST_RESULT}\n{text}"}, *images])


def _kept(turn: AssistantTurn) -> AssistantTurn:
    return AssistantTurn(
        [text for text in turn.thoughts if text], [text for text in turn.texts if text], turn.calls
    )


def _instructions(body: dict[str, Any]) -> str:
    told = body.get("instructions")
    if told is not None and not isinstance(told, str):
        raise BadRequest("'instructions' must be a string.", param="instructions")
    return told or ""


def _items(
    body: dict[str, Any], key: bytes | str = b"", lenient: bool = True
) -> list[tuple[str, str, dict[str, Any], bool]]:
    """(place, kind, item, whether it is new) of each item; a message's kind is who says it."""
    given = body.get("input")
    if isinstance(given, str):
        return [("input", "user says", {"content": given}, True)]
    if not isinstance(given, list) or not given:
        raise BadRequest(
            "'input' must be a string or a list with at least one item.", param="input"
        )
    kinds = [_kind(item) for item in given]
    done = [at for at, kind in enumerate(kinds) if kind not in ("user says", "system says", "")]
    first_new = len(given) if lenient else max(done, default=-1) + 1
    items = []
    for index, (item, kind) in enumerate(zip(given, kinds, strict=True)):
        at, new = f"input[{index}]", index >= first_new
        _refuse(item, kind, at, new)
        if not isinstance(item, dict):
            item = {"content": in_words(item)}
        if kind == "agent_message":  # of another agent, which the model is to answer
            item, kind, new = {"content": in_words(item)}, "user says", False
        summary = compaction.told(item, key)
        if summary is not None:
            item, kind, new = {"content": summary}, "user says", False
        items.append((at, kind or "user says", item, new))
    return items


def _kind(item: object) -> str:
    """The kind of an item, "" for what is none."""
    kind = item.get("type") if isinstance(item, dict) else None
    if kind is None and isinstance(item, dict) and "role" in item:
        kind = "message"
    if isinstance(item, dict) and kind == "message":
        role = item.get("role")
        return ROLES.get(role, "") if isinstance(role, str) else ""
    return kind if isinstance(kind, str) else ""


def _refuse(item: object, kind: str, at: str, new: bool) -> None:
    """Raise BadRequest for an item that stands for another, and for a new one that is none."""
    refers = isinstance(item, dict) and not kind and "id" in item and "role" not in item
    if kind == "item_reference" or refers:
        raise BadRequest(
            "Answers are not stored here, so an item cannot be referred to. Send the item itself: "
            "clients do so when they are told 'store': false.",
            param=at,
            code="unsupported_parameter",
        )
    if not new or kind:
        return
    if not isinstance(item, dict):
        raise BadRequest("An input item must be an object.", param=at)
    if "role" not in item and item.get("type") != "message":
        raise BadRequest("An input item needs a type.", param=f"{at}.type")
    raise BadRequest("The role must be user, assistant, system or developer.", param=f"{at}.role")


# What the assistant did


def _thought(item: dict[str, Any], key: bytes | str) -> str:
    """The text of a reasoning item: what was sealed here; else the plain text, else the summary.

    Falling back gives nothing away: a caller may put any words into an assistant's mouth anyhow.
    """
    text = sealed.unseal(item.get("encrypted_content"), key)
    if text is not None:
        return text
    for name in ("content", "summary"):
        texts = [part.get("text") for part in dicts(item.get(name))]
        if any(texts):
            return "\n\n".join(text for text in texts if isinstance(text, str) and text)
    return ""


def _call(item: dict[str, Any], kind: str, at: str) -> dict[str, Any]:
    given, name, space = (
        item.get(CALLS[kind]),
        NAMES.get(kind) or item.get("name"),
        item.get("namespace"),
    )
    if not isinstance(name, str) or not name:
        raise BadRequest("A call needs the name of a tool.", param=f"{at}.name")
    if space is not None and not isinstance(space, str):
        raise BadRequest("The namespace of a call must be a string.", param=f"{at}.namespace")
    if kind in NAMES:
        arguments = json.dumps(given, ensure_ascii=False) if isinstance(given, dict) else None
    else:
        arguments = given if isinstance(given, str) else None
    if arguments is None:
        kind_asked = "an object" if kind in NAMES else "a string"
        raise BadRequest(f"'{CALLS[kind]}' must be {kind_asked}.", param=f"{at}.{CALLS[kind]}")
    if kind == "custom_tool_call":
        arguments = json.dumps({"input": arguments}, ensure_ascii=False)
    call_id = _call_id(item)
    if not call_id:
        raise BadRequest("A call needs a call_id.", param=f"{at}.call_id")
    return chat_call(call_id, tools.flat(name, space), arguments)


def chat_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """A call of the history as chat has it."""
    function = {"name": name, "arguments": call_arguments(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def _chat_calls(item: dict[str, Any], at: str) -> list[dict[str, Any]]:
    """The calls of an assistant message in chat's own shape, which some clients mix in."""
    told = []
    for index, call in enumerate(dicts(item.get("tool_calls"))):
        function = call.get("function")
        inner = {"call_id": call.get("id"), **(function if isinstance(function, dict) else {})}
        try:
            told.append(_call(inner, "function_call", f"{at}.tool_calls[{index}]"))
        except BadRequest:
            continue  # nothing that could be answered
    return told


def _call_id(item: dict[str, Any]) -> str:
    """What a call and its output have in common; "" where it is missing."""
    ids = (item.get(name) for name in ("call_id", "tool_call_id", "id"))
    return next((id for id in ids if isinstance(id, str) and id), "")


def _ids(items: list[tuple[str, str, dict[str, Any], bool]]) -> set[str]:
    turn = AssistantTurn()
    for at, kind, item, _ in items:
        if kind in CALLS or kind == "assistant says":
            _done(turn, item, kind, at)
    return {call["id"] for call in turn.calls}


def call_ids(body: dict[str, Any]) -> set[str]:
    """The ids of all calls in the conversation so far, of a request that `to_chat` has taken."""
    return _ids(_items(body))


# What came back


def _outputs(items: list[tuple[str, str, dict[str, Any], bool]]) -> dict[str, deque[Any]]:
    """(text, images) of each output, by call id.

    Ids may come again in a later turn, so they stand in line.
    """
    outputs: dict[str, deque[Any]] = defaultdict(deque)
    for at, kind, item, _ in items:
        if kind in OUTPUTS:
            outputs[_call_id(item)].append(_output(item, kind, at))
    return outputs


def _output(item: dict[str, Any], kind: str, at: str) -> tuple[str, list[dict[str, Any]]]:
    """What a tool gave: its text, and the images, which a tool's message cannot hold."""
    name = "output" if item.get("role") is None else "content"
    given = in_json(item.get(name))
    if isinstance(given, str):
        return given, []
    if kind in ("shell_call_output", "apply_patch_call_output", "local_shell_call_output"):
        return "" if given is None else json.dumps(given, ensure_ascii=False), []
    parts = _parts(given, f"{at}.{name}", new=False)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return text, [part for part in parts if part["type"] != "text"]


# Contents


def _text(item: dict[str, Any], at: str, new: bool = False) -> str:
    """The text of a message in which only text can stand."""
    content = item.get("content")
    if content is None and not new:
        return ""
    parts = _parts(content, f"{at}.content", new)
    for index, part in enumerate(parts):
        if part["type"] != "text" and new:
            raise BadRequest("Only text can stand here.", param=f"{at}.content[{index}].type")
    return "\n".join(part["text"] if part["type"] == "text" else in_words(part) for part in parts)


def _collapsed(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A string where there is only text: many providers take nothing else."""
    return (
        parts
        if any(part["type"] != "text" for part in parts)
        else "\n".join(part["text"] for part in parts)
    )


def _parts(content: object, at: str, new: bool) -> list[dict[str, Any]]:
    """Content as chat's parts. What chat has no word for is refused if it is new, else said."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        if new:
            raise BadRequest(f"'{at}' must be a string or a list of parts.", param=at)
        content = [] if content is None else [content]
    return [_told(part, f"{at}[{index}]", new) for index, part in enumerate(content)]


def _told(part: object, at: str, new: bool) -> dict[str, Any]:
    try:
        return _part(part, at)
    except BadRequest:
        if new:
            raise
        return {"type": "text", "text": in_words(part)}


def _part(part: object, at: str) -> dict[str, Any]:
    """A part of a content as one of chat's."""
    if not isinstance(part, dict):
        raise BadRequest("A part of a content must be an object.", param=at)
    kind = part.get("type")
    if kind in TEXTS:
        return {"type": "text", "text": _string(part, "text", at)}
    if kind == "refusal":
        return {"type": "text", "text": _string(part, "refusal", at)}
    if kind in ("input_image", "image_url", "image"):
        return _image(part, at)
    if kind == "input_file":
        return _file(part, at)
    if kind in ("input_audio", "video_url") and isinstance(part.get(kind), dict):
        return {"type": kind, kind: part[kind]}
    raise NotInChat(
        "A part must be input_text, output_text, refusal, input_image, input_audio or input_file.",
        param=f"{at}.type",
    )


def _string(part: dict[str, Any], name: str, at: str) -> str:
    if not isinstance(text := part.get(name), str):
        raise BadRequest(f"'{at}.{name}' must be a string.", param=f"{at}.{name}")
    return text


def _image(part: dict[str, Any], at: str) -> dict[str, Any]:
    given = part.get("image_url")
    inner = given if isinstance(given, dict) else part
    url = picture(part)
    if not url:
        raise NotInChat(
            "An image needs an image_url; files are not stored here.", param=f"{at}.image_url"
        )
    detail = {"detail": inner["detail"]} if inner.get("detail") in ("low", "high", "auto") else {}
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def _file(part: dict[str, Any], at: str) -> dict[str, Any]:
    """A file of text becomes text. No chat upstream reads any other."""
    data = part.get("file_data")
    head, comma, rest = data.partition(",") if isinstance(data, str) else ("", "", "")
    if not comma or not head.startswith(("data:text/", "data:application/json")):
        raise NotInChat(
            "Only text files can be read here, as a data: URL in file_data.",
            param=f"{at}.file_data",
        )
    try:
        text = (
            base64.b64decode(rest) if head.endswith(";base64") else unquote_to_bytes(rest)
        ).decode()
    except (binascii.Error, ValueError):
        raise BadRequest("The file is not valid UTF-8 text.", param=f"{at}.file_data") from None
    name = part.get("filename")
    return {"type": "text", "text": f"{name}:\n{text}" if isinstance(name, str) and name else text}
