"""Many at once: money for one of fifty, and what a crowd shares."""

import threading

import pytest

import billing
from members import accounts, teams, tokens
from tests.client import CHAT, ask, assert_openai_error
from tests.fake_upstream import Gate
from tests.providers import openai_stream, plain, usage
from tests.stage import LIMIT_S, Person

COUNTS = usage(20, 10)
COST = 20 * 2_000 + 10 * 8_000


@pytest.fixture
def relay(start_relay):
    return start_relay(server={"threads": 100})  # of which one member may have three quarters


@pytest.mark.parametrize("attempt", range(3))
def test_fifty_callers_with_money_for_one_make_one_upstream_call(person, relay, fake, attempt):
    alice = person("alice", relay).given(wallet="0.000150")
    gate, refused = Gate(), threading.Semaphore(0)
    fake.always([gate, *plain(COUNTS)])
    statuses = []

    def call():
        answered = alice.chat(max_tokens=10)
        statuses.append(answered.status)
        if answered.status == 402:
            refused.release()

    callers = [threading.Thread(target=call) for _ in range(50)]
    for caller in callers:
        caller.start()
    for _ in range(49):
        assert refused.acquire(timeout=LIMIT_S)
    gate.open()
    for caller in callers:
        caller.join(LIMIT_S)
    assert sorted(statuses) == [200] + 49 * [402]
    assert len(fake.requests) == 1
    rows = relay.rows()
    assert sorted(row["outcome"] for row in rows) == ["complete"] + 49 * ["refused"]
    assert alice.balance().wallet == 150_000 - COST and alice.held().wallet == 0
    assert relay.ledger_is_right()


def newcomer(relay, name: str) -> Person:
    """A member with an API token and empty pockets."""
    who = accounts.add(relay.db, name, "a long enough password").id
    return Person(name, who, tokens.mint(relay.db, who, "laptop")[1], relay)


def test_fifty_callers_of_ten_members_never_spend_more_than_their_team_has(relay, fake):
    """There is money for seven of them."""
    team = teams.add(relay.db, "ops").id
    members = [newcomer(relay, f"member {number}") for number in range(10)]
    for each in members:
        teams.join(relay.db, team, each.id)
    billing.credit(relay.db, team, "wallet", 10**9)
    fake.always(plain(usage(10, 10)))
    members[0].chat(max_tokens=10)
    cost, held = 10 * 2_000 + 10 * 8_000, relay.rows()[0]["hold_team"]
    billing.credit(relay.db, team, "wallet", cost - 10**9 + 7 * held, "adjust")
    gate, refused, statuses = Gate(), threading.Semaphore(0), []
    fake.always([gate, *plain(usage(10, 10))])

    def call(who):
        status = who.chat(max_tokens=10).status
        statuses.append(status)
        if status == 402:
            refused.release()

    callers = [threading.Thread(target=call, args=(who,)) for who in members * 5]
    for caller in callers:
        caller.start()
    for _ in range(43):
        assert refused.acquire(timeout=LIMIT_S)
    gate.open()
    for caller in callers:
        caller.join(LIMIT_S)
    assert sorted(statuses) == 7 * [200] + 43 * [402]
    assert billing.balances(relay.db, team)["balance"].wallet == 7 * (held - cost)
    assert {who.balance().wallet for who in members} == {0}
    assert relay.ledger_is_right()


def test_a_402_names_the_wallet_of_the_team(alice, relay, fake):
    team = teams.add(relay.db, "ops").id
    teams.join(relay.db, team, alice.id)
    billing.credit(relay.db, alice.id, "wallet", -10 * 10**9, "adjust")
    billing.credit(relay.db, team, "wallet", 1_000)
    found = assert_openai_error(alice.post(CHAT, ask()), 402, "insufficient_balance")
    assert "0.000001000 yuan (team wallet)" in found["message"]


def test_a_402_names_the_pockets_and_tells_clients_not_to_retry(person, relay, fake):
    alice = person("alice", relay).given(wallet="0.000001", grant=3)
    answered = alice.post(CHAT, ask())
    found = assert_openai_error(answered, 402, "insufficient_balance")
    assert found["type"] == "insufficient_quota"
    assert "3" in found["message"] and "0.000001" in found["message"]
    assert answered.headers["x-should-retry"] == "false"
    assert fake.requests == []


def test_the_relay_reuses_connections_that_were_read_to_their_end(alice, fake):
    fake.always(plain(COUNTS))
    for _ in range(5):
        alice.chat()
    assert fake.connections == 1


def test_streams_read_to_their_end_give_their_connections_back(alice, fake):
    *most, last, _ = openai_stream(COUNTS)
    fake.always(
        [*most, lambda line: line.raw(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))]
    )  # with the end at once
    for _ in range(20):
        alice.chat_stream().read()
    assert fake.connections == 1


def test_a_caller_gets_what_was_meant_for_it(alice, bob, fake, relay):
    """Fifty calls of two members at once.

    Every answer belongs to its question, every charge to its member.
    """
    fake.always(lambda request: plain(COUNTS, content=request.json["messages"][0]["content"]))
    answers = {}

    def call(person, number):
        answered = person.chat(f"{person.name} {number}")
        answers[person.name, number] = answered.json["choices"][0]["message"]["content"]

    callers = [
        threading.Thread(target=call, args=(person, number))
        for number in range(25)
        for person in (alice, bob)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(LIMIT_S)
    assert answers == {
        (name, number): f"{name} {number}" for name in ("alice", "bob") for number in range(25)
    }
    for person in (alice, bob):
        assert person.balance().wallet == 10 * 10**9 - 25 * COST and person.held().wallet == 0
    assert relay.ledger_is_right()
