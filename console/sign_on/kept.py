"""What a session remembers of the sign-on that began it, and when it is to be asked again.

Owns that part of the session. A session by sign-on is good for `sign_in.check_every`; then the
browser is led through the provider again, and a little later the session is worth nothing.
"""

import time

from flask import session

from console.context import state

GRACE_S = 600  # for the form that somebody is filling in when the check is due
NAME = "sign_on"
WAY_IN = "way_in"


def note(issuer: str, subject: str) -> None:
    """The session's member came by this identity, now."""
    session[NAME] = {"issuer": issuer, "subject": subject, "at": int(time.time())}


def identity() -> tuple[str, str] | None:
    """The issuer and subject by which the session began; None if by a password."""
    kept = session.get(NAME)
    return (kept["issuer"], kept["subject"]) if kept else None


def note_way_in() -> None:
    """The session began by a key of the operator's, and by no password."""
    session[WAY_IN] = True


def is_way_in() -> bool:
    """Whether it did."""
    return bool(session.get(WAY_IN))


def is_shut() -> bool:
    """Whether the session began by a password, and passwords sign nobody in any more."""
    by_password = identity() is None and not is_way_in()
    return by_password and not state().settings.sign_in.passwords


def due() -> bool:
    """Whether the issuer is to be asked again."""
    return _older_than(0)


def over() -> bool:
    """Whether the session is worth nothing until the issuer was asked again, or is of an issuer
    whose word is not taken any more."""
    found = identity()
    return found is not None and (
        found[0] != state().settings.sign_in.source or _older_than(GRACE_S)
    )


def _older_than(grace_s: int) -> bool:
    kept = session.get(NAME)
    lasts_s = state().settings.sign_in.check_s + grace_s
    return kept is not None and not 0 <= time.time() - kept["at"] < lasts_s
