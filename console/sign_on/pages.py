"""The way to an identity provider and back, and the address that lets an operator back in.

Owns these addresses and what they say. Nobody is signed in, or connected, but in the browser in
which the attempt began; after that the visitor is led to a page of this site alone.
"""

import logging
import re
import threading

from flask import (
    Blueprint,
    Response,
    abort,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)

from console import throttle
from console.context import member, site_url, state
from console.member import signin
from console.session import safe_way_back
from console.sign_on import attempt as attempts
from console.sign_on import entry, kept
from console.sign_on.person import Person, Refused, check, from_claims
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import accounts, identities, way_in

log = logging.getLogger("console.sign_on")

pages = Blueprint("sign_on", __name__, url_prefix="/sign-in")

PER_ADDRESS = "120 per minute"  # an office behind one address comes in at nine
ONCE_PER_ADDRESS = "20 per minute"
LEEWAY_S = 60  # of two clocks
SENTENCES = {
    "no_email": _l("Your account there has no e-mail address, and this site wants one."),
    "email_not_verified": _l("Your e-mail address has not been verified there."),
    "not_of_the_company": _l("Your e-mail address is not among those that may come here."),
    "not_in_the_groups": _l("You are in none of the groups that may come here."),
    "no_newcomers": _l("You are no member here yet, and an administrator makes the members."),
    "disconnected": _l(
        "This account was disconnected here. Sign in as you did before and connect it again."
    ),
    "disabled": _l("Your account here is disabled."),
    "another": _l("This account is connected with another member here."),
    "no_subject": _l("The provider did not say who you are."),
    "untold": _l(
        "The provider does not tell when you signed in there, so this proves nothing. Sign out"
        " here and in again instead."
    ),
    "access_denied": _l("You were not let in there, or you said no. Nothing has happened here."),
    "told_off": _l("The provider could not sign you in. Try again in a while."),
    "stale": _l("This attempt to sign in has ended, or began in another browser. Try again."),
    "passwords_off": _l(
        "Passwords sign nobody in here any more. Come in by single sign-on; if it does not let you"
        " in, whoever runs the server gets an address for you from: flask user way-in NAME"
    ),
    "spent": _l("This address has been used, or has ended."),
    "not_believed": _l(
        "What the provider said could not be believed. Whoever runs this site can"
        " read why in the log."
    ),
    "unreachable": _l("The provider cannot be reached at the moment. Try again in a while."),
}
STATUS = {"stale": 400, "spent": 404, "not_believed": 400, "told_off": 502, "unreachable": 503}

_error_code = re.compile(r"[a-z_]{1,60}", re.ASCII).fullmatch
_making = threading.Lock()


@pages.app_template_global()
def issuer_name(issuer: str) -> str:
    """What people call whoever vouches for somebody."""
    rules = state().settings.sign_in
    return (rules.button if issuer == rules.source else "") or issuer.removeprefix("https://")


def provider():
    """The identity provider of the settings in force, or 404. Its library is loaded with the first
    one who comes: whoever has none never pays for it."""
    from console.sign_on.provider import Provider

    relay, rules = state(), state().settings.sign_in
    if not rules.issuer:
        abort(404)
    with _making:
        known = getattr(relay, "identity_provider", None)
        if known is None or known.settings != rules:
            known = relay.identity_provider = Provider(rules)
    return known


def lead(purpose: str = "enter", next_: str = "", who: int | None = None, **more: str) -> Response:
    """Lead the browser to the provider.

    By a page that leads on by itself: a redirect would be refused to a browser that has just sent
    a form, for our forms go nowhere else.
    """
    from console.sign_on.provider import ProviderError

    back = site_url() + url_for("sign_on.callback")
    next_ = next_ if attempts.has_room_for(next_) else url_for("overview.page")
    attempt = attempts.begin(back, next_, purpose, who)
    try:
        way = provider().way(
            state=attempt.state,
            nonce=attempt.nonce,
            verifier=attempt.verifier,
            back=back,
            **more,
        )
    except ProviderError as err:
        return no("unreachable", next_, err)
    response = make_response(render_template("member/leading.html", way=way))
    response.headers["Refresh"] = f"0; url={way}"
    response.headers["Cache-Control"] = "no-store"  # it holds what the way back must show
    attempts.keep(response, attempt)
    return response


