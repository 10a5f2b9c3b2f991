"""Words about a request without what they quote of it: those of a provider's refusal may be kept,
the caller's may not.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

LENGTH_MAX = 400  # characters of words that are kept
TEXT_MAX = 512 * 1024  # of a request, to be compared; of a longer one no words are kept
LONG = TEXT_MAX // 2  # of longer ones half as many words are kept: a comparison takes time
SHORT_MAX = 5000  # texts shorter than a window that are looked for one by one
WINDOW, STRIDE = 8, 2  # so that whatever is quoted over nine characters in a row is seen
GAP = "…"
# Their values are names of the format's or of tools, which explain a refusal; all others are the
# caller's.
NAMES = frozenset(
    (
        *("role", "type", "model", "name", "id", "call_id", "tool_call_id", "tool_use_id"),
        *("effort", "format", "media_type", "service_tier", "status", "stop_reason"),
        *("enum", "required"),
    )
)


def unquoted(words: str, asked: Mapping[str, Any] | None) -> str:
    """The beginning of `words`, with a gap where they repeat a text of the request `asked`.

    Empty where that cannot be told: nothing is known of the request, or it is too long.
    """
    texts = _bounded(asked) if words and asked is not None else None
    if texts is None:
        return ""
    whole = "\n".join(texts)
    words = words[: LENGTH_MAX if len(whole) <= LONG else LENGTH_MAX // 2]
    plain, hidden = _plain(words), bytearray(len(words))
    as_json = (json.dumps(whole, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    for text in {whole, *as_json}:
        _hide_windows(hidden, plain, _plain(text))
    for short in {_plain(each.strip()) for each in texts if len(each.strip()) < WINDOW}:
        _hide_word(hidden, plain, short)
    kept = "".join("\0" if hide else char for char, hide in zip(words, hidden, strict=True))
    return GAP.join(part for part in _runs(kept))


def _bounded(asked: Mapping[str, Any]) -> list[str] | None:
    """The caller's texts in a request, or None if they are too many or too long."""
    texts, room, shorts = [], TEXT_MAX, SHORT_MAX
    for text in _texts(asked):
        room -= len(text)
        shorts -= len(text) < WINDOW
        if room < 0 or shorts < 0:
            return None
        texts.append(text)
    return texts


def _texts(asked: object) -> Iterator[str]:
    ahead = [asked]
    while ahead:
        value = ahead.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            ahead.extend(each for name, each in value.items() if name not in NAMES)
        elif isinstance(value, list):
            ahead.extend(value)


def _plain(text: str) -> str:
    """As it is compared: one kind of space, small letters where that changes no length."""
    small = text.lower()
    small = small if len(small) == len(text) else text
    return small.replace("\n", " ").replace("\t", " ").replace("\r", " ")


def _hide_windows(hidden: bytearray, words: str, text: str) -> None:
    at = 0
    while at <= len(words) - WINDOW:
        found = text.find(words[at : at + WINDOW])
        if found < 0:
            at += STRIDE
            continue
        start, end = at, at + WINDOW
        while start and found and words[start - 1] == text[found - 1]:
            start, found = start - 1, found - 1
        while end < len(words) and words[start : end + 1] == text[found : found + end + 1 - start]:
            end += 1
        hidden[start:end] = b"\1" * (end - start)
        at = end


def _hide_word(hidden: bytearray, words: str, short: str) -> None:
    """Hide a short text where it stands as a word."""
    at = words.find(short) if short else -1
    while at >= 0:
        end = at + len(short)
        before, after = words[at - 1 : at], words[end : end + 1]
        if not (_joins(before, short[0]) or _joins(short[-1], after)):
            hidden[at:end] = b"\1" * len(short)
        at = words.find(short, end)


def _joins(left: str, right: str) -> bool:
    """Whether two characters stand in one word; those of Chinese stand alone."""
    return left.isascii() and right.isascii() and left.isalnum() and right.isalnum()


def _runs(kept: str) -> list[str]:
    parts = kept.split("\0")
    return [parts[0], *(part for part in parts[1:-1] if part), *parts[-1:]] if parts[1:] else parts
