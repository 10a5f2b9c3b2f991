"""The door for calls: a POST to a wire's address is served before Flask sees it.

Owns which addresses are calls, and how a call's answer or refusal becomes WSGI's. Sessions, hooks
and the routing of a console are a quarter of a millisecond that calls do not need; everything else
goes on to Flask.
"""

import re
from collections.abc import Callable, Iterable

from processor import home
from relay import errors, gate, refusals
from relay.meter import new_id
from relay.spine import Incoming, Relay, place
from relay.upstream.reply import CallerLeft
from relay.wires.interface import Wire
from relay.wires.registry import ADDRESSED
from turns import turns

PREFIXES = ("/api/v1", "/v1")
DOUBLED = (
    "/api/v1/v1",
    "/v1/v1",
)  # who gives the base address to a program that appends /v1 itself
CALLS = {prefix + wire.PATH: wire for prefix in (*PREFIXES, *DOUBLED) for wire in ADDRESSED}


class Door:
    """A WSGI app: calls are placed here, the rest is `app`'s."""

    def __init__(self, app: Callable, relay: Relay):
        self._app, self._relay = app, relay

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            wire = CALLS.get(meant(environ["PATH_INFO"]))
            if wire is not None:
                return self._call(wire, environ, start_response)
        turns.give()  # it is for calls: a page may hash a password, or read a million rows
        home.roam()
        if not _is_host(environ.get("HTTP_HOST", "")):
            status, headers, data = refusals.answer(
                errors.BadRequest("The Host header holds no host."), environ, new_id(), {}
            )
            start_response(status, list(headers.items()))
            return (data,)
        return self._app(environ, start_response)

    def _call(self, wire: Wire, environ: dict, start_response: Callable) -> Iterable[bytes]:
        incoming = Incoming(environ, pauses=environ.pop("server.pauses", False))
        try:
            caller = identify(self._relay, environ)
            answer = place(self._relay, wire, caller, incoming)
        except CallerLeft as err:
            status, headers, data = refusals.CALLER_LEFT, {"Content-Length": "0"}, b""
            errors.let_go(err)
        except Exception as err:
            error = refusals.error_of(err, incoming.id)
            site = self._relay.settings.site
            error.mention(site.contact, site.public_url)
            status, headers, data = refusals.answer(error, environ, incoming.id, incoming.headers)
            errors.let_go(err)
        else:
            dressed = refusals.dressed(incoming.headers, environ, incoming.id)
            start_response("200 OK", list((answer.headers | dressed).items()))
            if "Content-Length" not in answer.headers:
                turns.give()  # a stream's first words go out beside others' calls
            return answer
        start_response(status, list(headers.items()))
        return (data,)


def _is_host(host: str) -> bool:
    """Whether addresses can be made with this host; where not, Flask makes none, and no page either."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def meant(path: str) -> str:
    """An address without the slashes too many that come of base addresses that end in one."""
    return re.sub("//+", "/", path).rstrip("/") if "//" in path or path.endswith("/") else path


def identify(relay: Relay, environ: dict) -> gate.Caller:
    """The caller of a request. Raises NotAuthenticated or RateLimited."""
    return relay.gate.identify(
        environ.get("HTTP_AUTHORIZATION"),
        environ.get("HTTP_X_API_KEY"),
        environ.get("REMOTE_ADDR") or "",
    )
