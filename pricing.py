"""What things cost: money as text and number, prices, usage, and which pocket pays. Only computes.

Money is an integer number of nano-yuan and prices are nano-yuan per LLM token, so a cost is a sum
of products of integers, and nothing is ever rounded. It knows no database and no settings.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from operator import attrgetter, mul
from typing import Any

import msgspec
from msgspec.structs import force_setattr, replace

NANO = 1_000_000_000  # nano-yuan in a yuan
AMOUNT_MAX = 10**18  # nano-yuan or LLM tokens in one entry: a billion yuan

_decimal = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]*)?", re.ASCII).fullmatch


def nano(amount: str | Decimal | int) -> int:
    """Yuan as nano-yuan.

    Raises ValueError for what is no plain number, has over 9 decimals, or is absurdly large.
    """
    if isinstance(amount, str) and not _decimal(amount.strip()):
        raise ValueError(f"{amount!r} is not an amount of money")
    if isinstance(amount, bool | float) or not isinstance(amount, str | Decimal | int):
        raise ValueError(f"{amount!r} is not an exact amount of money")
    exact = Decimal(amount.strip() if isinstance(amount, str) else amount)
    if not exact.is_finite() or abs(exact) > AMOUNT_MAX // NANO:
        raise ValueError(f"{amount} is not a possible amount of money")
    sign, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)  # it is finite
    scale: int = 10 ** max(0, exponent + 9)
    whole = int("".join(map(str, digits))) * scale
    one: int = 10 ** max(0, -exponent - 9)
    parts, rest = divmod(whole, one)
    if rest:
        raise ValueError(f"{amount} has more than nine decimals")
    return -parts if sign else parts


def yuan(amount: int) -> str:
    """Nano-yuan as text.

    "0", two decimals if those are exact ("20.00"), else nine ("-0.000012500").
    """
    if amount == 0:
        return "0"
    sign, (whole, rest) = "-" if amount < 0 else "", divmod(abs(amount), NANO)
    if rest % 10_000_000 == 0:
        return f"{sign}{whole}.{rest // 10_000_000:02}"
    return f"{sign}{whole}.{rest:09}"


COUNT_MAX = 10**9  # LLM tokens of one kind in one call; no price makes more of it than SQLite holds

# What providers bill: the name of each kind, in the order in which the grant pays (it never pays a
# search). The price of a kind is the field of `Price` of that name.
KINDS = ("input", "cache_write", "cache_write_1h", "cached", "cache_read", "output", "search")
GRANT_KINDS = KINDS[:-1]
USUAL_KINDS = ("input", "cached", "output")  # every call has these

PRICES = tuple(f"price_{kind}" for kind in KINDS)  # columns of a call's row

# What a call's row counts: the fields of `Usage`. They overlap; `Usage.by_kind` takes them apart.
COUNTS = (
    "input_tokens",
    "cached_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "searches",
)

_counts, _prices = attrgetter(*COUNTS), attrgetter(*KINDS)


class Usage(msgspec.Struct, frozen=True):
    """What one call used: LLM tokens, and searches that the provider made.

    `input_tokens` is all input. `cached_tokens` are all hits of a cache, `cache_read_tokens` the
    hits of an explicit one among them; both writes are parts of the input too. `output_tokens`
    includes the reasoning.
    """

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0  # kept for 5 minutes
    cache_write_1h_tokens: int = 0
    searches: int = 0

    def counts(self) -> tuple[int, ...]:
        """The counts, in the order of COUNTS."""
        counts: tuple[int, ...] = _counts(self)
        return counts

    @property
    def kinds(self) -> tuple[int, ...]:
        """How many of each of KINDS: nothing is in two of them (DESIGN, section 3)."""
        write, write_1h = self.cache_write_tokens, self.cache_write_1h_tokens
        return (
            self.input_tokens - self.cached_tokens - write - write_1h,
            write,
            write_1h,
            self.cached_tokens - self.cache_read_tokens,
            self.cache_read_tokens,
            self.output_tokens,
            self.searches,
        )

    def by_kind(self) -> dict[str, int]:
        """The same by their names."""
        return dict(zip(KINDS, self.kinds, strict=True))

    def possible(self, input_max: int = COUNT_MAX, output_max: int = COUNT_MAX) -> "Usage":
        """The usage, cut to what can be: no part is larger than its whole, nothing is negative. Itself
        where only the usual kinds were used, and they can be."""
        usual = 0 <= self.cached_tokens <= self.input_tokens <= input_max
        if usual and 0 <= self.output_tokens <= output_max and not self._other_kinds():
            return self
        total = _within(self.input_tokens, input_max)
        cached = _within(self.cached_tokens, total)
        write_1h = _within(self.cache_write_1h_tokens, total - cached)
        return Usage(
            total,
            cached,
            _within(self.output_tokens, output_max),
            _within(self.cache_read_tokens, cached),
            _within(self.cache_write_tokens, total - cached - write_1h),
            write_1h,
            _within(self.searches, COUNT_MAX),
        )

    def _other_kinds(self) -> bool:
        return bool(
            self.cache_read_tokens
            or self.cache_write_tokens
            or self.cache_write_1h_tokens
            or self.searches
        )


def _within(count: int, most: int) -> int:
    return min(max(0, count), most)


class Price(msgspec.Struct, frozen=True):
    """Nano-yuan per LLM token, and per search. `tiers` are (above so many input tokens, price),
    ascending.

    A kind of cache that has no price (-1) costs what it is called in general: reads as cached,
    writes as input, writes for an hour as writes.
    """

    input: int
    cached: int
    output: int
    tiers: tuple[tuple[int, "Price"], ...] = ()
    cache_read: int = -1
    cache_write: int = -1
    cache_write_1h: int = -1
    search: int = 0

    def __post_init__(self) -> None:
        for kind, general in (
            ("cache_read", "cached"),
            ("cache_write", "input"),
            ("cache_write_1h", "cache_write"),
        ):
            if getattr(self, kind) < 0:
                force_setattr(self, kind, getattr(self, general))

    @property
    def kinds(self) -> tuple[int, ...]:
        """The price of each of KINDS."""
        prices: tuple[int, ...] = _prices(self)
        return prices

    def by_kind(self) -> dict[str, int]:
        """The same by their names."""
        return dict(zip(KINDS, self.kinds, strict=True))

    def at(self, input_tokens: int) -> "Price":
        """The price of a call with so many input tokens."""
        found = self
        for above, price in self.tiers:
            if input_tokens > above:
                found = price
        return found

    def highest(self) -> "Price":
        """No tier is dearer than this, in any kind: the price of holds."""
        if not self.tiers:
            return self
        every = (self, *(price for _, price in self.tiers))
        most = {kind: max(getattr(price, kind) for price in every) for kind in KINDS}
        return Price(**most)

    def cost(self, usage: Usage) -> int:
        """Nano-yuan for a usage, exactly: DESIGN, section 3."""
        return sum(map(mul, usage.kinds, self.kinds))

    @property
    def special(self) -> dict[str, int]:
        """The prices of those kinds that differ from what the kind is in general."""
        general = {
            "cache_read": self.cached,
            "cache_write": self.input,
            "cache_write_1h": self.cache_write,
            "search": 0,
        }
        return {k: getattr(self, k) for k, price in general.items() if getattr(self, k) != price}

    @property
    def free(self) -> bool:
        """Whether nothing is ever charged at this price, from any pocket."""
        return not any(self.kinds) and all(price.free for _, price in self.tiers)


class Pockets(msgspec.Struct, frozen=True):
    """An amount for each pocket: LLM tokens for the grant, nano-yuan for the others.

    `team` is the wallet that a member's team shares; it pays after the quota, before the wallet.
    """

    grant: int
    quota: int
    wallet: int
    team: int = 0

    @property
    def money(self) -> int:
        """All of it but the grant's LLM tokens."""
        return self.quota + self.team + self.wallet


