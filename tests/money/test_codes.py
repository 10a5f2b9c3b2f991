"""Codes that turn into money, LLM tokens or a plan."""

import itertools

import pytest

import billing
import codes
import plans
from billing import AMOUNT_MAX, Pockets, nano
from members import audit
from tests.money.ledger_book import ALICE, BOB, CAROL, NOW, open_book
from tests.money.test_billing import at_once


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    yield book
    book.db.close()


def listed(book, state=None, now=NOW) -> list[dict]:
    return [dict(row) for row in codes.listed(state, now).walk(book.db.read(), None, 1000).rows]


def test_a_code_is_random_shown_once_and_not_kept(book):
    made = codes.make(book.db, "wallet", 50, amount=nano("10"), by=CAROL)
    assert len(set(made)) == 50 and all(codes.digest(code) for code in made)
    assert len(codes.LETTERS) ** codes.LENGTH >= 2**80
    kept = book.db.path.read_bytes() + book.db.path.with_name("relay.db-wal").read_bytes()
    assert not any(code.encode() in kept or code.replace("-", "").encode() in kept for code in made)
    rows = listed(book)
    assert len(rows) == 50 and rows[0]["created_by"] == "carol"
    assert {row["hint"] for row in rows} == {f"{code[:4]}…{code[-4:]}" for code in made}


@pytest.mark.parametrize(
    "kind, terms, pocket",
    [
        ("wallet", {"amount": 7}, Pockets(0, 0, 7)),
        ("grant", {"amount": 7}, Pockets(7, 0, 0)),
        ("plan", {"plan": "pro", "quota": 9, "days": 3}, Pockets(0, 9, 0)),
    ],
)
def test_a_code_is_redeemed_once(book, kind, terms, pocket):
    (code,) = codes.make(book.db, kind, **terms)
    assert codes.redeem(book.db, ALICE, code, NOW)["kind"] == kind
    assert book.balance(ALICE) == pocket and bool(plans.active(book.db, ALICE, NOW)) == (
        kind == "plan"
    )
    for user in (ALICE, BOB):
        with pytest.raises(codes.CodeRefused):
            codes.redeem(book.db, user, code, NOW)
    assert listed(book)[0]["redeemed_by"] == "alice" and book.is_right()


def test_of_many_who_redeem_one_code_at_once_one_has_it(book):
    for code in codes.make(book.db, "wallet", 10, amount=5):
        users = itertools.cycle((ALICE, BOB))
        results = at_once(
            16, lambda code=code, users=users: codes.redeem(book.db, next(users), code)
        )
        assert sum(isinstance(result, dict) for result in results) == 1
        assert sum(isinstance(result, codes.CodeRefused) for result in results) == 15
    assert book.balance(ALICE).wallet + book.balance(BOB).wallet == 50 and book.is_right()


def test_a_code_is_read_however_it_is_typed(book):
    (code,) = codes.make(book.db, "grant", amount=5)
    typed = f" {code.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')} "
    assert codes.redeem(book.db, ALICE, typed)["amount"] == 5


@pytest.mark.parametrize(
    "code", ["", "-", "AAAA-BBBB", "U" * 20, "x" * 10_000, "零" * 20, "A" * 21, "\ud800" * 20]
)
def test_what_is_no_code_is_refused_like_one_that_is_unknown(book, code):
    with pytest.raises(codes.CodeRefused):
        codes.redeem(book.db, ALICE, code)


def test_codes_that_have_expired_or_were_revoked_give_nothing(book):
    old, revoked = (
        codes.make(book.db, "grant", amount=5, expires_at=expires)[0] for expires in (NOW, None)
    )
    assert codes.revoke(book.db, 2, by=CAROL) and not codes.revoke(book.db, 2)
    for code in (old, revoked):
        with pytest.raises(codes.CodeRefused):
            codes.redeem(book.db, ALICE, code, NOW)
    assert book.balance(ALICE) == Pockets(0, 0, 0)


