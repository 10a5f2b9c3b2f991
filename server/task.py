"""A request and its answer: what the app is asked, and how what it gives is written.

Owns the writing of answers, plain and piece by piece. What waitress does for any app in many steps is
done here for ours in few.
"""

import functools
import logging
import time
from collections.abc import Callable

from waitress.task import WSGITask
from waitress.utilities import build_http_date

from turns import Pause

log = logging.getLogger("server")

SPAN_S = 0.0005  # of one stream on end, while others wait
OURS = frozenset(("date", "server", "connection"))  # headers


class Task(WSGITask):
    """A request for the app. Head and first piece go out together, each further piece at once."""

    usual = False  # the answer says nothing of what is ours to say: its date, the connection
    pauses = False  # the app took our offer: its answer may wait without a thread
    pause: Pause | None = None  # the answer is not over: `resume` goes on with it

    def execute(self) -> None:
        environ = self.get_environment()
        environ["server.pauses"] = True
        self._answer = self.channel.server.application(environ, self._start)
        # What says its length is whole, and goes out at once.
        self.pauses = "server.pauses" not in environ and self.content_length is None
        self._pieces = iter(self._answer)
        self._write_on()

    def resume(self) -> None:
        """Go on after a pause."""
        try:
            self._write_on()
            self.finish()
        except OSError:
            self.close_on_finish = True

    def finish(self) -> None:
        if self.pause is None:
            super().finish()

    def _write_on(self) -> None:
        """Write pieces until the answer is over or pauses."""
        self.pause = None
        try:
            self.pause = self._written()
            said = self.content_length if self.pause is None else None
            if said not in (None, self.content_bytes_written) and self.request.command != "HEAD":
                log.warning("an answer has %s of %s bytes", self.content_bytes_written, said)
                self.set_close_on_finish()  # or the client waits for the rest
        finally:
            if self.pause is None:
                self.let_go()

    def _written(self) -> Pause | None:
        """Write pieces; where the answer pauses then, None if it is over."""
        full, end_at = self.channel.push() if self.pauses else None, time.monotonic() + SPAN_S
        if full is not None:
            return full
        for piece in self._pieces:
            if type(piece) is Pause:
                return piece
            if piece:
                self.write(piece)
            if self.pauses and (full := self.channel.push()) is not None:
                return full
            if self.pauses and time.monotonic() >= end_at:
                return Pause.made()
        return None

    def let_go(self) -> None:
        """The answer is over, or nobody will go on with it."""
        if hasattr(self._answer, "close"):
            self._answer.close()

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info=None) -> Callable:
        """WSGI's start_response. Raises ValueError for what would be more than one line each."""
        if exc_info and self.wrote_header:
            raise exc_info[1]
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
        ends = lines.count("\r") + lines.count("\n")
        if ends > 2 * len(headers) or "\n" in status or "\r" in status:
            raise ValueError("a header of the answer has a line end in it")
        self.complete, self.status, self.response_headers = True, status, list(headers)
        names = [name.lower() for name, _ in headers]
        if "content-length" in names:
            self.content_length = int(headers[names.index("content-length")][1])
        self.usual = OURS.isdisjoint(names)
        self._lines = lines
        return self.write

    def build_response_header(self) -> bytes:
        """The head: of answers that say their length, on connections that stay, a short way to it."""
        last = self.request.headers.get("CONNECTION", "").lower() == "close"
        sized = self.content_length is not None and self.has_body
        if not (self.usual and sized and self.version == "1.1") or last:
            return super().build_response_header()
        head = f"HTTP/1.1 {self.status}\r\n{self._lines}Date: {_date(int(self.start_time))}\r\n\r\n"
        return head.encode("latin-1")

    def write(self, data: bytes) -> None:
        super().write(data)
        if not self.pauses:
            self.channel.flush()


@functools.lru_cache(2)
def _date(second: int) -> str:
    """A second as HTTP writes it."""
    return build_http_date(second)
