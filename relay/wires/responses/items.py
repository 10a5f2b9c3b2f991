"""The items of an answer: reasoning, messages, tool calls.

Owns which item a piece of an answer belongs to, and the shape of each item, plain and as events.
Whether the answer comes at once or in a stream, an item is made here and has the same id in both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from relay.wires.reader import Piece
from relay.wires.responses import sealed, tools

PREFIXES = {
    "reasoning": "rs",
    "text": "msg",
    "refusal": "msg",
    "compaction": "cmp",
    "function": "fc",
    "custom": "ctc",
    "local_shell": "lsh",
    "shell": "sh",
    "apply_patch": "apc",
}
CALLS = {
    "function": "function_call",
    "custom": "custom_tool_call",
    "local_shell": "local_shell_call",
    "shell": "shell_call",
    "apply_patch": "apply_patch_call",
}
EVENTS = {  # whose deltas are what, whose part is what, and where in the item
    "reasoning": ("reasoning_summary_text", "reasoning_summary_part", {"summary_index": 0}),
    "text": ("output_text", "content_part", {"content_index": 0}),
    "refusal": ("refusal", "content_part", {"content_index": 0}),
    "function": ("function_call_arguments", None, {}),
    "custom": ("custom_tool_call_input", None, {}),
    "local_shell": (None, None, {}),
    "shell": (None, None, {}),
    "apply_patch": (None, None, {}),
    "compaction": (None, None, {}),
}

Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Making:
    """What the items of one answer have in common."""

    stem: str  # what their ids are made of
    box: tools.Toolbox
    key: bytes | str  # seals reasoning; empty: reasoning is not sealed
    taken: set[str] = field(default_factory=set)  # ids of calls that the caller knows
    compacts: bool = False  # the answer is a summary that the caller carries


@dataclass(slots=True, eq=False)
class Item:
    """An output item in the making. `open` gives it its place."""

    kind: str  # "reasoning", "text", "refusal", "call" or "compaction"
    call_id: str = ""  # the provider's
    own_call_id: str = ""  # the caller's
    name: str = ""
    index: int = -1  # output_index
    id: str = ""
    tool: tools.Tool | None = None
    key: bytes | str = b""
    _pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def raw(self) -> bool:
        """True if it cannot be handed over piece by piece.

        What is inside the JSON is wanted, not the JSON.
        """
        return self.kind == "compaction" or self.tool is not None and self.tool.kind != "function"

    @property
    def whole(self) -> bool:
        """True if nothing can follow any more: a call whose arguments are complete JSON.

        A text, for all we know.
        """
        if self.kind != "call":
            return True
        last = self._pieces[-1].rstrip() if self._pieces else ""
        return (not last or last.endswith("}")) and isinstance(tools.value(self.text), dict)

    def add(self, text: str) -> None:
        if text:
            self._pieces.append(text)

    def know(self, making: Making) -> None:
        """Look up the caller's tool as soon as the name is known."""
        if self.tool is None and self.name:
            self.tool = making.box.tool(self.name)

    def open(self, index: int, making: Making) -> "Item":
        """A call whose id is missing or taken gets another.

        Some servers count the calls of each answer from 0.
        """
        self.know(making)
        self.index, self.key = index, making.key
        self.id = f"{PREFIXES[self.shape]}_{making.stem}_{index}"
        known = not self.call_id or self.call_id in making.taken
        self.own_call_id = f"call_{making.stem}_{index}" if known else self.call_id
        making.taken.add(self.own_call_id)
        return self

    @property
    def shape(self) -> str:
        return self.tool.kind if self.tool else self.kind

    # Shapes

    def form(self, status: str) -> dict[str, Any]:
        """The item; `status` is in_progress (still empty), completed or incomplete."""
        text = "" if status == "in_progress" else self.text
        if self.kind == "call":
            return self._call(text, status)
        if self.kind == "compaction":
            return {
                "id": self.id,
                "type": self.kind,
                "encrypted_content": sealed.seal(text, self.key) if text else "",
            }
        if self.kind == "reasoning":
            return {
                "id": self.id,
                "type": "reasoning",
                "summary": [self.part(text)] if text else [],
                "encrypted_content": sealed.seal(text, self.key) if text and self.key else None,
            }
        content = [] if status == "in_progress" else [self.part(text)]
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        }

    def part(self, text: str) -> dict[str, Any]:
        if self.kind == "reasoning":
            return {"type": "summary_text", "text": text}
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def _call(self, text: str, status: str) -> dict[str, Any]:
        assert self.tool is not None  # of a call
        kind = self.tool.kind
        told = {"id": self.id, "type": CALLS[kind], "status": status, "call_id": self.own_call_id}
        if kind == "local_shell":
            return told | {"action": _action(text)}
        if kind == "shell":
            return told | {"action": _commands(text)}
        if kind == "apply_patch":
            return told | {"operation": _operation(text)}
        told["name"] = self.tool.name
        if self.tool.namespace:
            told["namespace"] = self.tool.namespace
        if kind == "custom":
            return told | {"input": tools.freeform(text)}
        # A model that calls a tool without arguments often writes nothing at all, which is no JSON.
        return told | {"arguments": text or ("{}" if status == "completed" else "")}

    # Events

    def opening(self) -> Iterator[Event]:
        yield (
            "response.output_item.added",
            {"output_index": self.index, "item": self.form("in_progress")},
        )
        part = EVENTS[self.shape][1]
        if part:
            yield f"response.{part}.added", self._at(part=self.part(""))

    def delta(self, text: str) -> Iterator[Event]:
        if text and not self.raw:
            yield self._told("delta", delta=text)

    def closing(self, status: str) -> Iterator[Event]:
        form, part = self.form(status), EVENTS[self.shape][1]
        if part:
            yield self._told("done", **{"refusal" if self.kind == "refusal" else "text": self.text})
            yield f"response.{part}.done", self._at(part=self.part(self.text))
        elif self.shape == "custom":
            yield from self._input_done("input", form)
        elif self.shape == "function":
            name = self.tool.name if self.tool else ""
            yield from self._input_done("arguments", form, name=name)
        yield "response.output_item.done", {"output_index": self.index, "item": form}

    def _input_done(self, member: str, form: dict[str, Any], **more: Any) -> Iterator[Event]:
        """What no delta has told yet is told by one: deltas add up to the whole."""
        if form[member] and (self.raw or not self.text):
            yield self._told("delta", delta=form[member])
        yield self._told("done", **{member: form[member]}, **more)

    def _told(self, what: str, **fields: Any) -> Event:
        if self.kind == "text":
            fields["logprobs"] = []
        return f"response.{EVENTS[self.shape][0]}.{what}", self._at(**fields)

    def _at(self, **fields: Any) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, **EVENTS[self.shape][2], **fields}


