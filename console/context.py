"""What this request is about: the relay's state, the site, the member who asks.

Owns the only places where pages reach into Flask's extensions. Refuses to know what any page shows.
"""

import re
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from flask import current_app, request
from flask_login import current_user

from relay.wires.registry import ADDRESSED
from settings.addresses import is_local_name

# The last: where programs ask whose base address lacks its end.
FOR_PROGRAMS = {"/api", "/v1", "/healthz", "/readyz", "/metrics"} | {
    wire.PATH for wire in ADDRESSED
}

_host = re.compile(
    r"(\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}|\.(?=[A-Za-z0-9_]))*\.?)"
    r"(:(?P<port>[0-9]{1,5}))?",
    re.ASCII,
).fullmatch


def state():
    """The relay's parts (`settings`, `catalog`, `db`, `gate`).

    Read it anew at each request: a reload swaps them.
    """
    return current_app.extensions["relay"]


def site():
    """The `[site]` settings in force."""
    return state().settings.site


def site_url() -> str:
    """This site's address without a slash at its end: the configured one, else the one by which
    this visitor came.

    A Host header that is none (no name, no port, a path in it) is not repeated: the address is then
    the one at which this server listens.
    """
    configured = site().public_url.rstrip("/")
    if configured:
        return configured
    host = request.environ.get("HTTP_HOST", "")
    if not is_host(host):
        host = f"127.0.0.1:{request.environ.get('SERVER_PORT', state().settings.server.port)}"
    return f"{request.scheme}://{host}"


def is_host(text: str) -> bool:
    """Whether this is a host as an address has it: a name or an IP address, perhaps with a port."""
    parts = _host(text)
    if parts is None or (parts["port"] and not 0 < int(parts["port"]) <= 65535):
        return False
    if not parts["v6"]:
        return len(text) <= 260
    try:
        return bool(IPv6Address(parts["v6"]))
    except ValueError:
        return False


def may_come_by(host: str) -> bool:
    """Whether a browser may have come by this Host header.

    A page of the internet can rebind a name of its own to our address, and would then be our own
    origin to the browser; it cannot rebind an IP address, a name without a dot or one of a local
    network. Other names the settings must know.
    """
    if not is_host(host):
        return False
    name = urlsplit(f"//{host}").hostname or ""
    name = name.rstrip(".")
    known = (urlsplit(site().public_url).hostname, *(each.lower() for each in site().hosts))
    if name in known or is_local_name(name):
        return True
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def api_base() -> str:
    """The base address that OpenAI-style tools want."""
    return site_url() + "/api/v1"


def member():
    """The signed-in member, or None."""
    return current_user if current_user and current_user.is_authenticated else None


def is_api(path: str) -> bool:
    """Whether a path speaks JSON to programs: such answers are the relay's, errors included."""
    return path in FOR_PROGRAMS or path.startswith(("/api/", "/v1/", "/dashboard/"))
