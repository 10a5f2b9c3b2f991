"""Every operation on money or members either happens whole or not at all, whichever of its
statements fails."""

import itertools

import pytest

import billing
import codes
import plans
from billing import Ending, Usage
from db import StorageError
from members import accounts, call_rows
from tests.money.ledger_book import ALICE, BOB, CAROL, DAY, NOW, PRICE, open_book

SMALL = Usage(1_000, 100, 500)
CODE = {}


class DiskError(Exception):
    """What SQLite raises when the disk fails."""

    sqlite_errorcode = 10


class Failing:
    """A connection whose n-th statement fails, before or after it has done its work."""

    def __init__(self, conn, nth: int, after: bool):
        self._conn, self._nth, self._after, self._count = conn, nth, after, 0

    def execute(self, *args):
        return self._counted(self._conn.execute, args)

    def executemany(self, *args):
        return self._counted(self._conn.executemany, args)

    def _counted(self, act, args):
        self._count += 1
        fails = self._count == self._nth
        if fails and not self._after:
            raise DiskError("injected")
        result = act(*args)
        if fails:
            raise DiskError("injected")
        return result


class FailingDatabase:
    """A database whose every transaction fails at its n-th statement, if it has so many."""

    def __init__(self, database, nth: int, after: bool):
        self._db, self._nth, self._after = database, nth, after
        self.read, self.write_admitting = database.read, self.write

    def write(self, fn, *args):
        return self._db.write(lambda conn: fn(Failing(conn, self._nth, self._after), *args))


def ledger(tmp_path):
    """A ledger in which everything can happen.

    Three pockets filled, a call open, a plan that ends, codes, invites.
    """
    book = open_book(tmp_path)
    book.give(ALICE, wallet="100", grant=300)
    plans.give_plan(book.db, ALICE, "old", quota=500_000, days=1, renew=True, now=NOW - 2 * DAY)
    plans.give_plan(book.db, ALICE, "pro", quota=1_000_000, days=30, renew=True, now=NOW)
    for kind, terms in (
        ("wallet", {"amount": 7}),
        ("grant", {"amount": 7}),
        ("plan", {"plan": "pro", "quota": 9, "days": 3}),
    ):
        (CODE[kind],) = codes.make(book.db, kind, **terms)
    book.db.write(lambda conn: accounts._invited(conn, ALICE, "invite-bob", 50, NOW))
    book.close(book.hold(BOB, Usage(0, 0, 0), at=NOW - 100 * DAY), None)
    billing.hold(book.db, book.call(ALICE, call_id="open"), SMALL, PRICE)
    return book


END = Ending("complete", 200, Usage(2_000, 100, 900), "upstream")
OPERATIONS = {
    "hold": lambda db, book: billing.hold(db, book.call(ALICE, call_id="new"), SMALL, PRICE),
    "close": lambda db, book: billing.close(db, "open", END, PRICE, NOW),
    "refuse": lambda db, book: billing.refuse(
        db, book.call(ALICE, call_id="new"), Ending("refused", 402)
    ),
    "credit": lambda db, book: billing.credit(db, ALICE, "wallet", 5, "adjust", by=CAROL),
    "credit with a key": lambda db, book: billing.credit(db, ALICE, "grant", 5, "reward", key="k"),
    "release orphans": lambda db, book: billing.release_orphans(db),
    "forget": lambda db, book: call_rows.forget(db, 90, NOW),
    "purchase": lambda db, book: plans.purchase(
        db, ALICE, "pro", price=5, quota=9, days=30, key="k"
    ),
    "give a plan": lambda db, book: plans.give_plan(db, ALICE, "pro", quota=9, days=30, by=CAROL),
    "end a plan": lambda db, book: plans.end_plan(db, 2, by=CAROL, now=NOW + 5),
    "stop a renewal": lambda db, book: plans.stop_renewal(db, 2),
    "expire and renew": lambda db, book: plans.expire_due(db, NOW + 40 * DAY),
    "make codes": lambda db, book: codes.make(db, "grant", 3, amount=5),
    "redeem into the wallet": lambda db, book: codes.redeem(db, BOB, CODE["wallet"], key="k"),
    "redeem into the grant": lambda db, book: codes.redeem(db, BOB, CODE["grant"]),
    "redeem a plan": lambda db, book: codes.redeem(db, BOB, CODE["plan"]),
    "revoke a code": lambda db, book: codes.revoke(db, 1, by=CAROL),
    "add a member": lambda db, book: accounts.add(
        db,
        "dora",
        "a-long-password",
        invite="invite-bob",
        signup_reward=5,
        invite_reward=6,
        by=CAROL,
    ),
    "disable": lambda db, book: accounts.disable(db, BOB, by=CAROL),
    "change a role": lambda db, book: accounts.set_role(db, BOB, "admin", by=CAROL),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_it_happens_whole_or_not_at_all_whichever_statement_fails(
    tmp_path, monkeypatch, name, after
):
    monkeypatch.setattr(accounts, "hash_password", lambda password: "x")
    book, operation = ledger(tmp_path), OPERATIONS[name]
    before = book.everything()
    for nth in itertools.count(1):
        try:
            operation(FailingDatabase(book.db, nth, after), book)
        except StorageError:
            assert book.everything() == before, f"statement {nth} left traces"
        else:
            break
    assert nth > 1 and book.everything() != before
    assert book.is_right()
    book.db.close()
