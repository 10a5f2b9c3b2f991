"""What is sent to a target: the caller's own bytes, with only what must differ cut in."""

import msgspec

from relay.body import Ask
from relay.catalog import Target
from relay.upstream import quirks
from relay.wires.interface import Wire
from relay.wires.registry import TURNED

LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")  # of all wires

_encode = msgspec.json.Encoder().encode


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
    if target.wire == "chat":
        if ask.stream:
            changes["stream_options"] = {
                **(body.get("stream_options") or {}),
                "include_usage": True,
            }
        elif "stream_options" in body:
            changes["stream_options"] = None  # with a plain call several providers refuse it
    changes |= _capped(body, target.output_max)
    if target.quirks:
        changes |= quirks.apply(target.quirks, {**body, **changes}, target.wire)
    if native:
        changes |= wire.changes(ask.body)
    drop = [name for name, value in changes.items() if value is None]
    if native:
        return ask.body.bytes(changes, drop)
    return _encode({name: value for name, value in {**body, **changes}.items() if name not in drop})


def _capped(body: dict, output_max: int | None) -> dict[str, object]:
    """Limits of the output that are above the model's, brought down to it.

    Agents ask for 32,000 to 128,000 whatever the model, and providers refuse what is beyond theirs.
    Of Messages the budget for thinking must stay below the limit.
    """
    if output_max is None:
        return {}
    over = [name for name in LIMITS if isinstance(body.get(name), int) and body[name] > output_max]
    changes: dict[str, object] = dict.fromkeys(over, output_max)
    thinking = body.get("thinking")
    budget = thinking.get("budget_tokens") if over and isinstance(thinking, dict) else None
    if isinstance(thinking, dict) and isinstance(budget, int) and budget >= output_max:
        changes["thinking"] = thinking | {"budget_tokens": max(1, output_max // 2)}
    return changes
