"""Streams whose events carry their names, as those of Messages and Responses do, where their bytes
pass untouched.

Owns what may pass unseen, and what an event must look like for clients that are strict about its
lines. It knows no event by name: the wires say which of them must be looked at.
"""

import re
from collections.abc import Callable

import msgspec

from relay.wires import sse

_decode = msgspec.json.Decoder().decode


def passing(ends: str) -> Callable[[bytes], bool]:
    """A function that tells of whole events if they can pass as they are: no usage, no error,
    nothing to clean, and none of the names of `ends`, a regular expression.
    """
    notable = re.compile(rb'"usage"\s*:\s*\{|"error"|\[DONE\]|\r|' + ends.encode()).search

    def plain(chunk: bytes) -> bool:
        return chunk.startswith(b"event: ") and chunk.endswith(b"}\n\n") and not notable(chunk)

    return plain


def clean(event: bytes) -> bytes:
    """The event with its name and LF lines; what carries neither data nor a comment is nothing."""
    if event.startswith(b":"):
        return event.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data = sse.data(event)
    if data is None or data.strip() == b"[DONE]":
        return b""
    name = sse.name(event)
    return sse.frame(data, name.decode(errors="replace") if name else _type(data))


def _type(data: bytes) -> str | None:
    try:
        kind = _decode(data).get("type")
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, AttributeError):
        return None
    return kind if isinstance(kind, str) and "\n" not in kind and "\r" not in kind else None
