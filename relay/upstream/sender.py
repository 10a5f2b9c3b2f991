"""The only outbound HTTP: one attempt after the other until a target begins to answer.

Owns attempts, timeouts and the first look at an answer; how it is read on is `reply`'s, connections
are `connection`'s. It knows no money, no members and no HTTP server; what an answer says it learns
from the wires.

Nothing of the outside leaks in: no redirects, cookies, netrc or proxy variables, and headers by
allow-list.
"""

import itertools
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from relay import errors
from relay.body import Ask
from relay.catalog import Target
from relay.unquoted import unquoted
from relay.upstream import order, provider_errors, quirks
from relay.upstream.connection import Connection, Watcher
from relay.upstream.demo.provider import Demo
from relay.upstream.health import Health
from relay.upstream.http1 import ConnectionPool
from relay.upstream.payload import Spoken
from relay.upstream.reply import EVENT_BYTES_MAX, CallerLeft, Reply, failure
from relay.wires import reader, sse
from relay.wires.interface import EventInfo, Wire
from turns import resting

log = logging.getLogger("relay.upstream")

STOPS = ("stop", "stop_sequences")  # what a caller may end an answer by before it begins
NOTICE_BYTES_MAX = 4096  # of a webhook's answer
PAUSE_S = 0.05  # between two looks whether somebody may be asked, or the caller has left
ERROR_BYTES_MAX, ERROR_S = 65536, 5.0  # of an error's body
WHOLE_S = 900.0  # for a plain answer whose provider says by blank lines that it is still at work
HELD_BYTES_MAX = 1 << 20  # bytes of a stream's events before its first content
HEADER_LENGTH_MAX = 2000
OF_SHAPE = (400, 404, 405, 415, 422, 501)  # statuses of refusals that another wire may not meet
OF_CONTENT = ("content_filter", "context_length_exceeded")  # and codes that it would meet too
BEFORE_EVENTS = b" \t\r\n\xef\xbb\xbf"  # blanks, and the mark of UTF-8
EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")  # of the lines of a stream
UNREADABLE = "The model's provider gave an answer that cannot be read."
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Dispatch(msgspec.Struct):
    """What an ask's attempts have in common.

    `spoken(target)` is what to send it; `affinity` is the same for calls of one conversation, which
    are best sent to the same place; `gone` tells whether the caller has left.
    """

    ask: Ask
    meter: Any  # of layer 2 too: it notes attempts and knows how the call is
    gone: Callable[[], bool]
    spoken: Callable[[Target], Spoken]
    affinity: str | None = None
    headers: Any = msgspec.field(
        default_factory=dict
    )  # the caller's; the wire says which of them pass
    caller: object = None  # whose it is
    barred: Callable[[], bool] = lambda: False  # whether the caller may go on no more
    # What was written for a caller who left before the whole answer was there.
    written: Callable[[Target, bytes], None] = lambda target, data: None
    attempts_max: int = 4
    total_s: float = 180.0
    wait_s: float = 0.0  # a pause of all targets that ends so soon is waited out
    life_s: float = math.inf  # the longest that an answer may take
    failures: list[errors.UpstreamError] = msgspec.field(default_factory=list)  # of the attempts

    def over_chat(self, target: Target, refusal: errors.UpstreamRefused) -> Target | None:
        """The same target asked over chat, where it refused the shape of a request on the caller's
        own wire (a field, the address) and not what it holds; None where that cannot be."""
        of_content = refusal.code in OF_CONTENT or refusal.status not in OF_SHAPE
        speaks = target.wire != "chat" and "chat" in target.upstream.speaks
        if of_content or not speaks or self.ask.chat is None:
            return None
        return (
            replace(target, wire="chat") if len(self.meter.attempts) < self.attempts_max else None
        )

    @property
    def failure(self) -> errors.UpstreamError | None:
        """What to tell the caller.

        That a model is unknown somewhere matters only if it is all that was heard.
        """
        heard = [
            each for each in self.failures if not isinstance(each, errors.UpstreamRefused)
        ] or self.failures
        return heard[-1] if heard else None


