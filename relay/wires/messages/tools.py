"""The tools of a Messages request as functions of chat.

Owns the schemas of the tools that Anthropic defines and the caller runs (bash, text editor, memory,
computer): chat models are given them as functions. What only Anthropic's servers can run is left
out, and refused where it is demanded. Source: Anthropic's documentation of each tool.
"""

from typing import Any

from relay.errors import BadRequest, NotInChat
from relay.wires.messages.checks import optional, string, want
from relay.wires.messages.names import chat_name

_text = {"type": "string"}
_number = {"type": "integer"}
_pair = {"type": "array", "items": {"type": "integer"}}
_edits = {
    "path": _text,
    "file_text": _text,
    "old_str": _text,
    "new_str": _text,
    "insert_line": _number,
    "insert_text": _text,
}

# By the beginning of the type, whose end is a date: (what it does, members, those that must be).
CLIENT_RUN = {
    "bash_": (
        "Run a command in a persistent shell, or restart the shell.",
        {"command": _text, "restart": {"type": "boolean"}},
        [],
    ),
    "text_editor_": (
        "View, create and edit text files. `command` is one of view, create, str_replace, insert.",
        {"command": _text, **_edits, "view_range": _pair},
        ["command", "path"],
    ),
    "memory_": (
        "Keep notes in files below /memories. `command`: view, create, str_replace, insert, delete...",
        {"command": _text, **_edits, "view_range": _pair, "old_path": _text, "new_path": _text},
        ["command"],
    ),
    "computer_": (
        "Use a computer. `action`: screenshot, key, type, mouse_move, left_click, scroll, wait...",
        {
            "action": _text,
            "coordinate": _pair,
            "start_coordinate": _pair,
            "text": _text,
            "scroll_direction": _text,
            "scroll_amount": _number,
            "duration": {"type": "number"},
            "region": _pair,
        },
        ["action"],
    ),
}


def to_functions(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools that the caller runs. Those that Anthropic runs itself are left out."""
    tools = []
    for index, tool in enumerate(optional(body, "tools", list) or ()):
        path = f"tools.{index}"
        kind = want(tool, dict, path).get("type")
        known = next((CLIENT_RUN[each] for each in CLIENT_RUN if str(kind).startswith(each)), None)
        if kind not in (None, "custom") and known is None:
            continue
        description, schema = optional(tool, "description", str, path), tool.get("input_schema")
        if known:
            description, properties, required = known
            schema = {"type": "object", "properties": properties, "required": required}
        function = {
            "name": chat_name(string(tool, "name", path, least=1)),
            "description": description,
            "parameters": _schema(
                optional({"input_schema": schema}, "input_schema", dict, path) or {}
            ),
        }
        tools.append(
            {
                "type": "function",
                "function": {name: value for name, value in function.items() if value is not None},
            }
        )
    return tools


def left_out(body: dict[str, Any]) -> list[str]:
    """The names of the tools that Anthropic runs itself, which nobody can run here."""
    offered = [tool for tool in body.get("tools") or () if isinstance(tool, dict)]
    gone = [
        tool
        for tool in offered
        if tool.get("type") not in (None, "custom")
        and not str(tool["type"]).startswith(tuple(CLIENT_RUN))
    ]
    names = (tool.get("name") or tool.get("mcp_server_name") or tool["type"] for tool in gone)
    return [name for name in names if isinstance(name, str)]


def tool_choice(
    body: dict[str, Any], tools: list[dict[str, Any]], lenient: bool = False
) -> dict[str, Any]:
    """The choice among them.

    Raises NotInChat where a tool is demanded that nobody here can run, unless `lenient`: the model
    would make up what the tool was to find.
    """
    choice = optional(body, "tool_choice", dict)
    if choice is None:
        return {}
    kind = choice.get("type")
    if kind not in ("auto", "any", "tool", "none"):
        raise BadRequest(
            "'tool_choice.type' must be auto, any, tool or none.", param="tool_choice.type"
        )
    wanted = string(choice, "name", "tool_choice") if kind == "tool" else ""
    name = chat_name(wanted)
    runs = any(tool["function"]["name"] == name for tool in tools) if wanted else bool(tools)
    if not runs and kind in ("any", "tool") and body.get("tools") and not lenient:
        raise NotInChat(
            f"There is no tool {wanted!r} that can be run here.", param="tool_choice.name"
        )
    if not tools:
        return {}
    chosen: object = {"any": "required", "none": "none"}.get(kind, "auto")
    if wanted and runs:
        chosen = {"type": "function", "function": {"name": name}}
    alone = optional(choice, "disable_parallel_tool_use", bool, "tool_choice")
    return {"tool_choice": chosen} | ({"parallel_tool_calls": False} if alone else {})


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that strict servers take: an object with properties, and no `$schema`."""
    kept = {name: value for name, value in schema.items() if name != "$schema"}
    if not isinstance(kept.get("properties"), dict):
        kept["properties"] = {}
    return {"type": "object"} | kept
