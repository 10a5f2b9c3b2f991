"""The kinds that providers bill: read from their own words, priced, and proved.

The usage objects are those of the providers' documents; what each must cost is computed here anew,
with decimals, from the price lists as people write them.
"""

import re
import shutil
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import billing
import db
import pricing
from billing import Ending, Pockets, Price, Usage, split
from db import Database
from db.migrations import MIGRATIONS
from db.schema import APPLICATION_ID
from members import call_rows
from relay.catalog import price_of
from relay.ending import merged, trusted
from relay.wires import chat
from relay.wires.messages import native as messages
from relay.wires.messages.answer import usage_of
from relay.wires.responses import answer as responses_answer
from relay.wires.responses import native as responses
from tests.db.schema import digest
from tests.money.ledger_book import ALICE, BOB, NOW, open_book

# What providers say, and what it is.
GOLDEN = [
    (
        "alibaba, implicit cache",
        chat,
        {
            "prompt_tokens": 3019,
            "completion_tokens": 104,
            "prompt_tokens_details": {"cached_tokens": 2048},
        },
        Usage(3019, 2048, 104),
    ),
    (
        "alibaba, an explicit cache is made",
        chat,
        {
            "prompt_tokens": 1605,
            "completion_tokens": 10,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_creation_input_tokens": 1500,
                "cache_creation": {"ephemeral_5m_input_tokens": 1500},
                "cache_type": "ephemeral",
            },
        },
        Usage(1605, 0, 10, 0, 1500),
    ),
    (
        "alibaba, an explicit cache is hit",
        chat,
        {
            "prompt_tokens": 1605,
            "completion_tokens": 10,
            "prompt_tokens_details": {
                "cached_tokens": 1500,
                "cache_creation_input_tokens": 0,
                "cache_type": "ephemeral",
            },
        },
        Usage(1605, 1500, 10, 1500),
    ),
    (
        "deepseek",
        chat,
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
        },
        Usage(100, 64, 20),
    ),
    (
        "moonshot",
        chat,
        {"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 64},
        Usage(100, 64, 20),
    ),
    (
        "anthropic's shape, both writes",
        messages,
        {
            "input_tokens": 10,
            "output_tokens": 7,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 60,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40},
        },
        Usage(170, 100, 7, 100, 20, 40),
    ),
    (
        "anthropic's shape, the sum alone",
        messages,
        {"input_tokens": 10, "output_tokens": 7, "cache_creation_input_tokens": 60},
        Usage(70, 0, 7, 0, 60),
    ),
    (
        "anthropic's shape, the parts alone",
        messages,
        {
            "input_tokens": 10,
            "output_tokens": 7,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40},
        },
        Usage(70, 0, 7, 0, 20, 40),
    ),
    (
        "deepseek searches and fetches",
        messages,
        {
            "input_tokens": 10,
            "output_tokens": 7,
            "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 1},
        },
        Usage(10, 0, 7, searches=4),
    ),
    (
        "responses",
        responses,
        {
            "input_tokens": 100,
            "output_tokens": 7,
            "input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
        },
        Usage(100, 30, 7, 0, 20),
    ),
]


@pytest.mark.parametrize(
    ("wire", "used", "usage"), [row[1:] for row in GOLDEN], ids=[row[0] for row in GOLDEN]
)
def test_each_provider_is_read_into_kinds(wire, used, usage):
    assert wire.usage({"usage": used}) == usage
    assert (
        sum(usage.by_kind().values()) == usage.input_tokens + usage.output_tokens + usage.searches
    )


@pytest.mark.parametrize("value", [None, -1, "3", True, 1.5, [], float("nan")])
def test_a_count_that_is_none_is_nothing(value):
    used = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": value},
        "prompt_tokens_details": {
            "cached_tokens": value,
            "cache_creation_input_tokens": value,
            "cache_type": value,
        },
        "server_tool_use": {"web_search_requests": value},
    }
    assert chat.usage({"usage": used}) == Usage(10, 0, 5)


