"""One member: what there is to see, and the forms for what can be done.

Owns the page of a member, its forms and the statement. What the forms do is money.py's and
access.py's.
"""

import secrets

from flask import abort, render_template, request, url_for
from wtforms import BooleanField, HiddenField, IntegerField, SelectField, StringField
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError

import billing
from console import public
from console.admin.guard import pages
from console.admin.members import optional_password
from console.context import state
from console.member import balances, overview, usage, wallet
from console.member.tokens import Money
from console.ui import csv, date_range
from console.ui.forms import Form, options, typed_number
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import accounts, caps, entries, identities, teams, terms
from members.call_rows import COLUMNS
from relay import gate

SHOWN = 6
POCKETS = {"wallet": _l("Wallet"), "grant": _l("Token balance")}
KINDS = {
    "top_up": _l("Top-up"),
    "refund": _l("Refund"),
    "reward": _l("Reward"),
    "adjust": _l("Correction"),
}
NEWEST_CALLS = f"SELECT {COLUMNS} FROM requests WHERE user_id = ? ORDER BY id DESC LIMIT {SHOWN}"


class CreditForm(Form):
    key = HiddenField()
    pocket = SelectField(_l("Balance"), choices=options(POCKETS))
    amount = StringField(
        _l("Amount"),
        [InputRequired(_l("Type an amount."))],
        render_kw={"inputmode": "decimal", "autocomplete": "off", "maxlength": 40},
        description=_l(
            "Money for the wallet, tokens for the token balance. A correction may be negative."
        ),
    )
    kind = SelectField(_l("Kind"), choices=options(KINDS))
    note = StringField(
        _l("Note"),
        [
            InputRequired(_l("Say what it is for: the member reads it among the transactions.")),
            Length(max=200, message=_l("At most %(max)d characters.")),
        ],
        render_kw={"autocomplete": "off", "maxlength": 200},
    )

    @property
    def in_money(self) -> bool:
        """Whether the amount is yuan, rather than LLM tokens."""
        return self.pocket.data == "wallet"

    def validate_amount(self, field):
        """The amount in the pocket's unit, with the sign that its kind allows."""
        try:
            text = typed_number(field.data)
            self.number = billing.nano(text) if self.in_money else int(text)
        except ValueError:
            raise ValidationError(
                _("An amount such as 10 or 10.50.")
                if self.in_money
                else _("A whole number of tokens.")
            ) from None
        if self.number == 0 or abs(self.number) > billing.AMOUNT_MAX:
            raise ValidationError(_("More than nothing, and not absurdly much."))
        if self.number < 0 and self.kind.data != "adjust":
            raise ValidationError(_("Only a correction may take something away."))


class PlanForm(Form):
    key = HiddenField()
    plan = SelectField(_l("Plan"))
    days = IntegerField(
        _l("Days"),
        [Optional(), NumberRange(1, 3660, _l("From 1 to 3,660 days."))],
        description=_l("Empty: as the plan says."),
        render_kw={"inputmode": "numeric"},
    )
    quota = Money(
        _l("Quota"), description=_l("Empty: as the plan says."), render_kw={"inputmode": "decimal"}
    )
    renew = BooleanField(
        _l("Renews by itself"),
        description=_l(
            "An allowance: each period begins with the full quota. Given again on other terms, it takes"
            " the place of the one before at once."
        ),
    )
    monthly = BooleanField(
        _l("By calendar month"),
        description=_l("The first period is the rest of this month. It renews by itself."),
    )

    def validate_monthly(self, field):
        """Calendar months have no number of days."""
        if field.data and self.days.data:
            raise ValidationError(_("Give days or calendar months, not both."))


class CapsForm(Form):
    day = Money(_l("A day"), description=_l("Empty: no limit."), render_kw={"inputmode": "decimal"})
    month = Money(
        _l("A month"), description=_l("Empty: no limit."), render_kw={"inputmode": "decimal"}
    )
    models = StringField(
        _l("Models"),
        [Length(max=2000, message=_l("At most %(max)d characters."))],
        description=_l("Ids, with commas between them. Empty: every model."),
        render_kw={"autocomplete": "off", "spellcheck": "false"},
    )

    def validate_models(self, field):
        """Ids of models that there are."""
        self.ids = tuple(filter(None, (each.strip() for each in (field.data or "").split(","))))
        try:
            terms.check_models(state().settings, self.ids)
        except terms.UnknownName:
            known = {each.id for each in state().settings.models}
            unknown = ", ".join(sorted(set(self.ids) - known))
            raise ValidationError(_("There is no model %(name)s.", name=unknown)) from None


class TeamForm(Form):
    team = SelectField(_l("Team"), coerce=int)


class NewPasswordForm(Form):
    password = optional_password(_l("New password"))


