"""Tools that chat cannot express, and the way back.

Owns the names of tools. A chat upstream is shown plain functions only: the children of a
`namespace` under `<namespace>__<child>`, a freeform `custom` tool as a function with one text,
`local_shell`, `shell` and `apply_patch` as functions. What the model then calls is split again into
the tool that the caller named: Codex runs no other. Hosted tools (web_search, mcp, ...) are
dropped, since no chat upstream can run them.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from relay.errors import BadRequest, NotInChat

NAME_MAX = 64  # OpenAI's limit for the name of a function
HOSTED = (
    "web_search",
    "web_search_preview",
    "file_search",
    "code_interpreter",
    "image_generation",
    "computer_use_preview",
    "mcp",
)  # what only OpenAI's servers run
MODES = ("auto", "none", "required")

_decode = msgspec.json.Decoder().decode
_foreign = re.compile(r"[^a-zA-Z0-9_-]").sub

_FREEFORM = {
    "type": "object",
    "additionalProperties": False,
    "required": ["input"],
    "properties": {
        "input": {"type": "string", "description": "The raw text, exactly as the tool wants it."}
    },
}
_SHELL = {
    "type": "object",
    "required": ["command"],
    "properties": {
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The program and its arguments.",
        },
        "working_directory": {"type": "string"},
        "timeout_ms": {"type": "integer"},
    },
}


# Tools that OpenAI defines and the caller runs: what they do, and their arguments. Source: OpenAI's
# documentation of the shell and the apply_patch tool.
CLIENT_RUN = {
    "local_shell": ("Runs a command in a shell.", _SHELL),
    "shell": (
        "Runs commands in a shell, at once beside each other.",
        {
            "type": "object",
            "required": ["commands"],
            "properties": {
                "commands": {"type": "array", "items": {"type": "string"}},
                "timeout_ms": {"type": "integer"},
                "max_output_length": {"type": "integer"},
            },
        },
    ),
    "apply_patch": (
        "Creates, changes or deletes a file. `diff` is in the V4A format.",
        {
            "type": "object",
            "required": ["type", "path"],
            "properties": {
                "type": {"type": "string", "enum": ["create_file", "update_file", "delete_file"]},
                "path": {"type": "string"},
                "diff": {"type": "string"},
            },
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the caller knows it."""

    kind: str  # "function", "custom" or one of CLIENT_RUN
    name: str
    namespace: str | None = None


@dataclass(slots=True)
class Toolbox:
    """The tools of one request, by the name that the upstream sees."""

    tools: dict[str, Tool] = field(default_factory=dict)
    functions: dict[str, dict[str, Any]] = field(default_factory=dict)  # the same as chat's tools
    echo: list[dict[str, Any]] = field(
        default_factory=list
    )  # what is in force, in the caller's own shape
    left_out: list[str] = field(default_factory=list)  # kinds that nobody here can run

    def tool(self, name: str) -> Tool:
        """The caller's tool behind a name that the model used.

        A function, if the model made it up.
        """
        return self.tools.get(name) or Tool("function", name)


def flat(name: str, namespace: str | None = None) -> str:
    """The name of a tool upstream: letters that every provider takes, at most 64.

    What is cut off is hashed.
    """
    whole = f"{namespace}__{name}" if namespace else name
    clean = _foreign("_", whole)
    if clean == whole and len(clean) <= NAME_MAX:
        return clean
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{clean[: NAME_MAX - 9]}_{mark}"


def read(body: dict[str, Any]) -> Toolbox:
    """The tools of a request, those that Codex adds as `additional_tools` items included.

    Raises BadRequest if one has no name, or if two would be called alike upstream.
    """
    box = Toolbox()
    for at, tools in _lists(body):
        if not isinstance(tools, list):
            raise BadRequest(f"'{at}' must be a list of tools.", param=at)
        for index, tool in enumerate(tools):
            told = _add(box, tool, f"{at}[{index}]")
            if told:
                box.echo.append(told)
    return box