def test_a_call_of_moonshots_search_is_one_search_plain_and_streamed():
    call = {"index": 0, "id": "c", "function": {"name": "$web_search", "arguments": "{}"}}
    used = {"prompt_tokens": 10, "completion_tokens": 5}
    answer = {"choices": [{"message": {"tool_calls": [call]}}], "usage": used}
    assert chat.usage(answer) == Usage(10, 0, 5, searches=1)
    first = chat.usage({"choices": [{"delta": {"tool_calls": [call]}}]})
    last = chat.usage({"choices": [], "usage": used})
    assert merged(merged(None, first), last) == Usage(10, 0, 5, searches=1)


@pytest.mark.parametrize("first", [None, 0, -1, "64"])
def test_a_zero_in_one_field_does_not_hide_what_the_other_says(first):
    used = {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": first, "cache_creation_input_tokens": first},
        "prompt_cache_hit_tokens": 64,
        "cache_creation_input_tokens": 30,
    }
    assert chat.usage({"usage": used}) == Usage(100, 64, 20, 0, 30)


# ---- the ends of streams


def delta(**used):
    return messages.usage({"type": "message_delta", "usage": used})


START = messages.usage(
    {
        "type": "message_start",
        "message": {
            "usage": {
                "input_tokens": 10,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 60,
                "output_tokens": 1,
            }
        },
    }
)


@pytest.mark.parametrize(
    "end",
    [
        {"output_tokens": 7},
        {"output_tokens": 7, "input_tokens": 10},
        {"output_tokens": 7, "input_tokens": 0, "cache_read_input_tokens": 0},
        {"output_tokens": 7, "cache_read_input_tokens": 100},
        {"output_tokens": 7, "input_tokens": 10, "cache_read_input_tokens": 100},
        {
            "output_tokens": 7,
            "input_tokens": 10,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 60,
        },
    ],
)
def test_whatever_the_end_of_a_stream_repeats_the_kinds_stand(end):
    assert merged(START, delta(**end)) == Usage(170, 100, 7, 100, 60)


def test_an_end_that_corrects_is_believed():
    end = delta(
        input_tokens=20, cache_read_input_tokens=90, cache_creation_input_tokens=5, output_tokens=7
    )
    assert merged(START, end) == Usage(115, 90, 7, 90, 5)


def test_parts_that_are_more_than_the_whole_are_cut_and_noted():
    usage, source, note = trusted(
        Usage(100, 80, 5, 90, 70, 60, 10**9), lambda: Usage(1, 0, 1), Usage(1000, 0, 100)
    )
    assert usage == Usage(100, 80, 5, 80, 0, 20, 1000) and source == "upstream"
    assert note == ", ".join(
        f"{name} clamped"
        for name in (
            "cache_read_tokens",
            "cache_write_tokens",
            "cache_write_1h_tokens",
            "searches",
        )
    )


# ---- told back


def test_anthropics_clients_see_what_was_written_and_read_over_the_hub():
    told = usage_of(GOLDEN[1][2], Usage(1, 0, 1))
    assert told["cache_creation_input_tokens"] == 1500 and told["input_tokens"] == 105
    told = usage_of(GOLDEN[2][2], Usage(1, 0, 1))
    assert told["cache_read_input_tokens"] == 1500 and told["input_tokens"] == 105
    assert messages.usage({"usage": told}) == Usage(1605, 1500, 10, 1500)


def test_writes_for_an_hour_are_told_apart():
    used = GOLDEN[0][2] | {
        "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 40}
    }
    told = usage_of(used, Usage(1, 0, 1))
    assert told["cache_creation"] == used["cache_creation"]
    assert messages.usage({"usage": told}).cache_write_1h_tokens == 40


def test_responses_tells_what_was_written():
    details = responses_answer.usage(GOLDEN[1][2])["input_tokens_details"]
    assert details == {"cached_tokens": 0, "cache_write_tokens": 1500}


# ---- the price


PER_MILLION = st.integers(0, 10**8).map(lambda n: Decimal(n) / 1000)
SOMETIMES = st.none() | PER_MILLION
LISTS = st.fixed_dictionaries(
    {
        "input": PER_MILLION,
        "cached": SOMETIMES,
        "output": PER_MILLION,
        "cache_read": SOMETIMES,
        "cache_write": SOMETIMES,
        "cache_write_1h": SOMETIMES,
        "search": SOMETIMES,
    }
)
PART = st.integers(0, 10**6)


