"""Other names of models: what Claude Code offers and asks for, and what an operator wants."""

import pytest

from members import tokens
from tests.client import CHAT, ask
from tests.providers import plain, usage
from tests.stage import model_config

COUNTS = usage(20, 10)
ANTHROPIC = {"anthropic_version": "2023-06-01"}
MODELS = [
    model_config("deepseek-v4-pro", aliases=["anthropic/*", "claude-*", "our-best"]),
    model_config("deepseek-flash", aliases=["claude-haiku-*", "claude-*-fast"]),
]


@pytest.fixture
def alice(start_relay, person, fake):
    fake.always(plain(COUNTS))
    return person("alice", start_relay(models=MODELS)).given(wallet="10")


@pytest.mark.parametrize(
    "asked, model",
    [
        ("deepseek-v4-pro", "deepseek-v4-pro"),
        ("our-best", "deepseek-v4-pro"),
        ("anthropic/deepseek-v4-pro", "deepseek-v4-pro"),
        ("claude-sonnet-5", "deepseek-v4-pro"),
        ("claude-", "deepseek-v4-pro"),
        ("claude-haiku-4-5-20251001", "deepseek-flash"),
        ("claude-sonnet-5-fast", "deepseek-flash"),
        ("deepseek-flash", "deepseek-flash"),
    ],
)
def test_a_model_answers_to_its_aliases_and_the_row_has_its_own_name(alice, fake, asked, model):
    got = alice.post(CHAT, ask() | {"model": asked})
    assert got.status == 200
    assert alice.relay.closed_row(got.request_id)["model"] == model
    assert fake.requests[-1].json["model"] == "upstream-model"


@pytest.mark.parametrize("asked, model", [("fast", "exact"), ("fast-one", "any")])
def test_a_whole_name_is_before_any_pattern(start_relay, person, fake, asked, model):
    fake.always(plain(COUNTS))
    models = [model_config("any", aliases=["fast*"]), model_config("exact", aliases=["fast"])]
    alice = person("alice", start_relay(models=models)).given(wallet="10")
    got = alice.post(CHAT, ask() | {"model": asked})
    assert alice.relay.closed_row(got.request_id)["model"] == model


@pytest.mark.parametrize(
    "asked, hint",
    [
        ("gpt-9", "does not exist here. GET"),
        ("deepseek-v4-prp", "Did you mean 'deepseek-v4-pro'?"),
        ("DeepSeek-V4-Pro", "Did you mean 'deepseek-v4-pro'?"),
        ("claude", "does not exist here. GET"),
        ("our-best-x", "does not exist here. GET"),
        ("x" * 5000, "does not exist here. GET"),
    ],
)
def test_a_name_that_nobody_has_is_a_404_with_a_hint(alice, asked, hint):
    refused = alice.post(CHAT, ask() | {"model": asked})
    assert (refused.status, refused.json["error"]["code"]) == (404, "model_not_found")
    assert hint in refused.json["error"]["message"]


def test_claude_code_is_offered_the_models_by_names_that_it_shows(alice):
    listed = alice.get("/v1/models?limit=1000", **ANTHROPIC).json["data"]
    assert [each["id"] for each in listed] == [
        "deepseek-v4-pro",
        "deepseek-flash",
        "anthropic/deepseek-v4-pro",
        "claude-deepseek-v4-pro",
        "our-best",
        "claude-haiku-deepseek-flash",
        "claude-deepseek-flash-fast",
    ]
    for each in listed:
        body = ask() | {"model": each["id"], "max_tokens": 9}
        assert alice.post("/api/v1/messages", body).status == 200
        one = alice.get(f"/v1/models/{each['id']}", **ANTHROPIC).json
        assert one["id"] == each["id"]


def test_others_are_offered_each_model_once(alice):
    listed = alice.get("/v1/models").json["data"]
    assert [each["id"] for each in listed] == ["deepseek-v4-pro", "deepseek-flash"]
    assert all(each["created"] > 1_700_000_000 for each in listed)


def test_a_token_that_is_bound_to_a_model_may_use_its_aliases_and_no_others(alice):
    _, raw = tokens.mint(alice.relay.db, alice.id, "bound", models=["deepseek-flash"])
    bound = alice.relay.client(raw)
    assert bound.post(CHAT, ask() | {"model": "claude-haiku-5"}).status == 200
    assert bound.post(CHAT, ask() | {"model": "claude-opus-5"}).status == 403
    listed = bound.get("/v1/models", **ANTHROPIC).json["data"]
    assert {each["id"] for each in listed} == {
        "deepseek-flash",
        "claude-haiku-deepseek-flash",
        "claude-deepseek-flash-fast",
    }
