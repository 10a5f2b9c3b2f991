"""What a provider bills for a month, from the rows of calls, and an invoice held beside it.

Owns the sums by day, model and kind, and how an invoice is read and compared. It reads and never
writes. The sum of a call is what stands on its row (`upstream_cost`); how it divides into kinds
follows from the prices that make this sum, today's or those of the row. Where neither does (prices
have changed since), the call's cost is of the kind "undivided".
"""

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from zoneinfo import ZoneInfo

from billing import COUNTS, NANO, PRICES, Price, yuan
from db import Database
from members import call_rows
from pricing import price_of, usage_of
from relay.catalog import Catalog

UNDIVIDED = "undivided"
TOLERANCE = Decimal("0.01")  # yuan: invoices are rounded line by line
ROWS = 2000  # read at once
BOM = "utf-8-sig"

Key = tuple[str, str, str]  # day, the model's name at the provider, kind

# Names of columns that invoices have, in the order in which they are looked for.
COLUMNS = {
    "day": ("day", "date", "日期", "账单日期", "usage_date"),
    "model": ("model", "模型", "model_name", "模型名称"),
    "kind": ("kind", "type", "计费项", "item", "token_type"),
    "amount": ("amount", "cost", "upstream_cost", "金额", "应付金额", "费用"),
}
# What invoices call the kinds.
KIND_WORDS = {
    "input": ("input", "prompt", "输入", "input_tokens", "prompt_tokens"),
    "cached": ("cached", "cache hit", "缓存命中", "cached_tokens", "cached input"),
    "cache_read": ("cache_read", "显式缓存命中", "cache read"),
    "cache_write": ("cache_write", "缓存创建", "cache write", "cache creation"),
    "cache_write_1h": ("cache_write_1h",),
    "output": ("output", "completion", "输出", "output_tokens", "completion_tokens"),
    "search": ("search", "搜索", "web_search", "联网搜索"),
}


class InvoiceError(ValueError):
    """The invoice cannot be read; the message says where and why."""


@dataclass
class Line:
    """One kind of a day and a model: how many, and nano-yuan at the provider and charged."""

    count: int = 0
    upstream_cost: int = 0
    charged: int = 0

    def add(self, count: int, upstream_cost: int, charged: int) -> None:
        self.count += count
        self.upstream_cost += upstream_cost
        self.charged += charged


@dataclass
class Bill:
    """A month of an upstream. `unpaid` are calls that it bills and nobody paid for; `attempts` those
    that it began and another upstream answered: (day, model, error) -> (how many, nano-yuan)."""

    upstream: str
    month: str
    lines: dict[Key, Line] = field(default_factory=lambda: defaultdict(Line))
    unpaid: dict[Key, Line] = field(default_factory=lambda: defaultdict(Line))
    attempts: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    calls: int = 0
    unpriced: int = 0  # calls whose cost at the provider was not known
    noted: int = 0  # calls whose usage was estimated or cut
    forgotten: bool = False  # some of the month's calls are no longer kept

    @property
    def total(self) -> Line:
        whole = Line()
        for line in self.lines.values():
            whole.add(line.count, line.upstream_cost, line.charged)
        return whole


@dataclass(frozen=True)
class Difference:
    """Where an invoice says something else, in nano-yuan. What the invoice does not tell is ""."""

    day: str
    model: str
    kind: str
    ours: int
    theirs: int


def this_month(timezone: str) -> str:
    """The month that is, as YYYY-MM."""
    return datetime.now(ZoneInfo(timezone)).strftime("%Y-%m")


def bounds(month: str, timezone: str) -> tuple[int, int]:
    """The first ms of a month (YYYY-MM) and the first after it. Raises ValueError."""
    first = date.fromisoformat(f"{month}-01")
    after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
    zone = ZoneInfo(timezone)
    since, until = (
        int(datetime(day.year, day.month, 1, tzinfo=zone).timestamp() * 1000)
        for day in (first, after)
    )
    return since, until


CALLS = f"""
SELECT id, day, started_at, model, upstream, attempts, cost, usage_note, usage_source, upstream_cost,
       {", ".join(COUNTS)}, {", ".join(PRICES)}
  FROM requests
 WHERE id >= :since AND id < :until AND closed_at IS NOT NULL
   AND (upstream = :upstream OR instr(attempts, :mention) > 0)
 ORDER BY id LIMIT :rows"""


