"""What a wire is: the names that every module or package under `relay.wires` with an address answers to.

The spine, the sender and the console know wires only through `Wire`; `relay.wires.registry` lists
them. A wire knows bytes, errors and usage, and neither upstreams nor members nor money.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from pricing import Usage
from relay.body import Ask, Body
from relay.errors import RelayError
from relay.wires.reader import Piece

KEEP_ALIVE = b": keep-alive\n\n"  # a comment: the line stands, and there is nothing to say


class EventInfo(msgspec.Struct):
    """What one event of an upstream's stream, or its whole answer, tells."""

    content: bool = False  # something that a person or a program can use
    calls: bool = False  # among it a tool call that can be run
    usage: Usage | None = None
    error: dict[str, Any] | None = None  # an error in place of content
    finish: str | None = None  # why the answer ended, in chat's words
    done: bool = False  # the end mark
    chunk: dict[str, Any] | None = None  # of chat, parsed: for the reader
    usage_only: bool = False  # carries usage and no choice


class Context(msgspec.Struct, frozen=True):
    """What a wire may need to know beside a request."""

    request_id: str = ""  # "req_...": the ids of answers are made of it
    created_at: int = 0  # seconds since the epoch
    key: bytes | str = ""  # seals the reasoning that the caller carries for us
    input_tokens: int = 0  # our estimate, for answers whose provider tells no usage

    def id(self, prefix: str) -> str:
        """An id of this answer: `resp_0a1b` for `resp`."""
        return f"{prefix}_{self.request_id.removeprefix('req_')}"


NO_CONTEXT = Context()


def changes(ask_body: dict[str, Any]) -> dict[str, Any]:
    """For wires whose upstreams are asked what the caller asked."""
    return {}


def complete(doc: dict[str, Any], ask_body: dict[str, Any]) -> dict[str, Any] | None:
    """For wires whose whole answers pass as they are."""
    return None


class Wire(Protocol):
    """A format that clients speak."""

    @property
    def NAME(self) -> str:
        """How configuration, rows and targets call it."""

    @property
    def PATH(self) -> str:
        """Its address behind the base address."""

    @property
    def HEADERS(self) -> Mapping[str, str]:
        """What upstreams of this wire want to see."""

    @property
    def FORWARDED_HEADERS(self) -> tuple[str, ...]:
        """Of the caller's own headers those that such upstreams should see."""

    @property
    def TEXT_FIELDS(self) -> tuple[str, ...]:
        """Members of answers whose text is output, for estimates."""

    @property
    def DONE(self) -> bytes:
        """What ends a good stream, b"" if nothing does."""

    def read(self, body: Body, context: Context = NO_CONTEXT) -> Ask:
        """A request, checked as far as the relay depends on it. Raises BadRequest."""

    def changes(self, ask_body: dict[str, Any]) -> dict[str, Any]:
        """What upstreams of this wire are asked otherwise than the caller asked."""

    def complete(self, doc: dict[str, Any], ask_body: dict[str, Any]) -> dict[str, Any] | None:
        """The whole answer of such an upstream, mended; None: its bytes pass."""

    def usage(self, doc: dict[str, Any]) -> Usage | None:
        """What an event or a whole answer says was used."""

    def signs(self, data: bytes) -> EventInfo:
        """What the data of an event tells."""

    def signs_of(self, doc: dict[str, Any]) -> EventInfo:
        """The same of a parsed event or whole answer."""

    def plain(self, chunk: bytes) -> bool:
        """True if these whole events can pass unseen: no usage, error, call or end, nothing odd."""

    def clean(self, event: bytes) -> bytes:
        """An event as clients of this wire can bear it. May be empty."""

    def as_events(self, doc: dict[str, Any]) -> list[bytes]:
        """A whole answer of such an upstream as a stream, for a caller who asked for one."""

    def folded(self, events: Iterable[dict[str, Any]], done: bool) -> dict[str, Any] | None:
        """The whole answer that a stream of such an upstream tells; None if it never ends.

        `done`: its end mark came. For a caller who asked for no stream."""

    def error(self, err: RelayError, request_id: str) -> dict[str, Any]:
        """An error in this wire's shape."""

    def error_event(self, err: RelayError, request_id: str) -> bytes:
        """The error as the last event of a stream."""


class TurnedWire(Wire, Protocol):
    """A wire that upstreams can serve that speak only chat: it is turned into chat and back."""

    def to_chat(self, body: dict[str, Any], key: bytes | str = "") -> dict[str, Any]:
        """The request as one of chat. Raises BadRequest where chat cannot do it."""

    def from_chat(
        self, doc: dict[str, Any], ask_body: dict[str, Any], context: Context
    ) -> dict[str, Any]:
        """A whole answer of chat as one of this wire. Raises UpstreamError if it is none."""

    def stream_from_chat(
        self, pieces: Iterable[Piece | None], ask_body: dict[str, Any], context: Context
    ) -> Iterator[bytes]:
        """What `reader` read of a chat stream as events of this wire, the last one included.

        A RelayError that the pieces raise becomes this wire's error event, and the end.
        """