@st.composite
def uses(draw):
    plain, hit, read, write, write_1h, output, searches = (draw(PART) for _ in range(7))
    return Usage(
        plain + hit + read + write + write_1h, hit + read, output, read, write, write_1h, searches
    )


def invoice(usage: Usage, prices: dict) -> Decimal:
    """Yuan, as a provider's invoice has them: kind by kind, by hand."""

    def first(*kinds):
        return next(prices[kind] for kind in kinds if prices[kind] is not None)

    million, search = Decimal(1_000_000), prices["search"] or Decimal(0)
    writes = usage.cache_write_tokens + usage.cache_write_1h_tokens
    plain = usage.input_tokens - usage.cached_tokens - writes
    hits = usage.cached_tokens - usage.cache_read_tokens
    return (
        plain * prices["input"] / million
        + hits * first("cached", "input") / million
        + usage.cache_read_tokens * first("cache_read", "cached", "input") / million
        + usage.cache_write_tokens * first("cache_write", "input") / million
        + usage.cache_write_1h_tokens * first("cache_write_1h", "cache_write", "input") / million
        + usage.output_tokens * prices["output"] / million
        + usage.searches * search / 1000
    )


@given(uses(), LISTS, st.integers(0, 10**7))
def test_a_cost_is_the_invoices_and_the_pockets_pay_it(usage, prices, grant):
    price = price_of(SimpleNamespace(**prices))
    assert Decimal(price.cost(usage)) == invoice(usage, prices) * billing.NANO
    paid = split(usage, price, Pockets(0, 0, 0))
    assert paid == Pockets(0, 0, price.cost(usage))
    paid, lines = split(usage, price, Pockets(grant, 0, 0)), pricing.lines(usage, price, grant)
    if not price.free:
        assert paid.wallet == sum(line.cost for line in lines)
        assert paid.grant == min(grant, usage.input_tokens + usage.output_tokens)
        assert paid.wallet >= usage.searches * price.search


@pytest.mark.parametrize(
    ("usage", "prices", "yuan"),
    [  # Alibaba: creation 125 %, a hit of it 10 %, an implicit hit 20 %
        (Usage(12_000, 0, 0, 0, 12_000), {"cache_write": "3.125"}, "0.0375"),
        (Usage(12_000, 12_000, 0, 12_000), {"cache_read": "0.25"}, "0.003"),
        (Usage(12_000, 12_000, 0), {"cache_read": "0.25"}, "0.006"),
        (Usage(12_000, 0, 0, 0, 0, 12_000), {"cache_write": "3.125"}, "0.0375"),
        (Usage(12_000, 0, 0, 0, 0, 12_000), {"cache_write_1h": "5"}, "0.06"),
        (Usage(0, 0, 0, searches=10), {"search": "5"}, "0.05"),  # DeepSeek
    ],
)
def test_what_the_providers_documents_say_is_what_is_charged(usage, prices, yuan):
    usual = dict.fromkeys(pricing.KINDS) | {"input": "2.5", "cached": "0.5", "output": "10"}
    given_prices = {
        kind: None if each is None else Decimal(each) for kind, each in (usual | prices).items()
    }
    assert price_of(SimpleNamespace(**given_prices)).cost(usage) == billing.nano(yuan)


def test_a_plans_discount_holds_for_every_kind():
    prices = SimpleNamespace(**{kind: Decimal(10) for kind in pricing.KINDS})
    price = price_of(prices, Decimal("0.8"))
    assert price.by_kind() == dict.fromkeys(pricing.KINDS, 8_000) | {"search": 8_000_000}


def test_the_grant_pays_writes_before_hits_and_never_a_search():
    price = Price(1, 1, 1, search=100)
    usage = Usage(40, 10, 10, 5, 10, 10, searches=2)
    assert split(usage, price, Pockets(10**6, 0, 0)) == Pockets(50, 0, 200)
    unlike = Price(100, 7, 9, cache_write=50, cache_write_1h=60)
    assert split(usage, unlike, Pockets(20, 0, 0)).wallet == 10 * 60 + 10 * 7 + 10 * 9


