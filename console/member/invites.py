"""Invites: a member's own link, who came by it, and what that earned.

Owns what members read of `invites`. The reward is `billing`'s: once, with the first call paid in money of
who came.
"""

from flask import Blueprint, flash, render_template, request, url_for
from wtforms import IntegerField
from wtforms.validators import NumberRange, Optional

from billing import now_ms
from console.context import member, site_url, state
from console.session import back_to, members_only
from console.ui.forms import Form
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import accounts

pages = Blueprint("invites", __name__, url_prefix="/console/invites")

SUMS = """
SELECT count(*) AS came, count(rewarded_at) AS rewarded,
       coalesce(sum(reward) FILTER (WHERE rewarded_at IS NOT NULL), 0) AS earned
  FROM invites WHERE inviter_id = ?"""


class InviteForm(Form):
    uses = IntegerField(
        _l("For how many people"),
        [Optional(), NumberRange(1, 10_000, _l("A whole number from 1 on."))],
        description=_l("Empty: any number."),
        render_kw={"inputmode": "numeric"},
    )
    days = IntegerField(
        _l("For how many days"),
        [Optional(), NumberRange(1, 3660, _l("From 1 to 3,660 days."))],
        description=_l("Empty: until you make another."),
        render_kw={"inputmode": "numeric"},
    )


@pages.get("")
@members_only
def page():
    """The link, the people, the rewards."""
    return _show()


def _show(form: InviteForm | None = None) -> str:
    db, me = state().db, member().id
    came = accounts.came_by(me)
    mine = accounts.find(db, me)
    assert mine is not None  # who is signed in
    rules = state().settings.accounts
    return render_template(
        "member/invites.html",
        link=site_url() + url_for("signin.register", invite=mine.invite_code),
        mine=mine,
        ended=accounts.inviter(db, mine.invite_code) is None,
        may=mine.admin or rules.invites_from == "members",
        form=form or InviteForm(),
        sums=db.read().execute(SUMS, (me,)).fetchone(),
        found=came.page(
            db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
        ),
        reward=rules.invite_reward,
    )


@pages.post("/renew")
@members_only
def renew():
    """A new link, for so many people and days as its owner says; the old one is worth nothing."""
    form = InviteForm()
    if not form.validate_on_submit():
        return _show(form)
    until = form.days.data and now_ms() + form.days.data * 86_400_000
    accounts.renew_invite(state().db, member().id, form.uses.data, until, by=member().id)
    flash(_("You have a new link. The old one is worth nothing."), "good")
    return back_to("invites.page")
