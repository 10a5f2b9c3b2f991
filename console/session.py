"""Who is signed in, and what keeps a session safe: cookie flags, the secret key, CSRF, safe ways
back.

Owns Flask-Login's manager and Flask-WTF's CSRF protection. Refuses to know passwords: the sign-in
pages look members up and give `login` its `user_loader`.
"""

import os
import secrets
from contextlib import suppress
from functools import wraps
from pathlib import Path
from urllib.parse import urlsplit

from flask import abort, redirect, request, url_for
from flask.sessions import SecureCookieSessionInterface
from flask_login import LoginManager
from flask_wtf.csrf import CSRFProtect

from console.context import is_api, member, site_url
from console.ui.i18n import lazy_gettext
from db import StorageError, Unusable
from db.files import sync, temporary

login = LoginManager()
login.session_protection = "basic"  # "strong" would sign out whoever changes networks
login.login_view = "signin.login"
login.login_message = lazy_gettext("Sign in to see this page.")
login.login_message_category = "info"
login.user_loader(lambda _key: None)  # nobody, until the sign-in pages say who
csrf = CSRFProtect()

KEY_BYTES = 32
SIGNED = {"sign_on.logged_out"}  # proves itself, uses no cookie, and comes from another server
DAYS_14_S = 14 * 24 * 3600


class PageSessions(SecureCookieSessionInterface):
    """Sessions for pages only: the API takes no cookies, and is spared their signing."""

    def open_session(self, app, request):
        return None if is_api(request.path) else super().open_session(app, request)

    def get_cookie_name(self, app):
        """With the prefix by which a browser lets nobody but this host set it, over https."""
        return "__Host-session" if self.get_cookie_secure(app) else "session"

    def get_cookie_secure(self, app):
        """As the settings have the address now; where they have none, as the visitor came."""
        return site_url().startswith("https://")


def secret_key(beside: str | os.PathLike) -> bytes:
    """The key that signs sessions.

    Made once, kept beside the database, readable by its owner alone. Raises StorageError where it
    cannot be read or made, Unusable for one that is no key.
    """
    path = Path(beside).resolve().parent / "secret.key"
    try:
        if not path.exists():
            _make_key(path)
        key = path.read_bytes()
    except OSError as err:
        raise StorageError(f"{path} cannot be read or made: {err.strerror}") from err
    if len(key) < KEY_BYTES:
        raise Unusable(f"{path} is shorter than {KEY_BYTES} bytes: remove it and start again")
    return key


def _make_key(path: Path) -> None:
    """A new key under this name, whole or not at all, unless another process is quicker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary(path) as draft, suppress(FileExistsError):
        draft.write_bytes(secrets.token_bytes(KEY_BYTES))
        sync(draft)
        os.link(draft, path)  # which takes no name that is taken
        sync(path)


def install(app, settings) -> None:
    """Session cookies, CSRF for everything that is not the API, and Flask-Login.

    `settings` are those of the start.
    """
    app.secret_key = app.secret_key or secret_key(settings.database.path)
    app.config.update(
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=DAYS_14_S,
        WTF_CSRF_CHECK_DEFAULT=False,
        WTF_CSRF_TIME_LIMIT=None,
        WTF_CSRF_SSL_STRICT=False,  # behind a proxy the Referer's host is the proxy's business
    )
    app.session_interface = PageSessions()
    csrf.init_app(app)
    login.init_app(app)
    app.before_request(protect)


def protect() -> None:
    """Refuses a changing request that did not come from our own form.

    The API takes no cookies and needs none.
    """
    if request.method in ("GET", "HEAD", "OPTIONS") or is_api(request.path) or not request.endpoint:
        return
    if request.endpoint in SIGNED:
        return
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        abort(400, "The form came from another site.")
    csrf.protect()


def members_only(view):
    """A page for members: others are asked to sign in first and then brought here."""

    @wraps(view)
    def page(*args, **kwargs):
        return view(*args, **kwargs) if member() else login.unauthorized()

    return page


def administrators_only(view):
    """A page for administrators. For everybody else it does not exist."""

    @wraps(view)
    def page(*args, **kwargs):
        if not member():
            return login.unauthorized()
        return view(*args, **kwargs) if member().role == "admin" else abort(404)

    return page


def safe_way_back(wish: str | None, otherwise: str) -> str:
    """Where to go after signing in.

    A path on this site, never another host (`//evil`, `/\\evil`, `https:evil`).
    """
    if not wish or not wish.startswith("/") or wish[1:2] in ("/", "\\"):
        return otherwise
    if any(ord(letter) < 33 or letter == "\\" for letter in wish) or len(wish) > 2000:
        return otherwise
    parts = urlsplit(wish)
    return otherwise if parts.scheme or parts.netloc else wish


def back_to(endpoint: str, **values):
    """A redirect after a form was handled: 303, so that a reload repeats nothing."""
    return redirect(url_for(endpoint, **values), 303)
