"""How a call can end and what is charged then, and which counts of a provider are believed.

Arithmetic alone: it knows neither the database nor the caller. `relay.meter` asks it.
"""

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from billing import COUNTS, Usage
from relay import errors
from relay.wires.usage import PARTS

SEARCHES_MAX = 1000  # in one call; each costs half a fen and more


class CallState(msgspec.Struct):
    """How a call went, as far as its ending depends on it."""

    delivered: bool = False  # content went out to the caller
    complete: bool = False  # the upstream finished its answer
    left: bool = False  # the caller left before the end
    usage: Usage | None = None  # the last usage that the upstream gave
    error: BaseException | None = None


def ending(state: CallState, on_disconnect: str) -> tuple[str, str]:
    """The outcome of a call, and what is charged for it: "usage", "estimate" or "nothing".

    The whole table of endings; the process's death is the ledger's (`billing.release_orphans`).
    """
    if not state.delivered:
        if state.left:
            return "client_left", "nothing"
        return "complete" if state.complete else "refused" if _is_refusal(
            state.error
        ) else "failed", "nothing"
    if state.complete:
        return "complete", "usage" if state.usage else "estimate"
    if not state.left:
        return "upstream_cut", "estimate"
    if on_disconnect == "free":
        return "client_left", "nothing"
    if on_disconnect == "drain" and state.usage:
        return "client_left", "usage"
    return "client_left", "estimate"


def _is_refusal(error: BaseException | None) -> bool:
    """Whether a call failed for what was asked, rather than for who should have answered."""
    return isinstance(error, errors.RelayError) and (
        isinstance(error, errors.UpstreamRefused) or not isinstance(error, errors.UpstreamError)
    )


def trusted(usage: Usage, guess: Callable[[], Usage], most: Usage) -> tuple[Usage, str, str | None]:
    """The counts to charge, their source, and a note if they are not what the upstream said.

    A count of -1 was not given, nor was a zero where something was read or said: it is replaced by
    our `guess`, made only then. One above `most` is cut to that.
    """
    read, wrote = usage.input_tokens, usage.output_tokens
    believed = 0 < read <= most.input_tokens and 0 < wrote <= most.output_tokens
    if believed and usage.possible() is usage:  # the usual case
        return usage, "upstream", None
    notes = []
    counts = {}
    for name in ("input_tokens", "output_tokens"):
        said, limit = getattr(usage, name), getattr(most, name)
        ours = getattr(guess(), name) if said <= 0 else 0
        counts[name] = ours if said <= 0 else min(said, limit)
        if said < 0 or ours:
            notes.append(f"{name} estimated")
        elif said > limit:
            notes.append(f"{name} clamped")
    possible = replace(usage, **counts, searches=min(usage.searches, SEARCHES_MAX)).possible()
    if possible != usage:
        notes += [
            f"{name} clamped"
            for name in COUNTS
            if name not in counts and getattr(possible, name) < getattr(usage, name)
        ]
    source = "estimated" if any(note.endswith("estimated") for note in notes) else "upstream"
    return possible, source, ", ".join(notes) or None


def merged(before: Usage | None, usage: Usage) -> Usage:
    """What a stream has said was used, after one more event that says so.

    Counts are totals: a later one replaces; -1 (not given) and zero (not counted yet, or once more
    at the end) do not. Hits and writes of a cache that come alone are input beside what was said,
    as Anthropic counts.
    """
    if before is None:
        return usage
    parts = {name: getattr(usage, name) for name in PARTS}
    stood = {name: max(0, getattr(before, name)) for name in PARTS}
    if usage.input_tokens > 0:
        unsaid = {name: stood[name] for name, count in parts.items() if count < 0}
        parts |= unsaid
        total = usage.input_tokens + sum(unsaid.values())
        reads = usage.cache_read_tokens if usage.cached_tokens >= 0 else before.cache_read_tokens
    else:
        parts = {name: max(stood[name], count) for name, count in parts.items()}
        fresh = max(0, before.input_tokens - sum(stood.values()))
        total = fresh + sum(parts.values()) or max(before.input_tokens, usage.input_tokens)
        reads = max(before.cache_read_tokens, usage.cache_read_tokens)
    output = usage.output_tokens if usage.output_tokens > 0 else before.output_tokens
    return Usage(
        total,
        output_tokens=max(output, usage.output_tokens),
        cache_read_tokens=reads,
        searches=max(before.searches, usage.searches),
        **parts,
    )
