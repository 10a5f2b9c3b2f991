"""The door to administration: who comes in, and what asks for the password once more.

Owns the blueprint of all pages below /admin. Whoever is no administrator finds nothing there. What
moves money or power wants a password typed within the last half hour, so that a screen left alone
is worth less.
"""

import time
from functools import wraps

from flask import Blueprint, render_template, request

import billing
from console import throttle
from console.context import member, state
from console.member import signin
from console.session import administrators_only
from console.sign_on import kept
from console.ui.i18n import gettext as _
from members import accounts, audit

pages = Blueprint("admin", __name__, url_prefix="/admin")

PROVEN_S = 1800
TRIES = "5 per minute"
NOT_KEPT = ("csrf_token", "own_password", "key")  # the last: a provider's, which no page holds


@pages.before_request
@administrators_only
def administrators() -> None:
    """Everybody else is asked to sign in, or told that there is no such page."""


def recently_authenticated(view):
    """For a view that answers a form: asks for the administrator's password if it was not typed
    lately.

    What was posted is kept meanwhile, so that nothing is typed twice. Signing in counts.
    """

    @wraps(view)
    def page(*args, **kwargs):
        typed, error = request.form.get("own_password"), ""
        if typed is not None and signin.takes_password(member().id):
            throttle.refuse_over(TRIES, "prove", member().id)
            if accounts.password_is(state().db, member().id, typed):
                signin.note_proof()
            else:
                error = _("This is not your password.")
        if signin.is_proven(PROVEN_S) and not error:
            return view(*args, **kwargs)
        if not signin.takes_password(member().id):
            return _proven_elsewhere(lambda: view(*args, **kwargs))
        filled = [
            (name, value) for name, value in request.form.items(multi=True) if name not in NOT_KEPT
        ]
        return render_template("admin/prove.html", kept=filled, error=error)

    return page


def _proven_elsewhere(view):
    """For who has no password: the proxy that names them proves it with each request, and a
    provider is asked once more."""
    if state().settings.sign_in.header and kept.identity():
        return view()
    return render_template("admin/prove_elsewhere.html")


def note(action: str, user_id: int | None = None, **detail) -> None:
    """Put into the audit trail what this administrator does, where no other function does so."""
    by = member().id
    state().db.write(lambda conn: audit.record(conn, by, action, user_id, detail))


def first_submission(key: str, request_: list) -> bool:
    """Whether this is the first time that this administrator sends this form (`key` is its hidden
    field).

    For what cannot be answered twice because its answer is not kept. Raises KeyReused.
    """
    mine = billing.now_ms(), time.perf_counter_ns()
    kept = state().db.write(
        billing.once, member().id, key, request_, lambda conn, now: {"claim": mine}, mine[0]
    )
    return tuple(kept["claim"]) == mine
