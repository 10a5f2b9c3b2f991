"""The only outbound HTTP: one attempt after the other until a target begins to answer.

Owns attempts, timeouts and the reading of answers; connections are `relay.line`'s. It knows no money, no members and
no HTTP server; what an answer says it learns from the wires.

Nothing of the outside leaks in: no redirects, cookies, netrc or proxy variables, and headers by allow-list. The
requests library is used below its sessions for that reason, and because a session costs more than all the rest.
"""

import logging
import time
from collections.abc import Callable

import msgspec
import urllib3
from requests import PreparedRequest, Response
from requests.exceptions import ConnectTimeout, ReadTimeout, RequestException
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import ReadTimeoutError

from relay import errors, faults, sse
from relay.body import Ask
from relay.chat import Signs
from relay.demo import DemoAdapter
from relay.line import Adapter, Line, Watcher, calling

log = logging.getLogger("relay.upstream")

READ_BYTES = 65536
ERROR_BYTES_MAX = 65536
HELD_BYTES_MAX = 1 << 20           # bytes of a stream read before its first content
EVENT_BYTES_MAX = 16 << 20

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class CallerLeft(Exception):
    """The caller is gone; nobody will read what we answer."""


class Reply:
    """A target's answer that has begun: a whole document, or a stream whose first content has arrived."""

    def __init__(self, target, line: Line, response: Response, watcher: Watcher):
        self.target = target
        self.status = response.status_code
        self.line = line
        self.doc: dict | None = None           # plain: the answer, parsed, and as it came
        self.data = b""
        self.events = sse.Events(EVENT_BYTES_MAX)
        self.held: list[bytes] = []            # streamed: whole events read while waiting for content
        self.problem: errors.UpstreamError | None = None    # why the stream broke off
        self._response = response
        self._watcher = watcher
        self._bytes = 0
        self._closed = False

    def read(self) -> bytes:
        """The next bytes of the answer, b"" at its end.

        Raises CallerLeft when the watcher cut the line, UpstreamTimeout and UpstreamError when the upstream failed.
        """
        try:
            chunk = self._response.raw.read1(READ_BYTES)
        except (TimeoutError, ReadTimeoutError) as err:
            raise errors.UpstreamTimeout() from err
        except (urllib3.exceptions.HTTPError, OSError, ValueError, AttributeError) as err:
            if self.line.left:
                raise CallerLeft() from None
            raise errors.UpstreamError(code="upstream_error") from err
        if not chunk and self.line.left:
            raise CallerLeft()
        self._bytes += len(chunk)
        if self._bytes > self.target.upstream.answer_bytes_max:
            raise errors.UpstreamError("The provider's answer is larger than the relay takes.")
        return chunk

    def cut(self, chunk: bytes) -> list[bytes]:
        """The events that this piece completes. Raises UpstreamError for one that never ends."""
        try:
            return self.events.feed(chunk)
        except sse.TooLong as err:
            raise errors.UpstreamError("The provider's answer has an event that is too large.") from err

    def close(self) -> None:
        """Let the connection go: back to the pool if the answer was read to its end, else closed."""
        if self._closed:
            return
        self._closed = True
        self._watcher.forget(self.line)
        raw = self._response.raw
        if not getattr(raw, "closed", True):
            self.line.cut()
        raw.close()
        release = getattr(raw, "release_conn", None)
        if release:
            release()


