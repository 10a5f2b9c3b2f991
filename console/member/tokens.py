"""Token management: make, list, change, revoke.

Owns the pages around `members.tokens`. The raw token passes through once, on the answer to the form
that made it; it is kept nowhere, so the page that fills it into other snippets gets it back from
that page.
"""

import json
import secrets
from datetime import date, timedelta
from types import SimpleNamespace

from flask import Blueprint, abort, flash, make_response, render_template, request, url_for
from wtforms import (
    BooleanField,
    DateField,
    HiddenField,
    IntegerField,
    SelectMultipleField,
    StringField,
    TextAreaField,
)
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError
from wtforms.widgets import CheckboxInput, ListWidget

import billing
from console import public, throttle
from console.context import member, state
from console.member import balances
from console.session import back_to, members_only
from console.ui import date_range, format
from console.ui.forms import Form, options, typed_number
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import caps, turned_away
from members.tokens import KEPT_S, NAME_LENGTH_MAX
from relay import gate

pages = Blueprint("tokens", __name__, url_prefix="/console/tokens")

REVOKED_SHOWN = 50
COUNT_MAX = 1_000_000_000
COLUMNS = (
    "id, name, hint, models, rpm, tpm, calls_at_once, cap_day, cap_month, addresses, created_at, expires_at,"
    " revoked_at"
)
PAGE = 50
SEARCHED_FROM = 8  # so many are seen at a glance
ORDERS = {
    "": _l("Newest first"),
    "name": _l("Name"),
    "used": _l("Last used"),
    "cost": _l("Cost"),
}
ONCE = "1 per day"  # a form that made a token makes no second one
REASONS = {  # of turned_away
    "rate": _l("over its rate"),
    "calls_at_once": _l("too many requests at once"),
    "llm_tokens": _l("over its tokens a minute"),
    "address": _l("from another address"),
    "expired": _l("after it had expired"),
    "revoked": _l("after it was revoked or renewed"),
    "disabled": _l("while its holder was disabled"),
}


def whole(label, hint="") -> IntegerField:
    """The field of an optional limit."""
    return IntegerField(
        label,
        [Optional(), NumberRange(1, COUNT_MAX, _l("A whole number from 1 on."))],
        description=hint,
        render_kw={"inputmode": "numeric"},
    )


def printable(_form, field) -> None:
    """A validator: no control characters, no marks that turn the direction of text."""
    if not field.data.isprintable():
        raise ValidationError(_("Only characters that can be seen."))


class Money(StringField):
    """An optional amount in yuan; `.nano` has it."""

    nano: int | None = None

    def pre_validate(self, form):
        self.nano = None
        if self.data:
            try:
                self.nano = billing.nano(typed_number(self.data))
            except ValueError:
                raise ValidationError(_("An amount such as 10 or 10.50.")) from None
            if self.nano < 0:
                raise ValidationError(_("Not less than nothing."))


class TokenForm(Form):
    once = HiddenField()
    name = StringField(
        _l("Name"),
        [
            InputRequired(_l("Give it a name.")),
            printable,
            Length(max=NAME_LENGTH_MAX, message=_l("At most %(max)d characters.")),
        ],
        description=_l("Where it will be used: a tool, a project, a machine."),
        render_kw={"autocomplete": "off"},
    )
    expires = DateField(
        _l("Valid to the end of"), [Optional()], description=_l("Empty: until you revoke it.")
    )
    admin = BooleanField(
        _l("For the administrators' API alone"),
        description=_l("It manages members and money at /api/v1/admin, and makes no requests."),
    )
    models = SelectMultipleField(
        _l("Models"),
        widget=ListWidget(prefix_label=False),
        option_widget=CheckboxInput(),
        description=_l("Tick none: all models, later ones too."),
    )
    rpm = whole(_l("Requests a minute"))
    tpm = whole(_l("Tokens a minute"))
    calls_at_once = whole(_l("Requests at once"))
    cap_day = Money(
        _l("Spending a day"),
        description=_l("From quota and wallet; then requests wait for the next day."),
    )
    cap_month = Money(_l("Spending a month"))
    addresses = TextAreaField(
        _l("Only from these addresses"),
        render_kw={"rows": 2, "spellcheck": "false"},
        description=_l("IP addresses or networks such as 203.0.113.0/24, one a line."),
    )

    def validate_expires(self, field):
        today = date_range.today()
        if field.data is not None and not today <= field.data <= today + timedelta(days=36_500):
            raise ValidationError(_("This day is over."))

    def limits(self) -> dict:
        """What `members.tokens` takes."""
        return {
            "models": self.models.data or None,
            "expires_at": self.expires.data and date_range.day_bounds(str(self.expires.data))[1],
            "rpm": self.rpm.data,
            "tpm": self.tpm.data,
            "calls_at_once": self.calls_at_once.data,
            "cap_day": self.cap_day.nano,
            "cap_month": self.cap_month.nano,
            "addresses": [
                line
                for line in (self.addresses.data or "").replace(",", "\n").split("\n")
                if line.strip()
            ],
        }


