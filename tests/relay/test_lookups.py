"""Balance look-ups have the shapes that tools read."""

import json

import pytest

import billing
from members import caps, teams
from relay import lookups
from tests.stage import model_config

ACCOUNT = lookups.Account(
    user_id=7,
    user_name="alice",
    token_name="laptop",
    plan="pro",
    requests_per_minute=600,
    grant=1200,
    quota=20 * 10**9,
    wallet=-12_500,
    spent=3 * 10**9,
    spent_by_token=10**9,
    calls=42,
    expires_at=None,
)


def test_openais_billing_pages_agree_with_each_other():
    limit = lookups.subscription(ACCOUNT)["hard_limit_usd"]
    used = lookups.billing_usage(ACCOUNT)["total_usage"] / 100
    assert round(limit - used, 4) == 20.0
    assert lookups.subscription(ACCOUNT)["access_until"] > 4_000_000_000


def test_new_apis_pages_count_in_units():
    assert lookups.user_self(ACCOUNT)["data"]["quota"] == 9_999_993
    assert lookups.user_self(ACCOUNT)["data"]["used_quota"] == 1_500_000
    told = lookups.token_usage(ACCOUNT)["data"]
    assert told["total_granted"] - told["total_used"] == told["total_available"]


def test_openrouters_key_page_tells_what_is_left():
    told = lookups.key(ACCOUNT)["data"]
    assert (told["label"], told["limit_remaining"], told["is_free_tier"]) == (
        "laptop",
        19.999987,
        False,
    )


def test_every_shape_is_json_and_has_no_more_than_six_decimals():
    for shape in set(lookups.ADDRESSES.values()):
        assert json.loads(json.dumps(shape(ACCOUNT))) == shape(ACCOUNT)


LEFT = {
    "/v1/dashboard/billing/subscription": lambda told: told["hard_limit_usd"],
    "/api/user/self": lambda told: told["data"]["quota"] / lookups.UNITS_PER_YUAN,
    "/api/usage/token/": lambda told: told["data"]["total_available"] / lookups.UNITS_PER_YUAN,
    "/v1/usage": lambda told: told["remaining"],
    "/api/v1/key": lambda told: told["data"]["limit_remaining"],
}


@pytest.mark.parametrize("path", LEFT)
def test_who_holds_a_grant_alone_is_told_that_there_is_something_left(start_relay, person, path):
    """Cherry Studio and CC Switch call the account empty otherwise."""
    models = [model_config(), model_config("dear", prices={"input": "9", "output": "9"})]
    alice = person("alice", start_relay(models=models)).given(grant=500_000)
    assert LEFT[path](alice.get(path).json) == pytest.approx(
        1.0
    )  # at the cheaper one's 2 a million
    assert LEFT[path](person("bob", alice.relay).get(path).json) == 0


@pytest.mark.parametrize("path", LEFT)
def test_no_more_is_left_than_a_cap_lets_the_member_spend(alice, relay, path):
    team = teams.add(relay.db, "ops").id
    teams.join(relay.db, team, alice.id)
    billing.credit(relay.db, team, "wallet", billing.nano("90"))
    assert LEFT[path](alice.get(path).json) == 100
    caps.put(relay.db, alice.id, caps.Caps(day=billing.nano("2.5")))
    assert LEFT[path](alice.get(path).json) == 2.5
    caps.put(relay.db, alice.id, caps.Caps(day=0))
    assert LEFT[path](alice.get(path).json) == 0
