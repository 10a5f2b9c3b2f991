"""Compaction: a conversation that has grown too long is exchanged for a summary, which the caller
carries for us.

Owns what the model is asked and told of it. A request whose input ends with a `compaction_trigger`
gets one item `compaction` for an answer; its `encrypted_content` is the summary, sealed like
reasoning. Codex's own provider does this, and gives up on its session where no such item comes.
"""

from typing import Any

from relay.wires.responses import sealed

TRIGGER, KINDS = "compaction_trigger", ("compaction", "compaction_summary", "context_compaction")

REQUEST = (
    "The conversation has become too long and will go on without what stands above. Write down everything that "
    "whoever continues it has to know: what was asked for and what of it is still open, what was decided and "
    "why, what was done and found out, the files, commands and names that matter, and the next steps. Answer "
    "with this summary only, and call no tool."
)
BEFORE = "What stood here is summed up:\n\n"
LOST = "What stood here was summed up, but the summary is lost: it cannot be read here."


def asked(body: dict[str, Any]) -> bool:
    """Whether a request wants its conversation summed up."""
    items = body.get("input")
    return isinstance(items, list) and any(
        isinstance(item, dict) and item.get("type") == TRIGGER for item in items
    )


def told(item: dict[str, Any], key: bytes | str) -> str | None:
    """What the model is told in the place of an item, None if the item is none of compaction's."""
    if item.get("type") == TRIGGER:
        return REQUEST
    if item.get("type") not in KINDS:
        return None
    summary = sealed.unseal(item.get("encrypted_content"), key)
    return LOST if summary is None else BEFORE + summary
