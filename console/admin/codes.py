"""Codes: made in bulk, shown once, listed, revoked.

Owns these pages. What codes are worth and who has one is the business of `codes` at the top; the
codes themselves are in no file but the one that the administrator saves from the page that shows
them.
"""

import re
import secrets

from flask import Response, flash, make_response, render_template, request, url_for
from wtforms import DateField, HiddenField, IntegerField, RadioField, SelectField, StringField
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError

import billing
import codes
from console import public
from console.admin.guard import first_submission, pages, recently_authenticated
from console.context import member, state
from console.session import back_to
from console.ui import csv, date_range, format
from console.ui.forms import Form, options, typed_number
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import terms

COUNT_MAX = 1000
KINDS = {
    "wallet": _l("Money for the wallet"),
    "grant": _l("Tokens for the token balance"),
    "plan": _l("A plan"),
}
STATES = {
    "unused": (_l("Unused"), "good"),
    "redeemed": (_l("Redeemed"), ""),
    "expired": (_l("Expired"), "warn"),
    "revoked": (_l("Revoked"), "bad"),
}
EXPORTED = [
    "id",
    "hint",
    "kind",
    "amount",
    "plan",
    "quota",
    "days",
    "note",
    "state",
    "created_at",
    "created_by",
    "expires_at",
    "revoked_at",
    "redeemed_at",
    "redeemed_by",
]


class CodesForm(Form):
    key = HiddenField()
    kind = RadioField(_l("What a code gives"), choices=options(KINDS), default="wallet")
    amount = StringField(
        _l("Amount"),
        description=_l("Money or tokens; for a plan leave it empty."),
        render_kw={"inputmode": "decimal", "autocomplete": "off", "maxlength": 40},
    )
    plan = SelectField(_l("Plan"), default="", description=_l("Only for codes that give a plan."))
    count = IntegerField(
        _l("How many"),
        [
            InputRequired(_l("Type a number.")),
            NumberRange(1, COUNT_MAX, _l("From 1 to 1,000 codes at once.")),
        ],
        default=10,
        render_kw={"inputmode": "numeric"},
    )
    expires = DateField(
        _l("Valid to the end of"), [Optional()], description=_l("Empty: until they are used.")
    )
    note = StringField(
        _l("Note"),
        [Length(max=200, message=_l("At most %(max)d characters."))],
        description=_l("For administrators: whom or what they are for."),
        render_kw={"autocomplete": "off", "maxlength": 200},
    )

    def validate_amount(self, field):
        """The amount in its unit."""
        self.number = None
        if self.kind.data == "plan":
            return
        try:
            text = typed_number(field.data or "")
            self.number = billing.nano(text) if self.kind.data == "wallet" else int(text)
        except ValueError:
            raise ValidationError(
                _("An amount such as 10 or 10.50.")
                if self.kind.data == "wallet"
                else _("A whole number of tokens.")
            ) from None
        if not 0 < self.number <= billing.AMOUNT_MAX:
            raise ValidationError(_("More than nothing, and not absurdly much."))

    def validate_plan(self, field):
        if self.kind.data == "plan" and not field.data:
            raise ValidationError(_("Choose a plan."))

    def validate_expires(self, field):
        last = date_range.date.max.replace(year=date_range.YEAR_MAX)
        if field.data is not None and not date_range.today() <= field.data <= last:
            raise ValidationError(_("This day is over."))

    def terms(self) -> dict:
        """What `codes.make` takes."""
        until = self.expires.data and date_range.day_bounds(str(self.expires.data))[1]
        said = {"expires_at": until or None, "note": self.note.data or None}
        if self.kind.data != "plan":
            return said | {"amount": self.number}
        return said | terms.of_plan(state().settings, self.plan.data)


# ---- the list


def _chosen() -> str | None:
    return request.args.get("state") if request.args.get("state") in STATES else None


