"""What a provider says was used, as the counts that are billed.

One reading for all wires, because providers mix each other's fields. A count that was not given is
-1 where the meter can estimate it (input, output), else 0. Where the fields come from:
chat: `prompt_tokens_details.cached_tokens` (OpenAI), `cached_tokens` (Moonshot),
`prompt_cache_hit_tokens` (DeepSeek); Alibaba's explicit cache adds `cache_creation_input_tokens`,
`cache_creation` and `cache_type: "ephemeral"` to the details. Messages: Anthropic's own words.
"""

from typing import Any

from billing import Usage

PARTS = ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens")  # of the input
CREATED = ("cache_creation_input_tokens", "cache_write_tokens")
CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")


def natural(value: object) -> int:
    """A count that a provider gave, or -1 if it is none (missing, negative, a string, NaN)."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else -1


def of(
    used: dict[str, Any],
    details: object,
    input_tokens: object,
    output_tokens: object,
    explicit: bool = False,
) -> Usage:
    """The usage of an object whose input includes hits and writes.

    `details` stands beside it, or is None. `explicit`: the hits are of an explicit cache, as all
    are on Anthropic's wire.
    """
    places = [details, used] if isinstance(details, dict) else [used]
    cached = max(0, _largest(places, CACHED))
    write, write_1h = writes(places)
    explicit = explicit or any(place.get("cache_type") == "ephemeral" for place in places)
    return Usage(
        natural(input_tokens),
        cached,
        natural(output_tokens),
        cache_read_tokens=cached if explicit else 0,
        cache_write_tokens=write,
        cache_write_1h_tokens=write_1h,
        searches=searches(used),
    )


def writes(places: list[dict[str, Any]]) -> tuple[int, int]:
    """What was written to a cache: for 5 minutes, and for an hour.

    Two fields say it: the sum, and an object that divides it. The larger holds, for what one of
    them leaves out the other has; what neither divides is for 5 minutes.
    """
    total = max(0, _largest(places, CREATED))
    short, long = 0, 0
    for place in places:
        parts = place.get("cache_creation")
        if isinstance(parts, dict):
            short = max(short, natural(parts.get("ephemeral_5m_input_tokens")))
            long = max(long, natural(parts.get("ephemeral_1h_input_tokens")))
    return max(short, total - long), long


def searches(used: dict[str, Any]) -> int:
    """Searches and fetches that the provider made itself: Anthropic's `server_tool_use`."""
    made = used.get("server_tool_use")
    if not isinstance(made, dict):
        return 0
    return sum(
        max(0, natural(made.get(name))) for name in ("web_search_requests", "web_fetch_requests")
    )


def details(usage: Usage) -> dict[str, Any]:
    """What was written to a cache, in Anthropic's words; nothing if nothing was."""
    if not usage.cache_write_1h_tokens:
        return {}
    return {
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens,
        }
    }


def _largest(places: list[dict[str, Any]], names: tuple[str, ...]) -> int:
    """The largest count under any of these names: a zero in one place does not hide another."""
    given = [place[name] for place in places for name in names if name in place]
    return max(map(natural, given), default=-1)
