"""What providers say on the hub's wire, read once for all wires.

Owns the habits of chat-speaking providers and the judgement on an answer: what is an end and of
which kind, what a tool call is made of, what may never look like a success. It gives pieces in our
own terms, in the order in which a caller should see them; the wires only write them. Streams and
whole answers take the same way. Habits: the fixtures of tests/wires and the providers'
documentation.
"""

import json
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

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
PLAIN_END = "stop"
ANNOUNCED = ("tool_calls", "function_call")  # finishes that promise a call

ANSWERS = ("choices", "data", "results")  # where an answer stands: of chat, embeddings, rerank
GOOD_CODES = (0, "0", "", 200, "200", "success")
REASONS = ("message", "msg", "error_msg", "detail")  # of what went wrong, where nothing else stands

BROKEN_OFF = "The model's provider broke off its answer."
EMPTY = "The model's provider gave an empty answer."


class Piece(msgspec.Struct, frozen=True):
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


class End(msgspec.Struct, frozen=True):
    """How a choice ended."""

    kind: str  # GOOD, CUT or FILTERED
    finish: str  # the provider's word
    stop: str | None = None  # the stop sequence that was met, from servers that tell
    usage: dict[str, Any] | None = None  # as the provider told it, for the whole answer


def kind_of(finish: str | None) -> str | None:
    """The kind of an end by its finish_reason; None for none."""
    return ENDS.get(finish.lower(), GOOD) if finish else None


def flaw(finish: str | None, *, runs: bool, nameless: bool, said: bool) -> UpstreamError | None:
    """What is wrong with an answer that ended so, None if nothing is.

    `runs`: it holds a call that can be run; `nameless`: one that cannot, for it does not say of
    what; `said`: it holds something else. A turn that lost its calls must not look like a success:
    an agent would wait for nothing. Where there is a text, a call that was only announced is none.
    """
    if not finish:
        return UpstreamError(BROKEN_OFF)
    if kind_of(finish) == FAILED:
        return UpstreamOverloaded() if finish.lower() == OVERLOADED else UpstreamError()
    if runs or kind_of(finish) != GOOD:
        return None
    if nameless:
        return UpstreamError("The model called a tool without saying which.")
    if finish in ANNOUNCED and not said:
        return UpstreamError("The model announced a tool call and made none.")
    return None


def nothing_said(finish: str | None, counted: bool = False) -> bool:
    """Whether an answer without any content is none, so that another target should be asked.

    One that a limit or a filter cut before anything was said is one: the caller should know. So is
    one that ended well and was `counted` where the caller's own `stop` may have met the first word:
    the provider bills what it read.
    """
    kind = kind_of(finish)
    return kind not in (CUT, FILTERED) and not (counted and finish and kind == GOOD)


def error_in(doc: dict[str, Any]) -> dict[str, Any] | None:
    """The error that a 200 may hold, None if it holds none.

    `{"error": {...}}`; where an answer should be, Spark's and Qianfan's `{"code": 10013, "message":
    ...}`, MiniMax' `{"base_resp": {"status_code": 1004, ...}}`, or nothing but a reason.
    """
    error = doc.get("error")
    if isinstance(error, dict) and error:
        return error
    if isinstance(error, str) and error:
        return {"message": error}
    if any(doc.get(name) for name in ANSWERS):
        return None
    status = _object(doc, "base_resp") or {}
    code = doc.get("code", doc.get("error_code", status.get("status_code")))
    if code is not None:
        said = {"message": status.get("status_msg")} if status else {}
        return None if code in GOOD_CODES else {**doc, "code": str(code), **said}
    reason = any(isinstance(doc.get(name), str) and doc[name] for name in REASONS)
    return doc if reason and not doc.get("usage") else None


def read(chunks: Iterable[dict[str, Any] | RelayError | None]) -> Iterator[Piece | None]:
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


def whole(doc: dict[str, Any]) -> list[Piece]:
    """The pieces of a whole chat answer. Raises UpstreamError for a flaw of it.

    One without a finish_reason, as Spark's, is whole all the same.
    """
    reader = Reader()
    return [*reader.feed(doc), *reader.close(PLAIN_END)]


