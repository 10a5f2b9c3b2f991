"""The audit trail: what administrators did, and what was done to accounts.

Owns how it is read. It is written where things are done, in the same transaction, and never
changed.
"""

import json

from flask import render_template, request

from console.admin import members
from console.admin.guard import pages
from console.context import state
from console.member import wallet
from console.ui import csv, format
from console.ui.i18n import gettext as _
from console.ui.i18n import lazy_gettext as _l
from db import keyset
from members import accounts, audit, teams

ACTIONS = {
    "member.add": _l("Member made"),
    "member.password": _l("Password set"),
    "member.role": _l("Role changed"),
    "member.disable": _l("Member disabled"),
    "member.enable": _l("Member enabled"),
    "member.end_sessions": _l("Sessions ended"),
    "token.add": _l("API key made"),
    "token.change": _l("API key changed"),
    "token.rotate": _l("API key renewed"),
    "token.clear": _l("Expired API keys cleared away"),
    "member.sign_in": _l("Signed in by single sign-on"),
    "member.connect": _l("Single sign-on connected"),
    "member.disconnect": _l("Single sign-on disconnected"),
    "member.way_in": _l("Let in by the command line"),
    "sign_in.refuse": _l("Single sign-on refused"),
    "token.revoke": _l("API key revoked"),
    "ledger.top_up": _l("Top-up"),
    "ledger.refund": _l("Refund"),
    "ledger.reward": _l("Reward"),
    "ledger.adjust": _l("Correction"),
    "ledger.quota": _l("Quota given"),
    "plan.give": _l("Plan given"),
    "plan.end": _l("Plan ended"),
    "plan.stop_renewal": _l("Renewal stopped"),
    "invite.renew": _l("Invite renewed"),
    "credit.grant": _l("Credit granted"),
    "credit.decline": _l("Credit declined"),
    "code.make": _l("Codes made"),
    "code.revoke": _l("Code revoked"),
    "settings.reload": _l("Settings reloaded"),
    "upstream.test": _l("Upstream tested"),
    "upstream.add": _l("Upstream connected"),
    "upstream.edit": _l("Upstream changed"),
    "upstream.key": _l("Upstream's key changed"),
    "upstream.enable": _l("Upstream switched on"),
    "upstream.disable": _l("Upstream switched off"),
    "team.add": _l("Team made"),
    "team.join": _l("Joined a team"),
    "team.leave": _l("Left a team"),
    "team.close": _l("Team closed"),
    "team.reopen": _l("Team reopened"),
    "user.cap": _l("Limits of a member"),
    "notice.test": _l("Test of the notices"),
    "models.price": _l("Price of a model"),
    "upstream.remove": _l("Upstream removed"),
    "settings.audience": _l("Audience chosen"),
    "ledger.verify": _l("Ledger verified"),
    "database.backup": _l("Backup downloaded"),
    "database.restore": _l("Backup restored"),
}
DETAILS = {
    "amount": _l("amount"),
    "note": _l("note"),
    "asked": _l("asked for"),
    "invited_by": _l("invited by"),
    "file": _l("file"),
    "interrupted": _l("interrupted"),
    "pocket": _l("account"),
    "role": _l("role"),
    "plan": _l("plan"),
    "days": _l("days"),
    "renew": _l("renews"),
    "count": _l("count"),
    "kind": _l("kind"),
    "code": _l("code"),
    "token": _l("API key"),
    "hint": _l("hint"),
    "upstream": _l("upstream"),
    "outcome": _l("status"),
    "mistakes": _l("mistakes"),
    "model": _l("model"),
    "team": _l("team"),
    "issuer": _l("provider"),
    "subject": _l("subject"),
    "email": _l("e-mail"),
    "reason": _l("reason"),
}
WORDS = {
    "pocket": wallet.POCKETS,
    "kind": wallet.POCKETS | {"plan": _l("Plan")},
    "role": members.ROLES,
}


def _asked() -> tuple[str | None, str]:
    action = request.args.get("action")
    return action if action in ACTIONS else None, request.args.get("who", "").strip()[:64]


def _found() -> keyset.List:
    """What fits. A name is found however it is written, as in every other search."""
    action, who = _asked()
    found = (accounts.named(state().db, who) or teams.named(state().db, who)) if who else None
    return audit.listed(action, found.name if found else who, found.id if found else None)


@pages.get("/audit", endpoint="audit")
def page():
    """What was done, newest first."""
    action, who = _asked()
    found = _found().page(
        state().db.read(), request.args.get("before", type=int), request.args.get("after", type=int)
    )
    return render_template(
        "admin/audit.html",
        found=found,
        action=action,
        who=who,
        actions=ACTIONS,
        details=details,
        choices=[("", _("All")), *ACTIONS.items()],
    )


@pages.get("/audit.csv")
def audit_csv():
    """The trail as a file."""
    head = ["id", "at", "by", "action", "target", "detail"]
    batches, time = _found().all(state().db.read(), csv.BATCH), csv.clock()
    return csv.download(
        "audit", head, ([_exported(row, time) for row in batch] for batch in batches)
    )


def _exported(row, time: csv.Clock) -> list:
    return [row["id"], time(row["at"]), row["by"], row["action"], row["target"], row["detail"]]


def details(row) -> list[tuple[str, str]]:
    """What is known of an action: (name, value), as people read it."""
    found = json.loads(row["detail"] or "{}")
    money = found.get("pocket", found.get("kind")) in ("wallet", "quota")
    return [
        (str(DETAILS.get(name, name)), _value(name, value, money))
        for name, value in found.items()
        if value not in (None, "") and name not in ("entry", "id")
    ]


def _value(name: str, value, money: bool) -> str:
    if name in ("amount", "asked") and isinstance(value, int):
        return format.money(value) if money else format.count(value)
    if value in WORDS.get(name, ()):
        return str(WORDS[name][value])
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
