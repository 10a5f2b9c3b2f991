"""Money and plans of a member, as administrators move them.

Owns what the forms for a credit and a plan do: each once, however often it is sent. The moving is
`billing`'s and `plans`', who write the audit trail too.
"""

from flask import abort, flash, url_for

import billing
import plans
from console import public
from console.admin.guard import pages, recently_authenticated
from console.admin.member import ask, caps_form, credit_form, of, plan_form, show, team_form
from console.context import member, state
from console.session import back_to
from console.ui import format
from console.ui.i18n import gettext as _
from members import caps, teams, terms


@pages.post("/members/<int:user_id>/credit")
@recently_authenticated
def credit(user_id: int):
    """Put an amount into a pocket, or take it out; once, however often the form is sent."""
    who, form = of(user_id), credit_form()
    if not form.validate_on_submit():
        return show(who, credit=form)
    pocket = form.pocket.data
    try:
        billing.credit(
            state().db,
            user_id,
            pocket,
            form.number,
            form.kind.data,
            form.note.data,
            by=member().id,
            key=f"credit-{form.key.data[:64]}",
        )
    except billing.NotCovered as err:
        form.amount.errors = [
            _("The token balance holds %(n)s tokens.", n=format.count(err.available.grant))
        ]
        return show(who, credit=form)
    except billing.KeyReused:
        flash(_("This form was sent already, with another amount. Nothing was done now."), "warn")
        return back_to("admin.member", user_id=user_id)
    said = (
        format.money(form.number)
        if pocket == "wallet"
        else _("%(n)s tokens", n=format.count(form.number))
    )
    flash(_("Done: %(amount)s for %(name)s.", amount=said, name=who.name), "good")
    return back_to("admin.member", user_id=user_id)


@pages.post("/members/<int:user_id>/plan")
@recently_authenticated
def give_plan(user_id: int):
    """Give a plan without payment; once, however often the form is sent."""
    who, form = of(user_id), plan_form()
    if not form.validate_on_submit():
        return show(who, plan=form)
    try:
        terms.give_plan(
            state().db,
            state().settings,
            user_id,
            form.plan.data,
            quota=form.quota.nano,
            days=form.days.data,
            renew=form.renew.data,
            monthly=form.monthly.data,
            by=member().id,
            key=f"plan-{form.key.data[:64]}",
        )
        flash(
            _(
                "%(name)s has the plan %(plan)s.",
                name=who.name,
                plan=public.plan_title(form.plan.data),
            ),
            "good",
        )
    except billing.KeyReused:
        flash(_("This form was sent already, with other terms. Nothing was done now."), "warn")
    return back_to("admin.member", user_id=user_id)


@pages.post("/members/<int:user_id>/caps")
@recently_authenticated
def set_caps(user_id: int):
    """Bind a member, with all tokens, to amounts and models."""
    who = of(user_id)
    form = caps_form(who)
    if not form.validate_on_submit():
        return show(who, caps=form)
    wanted = caps.Caps(form.day.nano, form.month.nano, form.ids or None)
    caps.put(state().db, user_id, wanted, by=member().id)
    flash(_("The limits of %(name)s hold from the next request on.", name=who.name), "good")
    return back_to("admin.member", user_id=user_id)


@pages.post("/members/<int:user_id>/team")
@recently_authenticated
def set_team(user_id: int):
    """Let a member's calls draw on a team's wallet, or on none."""
    who = of(user_id)
    form = team_form(who)
    if not form.validate_on_submit():
        return show(who, team=form)
    if form.team.data:
        try:
            teams.join(state().db, form.team.data, user_id, by=member().id)
        except teams.TeamError:  # closed meanwhile
            flash(_("This team is closed."), "warn")
            return back_to("admin.member", user_id=user_id)
    else:
        teams.leave(state().db, user_id, by=member().id)
    flash(_("It holds from the next request of %(name)s on.", name=who.name), "good")
    return back_to("admin.member", user_id=user_id)


def subscription_of(user_id: int, subscription_id: int) -> plans.Subscription:
    """One of a member's running subscriptions, or 404."""
    running = plans.active(state().db, of(user_id).id)
    return next((each for each in running if each.id == subscription_id), None) or abort(404)


@pages.get("/members/<int:user_id>/plans/<int:subscription_id>/end")
def ask_end_plan(user_id: int, subscription_id: int):
    """Ask before a plan ends early."""
    each = subscription_of(user_id, subscription_id)
    return ask(
        of(user_id),
        _("End a plan"),
        _(
            "End the plan %(plan)s of %(name)s now?",
            plan=public.plan_title(each.plan),
            name=of(user_id).name,
        ),
        [
            _("What is left of its quota expires: %(amount)s.", amount=format.money(each.left)),
            _("What was paid for it is not given back by itself."),
        ],
        url_for("admin.end_plan", user_id=user_id, subscription_id=subscription_id),
        _("End the plan"),
    )


@pages.post("/members/<int:user_id>/plans/<int:subscription_id>/end")
@recently_authenticated
def end_plan(user_id: int, subscription_id: int):
    """End a plan before its time."""
    if plans.end_plan(state().db, subscription_of(user_id, subscription_id).id, by=member().id):
        flash(_("The plan has ended."), "good")
    return back_to("admin.member", user_id=user_id)


@pages.post("/members/<int:user_id>/plans/<int:subscription_id>/stop")
def stop_renewal(user_id: int, subscription_id: int):
    """Let a plan that renews by itself end with its period."""
    if plans.stop_renewal(state().db, subscription_of(user_id, subscription_id).id, by=member().id):
        flash(_("The plan ends with its period."), "good")
    return back_to("admin.member", user_id=user_id)