class Dispatcher:
    """Sends asks to targets.

    One for the process: it holds the pools of connections, and what health is known.
    """

    def __init__(self, connections: int = 128):
        web = ConnectionPool(connections)
        self._doors: dict[str, Any] = {"http": web, "https": web, "demo": Demo()}
        self._watcher = Watcher()
        self._turns = itertools.count()
        self.health = Health()

    def send(self, dispatch: Dispatch, targets) -> Reply:
        """The first target's answer that begins properly.

        Raises what the last target answered when none does, what their health says when none may be
        tried, UpstreamRefused at once when the request itself is wrong, CallerLeft when the caller
        is gone.
        """
        while (reply := self._ask(dispatch, targets)) is None:
            if dispatch.failures or not self._waited(dispatch, targets):
                break
        if reply is not None:
            return reply
        failure = dispatch.failure or self.health.exhausted(*_split(targets))
        if isinstance(failure, errors.UpstreamOverloaded):
            failure.retry_after = failure.retry_after or 1
        raise failure

    def _ask(self, dispatch: Dispatch, targets) -> Reply | None:
        """One round over the targets that may be tried; None if none of them answered."""
        end_at = time.monotonic() + dispatch.total_s
        for target, key in self._choices(dispatch, targets):
            try:
                return self._try(dispatch, target, key)
            except errors.UpstreamError as err:
                errors.let_go(err)
                if isinstance(err, errors.UpstreamRefused) and not err.of_model:
                    return self._again(dispatch, target, key, err)  # else another may do better
            if len(dispatch.meter.attempts) >= dispatch.attempts_max or time.monotonic() > end_at:
                break
        return None

    def _waited(self, dispatch: Dispatch, targets: list) -> bool:
        """Wait until one of them may be tried, if that is soon enough. Raises CallerLeft."""
        pause_s = max(self.health.free_in(*_split(targets)), PAUSE_S)
        if pause_s > dispatch.wait_s:
            return False
        dispatch.wait_s -= pause_s
        end_at = time.monotonic() + pause_s
        while (left_s := end_at - time.monotonic()) > 0:
            if dispatch.gone():
                raise CallerLeft()
            with resting():
                time.sleep(min(left_s, PAUSE_S))
        return True

    def _again(
        self, dispatch: Dispatch, target: Target, key: str, refusal: errors.UpstreamRefused
    ) -> Reply:
        """One more attempt over chat at the same target, with the same key.

        Raises the refusal where it cannot be or helps no more.
        """
        again = dispatch.over_chat(target, refusal)
        others = set(target.upstream.keys) - {key}
        if not again or not self._may_again(dispatch, again, others):
            raise refusal
        try:
            return self._try(dispatch, again, key)
        except errors.UpstreamError as err:
            errors.let_go(err)
            raise refusal from None

    def _may_again(self, dispatch: Dispatch, again: Target, others: set[str]) -> bool:
        """Begin one more attempt at a target that has just refused a request's shape."""
        model, caller = again.model, dispatch.caller
        return self.health.begin(again.upstream, 0, others, True, caller, model) is not None

    def cut_all(self) -> None:
        """End every running answer: the relay goes down and their callers hear so."""
        self._watcher.cut_all()

    def notify(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        """POST a notice to an operator's webhook, which may be in the own network.

        Returns the beginning of what it answered. Raises on anything but a 2xx.
        """
        import requests  # needed by who has a webhook only, and not small

        with requests.Session() as session:
            session.trust_env = False
            response = session.post(
                url,
                body,
                headers={"Content-Type": "application/json", **(headers or {})},
                timeout=10,
                allow_redirects=False,
                stream=True,
            )
            said = response.raw.read(NOTICE_BYTES_MAX, decode_content=True)
            response.close()
        if not 200 <= response.status_code < 300:
            raise errors.UpstreamError(f"the webhook answered {response.status_code}")
        return said

    def _choices(self, dispatch: Dispatch, targets) -> Iterator[tuple]:
        """Targets with a key each, best first, as their health allows at the moment they are asked
        for.

        Keys are used in turn; a conversation stays with its key. Another key of the same upstream
        is tried after one that is refused or busy.
        """
        preferred = (
            next(self._turns)
            if dispatch.affinity is None
            else zlib.crc32(dispatch.affinity.encode())
        )
        ordered = order.order(targets, dispatch.affinity)
        for last_resort in (False, True):
            for target in ordered:
                tried: set[str] = set()
                while (
                    key := self.health.begin(
                        target.upstream,
                        preferred,
                        tried,
                        last_resort,
                        dispatch.caller,
                        target.model,
                    )
                ) is not None:
                    tried.add(key)
                    yield target, key
                    if not isinstance(
                        dispatch.failures[-1], errors.UpstreamAccount | errors.UpstreamOverloaded
                    ):
                        break
            if dispatch.failures:
                return

    def _try(self, dispatch: Dispatch, target, key: str) -> Reply:
        started, name = time.monotonic(), target.upstream.name
        try:
            reply = self._attempt(dispatch, target, key)
        except BaseException as err:
            self._failed(dispatch, target, key, started, err)
            raise
        took_ms = (time.monotonic() - started) * 1000
        self.health.learn(name, key, None, took_ms, dispatch.caller, target.model)
        reply.on_close = lambda: self._ended(name, key, target.model, dispatch)
        dispatch.meter.attempted(target, reply.status, started)
        return reply

    def _failed(
        self, dispatch: Dispatch, target, key: str, started: float, err: BaseException
    ) -> None:
        """Note what an attempt ended with that brought no answer."""
        name, took_ms, code = target.upstream.name, (time.monotonic() - started) * 1000, _code(err)
        self.health.end(name)
        words = unquoted(getattr(err, "words", ""), dispatch.ask.body)
        dispatch.meter.attempted(target, getattr(err, "seen", None), started, code, words)
        dispatch.meter.state.left |= isinstance(err, CallerLeft)
        if isinstance(err, errors.UpstreamError):
            err.words = words
            dispatch.failures.append(err)
            log.warning("upstream %s: %s %s %s", name, code, provider_errors.cause(err, key), words)
            if err.of_model:
                self.health.lacks(name, target.model)
        self.health.learn(name, key, err, took_ms, dispatch.caller, target.model)

    def _ended(self, name: str, key: str, model: str, dispatch: Dispatch) -> None:
        """An answer that had begun is over; that a caller has left says nothing of the upstream."""
        state = dispatch.meter.state
        self.health.end(name)
        if state.complete:
            self.health.learn_end(name, key, None, dispatch.caller, model)
        elif isinstance(state.error, errors.UpstreamError):
            # Health tells its words to pages, notices and the database.
            state.error.words = unquoted(state.error.words, dispatch.ask.body)
            self.health.learn_end(name, key, state.error, dispatch.caller, model)

    def _attempt(self, dispatch: Dispatch, target, key: str) -> Reply:
        wire, payload, streamed = dispatch.spoken(target)
        upstream = target.upstream
        line = Connection(
            upstream.allow_private, upstream.on_this_machine, dispatch.life_s, upstream.proxy
        )
        line.barred = dispatch.barred
        self._watcher.watch(line, dispatch.gone)
        reply = None
        end_at = time.monotonic() + target.upstream.first_byte_s
        try:
            headers = _headers(wire, key, streamed, len(payload)) | _forwarded(
                wire, dispatch.headers
            )
            answer = self._post(target, headers, payload, line)
            reply = Reply(target, key, line, answer, self._watcher)
            reply.stops = any(dispatch.ask.body.get(name) for name in STOPS)
            if answer.status >= 300:
                raise self._refusal(reply, answer)
            if streamed and "json" not in answer.headers.get("content-type", ""):
                _await_content(reply, wire, end_at)
                if not dispatch.ask.stream and not reply.doc:
                    _read_on(reply, wire, dispatch.written)
            else:
                _read_whole(reply, wire)
            line.drain_s = (
                target.upstream.drain_s if target.upstream.on_disconnect == "drain" else 0
            )
            return reply
        except BaseException as err:
            if reply is not None:
                reply.close()
                if isinstance(err, errors.UpstreamError):
                    err.seen = reply.status
            self._watcher.forget(line)
            raise

    def _post(self, target, headers: dict[str, str], payload: bytes, line: Connection):
        upstream = target.upstream
        url = quirks.address(target.quirks, upstream.url(target.wire), payload)
        try:
            return self._doors[url.partition(":")[0]].post(
                line, url, headers, payload, upstream.connect_s, upstream.first_byte_s
            )
        except (OSError, ValueError) as err:
            raise failure(err, line)

    def _refusal(self, reply: Reply, answer) -> errors.RelayError:
        body, end_at = b"", time.monotonic() + ERROR_S
        reply.line.wait_at_most(ERROR_S)
        try:
            while (
                len(body) < ERROR_BYTES_MAX
                and time.monotonic() < end_at
                and (chunk := reply.read())
            ):
                body += chunk
        except errors.UpstreamError:
            pass  # the status alone must do
        return provider_errors.of_status(answer.status, body, answer.headers, key=reply.key)


def _split(targets) -> tuple[list, list[str]]:
    """Upstreams, and the models that they are asked for."""
    return [each.upstream for each in targets], [each.model for each in targets]


def _headers(wire: Wire, key: str, stream: bool, length: int) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(length),
        "Accept-Encoding": "identity",
        "Accept": "text/event-stream" if stream else "application/json",
        "User-Agent": "relay",
    }
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers | dict(wire.HEADERS)


