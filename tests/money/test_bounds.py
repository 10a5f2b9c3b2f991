"""Constants, boundaries, sentences and what stands on entries and in the trail: each of them one
mistake of a letter away from being wrong without a story that would notice.
"""

import time
from decimal import Decimal

import pytest

import billing
import codes
import plans
import verify
from billing import (
    Call,
    Ending,
    KeyReused,
    LedgerError,
    NotCovered,
    Pockets,
    Price,
    Unknown,
    Usage,
    nano,
    yuan,
)
from members import audit, call_rows
from pricing import AMOUNT_MAX, PriceLine, lines, price_of, usage_of
from tests.money.ledger_book import ALICE, BOB, CAROL, DAY, NOW, open_book
from tests.stage import wait_until

PENNY = Price(1, 1, 1)  # a nano-yuan for each LLM token
NOBODY = 99


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


def rows(book, table: str) -> list[dict]:
    return [dict(each) for each in book.db.read().execute(f"SELECT * FROM {table} ORDER BY 1")]


def newest(book) -> dict:
    return book.entries(ALICE, limit=1)[0]


def told(book) -> dict:
    """The newest line of the audit trail."""
    return audit.trail(book.db, limit=1)[0]


# ---- money as text


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0"), (1, "0.000000001"), (-1, "-0.000000001"), (10**7, "0.01")]
)
def test_the_smallest_amounts_keep_their_sign(amount, text):
    assert yuan(amount) == text and nano(text) == amount


def test_the_largest_amount_is_possible_and_one_more_is_not():
    most = AMOUNT_MAX // 10**9
    assert nano(str(most)) == AMOUNT_MAX == nano(f" {most} ")
    with pytest.raises(ValueError, match=f"^{most}.01 is not a possible amount of money$"):
        nano(f"{most}.01")


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("ten", "'ten' is not an amount of money"),
        (1.5, "1.5 is not an exact amount of money"),
        (True, "True is not an exact amount of money"),
        (Decimal("NaN"), "NaN is not a possible amount of money"),
        ("0.0000000001", "0.0000000001 has more than nine decimals"),
        (Decimal("1E-11"), "1E-11 has more than nine decimals"),
    ],
)
def test_what_is_no_amount_is_named_in_the_refusal(amount, said):
    with pytest.raises(ValueError) as refused:
        nano(amount)
    assert str(refused.value) == said


def test_zeros_behind_the_ninth_decimal_are_no_decimals():
    assert nano("1.00000000100") == 10**9 + 1
    assert nano(Decimal("0.0000000010")) == 1


# ---- prices and usages


def test_a_kind_without_a_price_costs_what_it_is_called_in_general_and_a_free_one_nothing():
    assert Price(7, 3, 9).cache_read == 3 and Price(7, 3, 9).cache_write_1h == 7
    assert Price(7, 3, 9, cache_read=0).cache_read == 0
    assert Price(7, 3, 9, cache_write=0).cache_write_1h == 0
    assert Price(7, 3, 9, cache_write=1).cache_write == 1


