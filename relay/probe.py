"""One tiny real call to an upstream, with one of its keys.

Owns what is asked and how long it may take. It goes out through the relay's own sender, but with a
health of its own: an upstream that rests is tried all the same, and a failed test puts none to
rest. Of an answer its code, its status and its time are kept, and of a refusal the provider's own
reason, with the key struck out.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache

import msgspec

from relay import body, errors
from relay.catalog import OF_EMBEDDINGS, Model, Target
from relay.ending import CallState
from relay.upstream.health import Health
from relay.upstream.payload import spoken
from relay.upstream.provider_errors import redacted
from relay.upstream.reply import CallerLeft, Reply
from relay.upstream.sender import Dispatch, Dispatcher
from relay.wires import sse
from relay.wires.reader import Reader, whole
from relay.wires.registry import WIRES

PATIENCE_S = 20
STREAM_TOKENS = 512  # of an answer that is only looked at
ASKED = {  # the smallest call of each wire, the best known wire first
    "chat": b'{"model":"%s","messages":[{"role":"user","content":"Say hi."}],"max_tokens":16}',
    "messages": b'{"model":"%s","messages":[{"role":"user","content":"Say hi."}],"max_tokens":16}',
    "responses": b'{"model":"%s","input":"Say hi.","max_output_tokens":16}',
    "completions": b'{"model":"%s","prompt":"Say hi.","max_tokens":16}',
    "embeddings": b'{"model":"%s","input":"hi"}',
    "rerank": b'{"model":"%s","query":"hi","documents":["hi"]}',
}

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    "ok" or the code of an error, the provider's status, how long it took, and why it failed: the
    provider's words, or what the network says.
    """

    code: str
    status: int | None
    ms: int
    words: str = ""

    @property
    def ok(self) -> bool:
        return self.code == "ok"


@dataclass
class Witness:
    """What the sender wants to tell of its attempts."""

    attempts: list = field(default_factory=list)
    state: CallState = field(default_factory=CallState)

    def attempted(
        self,
        target: Target,
        status: int | None,
        started: float,
        error: str | None = None,
        words: str = "",
    ) -> None:
        self.attempts.append(status)


@cache
def _sender() -> Dispatcher:
    return Dispatcher(connections=2)


def wire_for(model: Model, target: Target) -> str | None:
    """The wire on which to ask a target; None if it speaks none that this model is asked on."""
    if model.kind == "embeddings":
        return next((name for name in OF_EMBEDDINGS if name in target.upstream.speaks), None)
    speaks = target.upstream.speaks.difference(OF_EMBEDDINGS)
    return next((name for name in ASKED if name in speaks), None)


def call(target: Target, wire_name: str, key: str) -> Outcome:
    """Ask a target with this key, and wait for the whole answer."""
    wire, witness = WIRES[wire_name], Witness()
    upstream = replace(
        target.upstream,
        keys=(key,) if key else (),
        calls_at_once=None,
        connect_s=min(target.upstream.connect_s, PATIENCE_S),
        first_byte_s=min(target.upstream.first_byte_s, PATIENCE_S),
    )
    ask = wire.read(body.parse(ASKED[wire_name] % b"test"))
    dispatch = Dispatch(
        ask,
        witness,
        lambda: False,
        lambda found: spoken(wire, ask, found),
        attempts_max=1,
        total_s=PATIENCE_S,
    )
    with _one_at_a_time:
        sender, started = _sender(), time.monotonic()
        sender.health = Health(notice=lambda _message: None)
        code, words = _sent(sender, dispatch, replace(target, upstream=upstream, wire=wire_name))
        took_ms = round((time.monotonic() - started) * 1000)
    return Outcome(code, next(iter(witness.attempts), None), took_ms, redacted(words, key))


def _sent(sender: Dispatcher, dispatch: Dispatch, target: Target) -> tuple[str, str]:
    try:
        sender.send(dispatch, (target,)).close()
    except errors.UpstreamRefused as err:
        return "upstream_refused", str(err)  # its own code is the provider's word
    except (errors.RelayError, CallerLeft) as err:
        return getattr(err, "code", None) or "error", getattr(err, "words", "") or cause(err)
    return "ok", ""


def cause(err: BaseException) -> str:
    """What the network says, in the words of the innermost error: Connection refused."""
    while (inner := err.__cause__ or err.__context__) is not None:
        err = inner
    if isinstance(err, errors.RelayError | CallerLeft):
        return ""
    return getattr(err, "strerror", None) or str(err)


def stream(target: Target, key: str, question: str) -> Iterator[str]:
    """What a target says to a question, bit by bit as it comes; at the end why it failed, if it did.

    It must speak chat. Nobody pays for it: it is the administrator's own try.
    """
    wire, reader = WIRES["chat"], Reader()
    asked = {"model": "test", "messages": [{"role": "user", "content": question}], "stream": True}
    ask = wire.read(body.parse(msgspec.json.encode(asked | {"max_tokens": STREAM_TOKENS})))
    upstream = replace(target.upstream, keys=(key,) if key else (), calls_at_once=None)
    dispatch = Dispatch(
        ask,
        Witness(),
        lambda: False,
        lambda found: spoken(wire, ask, found),
        attempts_max=1,
        total_s=PATIENCE_S,
    )
    sender = Dispatcher(connections=0)
    sender.health = Health(notice=lambda _message: None)
    try:
        reply = sender.send(dispatch, (replace(target, upstream=upstream, wire="chat"),))
        try:
            if reply.doc:
                yield from (piece.text for piece in whole(reply.doc) if piece.kind == "text")
                return
            for event in _events(reply):
                data = sse.data(event)
                if data and data != b"[DONE]":
                    for piece in reader.heard(msgspec.json.decode(data)):
                        if piece is not None and piece.kind == "text":
                            yield piece.text
        finally:
            reply.close()
    except (errors.RelayError, CallerLeft, msgspec.DecodeError) as err:
        words = getattr(err, "words", "") or cause(err) or str(err)
        yield f"\n✗ {redacted(words, key)}"


def _events(reply: Reply) -> Iterator[bytes]:
    yield from reply.held
    while chunk := reply.read():
        yield from reply.cut(chunk)
