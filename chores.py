"""What a serving relay does besides answering: at its start, every so often, and when it is told to reload.

Owns the calendar, not the work: each chore is a function of the ledger or of the relay.
"""

import logging
import threading

import billing
import plans
import settings as configuration

log = logging.getLogger("chores")

RETENTION_S = 3600


def begin(app, server) -> None:
    """Put the house in order before the first call, say what the log should say, and plan the chores."""
    relay = app.extensions["relay"]
    orphans = billing.release_orphans(relay.db)
    if orphans:
        log.warning("%s calls were interrupted by the last stop; their holds were released", orphans)
    say_hello(relay, server.port)
    server.every(1, relay.books.retry)
    server.every(30, lambda: plans.expire_due(relay.db))
    server.every(RETENTION_S, lambda: billing.forget_requests(relay.db, relay.settings.retention.requests_days))


def say_hello(relay, port: int) -> None:
    """The lines that whoever starts the relay should read."""
    server = relay.settings.server
    log.info("serving at http://%s:%s", server.host, port)
    if relay.catalog.demo:
        log.warning("DEMO MODE: no upstream key is set, so every model is answered by the built-in demo. "
                    "Set one, for example DEEPSEEK_API_KEY, and start again.")


def reload(app) -> None:
    """Take over a changed config.toml, in the background; a bad file changes nothing and the log says why."""
    threading.Thread(target=_reload, args=(app.extensions["relay"],), name="reload").start()


def _reload(relay) -> None:
    try:
        relay.configure(configuration.load())
    except configuration.SettingsError as err:
        log.error("the settings were not reloaded: %s", err)
    else:
        log.info("the settings were reloaded")
