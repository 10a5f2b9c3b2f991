"""What things cost: money as text and number, prices, usage, and which pocket pays. Only computes.

Money is an integer number of nano-yuan and prices are nano-yuan per LLM token, so a cost is a sum
of products of integers, and nothing is ever rounded. It knows no database and no settings.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

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
    whole = int("".join(map(str, digits))) * 10 ** max(0, exponent + 9)
    parts, rest = divmod(whole, 10 ** max(0, -exponent - 9))
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


@dataclass(frozen=True, slots=True)
class Usage:
    """LLM tokens of one call. `input_tokens` includes the cached, `output_tokens` the reasoning."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-yuan per LLM token. `tiers` are (above so many input tokens, price), ascending."""

    input: int
    cached: int
    output: int
    tiers: tuple[tuple[int, "Price"], ...] = ()

    def at(self, input_tokens: int) -> "Price":
        """The price of a call with so many input tokens."""
        found = self
        for above, price in self.tiers:
            if input_tokens > above:
                found = price
        return found

    def highest(self) -> "Price":
        """No tier is dearer than this, in any kind of LLM token: the price of holds."""
        if not self.tiers:
            return self
        every = (self, *(price for _, price in self.tiers))
        return Price(
            max(p.input for p in every), max(p.cached for p in every), max(p.output for p in every)
        )

    def cost(self, usage: Usage) -> int:
        """Nano-yuan for a usage, exactly: DESIGN, section 3."""
        return (
            (usage.input_tokens - usage.cached_tokens) * self.input
            + usage.cached_tokens * self.cached
            + usage.output_tokens * self.output
        )

    @property
    def free(self) -> bool:
        """Whether nothing is ever charged at this price, from any pocket."""
        return not (
            self.input
            or self.cached
            or self.output
            or any(not price.free for _, price in self.tiers)
        )


@dataclass(frozen=True, slots=True)
class Pockets:
    """An amount for each pocket: LLM tokens, nano-yuan, nano-yuan."""

    grant: int
    quota: int
    wallet: int


NOTHING = Pockets(0, 0, 0)


def split(usage: Usage, price: Price, pockets: Pockets) -> Pockets:
    """What each pocket pays for a usage. The wallet takes the rest, however much.

    The grant pays LLM tokens one for one: uncached input first, then cached input, then output.
    What is left is priced; the quota pays before the wallet. A free model debits nothing.
    """
    if price.free:
        return NOTHING
    grant = max(0, pockets.grant)
    uncached = usage.input_tokens - usage.cached_tokens
    by_grant = min(grant, uncached)
    cached_by_grant = min(grant - by_grant, usage.cached_tokens)
    output_by_grant = min(grant - by_grant - cached_by_grant, usage.output_tokens)
    rest = (
        (uncached - by_grant) * price.input
        + (usage.cached_tokens - cached_by_grant) * price.cached
        + (usage.output_tokens - output_by_grant) * price.output
    )
    quota = min(max(0, pockets.quota), rest)
    return Pockets(by_grant + cached_by_grant + output_by_grant, quota, rest - quota)
