"""What a serving relay does besides answering: at its start, every so often, and when it is told to reload.

Owns the calendar, not the work: each chore is a function of the ledger or of the relay.
"""

import logging
import threading

import accounts
import billing
import facts
import plans
import proof
import settings as configuration

log = logging.getLogger("chores")

RETRY_S, LOOK_S, EXPIRE_S, FORGET_S, PROVE_S = 1, 2, 30, 3600, 24 * 3600


def begin(app, server) -> None:
    """Put the house in order before the first call, say what the log should say, and plan the chores."""
    relay = app.extensions["relay"]
    orphans = billing.release_orphans(relay.db)
    if orphans:
        log.warning("%s calls were interrupted when the relay last ended; their holds went back", orphans)
    _say_hello(relay, server.port)
    server.every(RETRY_S, relay.books.retry)
    server.every(EXPIRE_S, lambda: plans.expire_due(relay.db))
    server.every(FORGET_S, lambda: billing.forget_requests(relay.db, relay.settings.retention.requests_days))
    server.every(LOOK_S, lambda: relay.notices.look_at_pockets(relay.db))
    server.every(LOOK_S, Bulletin(relay))
    server.every(PROVE_S, lambda: prove(relay.db))


class Bulletin:
    """Writes down how the upstreams are whenever that has changed, so that the command line can tell."""

    def __init__(self, relay):
        self._relay, self._written = relay, None

    def __call__(self) -> None:
        changes = self._relay.sender.health.changes
        if changes != self._written:
            facts.put(self._relay.db, "upstreams", self._relay.upstream_report())
            self._written = changes


def prove(db) -> list[str]:
    """Compute the ledger again; what is wrong goes to the log."""
    wrong = proof.verify(db)
    for each in wrong:
        log.error("the ledger is wrong: %s", each)
    return wrong


def reload(app) -> None:
    """Take over a changed config.toml, in the background; a bad file changes nothing and the log says why."""
    threading.Thread(target=reload_now, args=(app.extensions["relay"],), name="reload").start()


def reload_now(relay) -> list[str]:
    """The same at once; returns the mistakes that kept the old settings in force."""
    try:
        relay.configure(configuration.load())
    except configuration.SettingsError as err:
        log.error("the settings were not reloaded:\n%s", err)
        return err.mistakes
    log.warning("the settings were reloaded")
    return []


def _say_hello(relay, port: int) -> None:
    """The lines that whoever starts the relay should read."""
    host = relay.settings.server.host
    log.info("serving at http://%s:%s", f"[{host}]" if ":" in host else host, port)
    if relay.catalog.demo:
        log.warning("DEMO MODE: no upstream key is set, so every model is answered by the built-in demo. "
                    "Set one, for example DEEPSEEK_API_KEY, and start again.")
    key = accounts.setup_key(relay.db)
    if key:
        log.warning("There is no administrator yet. Make yourself one at %s/setup?key=%s",
                    relay.settings.site.public_url.rstrip("/"), key)
