"""Server-sent events as bytes: cuts a stream into events, reads their fields, frames new ones.

Owns the buffer of an unfinished event and changes no byte of a finished one. It knows nothing of
JSON, wires or sockets. The law, for any cut of the input: `b"".join(events) + rest ==
b"".join(chunks)`, and the events are the same. Rules: WHATWG HTML, "Parsing an event stream": lines
end with LF, CRLF or CR, an event ends with a blank line.
"""

import re

EVENT_BYTES_MAX = 16 << 20

# A CR at the end of what has arrived may be half of a CRLF, so it ends nothing until the next byte
# is seen.
_blank_line = re.compile(rb"\r\n|\n|\r(?=[^\n])").match
_event_end = re.compile(rb"(?:\n|\r(?!\n))(?:\r\n|\n|\r(?=[^\n]))").search
_END_BYTES = 2  # of the three that the pattern matches may be seen before the last
_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):
    """An event is longer than the reader of the stream is ready to hold.

    The stream cannot be read on.
    """


class Events:
    """Cuts chunks of a stream into events.

    A blank line where an event could begin is an event of its own.
    """

    def __init__(self, max_bytes: int = EVENT_BYTES_MAX):
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._seen = 0  # bytes of the buffer in which no event ends

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that this chunk completes, each with its blank line. Raises TooLong.

        A stream whose lines end with bare CRs is one event late; no provider is known to send one.
        """
        if (
            not self._buffer
            and chunk.endswith(b"\n\n")
            and len(chunk) <= self._max_bytes
            and b"\r" not in chunk
        ):
            if chunk.find(b"\n\n") == len(chunk) - 2 > 0 and chunk[0] != 10:
                return [chunk]
            if b"\n\n\n" not in chunk and chunk[0] != 10:
                return [event + b"\n\n" for event in chunk[:-2].split(b"\n\n")]
        self._buffer += chunk
        return self._cut()

    def whole(self, chunk: bytes) -> bytes:
        """The whole events that this chunk completes, in one piece and not taken yet; b"" if there
        are none, or only such as `feed` must look for: those whose lines end otherwise than in LF.
        """
        end = chunk.rfind(b"\n\n") + 2
        if end < 2:
            return b""
        return bytes(self._buffer) + chunk[:end] if self._buffer else chunk[:end]

    def skip(self, chunk: bytes) -> None:
        """Take what `whole` gave; the rest of the chunk begins an event."""
        self._buffer[:] = chunk[chunk.rfind(b"\n\n") + 2 :]
        self._seen = max(0, len(self._buffer) - _END_BYTES)

    def rest(self) -> bytes:
        """What has arrived of an event that has not ended: at the end of a stream usually b""."""
        return bytes(self._buffer)

    def _cut(self) -> list[bytes]:
        buffer, events, start = self._buffer, [], 0
        while found := self._end(start):
            events.append(bytes(buffer[start : found.end()]))
            start, self._seen = found.end(), 0
            self._check(len(events[-1]))
        del buffer[:start]
        self._check(len(buffer))
        self._seen = max(0, len(buffer) - _END_BYTES)
        return events

    def _end(self, start: int) -> re.Match[bytes] | None:
        return _blank_line(self._buffer, start) or _event_end(self._buffer, start + self._seen)

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise TooLong(f"an event has more than {self._max_bytes} bytes")


def data(event: bytes) -> bytes | None:
    """The event's data lines joined with LF, or None if it has none (a comment, a blank line)."""
    if (
        event.startswith(b"data: ")
        and event.endswith(b"\n\n")
        and event.find(b"\n") == len(event) - 2
        and b"\r" not in event
    ):
        return event[6:-2]
    lines = _values(event, b"data")
    return b"\n".join(lines) if lines else None


def name(event: bytes) -> bytes | None:
    """The event's type as its last `event:` line tells, or None."""
    values = _values(event, b"event")
    return values[-1] if values else None


def frame(data: bytes, name: str | None = None) -> bytes:
    """An event with this data and, if given, this type."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def _values(event: bytes, field: bytes) -> list[bytes]:
    """What stands behind `field:` in each line that has it.

    One space after the colon is no part of it.
    """
    values = []
    for line in event.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"):
        key, _, value = line.partition(b":")
        if key == field:
            values.append(value.removeprefix(b" "))
    return values
