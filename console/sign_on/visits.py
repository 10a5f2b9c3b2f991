"""Visits by single sign-on: sessions that are due to be checked, and those whom a proxy names.

Owns what happens before a page is shown. It costs a visit nothing where no sign-on is configured.
"""

from flask import g, make_response, request, session, url_for
from flask_login import logout_user

from console.context import is_api, member, state
from console.session import login
from console.sign_on import entry, kept, pages
from console.sign_on.person import LENGTH_MAX, Person, Refused

FROM_PROXY = "relay.from_proxy"  # in a request's environ: a trusted proxy sent it
WITH_A_SESSION = ("/console", "/admin")


def install(app) -> None:
    """Look at every visit from now on, before its page is shown."""
    app.before_request(by_header)
    app.before_request(end_by_password)
    app.before_request(check_again)


def end_by_password():
    """End a session that began by a password where passwords sign nobody in any more, and say so."""
    if is_api(request.path) or "_user_id" not in session or not kept.is_shut():
        return None
    coming = (request.endpoint or "").startswith("sign_on.")  # by what signs people in now
    if coming or request.endpoint == "static" or not _is_visit():
        return None
    return _turned_away("passwords_off")


def check_again():
    """Lead a browser through the provider whose session is due; the place it was at is kept."""
    if is_api(request.path) or not state().settings.sign_in.issuer or not _looks_at_a_page():
        return None
    if kept.identity() is None or not (kept.due() or kept.over()):
        return None
    user_id = str(session.get("_user_id", "")).partition(".")[0]
    who = int(user_id) if user_id.isdigit() else None
    return pages.lead("check", _place(), who)


def _looks_at_a_page(*more: str) -> bool:
    """Whether somebody goes to a page that wants a session; what its scripts ask for waits."""
    ours = any(f"{request.path}/".startswith(f"{each}/") for each in (*WITH_A_SESSION, *more))
    return request.method == "GET" and _is_visit() and ours


def _is_visit() -> bool:
    """Whether a person goes somewhere, and no script of a page asks."""
    return request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"


def _place() -> str:
    return request.full_path.rstrip("?")


# ---- named by a proxy


def by_header():
    """Let in whom the trusted proxy names, and out whom it names no more."""
    rules = state().settings.sign_in
    if not rules.header or is_api(request.path) or request.endpoint == "static":
        return None
    person, known = named(), kept.identity()
    if known is not None and (person is None or (person.issuer, person.subject) != known):
        logout_user()
        session.clear()
        known = None
    if person is None or not _looks_at_a_page("/login"):
        return None
    if member() is not None and (known is None or not kept.due()):
        return None  # by a password, or connected just now; or seen not long ago
    try:
        who, new = entry.enter(person)
    except Refused as refusal:
        return _turned_away(refusal.reason)
    if known is not None and member() is not None and member().id == who.id:
        kept.note(person.issuer, person.subject)
        return None
    wish = request.args.get("next", "") if request.path == url_for("signin.login") else _place()
    return pages.admit(who, person, new, wish)


def _turned_away(reason: str):
    session.clear()
    g._login_user = login.anonymous_user()
    return make_response(pages.no(reason))


def named() -> Person | None:
    """Whom the trusted proxy names; None if nobody, or if it is not the proxy that speaks."""
    rules = state().settings.sign_in
    subject = _header(rules.header)
    if not subject or not request.environ.get(FROM_PROXY):
        return None
    named_by_email = not rules.header_email and "@" in subject
    email = subject if named_by_email else _header(rules.header_email)
    return Person(
        issuer=rules.source,
        subject=subject,
        name=_header(rules.header_name) or subject.partition("@")[0],
        email=email,
        verified=True,  # the proxy has asked somebody; its word is taken
        domain=email.rpartition("@")[2].lower(),
        groups=tuple(filter(None, (each.strip() for each in _list(rules.header_groups)))),
    )


def _header(name: str) -> str:
    """What a header says. Two of one name were joined with a comma: which is the proxy's, nobody
    knows."""
    said = _text(name)
    return said if "," not in said and len(said) <= LENGTH_MAX and said.isprintable() else ""


def _list(name: str) -> list[str]:
    return _text(name).replace("|", ",").split(",")


def _text(name: str) -> str:
    """A header as the UTF-8 that proxies send; empty if it is none."""
    try:
        said = request.headers.get(name, "") if name else ""
        return said.encode("latin-1").decode().strip()
    except UnicodeError:
        return ""