def home(piece: Piece, items: list[Item], compacts: bool) -> Item | None:
    """The item that a piece belongs to; a new one joins `items`.

    None for what is not told: where the conversation is summed up (`compacts`) only the summary
    counts.
    """
    kind = "reasoning" if piece.kind == "thought" else piece.kind
    if compacts:
        kind = "compaction" if kind == "text" else ""
    if not kind:
        return None
    if kind == "call":
        items.append(Item(kind, piece.id, name=piece.text))
    elif kind != "arguments" and not (items and items[-1].kind == kind):
        items.append(Item(kind))
    item = items[-1]
    item.add("" if kind == "call" else piece.text)
    return item


def _action(arguments: str) -> dict[str, Any]:
    """What a local shell is asked to do; a command in one text goes to a shell."""
    told = tools.value(arguments)
    told = told if isinstance(told, dict) else {}
    command = told.get("command")
    if isinstance(command, str):
        command = ["bash", "-lc", command]
    command = [str(word) for word in command] if isinstance(command, list) else []
    kept = {"type": "exec", "command": command, "env": {}}
    if isinstance(told.get("timeout_ms"), int):
        kept["timeout_ms"] = told["timeout_ms"]
    if isinstance(told.get("working_directory"), str):
        kept["working_directory"] = told["working_directory"]
    return kept


def _commands(arguments: str) -> dict[str, Any]:
    """What a shell is asked to do; a single command stands for the list."""
    told = tools.value(arguments)
    told = told if isinstance(told, dict) else {}
    commands = told.get("commands", told.get("command"))
    commands = [commands] if isinstance(commands, str) else commands
    kept: dict[str, Any] = {
        "commands": [str(each) for each in commands] if isinstance(commands, list) else []
    }
    for name in ("timeout_ms", "max_output_length"):
        kept[name] = told[name] if isinstance(told.get(name), int) else None
    return kept


def _operation(arguments: str) -> dict[str, Any]:
    """What is to be done to a file."""
    told = tools.value(arguments)
    told = told if isinstance(told, dict) else {}
    kept = {name: str(told.get(name, "")) for name in ("type", "path")}
    return kept if kept["type"] == "delete_file" else kept | {"diff": str(told.get("diff", ""))}
