"""A provider's month: what it bills, and an invoice held beside it."""

import csv
import io
import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import billing
from billing import Ending, Price, Usage
from members import call_rows
from relay import bill as bills
from relay.catalog import Catalog
from tests.money.ledger_book import ALICE, DAY, open_book
from tests.settings.test_settings import check
from tests.stage import flask, write_config

MONTH = "2026-11"
FIRST = int(datetime(2026, 11, 1, 2, tzinfo=UTC).timestamp() * 1000)
PRICES = {
    "input": "2.5",
    "cached": "0.5",
    "cache_read": "0.25",
    "cache_write": "3.125",
    "output": "10",
    "search": "5",
}
PRICE = Price(2500, 500, 10_000, cache_read=250, cache_write=3125, search=5_000_000)
CONFIG = {
    "plans": {"free": {"discount": "0.8"}},
    "upstreams": [{"name": "qwen", "base_url": "https://qwen.example/v1", "api_key": "k"}],
    "models": [
        {
            "id": "qwen3-max",
            "routes": [{"upstream": "qwen", "model": "qwen-max-latest"}],
            "prices": PRICES,
        }
    ],
}
MEMBERS = Price(2000, 400, 8_000, cache_read=200, cache_write=2500, search=4_000_000)


@pytest.fixture
def catalog():
    return Catalog(check(**CONFIG))


@pytest.fixture
def book(tmp_path):
    book = open_book(tmp_path)
    book.give(ALICE, wallet="1000")
    yield book
    book.db.close()


def called(book, at, usage, cost=..., *, attempts=None, note=None, price=MEMBERS):
    """A call that `qwen` answered."""
    call_id = book.hold(ALICE, Usage(1, 0, 1), price, at=at)
    mine = {"upstream": "qwen", "model": "qwen-max-latest", "status": 200, "ms": 5}
    end = Ending(
        "complete" if usage else "failed",
        200,
        usage,
        "upstream" if usage else "none",
        note,
        upstream="qwen",
        attempts=[*(attempts or []), mine],
        upstream_cost=PRICE.cost(usage) if cost is ... else cost,
    )
    billing.close(book.db, call_id, end, price, at + 500)
    return call_id


def month(book, catalog):
    return bills.of(book.db, catalog, "qwen", MONTH, "UTC")


def test_a_month_stands_there_by_day_model_and_kind(book, catalog):
    usage = Usage(1000, 500, 70, 100, 200, 0, 3)
    called(book, FIRST, usage)
    called(book, FIRST + DAY, Usage(10, 0, 1))
    called(book, FIRST - DAY, Usage(10, 0, 1))
    called(book, FIRST + 30 * DAY, Usage(10, 0, 1))
    found = month(book, catalog)
    assert found.calls == 2 and not found.forgotten
    day = {kind: line for (day, _, kind), line in found.lines.items() if day == "2026-11-01"}
    assert {kind: line.count for kind, line in day.items()} == {
        kind: count for kind, count in usage.by_kind().items() if count
    }
    assert {kind: line.upstream_cost for kind, line in day.items()} == {
        "input": 300 * 2500,
        "cache_write": 200 * 3125,
        "cached": 400 * 500,
        "cache_read": 100 * 250,
        "output": 70 * 10_000,
        "search": 15_000_000,
    }
    assert day["search"].charged == 12_000_000
    assert {model for _, model, _ in found.lines} == {"qwen-max-latest"}
    assert found.total.upstream_cost == PRICE.cost(usage) + PRICE.cost(Usage(10, 0, 1))
    assert found.total.charged == MEMBERS.cost(usage) + MEMBERS.cost(Usage(10, 0, 1))


def test_a_price_that_has_changed_since_leaves_the_sum_as_it_was(book, catalog):
    called(book, FIRST, Usage(10, 0, 1), 777)
    (((_, _, kind), line),) = month(book, catalog).lines.items()
    assert (kind, line.upstream_cost) == (bills.UNDIVIDED, 777)


def test_what_nobody_paid_stands_apart(book, catalog):
    cut = {"upstream": "qwen", "model": "qwen-max-latest", "status": 200, "error": "upstream_error"}
    dead = cut | {"status": 503}
    called(book, FIRST, None, 500)
    called(book, FIRST, Usage(10, 0, 1), attempts=[cut, dead, cut | {"upstream": "other"}])
    found = month(book, catalog)
    assert [line.upstream_cost for line in found.unpaid.values()] == [500]
    assert dict(found.attempts) == {("2026-11-01", "qwen-max-latest", "upstream_error"): 1}


def test_what_is_not_known_is_said(book, catalog):
    called(book, FIRST, Usage(10, 0, 1), None)
    called(book, FIRST, Usage(10, 0, 1), note="input_tokens estimated")
    found = month(book, catalog)
    assert (found.calls, found.unpriced, found.noted) == (2, 1, 1)
    call_rows.forget(book.db, 1, now=FIRST + 3 * DAY)
    assert month(book, catalog).forgotten


def replayed(book, count=1000):
    """An invoice of so many random calls, a row each, and the calls in the book."""
    dice, lines = random.Random(7), []
    for number in range(count):
        at = FIRST + number * 2_000_000
        write, hit = dice.randrange(3000), dice.randrange(9000)
        usage = Usage(
            write + hit + dice.randrange(20_000),
            hit,
            dice.randrange(4000),
            dice.choice([0, hit]),
            write,
            searches=dice.choice([0, 0, 2]),
        )
        called(book, at, usage)
        day = datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")
        for kind, used in usage.by_kind().items():
            if used:
                price = Decimal(PRICES.get(kind, "2.5"))
                each = price / 1000 if kind == "search" else price / 1_000_000
                lines.append([day, "qwen-max-latest", kind, used, used * each])
    return lines


