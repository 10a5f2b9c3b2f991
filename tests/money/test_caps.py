"""Caps that bind: a member's and the site's, to the last nano-yuan and against a crowd."""

import threading

import pytest

import billing
from billing import Cap, CapExceeded, NotCovered, Pockets, Usage, nano
from tests.money.ledger_book import ALICE, BOB, DAY, NOW, PRICE, open_book

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


@pytest.mark.parametrize(("scope", "callers"), [("member", [ALICE]), ("site", [ALICE, BOB])])
def test_fifty_callers_at_once_never_pass_a_cap(book, scope, callers):
    refused, lock = [], threading.Lock()

    def call(who: int) -> None:
        try:
            begin(book, who, member(10 * COST, scope))
        except CapExceeded:
            with lock:
                refused.append(who)

    threads = [
        threading.Thread(target=call, args=(callers[number % len(callers)],))
        for number in range(50)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(refused) == 40 and billing.held_in_all(book.db) == 10 * COST and book.is_right()


def test_what_all_have_set_aside_is_summed_from_quota_and_wallet(book):
    assert billing.held_in_all(book.db) == 0
    begin(book, ALICE)
    begin(book, BOB)
    assert billing.held_in_all(book.db) == 2 * COST


def test_a_tokens_own_cap_lets_calls_begin_until_it_is_reached(book):
    """What a member sets is no law: the call that passes it still goes through."""
    begin(book, ALICE)
    with pytest.raises(CapExceeded, match=r"^Capped\.$") as refused:
        begin(book, ALICE, member(COST, "token", strict=False))
    assert refused.value.cap.amount == COST
    begin(book, ALICE, member(COST + 1, "token", strict=False))


def test_a_refused_call_holds_nothing(book):
    with pytest.raises(CapExceeded):
        begin(book, ALICE, member(COST - 1))
    assert book.held(ALICE) == Pockets(0, 0, 0) and book.is_right()


# ---- where a cap ends, so does the output


def output(book, *limits, who=ALICE, usage=CALL, most=10**6) -> int:
    return billing.hold(book.db, book.call(who), usage, PRICE, caps=limits, output_max=most).output


def share(room: int, likely: int = 500, peers: int = 0) -> int:
    """What a call with 1,000 of input may write where so much money (nano-yuan) is left: what it
    holds, and a quarter of what the rest pays for at ¥8 per million, or less beside `peers`."""
    return likely + ((room - 2_000_000) // 8_000 - likely) // (4 * (1 + peers))


def test_no_answer_is_longer_than_its_share_of_a_cap(book):
    assert output(book, member(10_000_000)) == share(10_000_000) == 625


def test_dozens_run_at_once_where_each_asks_for_more_than_there_is(book):
    """Ten yuan, and calls that likely cost 0.11: never promised more than that together."""
    likely, spent, calls = Usage(1_000, 0, 13_500), 0, 0
    with pytest.raises(NotCovered) as refused:
        while True:
            spent += 2_000_000 + output(book, usage=likely) * 8_000
            calls += 1
    assert calls >= 30
    held, promised = calls * 110_000_000, refused.value.promised
    assert held + promised == spent <= nano("10")
    assert refused.value.available.wallet == nano("10") - spent < 110_000_000


def test_nobody_is_promised_more_than_is_asked_for(book):
    assert output(book, member(100_000_000), most=600) == 600
    assert output(book, member(100_000_000), most=5) == 500  # never less than what is held


def test_what_is_promised_to_a_call_is_promised_to_no_other(book):
    first = output(book, member(100_000_000))
    assert first == share(100_000_000)
    left = 100_000_000 - 2_000_000 - first * 8_000
    assert output(book, member(100_000_000)) == share(left, peers=1)


def test_the_sites_cap_is_shared_by_everybodys_calls(book):
    first = output(book, member(100_000_000, "site"), who=BOB)
    left = 100_000_000 - 2_000_000 - first * 8_000
    assert output(book, member(100_000_000, "site")) == share(left)


def test_a_call_finds_no_room_where_it_is_promised_to_others(book):
    """¥0.012 is two holds; the first call is promised a part of the second's."""
    output(book, member(2 * COST))
    with pytest.raises(CapExceeded):
        output(book, member(2 * COST))


def test_a_gift_pays_for_more_than_the_cap(book):
    billing.credit(book.db, ALICE, "grant", 5_000, "reward", now=NOW)
    assert output(book, member(0)) == 500 + (4_000 - 500) // 4


def test_the_holders_own_cap_on_a_token_cuts_no_answer(book):
    assert output(book, member(COST, "token", strict=False)) == output(book, who=BOB)


def test_a_crowd_that_asks_for_much_never_passes_a_cap_or_its_pockets(book):
    """Each call costs all that it was promised."""
    cap, running = member(200_000_000), []
    for _ in range(60):
        call = book.call(ALICE)
        try:
            held = billing.hold(book.db, call, CALL, PRICE, caps=(cap,), output_max=10**6)
        except CapExceeded:
            break
        running.append((call.id, held.output))
    assert 5 < len(running) < 60
    for call, most in running:
        book.close(call, Usage(1_000, 0, most))
    assert 150_000_000 < billing.spent(book.db.read(), "member", TODAY, ALICE) <= 200_000_000
    assert book.is_right()
