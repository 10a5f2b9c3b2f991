"""One call's account: hold -> watch -> close. The only bridge from the relay to the ledger.

How a call can end and what is charged then is `relay.ending`'s. It moves no money itself: `billing`
does, in one transaction each for the hold and the close.
"""

import functools
import logging
import random
import re
import time
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

import msgspec

import billing
from billing import Price, Usage
from db import StorageError
from relay import errors, estimate, metrics
from relay.body import Ask
from relay.catalog import Model, PriceList
from relay.ending import CallState, ending, merged, trusted
from relay.gate import Caller
from relay.settlement import Settlement
from relay.unquoted import unquoted

log = logging.getLogger("relay.meter")

HOLD_MARGIN = 1.15  # input is estimated; the hold covers the estimate's usual error
INPUT_EXTRA_MAX = 4096  # LLM tokens that a provider's template and tool preamble may add
MEDIA = (
    '"image',
    '"video',
    '"input_audio',
    '"file',
    '"document',
)  # what may stand elsewhere, by address
SEARCHES = (  # with which the provider reads what nobody has sent
    '"enable_search"',
    '"search_options"',
    '"web_search',
    '"$web_search"',
    '"web_fetch',
    '"plugins"',
    '"web_extractor',
)
MEDIA_INPUT_MAX = 16384  # LLM tokens that one of these may count
COUNT_MAX = 2**31 - 1  # LLM tokens, where a model states no limit
CALLER_LEFT = 499  # nginx's word for it: nobody read a status
UNREAD_BYTES_MAX = 32768  # delivered bytes kept until their text is estimated

_unescape = msgspec.json.Decoder(str).decode


# Refusals whose sentence stays with the row: it says what was missing, and nothing of the request.
EXPLAINED = (errors.InsufficientBalance, errors.ModelNotAllowed, errors.ContextTooLong)