def check(doc: dict[str, Any]) -> None:
    """Raises as `whole` does, where nobody wants the pieces: most answers are seen to be good without
    being taken apart."""
    choices = _objects(doc.get("choices"))
    if not choices or not all(map(_is_text, choices)):
        whole(doc)


def _is_text(choice: dict[str, Any]) -> bool:
    """Whether a whole answer calls nothing, announces no call, and says of no failure."""
    finish, message = choice.get("finish_reason"), choice.get("message")
    ended = finish if isinstance(finish, str) else ""
    return (
        isinstance(message, dict)
        and not (message.get("tool_calls") or message.get("function_call") or choice.get("delta"))
        and ended not in ANNOUNCED
        and kind_of(ended) != FAILED
    )


class Reader:
    """Reads one answer, chunk by chunk."""

    def __init__(self) -> None:
        self._choices: dict[int, _Spoken] = {}
        self._usage: dict[str, Any] | None = None
        self.odd = False  # `mended` had something to mend: what has not been read may need it too

    def heard(self, chunk: dict[str, Any] | None) -> list[Piece] | tuple[None, ...]:
        """What a chunk of a stream tells; None for silence, and while what it tells has to wait."""
        pieces = self.feed(chunk) if chunk is not None else []
        return pieces or ((None,) if chunk is None or self._waiting else ())

    @property
    def _waiting(self) -> bool:
        return any(
            item.waits for choice in self._choices.values() for item in choice.items[choice.over :]
        )

    def feed(self, chunk: dict[str, Any]) -> list[Piece]:
        """What a chunk tells that can be told. Raises UpstreamError for an error in disguise."""
        if error_in(chunk):
            raise UpstreamError()
        self._usage = _object(chunk, "usage") or self._usage
        pieces: list[Piece] = []
        for place, choice in enumerate(_objects(chunk.get("choices"))):
            self._usage = _object(choice, "usage") or self._usage
            pieces += self._of(choice, place).feed(choice)
        return pieces

    def mended(self, chunk: dict[str, Any], words: str = "delta") -> dict[str, Any] | None:
        """The chunk as clients of chat know it; None if it is so already.

        It is read on the way, as by `feed`. `words`: where its words belong, delta or message.
        """
        choices = _objects(chunk.get("choices"))
        made = [
            self._of(choice, place).mended(choice, words) for place, choice in enumerate(choices)
        ]
        if made == choices:
            return None
        self.odd = True
        return {**chunk, "choices": made}

    def note(self, said: bool = False, calls: bool = False, finish: str | None = None) -> None:
        """What was seen of an answer otherwise than by reading it."""
        choice = self._choices.setdefault(0, _Spoken(0))
        choice.said, choice.called = choice.said or said, choice.called or calls
        choice.finish = choice.finish or finish or ""

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

    def _of(self, choice: dict[str, Any], place: int) -> "_Spoken":
        index = choice.get("index")
        number = index if isinstance(index, int) else place
        return self._choices.setdefault(number, _Spoken(number))


class _Item(msgspec.Struct):
    """Something that a choice says: thoughts, a text, a refusal or a call."""

    kind: str
    slot: int | None = None  # chat's `index` of a call
    id: str = ""
    name: str = ""
    texts: list[str] = msgspec.field(default_factory=list)  # all of a call, of others what waits
    size: int = 0  # characters that were read
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

    def again(self, text: str) -> bool:
        """Whether a piece is the whole of a call's arguments once more, as some send at its end."""
        as_long = self.kind == "call" and len(text) > 2 and len(text) == self.size
        return as_long and text == "".join(self.texts) and self.whole

    def take(self, id: str, name: str, text: str) -> None:
        """Add a piece. Some gateways repeat id and name with each: the first ones count."""
        self.id, self.name = self.id or id, self.name or name
        self.texts.append(text)
        self.size += len(text)
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


class _Place(msgspec.Struct, frozen=True):
    """Which call a piece continues, what of it was told before, and its id."""

    number: int
    identified: bool
    named: bool
    whole: bool
    id: str


