"""A request body, read once and strictly.

Owns inflating, parsing and re-writing of JSON bodies, and `Ask`, what the spine knows of a request.
It knows no wire.

What is billed must be what is sent, so a body that two parsers could read differently (duplicate
keys, NaN, lone surrogates, a byte order mark) is refused. The caller's own bytes are kept:
`Body.bytes(changes)` cuts new values into them and leaves the rest as it came.
"""

import json
import re
import zlib
from collections.abc import Iterable, Mapping
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

import msgspec

from relay.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

DEPTH_MAX = 64
VALUES_MAX = 250_000  # as Python objects each takes some 50 bytes; no tool sends a tenth of it

_encode = msgspec.json.Encoder().encode
_blank = re.compile(r"[ \t\n\r]*").match
_colon = re.compile(r"[ \t\n\r]*:[ \t\n\r]*").match
_comma = re.compile(r"[ \t\n\r]*,[ \t\n\r]*").match
_strings = re.compile(rb'"[^"]*"')  # without escapes in them: nothing to go back to
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{},'))
_surrogate = re.compile(rb"\\u[dD][89a-fA-F]").search


class Body(dict[str, Any]):
    """The members of a JSON object, and the text they came from.

    The law: `body.bytes({})` is the text of the caller, byte for byte.
    """

    def __init__(
        self,
        members: Iterable[tuple[str, object]],
        text: str,
        spans: dict[str, tuple[int, int, int]],
        size: int,
    ):
        super().__init__(members)
        self._text = text
        self.size = size  # bytes of the caller's text
        self._spans = spans  # member -> where its key starts, its value starts, its value ends

    def mentions(self, text: str) -> int:
        """How often a text stands in the body."""
        return self._text.count(text)

    def bytes(self, changes: Mapping[str, object] | None = None, drop: Iterable[str] = ()) -> bytes:
        """The caller's text with some members' values replaced, added or (`drop`) taken out."""
        changes, drop = changes or {}, set(drop)
        if not drop:
            return self._spliced(changes).encode()
        kept = [
            json.dumps(name)
            + ":"
            + (_dump(changes[name]) if name in changes else self._text[start:end])
            for name, (_, start, end) in self._spans.items()
            if name not in drop
        ]
        kept += [
            json.dumps(name) + ":" + _dump(value)
            for name, value in changes.items()
            if name not in self._spans and name not in drop
        ]
        return ("{" + ",".join(kept) + "}").encode()

    def _spliced(self, changes: Mapping[str, object]) -> str:
        pieces, at = [], 0
        for name, (_, start, end) in self._spans.items():
            if name in changes:
                pieces += [self._text[at:start], _dump(changes[name])]
                at = end
        added = [
            json.dumps(name) + ":" + _dump(value)
            for name, value in changes.items()
            if name not in self._spans
        ]
        if added:
            close = self._text.rindex("}")
            pieces += [self._text[at:close], "," if self._spans else "", ",".join(added)]
            at = close
        return "".join(pieces) + self._text[at:]


class Ask(msgspec.Struct):
    """One request, read: what the spine, the gate and the meter need to know of it."""

    model: str
    body: Body
    stream: bool = False
    usage_asked: bool = True  # False: usage that we ask for upstream is hidden from the caller
    output_tokens_max: int | None = (
        None  # output tokens that each choice may have, if the caller says so
    )
    choices: int = 1
    input_tokens: int = 0  # an estimate
    output_afforded: int | None = None  # output tokens that each choice may have, by the pockets
    chat: dict[str, Any] | None = None  # the request as a chat request, if another wire's