def test_a_redeemed_code_sent_again_with_its_key_gives_the_same_answer(book):
    code, other = codes.make(book.db, "grant", 2, amount=5)
    assert codes.redeem(book.db, ALICE, code, key="k") == codes.redeem(
        book.db, ALICE, code.lower(), key="k"
    )
    with pytest.raises(billing.KeyReused):
        codes.redeem(book.db, ALICE, other, key="k")
    assert book.balance(ALICE).grant == 5


@pytest.mark.parametrize(
    "kind, terms",
    [
        ("wallet", {}),
        ("wallet", {"amount": 0}),
        ("wallet", {"amount": -5}),
        ("gold", {"amount": 5}),
        ("plan", {"plan": "pro"}),
        ("wallet", {"amount": 5, "count": 0}),
        ("wallet", {"amount": 5, "count": 10**6}),
    ],
)
def test_codes_that_make_no_sense_are_not_made(book, kind, terms):
    with pytest.raises(ValueError):
        codes.make(book.db, kind, **terms)


@pytest.mark.parametrize(
    "kind, most",
    [
        ("wallet", {"amount": AMOUNT_MAX}),
        ("grant", {"amount": 1}),
        ("plan", {"plan": "pro", "quota": 0, "days": 36_500}),
        ("plan", {"plan": "pro", "quota": AMOUNT_MAX, "days": 1}),
    ],
)
def test_a_code_may_be_worth_the_least_and_the_most(book, kind, most):
    assert len(codes.make(book.db, kind, **most)) == 1
    over = {name: value + 1 for name, value in most.items() if value in (AMOUNT_MAX, 36_500)}
    if over:
        with pytest.raises(ValueError, match=r"amount above zero|from 1 to 36,500 days"):
            codes.make(book.db, kind, **most | over)


def test_as_many_codes_as_promised_are_made_at_once(book):
    assert len(codes.make(book.db, "grant", codes.MADE_MAX, amount=1)) == codes.MADE_MAX
    with pytest.raises(ValueError, match="from 1 to 10000 codes"):
        codes.make(book.db, "grant", codes.MADE_MAX + 1, amount=1)


def test_making_and_revoking_codes_is_in_the_trail(book):
    codes.make(book.db, "plan", 2, plan="pro", quota=5, days=3, by=CAROL, now=NOW)
    (code,) = codes.make(book.db, "wallet", amount=5, by=CAROL, now=NOW + 1)
    codes.revoke(book.db, 3, by=CAROL, now=NOW + 2)
    row = {"by": "carol", "target": None}
    hint = f"{code[:4]}…{code[-4:]}"
    assert [{k: v for k, v in each.items() if k != "id"} for each in audit.trail(book.db)] == [
        row | {"at": NOW + 2, "action": "code.revoke", "detail": {"code": hint}},
        row
        | {
            "at": NOW + 1,
            "action": "code.make",
            "detail": {"kind": "wallet", "count": 1, "amount": 5, "plan": None},
        },
        row
        | {
            "at": NOW,
            "action": "code.make",
            "detail": {"kind": "plan", "count": 2, "amount": None, "plan": "pro"},
        },
    ]


def test_the_list_and_the_row_agree_on_the_state_of_a_code(book):
    used, *_rest = codes.make(book.db, "grant", 2, amount=5, now=NOW, note="Spring")
    codes.make(book.db, "grant", amount=5, now=NOW, expires_at=NOW + 1)
    codes.redeem(book.db, ALICE, used, NOW)
    codes.revoke(book.db, 2, now=NOW)
    for now, third in ((NOW, "unused"), (NOW + 1, "expired")):
        expected = {1: "redeemed", 2: "revoked", 3: third}
        assert {row["id"]: codes.state_of(row, now) for row in listed(book)} == expected
        for state in codes.STATES:
            fits = {code for code, its in expected.items() if its == state}
            assert {row["id"] for row in listed(book, state, now)} == fits, state
    assert [row["id"] for row in codes.still_unused(book.db, [1, 2, 3])] == [3]
    used = listed(book)[-1]
    assert (used["redeemed_by"], used["redeemed_at"], used["created_at"], used["note"]) == (
        "alice",
        NOW,
        NOW,
        "Spring",
    )
    (entry,) = book.entries(ALICE)
    assert entry["note"] == f"code {used['hint']}" and entry["kind"] == "redeem"
