"""Coming in and going out: register, sign in, sign out, and the one-time page that makes the first
administrator.

Owns what a session is worth: who it stands for, until when. Passwords are checked by `accounts`;
here every attempt is counted before that, because a check costs a tenth of a second of a core.
"""

import logging
import time
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    flash,
    make_response,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask_login import UserMixin, login_user, logout_user
from wtforms import BooleanField, HiddenField, PasswordField, RadioField, StringField
from wtforms.validators import EqualTo, InputRequired, Length, ValidationError

import billing
from console import throttle
from console.context import member, site_url, state
from console.session import back_to, login, safe_way_back
from console.sign_on import kept
from console.ui import i18n
from console.ui.forms import Form, options
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import accounts, audit
from relay import connect
from server import jobs

log = logging.getLogger("console.signin")

pages = Blueprint("signin", __name__)

PER_ADDRESS = "20 per minute"
PER_NAME_AND_ADDRESS = "5 per minute"
PER_NAME = (
    "30 per minute"  # whoever guesses from many addresses; the member is not locked out for long
)
REGISTRATIONS = "20 per hour"
IDLE_S, KEPT_S = 12 * 3600, 14 * 24 * 3600
SEEN_EVERY_S = 300  # a session's cookie is renewed no more often
COMMON = frozenset(
    Path(__file__).resolve().parent.parent.joinpath("common_passwords.txt").read_text().split()
)


class SignedIn(UserMixin):
    """Who a session stands for, as Flask-Login wants it. Of the member only what pages may show."""

    def __init__(self, who: accounts.Member):
        self.id, self.name, self.role, self.language = who.id, who.name, who.role, who.language
        self._key = f"{who.id}.{who.session_epoch}"

    def get_id(self) -> str:
        """Changes with the epoch.

        A new password, or "sign out everywhere", ends the sessions before it.
        """
        return self._key


@login.user_loader
def load(key: str) -> SignedIn | None:
    """The member of a session; None if it has ended."""
    user_id, _dot, epoch = key.partition(".")
    who = accounts.find(state().db, int(user_id)) if user_id.isdigit() else None
    if who is None or who.disabled or who.session_epoch != epoch or has_ended():
        return None
    if kept.over() or kept.is_shut():
        return None
    return SignedIn(who)


def has_ended() -> bool:
    """Whether the session is too old or was idle for too long; notes that it is in use."""
    now = int(time.time())
    since, seen = session.get("since", 0), session.get("seen", 0)
    if now - since > KEPT_S or (not session.permanent and now - seen > IDLE_S):
        return True
    if now - seen > SEEN_EVERY_S:
        session["seen"] = now
    return False


def begin_session(who: accounts.Member, keep: bool = False) -> None:
    """Sign a member in, in a session of its own.

    `keep`: it outlasts the browser and 12 idle hours.
    """
    session.clear()
    session.permanent = keep
    session["since"] = session["seen"] = int(time.time())
    login_user(SignedIn(who))


def takes_password(user_id: int) -> bool:
    """Whether this member can come in by a password."""
    return state().settings.sign_in.passwords and accounts.has_password(state().db, user_id)


def note_proof() -> None:
    """Whoever is signed in has just shown once more that it is they."""
    session["proven_at"] = int(time.time())


def is_proven(within_s: int) -> bool:
    """Whether that, or the sign-in, was no longer ago than so many seconds."""
    return time.time() - max(session.get("proven_at", 0), session.get("since", 0)) < within_s


def _enter(who: accounts.Member, keep: bool = False, greeting: str = "") -> Response:
    """Sign a member in and lead where the visitor wanted to go, in the member's language."""
    begin_session(who, keep)
    if greeting:
        flash(greeting, "good")
    response = make_response(
        redirect(safe_way_back(request.args.get("next"), url_for("overview.page")), 303)
    )
    greet_in_language(response, who)
    return response


def greet_in_language(response, who: accounts.Member) -> None:
    """Let a browser that has chosen no language show the member's."""
    if who.language in i18n.LANGUAGES and i18n.COOKIE not in request.cookies:
        keep_language(response, who.language)


def keep_language(response, language: str) -> None:
    """Let this browser show a language from now on."""
    response.set_cookie(
        i18n.COOKIE,
        language,
        max_age=365 * 24 * 3600,
        samesite="Lax",
        httponly=True,
        secure=site_url().startswith("https://"),
    )


# ---- passwords


PASSWORD_RULES = _l(
    "8 to 128 characters, not your name and none of the usual ones. A few words in a row are good."
)