def _lists(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    if body.get("tools") is not None:
        yield "tools", body["tools"]
    items = body.get("input")
    for index, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            yield f"input[{index}].tools", item.get("tools")


def _add(
    box: Toolbox, tool: object, at: str, space: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Put a tool into the box; returns it as it is echoed, None if it is a hosted one."""
    if not isinstance(tool, dict):
        raise BadRequest("A tool must be an object.", param=at)
    kind = tool.get("type")
    if not isinstance(kind, str):
        raise BadRequest("A tool needs a type.", param=f"{at}.type")
    if isinstance(tool.get(kind), dict):  # chat's own shape, which some send here too
        tool, at = {"type": kind, **tool[kind]}, f"{at}.{kind}"
    if kind == "namespace" and space is None:
        return _add_namespace(box, tool, at)
    if kind in CLIENT_RUN and space is None:
        description, schema = CLIENT_RUN[kind]
        _put(box, Tool(kind, kind), {"description": description, "parameters": schema}, at)
        return {"type": kind}
    if kind not in ("function", "custom"):
        box.left_out.append(kind)
        return None
    tool = tool | {"name": _name(tool, at), "description": _told(tool, at)}
    function, echo = _function(tool, at) if kind == "function" else _custom(tool)
    if space and space["description"]:
        function["description"] = (
            f"{space['description']}\n\n{function.get('description', '')}".strip()
        )
        space["description"] = ""
    _put(box, Tool(kind, tool["name"], space["name"] if space else None), function, at)
    return echo


def _add_namespace(box: Toolbox, tool: dict[str, Any], at: str) -> dict[str, Any]:
    """What a namespace says of itself is told once upstream, by its first child."""
    space = {"name": _name(tool, at), "description": _told(tool, at) or ""}
    children = tool.get("tools")
    if not isinstance(children, list):
        raise BadRequest(f"'{at}.tools' must be a list of tools.", param=f"{at}.tools")
    told: dict[str, Any] = {"type": "namespace", **space, "tools": []}
    for index, child in enumerate(children):
        echo = _add(box, child, f"{at}.tools[{index}]", space)
        if echo:
            told["tools"].append(echo)
    return told


def _put(box: Toolbox, tool: Tool, function: dict[str, Any], at: str) -> None:
    name = flat(tool.name, tool.namespace)
    if box.tools.get(name, tool) != tool:
        raise BadRequest(f"Two tools are both called '{name}'.", param=f"{at}.name")
    box.tools[name] = tool
    box.functions[name] = {
        "type": "function",
        "function": {
            "name": name,
            **{key: value for key, value in function.items() if value is not None and value != ""},
        },
    }


def _name(tool: dict[str, Any], at: str) -> str:
    name = tool.get("name")
    if not isinstance(name, str) or not name:
        raise BadRequest("A tool needs a name.", param=f"{at}.name")
    return name


def _told(tool: dict[str, Any], at: str) -> str | None:
    told = tool.get("description")
    if told is not None and not isinstance(told, str):
        raise BadRequest("The description of a tool must be a string.", param=f"{at}.description")
    return told


def _function(tool: dict[str, Any], at: str) -> tuple[dict[str, Any], dict[str, Any]]:
    schema = tool.get("parameters")
    if schema is not None and not isinstance(schema, dict):
        raise BadRequest(
            "The parameters of a function must be a JSON schema.", param=f"{at}.parameters"
        )
    strict = tool.get("strict") is True
    echo = {
        "type": "function",
        "name": tool["name"],
        "description": tool["description"],
        "parameters": schema or {},
        "strict": strict,
    }
    return {
        "description": tool["description"],
        "parameters": _schema(schema or {}),
        "strict": strict or None,
    }, echo


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A function's parameters as strict providers want them.

    An object with properties, and no `$schema`.
    """
    kept = {name: value for name, value in schema.items() if name != "$schema"}
    if "type" in kept and kept["type"] != "object":
        return kept
    return {"type": "object", "properties": {}} | kept


def _custom(tool: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A freeform tool as a function. Its grammar becomes words: no chat upstream enforces one."""
    echo = {name: tool[name] for name in ("type", "name", "description") if tool.get(name)}
    told = (tool["description"] or "").replace(
        "do not wrap the patch in JSON", "put the whole patch into `input`"
    )
    told += "\n\nPut the raw text into `input`."
    form = tool.get("format")
    if isinstance(form, dict) and isinstance(form.get("definition"), str):
        syntax = form.get("syntax") if form.get("syntax") in ("lark", "regex") else "lark"
        told += f" It must follow this {syntax} grammar:\n{form['definition']}"
        echo["format"] = {"type": "grammar", "syntax": syntax, "definition": form["definition"]}
    return {"description": told.strip(), "parameters": _FREEFORM}, echo


def choice(
    body: dict[str, Any], box: Toolbox, lenient: bool = False
) -> tuple[list[dict[str, Any]], object]:
    """(chat's tools, chat's tool_choice or None): what the model may call and whether it must.

    Without any tool there is no choice either: strict servers refuse `tool_choice` beside an empty
    list. Raises NotInChat where one is demanded that nobody here can run, unless `lenient`: the
    model would make up what the tool was to find.
    """
    asked, functions = body.get("tool_choice"), list(box.functions.values())
    hosted = isinstance(asked, dict) and asked.get("type") in HOSTED
    if not lenient and (hosted or asked == "required" and body.get("tools") and not functions):
        raise NotInChat("The tool that is demanded cannot be run here.", param="tool_choice")
    if isinstance(asked, str) and asked in MODES:
        return functions, asked if functions else None
    if asked is None:
        return functions, None
    if not isinstance(asked, dict) or not isinstance(asked.get("type"), str):
        raise BadRequest(
            "'tool_choice' must be auto, none, required or the choice of a tool.",
            param="tool_choice",
        )
    kind = asked["type"]
    inner = asked[kind] if isinstance(asked.get(kind), dict) else asked
    if kind == "allowed_tools":
        return _allowed(inner, box)
    if kind not in ("function", "custom", *CLIENT_RUN):
        return functions, "auto" if functions else None
    name = kind if kind in CLIENT_RUN else _chosen(inner, "tool_choice")
    if name not in box.functions:
        raise BadRequest(
            f"'tool_choice' names the tool '{name}', which is not among the tools.",
            param="tool_choice",
        )
    return functions, {"type": "function", "function": {"name": name}}


def _allowed(asked: dict[str, Any], box: Toolbox) -> tuple[list[dict[str, Any]], object]:
    mode, allowed = asked.get("mode", "auto"), asked.get("tools")
    if mode not in ("auto", "required"):
        raise BadRequest("The mode must be auto or required.", param="tool_choice.mode")
    if not isinstance(allowed, list):
        raise BadRequest("'tool_choice.tools' must be a list of tools.", param="tool_choice.tools")
    names, spaces = set(), set()
    for index, tool in enumerate(allowed):
        at = f"tool_choice.tools[{index}]"
        if not isinstance(tool, dict):
            raise BadRequest("A tool must be an object.", param=at)
        kind = tool.get("type")
        if kind == "namespace":
            spaces.add(_name(tool, at))
        elif kind in ("function", "custom"):
            names.add(_chosen(tool[kind] if isinstance(tool.get(kind), dict) else tool, at))
    functions = [
        function
        for name, function in box.functions.items()
        if name in names or box.tools[name].namespace in spaces
    ]
    return functions, mode if functions else None


def _chosen(tool: dict[str, Any], at: str) -> str:
    space = tool.get("namespace")
    if space is not None and not isinstance(space, str):
        raise BadRequest("The namespace of a tool must be a string.", param=f"{at}.namespace")
    return flat(_name(tool, at), space)


def freeform(arguments: str) -> str:
    """What a custom tool is given: the function's `input`, or what the model wrote in its place."""
    told = value(arguments)
    if isinstance(told, dict):
        texts = [told["input"]] if "input" in told else list(told.values())
        told = texts[0] if len(texts) == 1 else None
    return told if isinstance(told, str) else arguments


def value(text: str) -> object:
    """The JSON value of a text, None if it is not JSON."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
