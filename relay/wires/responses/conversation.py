"""The `input` of a Responses request as chat messages.

Owns how items become messages. Three rules carry the rest: all that the assistant did between two
other items (reasoning, text, calls) is ONE message; the outputs of its calls follow it at once, in
the order of the calls; whatever the developer says, wherever it stands, goes into one leading
system message. Providers refuse anything else.
"""

import base64
import binascii
import json
from collections import defaultdict, deque
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from relay.errors import BadRequest
from relay.wires.responses import compaction, sealed, tools

TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
CALLS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
}
OUTPUTS = tuple(f"{kind}_output" for kind in CALLS)
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
    calls: list[dict] = field(default_factory=list)

    def messages(self, outputs: dict[str, deque]) -> list[dict]:
        """The turn's message and the outputs of its calls.

        Thoughts that led to nothing are left out.
        """
        if not self.texts and not self.calls:
            return []
        said = {"role": "assistant", "content": "\n\n".join(self.texts)}
        if self.thoughts:
            said["reasoning_content"] = "\n\n".join(self.thoughts)
        if not self.calls:
            return [said]
        said["tool_calls"] = self.calls
        told, shown = [said], []
        for call in self.calls:
            waiting = outputs.get(call["id"])
            text, images = waiting.popleft() if waiting else ("(no result)", [])
            text = text or ("(the image follows)" if images else "(no output)")
            told.append({"role": "tool", "tool_call_id": call["id"], "content": text})
            shown += images
        return told + ([{"role": "user", "content": shown}] if shown else [])


def messages(body: dict, key: bytes | str) -> list[dict]:
    """Chat's messages. `key` is what sealed reasoning is believed by.

    Raises BadRequest, which names the place.
    """
    items = _items(body, key)
    outputs = _outputs(items)
    system, talk, turn = [_instructions(body)], [], AssistantTurn()
    for at, kind, item in items:
        if kind == "reasoning":
            turn.thoughts.append(_thought(item, at, key))
        elif kind in CALLS:
            turn.calls.append(_call(item, kind, at))
        elif kind == "assistant says":
            turn.texts.append(_text(item, at))
            turn.thoughts.append(
                item["reasoning_content"] if isinstance(item.get("reasoning_content"), str) else ""
            )
            turn.calls += _chat_calls(item, at)
        elif kind == "system says":
            system.append(_text(item, at))
        elif kind == "user says" or kind in OUTPUTS:
            talk += _kept(turn).messages(outputs)
            turn = AssistantTurn()
            if kind == "user says":
                talk.append(
                    {
                        "role": "user",
                        "content": _collapsed(_parts(item.get("content"), f"{at}.content")),
                    }
                )
    talk += _kept(turn).messages(outputs)
    head = "\n\n".join(text for text in system if text)
    told = ([{"role": "system", "content": head}] if head else []) + talk
    if not told:
        raise BadRequest("'input' holds nothing to answer.", param="input")
    return told


def _kept(turn: AssistantTurn) -> AssistantTurn:
    return AssistantTurn(
        [text for text in turn.thoughts if text], [text for text in turn.texts if text], turn.calls
    )


def _instructions(body: dict) -> str:
    told = body.get("instructions")
    if told is not None and not isinstance(told, str):
        raise BadRequest("'instructions' must be a string.", param="instructions")
    return told or ""


def _items(body: dict, key: bytes | str = b"") -> list[tuple[str, str, dict]]:
    """(place, kind, item) of each item; a message's kind is who says it.

    Kinds that are not known are dropped later.
    """
    given = body.get("input")
    if isinstance(given, str):
        return [("input", "user says", {"content": given})]
    if not isinstance(given, list) or not given:
        raise BadRequest(
            "'input' must be a string or a list with at least one item.", param="input"
        )
    items = []
    for index, item in enumerate(given):
        at = f"input[{index}]"
        if not isinstance(item, dict):
            raise BadRequest("An input item must be an object.", param=at)
        summary = compaction.told(item, key)
        items.append(
            (at, _kind(item, at), item)
            if summary is None
            else (at, "user says", {"content": summary})
        )
    return items


def _kind(item: dict, at: str) -> str:
    kind = item.get("type")
    if kind is None and "role" in item:
        kind = "message"
    if kind == "item_reference" or (kind is None and "id" in item):
        raise BadRequest(
            "Answers are not stored here, so an item cannot be referred to. Send the item itself: "
            "clients do so when they are told 'store': false.",
            param=at,
            code="unsupported_parameter",
        )
    if not isinstance(kind, str):
        raise BadRequest("An input item needs a type.", param=f"{at}.type")
    if kind != "message":
        return kind
    roles = {
        "user": "user says",
        "assistant": "assistant says",
        "system": "system says",
        "developer": "system says",
        "tool": "function_call_output",
    }
    role = item.get("role")
    if not isinstance(role, str) or role not in roles:
        raise BadRequest(
            "The role must be user, assistant, system or developer.", param=f"{at}.role"
        )
    return roles[role]


# What the assistant did


def _thought(item: dict, at: str, key: bytes | str) -> str:
    """The text of a reasoning item: what was sealed here; else the plain text, else the summary.

    Falling back gives nothing away: a caller may put any words into an assistant's mouth anyhow.
    """
    text = sealed.unseal(item.get("encrypted_content"), key)
    if text is not None:
        return text
    for name in ("content", "summary"):
        parts = item.get(name)
        if parts is not None and not isinstance(parts, list):
            raise BadRequest(f"'{name}' must be a list.", param=f"{at}.{name}")
        texts = [
            _part(part, f"{at}.{name}[{index}]").get("text")
            for index, part in enumerate(parts or ())
        ]
        if any(texts):
            return "\n\n".join(text for text in texts if text)
    return ""