def of(db: Database, catalog: Catalog, upstream: str, month: str, timezone: str) -> Bill:
    """The bill of a month (YYYY-MM, by the site's days). Raises ValueError for what is no month."""
    since, until = bounds(month, timezone)
    bill = Bill(upstream, month)
    kept = db.one("SELECT value FROM meta WHERE key = 'requests_kept_from'")
    bill.forgotten = kept is not None and kept[0] > (call_rows.first_id(since) or "")
    for row in _calls(db, upstream, since, until):
        attempts = json.loads(row["attempts"])
        if row["upstream"] == upstream:
            _add(bill, row, _name(attempts, upstream) or row["model"] or "", catalog)
            attempts = attempts[:-1]
        for attempt in attempts:
            if attempt.get("upstream") == upstream and _began(attempt):
                bill.attempts[row["day"], attempt["model"], attempt["error"]] += 1
    return bill


def has_answered(db: Database, upstream: str) -> bool:
    """Whether an upstream, perhaps one that is no longer in the settings, has answered calls."""
    return db.one("SELECT 1 FROM requests WHERE upstream = ? LIMIT 1", (upstream,)) is not None


def _calls(db: Database, upstream: str, since: int, until: int) -> Iterator:
    """The calls of a month that an upstream answered or was asked for."""
    last = call_rows.first_id(since)
    mention = f'"upstream":{json.dumps(upstream, ensure_ascii=False)}'
    while True:
        values = {
            "since": last,
            "until": call_rows.first_id(until),
            "upstream": upstream,
            "mention": mention,
            "rows": ROWS,
        }
        rows = db.read().execute(CALLS, values).fetchall()
        yield from rows
        if len(rows) < ROWS:
            return
        last = rows[-1]["id"] + " "  # behind it, before the next


def _name(attempts: list[dict], upstream: str) -> str:
    """What the provider calls the model that answered."""
    names = [each["model"] for each in attempts if each.get("upstream") == upstream]
    return names[-1] if names else ""


def _began(attempt: dict) -> bool:
    """Whether a failed attempt had been answered with 200: the provider bills what it made."""
    return attempt.get("status") == 200 and bool(attempt.get("error"))


def _add(bill: Bill, row, model: str, catalog: Catalog) -> None:
    bill.calls += 1
    bill.noted += row["usage_note"] is not None or row["usage_source"] == "estimated"
    cost = row["upstream_cost"]
    if cost is None:
        bill.unpriced += row["input_tokens"] is not None
        return
    if row["input_tokens"] is None:
        bill.unpaid[row["day"], model, UNDIVIDED].add(1, cost, 0)
        return
    usage, own = usage_of(row), price_of(row)
    made = (price for price in (_listed(catalog, bill.upstream, row), own) if price)
    price = next((price for price in made if price.cost(usage) == cost), None)
    if price is None:
        bill.lines[row["day"], model, UNDIVIDED].add(usage.input_tokens, cost, row["cost"])
        return
    theirs, ours = price.by_kind(), own.by_kind()
    for kind, count in usage.by_kind().items():
        if count:
            line = bill.lines[row["day"], model, kind]
            line.add(count, count * theirs[kind], count * ours[kind])


def _listed(catalog: Catalog, upstream: str, row) -> Price | None:
    """The price that the upstream has for this call in the settings of now."""
    model = catalog.models.get(row["model"])
    for target in model.targets if model else ():
        if target.upstream.name == upstream and target.prices is not None:
            return target.prices.at(row["started_at"]).at(row["input_tokens"])
    return None


# ---- an invoice


def invoice(
    lines: Iterable[str], columns: dict[str, str], kinds: dict[str, str] | None = None
) -> dict[Key, int]:
    """The sums of an invoice in CSV: (day, model, kind) -> nano-yuan. What it does not tell is "".

    `columns` names those that are called otherwise than usual (day, model, kind, amount), `kinds`
    what the invoice calls a kind. Raises InvoiceError.
    """
    reader = csv.DictReader(lines)
    places = _columns(reader.fieldnames or (), columns)
    words = {word: kind for kind, known in KIND_WORDS.items() for word in known}
    words |= {word.casefold(): kind for word, kind in (kinds or {}).items()}
    sums: dict[Key, int] = defaultdict(int)
    for row in reader:
        where = f"line {reader.line_num}"
        kind = (row.get(places["kind"]) or "").strip() if "kind" in places else ""
        if kind and kind.casefold() not in words:
            raise InvoiceError(f"{where}: the kind {kind!r} is not known; name it by --kind")
        key = (
            _day(row[places["day"]], where),
            (row[places["model"]] or "").strip() if "model" in places else "",
            words[kind.casefold()] if kind else "",
        )
        sums[key] += _amount(row[places["amount"]], where)
    return dict(sums)


