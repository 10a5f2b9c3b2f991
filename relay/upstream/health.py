"""Which upstreams and keys can be asked now.

Owns what attempts have taught: a key that is refused or out of money rests until it is tried again,
a busy one as long as its provider says, and an upstream that fails again and again rests with
growing pauses (a circuit breaker: after a pause one call may probe it). It knows no request and
opens no connection. All state is of this process; `report` is the picture for the log, the command
line, /metrics and the console.

A busy key whose provider does not say for how long is only passed over while another can be asked:
often the next call fits in again, and a team with one key is better served by trying.

A model that fails again and again at an upstream rests there by itself: the upstream goes on with its
other models, and rests only when the calls of several fail.

The caller's own mistakes teach nothing: a hundred bad requests change no health.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from relay import errors

log = logging.getLogger("relay.health")

FAILURES_TO_REST = 5  # in a row; below that other calls of the moment may be luckier
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0
REFUSED_S, REFUSED_MAX_S = 60.0, 1800.0
LAST_RESORT_S = 2.0  # between two probes of what rests while there is nobody else to ask
PROBE_S = 15.0  # a probe that takes longer keeps nobody else from probing
TELL_AGAIN_S = 600.0  # between two notices of the same trouble: what comes and goes is told once
KEY_LENGTH_TOLD = 16  # of shorter keys the last four characters would tell too much
LATENCY_WEIGHT = 0.1  # of the newest call in the moving average


@dataclass(slots=True)
class State:
    """What is known of one upstream, of one of its keys, or of a model there."""

    name: str
    label: str = ""  # what of the upstream it is: "key …abcd", "model x"
    open_until: float = 0.0  # monotonic
    cause: str | None = None  # busy | refused | failing
    open_end: bool = False  # busy, and its provider has not said for how long
    trips: int = 0  # in a row, for growing pauses
    failures: int = 0  # in a row
    probed_until: float = 0.0  # monotonic; a call has been let through to see how it is
    probed_at: float = -math.inf  # the last one, or the beginning of the rest
    running: int = 0
    calls: int = 0
    failed: int = 0
    latency_ms: float = 0.0
    last_error: str | None = None  # a code
    last_words: str = ""  # the provider's, without a key and without anything of a request
    last_error_at: int | None = None
    noticed: bool = False  # administrators have heard of it, and not yet that it is over
    callers: set[object] = field(default_factory=set)  # whose calls failed in a row
    models: set[str] = field(default_factory=set)  # and for which models

    def busy(self, seconds: float | None, now: float) -> None:
        """Rest as long as the provider says, or for a moment; a longer or a worse rest stays."""
        until = now + (seconds or PAUSE_S)
        if now < self.open_until and (self.cause != "busy" or until <= self.open_until):
            return
        self.cause, self.open_until, self.open_end = "busy", until, seconds is None

    def rest(self, cause: str, pause_s: float, most_s: float, now: float) -> None:
        """Rest, each time in a row twice as long.

        Of a crowd of calls that fail together only the first counts.
        """
        if now < self.open_until and self.cause != "busy":
            return
        self.cause, self.open_until = cause, now + min(pause_s * 2 ** min(self.trips, 10), most_s)
        self.trips += 1
        self.probed_at = now


@dataclass
class Health:
    """The states of all upstreams. `notice` is told of what an administrator should see."""

    notice: Callable[[str], None] = log.error
    clock: Callable[[], float] = time.monotonic
    changes: int = 0  # counts what changed in the picture
    _upstreams: dict[str, State] = field(default_factory=dict)
    _keys: dict[tuple[str, str], State] = field(default_factory=dict)
    _models: dict[tuple[str, str], State] = field(default_factory=dict)
    _told_at: dict[str, float] = field(default_factory=dict)  # notices
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(
        self,
        upstream,
        preferred: int,
        tried: set[str],
        last_resort: bool = False,
        caller: object = None,
        model: str = "",
    ) -> str | None:
        """A key of this upstream that a call may try now, the `preferred`-th if it can be; None if
        it or all keys rest.

        An upstream without keys has the key "". After a pause only one call is let through to
        probe. `last_resort`: there is nobody else to ask. Where all that failed were calls of one
        `caller`, any other's goes through: it may be the requests; and where they were of one `model`,
        those of any other. What begins here is ended by
        `end`, and what the attempt taught is told to `learn`.
        """
        now, keys = self.clock(), upstream.keys or ("",)
        with self._lock:
            state = self._upstream(upstream.name)
            full = upstream.calls_at_once is not None and state.running >= upstream.calls_at_once
            at = self._model(upstream.name, model)
            if full or not all(
                self._may_try(each, now, last_resort, caller, model) for each in (state, at)
            ):
                return None
            for offset in range(len(keys)):
                key = keys[(preferred + offset) % len(keys)]
                if key not in tried and self._may_try(
                    self._key(upstream.name, key), now, last_resort
                ):
                    self._probe(state, now)
                    self._probe(at, now)
                    self._probe(self._key(upstream.name, key), now)
                    state.running += 1
                    return key
        return None

    def end(self, upstream_name: str) -> None:
        """A call that `begin` let through has left the upstream."""
        with self._lock:
            self._upstream(upstream_name).running -= 1

    def learn(
        self,
        upstream_name: str,
        key: str,
        error: BaseException | None,
        took_ms: float,
        caller: object = None,
        model: str = "",
    ) -> None:
        """What an attempt teaches; `error` None: it began to answer."""
        now = self.clock()
        with self._lock:
            upstream, state = self._upstream(upstream_name), self._key(upstream_name, key)
            at = self._model(upstream_name, model)
            upstream.calls += 1
            upstream.probed_until = state.probed_until = at.probed_until = 0.0
            if (
                error is None
                or isinstance(error, errors.UpstreamRefused)
                or getattr(error, "of_model", False)
            ):
                self._answers(upstream, state, at, took_ms, now)
            elif isinstance(error, errors.UpstreamError):
                self._failed(upstream, state, at, error, now, caller, model)

    def learn_end(
        self,
        upstream_name: str,
        key: str,
        error: errors.UpstreamError | None,
        caller: object = None,
        model: str = "",
    ) -> None:
        """What the end of an answer teaches; `error`: why it broke off."""
        now = self.clock()
        with self._lock:
            upstream, state = self._upstream(upstream_name), self._key(upstream_name, key)
            at = self._model(upstream_name, model)
            if error is None or isinstance(error, errors.UpstreamRefused):
                for each in (upstream, state, at):
                    each.failures = each.trips = 0
                    each.callers.clear()
                    each.models.clear()
            else:
                self._failed(upstream, state, at, error, now, caller, model)

    def lacks(self, upstream_name: str, model: str) -> None:
        """An upstream has no such model, or not for us.

        It is none the worse for it, but a route should be changed.
        """
        with self._lock:
            self._tell(
                f"Upstream {upstream_name} does not serve {model} to us: look at the route and at the "
                "provider's console.",
                self.clock(),
            )

    def wake(self) -> None:
        """Let everything be tried again now: somebody has changed the settings, or has paid."""
        with self._lock:
            self.changes += 1
            for state in (
                *self._upstreams.values(),
                *self._keys.values(),
                *self._models.values(),
            ):
                state.cause, state.open_until, state.trips, state.failures = None, 0.0, 0, 0

    def exhausted(self, upstreams: list, models: Sequence[str] = ()) -> errors.RelayError:
        """What to say when none of these may be tried (`models`: for which model each was wanted).

        To wait if one is only busy, else that they are broken.
        """
        now = self.clock()
        with self._lock:
            groups = self._groups(upstreams, models)
            if any(
                all(self._may_try(each, now, model=model) for each in fronts)
                and any(self._may_try(key, now) for key in keys)
                for fronts, keys, model in groups
            ):
                return errors.UpstreamBusy(
                    "The model's providers have all the calls that they take at once.",
                    retry_after=1,
                )
            resting = [
                state
                for fronts, keys, model in groups
                for state in (*fronts, *keys)
                if not self._may_try(state, now, model=model)
            ]
            free_at = min(
                max(*(each.open_until for each in fronts), min(key.open_until for key in keys))
                for fronts, keys, _model in groups
            )
        wait_s = max(1, math.ceil(free_at - now))
        if any(state.cause == "busy" for state in resting):
            return errors.UpstreamBusy(retry_after=wait_s)
        if all(state.cause == "refused" for state in resting):
            return errors.UpstreamAccount(retry_after=wait_s)
        return errors.UpstreamUnavailable(retry_after=min(wait_s, 30))

    def free_in(self, upstreams: list, models: Sequence[str] = ()) -> float:
        """Seconds until one of these may be tried, with nobody else to ask; inf while a provider
        says to wait or refuses us."""
        now = self.clock()
        with self._lock:
            groups = self._groups(upstreams, models)
            return min(
                (self._wait(fronts, keys, now) for fronts, keys, _model in groups), default=math.inf
            )

    def _wait(self, fronts: list[State], keys: list[State], now: float) -> float:
        if all(now < key.open_until and key.cause == "refused" for key in keys):
            return math.inf
        ready = max(
            min(each.open_until, each.probed_at + LAST_RESORT_S)
            if each.cause == "failing"
            else each.open_until
            for each in fronts
        )
        key_at = min(0.0 if key.cause == "failing" else key.open_until for key in keys)
        return max(0.0, ready - now, key_at - now)

    def report(self, upstreams: list) -> list[dict]:
        """The picture: each upstream's state, and how many of its keys can be used.

        No key is in it.
        """
        now = self.clock()
        with self._lock:
            return [self._picture(each, now) for each in upstreams]

    def _picture(self, upstream, now: float) -> dict:
        state = self._upstream(upstream.name)
        keys = [self._key(upstream.name, key) for key in upstream.keys or ("",)]
        resting = [each for each in (state, *keys) if now < each.open_until]
        usable = sum(now >= key.open_until for key in keys)
        word = (
            "ok"
            if not resting
            else state.cause
            if now < state.open_until
            else keys[0].cause
            if not usable
            else "ok"
        )
        latest = max((state, *keys), key=lambda each: each.last_error_at or 0)
        return {
            "name": upstream.name,
            "state": word,
            "keys": len(keys),
            "keys_usable": usable,
            "calls": state.calls,
            "failed": state.failed,
            "latency_ms": round(state.latency_ms),
            "resting": [
                f"{each.label}: {each.cause} ({each.last_words or each.last_error})"
                for each in (*keys, *self._models_of(upstream.name))
                if each.label and now < each.open_until
            ],
            "rests_s": max((round(each.open_until - now, 1) for each in resting), default=0),
            "last_error": latest.last_error,
            "last_error_at": latest.last_error_at,
            "last_words": latest.last_words,
        }

    def _answers(self, upstream: State, key: State, at: State, took_ms: float, now: float) -> None:
        for state in (upstream, key, at):
            if state.cause == "busy" and not state.open_end and now < state.open_until:
                continue  # this call began before its provider said for how long not to
            if state.cause in ("refused", "failing"):
                log.warning("upstream %s answers again", state.name)
            if state.noticed:
                state.noticed = False
                self.notice(f"Upstream {state.name} answers again.")
            self.changes += state.cause is not None
            state.cause, state.open_until = None, 0.0
        weight = LATENCY_WEIGHT if upstream.latency_ms else 1.0
        upstream.latency_ms += weight * (took_ms - upstream.latency_ms)

    def _failed(
        self,
        upstream: State,
        key: State,
        at: State,
        error: errors.UpstreamError,
        now: float,
        caller: object,
        model: str,
    ) -> None:
        self.changes += 1
        upstream.failed += 1
        for state in (upstream, key, at):
            state.last_error, state.last_error_at = error.code, time.time_ns() // 1_000_000
            state.last_words = error.words
        if isinstance(error, errors.UpstreamOverloaded):
            key.busy(error.retry_after, now)
        elif not isinstance(error, errors.UpstreamAccount):
            self._count(upstream, at, caller, model, now)
            self._tell_failing(upstream, at, error, now)
        elif error.named:
            key.rest("refused", REFUSED_S, REFUSED_MAX_S, now)
            self._tell_refused(upstream, key, now)
        else:  # it may mind the request: several in a row say that it is the key
            self._count(key, at, caller, model, now)
            if key.failures >= FAILURES_TO_REST:
                self._tell_refused(upstream, key, now)

    def _count(self, where: State, at: State, caller: object, model: str, now: float) -> None:
        """One more failure in a row of an upstream or a key, and of a model there."""
        for state in (where, at):
            state.failures += 1
            state.callers.add(caller)
            state.models.add(model)
            if state.failures >= FAILURES_TO_REST:
                state.rest("failing", PAUSE_S, PAUSE_MAX_S, now)

    def _tell_refused(self, upstream: State, key: State, now: float) -> None:
        self._trouble(
            key,
            f"Upstream {upstream.name} refuses {f'the {key.label}' if key.label else 'a key'} or its"
            " account. It rests and is tried again later; look at the provider's console.",
            now,
        )

    def _tell_failing(
        self, upstream: State, at: State, error: errors.UpstreamError, now: float
    ) -> None:
        if upstream.failures >= FAILURES_TO_REST:
            self._trouble(
                upstream,
                f"Upstream {upstream.name} fails again and again ({error.code}). It rests.",
                now,
            )
        elif at.failures >= FAILURES_TO_REST:
            self._trouble(
                at,
                f"{at.name} fails again and again ({error.code}). It rests; other models of the "
                "upstream go on.",
                now,
            )

    def _trouble(self, state: State, message: str, now: float) -> None:
        """Tell of trouble that lasts, with the provider's words: once, until it is over."""
        if not state.noticed:
            words = f" It says: {state.last_words}" if state.last_words else ""
            state.noticed = self._tell(message, now, words)

    def _tell(self, message: str, now: float, words: str = "") -> bool:
        """Words may differ each time, and make no news of what was told."""
        if message in self._told_at and now - self._told_at[message] < TELL_AGAIN_S:
            return False
        self._told_at[message] = now
        self.notice(message + words)
        return True

    def _may_try(
        self,
        state: State,
        now: float,
        last_resort: bool = False,
        caller: object = None,
        model: str = "",
    ) -> bool:
        if state.cause is None or now >= max(state.open_until, state.probed_until):
            return True
        of_another = len(state.callers) == 1 and caller not in state.callers
        if state.cause == "failing" and caller is not None and of_another:
            return True
        if state.cause == "failing" and len(state.models) == 1 and model not in state.models:
            return True
        if last_resort and state.cause == "failing":
            return now >= state.probed_at + LAST_RESORT_S
        return last_resort and state.cause == "busy" and state.open_end

    def _probe(self, state: State, now: float) -> None:
        if state.cause is not None and state.cause != "busy":
            state.probed_until, state.probed_at = now + PROBE_S, now

    def _upstream(self, name: str) -> State:
        state = self._upstreams.get(name)
        if state is None:
            state = self._upstreams[name] = State(name)
        return state

    def _key(self, name: str, key: str) -> State:
        state = self._keys.get((name, key))
        if state is None:
            label = f"key …{key[-4:]}" if len(key) >= KEY_LENGTH_TOLD else ""
            state = self._keys[name, key] = State(name, label)
        return state

    def _model(self, name: str, model: str) -> State:
        state = self._models.get((name, model))
        if state is None:
            state = self._models[name, model] = State(
                f"{name}'s {model}" if model else name, f"model {model}" if model else ""
            )
        return state

    def _models_of(self, name: str) -> list[State]:
        return [state for (upstream, _), state in self._models.items() if upstream == name]

    def _groups(
        self, upstreams: list, models: Sequence[str]
    ) -> list[tuple[list[State], list[State], str]]:
        """Of each upstream what all must be free (itself, the model), its keys, of which one, and
        the model."""
        groups = []
        for index, upstream in enumerate(upstreams):
            wanted = models[index] if models else ""
            fronts = [self._upstream(upstream.name), self._model(upstream.name, wanted)]
            keys = [self._key(upstream.name, key) for key in upstream.keys or ("",)]
            groups.append((fronts, keys, wanted))
        return groups
