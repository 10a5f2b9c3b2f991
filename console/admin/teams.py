"""Teams: their wallets, who shares them, and what was spent for whom.

Owns the pages and forms of teams. What they do is `members.teams`' and `billing`'s, who write the
audit trail too.
"""

from datetime import date

from flask import abort, flash, render_template, request, url_for
from wtforms import StringField
from wtforms.validators import InputRequired, Length, ValidationError

import billing
from console.admin.guard import pages, recently_authenticated
from console.admin.member import KINDS, CreditForm, credit_form, statement_words
from console.context import member, state
from console.member import wallet
from console.session import back_to
from console.ui import csv, date_range, format
from console.ui.forms import Form
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from members import accounts, entries, teams

SHOWN = 8


class NewTeamForm(Form):
    name = StringField(
        _l("Name"),
        [InputRequired(_l("Type a name.")), Length(max=accounts.NAME_LENGTH_MAX)],
        render_kw={"autocomplete": "off", "maxlength": accounts.NAME_LENGTH_MAX},
    )


class JoinForm(Form):
    name = StringField(
        _l("Member"),
        [InputRequired(_l("Type a name."))],
        render_kw={"autocomplete": "off", "maxlength": accounts.NAME_LENGTH_MAX},
    )

    def validate_name(self, field):
        """The name of a member."""
        self.member = accounts.named(state().db, field.data)
        if self.member is None:
            raise ValidationError(_("There is no member of this name."))


class TeamCreditForm(CreditForm):
    """A credit into a wallet: a team has no other balance."""

    pocket = None
    in_money = True


@pages.get("/teams", endpoint="teams")
def page():
    """All teams, with what they have and spent this month."""
    return _list(NewTeamForm())


def _list(form: NewTeamForm) -> str:
    found = teams.teams(state().db)
    return render_template("admin/teams.html", teams=found, spent=_spent(found), form=form)


def _month() -> tuple[str, str]:
    """The first day of this month and today."""
    today = date_range.today()
    return str(today.replace(day=1)), str(today)


def _spent(found: list[teams.Team]) -> dict[int, int]:
    """What each team's wallet paid this month."""
    return {
        each.id: sum(share.charged for share in teams.shares(state().db, each.id, *_month()))
        for each in found
    }


@pages.post("/teams")
@recently_authenticated
def add_team():
    """Make a team."""
    form = NewTeamForm()
    if not form.validate_on_submit():
        return _list(form)
    try:
        made = teams.add(state().db, form.name.data, by=member().id)
    except accounts.NameTaken:
        form.name.errors = [_("A member or a team is called so already.")]
        return _list(form)
    except accounts.BadName:
        form.name.errors = [_("This cannot be a name.")]
        return _list(form)
    return back_to("admin.team", team_id=made.id)


def of(team_id: int) -> teams.Team:
    """The team of that id, or 404."""
    return teams.find(state().db, team_id) or abort(404)


@pages.get("/teams/<int:team_id>", endpoint="team")
def team_page(team_id: int):
    """One team: its wallet, its members, its newest movements."""
    return _show(of(team_id))


def _show(team: teams.Team, **forms) -> str:
    """The page; `forms` are those that were sent and are wrong."""
    shown = {"credit": credit_form(TeamCreditForm), "join": JoinForm(prefix="join")} | forms
    shares = teams.shares(state().db, team.id, *_month())
    return render_template(
        "admin/team.html",
        team=team,
        shares=shares,
        spent=sum(each.charged for each in shares),
        month=date.fromisoformat(_month()[0]),
        forms=shown,
        entries=entries.listed(team.id).page(state().db.read(), size=SHOWN),
        **statement_words(),
    )


