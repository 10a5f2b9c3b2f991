"""The browser console: pages for visitors, members and administrators.

This file puts the page groups on the application and owns what all pages share: security headers,
the choice of language and theme, the template context, and pages for errors. The API under /api and
/v1 answers for itself.
"""

import hashlib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from flask import current_app, g, render_template, request, url_for
from werkzeug.exceptions import HTTPException, ServiceUnavailable

from console import context, request_limits, session
from console.ui import charts, format, forms, i18n
from console.ui.i18n import lazy_gettext as _
from db import StorageError
from members import accounts

THEMES = {"auto": _("Automatic"), "light": _("Light"), "dark": _("Dark")}
THEME_COOKIE = "theme"
YEAR_S = 365 * 24 * 3600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
SENTENCES = {
    400: _("The form could not be read. Go back, reload the page and try once more."),
    403: _("This is not yours to see or to do."),
    404: _("There is no page at this address."),
    405: _("This address does not answer to that kind of request."),
    413: _("That is more than this page takes."),
    429: _("Too many attempts. Wait a little and try again."),
    500: _("Something broke on our side. The log knows more."),
    503: _("The relay cannot save anything right now. Try again soon."),
}


def register(app, settings) -> None:
    """Puts the console on an application.

    `settings` are those in force at the start (cookies, secret key).
    """
    from console import admin, public
    from console.docs import pages
    from console.member import (
        account,
        credit,
        invites,
        overview,
        playground,
        signin,
        tokens,
        usage,
        wallet,
    )
    from console.sign_on import pages as sign_on
    from console.sign_on import visits

    request_limits.install(app)
    i18n.install(app)
    format.install(app)
    session.install(app, settings)
    for group in (
        public,
        pages,
        signin,
        account,
        overview,
        tokens,
        usage,
        wallet,
        credit,
        playground,
        invites,
        admin,
        sign_on,
    ):
        app.register_blueprint(group.pages)
    app.jinja_env.globals.update(
        stacked_bars=charts.stacked_bars,
        lines=charts.lines,
        field_attributes=forms.field_attributes,
    )
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.before_request(known_host)
    visits.install(app)
    app.context_processor(template_context)
    app.after_request(finish)
    app.register_error_handler(HTTPException, error_page)
    app.register_error_handler(StorageError, lambda _error: error_page(ServiceUnavailable()))


def known_host():
    """A page that says which line lets browsers come by the name that this one came by.

    None for names that may. Programs prove who they are with each request, whatever the name.
    """
    host = request.environ.get("HTTP_HOST", "")
    open_to_all = context.is_api(request.path) or request.endpoint == "static"
    if open_to_all or not host or context.may_come_by(host):
        return None
    name = (urlsplit(f"//{host}").hostname or "") if context.is_host(host) else ""
    g._login_user = session.login.anonymous_user()
    sentence = _("This site does not know the name by which you came. Whoever runs it can add it:")
    line = f'[site]\nhosts = ["{name}"]' if name else ""
    return render_template("error.html", code=400, sentence=sentence, line=line), 400


def theme() -> str:
    """auto, light or dark: ?theme, else the cookie, else auto."""
    wish = request.args.get("theme") or request.cookies.get(THEME_COOKIE)
    return wish if wish in THEMES else "auto"


def here(**changes) -> str:
    """This page's address with other GET parameters (None takes one out).

    An address that only takes forms stands for the page above it: /console/wallet/redeem for
    /console/wallet.
    """
    rule = request.url_rule
    if rule is None or "GET" not in rule.methods or rule.endpoint.startswith("sign_on."):
        endpoint, above = _page_above(request.path)
        return url_for(endpoint, **above, **{k: v for k, v in changes.items() if v is not None})
    values = {k: request.args.getlist(k) for k in request.args if k not in ("lang", "theme")}
    values.update(request.view_args or {}, **changes)
    return url_for(request.endpoint, **{k: v for k, v in values.items() if v is not None})


def _page_above(path: str) -> tuple[str, dict]:
    """The nearest page above an address: its endpoint and what its address holds.

    The front page above all.
    """
    addresses = current_app.url_map.bind("")
    while path := path.rpartition("/")[0]:
        try:
            return addresses.match(path, "GET")
        except HTTPException:
            continue
    return "public.front", {}


@cache
def _fingerprint(path: Path, _changed_at: float) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:10]


def asset(name: str) -> str:
    """The address of a static file, with its fingerprint.

    Browsers keep it for ever and see a change at once.
    """
    path = Path(current_app.static_folder) / name
    return url_for("static", filename=name, v=_fingerprint(path, path.stat().st_mtime))


def template_context() -> dict:
    """What every template may use."""
    state = context.state()
    return {
        "asset": asset,
        "here": here,
        "member": context.member(),
        "site": state.settings.site,
        "site_url": context.site_url(),
        "api_base": context.api_base(),
        "demo": state.catalog.demo,
        "not_set_up": _not_set_up(state),
        "language": i18n.language(),
        "languages": i18n.LANGUAGES,
        "theme": theme(),
        "themes": THEMES,
        "has_page": lambda endpoint: endpoint in current_app.view_functions,
        "registration": state.settings.accounts.registration
        if state.settings.sign_in.passwords
        else "closed",
        "sign_in": state.settings.sign_in,
    }


def _not_set_up(state) -> bool:
    """Whether nobody is an administrator yet. Once there is one there always is: it is asked no
    more."""
    if getattr(state, "set_up", False) or state.db is None:
        return False
    state.set_up = accounts.is_set_up(state.db)
    return not state.set_up


def finish(response):
    """Security headers on every answer that is not the API's.

    Remembers a choice of language or theme.
    """
    if context.is_api(request.path):
        return response
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    https = context.site_url().startswith("https://")
    if https:
        response.headers.setdefault("Strict-Transport-Security", f"max-age={YEAR_S}")
    if request.endpoint == "static":
        keep = f"public, max-age={YEAR_S}, immutable" if "v" in request.args else "no-cache"
        response.headers["Cache-Control"] = keep
        return response
    response.headers.setdefault(
        "Cache-Control", "no-store" if context.member() else "private, no-cache"
    )
    response.vary.update(("Cookie", "Accept-Language"))
    for name, choices, cookie in (
        ("lang", i18n.LANGUAGES, i18n.COOKIE),
        ("theme", THEMES, THEME_COOKIE),
    ):
        if request.args.get(name) in choices:
            response.set_cookie(
                cookie,
                request.args[name],
                max_age=YEAR_S,
                samesite="Lax",
                secure=https,
                httponly=True,
            )
    return response


def _left_https() -> bool:
    """Whether the visitor came over plain http to a site that has https: its cookies stay away, so
    no form can be read."""
    return request.scheme == "http" and context.site_url().startswith("https://")


def error_page(error: HTTPException):
    """A page with a sentence and a way back.

    API addresses keep Werkzeug's answer unless the relay has its own.
    """
    if context.is_api(request.path) or error.code is None or error.code < 400:
        return error
    sentence = SENTENCES.get(error.code, SENTENCES[500 if error.code >= 500 else 400])
    if error.code >= 500 and "_login_user" not in g:
        g._login_user = (
            session.login.anonymous_user()
        )  # whoever it is: the page must not fail at asking again
    https = context.site_url() if error.code == 400 and _left_https() else None
    page = render_template("error.html", code=error.code, sentence=sentence, https=https)
    response = current_app.make_response((page, error.code))
    for name, value in error.get_headers(request.environ):
        if name.lower() in ("retry-after", "allow"):
            response.headers[name] = value
    return response
