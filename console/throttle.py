"""How often something may be tried: sign-ins, codes, exports.

Owns the counting of attempts, in the limiter that the gate uses too. Each attempt is counted before
it is made.
"""

from ipaddress import ip_address, ip_network

from flask import request
from werkzeug.exceptions import TooManyRequests

from console.context import state
from relay import limits


def wait_s(rate: str, *keys) -> int | None:
    """Count an attempt under these keys. None if it may be made, else the seconds to wait.

    `rate`: "5 per minute".
    """
    allowed = limits.rate_of(rate)
    window = state().limiter.count(allowed, *map(str, keys))
    return None if window.count <= allowed.amount else window.wait_s


def forget(rate: str, *keys) -> None:
    """Take back what was counted under these keys."""
    state().limiter.clear(limits.rate_of(rate), *map(str, keys))


def refuse_over(rate: str, *keys) -> None:
    """Count an attempt. Raises 429, with how long to wait, if there were too many."""
    wait = wait_s(rate, *keys)
    if wait is not None:
        raise TooManyRequests(retry_after=wait)


def address() -> str:
    """Whom attempts are counted against before anybody is known.

    Of IPv6 the network, for that is what one has.
    """
    try:
        found = ip_address(request.remote_addr or "")
    except ValueError:
        return "?"
    return str(ip_network((found, 64), strict=False)) if found.version == 6 else str(found)
