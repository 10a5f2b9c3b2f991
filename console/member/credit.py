"""Asking for credit, and being stuck without it.

Owns the form, what a member reads of the newest request, and the one rule for who is stuck: the
newest call was refused for money. Requests are `members.credit_requests`'.
"""

from flask import Blueprint, flash, render_template
from wtforms import StringField
from wtforms.validators import InputRequired, Length

from billing import now_ms
from console.context import member, site_url, state
from console.member import balances, tokens
from console.session import back_to, members_only
from console.ui import format
from console.ui.forms import Form
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import credit_requests
from relay import errors

pages = Blueprint("credit", __name__, url_prefix="/console/credit")

FOR_MONEY = (errors.InsufficientBalance.code, errors.CapReached.code)
TOLD_MS = 7 * 86_400_000  # how long a member is shown what was decided
REFUSALS = (
    _l("Ask for more than nothing, and not for an absurd amount."),
    _l("You have asked often enough for today."),
    _l("You have asked already; an administrator will answer."),
)


class AskForm(Form):
    amount = tokens.Money(
        _l("Amount"),
        [InputRequired(_l("Type an amount."))],
        render_kw={"inputmode": "decimal", "autocomplete": "off", "maxlength": 20},
    )
    note = StringField(
        _l("What for"),
        [
            InputRequired(_l("Say in a sentence what it is for.")),
            Length(max=credit_requests.NOTE_LENGTH_MAX, message=_l("At most %(max)d characters.")),
        ],
        render_kw={"autocomplete": "off", "maxlength": credit_requests.NOTE_LENGTH_MAX},
    )


def is_stuck(call) -> bool:
    """Whether this, a member's newest call, was refused for money."""
    return call is not None and call["outcome"] == "refused" and call["error"] in FOR_MONEY


def answered(user_id: int) -> credit_requests.CreditRequest | None:
    """A member's newest request, while it waits and for some days after it was decided."""
    newest = credit_requests.newest(state().db, user_id)
    old = newest and newest.decided_at and now_ms() - newest.decided_at > TOLD_MS
    return None if old else newest


@pages.get("")
@members_only
def page():
    """The form, and what became of the last request."""
    return _show(AskForm())


def _show(form: AskForm) -> str:
    return render_template(
        "member/credit.html",
        form=form,
        newest=credit_requests.newest(state().db, member().id),
        has=balances.of(member().id),
    )


@pages.post("")
@members_only
def ask():
    """Ask; administrators get a notice, and see it first when they come."""
    form = AskForm()
    if not form.validate_on_submit() or form.amount.nano is None:
        return _show(form)
    try:
        made = credit_requests.ask(state().db, member().id, form.amount.nano, form.note.data)
    except credit_requests.CreditRequestError as err:
        form.amount.errors = [_(str(err))]
        return _show(form)
    state().notices.tell(
        "credit_request",
        f"{made.name} asks for {format.money(made.amount)}: {made.note} - {site_url()}/admin/",
    )
    flash(_("Your request has been sent. You will read the answer here."), "good")
    return back_to("credit.page")