class _Spoken(msgspec.Struct):
    """One of the answers that were asked for.

    Its items go out one after the other, never two at once: several clients keep only one in mind.
    What begins beside a call waits until the call is whole, or the answer over.
    """

    number: int
    finish: str = ""
    stop: str | None = None
    items: list[_Item] = msgspec.field(default_factory=list)
    over: int = 0  # items that are complete
    said: bool = False  # something was said that was not read
    called: bool = False  # among it a call
    placed: list["_Place"] = msgspec.field(default_factory=list)  # of the pieces of calls read last
    mends: bool = False  # what is read goes on to a client of chat, who cannot do without ids

    @property
    def calls(self) -> list[_Item]:
        return [item for item in self.items if item.kind == "call"]

    @property
    def runs(self) -> bool:
        """Whether there is a call that can be run."""
        return self.called or any(call.name for call in self.calls)

    @property
    def spoke(self) -> bool:
        """Whether there is anything but calls."""
        return self.said or len(self.calls) < len(self.items)

    def feed(self, choice: dict[str, Any]) -> list[Piece]:
        finish, stop = choice.get("finish_reason"), choice.get("stop_reason")
        self.finish = self.finish or (finish if isinstance(finish, str) else "")
        self.stop = stop if isinstance(stop, str) else self.stop
        self.placed = []
        for kind, slot, id, name, text in said(self._news(choice)):
            self._take(kind, slot, id, name, text)
        return list(self._ready())

    def _news(self, choice: dict[str, Any]) -> dict[str, Any]:
        """What a choice says that was not said yet: its delta, or a whole message in its place."""
        delta, message = choice.get("delta"), choice.get("message")
        if delta or not isinstance(message, dict):
            return delta if isinstance(delta, dict) else {}
        if self.items or self.said:
            return {}  # the whole once more, behind its deltas
        return message | numbered(message)

    def mended(self, choice: dict[str, Any], place: str) -> dict[str, Any]:
        """The choice as clients know it, its words in `place`, which is delta or message."""
        words = self._news(choice) if place == "delta" else choice.get("message")
        self.mends = True
        if place == "delta" or choice.get("finish_reason") in ANNOUNCED:
            self.feed(choice)  # a message by itself is mended without knowing what was said
        if "text" in choice or not isinstance(words, dict):
            return choice  # an old completion's, or nothing to mend
        made = choice | {place: self._proper(words, place == "delta")}
        if self.number:
            made["index"] = self.number
        made.pop("message" if place == "delta" else "delta", None)
        if made.get("finish_reason") in ANNOUNCED and self.spoke and not self.runs:
            made["finish_reason"] = PLAIN_END
        return made

    def _proper(self, words: dict[str, Any], streamed: bool) -> dict[str, Any]:
        proper = dict(words)
        if proper.get("role") == "":
            del proper["role"]
        if isinstance(proper.get("content"), list):
            proper["content"] = text_of(proper["content"])
        if proper.get("tool_calls"):
            places = iter(self.placed) if streamed else None
            proper["tool_calls"] = [_proper_call(call, places) for call in calls_of(words)]
        return proper

    def close(self, finish: str, usage: dict[str, Any] | None) -> Iterator[Piece]:
        """What waits, and the end. A call without a name cannot be run, and does not count."""
        nameless = any(not call.name for call in self.calls)
        problem = flaw(finish, runs=self.runs, nameless=nameless, said=self.spoke)
        if problem:
            raise problem
        if finish in ANNOUNCED and not self.runs:
            finish = PLAIN_END
        for item in self.items[self.over :]:
            if item.kind != "call" or item.name:
                yield from item.rest(self.number)
        kind = kind_of(finish) or GOOD
        yield Piece("end", finish, self.number, end=End(kind, finish, self.stop, usage))

    def _take(self, kind: str, slot: int | None, id: str, name: str, text: str) -> None:
        item: _Item | None
        if kind == "call":
            item = self._call(slot, id, name, text)
        else:
            item = self.items[-1] if len(self.items) > self.over else None
            item = item if item and item.kind == kind else None
        if item is None:
            item = _Item(kind, slot)
            self.items.append(item)
        again = item.again(text) or any(item is over for over in self.items[: self.over])
        identified, named = bool(item.id), bool(item.name)
        if not again:  # else it is behind its end
            item.take(id, name, text)
        if kind == "call" and self.mends:
            item.id = item.id or made_id()
            number = next(at for at, call in enumerate(self.calls) if call is item)
            self.placed.append(_Place(number, identified, named, again, item.id))

    def _call(self, slot: int | None, id: str, name: str, text: str) -> _Item | None:
        """The call that a piece continues, None if it begins one.

        By its index; without one, by its id; without both it is the last call's. Gateways that give
        all calls the same index, or none, are told by another id, or by a name with arguments that
        comes after a call is whole.
        """
        calls = self.calls
        if slot is not None:
            calls = [call for call in calls if call.slot == slot]
        elif id:
            calls = [call for call in calls if call.id == id]
        if not calls:
            return None
        last = calls[-1]
        another = id != last.id if id and last.id else bool(text) and last.whole
        return None if name and another else last

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


