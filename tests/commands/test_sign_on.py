"""`flask user`: identities, connecting them, and the way back in."""

import json
import re

import pytest

from members import accounts, identities
from tests.identity_provider import ALICE, IdentityProvider


@pytest.fixture
def relay(start_relay):
    """A relay that takes a provider's word, and no passwords."""
    with IdentityProvider() as company:
        started = start_relay(sign_in={**company.settings, "passwords": False})
        started.issuer = company.url
        yield started


def run(relay, *words: str):
    """A command, in this process."""
    return relay.app.test_cli_runner().invoke(args=["user", *words])


def test_an_identity_is_connected_listed_and_disconnected_by_the_command_line(relay, person):
    alice = person("alice", relay)
    assert run(relay, "connect", "alice", ALICE["sub"]).exit_code == 0
    listed = json.loads(run(relay, "identities", "--json").output)
    assert [(each["user"], each["issuer"], each["subject"]) for each in listed] == [
        ("alice", relay.issuer, ALICE["sub"])
    ]
    again = run(relay, "connect", "bob", ALICE["sub"])
    assert again.exit_code == 1 and "another member" in again.output
    assert run(relay, "disconnect", "alice", ALICE["sub"]).exit_code == 0
    assert identities.of(relay.db, alice.id) == []
    assert json.loads(run(relay, "identities", "--json").output)[0]["user"] is None
    assert run(relay, "disconnect", "alice", ALICE["sub"]).exit_code == 1
    assert run(relay, "connect", "alice", "").exit_code == 1


def test_the_address_of_the_way_in_leads_to_this_relay_and_opens_once(relay, person):
    done = run(relay, "way-in", "carol")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/sign-in/once\?key=\S{32}\n", done.output)
    path = "/" + done.output.strip().split("/", 3)[3]
    assert relay.client().get(path).status == 200
    assert run(relay, "way-in", "nobody").exit_code == 1
    accounts.disable(relay.db, person("bob", relay).id)
    assert "flask user enable" in run(relay, "way-in", "bob").output
    assert relay.client().get(path).status == 200  # a refused one makes no new key
