"""Caps that bind: a member's, whatever their tokens say, and the site's; also against a crowd."""

import json
import threading

import pytest

import billing
from billing import Cap, CapExceeded, Usage
from members import caps, tokens
from members.caps import Caps
from tests.client import assert_openai_error
from tests.money.ledger_book import ALICE, BOB, DAY, NOW, PRICE, open_book
from tests.providers import plain, usage
from tests.stage import Person, flask

CALL = Usage(1_000, 0, 500)  # ¥0.006 at PRICE
COST = 6_000_000
TODAY = "2026-11-18"


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    book.give(ALICE, wallet="10")
    book.give(BOB, wallet="10")
    yield book
    book.db.close()


def member(amount: int, scope: str = "member", since: str = TODAY, strict: bool = True) -> Cap:
    return Cap(scope, amount, since, "Capped.", strict)


def begin(book, who=ALICE, *limits, at=NOW) -> str:
    call = book.call(who, at)
    billing.hold(book.db, call, CALL, PRICE, caps=limits)
    return call.id


def test_a_cap_lets_a_call_begin_that_fits_to_the_last_nano(book):
    book.close(begin(book, ALICE, member(COST)), CALL)
    with pytest.raises(CapExceeded):
        begin(book, ALICE, member(2 * COST - 1))
    begin(book, ALICE, member(2 * COST))
    assert book.is_right()


def test_what_runs_is_counted_with_its_hold_and_given_back(book):
    running = begin(book, ALICE, member(2 * COST - 1))
    with pytest.raises(CapExceeded):
        begin(book, ALICE, member(2 * COST - 1))
    book.close(running, None, outcome="failed")
    begin(book, ALICE, member(2 * COST - 1))


def test_others_do_not_use_it_up_unless_it_is_the_sites(book):
    book.close(begin(book, BOB), CALL)
    begin(book, BOB)
    begin(book, ALICE, member(COST))
    with pytest.raises(CapExceeded):
        begin(book, ALICE, member(4 * COST - 1, "site"))
    begin(book, ALICE, member(4 * COST, "site"))


def test_what_was_spent_before_its_day_does_not_count(book):
    book.close(begin(book, at=NOW - DAY), CALL, at=NOW - DAY)
    begin(book, ALICE, member(COST))
    with pytest.raises(CapExceeded):
        begin(book, ALICE, member(3 * COST - 1, since="2026-11-01"))


def test_gifts_are_no_money(book):
    book.give(ALICE, grant=10_000)
    begin(book, ALICE, member(0))


def test_fifty_callers_at_once_never_pass_a_cap(book):
    refused, lock = [], threading.Lock()

    def call():
        try:
            begin(book, ALICE, member(10 * COST))
        except CapExceeded:
            with lock:
                refused.append(1)

    threads = [threading.Thread(target=call) for _ in range(50)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(refused) == 40 and book.held(ALICE).wallet == 10 * COST


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
