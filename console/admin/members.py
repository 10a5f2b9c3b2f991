"""All members: found, listed, made.

Owns the list and the form for a new member. What is done to one of them is member.py's.
"""

import secrets
import unicodedata

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

COLUMNS = (
    "users.id AS id, name, role, disabled_at, users.created_at AS created_at,"
    " grant_balance - grant_held AS grant, quota_balance - quota_held AS quota,"
    " wallet_balance - wallet_held AS wallet"
)
STATES = {
    "active": (_l("May sign in"), "disabled_at IS NULL"),
    "disabled": (_l("Disabled"), "disabled_at IS NOT NULL"),
    "admin": (_l("Administrators"), "role = 'admin'"),
    "empty": (
        _l("Nothing left to spend"),
        "grant_balance <= 0 AND quota_balance <= 0 AND wallet_balance <= 0",
    ),
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
        found = keyset.Page(ranked(conn, listed(wish, chosen)))
    else:
        before, after = (request.args.get(name, type=int) for name in ("before", "after"))
        found = listed(wish, chosen).page(conn, before, after)
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
        states=[("", _("All")), *((name, label) for name, (label, _sql) in STATES.items())],
    )


def listed(wish: str, chosen: str) -> keyset.List:
    """The members whose name has the wish in it, in one of the states or any."""
    matching, values = [], {}
    if wish:
        matching.append("instr(name_key, :wish)")
        values["wish"] = unicodedata.normalize("NFKC", wish).casefold()
    if chosen in STATES:
        matching.append(STATES[chosen][1])
    return keyset.List(
        "users CROSS JOIN balances ON balances.user_id = users.id",
        COLUMNS,
        "users.id",
        "1",
        " AND ".join(matching),
        values,
    )


def ranked(conn, members: keyset.List) -> list:
    """Those of the list who used most in the last 30 days, the dearest first."""
    return conn.execute(
        f"""
        SELECT {members.columns} FROM {members.table} LEFT JOIN
               (SELECT user_id, sum(cost) AS used FROM daily WHERE day >= :first GROUP BY user_id) AS days
            ON days.user_id = users.id
         WHERE {members.matching or "1"} ORDER BY coalesce(used, 0) DESC, users.id DESC LIMIT {RANKED}""",
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
    password = form.password.data or made_password() if passwords else None
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


def made_password() -> str:
    """A password that is easy to hand over: 80 random bits in letters that are told apart."""
    letters = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))


def password_page(who: accounts.Member, password: str | None, new: bool = False) -> str:
    """What an administrator tells the member.

    The address, the name, and a password that was made (shown this once).
    """
    return render_template(
        "admin/password.html", who=who, password=password, new=new, login=url_for("signin.login")
    )