class Sender:
    """Sends asks to targets. One for the process: it holds the pools of connections."""

    def __init__(self, connections: int = 128):
        web = Adapter(pool_connections=32, pool_maxsize=connections)
        self._adapters = {"http": web, "https": web, "demo": DemoAdapter()}
        self._watcher = Watcher()

    def send(self, ask: Ask, targets, meter, gone: Callable[[], bool]) -> Reply:
        """The first target's answer that begins properly; targets are (target, wire to speak, payload) in order.

        Raises what the last target answered when none does, UpstreamRefused at once when the request itself is
        wrong, CallerLeft when the caller is gone.
        """
        failure: errors.RelayError = errors.Unavailable()
        for target, wire, payload in targets:
            started = time.monotonic()
            try:
                reply = self._attempt(ask, target, wire, payload, gone)
            except errors.UpstreamError as err:
                refused = isinstance(err, errors.UpstreamRefused)
                meter.attempted(target, getattr(err, "seen", None), started, err.code or err.type)
                log.warning("upstream %s: %s %s", target.upstream.name, err.code, _cause(err))
                if refused:
                    raise
                failure = err
            except CallerLeft:
                meter.attempted(target, None, started, "caller_left")
                meter.fate.left = True
                raise
            else:
                meter.attempted(target, reply.status, started)
                return reply
        raise failure

    def _attempt(self, ask: Ask, target, wire, payload: bytes, gone: Callable[[], bool]) -> Reply:
        line = Line(target.upstream.allow_private)
        self._watcher.watch(line, gone)
        reply = None
        try:
            response = self._post(target, wire, payload, line, ask.stream)
            reply = Reply(target, line, response, self._watcher)
            if response.status_code >= 400:
                raise self._refusal(reply, response)
            if ask.stream and "json" not in response.headers.get("content-type", ""):
                _await_content(reply, wire)
            else:
                _read_whole(reply, wire)
            line.wait_at_most(target.upstream.idle_s)
            line.drain_s = target.upstream.drain_s if target.upstream.on_disconnect == "drain" else 0
            return reply
        except BaseException as err:
            if reply is not None:
                reply.close()
                if isinstance(err, errors.UpstreamError):
                    err.seen = reply.status
            self._watcher.forget(line)
            raise

    def _post(self, target, wire, payload: bytes, line: Line, stream: bool) -> Response:
        upstream = target.upstream
        request = PreparedRequest()
        request.method, request.url = "POST", upstream.url(target.wire)
        request.headers = CaseInsensitiveDict(_headers(upstream, wire, stream, len(payload)))
        request.body = payload
        scheme = request.url.partition(":")[0]
        try:
            with calling(line):
                response = self._adapters[scheme].send(
                    request, stream=True, timeout=(upstream.connect_s, upstream.first_byte_s))
        except (ConnectTimeout, ReadTimeout) as err:
            raise CallerLeft() if line.left else errors.UpstreamTimeout() from err
        except (RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as err:
            raise CallerLeft() if line.left else errors.UpstreamError() from err
        if line.socket is None:                # demo:// has no socket
            line.on_cut(response.raw.shutdown)
        return response

    def _refusal(self, reply: Reply, response: Response) -> errors.RelayError:
        body = b""
        try:
            while len(body) < ERROR_BYTES_MAX and (chunk := reply.read()):
                body += chunk
        except errors.UpstreamError:
            pass                               # the status alone must do
        return faults.of_status(response.status_code, body, response.headers, key=_key(reply.target.upstream))


def _headers(upstream, wire, stream: bool, length: int) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Content-Length": str(length), "Accept-Encoding": "identity",
               "Accept": "text/event-stream" if stream else "application/json", "User-Agent": "relay"}
    key = _key(upstream)
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return headers | getattr(wire, "HEADERS", {})


def _key(upstream) -> str | None:
    return upstream.keys[0] if upstream.keys else None


def _await_content(reply: Reply, wire) -> None:
    """Read a stream up to its first content, so that until then another target can still take over."""
    held_bytes, finished = 0, None
    while held_bytes < HELD_BYTES_MAX:
        chunk = reply.read()
        for event in reply.cut(chunk):
            reply.held.append(event)
            data = sse.data(event)
            told: Signs = wire.signs(data) if data else Signs()
            if told.error:
                raise faults.read(told.error, key=_key(reply.target.upstream))
            finished = told.finish or finished
            if told.content:
                return
        if not chunk:
            if finished and finished != "stop":
                return             # cut by a limit or a filter before anything was said: the caller should know
            raise errors.UpstreamError("The model's provider gave an empty answer.")
        held_bytes += len(chunk)


def _read_whole(reply: Reply, wire) -> None:
    """Read a plain answer and look into it: a 200 may hold an error, or nothing."""
    pieces = []
    while chunk := reply.read():
        pieces.append(chunk)
    reply.data = b"".join(pieces)
    try:
        doc = _decode(reply.data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as err:
        raise errors.UpstreamError("The model's provider gave an answer that cannot be read.") from err
    if not isinstance(doc, dict):
        raise errors.UpstreamError("The model's provider gave an answer that cannot be read.")
    told: Signs = wire.signs_of(doc)
    if told.error:
        raise faults.read(told.error, key=_key(reply.target.upstream))
    if not told.content and told.finish in (None, "stop"):
        raise errors.UpstreamError("The model's provider gave an empty answer.")
    reply.doc = doc


def _cause(err: BaseException) -> str:
    """What lies under an error, for the log: the innermost reason, which never holds a header or a body."""
    while err.__cause__ is not None or err.__context__ is not None:
        err = err.__cause__ or err.__context__
    return faults.redacted(f"({type(err).__name__}: {err})")
