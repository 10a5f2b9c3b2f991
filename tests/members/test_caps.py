"""Caps over the API and the command line: a member's, whatever their tokens say, and the site's."""

import json

import pytest

from members import caps, tokens
from members.caps import Caps
from tests.client import assert_openai_error
from tests.providers import plain, usage
from tests.stage import Person, flask

COST = 6_000_000


# ---- over the API and the command line


@pytest.fixture
def capped(start_relay, person, fake):
    """alice at a relay that answers, and a function that caps her."""
    relay = start_relay()
    fake.always(plain(usage(20, 10)))
    alice = person("alice", relay).given(wallet="10")
    return alice, lambda **limits: caps.put(relay.db, alice.id, Caps(**limits))


def test_no_token_of_a_member_lifts_what_an_administrator_set(capped):
    alice, cap = capped
    assert alice.chat(max_tokens=20).status == 200
    cap(day=1)
    told = assert_openai_error(alice.chat(), 402, "spending_cap_reached")
    assert told["message"].startswith("This member may spend 0.000000001 yuan a day")
    raw = tokens.mint(alice.relay.db, alice.id, "another", cap_day=10**12)[1]
    assert Person("alice", alice.id, raw, alice.relay).chat().status == 402
    cap(month=1)
    assert alice.chat().status == 402
    cap(day=10**12)
    assert alice.chat().status == 200


def test_models_are_those_of_token_member_and_plan_together(capped):
    alice, cap = capped
    cap(models=("other-model",))
    assert_openai_error(alice.chat(), 403, "model_not_allowed", "model")
    assert alice.get("/api/v1/models").json["data"] == []
    cap(models=("test-model", "other-model"))
    assert alice.chat().status == 200


def test_a_plan_may_name_its_models(start_relay, person, fake):
    fake.always(plain(usage(20, 10)))
    relay = start_relay(plans={"free": {"models": ["something-else"]}})
    alice = person("alice", relay).given(wallet="10")
    assert_openai_error(alice.chat(), 403, "model_not_allowed", "model")


def test_the_site_may_be_capped(start_relay, person, fake):
    fake.always(plain(usage(20, 10)))
    relay = start_relay(site={"cap_month": "0.000000001"})
    told = assert_openai_error(
        person("alice", relay).given(wallet="10").chat(), 402, "spending_cap_reached"
    )
    assert told["message"].startswith("This relay may spend")


def test_the_command_sets_shows_and_lifts_caps(capped):
    alice, _ = capped
    config = alice.relay.config

    def run(*words):
        return flask(config, "user", "cap", "alice", *words)

    done = run("--day", "5.00", "--month", "100", "--model", "test-model", "--json")
    assert json.loads(done.stdout) == {
        "name": "alice",
        "day": "5.00",
        "month": "100.00",
        "models": ["test-model"],
    }
    assert caps.of(alice.relay.db, alice.id) == Caps(5 * 10**9, 100 * 10**9, ("test-model",))
    done = run("--day", "none", "--model", "none")
    assert done.stdout == ("alice may spend any amount a day and 100.00 a month, on every model.\n")
    assert run().stdout == done.stdout
    assert run("--day", "-1").returncode == 1 and run("--day", "much").returncode == 1
    assert "there is no model" in run("--model", "nothing").stderr
    assert caps.of(alice.relay.db, alice.id) == Caps(None, 100 * 10**9, None)
