"""The weekly digest, and the day that is unlike the others."""

from types import SimpleNamespace

import pytest

import billing
from billing import Ending, Price, Usage
from server import digest, jobs
from tests.money.ledger_book import ALICE, BOB, NOW, open_book

YUAN = Price(billing.NANO, billing.NANO, billing.NANO)  # a yuan for each LLM token
DAY_MS = 86_400_000
TODAY = "2026-11-18"  # a Wednesday, NOW's
MONDAY = "2026-11-16"


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    book.give(ALICE, wallet="10000")
    book.give(BOB, wallet="10000")
    yield book
    book.db.close()


@pytest.fixture
def spend(book):
    """A function: a member spends so many yuan, some days before NOW."""

    def spent(who: int, yuan: int, days_ago: int = 0, model: str = "qwen3-max") -> None:
        call, usage = book.call(who, NOW - days_ago * DAY_MS, model), Usage(yuan, 0, 0)
        billing.hold(book.db, call, usage, YUAN)
        ending = Ending("complete", 200, usage, "upstream")
        billing.close(book.db, call.id, ending, YUAN, NOW - days_ago * DAY_MS)

    return spent


@pytest.fixture
def look(book):
    """A function: the chore on a day; what it told."""
    told: list[tuple] = []
    tell = lambda kind, message, level="warning": told.append((kind, message, level))  # noqa: E731
    relay = SimpleNamespace(db=book.db, notices=SimpleNamespace(tell=tell))

    def since(day: str) -> list[tuple]:
        told.clear()
        jobs.look_at_days(relay, day)
        return list(told)

    return since


def test_a_week_is_told_once_when_it_is_over(book, spend, look):
    spend(ALICE, 7, 1, "kimi-k2")  # Tuesday
    spend(ALICE, 1200)
    spend(BOB, 20)
    billing.refuse(book.db, book.call(BOB), Ending("refused", 402))
    assert look(TODAY) == [], "a new house has no week to tell of"
    assert look("2026-11-22") == []
    ((kind, said, level),) = look("2026-11-23")
    assert (kind, level) == ("week", "info")
    assert said == (
        "2026-11-16 to 2026-11-22: 1,227.00 yuan for 4 calls of 2 members; 1 were refused."
        " Members: alice 1,207.00 yuan, bob 20.00 yuan."
        " Models: qwen3-max 1,220.00 yuan, kimi-k2 7.00 yuan."
    )
    assert look("2026-11-23") == look("2026-11-29") == [] == look("2026-11-30"), "nobody called"


def test_a_week_is_compared_with_the_one_before(book, spend):
    spend(ALICE, 3, 12)
    spend(ALICE, 5, 3)
    assert "5.00 yuan (3.00 yuan the week before) for 1 calls" in digest.week(book.db, MONDAY)


def test_a_day_that_costs_three_times_the_middle_one_is_told_of_once(book, spend, look):
    for days_ago, yuan in ((1, 4), (2, 5), (5, 3), (9, 90), (14, 1)):
        spend(ALICE, yuan, days_ago)
    spend(ALICE, 11)
    assert look(TODAY) == []
    spend(ALICE, 1)
    said = (
        "alice has used 12.00 yuan today; of the 5 days with calls in the two weeks before, the"
        " middle one cost 4.00 yuan."
    )
    found = look(TODAY)
    assert {kind for kind, _, _ in found} == {"unusual_day"}
    assert said in [message for _, message, _ in found]
    assert any(
        message.startswith("All members together have used 12.00") for _, message, _ in found
    )
    spend(ALICE, 50)
    assert look(TODAY) == [] == look("2026-11-19")


def test_what_is_cheap_or_has_no_past_is_nobodys_news(book, spend, look):
    for days_ago in range(1, 5):
        spend(ALICE, 1, days_ago)
    spend(ALICE, 500)
    assert look(TODAY) == [], "four days are no past"
    for days_ago in range(1, 8):
        spend(BOB, 1, days_ago)
    spend(BOB, 9)
    assert not any("bob" in message for _, message, _ in look(TODAY)), "nine yuan are cheap"


def test_a_day_long_ago_is_no_measure(book, spend):
    for days_ago in (1, 2, 3, 4, 15):
        spend(ALICE, 1, days_ago)
    spend(ALICE, 50)
    assert digest.unusual(book.db, TODAY) == {}