@pages.post("/teams/<int:team_id>/credit")
@recently_authenticated
def credit_team(team_id: int):
    """Put an amount into a team's wallet, or take it out; once, however often the form is sent."""
    team, form = of(team_id), credit_form(TeamCreditForm)
    if not form.validate_on_submit():
        return _show(team, credit=form)
    try:
        billing.credit(
            state().db,
            team.id,
            "wallet",
            form.number,
            form.kind.data,
            form.note.data,
            by=member().id,
            key=f"credit-{form.key.data[:64]}",
        )
    except billing.NotCovered as err:
        free = format.money(err.available.wallet)
        form.amount.errors = [_("%(amount)s are free in this wallet.", amount=free)]
        return _show(team, credit=form)
    except billing.KeyReused:
        flash(_("This form was sent already, with another amount. Nothing was done now."), "warn")
        return back_to("admin.team", team_id=team.id)
    said = format.money(form.number)
    flash(_("Done: %(amount)s for %(name)s.", amount=said, name=team.name), "good")
    return back_to("admin.team", team_id=team.id)


@pages.post("/teams/<int:team_id>/join")
@recently_authenticated
def join_team(team_id: int):
    """Let a member's calls draw on the team's wallet."""
    team, form = of(team_id), JoinForm(prefix="join")
    if not form.validate_on_submit():
        return _show(team, join=form)
    try:
        teams.join(state().db, team.id, form.member.id, by=member().id)
    except teams.TeamError:
        flash(_("This team is closed."), "warn")
    else:
        name = form.member.name
        flash(_("It holds from the next request of %(name)s on.", name=name), "good")
    return back_to("admin.team", team_id=team.id)


@pages.post("/teams/<int:team_id>/leave/<int:user_id>")
@recently_authenticated
def leave_team(team_id: int, user_id: int):
    """Let a member's calls draw on it no more."""
    team, own = of(team_id), teams.of(state().db, user_id)
    if own is not None and own.id == team.id:
        teams.leave(state().db, user_id, by=member().id)
        flash(_("They draw on the wallet of %(name)s no more.", name=team.name), "good")
    return back_to("admin.team", team_id=team.id)


@pages.get("/teams/<int:team_id>/close")
def ask_close_team(team_id: int):
    """Ask before a team is closed."""
    team = of(team_id)
    return render_template(
        "confirm.html",
        layout="admin/layout.html",
        title=_("Close a team"),
        question=_("Close the team %(name)s?", name=team.name),
        details=[
            _("Its %(n)s members draw on its wallet no more.", n=team.members),
            _(
                "What it holds stays there until you take it out: %(amount)s.",
                amount=format.money(team.balance),
            ),
        ],
        action=url_for("admin.close_team", team_id=team.id),
        button=_("Close the team"),
        back=url_for("admin.team", team_id=team.id),
    )


@pages.post("/teams/<int:team_id>/close")
@recently_authenticated
def close_team(team_id: int):
    """Let all members leave, and nobody join."""
    team = of(team_id)
    if not team.closed:
        teams.close(state().db, team.id, by=member().id)
        flash(_("The team %(name)s is closed.", name=team.name), "good")
    return back_to("admin.team", team_id=team.id)


@pages.post("/teams/<int:team_id>/reopen")
@recently_authenticated
def reopen_team(team_id: int):
    """Let members join a closed team again."""
    team = of(team_id)
    if team.closed:
        teams.reopen(state().db, team.id, by=member().id)
    return back_to("admin.team", team_id=team.id)


# ---- the statement


def _kind() -> str | None:
    kind = request.args.get("kind")
    return kind if kind in wallet.KINDS else None


@pages.get("/teams/<int:team_id>/statement")
def team_statement(team_id: int):
    """Every movement of a team's wallet."""
    team, kind = of(team_id), _kind()
    found = entries.listed(team.id, kind=kind).page(
        state().db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
    )
    choices = [("", _("All kinds")), ("charge", wallet.KINDS["charge"]), *KINDS.items()]
    return render_template(
        "admin/team_statement.html",
        team=team,
        found=found,
        kind=kind,
        choices=choices,
        **statement_words(),
    )


@pages.get("/teams/<int:team_id>/statement.csv")
def team_statement_csv(team_id: int):
    """A team's statement as a file, with whose requests were paid."""
    batches = entries.listed(of(team_id).id, kind=_kind()).all(state().db.read(), csv.BATCH)
    time = csv.clock()
    return csv.download(
        f"team-{team_id}",
        [*wallet.EXPORTED, "member"],
        ([[*wallet.exported(each, time), each["member"]] for each in batch] for batch in batches),
    )