def good_password(form, field) -> None:
    """A validator: what a new password must be."""
    shortest, longest = accounts.PASSWORD_LENGTHS
    name = form.name.data if "name" in form else member().name
    if not shortest <= len(field.data) <= longest:
        raise ValidationError(_("A password has %(a)s to %(b)s characters.", a=shortest, b=longest))
    if field.data.casefold() in COMMON or len(set(field.data)) < 4:
        raise ValidationError(_("That's one of the most common passwords."))
    if name and field.data.casefold() in (name.casefold(), name.casefold()[::-1]):
        raise ValidationError(_("The password must not be your name."))


def new_password(label) -> PasswordField:
    """The field for a new password."""
    return PasswordField(
        label,
        [InputRequired(_l("Type a password.")), good_password],
        description=PASSWORD_RULES,
        render_kw={"autocomplete": "new-password", "maxlength": 200},
    )


def repeated(name: str) -> PasswordField:
    """The field that repeats another."""
    return PasswordField(
        _l("Once more"),
        [
            InputRequired(_l("Type the password once more.")),
            EqualTo(name, _l("The two passwords differ.")),
        ],
        render_kw={"autocomplete": "new-password", "maxlength": 200},
    )


def name_field(**attributes) -> StringField:
    """The field for a member's name."""
    return StringField(
        _l("Name"),
        [
            InputRequired(_l("Type a name.")),
            Length(max=accounts.NAME_LENGTH_MAX, message=_l("At most %(max)d characters.")),
        ],
        render_kw={
            "autocomplete": "username",
            "autocapitalize": "none",
            "spellcheck": "false",
            "maxlength": 100,
        }
        | attributes,
    )


# ---- sign in and out


class SignInForm(Form):
    name = name_field()
    password = PasswordField(
        _l("Password"),
        [InputRequired(_l("Type your password."))],
        render_kw={"autocomplete": "current-password"},
    )
    keep = BooleanField(_l("Keep me signed in on this device for 14 days"))


@pages.route("/login", methods=["GET", "POST"], endpoint="login")
def sign_in():
    """Sign in.

    Unknown names, wrong passwords and disabled members get one answer, and it takes as long.
    """
    form = SignInForm()
    if member():
        return redirect(safe_way_back(request.args.get("next"), url_for("overview.page")))
    if not state().settings.sign_in.passwords:
        status = 403 if request.method == "POST" else 200
        return render_template("member/login.html", form=None), status
    if not form.validate_on_submit():
        return render_template("member/login.html", form=form)
    wait = _count_attempt(form.name.data)
    if wait:
        form.form_errors.append(_("Too many attempts. Try again in %(n)s seconds.", n=wait))
        return render_template("member/login.html", form=form), 429, {"Retry-After": str(wait)}
    who = accounts.authenticate(state().db, form.name.data, form.password.data)
    if who is None:
        log.warning("a sign-in failed, from %s", request.remote_addr)
        form.form_errors.append(_("The name or the password is wrong."))
        return render_template("member/login.html", form=form)
    throttle.forget(PER_NAME_AND_ADDRESS, "login", *_who_tries(form.name.data))
    return _enter(who, form.keep.data)


def _who_tries(name: str) -> tuple[str, str]:
    return name.casefold()[:100], throttle.address()


def _count_attempt(name: str) -> int | None:
    """Count an attempt to sign in; the seconds to wait if there were too many."""
    key, address = _who_tries(name)
    waits = (
        throttle.wait_s(PER_ADDRESS, "login-from", address),
        throttle.wait_s(PER_NAME_AND_ADDRESS, "login", key, address),
    )
    if any(waits):
        return max(wait or 0 for wait in waits)  # not counted for the name: it was not tried
    return throttle.wait_s(PER_NAME, "login-as", key)


@pages.post("/logout")
def logout():
    """Sign out of this session."""
    logout_user()
    session.clear()
    flash(_("You are signed out."), "good")
    return back_to("signin.login")


# ---- register


class RegisterForm(Form):
    invite = StringField(
        _l("Invite code"),
        render_kw={"autocomplete": "off", "spellcheck": "false", "maxlength": 200},
    )
    name = name_field()
    password = new_password(_l("Password"))
    again = repeated("password")