def test_a_search_alone_costs_where_llm_tokens_are_free():
    assert not Price(0, 0, 0, search=1).free
    assert not Price(0, 0, 0, cache_write_1h=1).free
    assert not Price(0, 0, 0, ((10, Price(0, 0, 0, search=1)),)).free
    assert Price(0, 0, 0).free


def test_the_highest_price_is_that_of_every_kind():
    tier = Price(5, 5, 5, cache_read=1, cache_write=90, search=3)
    highest = Price(1, 2, 9, ((10, tier),), cache_write_1h=70).highest()
    assert highest.by_kind() == {
        "input": 5,
        "cached": 5,
        "output": 9,
        "cache_read": 2,
        "cache_write": 90,
        "cache_write_1h": 90,
        "search": 3,
    }


# ---- the ledger, and what an older one becomes


def test_every_kind_is_on_the_row_in_the_roll_up_and_in_the_proof(tmp_path):
    book = open_book(tmp_path)
    book.give(ALICE, wallet="10", grant=30)
    price = Price(20, 4, 80, cache_read=2, cache_write=25, cache_write_1h=40, search=500)
    usage = Usage(100, 40, 7, 15, 20, 10, 3)
    call_id = book.hold(ALICE, usage, price)
    end = Ending("complete", 200, usage, "upstream", upstream_cost=4321)
    billing.close(book.db, call_id, end, price, NOW)
    (row,) = call_rows.listed(book.db, call_rows.CallFilter())
    assert tuple(row[name] for name in pricing.COUNTS) == usage.counts()
    assert {kind: row[f"price_{kind}"] for kind in pricing.KINDS} == price.by_kind()
    assert (row["cost"], row["upstream_cost"]) == (price.cost(usage), 4321)
    daily = book.db.read().execute("SELECT * FROM daily").fetchone()
    assert tuple(daily[name] for name in pricing.COUNTS) == usage.counts()
    assert daily["upstream_cost"] == 4321 and book.is_right()
    book.db.close()


@pytest.mark.parametrize("column", [*pricing.COUNTS, *billing.PRICES, "upstream_cost"])
def test_the_proof_sees_each_column_that_is_off(tmp_path, column):
    book = open_book(tmp_path)
    book.give(ALICE, wallet="10")
    price = Price(20, 4, 80, cache_read=2, cache_write=25, cache_write_1h=40, search=500)
    usage = Usage(100, 40, 7, 15, 20, 10, 3)
    end = Ending("complete", 200, usage, "upstream", upstream_cost=4321)
    billing.close(book.db, book.hold(ALICE, usage, price), end, price, NOW)
    down = -1 if column in ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens") else 1
    down = -1 if column == "cache_read_tokens" else down
    book.db.write(lambda conn: conn.execute(f"UPDATE requests SET {column} = {column} + {down}"))
    assert billing.verify(book.db)
    book.db.close()


def version_1(path: Path) -> None:
    """A file as version 1 wrote it: a month of calls, charged, refused, broken off and open."""
    schema = (Path(__file__).parents[1] / "db" / "version_1.sql").read_text(encoding="utf-8")
    with closing(db.sqlite3.connect(path, isolation_level=None)) as conn:
        conn.executescript(schema)
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute("PRAGMA user_version = 1")
        for user_id, name in ((ALICE, "alice"), (BOB, "bob")):
            conn.execute(
                "INSERT INTO users (id, name, name_key, password, session_epoch, invite_code,"
                " created_at) VALUES (?, ?, ?, 'x', 'e', ?, ?)",
                (user_id, name, name, f"invite-{name}", NOW),
            )
            conn.execute(
                "INSERT INTO tokens (id, user_id, name, digest, hint, created_at)"
                " VALUES (?, ?, 'home', ?, 'sk-a...b', ?)",
                (user_id, user_id, name.encode(), NOW),
            )
            conn.execute(
                "INSERT INTO entries (user_id, pocket, kind, amount, balance_after, created_at)"
                " VALUES (?, 'wallet', 'top_up', 1000000000, 1000000000, ?)",
                (user_id, NOW),
            )
        for number in range(60):
            _call_of_version_1(conn, number)