def form_for(token: dict | None = None) -> TokenForm:
    """The form, filled with what a token has now."""
    form = TokenForm(obj=token and SimpleNamespace(**_as_typed(token)))
    if token or member().role != "admin":
        del form.admin
    known = state().catalog.models
    gone = [
        name for name in (token and token["models"]) or () if name not in known
    ]  # kept, or it would be freed
    form.models.choices = options(
        [
            *((name, known[name].title) for name in known),
            *((name, _("%(name)s (not offered any more)", name=name)) for name in gone),
        ]
    )
    rules = balances.of(member().id).rules
    form.rpm.description = _(
        "Empty: as many as your plan allows, %(n)s.", n=format.count(rules.requests_per_minute)
    )
    form.once.data = form.once.data or secrets.token_urlsafe(12)
    return form


def _as_typed(token: dict) -> dict:
    money = {
        name: format.amount(token[name]) if token[name] is not None else ""
        for name in ("cap_day", "cap_month")
    }
    return (
        token
        | money
        | {
            "addresses": "\n".join(token["addresses"] or ()),
            "once": "",
            "expires": token["expires_at"]
            and date.fromisoformat(str(format.local(token["expires_at"] - 1).date())),
        }
    )


def listed(user_id: int) -> list[dict]:
    """A member's unrevoked tokens, newest first, without what was used of them (which `gate.tokens`
    sums up)."""
    rows = (
        state()
        .db.read()
        .execute(
            f"SELECT {COLUMNS} FROM tokens WHERE user_id = ? AND revoked_at IS NULL"
            " ORDER BY id DESC",
            (user_id,),
        )
        .fetchall()
    )
    return [
        dict(row) | {name: json.loads(row[name]) for name in ("models", "addresses") if row[name]}
        for row in rows
    ]


def own(token_id: int) -> dict:
    """One of the member's tokens; 404 for any other, and for one that is revoked."""
    return next((each for each in listed(member().id) if each["id"] == token_id), None) or abort(
        404
    )


