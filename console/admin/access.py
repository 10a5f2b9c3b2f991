"""Who may come in: role, password, sessions and tokens of a member, as administrators change them.

Owns these actions and the questions before them. That somebody stays administrator is `accounts`'
law.
"""

from flask import abort, flash, request, url_for

from console.admin.guard import pages, recently_authenticated
from console.admin.member import NewPasswordForm, ask, of, show
from console.admin.members import password_page
from console.context import member, state
from console.session import back_to
from console.ui.i18n import gettext as _
from members import accounts, identities
from relay import gate


def _back(user_id: int):
    return back_to("admin.member", user_id=user_id)


def _last() -> None:
    flash(_("This is the last administrator. Make somebody else one first."), "bad")


# ---- in or out


@pages.get("/members/<int:user_id>/disable")
def ask_disable(user_id: int):
    """Ask before a member is shut out."""
    who = of(user_id)
    details = [
        _("Requests with their API keys are refused at once, and all their sessions end."),
        _("Balances, plans and past requests stay as they are. You can let them in again."),
    ]
    if who.id == member().id:
        details.insert(0, _("That is you: you are signed out by this."))
    return ask(
        who,
        _("Disable a member"),
        _("Disable %(name)s?", name=who.name),
        details,
        url_for("admin.disable", user_id=who.id),
        _("Disable"),
    )


@pages.post("/members/<int:user_id>/disable")
@recently_authenticated
def disable(user_id: int):
    """Shut a member out."""
    who = of(user_id)
    try:
        accounts.disable(state().db, who.id, by=member().id)
        flash(_("%(name)s is disabled.", name=who.name), "good")
    except accounts.LastAdministrator:
        _last()
    return _back(user_id)


@pages.post("/members/<int:user_id>/enable")
@recently_authenticated
def enable(user_id: int):
    """Let a member in again."""
    who = of(user_id)
    accounts.enable(state().db, who.id, by=member().id)
    flash(_("%(name)s may come in again.", name=who.name), "good")
    return _back(user_id)


@pages.get("/members/<int:user_id>/role")
def ask_role(user_id: int):
    """Ask before a member becomes an administrator, or stops being one."""
    who, action = of(user_id), url_for("admin.set_role", user_id=user_id)
    if who.admin:
        return ask(
            who,
            _("Change a role"),
            _("Shall %(name)s stop being an administrator?", name=who.name),
            [],
            action,
            _("Remove admin role"),
            hidden={"role": "member"},
        )
    return ask(
        who,
        _("Change a role"),
        _("Shall %(name)s be an administrator?", name=who.name),
        [_("Administrators see all requests, move money, and make others administrators.")],
        action,
        _("Make admin"),
        hidden={"role": "admin"},
    )


@pages.post("/members/<int:user_id>/role")
@recently_authenticated
def set_role(user_id: int):
    """Change a member's role."""
    who, role = of(user_id), request.form.get("role")
    if role not in accounts.ROLES:
        abort(400)
    try:
        accounts.set_role(state().db, who.id, role, by=member().id)
        flash(
            _("%(name)s is an administrator.", name=who.name)
            if role == "admin"
            else _("%(name)s is a plain member.", name=who.name),
            "good",
        )
    except accounts.LastAdministrator:
        _last()
    return _back(user_id)


# ---- passwords and sessions


@pages.post("/members/<int:user_id>/password")
@recently_authenticated
def reset_password(user_id: int):
    """A new password for who forgot theirs; all their sessions end."""
    who, form = of(user_id), NewPasswordForm(prefix="password")
    if not state().settings.sign_in.passwords:
        abort(404)
    if not form.validate_on_submit():
        return show(who, password=form)
    password = form.password.data or accounts.made_password()
    accounts.set_password(state().db, who.id, password, by=member().id)
    return password_page(who, None if form.password.data else password)


@pages.post("/members/<int:user_id>/sessions")
def end_sessions(user_id: int):
    """Sign a member out everywhere."""
    accounts.end_sessions(state().db, of(user_id).id, by=member().id)
    flash(_("All sessions of %(name)s have ended.", name=of(user_id).name), "good")
    return _back(user_id)


@pages.post("/members/<int:user_id>/disconnect")
@recently_authenticated
def disconnect(user_id: int):
    """Let an identity of a member's be of nobody; it makes no new member either."""
    who = of(user_id)
    issuer, subject = request.form.get("issuer", ""), request.form.get("subject", "")
    try:
        identities.disconnect(state().db, who.id, issuer, subject, by=member().id)
    except identities.NotConnected:
        abort(404)
    flash(_("%(name)s is disconnected, and all their sessions have ended.", name=who.name), "good")
    return _back(user_id)


# ---- tokens


def token_of(user_id: int, token_id: int) -> dict:
    """One of a member's tokens that are in force, or 404."""
    tokens = gate.tokens(state().db, of(user_id).id)
    return next(
        (each for each in tokens if each["id"] == token_id and not each["revoked_at"]), None
    ) or abort(404)


@pages.get("/members/<int:user_id>/tokens/<int:token_id>/revoke")
def ask_revoke_token(user_id: int, token_id: int):
    """Ask before a member's token is revoked."""
    token, who = token_of(user_id, token_id), of(user_id)
    return ask(
        who,
        _("Revoke an API key"),
        _(
            "Revoke the API key %(name)s (%(hint)s) of %(member)s?",
            name=token["name"],
            hint=token["hint"],
            member=who.name,
        ),
        [_("It stops working at once. This cannot be undone.")],
        url_for("admin.revoke_token", user_id=user_id, token_id=token_id),
        _("Revoke"),
    )


@pages.post("/members/<int:user_id>/tokens/<int:token_id>/revoke")
def revoke_token(user_id: int, token_id: int):
    """Revoke a member's token: it may have leaked."""
    token = token_of(user_id, token_id)
    gate.revoke(state().db, token_id, user_id, by=member().id)
    flash(_("The API key %(name)s is revoked.", name=token["name"]), "good")
    return _back(user_id)
