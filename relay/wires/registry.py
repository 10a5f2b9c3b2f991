"""The one list of wires."""

from relay.wires import chat, compact, completions, cursor, embeddings, messages, rerank, responses
from relay.wires.interface import TurnedWire, Wire

_with_an_address: tuple[Wire, ...] = (
    *(chat, messages, responses, embeddings, completions),
    rerank,
)
_turned: tuple[TurnedWire, ...] = (messages, responses, completions, cursor, compact)

ADDRESSED: tuple[Wire, ...] = (*_with_an_address, compact)  # `compact` no upstream speaks
WIRES: dict[str, Wire] = {wire.NAME: wire for wire in _with_an_address}
TURNED: dict[str, TurnedWire] = {wire.NAME: wire for wire in _turned}