@pages.get("")
@members_only
def page():
    """All tokens with their limits, last use, calls and cost."""
    every, db, today = gate.tokens(state().db, member().id), state().db, str(date_range.today())
    kept = [each for each in every if each["revoked_at"] is None]
    q, order = request.args.get("q", "").strip()[:100], request.args.get("order", "")
    found = _found(kept, q, order)
    number = min(request.args.get("page", 1, int), max(1, -(-len(found) // PAGE)))
    shown = found[(max(1, number) - 1) * PAGE :][:PAGE]
    return render_template(
        "member/tokens.html",
        tokens=shown,
        kept=kept,
        q=q,
        order=order if order in ORDERS else "",
        orders=list(ORDERS.items()),
        searchable=len(kept) > SEARCHED_FROM,
        number=max(1, number),
        more=len(found) > max(1, number) * PAGE,
        used={
            each["id"]: caps.used(
                db, today, member().id, (each["cap_day"], each["cap_month"]), each["id"]
            )
            for each in shown
        },
        revoked=[each for each in every if each["revoked_at"] is not None][:REVOKED_SHOWN],
        tokens_max=state().settings.accounts.tokens_max,
        now=billing.now_ms(),
        turned=turned_away.of_tokens(state().db, member().id, str(date_range.latest(7).first)),
        reasons=REASONS,
    )


def _found(kept: list[dict], q: str, order: str) -> list[dict]:
    """Those whose name or hint holds `q`, in this order; those that have expired come last."""
    now, words = billing.now_ms(), q.casefold()
    hit = [each for each in kept if words in each["name"].casefold() or q and q in each["hint"]]
    keys = {
        "name": lambda each: each["name"].casefold(),
        "used": lambda each: -(each["last_used_at"] or 0),
        "cost": lambda each: -each["cost"],
    }
    ordered = sorted(hit, key=keys[order]) if order in keys else hit
    return sorted(ordered, key=lambda each: (each["expires_at"] or now + 1) <= now)


@pages.route("/new", methods=["GET", "POST"])
@members_only
def create():
    """Make a token, and show it this once."""
    form = form_for()
    if not form.validate_on_submit():
        return render_template("member/token_form.html", form=form, token=None)
    if throttle.wait_s(ONCE, "token-form", member().id, form.once.data[:40]):
        flash(_("This form was sent already, and its API key was shown then."), "warn")
        return back_to("tokens.page")
    try:
        token_id, raw = gate.mint(
            state().db,
            member().id,
            form.name.data,
            **form.limits(),
            scope="admin" if form.admin and form.admin.data else None,
            tokens_max=state().settings.accounts.tokens_max,
            by=member().id,
        )
    except gate.TokenError as err:
        throttle.forget(ONCE, "token-form", member().id, form.once.data[:40])
        _show(err, form)
        return render_template("member/token_form.html", form=form, token=None)
    return fresh(token_id, raw)


def _show(err: gate.TokenError, form: TokenForm) -> None:
    """Put what the gate says beside its field."""
    if err.field == "addresses":
        form.addresses.errors = [_("One of these is no address or network.")]
    elif err.field == "name":
        form.form_errors.append(
            _(
                "You hold %(n)s API keys, which is the most. Revoke one first.",
                n=state().settings.accounts.tokens_max,
            )
        )
    else:
        form[{"expires_at": "expires", "scope": "admin"}.get(err.field, err.field)].errors = [
            _("This cannot be.")
        ]


@pages.post("/<int:token_id>/setup")
@members_only
def setup(token_id: int):
    """The page of a fresh token for another model.

    The token comes back from the page; here it is not to be had.
    """
    raw, token = request.form.get("token", ""), own(token_id)
    found = (
        state()
        .db.read()
        .execute(
            "SELECT 1 FROM tokens WHERE id = ? AND user_id = ? AND digest = ?",
            (token["id"], member().id, gate.digest(raw)),
        )
        .fetchone()
    )
    return fresh(token_id, raw) if found else back_to("tokens.page")


def fresh(token_id: int, raw: str):
    """The page that shows a token, with every tool's settings."""
    token = own(token_id)
    offered = [
        model
        for model in public.chat_models()
        if not token["models"] or model.id in token["models"]
    ]
    wish = request.form.get("model")
    picked = next((model for model in offered if model.id == wish), offered[0] if offered else None)
    response = make_response(
        render_template(
            "member/token_fresh.html",
            token=token,
            raw=raw,
            models=offered,
            picked=picked,
            ready=public.ready(public.place(picked, raw)),
            limit=balances.of(member().id).rules.input_tokens_max,
        )
    )
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.route("/<int:token_id>", methods=["GET", "POST"])
@members_only
def edit(token_id: int):
    """Change a token's name and limits. The next call goes by them."""
    token = own(token_id)
    form = form_for(token)
    if not form.validate_on_submit():
        return render_template("member/token_form.html", form=form, token=token)
    try:
        changed = gate.change(
            state().db, member().id, token_id, form.name.data, by=member().id, **form.limits()
        )
    except gate.TokenError as err:
        _show(err, form)
        return render_template("member/token_form.html", form=form, token=token)
    flash(
        _("Saved.") if changed else _("This API key has been revoked meanwhile."),
        "good" if changed else "bad",
    )
    return back_to("tokens.page")


@pages.post("/<int:token_id>/rotate")
@members_only
def rotate(token_id: int):
    """Give a token a new secret and show it this once; the old one may be good for an hour more."""
    own(token_id)
    if throttle.wait_s(ONCE, "token-form", member().id, request.form.get("once", "")[:40]):
        flash(_("This form was sent already, and its API key was shown then."), "warn")
        return back_to("tokens.page")
    keep_s = KEPT_S if request.form.get("keep") else 0
    raw = gate.rotate(state().db, member().id, token_id, keep_s, by=member().id)
    return fresh(token_id, raw) if raw else back_to("tokens.page")


@pages.post("/clear")
@members_only
def clear():
    """Put the tokens that have expired away."""
    gate.clear_expired(state().db, member().id, by=member().id)
    return back_to("tokens.page")


@pages.get("/<int:token_id>/revoke")
@members_only
def ask_revoke(token_id: int):
    """Ask before a token is revoked."""
    token = own(token_id)
    return render_template(
        "confirm.html",
        layout="member/layout.html",
        title=_("Revoke an API key"),
        question=_(
            "Revoke the API key %(name)s (%(hint)s)?", name=token["name"], hint=token["hint"]
        ),
        details=[
            _("It stops working at once. This cannot be undone."),
            _("Its past requests stay in your usage."),
        ],
        action=url_for("tokens.revoke", token_id=token_id),
        button=_("Revoke"),
        back=url_for("tokens.page"),
    )


@pages.post("/<int:token_id>/revoke")
@members_only
def revoke(token_id: int):
    """Revoke a token."""
    token = own(token_id)
    if gate.revoke(state().db, token_id, member().id, by=member().id):
        flash(_("The API key %(name)s is revoked.", name=token["name"]), "good")
    return back_to("tokens.page")
