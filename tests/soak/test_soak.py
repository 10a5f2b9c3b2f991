"""The oracle of `make soak` sees what is wrong: without this its silence would prove nothing."""

import json

import pytest

from tests.soak.faulty import Attempt
from tests.soak.oracle import Call, judge

WORDS = " one two"
POLICIES = {"p0": "estimate", "p1": "drain", "p2": "free"}
DELTA = 'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n'
COUNTS = (11, 3, 2, 4, 10)
COST = 11 * 2_000 + 3 * 500 + 2 * 200 + 4 * 2_500 + 10 * 8_000


def call(kind="patient", said=WORDS, end="data: [DONE]\n\n", **more) -> Call:
    body = (DELTA % said + end).encode()
    return Call("soak-1", kind, "chat", True, "soak-1: hello", 1, "m", 200, "req_1", body, **more)


def row(**changes) -> dict:
    return {
        "id": "req_1",
        "token_id": 1,
        "model": "m",
        "wire": "chat",
        "stream": 1,
        "upstream": "p0",
        "status": 200,
        "outcome": "complete",
        "usage_source": "upstream",
        "input_tokens": 20,
        "output_tokens": 10,
        "cost": COST,
        "first_byte_ms": 5,
    } | changes


def wrong(calls, rows, upstream="p0", attempt=None) -> list[str]:
    attempt = attempt or Attempt("extra", WORDS, COUNTS, True)
    attempts = {name: {"soak-1": [attempt]} if name == upstream else {} for name in POLICIES}
    return list(judge(calls, rows, attempts, POLICIES))


CUT = Attempt("cut", WORDS)
ESTIMATE = {
    "usage_source": "estimated",
    "input_tokens": 14,
    "output_tokens": 2,
    "cost": 14 * 2_000 + 2 * 8_000,
}


@pytest.mark.parametrize(
    ("calls", "rows", "told"),
    [
        ([call()], [row()], {}),
        (
            [call(end='data: {"error": {}}\n\n')],
            [row(outcome="upstream_cut", **ESTIMATE)],
            {"attempt": CUT},
        ),
        ([call("leaving", end="")], [row(outcome="client_left", **ESTIMATE)], {}),
        (
            [call("leaving", end="")],
            [row(outcome="client_left", upstream="p1")],
            {"upstream": "p1"},
        ),
        (
            [call("leaving", end="")],
            [row(outcome="client_left", upstream="p2", cost=0)],
            {"upstream": "p2"},
        ),
    ],
    ids=["complete", "cut", "left", "drained", "free"],
)
def test_it_has_nothing_to_say_of_what_is_right(calls, rows, told):
    assert wrong(calls, rows, **told) == []


@pytest.mark.parametrize(
    ("calls", "rows", "told"),
    [
        ([call()], [], {}),
        ([call()], [row(), row(id="req_2")], {}),
        ([call()], [row(cost=COST + 1)], {}),
        ([call()], [row(outcome="upstream_cut")], {}),
        ([call()], [row(upstream="p1")], {}),
        ([call(said=" one three")], [row()], {}),
        ([call(said=" one")], [row()], {}),
        ([call(end="")], [row()], {}),
        ([call()], [row(outcome="upstream_cut", **ESTIMATE)], {"attempt": CUT}),
        (
            [call(end='data: {"error": {}}\n\n')],
            [row(outcome="upstream_cut", **ESTIMATE | {"cost": 0})],
            {"attempt": CUT},
        ),
        (
            [call("leaving", end="")],
            [row(outcome="client_left", upstream="p2", cost=1)],
            {"upstream": "p2"},
        ),
        ([call("nonsense")], [row()], {}),
    ],
    ids=[
        "no row",
        "two rows",
        "one nano too much",
        "another outcome",
        "another provider",
        "other words",
        "words missing",
        "no end",
        "a cut that looks like an end",
        "a cut for nothing",
        "charged though free",
        "nonsense answered",
    ],
)
def test_it_says_what_is_wrong(calls, rows, told):
    assert wrong(calls, rows, **told)


def test_a_call_that_failed_though_a_provider_answered_it_well_is_wrong():
    failed = Call(
        "soak-1",
        "patient",
        "chat",
        False,
        "",
        1,
        "m",
        502,
        "req_1",
        json.dumps({"error": {}}).encode(),
    )
    assert wrong([failed], [row(status=502, outcome="failed", cost=0)])
    assert not wrong([failed], [row(status=502, outcome="failed", cost=0)], attempt=Attempt("500"))
