"""The ledger: prices, the split over the pockets, holds, charges, entries, and the proof."""

import threading
from contextlib import closing
from decimal import Decimal

import pytest

import billing
import plans
from billing import Ending, NotCovered, Pockets, Price, Usage, nano, split, yuan
from db import IntegrityError, connect
from members import audit, call_rows
from members.call_rows import CallFilter
from tests.money.ledger_book import ALICE, BOB, CAROL, DAY, NOW, PRICE, open_book

SMALL = Usage(1_000, 0, 500)  # ¥0.006 at PRICE
ALL = CallFilter()


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


# ---- money as text


@pytest.mark.parametrize(
    "text, amount",
    [
        ("0", 0),
        ("20", 20 * 10**9),
        ("20.00", 20 * 10**9),
        ("-0.0000125", -12_500),
        ("0.000000001", 1),
        (7, 7 * 10**9),
        (Decimal("1E+2"), 100 * 10**9),
        (Decimal("2.50"), 2_500_000_000),
        ("+1.", 10**9),
        (" 3 ", 3 * 10**9),
    ],
)
def test_money_is_read_exactly(text, amount):
    assert nano(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ten",
        "1e3",
        "1_000",
        "NaN",
        "inf",
        "0.0000000001",
        "1,5",
        "١",
        "10000000000",
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1E+30"),
        1.5,
        True,
        None,
    ],
)
def test_money_that_is_not_exact_or_possible_is_refused(text):
    with pytest.raises(ValueError):
        nano(text)