@pytest.mark.parametrize(
    "kind", ["cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "searches"]
)
def test_each_further_kind_is_cut_to_what_can_be(kind):
    cut = Usage(10, 5, 10, **{kind: 10**12}).possible()
    assert getattr(cut, kind) == (10**9 if kind == "searches" else 5)
    assert getattr(Usage(10, 5, 10, **{kind: -1}).possible(), kind) == 0


def test_a_price_is_explained_line_by_line_in_the_order_in_which_the_grant_pays():
    usage, price = Usage(10, 4, 5, searches=1), Price(2, 1, 3, search=50)
    assert lines(usage, price) == [
        PriceLine("input", 6, 0, 2),
        PriceLine("cached", 4, 0, 1),
        PriceLine("output", 5, 0, 3),
        PriceLine("search", 1, 0, 50),
    ]
    assert [line.by_grant for line in lines(usage, price, 12)] == [6, 4, 2, 0]
    assert [line.kind for line in lines(Usage(0, 0, 0), price)] == ["input", "cached", "output"]


def test_a_row_says_its_usage_and_price_again(book):
    book.give(ALICE, wallet="1")
    usage = Usage(10, 4, 5, cache_read_tokens=1, cache_write_tokens=2, searches=3)
    price = Price(2, 1, 3, cache_write=4, search=50)
    book.close(book.hold(ALICE, usage, price), usage, price)
    (row,) = rows(book, "requests")
    assert usage_of(row) == usage and price_of(row) == price
    assert price_of(row | {"price_cache_write": None}) == Price(
        2, 1, 3, cache_write_1h=4, search=50
    )
    assert price_of(row | {"price_input": None, "price_output": 0}).by_kind()["input"] == 0


# ---- holds and ends


def test_a_call_that_costs_a_nano_yuan_more_than_there_is_is_refused(book):
    billing.credit(book.db, ALICE, "wallet", 10, now=NOW)
    with pytest.raises(NotCovered):
        billing.hold(book.db, book.call(ALICE), Usage(11, 0, 0), PENNY)
    held = billing.hold(book.db, book.call(ALICE), Usage(10, 0, 0), PENNY)
    assert held.pockets == Pockets(0, 0, 10)
    with pytest.raises(NotCovered):
        billing.hold(book.db, book.call(ALICE), Usage(1, 0, 0), PENNY)


def test_an_overdrawn_wallet_admits_nothing(book):
    billing.credit(book.db, ALICE, "wallet", -5, "adjust", now=NOW)
    with pytest.raises(NotCovered):
        billing.hold(book.db, book.call(ALICE), Usage(1, 0, 0), PENNY)


def test_who_is_not_covered_is_told_of_the_pocket_that_is_missing():
    has = Pockets(3, 0, nano("0.25"))
    assert str(NotCovered(has, Pockets(0, 0, nano("2")))) == (
        "needed: 2.00 yuan from the wallet; available: 0.25"
    )
    assert str(NotCovered(has, Pockets(4, 0, 0))) == "the grant holds 3 tokens, not 4"


def test_a_quota_of_a_nano_yuan_pays_a_nano_yuan(book):
    plans.give_plan(book.db, ALICE, "pro", quota=1, days=1, now=NOW)
    billing.credit(book.db, ALICE, "wallet", 1, now=NOW)
    call = book.hold(ALICE, Usage(2, 0, 0), PENNY)
    assert book.close(call, Usage(2, 0, 0), PENNY) == Pockets(0, 1, 1)


def _placed(book, upstream: str | None) -> Call:
    call = book.call(ALICE)
    return Call(
        **{name: getattr(call, name) for name in call.__slots__ if name != "upstream"},
        upstream=upstream,
    )


@pytest.mark.parametrize(
    ("begun", "ended", "kept"), [("a", None, "a"), ("a", "b", "b"), (None, "b", "b")]
)
def test_the_row_names_the_upstream_that_was_asked_last(book, begun, ended, kept):
    billing.refuse(book.db, _placed(book, begun), Ending("refused", 429, upstream=ended))
    call = _placed(book, begun)
    billing.hold(book.db, call, Usage(1, 0, 0), Price(0, 0, 0))
    billing.close(book.db, call.id, Ending("failed", 502, upstream=ended), None)
    assert [row["upstream"] for row in rows(book, "requests")] == [kept, kept]


def test_attempts_stand_on_the_row_of_a_call_and_the_clock_closes_it(book):
    tried = [{"upstream": "a", "status": 503}, {"upstream": "b", "status": 200}]
    for attempts in (tried, ()):
        call = book.hold(ALICE, Usage(1, 0, 0), Price(0, 0, 0))
        before = billing.now_ms()
        billing.close(book.db, call, Ending("complete", 200, attempts=attempts), None)
        (row,) = [each for each in call_rows.listed(book.db, ALL) if each["id"] == call]
        assert row["attempts"] == list(attempts)
        assert before <= row["closed_at"] <= billing.now_ms()


ALL = call_rows.CallFilter()


def test_the_clock_counts_milliseconds(monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_999_999)
    assert billing.now_ms() == 1


def test_orphans_are_told_apart_by_their_error(book):
    book.give(ALICE, wallet="1")
    book.hold(ALICE, Usage(1_000, 0, 500))
    assert billing.release_orphans(book.db, NOW) == 1
    assert rows(book, "requests")[0]["error"] == "interrupted"


# ---- rewards for invites


@pytest.mark.parametrize("reward", [1_000, 0])
def test_an_inviter_is_rewarded_once_the_invited_one_has_paid(book, reward):
    def invited(conn):
        conn.execute(
            "INSERT INTO invites (user_id, inviter_id, reward, created_at) VALUES (?, ?, ?, ?)",
            (ALICE, BOB, reward, NOW),
        )
        conn.execute("UPDATE balances SET invite_pending = 1 WHERE user_id = ?", (ALICE,))

    book.db.write(invited)
    book.give(ALICE, grant=10)
    book.close(book.hold(ALICE, Usage(10, 0, 0), PENNY), Usage(10, 0, 0), PENNY)
    assert book.balance(BOB).grant == 0  # a gift is no money of their own
    plans.give_plan(book.db, ALICE, "pro", quota=5, days=1, now=NOW)
    billing.credit(book.db, ALICE, "wallet", 10, now=NOW)
    call = book.hold(ALICE, Usage(10, 0, 0), PENNY)
    assert book.close(call, Usage(10, 0, 0), PENNY) == Pockets(0, 5, 5)
    assert book.balance(BOB).grant == reward
    entries = book.entries(BOB)
    assert [(each["kind"], each["note"], each["request_id"]) for each in entries] == (
        [("reward", "invite", call)] if reward else []
    )
    assert rows(book, "invites")[0]["rewarded_at"] == NOW
    book.close(book.hold(ALICE, Usage(1, 0, 0), PENNY), Usage(1, 0, 0), PENNY)
    assert book.balance(BOB).grant == reward and book.is_right()


def test_who_was_invited_by_nobody_rewards_nobody(book):
    book.give(ALICE, wallet="1")
    book.close(book.hold(ALICE, Usage(1, 0, 0), PENNY), Usage(1, 0, 0), PENNY)
    assert [row["kind"] for row in rows(book, "entries")] == ["top_up", "charge"]


# ---- credits


def test_a_credit_is_a_top_up_with_its_note_its_author_and_its_time(book):
    billing.credit(book.db, ALICE, "wallet", 7, note="n" * 501, by=CAROL, now=NOW)
    found = newest(book)
    assert (found["kind"], found["note"], found["by"]) == ("top_up", "n" * 500, "carol")
    assert found["created_at"] == NOW
    billing.credit(book.db, ALICE, "wallet", 7, note="")
    assert newest(book)["note"] is None
    assert abs(newest(book)["created_at"] - billing.now_ms()) < 60_000


@pytest.mark.parametrize(("amount", "kind"), [(1, "top_up"), (2, "top_up"), (-1, "adjust")])
def test_without_a_kind_what_is_put_in_is_a_top_up_and_what_is_taken_an_adjustment(
    book, amount, kind
):
    billing.credit_all(book.db, ALICE, {"wallet": amount}, now=NOW)
    assert newest(book)["kind"] == kind


def test_the_grant_can_be_emptied_and_no_more(book):
    book.give(ALICE, grant=5)
    with pytest.raises(NotCovered) as refused:
        billing.credit(book.db, ALICE, "grant", -6, "adjust", now=NOW)
    assert refused.value.needed == Pockets(6, 0, 0)
    assert billing.credit(book.db, ALICE, "grant", -5, "adjust", now=NOW)["balance"] == 0
    assert billing.credit(book.db, ALICE, "wallet", 5, now=NOW)["balance"] == 5


def test_a_balance_reaches_the_largest_amount_and_goes_no_further(book):
    assert billing.credit(book.db, ALICE, "wallet", AMOUNT_MAX, now=NOW)["balance"] == AMOUNT_MAX
    with pytest.raises(LedgerError, match=r"^the balance would be absurdly large$"):
        billing.credit(book.db, ALICE, "wallet", 1, now=NOW)
    with pytest.raises(ValueError, match=r"^the amount is zero or absurdly large$"):
        billing.credit(book.db, ALICE, "wallet", AMOUNT_MAX + 1, now=NOW)
    with pytest.raises(ValueError, match=r"^there is no credit of kind 'gift' into 'wallet'$"):
        billing.credit(book.db, ALICE, "wallet", 1, "gift", now=NOW)


def test_of_nobody_it_is_said_that_there_is_no_such_member(book):
    for act in (
        lambda: billing.balances(book.db, NOBODY),
        lambda: billing.credit(book.db, NOBODY, "wallet", 1),
        lambda: book.db.write(
            lambda conn: billing.post(conn, NOBODY, "wallet", "top_up", 1, now=1)
        ),
    ):
        with pytest.raises(Unknown, match=r"^there is no such member$"):
            act()


def test_a_page_of_the_statement_has_a_hundred_entries(book):
    for _ in range(101):
        billing.credit(book.db, ALICE, "wallet", 1, now=NOW)
    assert len(book.entries(ALICE)) == 100


# ---- keys


def test_a_key_has_from_one_to_as_many_characters_as_promised(book):
    most = "k" * billing.KEY_LENGTH_MAX
    assert billing.credit(book.db, ALICE, "wallet", 1, key=most, now=NOW)["balance"] == 1
    assert billing.credit(book.db, ALICE, "wallet", 1, key="k", now=NOW)["balance"] == 2
    for key in ("", most + "k"):
        with pytest.raises(ValueError, match=r"^a key has 1 to [0-9]+ characters$"):
            billing.credit(book.db, ALICE, "wallet", 1, key=key)


def test_what_a_key_was_used_for_is_written_down_as_it_was_asked(book):
    """An answer to a request sent again must be found by releases to come."""
    book.give(ALICE, wallet="30")
    billing.credit(book.db, ALICE, "wallet", 1, note="钱", key="a", now=NOW)
    plans.purchase(book.db, ALICE, "pro", price=2, quota=3, days=4, key="b", now=NOW)
    plans.give_plan(book.db, ALICE, "pro", quota=3, days=4, key="c", now=NOW)
    (code,) = codes.make(book.db, "wallet", 1, amount=5, now=NOW)
    codes.redeem(book.db, ALICE, code, NOW, "d")
    assert [row["request"] for row in rows(book, "operations")] == [
        '["credit", {"wallet": 1}, "top_up", "钱"]',
        '["purchase", "pro", 2, 3, 4]',
        '["give_plan", "pro", 3, 4, false]',
        f'["redeem", "{codes.digest(code).hex()}"]',
    ]
    for key in "abcd":
        with pytest.raises(
            KeyReused, match=r"^this idempotency key was used for another operation$"
        ):
            billing.credit(book.db, ALICE, "wallet", 99, key=key)


def test_a_plan_given_twice_with_a_key_is_given_once(book):
    terms = {"quota": 3, "days": 4, "key": "once", "now": NOW}
    assert plans.give_plan(book.db, ALICE, "pro", **terms) == plans.give_plan(
        book.db, ALICE, "pro", **terms
    )
    assert len(plans.active(book.db, ALICE, NOW)) == 1
    assert plans.give_plan(book.db, BOB, "pro", **terms)["subscription"] == 2  # a key is a member's


# ---- plans


def test_a_plan_that_is_not_covered_says_what_it_costs(book):
    with pytest.raises(NotCovered) as refused:
        plans.purchase(book.db, ALICE, "pro", price=5, quota=0, days=1, now=NOW)
    assert refused.value.needed == Pockets(0, 0, 5)


def test_entries_of_a_plan_name_it_and_whoever_gave_it(book):
    billing.credit(book.db, ALICE, "wallet", 5, now=NOW)
    plans.purchase(book.db, ALICE, "pro", price=5, quota=7, days=1, now=NOW)
    quota, price = book.entries(ALICE, limit=2)
    assert (price["kind"], price["note"], price["amount"]) == ("purchase", "pro", -5)
    assert (quota["kind"], quota["note"], quota["by"]) == ("quota", "pro", None)
    plans.give_plan(book.db, ALICE, "max", quota=7, days=1, by=CAROL, now=NOW)
    assert (newest(book)["note"], newest(book)["by"]) == ("max", "carol")


@pytest.mark.parametrize(
    ("price", "quota", "days"),
    [(AMOUNT_MAX, 0, 1), (0, AMOUNT_MAX, 1), (0, 0, 36_500)],
)
def test_terms_reach_their_bounds_and_go_no_further(price, quota, days):
    plans.check_terms(price, quota, days)
    most = {"price": AMOUNT_MAX, "quota": AMOUNT_MAX, "days": 36_500}
    terms = {"price": price, "quota": quota, "days": days}
    beyond = {name: value + (value == most[name]) for name, value in terms.items()}
    with pytest.raises(
        ValueError, match=r"^a plan's price and quota are not negative, and it lasts from"
    ):
        plans.check_terms(**beyond)


def test_what_is_done_to_plans_is_in_the_trail_with_its_time(book):
    given = plans.give_plan(
        book.db, ALICE, "pro", quota=0, days=4, renew=True, by=CAROL, now=NOW + 1
    )
    line = {"by": "carol", "target": "alice"}
    assert told(book) == told(book) | line | {
        "at": NOW + 1,
        "action": "plan.give",
        "detail": {"plan": "pro", "days": 4, "renew": True},
    }
    assert plans.stop_renewal(book.db, given["subscription"], by=CAROL, now=NOW + 2)
    assert told(book) == told(book) | line | {
        "at": NOW + 2,
        "action": "plan.stop_renewal",
        "detail": {"plan": "pro"},
    }
    assert plans.end_plan(book.db, given["subscription"], by=CAROL, now=NOW + 3)
    assert told(book) == told(book) | line | {
        "at": NOW + 3,
        "action": "plan.end",
        "detail": {"plan": "pro"},
    }
    assert not plans.end_plan(book.db, given["subscription"], by=CAROL, now=NOW + 3)


def test_all_plans_of_a_member_end_at_once_and_nobody_elses(book):
    for member, plan in ((ALICE, "pro"), (ALICE, "max"), (BOB, "pro")):
        plans.give_plan(book.db, member, plan, quota=5, days=4, renew=True, now=NOW)
    assert plans.end_all(book.db, ALICE, by=CAROL, now=NOW + 1) == 2
    assert told(book)["by"] == "carol" and told(book)["at"] == NOW + 1
    assert not plans.active(book.db, ALICE, NOW + 1) and plans.active(book.db, BOB, NOW + 1)
    assert book.balance(ALICE).quota == 0 and book.balance(BOB).quota == 5
    assert plans.end_all(book.db, ALICE, now=NOW + 2) == 0
    waiting = plans.give_plan(book.db, ALICE, "pro", quota=5, days=1, renew=True, now=NOW)
    assert plans.end_all(book.db, ALICE, now=NOW + 2 * DAY) == 1  # it would have begun again
    assert plans.expire_due(book.db, NOW + 2 * DAY) == 0
    assert waiting and book.is_right()


def test_the_clock_is_asked_where_no_time_is_given(book):
    for plan in ("pro", "max"):
        given = plans.give_plan(book.db, ALICE, plan, quota=5, days=4, renew=True)
    assert abs(told(book)["at"] - billing.now_ms()) < 60_000
    assert plans.stop_renewal(book.db, given["subscription"])
    assert abs(told(book)["at"] - billing.now_ms()) < 60_000
    assert plans.end_all(book.db, ALICE) == 2
    wait_until(
        lambda: plans.unknown(book.db, ()) == {}
    )  # one that has just begun has a millisecond


def test_plans_that_nobody_knows_any_more_are_counted_by_member(book):
    for member, plan in ((ALICE, "old"), (ALICE, "old"), (BOB, "old"), (BOB, "pro")):
        plans.give_plan(book.db, member, plan, quota=0, days=1, now=NOW)
    assert plans.unknown(book.db, ["pro"], NOW) == {"old": 2}
    assert plans.unknown(book.db, ["pro", "old"], NOW) == {}
    assert plans.unknown(book.db, [], NOW + DAY - 1) == {"old": 2, "pro": 1}
    assert plans.unknown(book.db, [], NOW + DAY) == {}


def test_periods_that_begin_or_lose_their_rest_are_counted(book):
    plans.give_plan(book.db, ALICE, "pro", quota=1, days=1, now=NOW)
    plans.give_plan(book.db, ALICE, "pro", quota=0, days=1, renew=True, now=NOW)
    plans.give_plan(book.db, BOB, "pro", quota=5, days=1, renew=True, now=NOW)
    assert plans.expire_due(book.db, NOW + DAY) == 1 + 1 + 2
    first = [row["id"] for row in rows(book, "subscriptions")]
    assert [row["renewed_from"] for row in rows(book, "subscriptions")] == [
        *(None, None, None),
        *first[1:3],
    ]


# ---- codes


def test_a_code_for_a_plan_says_what_it_gave_and_that_it_was_redeemed(book):
    (code,) = codes.make(book.db, "plan", 1, plan="pro", quota=5, days=2, now=NOW)
    assert codes.redeem(book.db, ALICE, code, NOW) == {
        "kind": "plan",
        "plan": "pro",
        "quota": 5,
        "subscription": 1,
        "ends_at": NOW + 2 * DAY,
    }
    assert newest(book)["kind"] == "redeem"
    with pytest.raises(codes.CodeRefused, match=r"^this code is not valid, or has been used$"):
        codes.redeem(book.db, BOB, code, NOW)


@pytest.mark.parametrize(
    "terms", [{}, {"quota": 5}, {"days": 5}, {"quota": -1, "days": 5}, {"quota": 0, "days": 0}]
)
def test_a_code_for_a_plan_needs_a_quota_and_days(book, terms):
    with pytest.raises(ValueError, match=r"^a plan's price and quota"):
        codes.make(book.db, "plan", 1, plan="pro", **terms)


def test_a_code_for_a_plan_without_a_quota_is_made(book):
    assert codes.make(book.db, "plan", 1, plan="pro", quota=0, days=1)


def test_a_code_that_is_worth_nothing_is_refused_with_the_reason(book):
    said = "^a code is for the wallet, the grant or a plan, and has an amount above zero$"
    with pytest.raises(ValueError, match=said):
        codes.make(book.db, "wallet", 1, amount=0)


def test_of_what_is_typed_as_a_code_a_hundred_characters_are_read():
    assert codes.digest(" " * 76 + "A" * 24 + "B") == codes.digest("A" * 24)
    assert codes.digest(" " * 77 + "A" * 24) is None


# ---- the proof


@pytest.mark.parametrize(
    ("kept_from", "day"),
    [
        (None, ""),
        (0, "1970-01-01"),
        (10 * 3_600_000 - 1, "1970-01-01"),
        (10 * 3_600_000, "1970-01-02"),  # somewhere it is the next day already
        (NOW, "2026-11-19"),
    ],
)
def test_days_are_proved_from_the_one_on_which_nothing_was_forgotten(
    book, monkeypatch, kept_from, day
):
    """A site may be 14 hours ahead of UTC, and the machine anywhere."""
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    if kept_from is not None:
        value = call_rows.first_id(kept_from)
        book.db.write(
            lambda conn: conn.execute("INSERT INTO meta VALUES ('requests_kept_from', ?)", (value,))
        )
    assert verify._first_whole_day(book.db.read()) == day
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("pocket", "value", "text"),
    [
        ("grant", 5, "5 LLM tokens"),
        ("wallet", 5, "0.000000005 yuan"),
        ("wallet", None, "None"),
        ("", 5, "5"),
        ("", "x", "x"),
    ],
)
def test_the_proof_names_amounts_in_their_unit(pocket, value, text):
    assert verify._amount(pocket, value) == text
