"""What this request is about: the relay's state, the site, the member who asks.

Owns the only places where pages reach into Flask's extensions. Refuses to know what any page shows.
"""

from flask import current_app
from flask_login import current_user

from relay.wires.registry import WIRES

# The last: where programs ask whose base address lacks its end.
FOR_PROGRAMS = {"/api", "/v1", "/healthz", "/readyz", "/metrics"} | {
    wire.PATH for wire in WIRES.values()
}


def state():
    """The relay's parts (`settings`, `catalog`, `db`, `gate`).

    Read it anew at each request: a reload swaps them.
    """
    return current_app.extensions["relay"]


def site():
    """The `[site]` settings in force."""
    return state().settings.site


def site_url() -> str:
    """This site's address without a slash at its end, from the settings and never from the Host
    header."""
    return site().public_url.rstrip("/")


def api_base() -> str:
    """The base address that OpenAI-style tools want."""
    return site_url() + "/api/v1"


def member():
    """The signed-in member, or None."""
    return current_user if current_user and current_user.is_authenticated else None


def is_api(path: str) -> bool:
    """Whether a path speaks JSON to programs: such answers are the relay's, errors included."""
    return path in FOR_PROGRAMS or path.startswith(("/api/", "/v1/", "/dashboard/"))
