"""What providers say on the hub's wire, read once for all wires.

Owns the habits of chat-speaking providers and the judgement on an answer: what is an end and of
which kind, what a tool call is made of, what may never look like a success. It gives pieces in our
own terms, in the order in which a caller should see them; the wires only write them. Streams and
whole answers take the same way. Habits: the fixtures of tests/wires and the providers'
documentation.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from relay.errors import RelayError, UpstreamError, UpstreamOverloaded

BLANKS_MAX = 2000  # white space on end in a call's arguments: some models never stop

GOOD, CUT, FILTERED, FAILED = "good", "cut", "filtered", "failed"

# How an answer ended, by its finish_reason in lower case; one that is not known is good.
ENDS = {
    "length": CUT,
    "max_tokens": CUT,
    "model_length": CUT,
    "model_context_window_exceeded": CUT,
    "content_filter": FILTERED,
    "sensitive": FILTERED,
    "safety": FILTERED,
    "insufficient_system_resource": FAILED,
    "network_error": FAILED,
    "error": FAILED,
    "abort": FAILED,
}
OVERLOADED = "insufficient_system_resource"
ANNOUNCED = ("tool_calls", "function_call")  # finishes that promise a call

BROKEN_OFF = "The model's provider broke off its answer."
EMPTY = "The model's provider gave an empty answer."


@dataclass(frozen=True, slots=True)
class Piece:
    """A bit of an answer.

    `kind` is "thought", "text" or "refusal" with more of it in `text`; "call", which begins a tool
    call of the name `text`; "arguments" with more JSON of the call begun last; "end" with the
    finish_reason in `text`. One item is over when another begins.
    """

    kind: str
    text: str = ""
    choice: int = 0
    id: str = ""  # of a call, the provider's; may be missing, or the same in every answer
    end: "End | None" = None


@dataclass(frozen=True, slots=True)
class End:
    """How a choice ended."""

    kind: str  # GOOD, CUT or FILTERED
    finish: str  # the provider's word
    stop: str | None = None  # the stop sequence that was met, from servers that tell
    usage: dict | None = None  # as the provider told it, for the whole answer


def kind_of(finish: str | None) -> str | None:
    """The kind of an end by its finish_reason; None for none."""
    return ENDS.get(finish.lower(), GOOD) if finish else None


def flaw(finish: str | None, calls: bool) -> UpstreamError | None:
    """What is wrong with an answer that ended so, None if nothing is.

    `calls`: whether it holds a call that can be run. A turn that lost its calls must not look like
    a success: an agent would wait for nothing.
    """
    if not finish:
        return UpstreamError(BROKEN_OFF)
    if kind_of(finish) == FAILED:
        return UpstreamOverloaded() if finish.lower() == OVERLOADED else UpstreamError()
    if finish in ANNOUNCED and not calls:
        return UpstreamError("The model announced a tool call and made none.")
    return None


def nothing_said(finish: str | None) -> bool:
    """Whether an answer without any content is none, so that another target should be asked.

    One that a limit or a filter cut before anything was said is one: the caller should know.
    """
    return kind_of(finish) not in (CUT, FILTERED)


def error_in(doc: dict) -> dict | None:
    """The error that a 200 may hold: `{"error": {...}}`, or Spark's and Qianfan's
    `{"code": 10013, "message": ...}`."""
    error = doc.get("error")
    if isinstance(error, dict) and error:
        return error
    if isinstance(error, str) and error:
        return {"message": error}
    code = doc.get("code", doc.get("error_code"))
    if code not in (None, 0, "0", "") and "choices" not in doc:
        return {"code": str(code), "message": str(doc.get("message", doc.get("error_msg", "")))}
    return None


def read(chunks: Iterable[dict | RelayError | None]) -> Iterator[Piece | None]:
    """The pieces of a chat stream, None where the line stands and there is nothing to tell yet.

    A chunk is parsed JSON, None is silence; a RelayError among them, or a flaw of the answer, is
    raised. The ends of all choices come last.
    """
    reader = Reader()
    for chunk in chunks:
        if isinstance(chunk, RelayError):
            raise chunk
        yield from reader.heard(chunk)
    yield from reader.close()


def whole(doc: dict) -> list[Piece]:
    """The pieces of a whole chat answer. Raises UpstreamError for a flaw of it.

    One without a finish_reason, as Spark's, is whole all the same.
    """
    reader = Reader()
    return [*reader.feed(doc), *reader.close(finish="stop")]


class Reader:
    """Reads one answer, chunk by chunk."""

    def __init__(self) -> None:
        self._choices: dict[int, _Spoken] = {}
        self._usage: dict | None = None

    def heard(self, chunk: dict | None) -> list[Piece] | tuple[None, ...]:
        """What a chunk of a stream tells; None for silence, and while what it tells has to wait."""
        pieces = self.feed(chunk) if chunk is not None else []
        return pieces or ((None,) if chunk is None or self._waiting else ())

    @property
    def _waiting(self) -> bool:
        return any(
            item.waits for choice in self._choices.values() for item in choice.items[choice.over :]
        )

    def feed(self, chunk: dict) -> list[Piece]:
        """What a chunk tells that can be told. Raises UpstreamError for an error in disguise."""
        if error_in(chunk):
            raise UpstreamError()
        self._usage = _object(chunk, "usage") or self._usage
        pieces: list[Piece] = []
        for place, choice in enumerate(_objects(chunk.get("choices"))):
            self._usage = _object(choice, "usage") or self._usage
            index = choice.get("index")
            number = index if isinstance(index, int) else place
            state = self._choices.setdefault(number, _Spoken(number))
            pieces += state.feed(choice)
        return pieces

    def close(self, finish: str = "") -> list[Piece]:
        """What had to wait, and the ends. Raises UpstreamError for an answer that is not good.

        `finish`: what a choice is taken to have ended with that does not say.
        """
        if not self._choices:
            raise UpstreamError(BROKEN_OFF)
        return [
            piece
            for choice in self._choices.values()
            for piece in choice.close(choice.finish or finish, self._usage)
        ]


@dataclass(slots=True)
class _Item:
    """Something that a choice says: thoughts, a text, a refusal or a call."""

    kind: str
    slot: int | None = None  # chat's `index` of a call
    id: str = ""
    name: str = ""
    texts: list[str] = field(default_factory=list)  # all of a call, of others what waits
    sent: int = 0  # texts that went out
    begun: bool = False
    blanks: int = 0  # characters of white space that came last

    @property
    def whole(self) -> bool:
        """Whether nothing can follow any more: arguments that are complete; a text may end here."""
        return self.kind != "call" or _is_object("".join(self.texts))

    @property
    def waits(self) -> bool:
        """Whether there is something that has not gone out."""
        return self.sent < len(self.texts) or self.kind == "call" and not self.begun

    def take(self, id: str, name: str, text: str) -> None:
        """Add a piece. Some gateways repeat id and name with each: the first ones count."""
        self.id, self.name = self.id or id, self.name or name
        self.texts.append(text)
        if self.kind == "call":
            self.blanks = self.blanks + len(text) if not text.strip() else 0
            if self.blanks > BLANKS_MAX:
                raise UpstreamError("The model's tool call went on with blanks without end.")

    def rest(self, choice: int) -> Iterator[Piece]:
        """What has not gone out, which now it does."""
        if self.kind != "call":
            if self.texts:
                yield Piece(self.kind, "".join(self.texts), choice)
                self.texts.clear()
            return
        if not self.begun:
            self.begun = True
            yield Piece("call", self.name, choice, self.id)
        if rest := "".join(self.texts[self.sent :]):
            yield Piece("arguments", rest, choice)
        self.sent = len(self.texts)


@dataclass(slots=True)
class _Spoken:
    """One of the answers that were asked for.

    Its items go out one after the other, never two at once: several clients keep only one in mind.
    What begins beside a call waits until the call is whole, or the answer over.
    """

    number: int
    finish: str = ""
    stop: str | None = None
    items: list[_Item] = field(default_factory=list)
    over: int = 0  # items that are complete

    def feed(self, choice: dict) -> list[Piece]:
        finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
        self.finish = self.finish or (finish if isinstance(finish, str) else "")
        self.stop = stop if isinstance(stop, str) else self.stop
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(message, dict) and not delta:
            if self.items:  # the whole once more, behind its deltas
                return []
            delta = message | numbered(message)
        if isinstance(delta, dict):
            for kind, slot, id, name, text in said(delta):
                self._take(kind, slot, id, name, text)
        return list(self._ready())

    def close(self, finish: str, usage: dict | None) -> Iterator[Piece]:
        """What waits, and the end. A call without a name cannot be run, and does not count."""
        calls = [item for item in self.items if item.kind == "call"]
        runnable = any(item.name for item in calls)
        kind = kind_of(finish)
        if problem := flaw(finish, runnable):
            raise problem
        if calls and not runnable and kind == GOOD:
            raise UpstreamError("The model called a tool without saying which.")
        for item in self.items[self.over :]:
            if item.kind != "call" or item.name:
                yield from item.rest(self.number)
        yield Piece("end", finish, self.number, end=End(kind or GOOD, finish, self.stop, usage))

    def _take(self, kind: str, slot: int | None, id: str, name: str, text: str) -> None:
        item: _Item | None
        if kind == "call":
            item = self._call(slot, id, name)
        else:
            item = self.items[-1] if len(self.items) > self.over else None
            item = item if item and item.kind == kind else None
        if item is None:
            item = _Item(kind, slot)
            self.items.append(item)
        elif any(item is done for done in self.items[: self.over]):
            return  # behind its end
        item.take(id, name, text)

    def _call(self, slot: int | None, id: str, name: str) -> _Item | None:
        """The call that a piece continues, None if it begins one.

        By its index; without one, by its id; without both it is the last call's. Gateways that give
        all calls the same index, or none, are told by a name that comes after a call is whole.
        """
        calls = [item for item in self.items if item.kind == "call"]
        if slot is not None:
            calls = [item for item in calls if item.slot == slot]
        elif id:
            calls = [item for item in calls if item.id == id]
        if not calls:
            return None
        call = calls[-1]
        another = id != call.id if id and call.id else slot is None and not id
        return None if name and another and (call.whole or slot is not None) else call

    def _ready(self) -> Iterator[Piece]:
        """What can go out: the first item that is not over, and those behind it as it ends."""
        while self.over < len(self.items):
            item = self.items[self.over]
            if item.kind == "call" and not (item.name and (item.id or any(item.texts))):
                return
            yield from item.rest(self.number)
            if item is self.items[-1] or not item.whole:
                return
            self.over += 1


def said(delta: dict) -> Iterator[tuple[str, int | None, str, str, str]]:
    """What a delta or message holds: (kind, slot, id, name, text), in the order for the caller."""
    thought = text_of(delta.get("reasoning_content")) or text_of(delta.get("reasoning"))
    for kind, text in (
        ("thought", thought),
        ("text", text_of(delta.get("content"))),
        ("refusal", text_of(delta.get("refusal"))),
    ):
        if text:
            yield kind, None, "", "", text
    calls = delta.get("tool_calls")
    if not calls and isinstance(delta.get("function_call"), dict):  # as it was before tools
        calls = [{"index": 0, "function": delta["function_call"]}]
    for call in _objects([calls] if isinstance(calls, dict) else calls):
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        arguments, slot = function.get("arguments"), call.get("index")
        if isinstance(arguments, dict | list) and arguments:
            arguments = json.dumps(arguments, ensure_ascii=False)
        id, name, text = text_of(call.get("id")), text_of(function.get("name")), text_of(arguments)
        if id or name or text:
            yield "call", slot if isinstance(slot, int) else None, id, name, text


def numbered(message: dict) -> dict:
    """The calls of a whole message as those of a delta, which have numbers; nothing without any."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or not calls:
        return {}
    return {"tool_calls": [{"index": at} | call for at, call in enumerate(_objects(calls))]}


def text_of(value: object) -> str:
    """A text, or the texts of a list of parts, as some gateways send them; else nothing."""
    if isinstance(value, list):
        return "".join(text_of(part.get("text")) for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else ""


def _object(holder: dict, name: str) -> dict | None:
    value = holder.get(name)
    return value if isinstance(value, dict) else None


def _objects(value: object) -> list[dict]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is_object(text: str) -> bool:
    """Whether arguments are a complete JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
