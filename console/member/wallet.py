"""The wallet: pockets, codes, plans, and the statement of every movement.

Owns the pages around `plans` and what members read of `entries`. It moves no money: `plans` does,
once for each form.
"""

import secrets

from flask import Blueprint, abort, flash, render_template, request
from wtforms import StringField
from wtforms.validators import InputRequired

import billing
import codes
import plans
from console import public, throttle
from console.context import member, state
from console.member import balances, credit
from console.session import back_to, members_only
from console.ui import csv, format
from console.ui.forms import Form
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import entries

pages = Blueprint("wallet", __name__, url_prefix="/console/wallet")

CODE_TRIES, CODE_TRIES_FROM = "10 per hour", "60 per hour"
ENTRIES_SHOWN = 8
POCKETS = {"grant": _l("Token balance"), "quota": _l("Plan quota"), "wallet": _l("Wallet")}
KINDS = {
    "charge": _l("Request"),
    "top_up": _l("Top-up"),
    "redeem": _l("Code"),
    "reward": _l("Reward"),
    "purchase": _l("Plan bought"),
    "quota": _l("Quota of a plan"),
    "expire": _l("Expired"),
    "refund": _l("Refund"),
    "adjust": _l("Correction"),
}
NOTES = {"sign-up": _l("for signing up"), "invite": _l("for an invite")}


class CodeForm(Form):
    code = StringField(
        _l("Code"),
        [InputRequired(_l("Type a code."))],
        render_kw={
            "autocomplete": "off",
            "spellcheck": "false",
            "maxlength": 100,
            "placeholder": "XXXX-XXXX-XXXX-XXXX-XXXX",
        },
    )


@pages.get("")
@members_only
def page():
    """Pockets, codes, plans, and the newest entries."""
    return _show(CodeForm())


def _show(form: CodeForm) -> str:
    newest = entries.listed(member().id).page(state().db.read(), size=ENTRIES_SHOWN)
    return render_template(
        "member/wallet.html",
        form=form,
        has=balances.of(member().id),
        answered=credit.answered(member().id),
        sold=sold(),
        newest=newest,
        kinds=KINDS,
        pockets_named=POCKETS,
        say=say,
        kept_since=kept_since(),
    )


def sold() -> dict:
    """The plans that members can buy: name -> settings."""
    return {
        name: plan
        for name, plan in state().settings.plans.items()
        if plan.price > 0 and name != "free"
    }


