"""All members: found, listed, made.

Owns the list and the form for a new member. What is done to one of them is member.py's.
"""

from flask import render_template, request, url_for
from wtforms import BooleanField, PasswordField, RadioField
from wtforms.validators import Optional

from billing import now_ms
from console.admin.guard import pages, recently_authenticated
from console.context import member, state
from console.member import balances, signin
from console.ui import date_range
from console.ui.forms import Form, options
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from db import keyset
from members import accounts

STATES = {
    "active": _l("May sign in"),
    "disabled": _l("Disabled"),
    "admin": _l("Administrators"),
    "empty": _l("Nothing left to spend"),
}
ORDERS = {"": _l("Newest first"), "used": _l("Most used first")}
RANKED = 100  # members in the order of use: nobody reads further
USE = """
SELECT user_id, sum(calls) AS calls, sum(cost) AS cost, max(last_at) AS last_at FROM daily
 WHERE user_id IN (SELECT value FROM json_each(?)) AND day >= ? GROUP BY user_id"""
PLANS = """
SELECT user_id, plan FROM subscriptions
 WHERE user_id IN (SELECT value FROM json_each(?1)) AND ends_at > ?2 AND starts_at <= ?2"""


@pages.get("/members", endpoint="members")
def page():
    """Members, the newest first or those who used most, with what they have and what they used in
    the last 30 days."""
    wish, chosen = request.args.get("q", "").strip()[:100], request.args.get("state", "")
    order, conn = request.args.get("order", ""), state().db.read()
    if order == "used":
        found = keyset.Page(ranked(conn, accounts.listed(wish, chosen)))
    else:
        before, after = (request.args.get(name, type=int) for name in ("before", "after"))
        found = accounts.listed(wish, chosen).page(conn, before, after)
    ids = f"[{','.join(str(row['id']) for row in found.rows)}]"
    return render_template(
        "admin/members.html",
        found=found,
        q=wish,
        state=chosen,
        order=order if order in ORDERS else "",
        orders=list(ORDERS.items()),
        plans=plans_of(ids),
        use=used(ids),
        states=[("", _("All")), *((name, label) for name, label in STATES.items())],
    )


def ranked(conn, members: keyset.List) -> list:
    """Those of the list who used most in the last 30 days, the dearest first."""
    return conn.execute(
        f"""
        SELECT {members.columns} FROM {members.table} LEFT JOIN
               (SELECT user_id, sum(cost) AS used FROM daily WHERE day >= :first GROUP BY user_id) AS days
            ON days.user_id = users.id
         WHERE {members.within} AND {members.matching or "1"}
         ORDER BY coalesce(used, 0) DESC, users.id DESC LIMIT {RANKED}""",
        {**(members.values or {}), "first": str(date_range.latest().first)},
    ).fetchall()


def plans_of(ids: str) -> dict[int, str]:
    """The plan in force of each of these members (a JSON list) that has another than everybody's."""
    names: dict[int, list[str]] = {}
    for user_id, plan in state().db.read().execute(PLANS, (ids, now_ms())).fetchall():
        names.setdefault(user_id, []).append(plan)
    return {user_id: balances.plan_in_force(each) for user_id, each in names.items()}


def used(ids: str) -> dict:
    """What each of these members (a JSON list) used in the last 30 days."""
    rows = state().db.read().execute(USE, (ids, str(date_range.latest().first))).fetchall()
    return {row["user_id"]: row for row in rows}


# ---- a new member


def optional_password(label) -> PasswordField:
    """The field for a password, or for nothing: then one is made."""
    return PasswordField(
        label,
        [Optional(), signin.good_password],
        description=_l("Leave it empty, and one is made and shown once."),
        render_kw={"autocomplete": "new-password", "maxlength": 200},
    )


ROLES = {"member": _l("Member"), "admin": _l("Administrator")}


class NewMemberForm(Form):
    name = signin.name_field(autocomplete="off")
    password = optional_password(_l("Password"))
    role = RadioField(_l("Role"), choices=options(ROLES), default="member")
    reward = BooleanField(_l("Gets the reward for new members"), default=True)


@pages.route("/members/new", methods=["GET", "POST"])
def new_member():
    """The form for a new member."""
    form = NewMemberForm()
    return make(form) if form.validate_on_submit() else _form(form)


def _form(form: NewMemberForm) -> str:
    return render_template(
        "admin/new_member.html", form=form, reward=state().settings.accounts.signup_reward
    )


@recently_authenticated
def make(form: NewMemberForm):
    """Make the member, and show a password that was made for it."""
    passwords = state().settings.sign_in.passwords
    password = form.password.data or accounts.made_password() if passwords else None
    reward = state().settings.accounts.signup_reward if form.reward.data else 0
    try:
        who = accounts.add(
            state().db,
            form.name.data,
            password,
            role=form.role.data,
            signup_reward=reward,
            by=member().id,
        )
    except accounts.AccountError as err:
        signin.show_error(err, form)
        return _form(form)
    return password_page(who, None if form.password.data else password, new=True)  # none: not shown


def password_page(who: accounts.Member, password: str | None, new: bool = False) -> str:
    """What an administrator tells the member.

    The address, the name, and a password that was made (shown this once).
    """
    return render_template(
        "admin/password.html", who=who, password=password, new=new, login=url_for("signin.login")
    )
