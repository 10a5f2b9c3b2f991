"""Plans: buying, giving, renewing and ending them."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

import billing
import plans
from billing import NotCovered, Pockets, Usage, nano
from members import accounts
from tests.money.ledger_book import ALICE, BOB, CAROL, DAY, NOW, open_book
from tests.money.test_billing import at_once

PRO = {"price": nano("29.90"), "quota": nano("40"), "days": 30}
GIVEN = {"quota": nano("40"), "days": 30}
CALL = Usage(1_000, 0, 500)  # ¥0.006 at PRICE


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


# ---- buying and giving


def test_a_plan_is_paid_from_the_wallet_and_grants_its_quota(book):
    book.give(ALICE, wallet="30")
    bought = plans.purchase(book.db, ALICE, "pro", **PRO, now=NOW)
    assert bought == {"subscription": 1, "ends_at": NOW + 30 * DAY}
    assert book.balance(ALICE) == Pockets(0, nano("40"), nano("0.10"))
    (subscription,) = plans.active(book.db, ALICE, NOW)
    assert (subscription.plan, subscription.left, subscription.paid, subscription.renew) == (
        "pro",
        nano("40"),
        nano("29.90"),
        False,
    )
    assert book.is_right()


def test_a_plan_is_not_bought_with_what_calls_have_set_aside(book):
    book.give(ALICE, wallet="29.90")
    call_id = book.hold(ALICE, CALL)
    before = book.everything()
    with pytest.raises(NotCovered):
        plans.purchase(book.db, ALICE, "pro", **PRO, now=NOW)
    assert book.everything() == before
    book.close(call_id, None)
    assert plans.purchase(book.db, ALICE, "pro", **PRO, now=NOW)


def test_a_free_plan_is_had_even_with_a_wallet_below_zero(book):
    billing.credit(book.db, ALICE, "wallet", -5, "adjust")
    assert plans.purchase(book.db, ALICE, "trial", price=0, quota=5, days=3)


def test_of_many_purchases_at_once_only_those_that_are_covered_happen(book):
    book.give(ALICE, wallet="60")
    results = at_once(20, lambda: plans.purchase(book.db, ALICE, "pro", **PRO))
    assert sum(isinstance(result, dict) for result in results) == 2
    assert book.balance(ALICE).wallet == nano("0.20") and book.is_right()


def test_a_purchase_sent_twice_with_a_key_is_one(book):
    book.give(ALICE, wallet="60")
    first, second = (plans.purchase(book.db, ALICE, "pro", **PRO, key="k") for _ in range(2))
    assert first == second
    assert book.balance(ALICE).wallet == nano("30.10")
    with pytest.raises(billing.KeyReused):
        plans.purchase(book.db, ALICE, "max", **PRO, key="k")


@pytest.mark.parametrize(
    "terms", [{"price": -1}, {"quota": -1}, {"days": 0}, {"days": 10**9}, {"quota": 10**19}]
)
def test_impossible_terms_are_refused(book, terms):
    with pytest.raises(ValueError):
        plans.purchase(book.db, ALICE, "pro", **(PRO | terms))


def test_nobody_unknown_gets_a_plan(book):
    with pytest.raises(billing.Unknown):
        plans.give_plan(book.db, 99, "pro", **GIVEN)
    with pytest.raises(billing.Unknown):
        plans.purchase(book.db, 99, "pro", **PRO)


def test_of_two_plans_the_one_that_ends_first_pays_first(book):
    book.give(ALICE, wallet="1")
    plans.give_plan(book.db, ALICE, "long", quota=4_000_000, days=30, now=NOW)
    plans.give_plan(book.db, ALICE, "short", quota=4_000_000, days=3, now=NOW)
    assert book.close(book.hold(ALICE, CALL), CALL) == Pockets(0, 6_000_000, 0)
    assert {s.plan: s.left for s in plans.subscriptions(book.db, ALICE)} == {
        "short": 0,
        "long": 2_000_000,
    }
    assert book.is_right()


# ---- the end of a plan


def test_a_plan_is_active_until_its_end_and_its_rest_expires(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, now=NOW)
    assert plans.expire_due(book.db, NOW + 30 * DAY - 1) == 0
    assert plans.active(book.db, ALICE, NOW + 30 * DAY - 1) and not plans.active(
        book.db, ALICE, NOW + 30 * DAY
    )
    assert plans.expire_due(book.db, NOW + 30 * DAY) == 1
    assert plans.expire_due(book.db, NOW + 30 * DAY) == 0
    (entry,) = book.entries(ALICE, kind="expire")
    assert (entry["amount"], entry["balance_after"], entry["note"]) == (-nano("40"), 0, "pro")
    assert book.is_right()


def test_a_plan_that_has_ended_pays_for_no_new_call_even_before_its_rest_expires(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, now=NOW)
    with pytest.raises(NotCovered):
        book.hold(ALICE, CALL, at=NOW + 30 * DAY)


def test_a_call_that_began_in_time_is_paid_by_the_plan_after_its_end(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, now=NOW)
    call_id = book.hold(ALICE, CALL, at=NOW + 30 * DAY - 1)
    later = NOW + 31 * DAY
    plans.expire_due(book.db, later)
    assert book.balance(ALICE).quota == 6_000_000 == book.held(ALICE).quota
    assert book.close(call_id, Usage(1_000, 0, 0), at=later) == Pockets(0, 2_000_000, 0)
    assert plans.expire_due(book.db, later) == 1
    assert book.balance(ALICE).quota == 0 and book.is_right()


def test_an_ended_plan_keeps_nothing_back_for_calls_that_it_does_not_pay(book):
    plans.give_plan(book.db, ALICE, "old", **GIVEN, now=NOW)
    plans.give_plan(book.db, ALICE, "new", quota=nano("40"), days=60, now=NOW)
    book.hold(ALICE, CALL, at=NOW + 30 * DAY)
    plans.expire_due(book.db, NOW + 30 * DAY)
    assert {s.plan: s.left for s in plans.subscriptions(book.db, ALICE)} == {
        "old": 0,
        "new": nano("40"),
    }
    assert book.is_right()


def test_a_plan_can_be_taken_back(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, renew=True, now=NOW)
    assert plans.end_plan(book.db, 1, by=CAROL, now=NOW + DAY)
    assert not plans.end_plan(book.db, 1, now=NOW + DAY)
    assert not plans.active(book.db, ALICE, NOW + DAY) and book.balance(ALICE).quota == 0
    assert plans.expire_due(book.db, NOW + 90 * DAY) == 0 and book.is_right()


# ---- allowances


def test_an_allowance_follows_itself_on_its_own_terms(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, renew=True, now=NOW)
    for month in range(1, 4):
        assert plans.expire_due(book.db, NOW + month * 30 * DAY + 5) == 2
        (subscription,) = plans.active(book.db, ALICE, NOW + month * 30 * DAY + 5)
        assert (subscription.starts_at, subscription.left, subscription.renew) == (
            NOW + month * 30 * DAY,
            nano("40"),
            True,
        )
        assert book.balance(ALICE).quota == nano("40")
    assert book.is_right()


def test_periods_missed_while_the_process_was_down_are_granted_once(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, renew=True, now=NOW)
    late = NOW + 100 * DAY
    at_once(10, lambda: plans.expire_due(book.db, late))
    (subscription,) = plans.active(book.db, ALICE, late)
    assert (subscription.starts_at, subscription.ends_at) == (NOW + 90 * DAY, NOW + 120 * DAY)
    assert book.balance(ALICE).quota == nano("40") and len(plans.subscriptions(book.db, ALICE)) == 2
    assert book.is_right()


def test_no_period_is_granted_twice_when_the_clock_goes_back(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, renew=True, now=NOW)
    for at in (NOW + 30 * DAY, NOW + 29 * DAY, NOW + 30 * DAY, NOW + 31 * DAY):
        plans.expire_due(book.db, at)
    assert len(plans.subscriptions(book.db, ALICE)) == 2 and book.balance(ALICE).quota == nano("40")


def test_an_allowance_can_be_stopped(book):
    plans.give_plan(book.db, ALICE, "pro", **GIVEN, renew=True, now=NOW)
    assert plans.stop_renewal(book.db, 1, by=CAROL) and not plans.stop_renewal(book.db, 1)
    assert plans.active(book.db, ALICE, NOW + 5)
    plans.expire_due(book.db, NOW + 30 * DAY)
    assert not plans.active(book.db, ALICE, NOW + 30 * DAY) and book.balance(ALICE).quota == 0


# ---- by calendar month; given again; of a disabled member

SHANGHAI = "Asia/Shanghai"


def at(text: str, zone: str = SHANGHAI) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def month_by_month(book, zone: str) -> list[tuple[str, str]]:
    """The periods of all subscriptions, as the site's calendar has them."""
    periods = [(each.starts_at, each.ends_at) for each in plans.subscriptions(book.db, ALICE)]
    return [
        tuple(
            f"{datetime.fromtimestamp(when / 1000, ZoneInfo(zone)):%Y-%m-%d %H:%M}" for when in each
        )
        for each in periods
    ]