@pages.post("/redeem")
@members_only
def redeem():
    """Turn a code into what it is for. Tries are counted; what is wrong with a code is not told."""
    form, me = CodeForm(), member().id
    if not form.validate_on_submit():
        return _show(form)
    wait = throttle.wait_s(CODE_TRIES, "code", me) or throttle.wait_s(
        CODE_TRIES_FROM, "code-from", throttle.address()
    )
    if wait:
        form.code.errors = [
            _("Too many codes were tried. Try again in %(n)s minutes.", n=-(-wait // 60))
        ]
        return _show(form), 429, {"Retry-After": str(wait)}
    try:
        given = codes.redeem(state().db, me, form.code.data)
    except codes.CodeRefused:
        form.code.errors = [_("This code is not valid, or has been used.")]
        return _show(form)
    throttle.forget(CODE_TRIES, "code", me)
    flash(_given(given), "good")
    return back_to("wallet.page")


def _given(given: dict) -> str:
    """What a code brought, in a sentence."""
    if given["kind"] == "plan":
        return _(
            "You have the plan %(plan)s until %(day)s.",
            plan=public.plan_title(given["plan"]),
            day=format.local(given["ends_at"]).date(),
        )
    if given["kind"] == "grant":
        return _("%(n)s tokens were added to your token balance.", n=format.count(given["amount"]))
    return _("%(amount)s were added to your wallet.", amount=format.money(given["amount"]))


@pages.get("/plans/<name>")
@members_only
def ask_buy(name: str):
    """What a plan costs and brings, before it is bought."""
    plan, has = sold().get(name) or abort(404), balances.of(member().id)
    price, title = billing.nano(plan.price), public.plan_title(name)
    return render_template(
        "member/buy.html",
        plan=plan,
        name=name,
        title=title,
        price=price,
        has=has,
        after=has.available.wallet - price,
        running=[s for s in has.active if s.plan == name],
        key=secrets.token_urlsafe(16),
    )


@pages.post("/plans/<name>")
@members_only
def buy(name: str):
    """Buy a plan from the wallet.

    At the price that was shown, and once for each time that it was asked.
    """
    plan = sold().get(name) or abort(404)
    price = billing.nano(plan.price)
    if request.form.get("price") != str(price):
        flash(_("The price has changed meanwhile. Look again."), "warn")
        return back_to("wallet.ask_buy", name=name)
    try:
        bought = plans.purchase(
            state().db,
            member().id,
            name,
            price=price,
            quota=billing.nano(plan.quota),
            days=plan.days,
            key=f"buy-{request.form.get('key', '')[:64]}",
        )
    except billing.NotCovered as err:
        flash(
            _(
                "Your wallet holds %(has)s; the plan costs %(price)s.",
                has=format.money(err.available.wallet),
                price=format.money(price),
            ),
            "bad",
        )
        return back_to("wallet.page")
    except billing.KeyReused:
        abort(400)
    flash(
        _(
            "You have the plan %(plan)s until %(day)s.",
            plan=public.plan_title(name),
            day=format.local(bought["ends_at"]).date(),
        ),
        "good",
    )
    return back_to("wallet.page")


# ---- the statement


def asked() -> tuple[str | None, str | None]:
    """The pocket and the kind that the GET parameters ask for."""
    pocket, kind = request.args.get("pocket"), request.args.get("kind")
    return pocket if pocket in POCKETS else None, kind if kind in KINDS else None


@pages.get("/statement")
@members_only
def statement():
    """Every movement of every pocket, each with the balance after it."""
    pocket, kind = asked()
    found = entries.listed(member().id, pocket, kind).page(
        state().db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
    )
    choices = {
        "pocket": [("", _("All balances")), *POCKETS.items()],
        "kind": [("", _("All kinds")), *KINDS.items()],
    }
    return render_template(
        "member/statement.html",
        found=found,
        pocket=pocket,
        kind=kind,
        kinds=KINDS,
        say=say,
        pockets_named=POCKETS,
        kept_since=kept_since(),
        choices=choices,
    )


@pages.get("/statement.csv")
@members_only
def statement_csv():
    """The statement as a file."""
    (pocket, kind), time = asked(), csv.clock()
    batches = (
        [exported(row, time) for row in batch]
        for batch in entries.listed(member().id, pocket, kind).all(state().db.read(), csv.BATCH)
    )
    return csv.download("statement", EXPORTED, batches)


EXPORTED = ["id", "created_at", "pocket", "kind", "amount", "balance_after", "request_id", "note"]


def exported(row, time: csv.Clock) -> list:
    """An entry as a line: the grant in LLM tokens, the other pockets in yuan."""
    write = str if row["pocket"] == "grant" else csv.money
    return [
        row["id"],
        time(row["created_at"]),
        row["pocket"],
        row["kind"],
        csv.Number(write(row["amount"])),
        csv.Number(write(row["balance_after"])),
        row["request_id"],
        row["note"],
    ]


def kept_since() -> int:
    """Calls that began later than this (ms) are still kept one by one."""
    return billing.now_ms() - state().settings.retention.requests_days * plans.DAY_MS


def say(entry) -> str:
    """An entry's note as members read it."""
    note = entry["note"] or ""
    if entry["kind"] in ("purchase", "quota", "expire") and entry["by_user_id"] is None:
        return public.plan_title(note)
    return str(NOTES.get(note, note))