HEAD = ["日期", "模型", "计费项", "用量", "金额"]


def as_csv(lines):
    text = io.StringIO()
    csv.writer(text).writerows([HEAD, *lines])
    return text.getvalue()


def test_an_invoice_of_a_thousand_calls_agrees_and_planted_differences_are_found(book, catalog):
    lines, found = replayed(book), None
    found = month(book, catalog)
    theirs = bills.invoice(io.StringIO(as_csv(lines)), {})
    assert bills.differences(found, theirs) == []
    planted = {
        lines[11][0]: ("input", Decimal("0.05")),
        lines[2500][0]: ("output", Decimal("-0.02")),
    }
    for day, (kind, more) in planted.items():
        next(line for line in lines if line[0] == day and line[2] == kind)[4] += more
    lines.append(["2026-11-29", "qwen-vl", "input", 5, Decimal("1.5")])
    differing = bills.differences(found, bills.invoice(io.StringIO(as_csv(lines)), {}))
    assert {(each.day, each.kind): each.theirs - each.ours for each in differing} == {
        (day, kind): int(more * billing.NANO) for day, (kind, more) in planted.items()
    } | {("2026-11-29", "input"): 1_500_000_000}


def test_an_invoice_that_tells_less_is_held_against_less(book, catalog):
    called(book, FIRST, Usage(1000, 0, 100))
    called(book, FIRST + 1, Usage(1000, 0, 100))
    found = month(book, catalog)
    text = "date,amount\n2026/11/1,¥0.0035\n20261101,0.0035\n2026-12-01,99\n"
    assert bills.differences(found, bills.invoice(io.StringIO(text), {})) == []
    text = "when,cost\n2026-11-01 10:00:00,0.5\n"
    (one,) = bills.differences(found, bills.invoice(io.StringIO(text), {"day": "when"}))
    assert (one.day, one.model, one.kind, one.theirs) == ("2026-11-01", "", "", 500_000_000)


@pytest.mark.parametrize(
    ("text", "columns", "said"),
    [
        ("", {}, "no column for the day"),
        ("day,money\n", {}, "--amount-column"),
        ("day,amount\n", {"day": "when"}, "no column 'when'"),
        ("day,amount\nyesterday,1\n", {}, "line 2: 'yesterday' is no day"),
        ("day,amount\n2026-02-30,1\n", {}, "is no day"),
        ("day,amount\n2026-11-01,much\n", {}, "line 2: 'much' is no amount"),
        ("day,amount\n2026-11-01,NaN\n", {}, "is no amount"),
        ("day,amount\n2026-11-01\n", {}, "is no amount"),
        ("day,kind,amount\n2026-11-01,magic,1\n", {}, "'magic' is not known"),
    ],
)
def test_an_invoice_that_cannot_be_read_says_where(text, columns, said):
    with pytest.raises(bills.InvoiceError, match=said):
        bills.invoice(io.StringIO(text), columns)


def test_months_end_where_the_sites_days_end():
    since, until = bills.bounds("2026-12", "Asia/Shanghai")
    assert datetime.fromtimestamp(since / 1000, UTC).isoformat() == "2026-11-30T16:00:00+00:00"
    assert datetime.fromtimestamp(until / 1000, UTC).isoformat() == "2026-12-31T16:00:00+00:00"
    for nonsense in ("2026", "2026-13", "x", "2026-11-01"):
        with pytest.raises(ValueError):
            bills.bounds(nonsense, "UTC")


def test_the_command_prints_it_compares_it_and_refuses_nonsense(book, tmp_path):
    called(book, FIRST + 9 * 3_600_000, Usage(1000, 0, 100))
    config = write_config(
        tmp_path, CONFIG | {"database": {"path": str(book.db.path)}, "site": {"timezone": "UTC"}}
    )
    done = flask(config, "bill", "qwen", "--month", MONTH, "--json")
    shown = json.loads(done.stdout)
    assert (shown["upstream_cost"], shown["charged"]) == ("0.003500000", "0.002800000")
    assert [line["kind"] for line in shown["lines"]] == ["input", "output"]
    done = flask(config, "bill", "qwen", "--month", MONTH, "--csv")
    assert done.stdout.splitlines()[0].startswith("day,model,kind,count,upstream_cost")
    invoice = tmp_path / "invoice.csv"
    invoice.write_text("day,type,amount\n2026-11-01,Tokens,0.0035\n")
    words = ["bill", "qwen", "--month", MONTH, "--against", str(invoice)]
    assert "--kind" in flask(config, *words).stderr
    invoice.write_text("﻿day,amount\n2026-11-01,0.0035\n", encoding="utf-8")
    done = flask(config, *words)
    assert (done.returncode, done.stdout) == (0, "The invoice agrees.\n")
    invoice.write_text("day,amount\n2026-11-01,0.5\n")
    done = flask(config, *words)
    assert done.returncode == 1 and "2026-11-01" in done.stdout
    assert flask(config, "bill", "nobody").returncode == 1
    assert flask(config, "bill", "qwen", "--month", "soon").returncode == 2
