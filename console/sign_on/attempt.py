"""An attempt to come in by an identity provider, between the way there and the way back.

Owns the cookie that ties both to one browser: signed, short-lived, one for each attempt, and good
for one way back. What it holds (state, nonce, verifier) is worth nothing in another browser.
"""

import hmac
import json
import secrets
import threading
import time
from dataclasses import asdict, dataclass

from flask import Response, current_app, request
from itsdangerous import BadData, URLSafeTimedSerializer

from console.context import site_url

LASTS_S = 600
MARK = "sign-in-"
SHOWN = 12  # letters of the state that name the cookie
OPEN_MAX = 8  # attempts of one browser that may be under way
NEXT_BYTES_MAX = 1000  # of a cookie, which a browser takes up to 4,096 bytes


@dataclass(frozen=True)
class Attempt:
    """What must be the same on the way back. `purpose`: enter, check, connect or prove; `who` is
    the member for whom it began, if it is not to enter."""

    state: str
    nonce: str
    verifier: str
    back: str
    next: str
    purpose: str
    who: int | None
    at: int

    @property
    def cookie(self) -> str:
        return _cookie(self.state)


def has_room_for(next_: str) -> bool:
    """Whether an attempt can keep this address."""
    return len(json.dumps(next_)) <= NEXT_BYTES_MAX


def begin(back: str, next_: str, purpose: str = "enter", who: int | None = None) -> Attempt:
    """A new attempt, which leads back to one address."""
    return Attempt(
        state=secrets.token_urlsafe(24),
        nonce=secrets.token_urlsafe(24),
        verifier=secrets.token_urlsafe(48),
        back=back,
        next=next_,
        purpose=purpose,
        who=who,
        at=int(time.time()),
    )


def keep(response: Response, attempt: Attempt) -> None:
    """Let the browser carry the attempt; of too many, the oldest are let go of."""
    known = [name for name in request.cookies if name.startswith(_cookie(""))]
    if len(known) >= OPEN_MAX:
        for name in sorted(known, key=_began_at)[: len(known) - OPEN_MAX + 1]:
            _drop(response, name)
    response.set_cookie(
        attempt.cookie,
        _signer().dumps(asdict(attempt)),
        max_age=LASTS_S,
        samesite="Lax",
        httponly=True,
        secure=_secure(),
    )


def take(state: str) -> Attempt | None:
    """The attempt of this browser that this state belongs to, once; None if there is none."""
    attempt = _carried(_cookie(state))
    if attempt is None:
        return None
    same = hmac.compare_digest(attempt.state.encode(), state.encode("utf-8", "replace"))
    return attempt if same and _spent.first(state) else None


def _carried(name: str) -> Attempt | None:
    """The attempt in a cookie of this browser; None if it has ended, or was never ours."""
    try:
        return Attempt(**_signer().loads(request.cookies.get(name, ""), max_age=LASTS_S))
    except (BadData, TypeError):
        return None


def _began_at(name: str) -> int:
    attempt = _carried(name)
    return attempt.at if attempt else 0


def drop(response: Response, state: str) -> None:
    """Let the browser forget the attempt."""
    if _cookie(state) in request.cookies:
        _drop(response, _cookie(state))


def _drop(response: Response, name: str) -> None:
    response.delete_cookie(name, samesite="Lax", httponly=True, secure=_secure())


class _Spent:
    """The states that have been used, as long as their cookies could be shown again."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._lock = threading.Lock()

    def first(self, state: str) -> bool:
        """Whether this is the first use."""
        now = time.monotonic()
        with self._lock:
            for each in [each for each, until in self._until.items() if until < now]:
                del self._until[each]
            if state in self._until:
                return False
            self._until[state] = now + LASTS_S
            return True


_spent = _Spent()


def _signer() -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(current_app.secret_key or "", salt=MARK)


def _cookie(state: str) -> str:
    return ("__Host-" if _secure() else "") + MARK + state[:SHOWN]


def _secure() -> bool:
    return site_url().startswith("https://")
