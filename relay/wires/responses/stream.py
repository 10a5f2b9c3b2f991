"""A chat stream as a Responses stream.

Owns the order of events. One item after another, never two at once: several clients (OpenClaw among
them) keep only one in mind.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import msgspec

from relay.errors import RelayError, UpstreamError
from relay.wires import sse
from relay.wires.interface import KEEP_ALIVE, Context
from relay.wires.reader import BROKEN_OFF, End, Piece
from relay.wires.responses import answer, tools
from relay.wires.responses.items import Event, Item, Making, home

_encode = msgspec.json.Encoder().encode


def stream_from_chat(
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[bytes]:
    """The events of a Responses stream, from response.created to the one that ends it.

    Silence becomes a comment; an error that the pieces raise ends the stream in response.failed.
    """
    number = count()
    for event in _events(pieces, ask_body, context):
        if event is None:
            yield KEEP_ALIVE
        else:
            kind, fields = event
            yield sse.frame(
                _encode({"type": kind, "sequence_number": next(number), **fields}), kind
            )


def _events(
    pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
) -> Iterator[Event | None]:
    box = tools.read(ask_body)
    output, end = _Output(answer.making(ask_body, box, context)), None
    for kind in ("created", "in_progress"):
        begun = answer.response(ask_body, box, context, "in_progress")
        yield f"response.{kind}", {"response": begun}
    try:
        for piece in pieces:
            if piece is not None and piece.end:
                end = piece.end
                continue
            # What tells the caller nothing yet becomes a comment: the line must not seem dead.
            yield from ([*output.take(piece)] if piece else ()) or (None,)
        if end is None:
            raise UpstreamError(BROKEN_OFF)
        yield from output.finish(end)
    except RelayError as err:
        final = answer.response(ask_body, box, context, "failed", output.closed, failure=err)
        yield "response.failed", {"response": final}
        return
    status, reason = answer.ending(end)
    used = answer.usage(end.usage) or answer.estimated(output.items, context.input_tokens)
    final = answer.response(ask_body, box, context, status, output.closed, used, reason=reason)
    yield f"response.{status}", {"response": final}


class _Output:
    """The items of an answer in the making; `closed` are those that the caller has whole."""

    def __init__(self, making: Making):
        self.items: list[Item] = []
        self.closed: list[dict[str, Any]] = []
        self._making = making

    def take(self, piece: Piece) -> Iterator[Event]:
        """The events of a piece. An item is over when another begins."""
        before = len(self.items)
        item = home(piece, self.items, self._making.compacts)
        if item is None:
            return
        if 0 < before < len(self.items):
            yield from self._close(self.items[before - 1])
        item.know(self._making)
        if item.index >= 0:
            yield from item.delta(piece.text)
        elif not item.raw:  # what is wanted raw is announced when it is whole
            yield from self._open(item)

    def finish(self, end: End) -> Iterator[Event]:
        """Close what is open, and tell what had to wait."""
        status, _ = answer.ending(end)
        for item in answer.kept(self.items, status, self._making)[len(self.closed) :]:
            yield from self._close(item, answer.end_of(item, self.items, status))

    def _open(self, item: Item) -> Iterator[Event]:
        yield from item.open(len(self.closed), self._making).opening()
        yield from item.delta(item.text)

    def _close(self, item: Item, status: str = "completed") -> Iterator[Event]:
        if item.index < 0:
            yield from self._open(item)
        self.closed.append(item.form(status))
        yield from item.closing(status)