def said(words: dict[str, Any]) -> Iterator[tuple[str, int | None, str, str, str]]:
    """What a delta or message holds: (kind, slot, id, name, text), in the order for the caller."""
    thought = text_of(words.get("reasoning_content")) or text_of(words.get("reasoning"))
    for kind, text in (
        ("thought", thought),
        ("text", text_of(words.get("content"))),
        ("refusal", text_of(words.get("refusal"))),
    ):
        if text:
            yield kind, None, "", "", text
    for call in calls_of(words):
        slot, (id, name, text) = call.get("index"), _told(call)
        if id or name or text:
            yield "call", slot if isinstance(slot, int) else None, id, name, text


def calls_of(words: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls of a delta or message: also where one stands for the list, or as before tools."""
    calls = words.get("tool_calls")
    if not calls:
        function = words.get("function_call")
        return [{"index": 0, "function": function}] if isinstance(function, dict) else []
    return _objects([calls] if isinstance(calls, dict) else calls)


def numbered(message: dict[str, Any]) -> dict[str, Any]:
    """The calls of a whole message as those of a delta, which have numbers; nothing without any."""
    calls = calls_of(message)
    return {"tool_calls": [{"index": at} | call for at, call in enumerate(calls)]} if calls else {}


def made_id() -> str:
    """An id for a call whose provider gives none: callers name its result by it."""
    return f"call_{secrets.token_hex(12)}"


def _told(call: dict[str, Any]) -> tuple[str, str, str]:
    """A call's id, name and arguments, which some send as an object."""
    function = _object(call, "function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, dict | list) and arguments:
        arguments = json.dumps(arguments, ensure_ascii=False)
    return text_of(call.get("id")), text_of(function.get("name")), text_of(arguments)


def _proper_call(call: dict[str, Any], places: Iterator[_Place] | None) -> dict[str, Any]:
    """A call with its arguments as text, and in a stream a number of its own.

    Clients put the pieces of each text together: what was told before is not told again.
    """
    made, function = dict(call), dict(_object(call, "function") or {})
    if isinstance(function.get("arguments"), dict | list):
        function["arguments"] = _told(call)[2]
    place = next(places, None) if places is not None and any(_told(call)) else None
    if places is None:  # a whole message's
        made |= {"id": call.get("id") or made_id(), "type": call.get("type") or "function"}
    if place:
        made["index"] = place.number
        if place.identified:
            made.pop("id", None)
        elif not call.get("id"):
            made["id"] = place.id
        if place.named:
            function.pop("name", None)
        elif not call.get("type"):
            made["type"] = "function"
        if place.whole:
            function["arguments"] = ""
    return made | ({"function": function} if "function" in call else {})


def text_of(value: object) -> str:
    """A text, or the texts of a list of parts, as some gateways send them; else nothing."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join([text_of(part.get("text")) for part in value if isinstance(part, dict)])
    return ""


def _object(holder: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = holder.get(name)
    return value if isinstance(value, dict) else None


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is_object(text: str) -> bool:
    """Whether arguments are a complete JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