@pytest.mark.parametrize(
    "amount, text",
    [
        (0, "0"),
        (20 * 10**9, "20.00"),
        (-12_500, "-0.000012500"),
        (10_000_000, "0.01"),
        (-29_900_000_000, "-29.90"),
        (1, "0.000000001"),
        *(
            (1_234_567_890 // 10**cut * 10**cut, text)
            for cut, text in enumerate(
                ["1.234567890"] * 2
                + [
                    "1.234567800",
                    "1.234567000",
                    "1.234560000",
                    "1.234500000",
                    "1.234000000",
                    "1.23",
                    "1.20",
                    "1.00",
                ]
            )
        ),
        (5_000_000, "0.005000000"),
    ],
)
def test_money_is_written_with_full_precision(amount, text):
    assert yuan(amount) == text


# ---- the split


SPLITS = """
    input cached output | price            | grant   quota   wallet  | grant  quota  wallet
    100   0      50     | 2 1 8            | 0       0       1000    | 0      0      600
    100   0      50     | 2 1 8            | 150     0       0       | 150    0      0
    100   0      50     | 2 1 8            | 120     0       0       | 120    0      240
    100   40     50     | 2 1 8            | 0       100     0       | 0      100    460
    100   40     50     | 2 1 8            | 60      1000    0       | 60     440    0
    100   40     50     | 2 1 8            | 90      1000    0       | 90     410    0
    100   40     50     | 2 1 8            | 110     100     0       | 110    100    220
    100   0      50     | 0 0 0            | 500     500     500     | 0      0      0
    100   0      0      | 0 0 8            | 40      500     500     | 40     0      0
    0     0      0      | 2 1 8            | 500     500     500     | 0      0      0
    100   0      50     | 2 1 8            | -7      -7      -900    | 0      0      600
"""


@pytest.mark.parametrize("story", SPLITS.strip().splitlines()[1:])
def test_a_cost_is_split_over_the_pockets(story):
    usage, price, pockets, paid = (
        [int(word) for word in part.split()] for part in story.split("|")
    )
    assert split(Usage(*usage), Price(*price), Pockets(*pockets)) == Pockets(*paid)


def test_a_tier_holds_above_its_limit_for_the_whole_input():
    dear = Price(9, 9, 9)
    price = Price(2, 1, 8, tiers=((32_000, dear),))
    assert price.at(32_000).input == 2 and price.at(32_001) is dear
    assert price.highest() == Price(9, 9, 9)
    assert not price.free and Price(0, 0, 0).free and not Price(0, 0, 0, ((10, dear),)).free


# ---- holds and charges


def test_a_hold_sets_aside_and_the_close_charges_what_was_used(book):
    book.give(ALICE, wallet="1")
    call_id = book.hold(ALICE, SMALL)
    assert book.held(ALICE) == Pockets(0, 0, 6_000_000) and book.balance(ALICE).wallet == 10**9
    assert book.close(call_id, Usage(800, 300, 100)) == Pockets(0, 0, 1_860_000)
    assert book.held(ALICE) == Pockets(0, 0, 0) and book.balance(ALICE).wallet == 10**9 - 1_860_000
    assert book.is_right()


def test_one_call_may_be_paid_from_all_three_pockets(book):
    book.give(ALICE, wallet="1", grant=700)
    plans.give_plan(book.db, ALICE, "pro", quota=1_000_000, days=30, now=NOW)
    charged = book.close(book.hold(ALICE, SMALL), SMALL)
    assert charged == Pockets(700, 1_000_000, 6_000_000 - 700 * 2_000 - 1_000_000)
    kinds = [(entry["pocket"], entry["kind"]) for entry in book.entries(ALICE, limit=3)]
    assert kinds == [("wallet", "charge"), ("quota", "charge"), ("grant", "charge")]
    assert book.is_right()


def test_a_call_closes_once(book):
    book.give(ALICE, wallet="1")
    call_id = book.hold(ALICE, SMALL)
    assert book.close(call_id, SMALL) is not None
    before = book.everything()
    assert book.close(call_id, SMALL) is None
    assert book.close("req_that_never_was", SMALL) is None
    assert book.everything() == before


def test_no_usage_gives_the_hold_back_and_charges_nothing(book):
    book.give(ALICE, wallet="1", grant=10)
    assert book.close(book.hold(ALICE, SMALL), None, outcome="failed") == Pockets(0, 0, 0)
    assert book.balance(ALICE) == Pockets(10, 0, 10**9) and book.held(ALICE) == Pockets(0, 0, 0)
    assert book.is_right()


def test_a_call_that_the_pockets_do_not_cover_is_refused_and_leaves_nothing(book):
    book.give(ALICE, wallet="0.005")
    before = book.everything()
    with pytest.raises(NotCovered) as caught:
        book.hold(ALICE, SMALL)
    assert caught.value.available.wallet == 5_000_000 and caught.value.needed.wallet == 6_000_000
    assert book.everything() == before


def test_the_overdraft_admits_a_call_that_the_wallet_does_not_cover(book):
    assert book.hold(ALICE, SMALL, overdraft=6_000_000)
    with pytest.raises(NotCovered):
        book.hold(ALICE, SMALL, overdraft=6_000_000)
    assert book.is_right()


def test_only_the_wallet_falls_below_zero_and_then_it_blocks(book):
    book.give(ALICE, wallet="0.006", grant=100)
    call_id = book.hold(ALICE, Usage(1_000, 0, 10))
    book.close(call_id, Usage(1_000, 0, 50_000))
    assert book.balance(ALICE).grant == 0 and book.balance(ALICE).wallet < 0
    with pytest.raises(NotCovered):
        book.hold(ALICE, Usage(1, 0, 0))
    assert book.is_right()


def test_a_free_model_needs_and_debits_nothing(book):
    free = Price(0, 0, 0)
    assert book.close(book.hold(ALICE, SMALL, free), SMALL, free) == Pockets(0, 0, 0)
    book.give(ALICE, grant=100)
    book.close(book.hold(ALICE, SMALL, free), SMALL, free)
    assert book.balance(ALICE).grant == 100


def test_the_hold_is_at_the_dearest_tier_and_the_charge_at_the_counted_one(book):
    price = Price(2_000, 200, 8_000, tiers=((900, Price(20_000, 2_000, 80_000)),))
    book.give(ALICE, wallet="1")
    call_id = book.hold(ALICE, Usage(500, 0, 10), price)
    assert book.held(ALICE).wallet == 500 * 20_000 + 10 * 80_000
    assert book.close(call_id, Usage(500, 0, 10), price).wallet == 500 * 2_000 + 10 * 8_000
    row = next(call_rows.listed(book.db, ALL))
    assert (row["price_input"], row["cost"]) == (2_000, 1_080_000)


def test_what_others_hold_is_not_spent_by_a_call_that_used_more_than_it_held(book):
    book.give(ALICE, wallet="1", grant=1_000)
    first, second = book.hold(ALICE, Usage(400, 0, 0)), book.hold(ALICE, Usage(500, 0, 0))
    assert book.close(first, Usage(10_000, 0, 0)).grant == 500
    assert book.close(second, Usage(500, 0, 0)) == Pockets(500, 0, 0)
    assert book.is_right()


def test_what_others_hold_of_the_quota_is_not_spent_either(book):
    plans.give_plan(book.db, ALICE, "pro", quota=10_000_000, days=30, now=NOW)
    book.give(ALICE, wallet="1")
    first, second = book.hold(ALICE, Usage(4_000, 0, 0)), book.hold(ALICE, Usage(1_000, 0, 0))
    assert book.close(second, Usage(2_000, 0, 0)) == Pockets(0, 2_000_000, 2_000_000)
    assert book.close(first, Usage(4_000, 0, 0)) == Pockets(0, 8_000_000, 0)
    assert book.is_right()


@pytest.mark.parametrize(
    "usage", [Usage(-5, -5, -5), Usage(10**18, 0, 10**18), Usage(5, 50, 5), Usage(0, 0, -(10**30))]
)
def test_absurd_counts_never_credit_and_never_break_the_ledger(book, usage):
    book.give(ALICE, wallet="1")
    charged = book.close(book.hold(ALICE, SMALL), usage)
    assert min(charged.grant, charged.quota, charged.wallet) >= 0
    assert book.held(ALICE) == Pockets(0, 0, 0) and book.is_right()


def test_a_refused_call_is_one_closed_row(book):
    billing.refuse(
        book.db,
        book.call(ALICE),
        Ending("refused", 402, error="insufficient_balance", duration_ms=3),
    )
    (row,) = call_rows.listed(book.db, ALL)
    assert (row["outcome"], row["status"], row["cost"], row["usage_source"]) == (
        "refused",
        402,
        0,
        "none",
    )
    assert book.is_right()


def test_roll_ups_do_not_grow_with_names_that_callers_invent(book):
    for name in ("a", "b", "c"):
        billing.refuse(
            book.db, book.call(ALICE, model=name), Ending("refused", 404, error="model_not_found")
        )
    rolled = book.db.read().execute("SELECT model, calls, refused FROM daily").fetchall()
    assert [tuple(row) for row in rolled] == [("", 3, 3)]


def test_the_roll_up_is_kept_with_the_charge(book):
    book.give(ALICE, wallet="1")
    for _ in range(3):
        book.close(book.hold(ALICE, SMALL), SMALL)
    row = dict(book.db.read().execute("SELECT * FROM daily").fetchone())
    assert (
        row["calls"],
        row["input_tokens"],
        row["output_tokens"],
        row["charged_wallet"],
        row["last_at"],
    ) == (3, 3_000, 1_500, 18_000_000, NOW)


def test_open_calls_are_released_as_interrupted_when_a_server_starts(book):
    book.give(ALICE, wallet="1", grant=100)
    for _ in range(3):
        book.hold(ALICE, SMALL)
    assert billing.release_orphans(book.db) == 3 and billing.release_orphans(book.db) == 0
    assert book.held(ALICE) == Pockets(0, 0, 0) and book.balance(ALICE) == Pockets(100, 0, 10**9)
    assert {row["outcome"] for row in call_rows.listed(book.db, ALL)} == {"interrupted"}
    assert book.is_right()


def test_of_fifty_at_once_with_money_for_one_exactly_one_is_admitted(book):
    for _ in range(20):
        wallet = book.balance(ALICE).wallet - book.held(ALICE).wallet
        billing.credit(book.db, ALICE, "wallet", 6_000_000 - wallet, "adjust")
        admitted = at_once(50, lambda: book.hold(ALICE, SMALL))
        assert sum(isinstance(result, str) for result in admitted) == 1
        assert sum(isinstance(result, NotCovered) for result in admitted) == 49
    assert book.is_right()


def at_once(count: int, act) -> list:
    """What `act` returns or raises in so many threads that start together."""
    barrier, results = threading.Barrier(count), []

    def run():
        barrier.wait()
        try:
            results.append(act())
        except Exception as err:
            results.append(err)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


# ---- credit and statement


def test_a_credit_with_a_key_happens_once(book):
    again = [billing.credit(book.db, ALICE, "wallet", 5, "top_up", key="k-1") for _ in range(3)]
    assert again[0] == again[1] == again[2] and book.balance(ALICE).wallet == 5
    assert billing.credit(book.db, BOB, "wallet", 5, "top_up", key="k-1")["balance"] == 5
    with pytest.raises(billing.KeyReused):
        billing.credit(book.db, ALICE, "wallet", 6, "top_up", key="k-1")
    assert book.is_right()


def test_one_key_sent_by_many_at_once_has_one_effect(book):
    results = at_once(30, lambda: billing.credit(book.db, ALICE, "wallet", 7, "top_up", key="k"))
    assert len({result["entry"] for result in results}) == 1 and book.balance(ALICE).wallet == 7


@pytest.mark.parametrize(
    "pocket, amount, kind",
    [
        ("quota", 5, "top_up"),
        ("wallet", 0, "top_up"),
        ("wallet", 10**19, "top_up"),
        ("wallet", 5, "charge"),
        ("purse", 5, "top_up"),
    ],
)
def test_a_credit_that_makes_no_sense_is_refused(book, pocket, amount, kind):
    with pytest.raises(ValueError):
        billing.credit(book.db, ALICE, pocket, amount, kind)


def test_the_grant_gives_back_no_more_than_it_has_free(book):
    book.give(ALICE, grant=1_500, wallet="1")
    book.hold(ALICE, Usage(1_000, 0, 0))
    with pytest.raises(NotCovered):
        billing.credit(book.db, ALICE, "grant", -501, "adjust")
    assert billing.credit(book.db, ALICE, "grant", -500, "adjust")["balance"] == 1_000
    assert book.is_right()


def test_nobody_unknown_has_money(book):
    with pytest.raises(billing.Unknown):
        billing.credit(book.db, 99, "wallet", 5, "top_up")
    with pytest.raises(billing.Unknown):
        billing.balances(book.db, 99)
    with pytest.raises(billing.Unknown):
        billing.hold(book.db, book.call(99), SMALL, PRICE)


def test_the_statement_runs_backwards_with_the_balance_after_each_entry(book):
    for amount in (5, -2, 4):
        billing.credit(
            book.db, ALICE, "wallet", amount, "adjust", note=f"by {amount}", by=CAROL, now=NOW
        )
    entries = book.entries(ALICE, limit=2)
    assert [(e["amount"], e["balance_after"], e["by"]) for e in entries] == [
        (4, 7, "carol"),
        (-2, 3, "carol"),
    ]
    older = book.entries(ALICE, before=entries[-1]["id"])
    assert [e["amount"] for e in older] == [5]
    assert book.entries(BOB) == [] and book.entries(ALICE, pocket="grant") == []


def test_money_moved_by_hand_is_in_the_audit_trail(book):
    billing.credit(book.db, ALICE, "wallet", 5, "adjust", note="sorry", by=CAROL)
    (found,) = audit.trail(book.db)
    assert (found["by"], found["action"], found["target"], found["detail"]["amount"]) == (
        "carol",
        "ledger.adjust",
        "alice",
        5,
    )


# ---- rows of calls


def test_calls_are_listed_newest_first_and_by_pages(book):
    book.give(ALICE, wallet="1")
    book.give(BOB, wallet="1")
    ids = [book.hold(ALICE, SMALL, at=NOW + n) for n in range(5)]
    other = book.hold(BOB, SMALL, at=NOW + 2)
    page = list(call_rows.listed(book.db, CallFilter(ALICE), 2))
    assert [row["id"] for row in page] == ids[:2:-1]
    page = list(call_rows.listed(book.db, CallFilter(ALICE), 2, page[-1]["id"]))
    assert [row["id"] for row in page] == [ids[2], ids[1]]
    assert [row["id"] for row in call_rows.listed(book.db, CallFilter(token_id=BOB))] == [other]
    between = call_rows.listed(book.db, CallFilter(ALICE, since=NOW + 1, until=NOW + 3))
    assert [row["id"] for row in between] == [ids[2], ids[1]]
    book.close(ids[4], SMALL)
    for name, found in (("open", ids[3::-1]), ("complete", [ids[4]]), ("failed", [])):
        asked = CallFilter(ALICE, outcome=name)
        assert [row["id"] for row in call_rows.listed(book.db, asked)] == found
    asked = CallFilter(upstream=page[0]["upstream"], model=page[0]["model"])
    assert len(list(call_rows.listed(book.db, asked))) == 6
    assert not list(call_rows.listed(book.db, CallFilter(upstream="nobody")))


def test_forgetting_old_calls_changes_no_balance_and_no_roll_up(book):
    book.give(ALICE, wallet="1")
    for days in (100, 95, 1):
        book.close(book.hold(ALICE, SMALL, at=NOW - days * DAY), SMALL)
    still_open = book.hold(ALICE, SMALL, at=NOW - 99 * DAY)
    before = book.everything()
    assert call_rows.forget(book.db, 90, NOW) == 2
    after = book.everything()
    assert {table for table in after if after[table] != before[table]} == {"requests", "meta"}
    assert still_open in [row["id"] for row in call_rows.listed(book.db, ALL)]
    assert call_rows.forget(book.db, 0, NOW) == 0
    assert book.is_right()


# ---- the laws of the schema


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount = 1",
        "DELETE FROM entries",
        "DELETE FROM requests WHERE closed_at IS NULL",
        "INSERT OR REPLACE INTO entries SELECT * FROM entries",
        "REPLACE INTO entries SELECT * FROM entries",
        "INSERT INTO entries SELECT 99, 1, 'wallet', 'charge', 5, 1000000005, 'r', NULL, NULL, NULL, 0, NULL",
        "INSERT INTO entries SELECT 99, 1, 'wallet', 'top_up', 5, 6, NULL, NULL, NULL, NULL, 0, NULL",
        "INSERT INTO entries SELECT 99, 1, 'wallet', 'top_up', 0, 1000000000, NULL, NULL, NULL, NULL, 0, NULL",
        "UPDATE balances SET grant_balance = -1",
        "UPDATE balances SET grant_held = grant_balance + 1",
        "UPDATE balances SET wallet_balance = 9223372036854775807 + 1",
        "UPDATE balances SET wallet_balance = 1.5",
        "UPDATE requests SET closed_at = NULL",
        "UPDATE requests SET hold_wallet = 0 WHERE closed_at IS NULL",
        "UPDATE requests SET closed_at = 5, outcome = 'complete' WHERE closed_at IS NOT NULL",
        "DELETE FROM audit",
        "UPDATE audit SET action = 'nothing'",
    ],
)
def test_the_schema_refuses_what_must_never_be(book, statement):
    book.give(ALICE, wallet="1")
    book.close(book.hold(ALICE, SMALL), SMALL)
    book.hold(ALICE, SMALL)
    before = book.everything()
    with pytest.raises(IntegrityError):
        book.db.write(lambda conn: conn.execute(statement))
    assert book.everything() == before