@pages.get("/codes", endpoint="codes")
def page():
    """Codes without their secret, newest first."""
    found = codes.listed(_chosen()).page(
        state().db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
    )
    choices = [("", _("All")), *((name, label) for name, (label, _look) in STATES.items())]
    return render_template(
        "admin/codes.html",
        found=found,
        state=_chosen(),
        states=STATES,
        choices=choices,
        state_of=codes.state_of,
    )


@pages.get("/codes.csv")
def codes_csv():
    """The list as a file, without what would make a code worth something."""
    batches, time = codes.listed(_chosen()).all(state().db.read(), csv.BATCH), csv.clock()
    return csv.download(
        "codes", EXPORTED, ([_exported(code, time) for code in batch] for batch in batches)
    )


def _exported(code, time: csv.Clock) -> list:
    values = dict(code) | {"state": codes.state_of(code), "quota": csv.money(code["quota"])}
    if code["kind"] == "wallet":
        values["amount"] = csv.money(code["amount"])
    for name in ("created_at", "expires_at", "revoked_at", "redeemed_at"):
        values[name] = time(code[name])
    return [values[name] for name in EXPORTED]


# ---- making


@pages.route("/codes/new", methods=["GET", "POST"])
def new_codes():
    """The form for codes."""
    form = CodesForm()
    form.key.data = form.key.data or secrets.token_urlsafe(12)
    form.plan.choices = options(
        [
            ("", "–"),
            *((name, public.plan_title(name)) for name in state().settings.plans if name != "free"),
        ]
    )
    return (
        make(form)
        if form.validate_on_submit()
        else render_template("admin/new_codes.html", form=form)
    )


@recently_authenticated
def make(form: CodesForm):
    """Make codes and show them this once; a form that is sent again makes none."""
    if not first_submission(f"codes-{form.key.data[:64]}", ["codes"]):
        flash(
            _(
                "This form was sent already, and its codes were shown then. Unused ones can be revoked here."
            ),
            "warn",
        )
        return back_to("admin.codes")
    made = codes.make(state().db, form.kind.data, form.count.data, by=member().id, **form.terms())
    response = make_response(
        render_template("admin/fresh_codes.html", codes=made, worth=worth(form), form=form)
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def worth(form: CodesForm) -> str:
    """What each of the new codes gives."""
    if form.kind.data == "plan":
        return public.plan_title(form.plan.data)
    return (
        format.money(form.number)
        if form.kind.data == "wallet"
        else _("%(n)s tokens", n=format.count(form.number))
    )


@pages.post("/codes/file")
def codes_file():
    """Fresh codes as a file.

    They come back from the page that shows them, for they are kept nowhere.
    """
    made = [code for code in request.form.get("codes", "").split() if codes.digest(code)][
        :COUNT_MAX
    ]
    lines = "".join(f"{code}\r\n" for code in ["code", *made])
    return Response(
        lines,
        content_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": 'attachment; filename="codes.csv"',
            "Cache-Control": "no-store",
        },
    )


# ---- revoking


def _ticked() -> list[int]:
    return [
        int(each) for each in request.values.getlist("code") if re.fullmatch("[0-9]{1,18}", each)
    ][:COUNT_MAX]


@pages.get("/codes/revoke")
def ask_revoke_codes():
    """Ask before the ticked codes become worthless."""
    rows = codes.still_unused(state().db, _ticked())
    if not rows:
        flash(
            _(
                "Tick the codes first that shall be revoked; those used or revoked stay as they are."
            ),
            "warn",
        )
        return back_to("admin.codes")
    return render_template("admin/revoke_codes.html", codes=rows, back=url_for("admin.codes"))


@pages.post("/codes/revoke")
def revoke_codes():
    """Make unused codes worthless."""
    gone = sum(codes.revoke(state().db, code_id, by=member().id) for code_id in _ticked())
    flash(_("%(n)s codes are revoked.", n=gone), "good")
    return back_to("admin.codes")