def _call_of_version_1(conn, number: int) -> None:
    user_id, at = ALICE + number % 2, NOW + number * 43_200_000
    call_id = f"{call_rows.first_id(at)}{number:020x}"
    conn.execute(
        "INSERT INTO requests (id, user_id, token_id, wire, model, stream, day, started_at,"
        " price_input, price_cached, price_output, hold_wallet)"
        " VALUES (?, ?, ?, 'chat', 'qwen3-max', 1, date(? / 1000, 'unixepoch'), ?, 20, 2, 80, 9000)",
        (call_id, user_id, user_id, at, at),
    )
    if number == 59:
        return  # it was open when the process ended
    used, cached, output = (100 + number, number, 10) if number % 7 else (None, None, None)
    cost = (100 * 20 + number * 2 + 10 * 80) if used else 0
    conn.execute(
        "UPDATE requests SET closed_at = started_at + 900, outcome = ?, status = 200,"
        " input_tokens = ?, cached_tokens = ?, output_tokens = ?, cost = ?, charged_wallet = ?"
        " WHERE id = ?",
        ("complete" if used else "failed", used, cached, output, cost, cost, call_id),
    )
    if cost:
        conn.execute(
            "INSERT INTO entries (user_id, pocket, kind, amount, balance_after, request_id,"
            " created_at) SELECT ?1, 'wallet', 'charge', -?2, wallet_balance - ?2, ?3, ?4"
            " FROM balances WHERE user_id = ?1",
            (user_id, cost, call_id, at),
        )


needs_tokens_of_version_1 = pytest.mark.skipif(
    db.sqlite3.sqlite_version_info < (3, 42),
    reason="version 1 itself can make no API token with an SQLite as old as this",
)


@needs_tokens_of_version_1
def test_a_file_of_version_1_opens_and_says_what_it_said(tmp_path):
    path = tmp_path / "relay.db"
    version_1(path)
    shutil.copy(path, tmp_path / "before.db")
    with closing(db.sqlite3.connect(tmp_path / "before.db")) as conn:
        balances = conn.execute("SELECT * FROM balances").fetchall()
        calls = conn.execute("SELECT * FROM requests ORDER BY id").fetchall()
        days = conn.execute("SELECT * FROM daily").fetchall()
    with closing(Database(path)) as database:
        assert billing.verify(database) == []
        read = database.read().execute
        assert [tuple(row) for row in read("SELECT * FROM balances")] == [
            (*row, None) for row in balances
        ]
        new = [tuple(row) for row in read("SELECT * FROM requests ORDER BY id")]
        assert [row[: len(calls[0])] for row in new] == calls
        assert {row[len(calls[0]) :] for row in new} == {(*(None,) * 11, *(0,) * 5)}
        daily = [tuple(row) for row in read("SELECT * FROM daily")]
        assert [row[: len(days[0])] for row in daily] == days
        assert billing.release_orphans(database) == 1 and billing.verify(database) == []
        usage, price = Usage(100, 40, 7, 15, 20, 10, 3), Price(20, 4, 80, search=500)
        call = replace(open_call(database, usage, price), id=call_rows.first_id(NOW) + "f" * 20)
        assert call and billing.verify(database) == []
    kept = tmp_path / "relay.db.version-1"
    with closing(db.sqlite3.connect(kept)) as conn:
        assert conn.execute("SELECT * FROM requests ORDER BY id").fetchall() == calls


def open_call(database, usage, price):
    """A call of today in an older file, charged; returns it."""
    call = billing.Call(
        id=f"{call_rows.first_id(NOW)}{'e' * 20}",
        user_id=ALICE,
        token_id=ALICE,
        wire="chat",
        model="qwen3-max",
        stream=False,
        started_at=NOW,
        day="2026-11-18",
    )
    billing.hold(database, call, usage, price)
    billing.close(database, call.id, Ending("complete", 200, usage, "upstream"), price, NOW)
    return call