@pages.route("/register", methods=["GET", "POST"])
def register():
    """Become a member, as far as the settings let anybody."""
    rules, form = state().settings.accounts, RegisterForm(invite=request.args.get("invite"))
    if member():
        return redirect(url_for("overview.page"))
    if rules.registration == "closed" or not state().settings.sign_in.passwords:
        return render_template("member/closed.html")
    form.invite.flags.required = rules.registration == "invite"
    host = accounts.inviter(state().db, form.invite.data) if form.invite.data else None
    if host and not host.admin and rules.invites_from == "admins":
        host = None
    shown = {
        "form": form,
        "host": host,
        "invited": request.args.get("invite"),
        "reward": rules.signup_reward,
    }
    if not form.validate_on_submit():
        return render_template("member/register.html", **shown)
    if host is None and (form.invite.data or rules.registration == "invite"):
        form.invite.errors = [_("This invite is not valid. Ask who sent it for a new one.")]
        return render_template("member/register.html", **shown)
    wait = throttle.wait_s(REGISTRATIONS, "register", throttle.address())
    if wait:
        form.form_errors.append(
            _(
                "Too many new accounts from your address. Try again in %(n)s minutes.",
                n=-(-wait // 60),
            )
        )
        return render_template("member/register.html", **shown), 429, {"Retry-After": str(wait)}
    try:
        who = accounts.add(
            state().db,
            form.name.data,
            form.password.data,
            invite=form.invite.data or None,
            signup_reward=rules.signup_reward,
            invite_reward=rules.invite_reward,
            language=i18n.language(),
        )
    except accounts.AccountError as err:
        show_error(err, form)
        return render_template("member/register.html", **shown)
    log.info("%s registered, from %s", who.name, throttle.address())
    return _enter(who, greeting=_("Welcome, %(name)s.", name=who.name))


def show_error(err: accounts.AccountError, form) -> None:
    """Put what `accounts` says beside its field, in the visitor's language."""
    if isinstance(err, accounts.NameTaken):
        form.name.errors = [_("Somebody has this name already. Choose another.")]
    elif isinstance(err, accounts.BadName):
        form.name.errors = [_("A name has 1 to 64 visible characters.")]
    elif isinstance(err, accounts.BadInvite) and "invite" in form:
        form.invite.errors = [_("This invite is not valid. Ask who sent it for a new one.")]
    else:
        form.password.errors = [_("This cannot be a password. Choose another.")]


# ---- first start


class SetUpForm(Form):
    key = HiddenField()
    name = name_field()
    password = new_password(_l("Password"))
    again = repeated("password")
    audience = RadioField(
        _l("Who will use it?"),
        choices=options(
            {
                "colleagues": _l(
                    "My colleagues: no limit on the length of input, so that coding agents work at once"
                ),
                "public": _l("The public: newcomers get the free plan with its limits"),
            }
        ),
        default="colleagues",
        validate_choice=False,
    )


@pages.route("/setup", methods=["GET", "POST"])
def setup():
    """Make the first administrator, for who has the key that the log printed."""
    throttle.refuse_over(PER_ADDRESS, "setup", throttle.address())
    form = SetUpForm(key=request.args.get("key"))
    passwords = state().settings.sign_in.passwords
    if not passwords:
        del form.password, form.again
    if not accounts.setup_key_is(state().db, form.key.data or ""):
        return render_template("member/no_setup.html"), 404
    if not form.validate_on_submit():
        return render_template("member/setup.html", form=form)
    try:
        who = accounts.set_up(
            state().db,
            form.key.data,
            form.name.data,
            form.password.data if passwords else None,
            language=i18n.language(),
        )
    except accounts.AccountError as err:
        show_error(err, form)
        return render_template("member/setup.html", form=form)
    return _begin(who)


def _begin(who: accounts.Member) -> Response:
    """Reward and sign in the first administrator."""
    reward = state().settings.accounts.signup_reward
    if reward:
        billing.credit(state().db, who.id, "grant", reward, "reward", "sign-up", key="sign-up")
    if request.form.get("audience") == "colleagues":
        _open_to_colleagues(who)
    greeting = _("You are the administrator. Create an API key, and try it.")
    if state().catalog.demo:
        greeting = _(
            "You are the administrator. Connect a provider, and the first real answer is a minute away."
        )
    response = _enter(who, greeting=greeting)
    if not state().settings.sign_in.passwords:
        kept.note_way_in()
    return response


def _open_to_colleagues(who: accounts.Member) -> None:
    """Give everybody a plan that takes coding agents, unless config.toml has plans of its own."""
    try:
        if connect.open_to_colleagues(state()):
            detail = {"plan": "free"}
            state().db.write(
                lambda conn: audit.record(conn, who.id, "settings.audience", None, detail)
            )
            jobs.reload_now(state())
    except connect.ConnectError as err:
        flash(str(err), "bad")
