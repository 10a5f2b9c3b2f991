"""Invites: a member's own link, who came by it, and what that earned.

Owns what members read of `invites`. The reward is `billing`'s: once, with the first call paid in money of
who came.
"""

from flask import Blueprint, render_template, request, url_for

from console.context import member, site_url, state
from console.session import members_only
from db import keyset
from members import accounts

pages = Blueprint("invites", __name__, url_prefix="/console/invites")

SUMS = """
SELECT count(*) AS came, count(rewarded_at) AS rewarded,
       coalesce(sum(reward) FILTER (WHERE rewarded_at IS NOT NULL), 0) AS earned
  FROM invites WHERE inviter_id = ?"""


@pages.get("")
@members_only
def page():
    """The link, the people, the rewards."""
    db, me = state().db, member().id
    came = keyset.List(
        "invites JOIN users ON users.id = invites.user_id",
        "users.name, invites.created_at, reward, rewarded_at",
        "invites.user_id",
        "inviter_id = :user_id",
        "",
        {"user_id": me},
    )
    link = site_url() + url_for("signin.register", invite=accounts.find(db, me).invite_code)
    return render_template(
        "member/invites.html",
        link=link,
        sums=db.read().execute(SUMS, (me,)).fetchone(),
        found=came.page(
            db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
        ),
        reward=state().settings.accounts.invite_reward,
    )