@needs_tokens_of_version_1
def test_a_migrated_file_has_the_schema_of_a_new_one(tmp_path):
    version_1(tmp_path / "old.db")
    shapes = []
    for name in ("old.db", "new.db"):
        with closing(Database(tmp_path / name)) as database:
            read = database.read().execute
            tables = [row[0] for row in read("SELECT name FROM sqlite_schema WHERE type = 'table'")]
            columns = {
                table: [tuple(row) for row in read(f"PRAGMA table_info({table})")]
                for table in sorted(tables)
            }
            laws = read(
                "SELECT name, sql FROM sqlite_schema WHERE type IN ('trigger', 'index') ORDER BY name"
            )
            shapes.append((columns, [tuple(row) for row in laws]))
    assert shapes[0] == shapes[1]


@needs_tokens_of_version_1
@pytest.mark.parametrize("version", range(2, len(MIGRATIONS) + 1))
def test_a_file_of_each_version_opens(tmp_path, version):
    """Each release stopped at a version of its own: the steps behind it begin there."""
    path = tmp_path / "relay.db"
    version_1(path)
    with closing(db.sqlite3.connect(path, isolation_level=None)) as conn:
        conn.row_factory = db.sqlite3.Row
        for step in MIGRATIONS[: version - 1]:
            step(conn)
        conn.execute(f"PRAGMA user_version = {version}")
    with closing(Database(path)) as database:
        billing.release_orphans(database)
        assert billing.verify(database) == []  # which holds the triggers against models.sql


def checks(database, table: str) -> list[str]:
    """What the rows of a table are checked for, however it is laid out."""
    (sql,) = (
        database.read().execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    )
    bare = " ".join(re.sub(r"--[^\n]*", "", sql).split())
    return sorted(re.findall(r"CHECK \(\w+ = '[^()]*\)", bare))


@needs_tokens_of_version_1
@pytest.mark.parametrize("table", ["entries", "requests"])
def test_a_migrated_file_checks_as_cheaply_as_a_new_one(tmp_path, table):
    version_1(tmp_path / "old.db")
    with (
        closing(Database(tmp_path / "old.db")) as old,
        closing(Database(tmp_path / "new.db")) as new,
    ):
        assert checks(old, table) == checks(new, table) != []
        assert old.read().execute("PRAGMA integrity_check").fetchone()[0] == "ok"


@needs_tokens_of_version_1
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE requests SET outcome = 'lost'",
        "UPDATE requests SET usage_source = 'guess'",
        (
            "INSERT INTO entries (user_id, pocket, kind, amount, balance_after, created_at)"
            " VALUES (1, 'purse', 'top_up', 5, 5, 0)"
        ),
        (
            "INSERT INTO entries (user_id, pocket, kind, amount, balance_after, created_at)"
            " VALUES (1, 'grant', 'gift', 5, 5, 0)"
        ),
    ],
    ids=["outcome", "usage_source", "pocket", "kind"],
)
@pytest.mark.parametrize("age", ["old", "new"])
def test_no_file_takes_a_word_that_is_none(tmp_path, age, statement):
    if age == "old":
        version_1(tmp_path / "relay.db")
    with closing(Database(tmp_path / "relay.db")) as database:
        if age == "new":
            database.write(_alice_with_a_call)
        with pytest.raises(db.IntegrityError, match="CHECK constraint failed"):
            database.write(lambda conn: conn.execute(statement))


def _alice_with_a_call(conn) -> None:
    conn.execute(
        "INSERT INTO users (id, name, name_key, password, session_epoch, invite_code, created_at)"
        " VALUES (1, 'alice', 'alice', 'x', 'e', 'i', 0)"
    )
    conn.execute(
        "INSERT INTO tokens (id, user_id, name, digest, hint, created_at)"
        " VALUES (1, 1, 'home', x'00', 'sk', 0)"
    )
    conn.execute(
        "INSERT INTO requests (id, user_id, token_id, wire, stream, day, started_at, closed_at,"
        " outcome) VALUES ('r', 1, 1, 'chat', 0, '2026-11-18', 0, 1, 'refused')"
    )


def test_the_schema_is_that_of_its_version():
    """Whoever changes models.sql writes a migration, and then the new digest here."""
    digests = {
        2: "acfc78f4852340f0",
        3: "94b8562558a99b93",
        4: "8b3e750470de4ca1",
        5: "78f59b6e816bf607",
        6: "8a18262a9271a038",
        7: "d3ccfa89aca9480c",
    }
    assert digests[len(MIGRATIONS) + 1] == digest()
