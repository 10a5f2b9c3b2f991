"""Parts of content that chat has no word for, and those that agents hide in a text."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

LOST_RESULT = "(the result of a tool call that is no longer in this conversation)"
TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
# Members that say nothing to a model: marks, and what only their maker can read.
MUTE = ("type", "id", "status", "role", "data", "file_data", "result", "signature")
WORD_MAX = 300  # letters without a blank
MUTE_ENDS = ("_id", "_type", "_label", "encrypted_content", "encrypted_index", "_control")


def in_json(output: object) -> object:
    """A tool's output; where it is the JSON of parts with an image among them, those parts.

    Codex, servers of MCP and others put a screenshot so into the output of a tool: as text it would
    cost a million LLM tokens. It may stand alone, in a list, or in the `content` of an object. Any
    other JSON stays text, that of a list of texts too.
    """
    if not isinstance(output, str) or "image" not in output or output.lstrip()[:1] not in "[{":
        return output
    try:
        value = json.loads(output)
    except (ValueError, RecursionError):
        return output
    if isinstance(value, dict) and value.get("type") is None:
        value = value.get("content")
    parts = [_plain(part) for part in (value if isinstance(value, list) else [value])]
    known = all(parts) and any(part and part["type"] == "image_url" for part in parts)
    return parts if known else output


def _plain(part: object) -> dict[str, Any] | None:
    """A text or an image of any wire in chat's words; None for anything else."""
    if not isinstance(part, dict):
        return None
    if part.get("type") in TEXTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    url = picture(part)
    return {"type": "image_url", "image_url": {"url": url}} if url else None


def picture(part: dict[str, Any]) -> str | None:
    """The address of the image that a part is, as OpenAI, Anthropic or MCP tell one; else None."""
    if part.get("type") not in ("image", "image_url", "input_image"):
        return None
    given, source = part.get("image_url"), part.get("source")
    url = given.get("url") if isinstance(given, dict) else given
    inner = source if isinstance(source, dict) else part
    kind = inner.get("media_type") or inner.get("mimeType")
    data = inner.get("data")
    if not url and isinstance(data, str) and data and isinstance(kind, str):
        return f"data:{kind};base64,{data}"
    url = url or inner.get("url")
    return url if isinstance(url, str) and url else None


def call_arguments(given: object) -> str:
    """The arguments of a call of the history as the text of a JSON object.

    Anything else would wedge the session: strict providers refuse it in every later call.
    """
    if isinstance(given, str):
        try:
            if isinstance(json.loads(given), dict):
                return given
        except (ValueError, RecursionError):
            pass
        given = given.strip() and given
    if given and not isinstance(given, dict):
        given = {"input": given}
    return json.dumps(given or {}, ensure_ascii=False)


def missing(tools: Iterable[str]) -> str:
    """What a model is told of tools that it was offered and that nobody here can run: it would rely on
    them, or wonder why the instructions name them. "" for none."""
    names = ", ".join(dict.fromkeys(tools))
    return f"These tools cannot be used in this conversation: {names}." if names else ""


def in_words(part: object) -> str:
    """What of the history a model cannot be given as it is, in words: all texts that stand in it."""
    if not isinstance(part, dict):
        lone = "" if part is None else _words(part)
        return lone or "(something that cannot be read)"
    kind = part.get("type")
    named = kind.replace("_", " ") if isinstance(kind, str) and kind else "part"
    said = _words(part)
    return f"({named})\n{said}" if said else f"({named}, which this model cannot read)"


def _words(value: object) -> str:
    if isinstance(value, dict | list):
        return "\n".join(text for text in _texts(value) if text.strip())
    return value if isinstance(value, str) else json.dumps(value)


def _texts(value: object) -> Iterator[str]:
    """The texts in a value, in their order, without those that are no words."""
    if isinstance(value, str):
        if not _is_data(value):
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in MUTE and not name.endswith(MUTE_ENDS):
                yield from _texts(each)


def _is_data(text: str) -> bool:
    """Whether a text is no words but data, such as a file in base64: long, without a blank."""
    start = text[:WORD_MAX]
    return len(start) == WORD_MAX and start.isascii() and len(start.split()) == 1


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a list; of anything else none."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