def of(user_id: int) -> accounts.Member:
    """The member of that id, or 404."""
    return accounts.find(state().db, user_id) or abort(404)


# ---- the page


@pages.get("/members/<int:user_id>", endpoint="member")
def page(user_id: int):
    """What a member has, did, and may."""
    return show(of(user_id))


def show(who: accounts.Member, **forms) -> str:
    """The page; `forms` are those that were sent and are wrong."""
    conn, span = state().db.read(), date_range.latest()
    days = conn.execute(overview.BY_DAY, (who.id, str(span.first), str(span.last))).fetchall()
    tokens = gate.tokens(state().db, who.id)
    shown = {
        "credit": credit_form(),
        "plan": plan_form(),
        "caps": caps_form(who),
        "team": team_form(who),
        "password": NewPasswordForm(prefix="password"),
    } | forms
    return render_template(
        "admin/member.html",
        who=who,
        has=balances.of(who.id),
        forms=shown,
        tokens=tokens,
        now=billing.now_ms(),
        names={each["id"]: each["name"] for each in tokens},
        outcomes=usage.OUTCOMES,
        calls=conn.execute(NEWEST_CALLS, (who.id,)).fetchall(),
        chart=overview.spending(days, span),
        spent=sum(row["cost"] for row in days),
        capped=overview.capped(who.id),
        count=sum(row["calls"] for row in days),
        inviter=who.invited_by and accounts.find(state().db, who.invited_by),
        entries=entries.listed(who.id).page(conn, size=SHOWN),
        identities=identities.of(state().db, who.id),
        has_password=accounts.has_password(state().db, who.id),
        **statement_words(),
    )


def credit_form(kind: type[CreditForm] = CreditForm) -> CreditForm:
    """The form for a credit, with a key that makes it good for one."""
    form = kind(prefix="credit")
    form.key.data = form.key.data or secrets.token_urlsafe(12)
    return form


def caps_form(who: accounts.Member) -> CapsForm:
    """The form for a member's caps; where none was sent, with those in force."""
    form = CapsForm(prefix="caps")
    if not form.is_submitted():
        known = caps.of(state().db, who.id)
        form.day.data, form.month.data = (
            "" if amount is None else billing.yuan(amount) for amount in (known.day, known.month)
        )
        form.models.data = ", ".join(known.models or ())
    return form


def team_form(who: accounts.Member) -> TeamForm:
    """The form for a member's team; where none was sent, with the one that they are in."""
    form = TeamForm(prefix="team")
    open_teams = [(each.id, each.name) for each in teams.teams(state().db) if not each.closed]
    form.team.choices = [(0, _("no team")), *open_teams]
    if not form.is_submitted():
        own = teams.of(state().db, who.id)
        form.team.data = own.id if own else 0
    return form


def plan_form() -> PlanForm:
    form = PlanForm(prefix="plan")
    form.plan.choices = options(
        (name, public.plan_title(name)) for name in state().settings.plans if name != "free"
    )
    form.key.data = form.key.data or secrets.token_urlsafe(12)
    return form


def ask(
    who: accounts.Member,
    title: str,
    question: str,
    details: list[str],
    action: str,
    button: str,
    danger: bool = True,
    hidden: dict | None = None,
) -> str:
    """The question before something that a click does not undo."""
    return render_template(
        "confirm.html",
        layout="admin/layout.html",
        title=title,
        question=question,
        details=details,
        action=action,
        button=button,
        danger=danger,
        hidden=hidden,
        back=url_for("admin.member", user_id=who.id),
    )


# ---- the statement


def statement_words() -> dict:
    """How entries are called."""
    return {
        "kinds": wallet.KINDS,
        "pockets_named": wallet.POCKETS,
        "say": wallet.say,
        "kept_since": wallet.kept_since(),
    }


@pages.get("/members/<int:user_id>/statement")
def statement(user_id: int):
    """Every movement of a member's pockets."""
    who, (pocket, kind) = of(user_id), wallet.asked()
    found = entries.listed(who.id, pocket, kind).page(
        state().db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
    )
    return render_template(
        "admin/statement.html",
        who=who,
        found=found,
        pocket=pocket,
        kind=kind,
        **statement_words(),
        choices={
            "pocket": [("", _("All balances")), *wallet.POCKETS.items()],
            "kind": [("", _("All kinds")), *wallet.KINDS.items()],
        },
    )


@pages.get("/members/<int:user_id>/statement.csv")
def statement_csv(user_id: int):
    """A member's statement as a file."""
    batches = entries.listed(of(user_id).id, *wallet.asked()).all(state().db.read(), csv.BATCH)
    time = csv.clock()
    return csv.download(
        f"statement-{user_id}",
        wallet.EXPORTED,
        ([wallet.exported(each, time) for each in batch] for batch in batches),
    )
