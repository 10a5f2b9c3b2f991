"""Parts of content that chat has no word for, and those that agents hide in a text."""

import json
from typing import Any

LOST_RESULT = "(the result of a tool call that is no longer in this conversation)"


def in_json(output: object, kinds: tuple[str, ...]) -> object:
    """A tool's output; where it is the JSON text of a list of parts with an image, that list.

    Codex and others put a screenshot so into the output of a tool: as text it would cost a million
    LLM tokens. Any other JSON stays text, that of a list of texts too. `kinds`: types of parts that
    may stand in the list.
    """
    if not isinstance(output, str) or "image" not in output or not output.lstrip().startswith("["):
        return output
    try:
        parts = json.loads(output)
    except (ValueError, RecursionError):
        return output
    if not parts or not all(isinstance(part, dict) and part.get("type") in kinds for part in parts):
        return output
    return parts if any("image" in part["type"] for part in parts) else output


def in_words(part: object) -> str:
    """What of the history a model cannot be given as it is, in words."""
    if not isinstance(part, dict):
        return part if isinstance(part, str) else "(something that cannot be read)"
    kind = part.get("type")
    named = kind.replace("_", " ") if isinstance(kind, str) and kind else "part"
    content = part.get("content")
    texts = [part.get(name) for name in ("title", "text", "url", "name", "filename")]
    texts += [content, *(each.get("text") for each in dicts(content))]
    said = "\n".join(text for text in texts if isinstance(text, str) and text)
    return f"({named})\n{said}" if said else f"({named}, which this model cannot read)"


def dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a list; of anything else none."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