def no(reason: str, next_: str = "", why: object = None) -> Response:
    """The calm page that says why nobody came in."""
    if why is not None:
        log.warning("single sign-on failed, from %s: %s", request.remote_addr, why)
    page = render_template("member/not_signed_in.html", sentence=SENTENCES[reason], next=next_)
    return make_response(page, STATUS.get(reason, 403))


@pages.get("/begin")
def begin():
    """To the provider. `prove`: who is signed in shows once more that it is they."""
    throttle.refuse_over(PER_ADDRESS, "sign-on", throttle.address())
    provider()  # or there is no such page
    next_ = safe_way_back(request.args.get("next"), url_for("overview.page"))
    if "prove" in request.args and member():
        return lead("prove", next_, member().id, prompt="login", max_age="0")
    return redirect(next_) if member() and not kept.due() else lead("enter", next_)


@pages.get("/callback")
def callback():
    """Back from the provider."""
    throttle.refuse_over(PER_ADDRESS, "sign-on-back", throttle.address())
    provider()  # or there is no such page
    given = request.args.get("state", "")
    attempt = attempts.take(given)
    if attempt is None and member():  # begun in one of many tabs; another one has come in
        return _go(url_for("overview.page"))
    if attempt is None:
        return no("stale", why="there is no such attempt in this browser")
    response = make_response(_came_back(attempt))
    attempts.drop(response, given)
    return response


def _came_back(attempt: attempts.Attempt) -> Response:
    from console.sign_on.provider import NotBelieved, ProviderError

    try:
        person = _named(attempt)
    except Refused as refusal:
        return _refused(attempt, refusal.reason)
    except NotBelieved as err:
        return no("not_believed", attempt.next, err)
    except ProviderError as err:
        return no("unreachable", attempt.next, err)
    try:
        return PURPOSES[attempt.purpose](attempt, person)
    except Refused as refusal:
        return _refused(attempt, refusal.reason)


def _named(attempt: attempts.Attempt) -> Person:
    """Whom the provider names. Raises Refused, ProviderError."""
    from console.sign_on.provider import NotBelieved

    there, args = provider(), request.args
    issuer = args.get("iss")
    if issuer is None and there.answers_with_issuer():
        raise NotBelieved("the way back does not name the provider")
    if issuer is not None and issuer != there.settings.issuer:
        raise NotBelieved(f"the way back names another provider: {issuer!r}")
    if "error" in args:
        code = args["error"] if _error_code(args["error"]) else "?"
        log.info("the provider said %s, to %s", code, request.remote_addr)
        raise Refused("access_denied" if code == "access_denied" else "told_off")
    claims = there.claims(
        code=args.get("code", ""),
        nonce=attempt.nonce,
        verifier=attempt.verifier,
        back=attempt.back,
    )
    if attempt.purpose == "prove" and _proven_at(claims) < attempt.at - LEEWAY_S:
        raise NotBelieved("nobody proved anything there since")
    return from_claims(there.settings, claims)


def _proven_at(claims: dict) -> float:
    """When somebody last showed the provider that it is they (seconds). Raises Refused if it does
    not say: what we ask it for stands in an address that the visitor may edit."""
    said = claims.get("auth_time")
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise Refused("untold")
    return said


def _refused(attempt: attempts.Attempt, reason: str) -> Response:
    """Nobody came in. Where somebody's session was checked, this was the end of it."""
    checked = attempt.who if attempt.purpose == "check" else None
    who = accounts.find(state().db, checked) if checked is not None else None
    if who is not None and reason == "access_denied" and _is_session_of(who):
        state().db.write(lambda conn: accounts.renew_epoch(conn, who.id))
        log.warning("the sessions of %s ended: the provider let them in no more", who.name)
        session.clear()
    return no(reason, attempt.next)


def _is_session_of(who: accounts.Member) -> bool:
    return session.get("_user_id") == signin.SignedIn(who).get_id()


