"""A chat stream as a Responses stream.

Owns the order of events. One item after another, never two at once: several clients (OpenClaw among
them) keep only one in mind. A call whose turn has not come waits until the call before it is whole
or the stream is over.
"""

from collections.abc import Iterable, Iterator
from itertools import count

import msgspec

from relay.errors import RelayError, UpstreamError
from relay.wires import chat, sse
from relay.wires.responses import answer, tools
from relay.wires.responses.items import Event, Item, Making, Piece, pieces

KEEP_ALIVE = b": keep-alive\n\n"
BLANKS_MAX = 2000  # of white space at the end of arguments; some models never stop

_encode = msgspec.json.Encoder().encode


def stream_from_chat(
    chunks: Iterable[dict | RelayError | None],
    ask_body: dict,
    *,
    id: str | None = None,
    created_at: int | None = None,
    key: bytes | str = b"",
    input_tokens: int = 0,
) -> Iterator[bytes]:
    """The events of a Responses stream, from response.created to the one that ends it.

    `chunks`: parsed chat chunks; None for silence, which becomes a comment; a RelayError where the
    upstream died, after which nothing is read. A stream that ends without a finish_reason was cut,
    and ends in response.failed. The other parameters are those of `answer.from_chat`.
    """
    id, created_at = answer.named(id, created_at)
    number = count()
    for event in _events(chunks, ask_body, id, created_at, key, input_tokens):
        if event is None:
            yield KEEP_ALIVE
        else:
            kind, fields = event
            yield sse.frame(
                _encode({"type": kind, "sequence_number": next(number), **fields}), kind
            )


def _events(
    chunks, ask_body: dict, id: str, created_at: int, key: bytes | str, input_tokens: int
) -> Iterator[Event | None]:
    box = tools.read(ask_body)
    wanted = answer.making(id, ask_body, box, key)
    finish = used = failure = None
    items: list[Item] = []
    output: list[dict] = []  # the items that are closed
    for kind in ("created", "in_progress"):
        yield (
            f"response.{kind}",
            {"response": answer.response(ask_body, box, id, created_at, "in_progress")},
        )
    for chunk in chunks:
        if chunk is None:
            yield None
            continue
        if isinstance(chunk, RelayError) or chat.error_in(chunk):
            failure = chunk if isinstance(chunk, RelayError) else UpstreamError()
            break
        used = answer.usage(chunk) or used
        ended, told = _first(chunk)
        finish = ended or finish
        # What tells the caller nothing yet becomes a comment: while we hold a call back, the line
        # must not seem dead.
        told = pieces(told, wanted.compacts)
        yield from [event for piece in told for event in _take(piece, items, output, wanted)] or (
            None,
        )
        if items and items[-1].kind == "call" and items[-1].blanks > BLANKS_MAX:
            failure = UpstreamError("The model wrote blanks without end.")
            break
    if finish is None:
        failure = failure or UpstreamError("The model's provider broke off its answer.")
    failure = failure or answer.flaw({}, finish, items)
    status, reason = ("failed", None) if failure else answer.ending(finish)
    if not failure:
        yield from _rest(items, output, wanted, status)
        used = used or answer.estimated(items, input_tokens)
    final = answer.response(ask_body, box, id, created_at, status, output, used, failure, reason)
    yield f"response.{status}", {"response": final}


def _first(chunk: dict) -> tuple[str | None, object]:
    """(finish_reason, delta) of the first choice.

    Some providers send no choice, null, or the whole message.
    """
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        return None, None
    finish = first.get("finish_reason")
    return (finish if isinstance(finish, str) and finish else None), first.get(
        "delta"
    ) or first.get("message")


def _take(piece: Piece, items: list[Item], output: list[dict], wanted: Making) -> Iterator[Event]:
    """Give the piece to its item, then tell what can be told.

    The item whose turn it is is items[len(output)].
    """
    item = _home(piece, items, len(output))
    if item is None:
        return
    opened = item.index >= 0
    item.take(piece)
    item.know(wanted)
    if opened:
        yield from item.delta(piece.text)
    while len(output) < len(items):
        item = items[len(output)]
        if item.index < 0:
            if item.kind == "call" and (not item.name or item.raw and not item.whole):
                return  # a call is announced by name, a freeform one when it is whole
            yield from item.open(len(output), wanted).opening()
            yield from item.delta(item.text)
        if item is items[-1] or not item.whole:
            return
        yield from _close(item, output)


def _rest(items: list[Item], output: list[dict], wanted: Making, status: str) -> Iterator[Event]:
    """The stream is over: close what is open, and tell what had to wait."""
    told = len(output)
    for item in answer.given(items, status, wanted)[told:]:
        if item.index < 0:
            yield from item.open(len(output), wanted).opening()
            yield from item.delta(item.text)
        yield from _close(item, output, answer.end_of(item, items, status))


def _close(item: Item, output: list[dict], status: str = "completed") -> Iterator[Event]:
    output.append(item.form(status))
    yield from item.closing(status)


def _home(piece: Piece, items: list[Item], closed: int) -> Item | None:
    """The item that a piece belongs to, a new one if need be.

    None for what comes after its item's end.
    """
    if piece.kind == "call":
        item = _call(piece, [item for item in items if item.kind == "call"])
    else:
        item = items[-1] if len(items) > closed and items[-1].kind == piece.kind else None
    if item is None:
        items.append(Item(piece.kind, slot=piece.slot))
        return items[-1]
    return None if any(item is done for done in items[:closed]) else item


def _call(piece: Piece, calls: list[Item]) -> Item | None:
    """The call that a piece continues, None if it begins one.

    By its index; without one, by its id; without both it is the last call's. A gateway that gives
    all calls the same index, or none, is told by a name that comes after a call is whole.
    """
    if piece.slot is not None:
        calls = [call for call in calls if call.slot == piece.slot]
    elif piece.id:
        calls = [call for call in calls if call.call_id == piece.id]
    if not calls:
        return None
    call = calls[-1]
    another = piece.id != call.call_id if piece.id else piece.slot is None and piece.text
    return None if piece.name and another and call.whole else call