def test_entries_cannot_be_replaced_even_where_sqlite_would_let_them(book):
    book.give(ALICE, wallet="1")

    with closing(connect(book.db.path)) as stranger:
        stranger.execute("PRAGMA recursive_triggers = OFF")
        with pytest.raises(IntegrityError):
            stranger.execute("REPLACE INTO entries SELECT * FROM entries")


# ---- the proof


DROPPED = (
    "DROP TRIGGER entries_are_never_changed; DROP TRIGGER entries_are_never_removed; "
    "DROP TRIGGER a_call_closes_once; "
)
CLOSED = "WHERE closed_at IS NOT NULL"
TAMPERINGS = [
    ("UPDATE balances SET wallet_balance = wallet_balance + 1", "alice: the wallet balance is"),
    ("UPDATE balances SET grant_balance = grant_balance + 1", "alice: the grant balance is"),
    ("UPDATE balances SET wallet_held = wallet_held + 1", "alice: wallet holds are"),
    ("UPDATE subscriptions SET left = left + 1", "left of its quota"),
    ("UPDATE entries SET amount = amount + 1 WHERE kind = 'top_up'", "the entries up to it"),
    (
        "UPDATE entries SET balance_after = balance_after + 1 WHERE kind = 'top_up'",
        "the entries up to it",
    ),
    (
        "UPDATE requests SET charged_wallet = charged_wallet + 1 WHERE closed_at IS NOT NULL",
        "it was charged",
    ),
    ("UPDATE requests SET cost = cost + 1 WHERE closed_at IS NOT NULL", "usage and price make"),
    ("DELETE FROM requests WHERE closed_at IS NOT NULL", "an entry charges a call that has no row"),
    ("UPDATE daily SET charged_wallet = charged_wallet + 1", "the roll-ups of the wallet"),
    ("UPDATE daily SET calls = calls + 1", "the roll-ups are off"),
    ("UPDATE daily SET refused = 1", '"refused":1'),
    ("UPDATE daily SET input_tokens = input_tokens + 7", '"input_tokens":7'),
    ("UPDATE daily SET charged_grant = charged_grant - 7", '"charged_grant":-7'),
    (
        "UPDATE daily SET token_id = 3",
        "alice, 2026-11-18, token 3, qwen3-max: the roll-ups are off",
    ),
    ("UPDATE daily SET model = 'glm-5'", "alice, 2026-11-18, token 1, glm-5: the roll-ups are off"),
    (f"UPDATE requests SET input_tokens = input_tokens + 1 {CLOSED}", "usage and price make"),
    (f"UPDATE requests SET token_id = 3 {CLOSED}", "the roll-ups are off"),
    (f"UPDATE requests SET user_id = 3 {CLOSED}", "the roll-ups are off"),
    (f"UPDATE requests SET day = '2026-11-17' {CLOSED}", "the roll-ups are off"),
    ("UPDATE requests SET cost = 5 WHERE closed_at IS NULL", "usage and price make"),
    (
        f"UPDATE requests SET charged_wallet = charged_wallet - 9, charged_quota = charged_quota + 9 {CLOSED}",
        "it was charged",
    ),
    ("DELETE FROM entries WHERE kind = 'charge'", "its entries sum to"),
    (
        "DROP TRIGGER an_open_call_is_not_forgotten; DELETE FROM requests WHERE closed_at IS NULL",
        "those of open calls",
    ),
    ("UPDATE subscriptions SET quota = quota + 1", "that it grants is 0.000002001"),
    ("UPDATE subscriptions SET paid = 0", "what plans took from the wallet"),
    ("UPDATE subscriptions SET user_id = 2", "bob, subscription 1: the quota that it grants"),
    ("DELETE FROM subscriptions", "refers to one of subscriptions that is not there"),
    (
        "UPDATE entries SET kind = 'adjust' WHERE pocket = 'grant' AND kind = 'charge'",
        "it was charged",
    ),
    ("DELETE FROM daily", "the roll-ups"),
    ("DELETE FROM balances WHERE user_id = 2", "there are no balances"),
]