@pytest.mark.parametrize("zone", [SHANGHAI, "UTC", "America/New_York", "Pacific/Kiritimati"])
def test_an_allowance_follows_the_months_of_the_sites_calendar_for_a_year(book, zone):
    terms = {"quota": nano("40"), "days": 30, "renew": True, "months_of": zone}
    plans.give_plan(book.db, ALICE, "pro", **terms, now=at("2027-01-31 10:30", zone))
    ends = [f"2027-{month:02}-01 00:00" for month in range(2, 13)] + ["2028-01-01 00:00"]
    for end in ends[:-1]:
        assert plans.expire_due(book.db, at(end, zone) - 1) == 0
        assert plans.expire_due(book.db, at(end, zone)) == 2
        assert book.balance(ALICE).quota == nano("40"), "what was left is gone"
    starts = ["2027-01-31 10:30", *ends[:-1]]
    assert month_by_month(book, zone) == list(zip(starts, ends, strict=True))
    assert book.is_right()


def test_months_missed_while_the_process_was_down_are_granted_once(book):
    terms = {"quota": 5, "days": 30, "renew": True, "months_of": SHANGHAI}
    plans.give_plan(book.db, ALICE, "pro", **terms, now=at("2026-11-18"))
    plans.expire_due(book.db, at("2027-03-15"))
    assert month_by_month(book, SHANGHAI) == [
        ("2026-11-18 00:00", "2026-12-01 00:00"),
        ("2027-03-01 00:00", "2027-04-01 00:00"),
    ]
    assert book.balance(ALICE).quota == 5
    assert plans.expire_due(book.db, at("2027-03-15") - 40 * DAY) == 0, "a clock that goes back"


