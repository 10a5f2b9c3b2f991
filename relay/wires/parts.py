"""Parts of content that agents hide in a text."""

import json


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
