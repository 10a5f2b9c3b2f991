"""A model behind the fake upstream that says what a test tells it to, whole or streamed as it is
asked.

It owns what a chat answer with text, reasoning and tool calls looks like on the wire. It reads
nothing of the question but whether a stream and its usage are wanted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.fake_upstream import Request, answer, stream
from tests.providers import chunk, usage, usage_chunk

TOOL = "get_weather"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS = (("call_1", TOOL, '{"city": "Paris"}'), ("call_2", TOOL, '{"city": "Rome"}'))


@dataclass(frozen=True)
class Says:
    """One answer: reasoning, then text, then tool calls of (id, name, arguments).

    A script for the fake upstream.
    """

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, str, str], ...] = ()
    counts: dict = field(default_factory=usage)

    def __call__(self, request: Request) -> list:
        asked = request.json
        if not asked.get("stream"):
            return answer(self.whole())
        counts = (
            [usage_chunk(self.counts)]
            if asked.get("stream_options", {}).get("include_usage")
            else []
        )
        return stream(*self.pieces(), chunk(finish=self.finish), *counts)

    @property
    def finish(self) -> str:
        return "tool_calls" if self.calls else "stop"

    def whole(self) -> dict:
        """The answer as one document."""
        message = {"role": "assistant", "content": self.text or None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [
                {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for id, name, arguments in self.calls
            ]
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        return chunk(usage=self.counts) | {"object": "chat.completion", "choices": [choice]}

    def pieces(self) -> list[dict]:
        """The answer as chunks, a few characters each.

        The calls take turns, as some providers send them.
        """
        told = [{"role": "assistant", "content": ""}]
        told += [{"reasoning_content": piece} for piece in cut(self.reasoning)]
        told += [{"content": piece} for piece in cut(self.text)]
        told += [
            {
                "tool_calls": [
                    {
                        "index": at,
                        "id": id,
                        "type": "function",
                        "function": {"name": name, "arguments": ""},
                    }
                ]
            }
            for at, (id, name, _) in enumerate(self.calls)
        ]
        parts = [cut(arguments) for _, _, arguments in self.calls]
        for number in range(max(map(len, parts), default=0)):
            told += [
                {"tool_calls": [{"index": at, "function": {"arguments": part[number]}}]}
                for at, part in enumerate(parts)
                if number < len(part)
            ]
        return [
            chunk() | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            for delta in told
        ]


def cut(text: str, size: int = 5) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]
