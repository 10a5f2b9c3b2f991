"""A target's answer that has begun, read as it comes.

Owns how long it may be silent, how much it may hold, and whose fault it is when it breaks off. What
its bytes say is the wires'.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence

from billing import Usage
from relay import errors
from relay.upstream.connection import Connection, Watcher
from relay.wires import sse
from turns import Pause

END_S = 0.05  # for the end of a stream after its last event
EVENT_BYTES_MAX = 16 << 20
SILENCE_S = 10.0  # after so long without a word the caller should hear that the line stands


class CallerLeft(Exception):
    """The caller is gone; nobody will read what we answer."""


class Reply:
    """A target's answer that has begun.

    A whole document, or a stream whose first content has arrived.
    """

    def __init__(self, target, key: str, line: Connection, answer, watcher: Watcher):
        self.target, self.key = target, key
        self.on_close: Callable[[], None] = lambda: None
        self.status = answer.status
        self.line = line
        self.doc: dict = {}  # plain: the answer, parsed, and as it came
        self.data = b""
        self.usage: Usage | None = None  # that it gives
        self.events = sse.Events(EVENT_BYTES_MAX)
        self.held: list[bytes] = []  # streamed: whole events read while waiting for content
        self.stops = False  # the caller may end it before it says anything
        self.pauses = False  # who serves it waits for its pieces without a thread
        self.pause: Pause | None = None  # nothing has come: where to wait for it
        self.pending = 0  # events that have come with the one that is looked at, and wait
        self.problem: errors.RelayError | None = None  # why the stream broke off
        self._answer = answer
        self._watcher = watcher
        self._bytes = 0
        self._closed = self._broken = False

    def read(self) -> bytes:
        """The next bytes of the answer, b"" at its end.

        Raises CallerLeft when the watcher cut the line, UpstreamTimeout and UpstreamError when the
        upstream failed.
        """
        try:
            return self._read()
        except OSError as err:
            self._broken = True
            raise failure(err, self.line)

    def pieces(self) -> Iterator[bytes | None]:
        """The rest of the answer as it comes; None for every SILENCE_S in which nothing does, and,
        with `pause` set, where it `pauses`.

        Raises as `read`; the upstream's idle_s is how long all the silence may last.
        """
        idle_s = left_s = self.target.upstream.idle_s
        while True:
            wait_s = min(SILENCE_S, left_s)
            try:
                if self.pauses:
                    chunk = yield from self._paused(time.monotonic() + wait_s)
                else:
                    self.line.wait_at_most(wait_s)
                    chunk = self._read()
            except OSError as err:
                left_s -= SILENCE_S
                if not isinstance(err, TimeoutError) or left_s <= 0:
                    self._broken = True
                    raise failure(err, self.line)
                yield None
                continue
            if not chunk:
                return
            left_s = idle_s
            yield chunk

    def _paused(self, until: float) -> Generator[None, None, bytes]:
        """The next bytes, with pauses until they come. Raises TimeoutError at that time."""
        while (chunk := self._answer.read(wait=False)) is None:
            if time.monotonic() >= until:
                raise TimeoutError("nothing came in time")
            self.pause = Pause.made(self._answer.fileno(), until)
            yield None
        return self._taken(chunk)

    def _read(self) -> bytes:
        return self._taken(self._answer.read())

    def _taken(self, chunk: bytes) -> bytes:
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
            raise errors.UpstreamError(
                "The provider's answer has an event that is too large."
            ) from err

    def counted(self, events: Sequence[bytes]) -> Iterator[bytes]:
        """Events that came together, with `pending` saying how many of them are still to be looked
        at."""
        self.pending = len(events)
        for event in events:
            self.pending -= 1
            yield event

    def close(self) -> None:
        """Let the connection go.

        Back to the pool if the answer was read to its end, else closed.
        """
        if self._closed:
            return
        self._closed = True
        self.on_close()
        self._watcher.forget(self.line)
        if not self._at_end():
            self.line.cut()
        self._answer.close()

    def _at_end(self) -> bool:
        """Whether the connection can serve again.

        The end of a chunked body often comes with the last event.
        """
        try:
            return not self._broken and not self.line.left and self._answer.at_end(END_S)
        except OSError:
            return False


def failure(err: Exception, line: Connection) -> Exception:
    """What an error of a line stands for, to be raised.

    The caller's leaving if that is why it was cut.
    """
    if line.left:
        return CallerLeft()
    if line.ended:
        return errors.Restarting(retry_after=2)
    if line.overdue:
        return errors.OutOfTime()
    if line.shut_out:
        return errors.NotAuthenticated("The member who holds this API key was disabled meanwhile.")
    return errors.UpstreamTimeout() if isinstance(err, TimeoutError) else errors.UpstreamError()