@pytest.mark.parametrize("terms", [{"days": 30}, {"days": 30, "months_of": SHANGHAI}])
def test_an_allowance_given_again_on_the_same_terms_is_the_one_there_is(book, terms):
    first = plans.give_plan(book.db, ALICE, "pro", quota=5, renew=True, now=NOW, **terms)
    again = plans.give_plan(book.db, ALICE, "pro", quota=5, renew=True, now=NOW + DAY, **terms)
    assert again == first and len(plans.active(book.db, ALICE, NOW + DAY)) == 1
    assert book.balance(ALICE).quota == 5 and book.is_right()


@pytest.mark.parametrize("other", [{"quota": 9}, {"days": 7}, {"months_of": SHANGHAI}])
def test_on_other_terms_it_takes_the_place_of_the_one_before_at_once(book, other):
    terms = {"quota": 5, "days": 30, "renew": True}
    before = plans.give_plan(book.db, ALICE, "pro", **terms, now=NOW)
    plans.give_plan(book.db, BOB, "pro", **terms, now=NOW)
    after = plans.give_plan(book.db, ALICE, "pro", **terms | other, by=CAROL, now=NOW + DAY)
    (active,) = plans.active(book.db, ALICE, NOW + DAY)
    assert active.id == after["subscription"] != before["subscription"]
    assert book.balance(ALICE).quota == other.get("quota", 5)
    assert book.balance(BOB).quota == 5, "others keep theirs"
    assert plans.expire_due(book.db, NOW + 31 * DAY)
    kinds = [entry["kind"] for entry in book.entries(ALICE, kind="quota")]
    assert len(kinds) >= 2 and book.is_right()


def test_a_gift_that_does_not_renew_is_one_more_each_time(book):
    for _ in range(2):
        plans.give_plan(book.db, ALICE, "pro", **GIVEN, now=NOW)
    assert len(plans.active(book.db, ALICE, NOW)) == 2


def test_the_allowance_of_a_disabled_member_waits_and_goes_on_when_they_are_back(book):
    plans.give_plan(book.db, ALICE, "pro", quota=5, days=30, renew=True, now=NOW)
    accounts.disable(book.db, ALICE)
    assert plans.expire_due(book.db, NOW + 30 * DAY) == 1  # the rest of the period
    assert plans.expire_due(book.db, NOW + 65 * DAY) == 0
    assert book.balance(ALICE).quota == 0
    accounts.enable(book.db, ALICE)
    assert plans.expire_due(book.db, NOW + 65 * DAY) == 1
    (active,) = plans.active(book.db, ALICE, NOW + 65 * DAY)
    assert (active.starts_at, active.left) == (NOW + 60 * DAY, 5)
    assert book.is_right()
