"""How money, LLM tokens, times and sizes are written on a page.

Owns the template filters. Money stays an integer of nano-yuan until the moment it is written.
"""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from markupsafe import Markup

import billing
from console.context import site
from console.ui.i18n import gettext, ngettext
from console.ui.i18n import lazy_gettext as _l

DASH = "–"


def amount(nano: int) -> str:
    """Nano-yuan, exact, without the zeros that say nothing: at least two decimals, at most nine.

    No currency.
    """
    text = billing.yuan(nano)
    whole, _, decimals = text.partition(".")
    return f"{_grouped(whole)}.{decimals.rstrip('0').ljust(2, '0')}"


def _grouped(whole: str) -> str:
    digits = whole.lstrip("-")
    return whole[: len(whole) - len(digits)] + f"{int(digits):,}"


def money(nano: int | None) -> str:
    """Nano-yuan with the site's currency, exact: ¥20.00, -¥0.0000125."""
    if nano is None:
        return DASH
    text = amount(nano)
    return "-" + site().currency + text[1:] if text.startswith("-") else site().currency + text


def in_pocket(amount: int, pocket: str, short: bool = False) -> str:
    """An amount of a pocket in its unit: LLM tokens in the grant, money in the others."""
    if pocket == "grant":
        return count(amount)
    return money_short(amount) if short else money(amount)


def price_tag(yuan) -> str:
    """An amount in yuan as the settings hold it (a Decimal), with the currency: ¥29.90."""
    return money(billing.nano(yuan))


def money_short(nano: int | None) -> str:
    """Nano-yuan for narrow columns and charts, rounded down to four decimals: ¥0.0123, <¥0.0001.

    Not for statements.
    """
    if nano is None:
        return DASH
    if 0 < nano < 100_000:
        return "<" + site().currency + "0.0001"
    return money(nano if -100_000 < nano < 0 else nano // 100_000 * 100_000)


def per_million(nano: int) -> str:
    """A price of so many nano-yuan per LLM token, as money per million of them: ¥4.5."""
    whole, rest = divmod(nano, 1000)
    decimals = f".{rest:03d}".rstrip("0").rstrip(".")
    return f"{site().currency}{whole:,}{decimals}"


KINDS = {
    "input": _l("Input, not cached"),
    "cache_write": _l("Input, put into a cache"),
    "cache_write_1h": _l("Input, put into a cache for an hour"),
    "cached": _l("Input, cached"),
    "cache_read": _l("Input, from an explicit cache"),
    "output": _l("Output"),
    "search": _l("Searches"),
}


def kind_name(kind: str) -> str:
    """What people call a kind that is billed."""
    return str(KINDS[kind])


def unit_price(nano: int, kind: str) -> str:
    """The price of a kind as lists have it: per million LLM tokens, or for a thousand searches."""
    if kind != "search":
        return per_million(nano)
    return gettext("%(price)s per 1,000", price=money(nano * 1000))


def count(n: int | None) -> str:
    """A count with its thousands set apart: 1,234,567."""
    return DASH if n is None else f"{n:,}"


def count_short(n: int | None) -> str:
    """A size in LLM tokens as people say it: 5K, 128K (128,000 and 131,072 alike), 1M."""
    if n is None:
        return DASH
    for size, letter in ((1_000_000, "M"), (1_048_576, "M"), (1000, "K"), (1024, "K")):
        if n >= size and n % size == 0 and (letter == "M" or n < 1_000_000):
            return f"{n // size}{letter}"
    for size, letter in ((1_000_000, "M"), (1000, "K")):
        if n >= size:
            return f"{n / size:.1f}".removesuffix(".0") + letter
    return str(n)


def local(at_ms: int) -> datetime:
    """A stored time in the site's time zone."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(ZoneInfo(site().timezone))


def when(at_ms: int | None, seconds: bool = False) -> str | Markup:
    """A stored time as a `<time>` element in the site's time zone, to the minute (or the second)."""
    if at_ms is None:
        return DASH
    moment = local(at_ms)
    text = moment.strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")
    return Markup('<time datetime="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), text
    )


def ago(at_ms: int | None, now_ms: int | None = None) -> str | Markup:
    """How long ago, in words, with the exact time as title; a dash for never."""
    if at_ms is None:
        return DASH
    now = datetime.now(UTC).timestamp() * 1000 if now_ms is None else now_ms
    moment = local(at_ms)
    words = _ago_words((now - at_ms) / 60_000)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="seconds"), moment.strftime("%Y-%m-%d %H:%M:%S"), words
    )


def _ago_words(minutes: float) -> str:
    if minutes < 1:
        return gettext("just now")
    if minutes < 60:
        return ngettext("%(num)s minute ago", "%(num)s minutes ago", int(minutes))
    if minutes < 60 * 24:
        return ngettext("%(num)s hour ago", "%(num)s hours ago", int(minutes // 60))
    return ngettext("%(num)s day ago", "%(num)s days ago", int(minutes // (60 * 24)))


def duration(ms: int | None) -> str:
    """How long something took: 340 ms, 1.2 s, 2 min 5 s."""
    if ms is None:
        return DASH
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min {ms % 60_000 // 1000} s"


def percent(share: float | None) -> str:
    """A share of one as per cent: 12.5%."""
    return DASH if share is None else f"{share * 100:.1f}".removesuffix(".0") + "%"


def size(bytes_: int | None) -> str:
    """A size on disk: 12.4 MB."""
    if bytes_ is None:
        return DASH
    value = float(bytes_)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f} GB"


FILTERS = (
    in_pocket,
    money,
    money_short,
    price_tag,
    amount,
    per_million,
    kind_name,
    unit_price,
    count,
    count_short,
    when,
    ago,
    duration,
    percent,
    size,
)


def install(app) -> None:
    """Makes each function here a filter of its own name."""
    for function in FILTERS:
        app.jinja_env.filters[function.__name__] = function