@pytest.mark.parametrize("change, said", TAMPERINGS, ids=[change[:60] for change, _ in TAMPERINGS])
def test_the_proof_names_what_was_changed_by_hand(book, change, said):
    book.give(ALICE, wallet="1", grant=100)
    plans.purchase(book.db, ALICE, "pro", price=900, quota=2_000, days=30, now=NOW)
    book.close(book.hold(ALICE, SMALL), SMALL)
    book.hold(ALICE, SMALL)
    assert book.is_right()
    tampered(book, DROPPED + change)
    found = billing.verify(book.db)
    assert any(said in sentence for sentence in found), found


def tampered(book, statements):
    with closing(connect(book.db.path)) as stranger:
        stranger.execute("PRAGMA foreign_keys = OFF")
        stranger.executescript(statements)


def test_the_proof_finds_a_call_whose_every_trace_of_payment_was_removed(book):
    book.give(ALICE, wallet="1", grant=100)
    book.close(book.hold(ALICE, SMALL), SMALL)
    assert book.is_right()
    tampered(
        book,
        DROPPED + "UPDATE balances SET (grant_balance, wallet_balance) = (100, 1000000000) "
        "WHERE user_id = 1; DELETE FROM entries WHERE kind = 'charge'; "
        "UPDATE requests SET charged_grant = 0, charged_wallet = 0; "
        "UPDATE daily SET charged_grant = 0, charged_wallet = 0",
    )
    found = [each for each in billing.verify(book.db) if "trigger" not in each]
    assert (
        len(found) == 1
        and "the money that was paid is 0 yuan; what the grant left comes to 0." in found[0]
    )


@pytest.mark.parametrize(
    "change, said",
    [
        (
            "DROP TRIGGER entries_are_never_removed",
            "the trigger entries_are_never_removed is missing",
        ),
        (
            (
                "DROP TRIGGER a_call_closes_once;"
                " CREATE TRIGGER a_call_closes_once AFTER DELETE ON meta BEGIN SELECT 1; END"
            ),
            "the trigger a_call_closes_once is not as models.sql has it",
        ),
        (
            (
                "CREATE TRIGGER gift AFTER INSERT ON entries"
                " BEGIN UPDATE balances SET wallet_balance = wallet_balance + 1; END"
            ),
            "the trigger gift is not as models.sql has it",
        ),
    ],
)
def test_the_proof_names_laws_that_were_removed_or_changed(book, change, said):
    with closing(connect(book.db.path)) as stranger:
        stranger.executescript(change)
    assert billing.verify(book.db) == [said]
