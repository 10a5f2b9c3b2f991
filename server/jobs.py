"""What a serving relay does besides answering: at its start, every so often, and when it is told to
reload.

Owns the calendar, not the work: each chore is a function of the ledger or of the relay.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import billing
import plans
import settings as configuration
import verify
from db import StorageError, meta
from members import accounts, call_rows, turned_away
from members.terms import lost_plans, plan_changes, terms_of
from relay import pricelist
from server import digest, memory
from server.backups import Backups
from settings import changes

log = logging.getLogger("jobs")

WRONG_KEPT = 50
RETRY_S, EXPIRE_S, LOOK_S, COUNT_S, FORGET_S, PROVE_S = 1, 1, 2, 30, 3600, 24 * 3600
BACKUP_S = CAPS_S = MEMORY_S = 60
PATIENCE_S = 4  # for a proof, before whoever asked is told that it runs
DAYS_S = 600
AT_START = {
    "server": ("host", "port", "threads", "body_bytes_max", "trusted_proxy", "log", "drain_s"),
    "database": ("path",),
    "limits": ("storage_uri",),
}  # what is read only then


def begin(app, server) -> None:
    """Put the house in order before the first call, say what the log should say, and plan the
    chores. A disk that refuses is waited for: pages are served, and no call begins until then."""
    relay = app.extensions["relay"]
    relay.in_order = False
    relay.clock.begin(relay.db)  # before any chore asks it
    patiently(lambda: put_in_order(relay))()
    patiently(lambda: _say_hello(relay, server.addresses))()

    def every(seconds: float, chore: Callable[[], object]) -> None:
        server.every(seconds, patiently(chore))

    every(RETRY_S, lambda: put_in_order(relay))
    every(RETRY_S, relay.settlement.retry)
    every(EXPIRE_S, lambda: relay.notices.trouble("clock", relay.clock.problem, "warning"))
    every(EXPIRE_S, steadily(relay, lambda: plans.expire_due(relay.db)))
    every(FORGET_S, steadily(relay, lambda: _forget_calls(relay)))
    every(LOOK_S, lambda: relay.notices.look_at_pockets(relay.db))
    every(CAPS_S, lambda: relay.notices.look_at_caps(relay.db, _today(relay.settings)))
    every(CAPS_S, lambda: relay.notices.look_at_tokens(relay.db))
    every(DAYS_S, steadily(relay, lambda: look_at_days(relay, _today(relay.settings))))
    every(LOOK_S, lambda: relay.turned_away.write(relay.db))
    every(FORGET_S, steadily(relay, lambda: _forget_turned_away(relay)))
    every(LOOK_S, Bulletin(relay))
    every(PROVE_S, lambda: prove_and_tell(relay))
    every(LOOK_S, lambda: relay.notices.trouble("disk", _disk(relay.disk_problem)))
    every(BACKUP_S, steadily(relay, Backups(relay, relay.notices.trouble)))
    every(MEMORY_S, memory.give_back)


def put_in_order(relay) -> None:
    """What must be done once before the first call. Raises StorageError: it is to be done again."""
    if relay.in_order:
        return
    try:
        _write_down(relay)
    except StorageError as err:
        relay.out_of_order = str(err)
        raise
    relay.in_order = True


def _write_down(relay) -> None:
    relay.settlement.recover()  # before what is open is taken for interrupted
    orphans = billing.release_orphans(relay.db)
    if orphans:
        log.warning(
            "%s calls were interrupted when the relay last ended; their holds went back", orphans
        )
    relay.notices.outbox.begin(relay.db)
    note_settings(relay)
    pricelist.remember(relay, billing.now_ms())
    # Who has an allowance has it from the first call on.
    steadily(relay, lambda: plans.expire_due(relay.db))()


def patiently(chore: Callable[[], object]) -> Callable[[], None]:
    """The chore; where the disk refuses, it is left for the next time, and the disk tells of itself."""

    def act() -> None:
        with contextlib.suppress(StorageError):
            chore()

    return act


def steadily(relay, chore: Callable[[], object]) -> Callable[[], None]:
    """The chore, but not while the clock is in doubt: it cannot be undone."""

    def act() -> None:
        relay.clock.look(relay.db)  # it may have jumped this very moment
        if relay.clock.steady:
            chore()

    return act


class Bulletin:
    """Writes down how the upstreams are, so that the command line can tell: at once when one
    changes for the better or worse, and now and then how much they have done. `at` (ms) is when
    that was.
    """

    def __init__(self, relay):
        self._relay, self._written, self._report, self._again_at = relay, None, [], 0.0

    def __call__(self) -> None:
        relay, now = self._relay, time.monotonic()
        state, report = (relay.sender.health.changes, relay.catalog), relay.upstream_report()
        if state == self._written and (now < self._again_at or report == self._report):
            return
        at = time.time_ns() // 1_000_000
        meta.put(relay.db, "upstreams", [{**each, "at": at} for each in report])
        self._written, self._report, self._again_at = state, report, now + COUNT_S


def _today(settings) -> str:
    """The site's day."""
    return f"{datetime.now(ZoneInfo(settings.site.timezone)):%Y-%m-%d}"


def look_at_days(relay, day: str) -> None:
    """Tell once what last week was like, when its week is over, and of a day that is unlike the
    others. A new house has no week to tell of."""
    monday = str(date.fromisoformat(day) - timedelta(date.fromisoformat(day).weekday()))
    told = meta.get(relay.db, "week_told")
    if told is None or told < monday:
        meta.put(relay.db, "week_told", monday)
        sentence = digest.week(relay.db, monday) if told else None
        if sentence:
            relay.notices.tell("week", sentence, "info")
    known = [each for each in meta.get(relay.db, "unusual_told", []) if each[0] == day]
    for name, sentence in digest.unusual(relay.db, day).items():
        if [day, name] not in known:
            known.append([day, name])
            meta.put(relay.db, "unusual_told", known)
            relay.notices.tell("unusual_day", sentence)


