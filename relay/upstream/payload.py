"""What is sent to a target: the caller's own bytes, with only what must differ cut in."""

from typing import NamedTuple

import msgspec

from relay.body import Ask
from relay.catalog import SEARCHING, Target
from relay.errors import BadRequest
from relay.upstream import quirks
from relay.wires.interface import Wire
from relay.wires.registry import TURNED, WIRES

USUAL_TIERS = ("auto", "default", "standard", "standard_only", "flex")
LONG_OUTPUT = 8192  # tokens: what takes a slow model more than two minutes
# Where no limit of a model is known, providers refuse more than some; so much every one takes.
AFFORDED_MAX = 8192
LIMIT_OF = {
    "chat": "max_tokens",
    "messages": "max_tokens",
    "completions": "max_tokens",
    "responses": "max_output_tokens",
}
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")  # of all wires

_encode = msgspec.json.Encoder().encode


class Spoken(NamedTuple):
    """The wire to speak with a target, the body to send it, and whether that asks for a stream."""

    wire: Wire
    body: bytes
    streamed: bool


def spoken(wire: Wire, ask: Ask, target: Target) -> Spoken:
    """What to send to a target for what was asked on a wire.

    Raises BadRequest if it cannot be turned.
    """
    return Spoken(WIRES[target.wire], payload(wire, ask, target), streams(ask, target))


def streams(ask: Ask, target: Target) -> bool:
    """Whether a target is asked for a stream: if the caller wants one, and for an answer that may be
    long, which is put together here. A plain one says nothing for minutes: neither its progress nor
    its end is seen, so it is given up, made again, and billed twice.
    """
    most = ask.output_tokens_max or target.output_max or 0
    can = target.wire in LIMIT_OF and ask.choices <= 1 and "plain_as_plain" not in target.quirks
    return ask.stream or (can and most > LONG_OUTPUT)


def payload(wire: Wire, ask: Ask, target: Target) -> bytes:
    """The request body for a target, in the wire that the target speaks.

    Raises BadRequest if it cannot be turned.
    """
    native = target.wire == wire.NAME
    body: dict = ask.body
    if not native:
        body = ask.chat if ask.chat is not None else TURNED[wire.NAME].to_chat(ask.body)
    changes: dict[str, object] = (
        {"model": target.model} if target.model != body.get("model") else {}
    )
    streamed = streams(ask, target)
    if streamed and not ask.stream:
        changes["stream"] = True
    if target.wire == "chat":
        if streamed:
            changes["stream_options"] = {
                **(body.get("stream_options") or {}),
                "include_usage": True,
            }
        elif "stream_options" in body:
            changes["stream_options"] = None  # with a plain call several providers refuse it
    changes |= _without_extras(body, target.extras)
    changes |= _capped(body, target.output_max, ask.output_afforded, LIMIT_OF.get(target.wire))
    if target.quirks:
        changes |= quirks.apply(target.quirks, {**body, **changes}, target.wire)
    if native:
        changes |= wire.changes(ask.body)
    drop = [name for name, value in changes.items() if value is None]
    if native:
        return ask.body.bytes(changes, drop)
    return _encode({name: value for name, value in {**body, **changes}.items() if name not in drop})


def _without_extras(body: dict, allowed: frozenset[str]) -> dict[str, object]:
    """What costs extra at a provider and nobody pays for here: a search is refused, for it changes
    the answer; a faster tier is not asked for.

    Raises BadRequest.
    """
    for name in SEARCHING:
        # An empty object of options asks for a search too: web_search_options of OpenAI.
        if body.get(name) not in (None, False, []) and name not in allowed:
            raise BadRequest(
                f"'{name}' costs extra at the provider, and no price is set for that here.",
                param=name,
            )
    tier = body.get("service_tier")
    dearer = tier not in (None, *USUAL_TIERS) and "service_tier" not in allowed
    return {"service_tier": None} if dearer else {}


def _capped(
    body: dict, output_max: int | None, afforded: int | None, limit: str | None
) -> dict[str, object]:
    """Limits of the output that are above the model's, or above what the caller can pay for, brought
    down to it; without any, `limit` is one where the caller's money ends before an answer may.

    Agents ask for 32,000 to 128,000 whatever the model, and providers refuse what is beyond theirs.
    Of Messages the budget for thinking must stay below the limit.
    """
    limits = [name for name in LIMITS if isinstance(body.get(name), int)]
    if not limits:
        ends = afforded is not None and afforded < (output_max or AFFORDED_MAX)
        return {limit: afforded} if limit and ends else {}
    most = min((each for each in (output_max, afforded) if each is not None), default=None)
    over = [name for name in limits if most is not None and body[name] > most]
    if most is None or not over:
        return {}
    changes: dict[str, object] = dict.fromkeys(over, most)
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    if isinstance(thinking, dict) and isinstance(budget, int) and budget >= most:
        changes["thinking"] = thinking | {"budget_tokens": max(1, most // 2)}
    return changes
