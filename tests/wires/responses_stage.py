"""What the tests of the Responses wire have in common: golden files, and a reader of streams that
trusts nothing.

`GOLDEN=write pytest tests/test_responses.py` writes what the code does now into the golden files;
read the diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from relay import errors
from relay.wires.responses import sealed

GOLDEN = Path(__file__).parent / "golden" / "responses"
KEY = b"golden key"
ERRORS = {
    "UpstreamError": errors.UpstreamError(),
    "UpstreamOverloaded": errors.UpstreamOverloaded(),
    "UpstreamRefused": errors.UpstreamRefused(400, "The prompt is not for us."),
}

_event = TypeAdapter(ResponseStreamEvent)
_response = TypeAdapter(Response)


def golden(folder: str) -> list[str]:
    return sorted(path.stem for path in (GOLDEN / folder).glob("*.json"))


def load(folder: str, name: str) -> dict:
    return json.loads((GOLDEN / folder / f"{name}.json").read_text())


def assert_golden(folder: str, name: str, case: dict, member: str, value) -> None:
    """`value` is what the golden file says under `member`."""
    if os.environ.get("GOLDEN") == "write":
        text = json.dumps(case | {member: value}, ensure_ascii=False, indent=1)
        (GOLDEN / folder / f"{name}.json").write_text(text + "\n")
    assert value == case[member], case["about"]


def valid_response(doc: dict) -> Response:
    """The object as openai's SDK reads it, held against its types strictly."""
    return _response.validate_python(json.loads(json.dumps(doc)), strict=True)


def read_stream(frames: list[bytes]) -> list[dict]:
    """The events of a stream, comments left out.

    The event line and the type are the same, numbers go up by one.
    """
    events = []
    for frame in frames:
        if frame == b": keep-alive\n\n":
            continue
        name, data, *rest = frame.decode().split("\n")
        assert rest == ["", ""]
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(events)
        _event.validate_python(event, strict=True)
        events.append(event)
    return events


def final(events: list[dict]) -> dict:
    """The Response at the end of a stream that keeps the rules.

    It opens with created and in_progress and has exactly one end. One item is open at a time; its
    deltas add up to what its closing events say; the closed items are the output of the end, to the
    letter.
    """
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    ends = [
        kind
        for kind in kinds
        if kind in ("response.completed", "response.incomplete", "response.failed")
    ]
    assert ends == kinds[-1:]
    output, opened, deltas = [], None, ""
    for event in events[2:-1]:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert opened is None and event["output_index"] == len(output)
            opened, deltas = event["item"], ""
            continue
        assert event["output_index"] == len(output)
        assert event.get("item_id", opened["id"]) == opened["id"]
        if kind.endswith(".delta"):
            deltas += event["delta"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == opened["id"] and event["item"]["type"] == opened["type"]
            output.append(event["item"])
            opened = None
        elif kind.endswith(("text.done", "refusal.done", "arguments.done", "input.done")):
            told = [
                event[name] for name in ("text", "refusal", "arguments", "input") if name in event
            ]
            assert told == [deltas]
    end = events[-1]["response"]
    assert opened is None or ends == ["response.failed"]
    assert end["output"] == output
    assert end["id"] == events[0]["response"]["id"]
    valid_response(end)
    return end


def unsealed(value):
    """The same with the text in place of its seal.

    How zlib deflates differs between its versions.
    """
    if isinstance(value, list):
        return [unsealed(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: sealed.unseal(each, KEY) if name == "encrypted_content" else unsealed(each)
        for name, each in value.items()
    }


def short(events: list[dict]) -> list[str]:
    """Events as lines that people can read; of a Response only what can differ."""
    lines = []
    for event in events:
        fields = {
            name: value
            for name, value in unsealed(event).items()
            if name not in ("type", "sequence_number")
        }
        if "response" in fields:
            fields = {
                name: fields["response"][name]
                for name in ("status", "error", "incomplete_details", "usage")
                if fields["response"][name] is not None
            }
        lines.append(
            f"{event['type'].removeprefix('response.')} {json.dumps(fields, ensure_ascii=False)}"
        )
    return lines
