"""Whether every call of the soak was recorded once, ended as it had to and cost what it must.

It knows what each provider sent and each caller read. It shares with the relay only the estimate of
a text's LLM tokens, which is what a call without usage is charged by.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from relay import estimate
from tests.soak.faulty import Attempt

KINDS = (2_000, 500, 200, 2_500, 8_000)  # nano-yuan per LLM token: as `Attempt.counts` counts
INPUT, OUTPUT = KINDS[0], KINDS[-1]
PRICES = '{ input = "2", cached = "0.5", cache_read = "0.2", cache_write = "2.5", output = "8" }'
TEMPLATE_MAX = 40  # LLM tokens that an estimate may add to a short prompt's text
ROUNDING = 1
DRAIN, FREE = "drain", "free"
TURNED_AWAY = (
    b"This token may have",
    b"The relay has all the calls",
    b"Too many attempts with tokens",
)
END = {
    "chat": b"[DONE]",
    "messages": b"event: message_stop",
    "responses": b"event: response.completed",
}
ERROR = {
    "chat": b'data: {"error"',
    "messages": b"event: error",
    "responses": b"event: response.failed",
}


@dataclass(eq=False)
class Call:
    """One call as its caller saw it.

    `kind` is who made it: patient, leaving, vanishing, nonsense, stranger, poor.
    """

    name: str
    kind: str
    wire: str
    streamed: bool
    prompt: str
    token_id: int | None
    model: str
    status: int | None = None
    request_id: str | None = None
    body: bytes = b""

    @property
    def left(self) -> bool:
        return self.kind in ("leaving", "vanishing")

    @property
    def turned_away(self) -> bool:
        return (
            self.status == 401
            or self.status in (429, 503)
            and any(words in self.body for words in TURNED_AWAY)
        )

    def text(self) -> str:
        """The words that arrived."""
        if not self.streamed:
            return self.wire_text(json.loads(self.body)) if self.body and not self.left else ""
        found = []
        for line in self.body.split(b"\n"):
            try:
                found.append(
                    json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: {") else {}
                )
            except ValueError:
                continue  # cut, because the caller left
        return "".join(self.delta(each) for each in found)

    def delta(self, document: dict) -> str:
        if self.wire == "chat":
            return "".join(
                each["delta"].get("content") or "" for each in document.get("choices", ())
            )
        if self.wire == "messages":
            return (
                document["delta"].get("text", "")
                if document.get("type") == "content_block_delta"
                else ""
            )
        return document["delta"] if document.get("type") == "response.output_text.delta" else ""

    def wire_text(self, document: dict) -> str:
        if self.wire == "chat":
            return document["choices"][0]["message"]["content"]
        parts = document["content"] if self.wire == "messages" else document["output"][0]["content"]
        return parts[0]["text"]


def judge(
    calls: list[Call],
    rows: list[dict],
    attempts: dict[str, dict[str, list[Attempt]]],
    policies: dict[str, str],
) -> Iterator[str]:
    """What is wrong with a round's calls and rows. `attempts`: provider -> call -> attempts;
    `policies`: provider -> on_disconnect.
    """
    known, vanished = {row["id"]: row for row in rows}, defaultdict(list)
    for call in calls:
        row, met = known.pop(call.request_id, None), met_by(call, attempts)
        if row is None and call.kind == "vanishing":
            vanished[call.token_id].append(call)
        elif wrong := verdict(call, row, met, policies):
            yield f"{call} {row} {met}: {wrong}"
    for row in known.values():
        call = taken(vanished[row["token_id"]], row, attempts)
        met = call and met_by(call, attempts)
        if wrong := wrong_leaving(call, row, met, policies):
            yield f"{call} {row} {met}: {wrong}"
    for call in (call for calls in vanished.values() for call in calls):
        if met_by(call, attempts):
            yield f"{call}: a provider was asked, and there is no row"


def met_by(call: Call, attempts: dict[str, dict[str, list[Attempt]]]) -> dict[str, list[Attempt]]:
    return {name: each[call.name] for name, each in attempts.items() if call.name in each}


def taken(
    calls: list[Call], row: dict, attempts: dict[str, dict[str, list[Attempt]]]
) -> Call | None:
    """The call of a caller who vanished before reading an id.

    A token's calls name several models in turn.
    """
    alike = [call for call in calls if call.model == row["model"]]
    seen = [call for call in alike if call.name in attempts.get(row["upstream"], ())]
    found = next(iter(seen or alike), None)  # one that was cut at once has been seen by nobody
    if found:
        calls.remove(found)
    return found


def verdict(
    call: Call, row: dict | None, met: dict[str, list[Attempt]], policies: dict[str, str]
) -> str | None:
    """What is wrong with a call and its row, or None."""
    if call.turned_away:
        return "it has a row" if row or met else None
    if row is None:
        return "it has no row"
    if call.kind == "nonsense":
        return (
            None
            if row["status"] == call.status in (400, 404) and not met and not row["cost"]
            else "not refused"
        )
    if call.status == 402:
        return (
            None if call.kind == "poor" and not met and not row["cost"] else "somebody had no money"
        )
    if call.status != 200:
        return wrong_failure(call, row, met)
    return wrong_answer(call, row, met, policies)


def wrong_leaving(
    call: Call | None, row: dict, met: dict[str, list[Attempt]], policies: dict[str, str]
) -> str | None:
    if call is None:
        return "nobody made this call"
    if row["outcome"] in ("failed", "refused"):
        return "it was charged" if row["cost"] else None
    return wrong_answer(call, row, met, policies)


def wrong_failure(call: Call, row: dict, met: dict[str, list[Attempt]]) -> str | None:
    if (
        call.status not in (429, 502, 503, 504)
        or row["status"] != call.status
        or row["outcome"] != "failed"
    ):
        return "it should have failed otherwise"
    if row["cost"]:
        return "it was charged"
    if any(attempt.whole for each in met.values() for attempt in each):
        return "a provider answered it well"
    return None


def wrong_answer(
    call: Call, row: dict, met: dict[str, list[Attempt]], policies: dict[str, str]
) -> str | None:
    if row["outcome"] == "client_left" and row["first_byte_ms"] is None:
        return "it was charged" if row["cost"] or call.text() else None
    answered = next((each for each in reversed(met.get(row["upstream"], ())) if each.text), None)
    if answered is None:
        return "that provider did not answer it"
    read = call.text()
    if not answered.text.startswith(read):
        return "the caller read something else than the provider said"
    outcomes = {"client_left"} if call.left else set()
    outcomes.add("complete" if answered.whole else "upstream_cut")
    if row["outcome"] not in outcomes:
        return f"its outcome should be {' or '.join(sorted(outcomes))}"
    if not call.left:
        told = END if answered.whole else ERROR
        if (
            call.streamed
            and told[call.wire] not in call.body
            or answered.whole
            and read != answered.text
        ):
            return "the caller saw another end"
    return wrong_cost(row, answered, call, read, policies[row["upstream"]])


def wrong_cost(row: dict, answered: Attempt, call: Call, read: str, policy: str) -> str | None:
    """By usage where the provider gave it, else by an estimate between what the caller read and
    what was sent."""
    left = row["outcome"] == "client_left"
    if left and policy == FREE:
        return "it should be free" if row["cost"] else None
    by_usage = answered.counts and (row["outcome"] == "complete" or left and policy == DRAIN)
    if by_usage and (row["usage_source"] == "upstream" or not left):
        expected = sum(count * price for count, price in zip(answered.counts, KINDS, strict=True))
        return None if row["cost"] == expected else f"it should have cost {expected}"
    if (
        row["usage_source"] != "estimated"
        or row["cost"] != row["input_tokens"] * INPUT + row["output_tokens"] * OUTPUT
    ):
        return "its cost is not that of its estimate"
    if not 0 <= row["input_tokens"] - estimate.text(call.prompt) <= TEMPLATE_MAX:
        return "its input is badly estimated"
    least, most = (
        estimate.text(read) - ROUNDING,
        estimate.text(answered.text if call.left else read) + ROUNDING,
    )
    return (
        None
        if least <= row["output_tokens"] <= most
        else f"its output should be estimated as {least} to {most}"
    )