class Meter(msgspec.Struct):
    """The account of one call.

    Every call that passed the rate limit has one, and closes it exactly once.
    """

    settlement: Settlement
    caller: Caller
    wire: str
    id: str = msgspec.field(default_factory=lambda: new_id())
    leave: Callable[[], None] = lambda: None  # gives the call's place back, once it is closed
    started: float = msgspec.field(default_factory=time.monotonic)
    started_at: int = msgspec.field(default_factory=lambda: time.time_ns() // 1_000_000)
    state: CallState = msgspec.field(default_factory=CallState)
    attempts: list[dict] = msgspec.field(default_factory=list)
    price: Price | None = None  # set once there is a hold
    status: int = 200
    policy: str = "estimate"  # the target's on_disconnect
    prices: PriceList | None = None  # what the target bills, if that is known
    texts: re.Pattern | None = None  # where the target's wire keeps its text
    _ask: Ask | None = None
    _model: Model | None = None
    _upstream: str | None = None
    _first_byte: float | None = None
    _unread: list[bytes] = msgspec.field(default_factory=list)
    _unread_bytes: int = 0
    _output_tokens: int = 0
    _closed: bool = False

    def asked(self, ask: Ask) -> None:
        """What was asked, for the call's row, whatever comes of it."""
        self._ask = ask

    def hold(self, ask: Ask, model, caps: tuple[billing.Cap, ...] = ()) -> None:
        """Set aside what the call will likely cost.

        Raises InsufficientBalance if the pockets do not hold it, CapReached if a cap has no room.
        """
        self._model = model
        price = model.price(self.caller.plan, self.started_at)
        most = min(
            ask.output_tokens_max or model.output_max or COUNT_MAX, model.output_max or COUNT_MAX
        )
        asked = min(most, self.settlement.hold_output_tokens)
        likely = Usage(int(ask.input_tokens * HOLD_MARGIN + 0.999), 0, asked * ask.choices)
        try:
            held = billing.hold(
                self.settlement.db,
                self._call(),
                likely,
                price,
                self.settlement.overdraft,
                caps,
                most * ask.choices,
            )
        except billing.CapExceeded as err:
            raise errors.CapReached(str(err)) from None
        except billing.NotCovered as err:
            raise errors.InsufficientBalance(_shortage(err)) from None
        except StorageError as err:
            raise errors.StorageFull(retry_after=5) from err
        self.price = price
        if held.output is not None and ask.choices:
            # What is held is the call's own, however far below zero others brought the wallet.
            ask.output_afforded = max(asked, held.output // ask.choices)

    def attempted(
        self,
        target,
        status: int | None,
        started: float,
        error: str | None = None,
        words: str = "",
    ) -> None:
        """Note one attempt on a target.

        `status` None: it gave none; `error` is a code, `words` are the provider's, without a key
        and without what they quote of the request: for whoever runs the relay.
        """
        took_ms = round((time.monotonic() - started) * 1000)
        self.attempts.append(
            {
                "upstream": target.upstream.name,
                "model": target.model,
                "status": status,
                "ms": took_ms,
            }
            | ({"error": error} if error else {})
            | ({"words": words} if words else {})
        )
        self._upstream = target.upstream.name
        metrics.of(metrics.attempts, target.upstream.name, error or "ok").inc()

    def serve_from(self, target, texts: re.Pattern) -> None:
        """The target that answers: whose policy holds, what it bills, where its texts stand."""
        self.policy, self.texts = target.upstream.on_disconnect, texts
        self.prices = target.prices

    def deliver_unread(self, target, texts: re.Pattern, data: bytes) -> None:
        """Note what a target had written when the caller left who waited for all of it."""
        self.serve_from(target, texts)
        self.deliver(data)

    def used(self, usage: Usage | None) -> None:
        """Note what the upstream says was used; None: nothing."""
        if usage is not None:
            self.state.usage = merged(self.state.usage, usage)

    def deliver(self, data: bytes) -> None:
        """Note upstream bytes that go out to the caller.

        Cheap: their text is counted only if it must be.
        """
        if self._first_byte is None:
            self._first_byte = time.monotonic()
            self.state.delivered = True
        self._unread.append(data)
        self._unread_bytes += len(data)
        if self._unread_bytes > UNREAD_BYTES_MAX:
            self._read_texts()

    def close(self, error: BaseException | None = None) -> None:
        """End the call: charge it and give the rest of the hold back.

        A second close does nothing.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._settle(error)
        finally:
            self.leave()

    def _settle(self, error: BaseException | None) -> None:
        if error is not None:
            self.state.error = error
            if not self.state.delivered:
                ours = error.status if isinstance(error, errors.RelayError) else 500
                self.status = CALLER_LEFT if self.state.left else ours
        outcome, charged = ending(self.state, self.policy)
        end = self._ending(outcome, charged)
        if self.price is None:
            self._refuse(end)
        else:
            self.settlement.close(self.id, end, self.price)
        self._count(end)

    def _refuse(self, end: billing.Ending) -> None:
        try:
            billing.refuse(self.settlement.db, self._call(), end)
        except StorageError:
            log.warning("the refusal of %s could not be recorded", self.id)

    def _call(self) -> billing.Call:
        ask, model = self._ask, self._model
        return billing.Call(
            id=self.id,
            user_id=self.caller.user_id,
            token_id=self.caller.token_id,
            wire=self.wire,
            model=model.id if model else (ask.model[:100] if ask else None),
            stream=bool(ask and ask.stream),
            started_at=self.started_at,
            day=_day(self.started_at // 60_000, self.settlement.timezone),
        )

    def _ending(self, outcome: str, charged: str) -> billing.Ending:
        usage, source, note = None, "none", None
        if charged == "usage" and self.state.usage is not None:
            usage, source, note = trusted(self.state.usage, self._guess, self._most())
        elif charged == "estimate":
            usage, source = self._guess(), "estimated"
        price = self.price.at(usage.input_tokens) if self.price and usage else None
        if usage and usage.searches and not (price and price.search):
            note = ", ".join(filter(None, (note, "searches without a price")))
        error = None if outcome == "client_left" else self.state.error
        self._heard(error)
        code = None if error is None else "internal_error"
        if isinstance(error, errors.RelayError):
            code = error.code or error.type
        return billing.Ending(
            outcome=outcome,
            status=self.status,
            usage=usage,
            usage_source=source,
            usage_note=note,
            upstream=self._upstream,
            attempts=self.attempts,
            first_byte_ms=None
            if self._first_byte is None
            else round((self._first_byte - self.started) * 1000),
            duration_ms=round((time.monotonic() - self.started) * 1000),
            error=code,
            upstream_cost=self._upstream_cost(usage),
            message=self._explained(error),
        )

    def _heard(self, error: BaseException | None) -> None:
        """Keep what a provider said that failed after it had begun to answer."""
        words = getattr(error, "words", "")
        if words and self._ask and self.attempts and "error" not in self.attempts[-1]:
            self.attempts[-1]["words"] = unquoted(words, self._ask.body)

    def _explained(self, error: BaseException | None) -> str | None:
        """What the caller read, for the row: a provider's refusal without what it quotes."""
        if isinstance(error, errors.UpstreamRefused):
            return unquoted(error.message, self._ask.body if self._ask else None) or None
        return error.message if isinstance(error, EXPLAINED) else None

    def _upstream_cost(self, usage: Usage | None) -> int | None:
        """What the provider will bill for the call: also for an answer that we charge to nobody."""
        if self.prices is None:
            return None
        if usage is None and self.state.usage is not None:
            usage, _, _ = trusted(self.state.usage, self._guess, self._most())
        elif usage is None and self.state.delivered:
            usage = self._guess()
        price = self.prices.at(self.started_at)
        return price.at(usage.input_tokens).cost(usage) if usage else None

    def _guess(self) -> Usage:
        self._read_texts()
        return Usage(self._ask.input_tokens if self._ask else 0, 0, self._output_tokens)

    def _most(self) -> Usage:
        ask, model = self._ask, self._model
        assert ask is not None and model is not None  # a call that was served
        input_most = ask.body.size + INPUT_EXTRA_MAX
        if self.state.usage and self.state.usage.input_tokens > input_most:  # rare, and not cheap
            input_most += MEDIA_INPUT_MAX * sum(map(ask.body.mentions, MEDIA))
            if any(ask.body.mentions(each) for each in SEARCHES):
                input_most = model.context or COUNT_MAX
        return Usage(
            min(input_most, model.context or input_most),
            0,
            (model.output_max or model.context or COUNT_MAX) * ask.choices,
        )

    def _read_texts(self) -> None:
        """Count the text of the delivered bytes and let them go."""
        data, self._unread, self._unread_bytes = b"".join(self._unread), [], 0
        if self.texts is None or not data:
            return
        found = [b'"' + piece + b'"' for piece in self.texts.findall(data)]
        self._output_tokens += estimate.text("".join(_text(piece) for piece in found))

    def _count(self, end: billing.Ending) -> None:
        metrics.of(metrics.calls, self.wire, end.outcome).inc()
        # Of the configuration's names only, so that nobody fills the registry.
        served = self._model.id if self._model else "", self._upstream or ""
        metrics.of(metrics.model_calls, *served, end.outcome).inc()
        if end.outcome != "refused":
            took_s = time.monotonic() - self.started
            metrics.of(metrics.model_duration, *served).observe(took_s)
        if self._first_byte is not None:
            answered_s = self._first_byte - self.started
            metrics.of(metrics.model_first_byte, *served).observe(answered_s)
            metrics.of(metrics.first_byte, self.wire).observe(answered_s)
        if end.usage:
            self.settlement.on_close(self.caller, end.usage)
            for kind in metrics.LLM_TOKENS:
                if count := getattr(end.usage, f"{kind}_tokens"):
                    metrics.of(metrics.llm_tokens, kind).inc(count)
            if end.usage.searches:
                metrics.searches.inc(end.usage.searches)
            if self.price is not None:
                metrics.cost.inc(self.price.at(end.usage.input_tokens).cost(end.usage))


@functools.lru_cache(8)
def _day(minute: int, zone: ZoneInfo) -> str:
    """The day of a minute since 1970, in a time zone: each minute is looked up once."""
    return datetime.fromtimestamp(minute * 60, zone).strftime("%Y-%m-%d")


def new_id() -> str:
    """A request's id: sorted by time, so that rows are appended, then 80 random bits.

    It is no secret.
    """
    return f"req_{time.time_ns() // 1_000_000:012x}{random.getrandbits(80):020x}"


def texts_of(names: tuple[str, ...]) -> re.Pattern:
    """A pattern that finds the JSON strings under these names, which is all text that a wire's
    events carry. It never goes back over what it has read: the text is foreign."""
    return re.compile(
        rb'"(?:' + "|".join(names).encode() + rb')"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
    )


def _text(quoted: bytes) -> str:
    try:
        return _unescape(quoted)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return quoted.decode("utf-8", "replace")


def _shortage(err: billing.NotCovered) -> str:
    has = err.available
    return (
        f"The balances do not cover this call: it may need {billing.yuan(err.needed.wallet)} yuan from the wallet. "
        f"Available are {has.grant} tokens (grant), {billing.yuan(has.quota)} yuan (subscription quota)"
        f"{f', {billing.yuan(has.team)} yuan (team wallet)' if err.shares else ''} and "
        f"{billing.yuan(has.wallet)} yuan (wallet)."
        f"{f' Requests that run may need {billing.yuan(err.promised)} yuan more.' if err.promised else ''}"
    )