def inflate(data: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body without its Content-Encoding.

    Raises BodyTooLarge when it inflates beyond `bytes_max`, UnsupportedEncoding for other than gzip
    and deflate, BadRequest when it is damaged or cut off.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedEncoding()
    # 47: gzip or zlib by their header. Bare deflate, which some call "deflate" too, has none.
    bare = encoding == "deflate" and (
        len(data) < 2 or data[0] & 15 != 8 or (data[0] << 8 | data[1]) % 31
    )
    inflater = zlib.decompressobj(-15 if bare else 47)
    try:
        inflated = inflater.decompress(data, bytes_max)
    except zlib.error:
        raise BadRequest(f"The body is not valid {encoding}.") from None
    if inflater.unconsumed_tail:
        raise BodyTooLarge()
    if not inflater.eof or inflater.unused_data:
        raise BadRequest(f"The body is not one whole {encoding} stream.")
    return inflated


def parse(data: bytes) -> Body:
    """Read a JSON object strictly.

    Raises BadRequest, which says why, for anything else: other JSON, duplicate keys, NaN and
    infinity, numbers that no double holds, more than DEPTH_MAX levels or VALUES_MAX values, invalid
    UTF-8, lone surrogates. Time and memory are linear in the body, whatever it holds.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    opened = data.count(b"{") + data.count(b"[")
    if opened > DEPTH_MAX or opened + data.count(b",") > VALUES_MAX:
        _check_shape(data)
    try:
        body = _members(text, len(data))
        if _surrogate(data):
            _encode(dict(body))
    except UnicodeEncodeError:
        raise BadRequest("The body has a lone surrogate in a string.") from None
    except (ValueError, RecursionError) as err:
        raise BadRequest(f"The body is not valid JSON: {err}.") from None
    return body


def _after_blanks(text: str, at: int) -> int:
    match = _blank(text, at)
    return match.end() if match else at


def _members(text: str, size: int) -> Body:
    """The top level member by member, so that each one's place in the text is known."""
    at = _after_blanks(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("it must be an object")
    members: list[tuple[str, object]] = []
    spans: dict[str, tuple[int, int, int]] = {}
    at = _after_blanks(text, at + 1)
    while text[at : at + 1] != "}":
        if text[at : at + 1] != '"':
            raise ValueError(f"a member name is expected at character {at}")
        key_at = at
        name, at = scanstring(text, at + 1)
        colon = _colon(text, at)
        if colon is None:
            raise ValueError(f"':' is expected at character {_after_blanks(text, at)}")
        value_at = colon.end()
        try:
            value, at = _decoder.raw_decode(text, value_at)
        except json.JSONDecodeError as err:
            raise ValueError(f"{err.msg.lower()} at character {err.pos}") from None
        if name in spans:
            raise ValueError(f"the name '{name[:100]}' appears twice")
        members.append((name, value))
        spans[name] = (key_at, value_at, at)
        comma = _comma(text, at)
        at = comma.end() if comma else _after_blanks(text, at)
        if comma and text[at : at + 1] == "}":
            raise ValueError(f"a member is expected at character {at}")
        if comma is None and text[at : at + 1] != "}":
            raise ValueError(f"',' or '}}' is expected at character {at}")
    if _after_blanks(text, at + 1) != len(text):
        raise ValueError("there is more after its end")
    return Body(members, text, spans, size)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for at, name in enumerate(names) if name in names[:at])
        raise ValueError(f"the name '{name[:100]}' appears twice")
    return members


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"the number {digits[:40]} is too large")
    return number


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_shape(data: bytes) -> None:
    """Refuse a body that is too deep or holds too many values, by its marks outside of strings."""
    marks = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NO_MARKS)
    marks = _strings.sub(b"", marks)
    opened = marks.count(b"{") + marks.count(b"[")
    if opened + marks.count(b",") > VALUES_MAX:
        raise BadRequest(f"The body holds more than {VALUES_MAX} values.")
    depth = 0
    for mark in marks.translate(None, b'",'):
        depth += 1 if mark in b"[{" else -1
        if depth > DEPTH_MAX:
            raise BadRequest(f"The body is nested more than {DEPTH_MAX} levels deep.")


def _dump(value: object) -> str:
    return _encode(value).decode()


_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)
