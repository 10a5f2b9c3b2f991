"""The account: password, language, and the end of all sessions.

Owns what members change about themselves. Name, role and balances are not among it, whatever a form
sends.
"""

from flask import Blueprint, abort, flash, render_template, request, session, url_for
from wtforms import PasswordField
from wtforms.validators import InputRequired

from console import throttle
from console.context import member, state
from console.member import signin
from console.session import back_to, members_only
from console.sign_on import entry, kept
from console.sign_on import pages as sign_on
from console.ui import i18n
from console.ui.forms import Form
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import accounts, identities

pages = Blueprint("account", __name__, url_prefix="/console/account")

ATTEMPTS = "5 per minute"


class PasswordForm(Form):
    current = PasswordField(
        _l("Current password"),
        [InputRequired(_l("Type your password."))],
        render_kw={"autocomplete": "current-password"},
    )
    password = signin.new_password(_l("New password"))
    again = signin.repeated("password")


@pages.get("")
@members_only
def page():
    """Who you are here, and what you may change about it."""
    return _show(PasswordForm())


def _show(form: PasswordForm) -> str:
    me = member().id
    mine = identities.of(state().db, me)
    return render_template(
        "member/account.html",
        form=form if signin.takes_password(me) else None,
        who=accounts.find(state().db, me),
        identities=mine,
        may_disconnect=[each for each in mine if _comes_without(me, each.issuer, each.subject)],
    )


def _comes_without(me: int, issuer: str, subject: str) -> bool:
    """Whether somebody would still come in who has this identity no more."""
    others = (
        each
        for each in identities.of(state().db, me)
        if (each.issuer, each.subject) != (issuer, subject)
    )
    return signin.takes_password(me) or any(entry.may_come(each) for each in others)


@pages.post("/password")
@members_only
def password():
    """Change the password. Every other session ends."""
    form, me = PasswordForm(), member()
    if not signin.takes_password(me.id):
        abort(403)
    if not form.validate_on_submit():
        return _show(form)
    wait = throttle.wait_s(ATTEMPTS, "password", me.id)
    if wait:
        form.current.errors = [_("Too many attempts. Try again in %(n)s seconds.", n=wait)]
        return _show(form), 429, {"Retry-After": str(wait)}
    if not accounts.password_is(state().db, me.id, form.current.data):
        form.current.errors = [_("This is not your password.")]
        return _show(form)
    accounts.set_password(state().db, me.id, form.password.data, by=me.id)
    signin.begin_session(accounts.find(state().db, me.id), keep=session.permanent)
    flash(
        _("The password is changed. Wherever else you were signed in, you are not any more."),
        "good",
    )
    return back_to("account.page")


@pages.post("/connect")
@members_only
def connect():
    """Connect the account with an identity at the provider: it is asked who comes."""
    throttle.refuse_over(ATTEMPTS, "connect", member().id)
    return sign_on.lead("connect", url_for("account.page"), member().id)


@pages.post("/disconnect")
@members_only
def disconnect():
    """Let an identity be of nobody. All sessions end; this browser gets a new one."""
    me, form = member(), request.form
    issuer, subject = form.get("issuer", ""), form.get("subject", "")
    if not _comes_without(me.id, issuer, subject):
        abort(403)
    try:
        identities.disconnect(state().db, me.id, issuer, subject, by=me.id)
    except identities.NotConnected:
        abort(404)
    here, stays, by_operator = kept.identity(), session.permanent, kept.is_way_in()
    if here == (issuer, subject):  # whoever came by it comes in anew
        return signin.logout()
    signin.begin_session(accounts.find(state().db, me.id), keep=stays)
    if here is not None:
        kept.note(*here)
    if by_operator:
        kept.note_way_in()
    flash(_("It is disconnected. Wherever else you were signed in, you are not any more."), "good")
    return back_to("account.page")


@pages.post("/language")
@members_only
def language():
    """Keep a language with the account: it greets on every device."""
    chosen, response = request.form.get("language"), back_to("account.page")
    if chosen in i18n.LANGUAGES:
        accounts.set_language(state().db, member().id, chosen)
        signin.keep_language(response, chosen)
    return response


@pages.get("/sessions")
@members_only
def ask_sessions():
    """Ask before all sessions end."""
    return render_template(
        "confirm.html",
        layout="member/layout.html",
        title=_("Sign out everywhere"),
        question=_("Every browser in which you are signed in will be signed out, this one too."),
        details=[_("API keys keep working. Revoke them one by one.")],
        button=_("Sign out everywhere"),
        action=url_for("account.sessions"),
        back=url_for("account.page"),
    )


@pages.post("/sessions")
@members_only
def sessions():
    """End all sessions."""
    accounts.end_sessions(state().db, member().id, by=member().id)
    return signin.logout()