def _go(address: str) -> Response:
    return make_response(redirect(address, 303))


# ---- what an attempt was for


def _enter(attempt: attempts.Attempt, person: Person) -> Response:
    who, new = entry.enter(person)
    same = attempt.purpose == "check" and attempt.who == who.id and _is_session_of(who)
    if same and not signin.has_ended():
        kept.note(person.issuer, person.subject)  # the same session, and good for longer
        return _go(attempt.next)
    return admit(who, person, new, attempt.next)


def admit(who: accounts.Member, person: Person, new: bool, next_: str) -> Response:
    """Sign a member in who was named, and lead where they wanted to go."""
    signin.begin_session(who, keep=True)
    kept.note(person.issuer, person.subject)
    entry.note_sign_in(who, person)
    if new:
        flash(_("Welcome, %(name)s.", name=who.name), "good")
        if person.name and who.name != person.name:
            flash(
                _(
                    "Somebody here is called %(name)s already. If that is you, ask an administrator"
                    " to connect this sign-in with that account.",
                    name=person.name,
                ),
                "info",
            )
    response = _go(safe_way_back(next_, url_for("overview.page")))
    signin.greet_in_language(response, who)
    return response


def _connect(attempt: attempts.Attempt, person: Person) -> Response:
    me = member()
    if me is None or me.id != attempt.who:
        raise Refused("stale")
    check(state().settings.sign_in, person)  # or it would end what its owner has when it comes
    try:
        identities.connect(
            state().db,
            me.id,
            person.issuer,
            person.subject,
            name=person.name,
            email=person.email,
            by=me.id,
        )
    except identities.Taken:
        raise Refused("another") from None
    flash(_("From now on you can come in by single sign-on."), "good")
    return _go(url_for("account.page"))


def _prove(attempt: attempts.Attempt, person: Person) -> Response:
    me = member()
    known = identities.find(state().db, person.issuer, person.subject)
    if me is None or me.id != attempt.who or known is None or known.user_id != me.id:
        raise Refused("another")
    signin.note_proof()
    return _go(attempt.next)


PURPOSES = {"enter": _enter, "check": _enter, "connect": _connect, "prove": _prove}


# ---- told by the provider, and let in by the operator


@pages.post("/logged-out")
def logged_out():
    """The provider says that somebody has signed out there (OpenID Connect Back-Channel Logout)."""
    from console.sign_on.provider import ProviderError

    throttle.refuse_over(PER_ADDRESS, "sign-on-out", throttle.address())
    there = provider()
    try:
        subject = there.logged_out(request.form.get("logout_token", ""))
    except ProviderError as err:
        log.warning("a logout of the provider was not believed: %s", err)
        return {"error": "invalid_request"}, 400, {"Cache-Control": "no-store"}
    known = identities.find(state().db, there.settings.issuer, subject)
    if known is not None and known.user_id is not None:
        accounts.end_sessions(state().db, known.user_id, by=known.user_id)
    return "", 200, {"Cache-Control": "no-store"}


@pages.get("/once")
def ask_once():
    """Ask whoever has the address that `flask user way-in` printed: what only looks at addresses (a
    chat's preview, HEAD) must not use it up."""
    key = _way_in_key()
    if not way_in.opens(state().db, key):
        return _spent()
    page = make_response(render_template("member/once.html", key=key))
    page.headers["Cache-Control"] = "no-store"
    return page


@pages.post("/once")
def once():
    """Sign them in."""
    who = way_in.take(state().db, _way_in_key())
    if who is None:
        return _spent()
    if who.disabled:
        return no("disabled")
    signin.begin_session(who)
    kept.note_way_in()
    log.info(
        "%s signed in by an address of the command line, from %s", who.name, request.remote_addr
    )
    return redirect(url_for("overview.page"), 303)


def _way_in_key() -> str:
    throttle.refuse_over(ONCE_PER_ADDRESS, "way-in", throttle.address())
    return request.values.get("key", "")


def _spent() -> Response:
    log.warning("a sign-in failed, from %s", request.remote_addr)
    return no("spent")