NOTHING = Pockets(0, 0, 0)


def split(usage: Usage, price: Price, pockets: Pockets) -> Pockets:
    """What each pocket pays for a usage. The wallet takes the rest, however much.

    The grant pays LLM tokens one for one, kind by kind in the order of KINDS. What is left is
    priced; the quota pays first, then the team. A free model debits nothing.
    """
    rest = price.cost(usage)
    if not rest and price.free:
        return NOTHING
    grant = left = max(0, pockets.grant)
    if grant:
        for _, count, each in zip(GRANT_KINDS, usage.kinds, price.kinds, strict=False):
            by_grant = min(left, count)
            left -= by_grant
            rest -= by_grant * each
    quota = min(max(0, pockets.quota), rest)
    team = min(max(0, pockets.team), rest - quota)
    return Pockets(grant - left, quota, rest - quota - team, team)


def output_afforded(usage: Usage, price: Price, pockets: Pockets, overdraft: int = 0) -> int | None:
    """How much output the pockets pay for beside the other kinds of a usage; None: without an end.

    `overdraft` (nano-yuan) is how far below zero the wallet may go.
    """
    if not price.output:
        return None
    rest = split(replace(usage, output_tokens=0), price, pockets)
    money = max(0, pockets.quota) + max(0, pockets.team) + max(0, pockets.wallet + overdraft)
    money -= rest.money
    return max(0, pockets.grant) - rest.grant + max(0, money) // price.output


def usage_of(row: Any) -> Usage:
    """What a call's row says was used; what a row of before does not say was none."""
    return Usage(**{name: row[name] or 0 for name in COUNTS})


def price_of(row: Any) -> Price:
    """The price on a call's row. A kind that has none there costs what it is in general."""
    prices = {kind: row[column] for kind, column in zip(KINDS, PRICES, strict=True)}
    usual = dict.fromkeys(USUAL_KINDS, 0)
    return Price(**usual | {kind: each for kind, each in prices.items() if each is not None})


@dataclass(frozen=True, slots=True)
class PriceLine:
    """One kind in a call's price: how many, how many of them the grant paid, the price of one."""

    kind: str
    count: int
    by_grant: int
    each: int

    @property
    def rest(self) -> int:
        return self.count - self.by_grant

    @property
    def cost(self) -> int:
        return self.rest * self.each


def lines(usage: Usage, price: Price, grant: int = 0) -> list[PriceLine]:
    """How a price comes about when the grant pays so many LLM tokens of it.

    The costs sum up to what quota and wallet pay by `split`. Kinds that few calls use have a line
    only where they were used.
    """
    prices, found = price.by_kind(), []
    for kind, count in usage.by_kind().items():
        by_grant = min(grant, count) if kind in GRANT_KINDS else 0
        grant -= by_grant
        if count or kind in USUAL_KINDS:
            found.append(PriceLine(kind, count, by_grant, prices[kind]))
    return found