def _columns(head: Iterable[str], named: dict[str, str]) -> dict[str, str]:
    there = {name.strip().casefold(): name for name in head}
    places = {}
    for column, usual in COLUMNS.items():
        if column in named and named[column].strip().casefold() not in there:
            raise InvoiceError(f"the invoice has no column {named[column]!r}")
        wanted = (named[column],) if column in named else usual
        found = next((there[n.strip().casefold()] for n in wanted if n.casefold() in there), None)
        if found is not None:
            places[column] = found
        elif column in ("day", "amount"):
            raise InvoiceError(
                f"the invoice has no column for the {column}: name it by --{column}-column"
                f" (it has {', '.join(there.values())})"
            )
    return places


def _day(text: str | None, where: str) -> str:
    """A day as invoices write it: 2026-11-03, 2026/11/3, 20261103, a time behind it or none."""
    words = (text or "").strip().replace("/", "-").replace(".", "-").partition(" ")[0][:10]
    words = words.partition("T")[0]
    parts = words.split("-") if "-" in words else [words[:4], words[4:6], words[6:]]
    try:
        return str(date(*map(int, parts)))
    except (ValueError, TypeError):
        raise InvoiceError(f"{where}: {text!r} is no day") from None


def _amount(text: str | None, where: str) -> int:
    """Nano-yuan; what is finer is rounded, for some invoices have twelve decimals."""
    words = (text or "").strip().replace(",", "").lstrip("¥￥").strip()
    try:
        amount = Decimal(words)
        if not amount.is_finite() or abs(amount) > 10**9:
            raise InvalidOperation
    except InvalidOperation:
        raise InvoiceError(f"{where}: {text!r} is no amount") from None
    return int((amount * NANO).to_integral_value())


def differences(
    bill: Bill, theirs: dict[Key, int], tolerance: Decimal = TOLERANCE
) -> list[Difference]:
    """Where an invoice differs by `tolerance` (yuan) or more, as finely as the invoice tells."""
    tells = [any(key[place] for key in theirs) for place in range(3)]
    ours: dict[Key, int] = defaultdict(int)
    for lines in (bill.lines, bill.unpaid):
        for key, line in lines.items():
            ours[_coarser(key, tells)] += line.upstream_cost
    summed: dict[Key, int] = defaultdict(int)
    for key, amount in theirs.items():
        if key[0].startswith(bill.month):
            summed[_coarser(key, tells)] += amount
    least = int(tolerance * NANO)
    return [
        Difference(*key, ours.get(key, 0), summed.get(key, 0))
        for key in sorted(ours.keys() | summed.keys())
        if abs(ours.get(key, 0) - summed.get(key, 0)) >= max(1, least)
    ]


def _coarser(key: Key, tells: list[bool]) -> Key:
    day, model, kind = (part if told else "" for part, told in zip(key, tells, strict=True))
    return day, model, kind


def rows(bill: Bill, money: Callable[[int], object]) -> Iterator[dict]:
    """The lines as they are printed, day by day; amounts written by `money`."""
    for (day, model, kind), line in sorted(bill.lines.items()):
        yield {
            "day": day,
            "model": model,
            "kind": kind,
            "count": line.count,
            "upstream_cost": money(line.upstream_cost),
            "charged": money(line.charged),
            "difference": money(line.charged - line.upstream_cost),
        }


def document(found: Bill, compared: list[Difference] | None = None) -> dict:
    """The bill as JSON."""
    total = found.total
    written = {
        "upstream": found.upstream,
        "month": found.month,
        "complete": not found.forgotten,
        "calls": found.calls,
        "calls_without_cost": found.unpriced,
        "calls_with_note": found.noted,
        "upstream_cost": yuan(total.upstream_cost),
        "charged": yuan(total.charged),
        "difference": yuan(total.charged - total.upstream_cost),
        "lines": list(rows(found, yuan)),
        "unpaid": list(unpaid(found)),
        "failed_attempts": list(failed_attempts(found)),
    }
    if compared is not None:
        written["differences"] = list(differing(compared))
    return written


def unpaid(found: Bill) -> Iterator[dict]:
    """What is billed there and charged to nobody."""
    for (day, model, _), line in sorted(found.unpaid.items()):
        cost = yuan(line.upstream_cost)
        yield {"day": day, "model": model, "calls": line.count, "upstream_cost": cost}


def failed_attempts(found: Bill) -> Iterator[dict]:
    """Attempts that failed after the provider had begun."""
    for (day, model, error), number in sorted(found.attempts.items()):
        yield {"day": day, "model": model, "error": error, "attempts": number}


def differing(found: list[Difference]) -> Iterator[dict]:
    """Where an invoice says something else."""
    for each in found:
        yield {
            "day": each.day,
            "model": each.model,
            "kind": each.kind,
            "ours": yuan(each.ours),
            "invoice": yuan(each.theirs),
            "difference": yuan(each.theirs - each.ours),
        }
