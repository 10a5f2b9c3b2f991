"""What Anthropic and chat call differently, and the way back: names of tools, and ids of their
calls.

Owns the two translations of a request that must be undone in its answer: tool names that chat does
not allow, and ids that Anthropic does not.
"""

import base64
import hashlib
import re
from typing import Any

NAME_MAX = 64  # characters of a chat function's name
ODD_ID = "toolu_as_"  # before ids that Anthropic's alphabet cannot spell

_allowed_id = re.compile(r"[a-zA-Z0-9_-]+").fullmatch
_odd_character = re.compile(r"[^a-zA-Z0-9_-]")


def chat_name(name: str) -> str:
    """A tool's name as chat allows it: MCP tools in particular have names beyond 64 characters."""
    if len(name) <= NAME_MAX and _allowed_id(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_odd_character.sub('_', name)[: NAME_MAX - 9]}_{digest}"


def own_names(body: dict[str, Any]) -> dict[str, str]:
    """The caller's own names of the tools that `chat_name` renamed."""
    names = [tool["name"] for tool in body.get("tools") or () if isinstance(tool.get("name"), str)]
    return {chat_name(name): name for name in names if chat_name(name) != name}


def own_id(call_id: str) -> str:
    """A chat tool call's id in Anthropic's alphabet. Kimi's `functions.get_weather:0` must come
    back to it as it was, so the id is spelled otherwise rather than cleaned; `chat_id` undoes it.
    """
    if _allowed_id(call_id) and not call_id.startswith(ODD_ID):
        return call_id
    data = call_id.encode("utf-8", "surrogatepass")
    return ODD_ID + base64.urlsafe_b64encode(data).decode().rstrip("=")


def chat_id(tool_use_id: str) -> str:
    """The upstream's own id behind one that `own_id` made; any other is returned as it is."""
    if not tool_use_id.startswith(ODD_ID):
        return tool_use_id
    spelled = tool_use_id.removeprefix(ODD_ID)
    try:
        return base64.urlsafe_b64decode(spelled + "=" * (-len(spelled) % 4)).decode() or tool_use_id
    except ValueError:
        return tool_use_id
