"""Tool calls of a chat answer, one after the other.

Owns what makes a call of the pieces that providers send: mixed, without index, without id, with
everything repeated.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

from relay.errors import UpstreamError
from relay.wires.messages.names import own_id

BLANKS_MAX = 4096  # whitespace on end in tool arguments: some models never stop


@dataclass(slots=True)
class OpenCall:
    """A tool call in the making."""

    index: object = None
    id: str = ""
    name: str = ""
    arguments: str = ""
    sent: int = 0  # characters of the arguments that went out
    blanks: int = 0  # characters of whitespace that came last
    own: tuple[str, str] | None = (
        None  # the id and name that the caller knows it by, once it has begun
    )

    def take(self, index: object, id: str, name: str, arguments: str) -> None:
        """Add a piece. Names and ids come whole, and from some gateways with every piece."""
        self.index = self.index if index is None else index
        self.id, self.name = self.id or id, self.name or name
        self.arguments += arguments
        self.blanks = self.blanks + len(arguments) if not arguments.strip() else 0
        if self.blanks > BLANKS_MAX:
            raise UpstreamError("The model's tool call went on with blanks without end.")

    def rest(self) -> str:
        """The arguments that have not gone out, which now they do."""
        rest = self.arguments[self.sent :]
        self.sent = len(self.arguments)
        return rest


def in_order(
    pieces: Iterable[tuple[str, object]],
    names: dict[str, str],
    stem: str,
    known: Iterable[str] = (),
) -> Iterator[tuple[str, object]]:
    """The pieces with each tool call in one go: ("tool_use", (id, name)), then ("json", part of its
    arguments)...

    The first open call streams; those beside it wait until something else comes, for only then are
    they known to be complete. `names` are the caller's own for those that chat knows otherwise; ids
    that are missing, stand twice or are `known` from the conversation are made from `stem`: some
    servers count each answer's calls from 0, and Claude Code drops a call that it has seen. A call
    without a name cannot be run: the answer has failed (UpstreamError), unless its length was cut.
    """
    open_calls: list[OpenCall] = []
    seen, numbers = set(known), count()

    def outgoing(call: OpenCall) -> Iterator[tuple[str, object]]:
        if call.own is None:
            id, made = own_id(call.id) if call.id else "", f"{stem}_{next(numbers)}"
            call.own = (made if not id or id in seen else id, names.get(call.name, call.name))
            seen.add(call.own[0])
            yield "tool_use", call.own
        if rest := call.rest():
            yield "json", rest

    for kind, value in pieces:
        if kind == "call":
            _take(open_calls, value)
            if open_calls and open_calls[0].id and open_calls[0].name:
                yield from outgoing(open_calls[0])
            continue
        if kind in ("text", "thinking", "end"):
            for call in open_calls:
                if call.name:
                    yield from outgoing(call)
                elif kind != "end" or value.finish != "length":
                    raise UpstreamError("The model called a tool without saying which.")
            open_calls = []
        yield kind, value


def _take(calls: list[OpenCall], piece: dict) -> None:
    """Add a piece to the call that it belongs to, or begin another with it."""
    function = piece.get("function") if isinstance(piece.get("function"), dict) else {}
    id, name = (
        value if isinstance(value, str) else "" for value in (piece.get("id"), function.get("name"))
    )
    given = function.get("arguments")
    given = (
        given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) if given else ""
    )
    if not (id or name or given):
        return
    call = _belonging(calls, piece.get("index"), id, name)
    if call is None:
        call = OpenCall()
        calls.append(call)
    call.take(piece.get("index"), id, name, given)


def _belonging(calls: list[OpenCall], index: object, id: str, name: str) -> OpenCall | None:
    """The call that a piece continues, None if it begins one.

    Some gateways send no index, some no id, some the same index for all calls, some the id with
    every piece.
    """
    if index is None:
        if id:
            return next((call for call in calls if call.id == id), None)
        last = calls[-1] if calls else None
        return None if last and name and _complete(last.arguments) else last
    call = next((call for call in reversed(calls) if call.index == index), None)
    another = call and name and id and call.id and id != call.id
    return None if another else call


def _complete(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
