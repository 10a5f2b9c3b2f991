"""JSON of about the right shape: documents that are right, with a few of their parts gone wrong.

It owns how a document is bent. It knows no wire; what a right document is, its tests say.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

from hypothesis import strategies as st

WORDS = [
    "",
    " ",
    "auto",
    "none",
    "required",
    "any",
    "user",
    "assistant",
    "system",
    "tool",
    "text",
    "type",
    "function",
    "custom",
    "input_text",
    "tool_use",
    "tool_result",
    "reasoning",
    "message",
    "test-model",
    "stop",
    "length",
    "tool_calls",
    "data:image/png;base64,AAAA",
    "data:,",
    "{}",
    '{"a":',
    "\x00",
    "\ud7ff\ue000",
    "é" * 70,
    "😀",
]
NUMBERS = [0, 1, -1, 2, 17, 2**31, 2**63, 2**64, -(2**63), 1.5, -0.0, 1e300, 5e-324]
scalars = (
    st.sampled_from([None, True, False, *NUMBERS, *WORDS]) | st.text(max_size=8) | st.integers()
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(document, path: tuple = ()) -> Iterator[tuple]:
    """The path of every part of a document, its own excepted."""
    parts = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for name, part in parts:
        yield (*path, name)
        yield from places(part, (*path, name))


def part_at(document, path: tuple):
    for name in path:
        document = document[name]
    return document


@st.composite
def bent(draw, documents: list, most: int = 3):
    """One of these documents with up to `most` of its parts replaced, taken away, repeated or
    exchanged."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, most))):
        known = list(places(document))
        if not known:
            break
        *above, name = path = draw(st.sampled_from(known))
        holder = part_at(document, tuple(above))
        how = draw(st.sampled_from(["replace", "remove", "repeat", "exchange", "add"]))
        if how == "replace":
            holder[name] = draw(junk)
        elif how == "remove":
            del holder[name]
        elif how == "repeat" and isinstance(holder, list):
            holder.insert(name, copy.deepcopy(holder[name]))
        elif how == "exchange":
            holder[name] = copy.deepcopy(part_at(document, draw(st.sampled_from(known))))
        elif isinstance(part_at(document, path), dict):
            part_at(document, path)[draw(st.sampled_from(WORDS))] = draw(junk)
    return document