def _forwarded(wire: Wire, given: Mapping[str, str]) -> dict[str, str]:
    """The caller's own headers that an upstream of this wire should see.

    Absurdly long ones are left out.
    """
    values = {name: given.get(name, "") for name in wire.FORWARDED_HEADERS}
    return {
        name: value
        for name, value in values.items()
        if 0 < len(value) <= HEADER_LENGTH_MAX and value.isascii() and value.isprintable()
    }


def _await_content(reply: Reply, wire: Wire, end_at: float) -> None:
    """Read a stream up to its first content, so that until then another target can still take over."""
    seen_bytes, finished, counted = 0, None, False
    while seen_bytes < HELD_BYTES_MAX and (left_s := end_at - time.monotonic()) > 0:
        reply.line.wait_at_most(left_s)
        chunk, rest = reply.read(), reply.events.rest()
        if not chunk and not reply.held and rest.lstrip().startswith(b"{"):
            reply.data = rest
            return _read(reply, wire)  # no stream at all
        events = reply.cut(chunk) if chunk else [rest]
        reply.held += events if chunk else ()
        for info in (wire.signs(data) for event in events if (data := sse.data(event))):
            if info.error:
                raise provider_errors.read(info.error, key=reply.key)
            if info.content:
                return None
            finished = info.finish or finished
            counted |= _counted(info)
        if not chunk:
            if reader.nothing_said(finished, counted and reply.stops):
                raise errors.UpstreamError(reader.EMPTY)
            return None
        seen_bytes += sum(map(len, events))
    raise errors.UpstreamTimeout()  # it only says that it is alive


