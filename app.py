"""The relay: `create_app` puts the parts together, `main` serves them. No logic lives here."""

import logging
import signal
import sys

from flask import Flask

import commands
import console
import db
import settings as configuration
from relay import api, limits
from relay.door import Door
from relay.spine import Relay
from server import jobs, logs, status
from server.http import Server

log = logging.getLogger("app")


def create_app(settings=None, *, serving: bool = False) -> Flask:
    """The app for these settings (else config.toml's).

    `serving`: with the writer thread, as the one server has it.
    """
    with commands.start_said():
        settings = settings or configuration.load()
    app = Flask(__name__)
    app.config.update(MAX_CONTENT_LENGTH=settings.server.body_bytes_max)
    app.json.sort_keys = False
    app.ensure_sync = lambda function: function  # none of ours is async; Flask would look each time
    database = (db.Database if serving else commands.DatabaseWhenAsked)(settings.database.path)
    relay = Relay(settings, database, _limiter(settings.limits.storage_uri))
    app.extensions["relay"] = relay
    app.register_blueprint(api.blueprint())
    app.register_blueprint(status.pages)
    with commands.start_said():
        console.register(app, settings)
    relay.secret = app.secret_key
    app.wsgi_app = Door(app.wsgi_app, relay)
    if not serving:
        commands.register(app)
    return app


def _limiter(storage_uri: str) -> limits.EnduringLimiter:
    """The counter of requests, in this process or where the settings say. Raises SettingsError."""
    try:
        with commands.start_said():
            return limits.EnduringLimiter(limits.storage_at(storage_uri))
    except ValueError as err:
        raise configuration.SettingsError([f"limits.storage_uri: {err}"]) from err


def main() -> int:
    """Serve until a signal ends it. Returns the exit status."""
    try:
        settings = configuration.load()
        logs.set_up(settings.server.log)
        app = create_app(settings, serving=True)
        app.extensions["relay"].db.serve_lock()
        server = Server(app, settings)
    except (configuration.SettingsError, db.DatabaseError, OSError) as err:
        print(f"The relay cannot start.\n{err}", file=sys.stderr)
        return 1
    jobs.begin(app, server)
    signal.signal(signal.SIGHUP, lambda *_: jobs.reload(app))
    server.run()
    app.extensions["relay"].close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
