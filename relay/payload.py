"""What is sent to a target: the caller's own bytes, with only what must differ cut in."""

from relay.body import Ask
from relay.catalog import Target


def payload(ask: Ask, target: Target) -> bytes:
    """The request body for a target, in the wire that the target speaks."""
    changes: dict[str, object] = {}
    drop = []
    if target.model != ask.model:
        changes["model"] = target.model
    if target.wire == "chat":
        if ask.stream:
            changes["stream_options"] = {**(ask.body.get("stream_options") or {}), "include_usage": True}
        elif "stream_options" in ask.body:
            drop.append("stream_options")      # with a plain call several providers refuse it
    return ask.body.bytes(changes, drop)
