"""One member's bad requests never keep the others from asking."""

import pytest

from relay.upstream.health import FAILURES_TO_REST
from tests.client import CHAT, ask
from tests.fake_upstream import answer
from tests.providers import plain
from tests.stage import model_config, upstream_config

BAD = "the words that break the provider"
SICK = {
    "500": answer({"error": {"message": "internal"}}, status=500),
    "an empty answer": plain(content=""),
    "an answer that is no JSON": answer(b"oops"),
    "out of resources": plain(finish="network_error"),
    "a firewall's page": answer(b"<html><h1>403 Forbidden</h1></html>", status=403),
    "a 403 without a reason": answer(b"", status=403),
    "a 403 about the content": answer({"error": {"message": "The input was flagged"}}, status=403),
}


@pytest.fixture
def broken_by(fake):
    """A function: the provider fails at certain words, as it says, and answers all others."""

    def set_up(how: str):
        fake.always(lambda request: SICK[how] if BAD in request.body.decode() else plain())

    return set_up


@pytest.mark.parametrize("how", SICK)
def test_bad_requests_of_one_member_rest_the_upstream_for_nobody_else(
    alice, bob, broken_by, how, monkeypatch
):
    monkeypatch.setattr("relay.upstream.health.PAUSE_S", 0.1)
    broken_by(how)
    for number in range(FAILURES_TO_REST + 2):
        assert alice.post(CHAT, ask(f"{BAD} {number}")).status >= 500
    assert bob.chat().status == 200
    assert alice.chat().status == 200, "and it answers her again"


def test_an_upstream_that_fails_for_several_members_rests(alice, bob, broken_by, monkeypatch):
    monkeypatch.setattr("relay.upstream.health.LAST_RESORT_S", 600)
    monkeypatch.setattr("relay.upstream.health.PAUSE_S", 60)
    broken_by("500")
    for number in range(FAILURES_TO_REST):
        (alice, bob)[number % 2].post(CHAT, ask(BAD))
    refused = bob.chat()
    assert (refused.status, refused.json["error"]["code"]) == (503, "upstream_unavailable")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b""),
        (402, b""),
        (403, {"error": {"message": "Your API key has no permission for this"}}),
        (403, {"error": {"message": "账户余额不足"}}),
        (403, {"error": {"code": "AccountOverdueError", "message": "no"}}),
    ],
)
def test_what_names_the_key_or_the_account_rests_the_key_at_once(alice, bob, fake, status, body):
    fake.always(answer(body, status=status))
    assert alice.chat().json["error"]["code"] == "upstream_account"
    assert _report(alice)["state"] == "refused"


def test_a_key_that_several_members_requests_meet_with_403_rests(alice, bob, fake, monkeypatch):
    monkeypatch.setattr("relay.upstream.health.PAUSE_S", 60)
    told: list[str] = []
    alice.relay.app.extensions["relay"].sender.health.notice = told.append
    fake.always(answer(b"", status=403))
    for number in range(FAILURES_TO_REST):
        refused = (alice, bob)[number % 2].post(CHAT, ask(f"Hello {number}"))
        assert (refused.status, refused.json["error"]["code"]) == (502, "upstream_account")
    assert _report(alice)["keys_usable"] == 0 and "refuses" in told[0] and len(told) == 1


def _report(person) -> dict:
    (seen,) = person.relay.app.extensions["relay"].upstream_report()
    return seen


@pytest.fixture
def native(start_relay, person, fake):
    """alice at a relay whose one upstream speaks messages, responses and chat."""
    relay = start_relay(
        upstreams=[upstream_config(fake.url, speaks=["chat", "messages", "responses"])],
        models=[model_config()],
    )
    return person("alice", relay).given(wallet="10")


MESSAGES = {"model": "test-model", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
WIRES = {
    "messages": ("/api/v1/messages", MESSAGES),
    "responses": ("/api/v1/responses", {"model": "test-model", "input": "Hi"}),
}
REFUSALS = {
    "a field": answer({"error": {"message": "thinking: Extra inputs are not permitted"}}, 400),
    "a field, 422": answer({"detail": [{"msg": "Field required"}]}, 422),
    "the address": answer(b"404 page not found", 404),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("wire", WIRES)
def test_a_shape_that_is_refused_natively_is_asked_once_more_over_chat(native, fake, wire, refusal):
    path, body = WIRES[wire]
    fake.next(REFUSALS[refusal], plain())
    done = native.post(path, body)
    assert done.status == 200, done.body
    assert [each.path.rpartition("/")[2] for each in fake.requests] == [wire, "completions"]
    row = native.relay.closed_row(done.request_id)
    assert row["outcome"] == "complete" and len(row["attempts"]) > 0


@pytest.mark.parametrize(
    "refusal",
    [
        answer({"error": {"code": "data_inspection_failed", "message": "no"}}, 400),
        answer({"error": {"message": "prompt is too long: 9 tokens > 1 maximum"}}, 400),
    ],
)
def test_content_that_is_refused_natively_is_not_asked_again(native, fake, refusal):
    fake.next(refusal)
    assert native.post("/api/v1/messages", MESSAGES).status == 400
    assert len(fake.requests) == 1


def test_what_both_ways_refuse_is_told_in_the_words_of_the_callers_own(native, fake):
    fake.next(REFUSALS["a field"], answer({"error": {"message": "chat's reason"}}, 400))
    refused = native.post("/api/v1/messages", MESSAGES)
    assert refused.status == 400 and "Extra inputs" in refused.json["error"]["message"]
