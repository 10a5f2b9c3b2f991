"""A ledger to test with: a database, three people, one token each, and calls in few words.

alice and bob are members, carol is an administrator. Amounts in yuan are text, as people write
them.
"""

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime

import billing
from billing import Call, Ending, Pockets, Price, Usage
from db import Database
from members import call_rows, entries

ALICE, BOB, CAROL = 1, 2, 3
NOW = 1_795_000_000_000  # ms; a Wednesday in November 2026
DAY = 86_400_000
PRICE = Price(input=2_000, cached=200, output=8_000)  # ¥2, ¥0.2 and ¥8 per million
TABLES = (
    "users",
    "invites",
    "tokens",
    "balances",
    "entries",
    "subscriptions",
    "codes",
    "operations",
    "requests",
    "daily",
    "daily_teams",
    "audit",
    "meta",
)


@dataclass
class Book:
    db: Database
    numbers: itertools.count = field(default_factory=lambda: itertools.count(1))

    def give(self, user_id: int, wallet: str = "0", grant: int = 0) -> None:
        if billing.nano(wallet):
            kind = "top_up" if billing.nano(wallet) > 0 else "adjust"
            billing.credit(self.db, user_id, "wallet", billing.nano(wallet), kind, now=NOW)
        if grant:
            billing.credit(self.db, user_id, "grant", grant, "reward", now=NOW)

    def call(
        self,
        user_id: int,
        at: int = NOW,
        model: str | None = "qwen3-max",
        call_id: str | None = None,
    ) -> Call:
        return Call(
            id=call_id or f"{call_rows.first_id(at)}{next(self.numbers):020x}",
            user_id=user_id,
            token_id=user_id,
            wire="chat",
            model=model,
            stream=True,
            started_at=at,
            day=datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d"),
        )

    def hold(
        self, user_id: int, usage: Usage, price: Price = PRICE, *, at: int = NOW, overdraft: int = 0
    ) -> str:
        """Open a call; its id."""
        call = self.call(user_id, at)
        billing.hold(self.db, call, usage, price, overdraft)
        return call.id

    def close(
        self,
        call_id: str,
        usage: Usage | None,
        price: Price = PRICE,
        *,
        at: int = NOW,
        outcome: str = "complete",
    ) -> Pockets | None:
        source = "upstream" if usage else "none"
        return billing.close(self.db, call_id, Ending(outcome, 200, usage, source), price, at)

    def balance(self, user_id: int) -> Pockets:
        return billing.balances(self.db, user_id)["balance"]

    def held(self, user_id: int) -> Pockets:
        return billing.balances(self.db, user_id)["held"]

    def entries(self, user_id: int, limit: int = 100, before: int | None = None, **wanted) -> list:
        """The member's statement, newest first."""
        return entries.listed(user_id, **wanted).walk(self.db.read(), before, limit).rows

    def is_right(self) -> bool:
        assert billing.verify(self.db) == []
        return True

    def everything(self) -> dict:
        """All rows of all tables, to see that nothing has changed."""
        return {
            table: [tuple(row) for row in self.db.read().execute(f"SELECT * FROM {table}")]
            for table in TABLES
        }


def open_book(folder, writer: bool = True) -> Book:
    """A new file with the three people in it."""
    database = Database(folder / "relay.db", writer)
    database.write(_people)
    return Book(database)


def _people(conn) -> None:
    for user_id, name, role in (
        (ALICE, "alice", "member"),
        (BOB, "bob", "member"),
        (CAROL, "carol", "admin"),
    ):
        conn.execute(
            "INSERT INTO users (id, name, name_key, password, role, session_epoch, invite_code, created_at)"
            " VALUES (?, ?, ?, 'x', ?, 'e', ?, ?)",
            (user_id, name, name, role, f"invite-{name}", NOW),
        )
        conn.execute(
            "INSERT INTO tokens (id, user_id, name, digest, hint, created_at)"
            " VALUES (?1, ?1, 'test', ?2, '', ?3)",
            (user_id, name.encode(), NOW),
        )