def _read_whole(reply: Reply, wire: Wire) -> None:
    """Read a plain answer and look into it."""
    pieces, end_at = [], time.monotonic() + max(WHOLE_S, reply.target.upstream.first_byte_s)
    while chunk := reply.read():
        pieces.append(chunk)
        if time.monotonic() > end_at:
            raise errors.UpstreamTimeout()
    reply.data = b"".join(pieces)
    _read(reply, wire)


def _read(reply: Reply, wire: Wire) -> None:
    """Read the document that came: even with a 200 it may hold an error, or nothing."""
    if reply.data.lstrip(BEFORE_EVENTS).startswith(EVENT_STARTS):
        reply.data = _encode(_folded(reply, wire))
    try:
        doc = _decode(reply.data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        raise errors.UpstreamError(UNREADABLE) from err
    if not isinstance(doc, dict):
        raise errors.UpstreamError(UNREADABLE)
    info = wire.signs_of(doc)
    if info.error:
        raise provider_errors.read(info.error, key=reply.key)
    if not info.content and reader.nothing_said(info.finish, _counted(info) and reply.stops):
        raise errors.UpstreamError(reader.EMPTY)
    if info.chunk is not None:
        reader.check(info.chunk)
    reply.doc, reply.usage = doc, info.usage


def _read_on(reply: Reply, wire: Wire, written: Callable[[Target, bytes], None]) -> None:
    """Read a stream to its end, for a caller who wants the whole answer at once.

    Who leaves before that has had it written so far: it is charged like a stream's.
    """
    events = list(reply.held)
    try:
        for chunk in reply.pieces():
            events += reply.cut(chunk) if chunk else ()
            if chunk and _ends(events, wire):
                break
    except CallerLeft:
        written(reply.target, b"".join(events))
        raise
    reply.held, reply.data = [], b"".join(events) + reply.events.rest()
    _read(reply, wire)


def _ends(events: list[bytes], wire: Wire) -> bool:
    """Whether the last event is the mark of the end: some keep the line open after it."""
    data = sse.data(events[-1]) if events else None
    return data is not None and wire.signs(data).done


def _folded(reply: Reply, wire: Wire) -> dict[str, Any]:
    """The document of a stream that came where none was asked for."""
    try:
        events = sse.Events(EVENT_BYTES_MAX).feed(reply.data + b"\n\n")
    except sse.TooLong as err:
        raise errors.UpstreamError(UNREADABLE) from err
    datas = [data.strip() for event in events if (data := sse.data(event))]
    try:
        docs = [_decode(data) for data in datas if data != b"[DONE]"]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        raise errors.UpstreamError(UNREADABLE) from err
    docs = [doc for doc in docs if isinstance(doc, dict)]
    for doc in docs:
        if error := reader.error_in(doc) if "type" not in doc else None:
            raise provider_errors.read(error, key=reply.key)
    doc = wire.folded(docs, b"[DONE]" in datas)
    if doc is None:
        raise errors.UpstreamError(reader.BROKEN_OFF)
    return doc


def _counted(info: EventInfo) -> bool:
    """Whether a provider says that it has read the request: it bills that."""
    return info.usage is not None and info.usage.input_tokens > 0


def _code(err: BaseException) -> str:
    """How an attempt ended, in a word of ours: providers have too many for /metrics."""
    if isinstance(err, errors.UpstreamRefused):
        return "upstream_refused"
    return "caller_left" if isinstance(err, CallerLeft) else getattr(err, "code", None) or "error"