def _call(item: dict, kind: str, at: str) -> dict:
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
    return chat_call(_call_id(item, at), tools.flat(name, space), arguments)


def chat_call(call_id: str, name: str, arguments: str) -> dict:
    """Arguments that are no JSON object would wedge the session.

    Strict providers refuse them in every later call.
    """
    if not isinstance(tools.value(arguments), dict):
        arguments = (
            json.dumps({"input": arguments}, ensure_ascii=False) if arguments.strip() else "{}"
        )
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _chat_calls(item: dict, at: str) -> list[dict]:
    """The calls of an assistant message in chat's own shape, which some clients mix in."""
    calls = item.get("tool_calls")
    told = []
    for index, call in enumerate(calls if isinstance(calls, list) else ()):
        place = f"{at}.tool_calls[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise BadRequest("A call must be an object with a function.", param=place)
        inner = {"call_id": call.get("id"), **function}
        told.append(_call(inner, "function_call", place))
    return told


def _call_id(item: dict, at: str) -> str:
    for name in ("call_id", "tool_call_id", "id"):
        if isinstance(item.get(name), str) and item[name]:
            return item[name]
    raise BadRequest("A call and its output need a call_id.", param=f"{at}.call_id")


def call_ids(body: dict) -> set[str]:
    """The ids of all calls in the conversation so far, of a request that `to_chat` has taken."""
    items = _items(body)
    return {_call_id(item, at) for at, kind, item in items if kind in CALLS} | {
        call["id"]
        for at, kind, item in items
        if kind == "assistant says"
        for call in _chat_calls(item, at)
    }


# What came back


def _outputs(items: list[tuple[str, str, dict]]) -> dict[str, deque]:
    """(text, images) of each output, by call id.

    Ids may come again in a later turn, so they stand in line.
    """
    outputs: dict[str, deque] = defaultdict(deque)
    for at, kind, item in items:
        if kind in OUTPUTS:
            name = "output" if item.get("role") is None else "content"
            outputs[_call_id(item, at)].append(_output(item.get(name), f"{at}.{name}", kind))
    return outputs


def _output(given: object, at: str, kind: str) -> tuple[str, list[dict]]:
    if isinstance(given, str):
        return given, []
    if kind in ("shell_call_output", "apply_patch_call_output", "local_shell_call_output"):
        return "" if given is None else json.dumps(given, ensure_ascii=False), []
    parts = _parts(given, at)
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return text, [part for part in parts if part["type"] != "text"]


# Contents


def _text(item: dict, at: str) -> str:
    """The text of a message in which only text can stand."""
    content = item.get("content")
    if content is None and item.get("role") == "assistant":
        return ""
    parts = _parts(content, f"{at}.content")
    for index, part in enumerate(parts):
        if part["type"] != "text":
            raise BadRequest("Only text can stand here.", param=f"{at}.content[{index}].type")
    return "\n".join(part["text"] for part in parts)


def _collapsed(parts: list[dict]) -> str | list[dict]:
    """A string where there is only text: many providers take nothing else."""
    return (
        parts
        if any(part["type"] != "text" for part in parts)
        else "\n".join(part["text"] for part in parts)
    )


def _parts(content: object, at: str) -> list[dict]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise BadRequest(f"'{at}' must be a string or a list of parts.", param=at)
    return [_part(part, f"{at}[{index}]") for index, part in enumerate(content)]


def _part(part: object, at: str) -> dict:
    """A part of a content as one of chat's."""
    if not isinstance(part, dict):
        raise BadRequest("A part of a content must be an object.", param=at)
    kind = part.get("type")
    if kind in TEXTS:
        return {"type": "text", "text": _string(part, "text", at)}
    if kind == "refusal":
        return {"type": "text", "text": _string(part, "refusal", at)}
    if kind in ("input_image", "image_url"):
        return _image(part, at)
    if kind == "input_file":
        return _file(part, at)
    if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    raise BadRequest(
        "A part must be input_text, output_text, refusal, input_image, input_audio or input_file.",
        param=f"{at}.type",
    )


def _string(part: dict, name: str, at: str) -> str:
    if not isinstance(part.get(name), str):
        raise BadRequest(f"'{at}.{name}' must be a string.", param=f"{at}.{name}")
    return part[name]


def _image(part: dict, at: str) -> dict:
    given = part.get("image_url")
    inner = given if isinstance(given, dict) else {"url": given, "detail": part.get("detail")}
    if not isinstance(inner.get("url"), str) or not inner["url"]:
        raise BadRequest(
            "An image needs an image_url; files are not stored here.", param=f"{at}.image_url"
        )
    detail = {"detail": inner["detail"]} if inner.get("detail") in ("low", "high", "auto") else {}
    return {"type": "image_url", "image_url": {"url": inner["url"], **detail}}


def _file(part: dict, at: str) -> dict:
    """A file of text becomes text. No chat upstream reads any other."""
    data = part.get("file_data")
    head, comma, rest = data.partition(",") if isinstance(data, str) else ("", "", "")
    if not comma or not head.startswith(("data:text/", "data:application/json")):
        raise BadRequest(
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