def _forget_calls(relay) -> None:
    """Forget old calls, and give the disk what that left unused."""
    call_rows.forget(relay.db, relay.settings.retention.requests_days)
    relay.db.shrink()


def _forget_turned_away(relay) -> None:
    """Let go of what was turned away before the days of which single calls are kept."""
    days, zone = relay.settings.retention.requests_days, ZoneInfo(relay.settings.site.timezone)
    turned_away.forget(relay.db, f"{datetime.now(zone) - timedelta(days):%Y-%m-%d}")


def _disk(problem: str | None) -> str | None:
    return problem and f"The database cannot be written: {problem}. Calls are refused."


def prove_and_tell(relay) -> None:
    """Prove the ledger, and tell administrators if it is wrong."""
    wrong = prove(relay.db)
    relay.notices.trouble("ledger", f"The ledger is wrong: {wrong[0]}" if wrong else None)


def prove(db) -> list[str]:
    """Compute the ledger again.

    What is wrong goes to the log, and with the time to the fact "proof".
    """
    began_at = billing.now_ms()
    wrong = verify.verify(db)
    for each in wrong:
        log.error("the ledger is wrong: %s", each)
    meta.put(
        db,
        "proof",
        {"at": began_at, "took_ms": billing.now_ms() - began_at, "wrong": wrong[:WRONG_KEPT]},
    )
    return wrong


_proving = threading.Lock()


def proving() -> bool:
    """Whether a proof that somebody asked for runs now."""
    return _proving.locked()


def prove_soon(db, begun: Callable[[], object]) -> None:
    """Prove the ledger in the background, if it is not being done; wait for PATIENCE_S. With a
    million calls it takes longer. `begun` is called if this one begins."""

    def work() -> None:
        try:
            prove(db)
        finally:
            _proving.release()

    if _proving.acquire(blocking=False):
        begun()
        worker = threading.Thread(target=work, name="proof", daemon=True)
        worker.start()
        worker.join(PATIENCE_S)


def preview(relay) -> tuple[list[str], dict, list[str]]:
    """The mistakes of the settings' files, what a reload would change, and what that means for who
    holds a plan."""
    try:
        after = configuration.load()
    except configuration.SettingsError as err:
        return err.mistakes, {}, []
    before = changes.picture(relay.settings)
    terms = plan_changes(relay.db, terms_of(relay.settings), after)
    lost = [each for each in [lost_plans(relay.db, after)] if each]
    return [], changes.difference(before, changes.picture(after)), terms + lost


def reload(app) -> None:
    """Take over a changed config.toml, in the background.

    A bad file changes nothing and the log says why.
    """
    threading.Thread(target=reload_now, args=(app.extensions["relay"],), name="reload").start()


def reload_now(relay) -> list[str]:
    """The same at once; returns the mistakes that kept the old settings in force.

    Upstreams and keys that rest are tried again at once: whoever reloads may just have mended them.
    """
    before, found = relay.settings, None
    try:
        found = configuration.load()
        relay.configure(found)
    except configuration.SettingsError as err:
        log.error("the settings were not reloaded:\n%s", err)
        return err.mistakes
    relay.sender.health.wake()
    what = changes.sentence(changes.difference(changes.picture(before), changes.picture(found)))
    log.warning("the settings were reloaded: %s", what or "nothing has changed")
    note_settings(relay)
    pricelist.remember(relay, billing.now_ms())
    waiting = [
        f"{table}.{name}"
        for table, names in AT_START.items()
        for name in names
        if getattr(getattr(before, table), name) != getattr(getattr(relay.settings, table), name)
    ]
    if waiting:
        log.warning(
            "%s: the change takes effect when the relay is started again", ", ".join(waiting)
        )
    return []


def note_settings(relay) -> None:
    """Write down which settings are in force, without keys, so that a command can compare them with
    the files; and which variables this process has, which others do not see. Tell of plans that are
    others than those of the last time."""
    known = configuration.variables(relay.settings)
    has = sorted(name for name in known if configuration.providers.secret(f"${name}", os.environ))
    before = meta.get(relay.db, "settings_in_force") or {}
    for each in plan_changes(relay.db, before.get("plans", {}), relay.settings):
        relay.notices.tell("plan_terms", each)
    terms = terms_of(relay.settings)
    fact = {"picture": changes.picture(relay.settings), "variables": has, "plans": terms}
    meta.put(relay.db, "settings_in_force", fact)
    relay.notices.trouble("plans", lost_plans(relay.db, relay.settings), "warning")


def _say_hello(relay, addresses: list[str]) -> None:
    """The lines that whoever starts the relay should read."""
    log.info("serving at %s", ", ".join(addresses))
    if relay.catalog.demo:
        log.warning(
            "DEMO MODE: no upstream key is set, so every model is answered by the built-in demo. "
            "Set one, for example DEEPSEEK_API_KEY, and start again."
        )
    key = accounts.setup_key(relay.db)
    if key:
        public = relay.settings.site.public_url.rstrip("/")
        doors = [f"{each}/setup?key={key}" for each in ([public] if public else addresses)]
        log.warning("There is no administrator yet. Make yourself one at %s", " or at ".join(doors))
