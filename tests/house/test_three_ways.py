"""What administrators do, three ways: a page, a command, and an address of the API.

The API does all that the other two can. Whoever adds a page or a command adds a row here, and an
address; what there is no address for says why. For what moves money or power, all three leave the
same behind.
"""

import json

import click
import pytest

from members import accounts, tokens
from relay.administration import ADDRESSES, PREFIX
from tests.console.member_stage import house

# What is done: pages (endpoints of console/admin), commands, addresses.
TABLE = {
    "find members": (["members"], ["user list"], ["GET /members"]),
    "look at a member": (["member"], ["balance"], ["GET /members/<id>"]),
    "make a member": (["new_member"], ["user add"], ["POST /members"]),
    "shut out": (["ask_disable", "disable"], ["user disable"], ["PATCH /members/<id>"]),
    "let in": (["enable"], ["user enable"], ["PATCH /members/<id>"]),
    "change a role": (["ask_role", "set_role"], ["user role"], ["PATCH /members/<id>"]),
    "change a password": (["reset_password"], ["user password"], ["PATCH /members/<id>"]),
    "end sessions": (["end_sessions"], [], ["DELETE /members/<id>/sessions"]),
    "list identities": (["member"], ["user identities"], ["GET /members/<id>/identities"]),
    "connect an identity": ([], ["user connect"], ["POST /members/<id>/identities"]),
    "disconnect an identity": (
        ["disconnect"],
        ["user disconnect"],
        ["DELETE /members/<id>/identities"],
    ),
    "invite": ([], [], ["GET /members/<id>/invite", "POST /members/<id>/invite"]),
    "who was invited": ([], [], ["GET /members/<id>/invited"]),
    "list tokens": (["member"], ["token list"], ["GET /members/<id>/tokens"]),
    "make a token": ([], ["token add"], ["POST /members/<id>/tokens"]),
    "change a token": ([], [], ["PATCH /members/<id>/tokens/<id>"]),
    "renew a token": ([], ["token rotate"], ["POST /members/<id>/tokens/<id>/rotate"]),
    "revoke a token": (
        ["ask_revoke_token", "revoke_token"],
        ["token revoke"],
        ["DELETE /members/<id>/tokens/<id>"],
    ),
    "clear expired tokens": ([], [], ["POST /members/<id>/tokens/clear"]),
    "credit": (["credit"], ["credit"], ["POST /members/<id>/credit"]),
    "cap": (["set_caps"], ["user cap"], ["PUT /members/<id>/caps"]),
    "find teams": (["teams"], ["team list"], ["GET /teams"]),
    "make a team": (["add_team"], ["team add"], ["POST /teams"]),
    "look at a team": (
        ["team"],
        ["team show"],
        ["GET /teams/<id>", "GET /teams/<id>/members"],
    ),
    "credit a team": (["credit_team"], ["team credit"], ["POST /teams/<id>/credit"]),
    "join a team": (
        ["join_team", "set_team"],
        ["team join"],
        ["PUT /teams/<id>/members/<id>"],
    ),
    "leave a team": (
        ["leave_team", "set_team"],
        ["team leave"],
        ["DELETE /teams/<id>/members/<id>"],
    ),
    "close a team": (
        ["ask_close_team", "close_team", "reopen_team"],
        ["team close", "team reopen"],
        ["PATCH /teams/<id>"],
    ),
    "read a team's statement": (
        ["team_statement", "team_statement_csv"],
        ["team entries"],
        ["GET /teams/<id>/entries"],
    ),
    "give a plan": (["give_plan"], ["user plan"], ["POST /members/<id>/plan"]),
    "list a member's plans": (["member"], [], ["GET /members/<id>/subscriptions"]),
    "stop a renewal": (["stop_renewal"], [], ["PATCH /members/<id>/subscriptions/<id>"]),
    "end a plan": (["ask_end_plan", "end_plan"], [], ["DELETE /members/<id>/subscriptions/<id>"]),
    "read a statement": (
        ["statement", "statement_csv"],
        ["ledger show"],
        ["GET /members/<id>/entries"],
    ),
    "decide on credit": (
        ["decide_credit"],
        [],
        ["GET /credit-requests", "POST /credit-requests/<id>"],
    ),
    "look at the month": (["overview"], [], ["GET /budget"]),
    "make codes": (["new_codes", "codes_file"], ["code add"], ["POST /codes"]),
    "list codes": (["codes", "codes_csv"], ["code list"], ["GET /codes"]),
    "revoke codes": (["ask_revoke_codes", "revoke_codes"], ["code revoke"], ["DELETE /codes/<id>"]),
    "list calls": (["calls", "calls_csv"], ["requests"], ["GET /calls"]),
    "look at a call": (["call", "find_call"], ["requests"], ["GET /calls/<call_id>"]),
    "sum up usage": (["usage_csv", "overview", "overview_csv"], [], ["GET /usage"]),
    "see how providers are": (
        ["upstreams", "upstream"],
        ["upstreams", "upstream list"],
        ["GET /upstreams", "GET /upstreams/<name>"],
    ),
    "list known providers": (["connect"], ["upstream presets"], ["GET /presets"]),
    "look at a provider": (["try_connecting"], [], ["POST /presets/look"]),
    "connect a provider": (["keep_upstream"], ["upstream add"], ["POST /upstreams"]),
    "switch a provider": (
        ["switch_upstream"],
        ["upstream enable", "upstream disable"],
        ["PATCH /upstreams/<name>"],
    ),
    "change a provider": (["edit_upstream"], [], ["PATCH /upstreams/<name>"]),
    "change its key": (["rotate_upstream"], ["upstream key"], ["PUT /upstreams/<name>/key"]),
    "remove a provider": (["remove_upstream"], ["upstream remove"], ["DELETE /upstreams/<name>"]),
    "try a provider": (["test_upstream"], ["upstream test"], ["POST /upstreams/<name>/test"]),
    "ask a provider": (["ask_upstream"], [], ["POST /upstreams/<name>/ask"]),
    "read a bill": (
        ["upstream_bill", "upstream_bill_csv"],
        ["bill"],
        ["GET /upstreams/<name>/bill"],
    ),
    "compare an invoice": ([], ["bill"], ["POST /upstreams/<name>/bill"]),
    "list models and plans": (["models"], ["config show"], ["GET /models", "GET /plans"]),
    "compare prices": (["prices"], ["models update"], ["GET /models/prices"]),
    "accept prices": (["accept_prices"], ["models update"], ["POST /models/prices"]),
    "read the settings": ([], ["config show"], ["GET /settings"]),
    "check the settings": (["models", "reload"], ["config check"], ["GET /settings/changes"]),
    "reload": (["reload"], ["reload"], ["POST /settings/reload"]),
    "see the system": (["system"], [], ["GET /system", "GET /backup", "GET /ledger/proof"]),
    "prove the ledger": (["verify"], ["ledger verify"], ["POST /ledger/verify"]),
    "back up": (["backup"], ["backup"], ["POST /backup"]),
    "test notices": (["test_notice"], [], ["POST /notices/test"]),
    "read the trail": (["audit", "audit_csv"], [], ["GET /audit"]),
}
WITHOUT = {  # commands that have no address, and why
    "restore": "it takes the place of the file that holds the API's own tokens, and must work where"
    " no relay starts",
    "user way-in": "it signs somebody in without a password: only who has the machine may",
}


@pytest.fixture
def home(tmp_path):
    made = house(tmp_path)
    yield made
    made.db.close()


def commands(group, before: str = ""):
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def column(number: int) -> set[str]:
    return {each for row in TABLE.values() for each in row[number]}


def test_every_page_and_command_of_administrators_has_an_address_of_the_api(home):
    pages = {
        rule.endpoint.removeprefix("admin.")
        for rule in home.app.url_map.iter_rules()
        if rule.endpoint.startswith("admin.")
    }
    assert pages == column(0)
    ours = {"routes", "run", "shell"}  # Flask's own
    assert set(commands(home.app.cli)) - ours == column(1) | set(WITHOUT)
    addresses = {f"{each.method} {_plain(each.path)}" for each in ADDRESSES}
    assert addresses == column(2)
    assert [what for what, (_pages, _commands, api) in TABLE.items() if not api] == []


def _plain(path: str) -> str:
    """Ids by one name."""
    words = ["<id>" if each.startswith("<int:") else each for each in path.split("/")]
    return "/".join(words)


# ---- the same is left behind

ACTS = {  # what is done: the page's path and form, the command, the address and body
    "credit": (
        (
            "/{id}/credit",
            {"credit-pocket": "wallet", "credit-amount": "7.50", "credit-kind": "top_up"},
        ),
        ["credit", "{name}", "--wallet", "7.50", "--note", "lunch"],
        ("POST", "/members/{id}/credit", {"wallet": "7.50", "note": "lunch"}),
    ),
    "cap": (
        ("/{id}/caps", {"caps-day": "5", "caps-month": "", "caps-models": "plain-1"}),
        ["user", "cap", "{name}", "--day", "5", "--model", "plain-1"],
        ("PUT", "/members/{id}/caps", {"day": "5", "models": ["plain-1"]}),
    ),
    "plan": (
        ("/{id}/plan", {"plan-plan": "pro", "plan-days": "5"}),
        ["user", "plan", "{name}", "pro", "--days", "5"],
        ("POST", "/members/{id}/plan", {"plan": "pro", "days": 5}),
    ),
    "monthly allowance": (
        ("/{id}/plan", {"plan-plan": "pro", "plan-monthly": "y"}),
        ["user", "plan", "{name}", "pro", "--monthly"],
        ("POST", "/members/{id}/plan", {"plan": "pro", "monthly": True}),
    ),
    "shut out": (
        ("/{id}/disable", {}),
        ["user", "disable", "{name}"],
        ("PATCH", "/members/{id}", {"disabled": True}),
    ),
    "make an administrator": (
        ("/{id}/role", {"role": "admin"}),
        ["user", "role", "{name}", "admin"],
        ("PATCH", "/members/{id}", {"role": "admin"}),
    ),
    "revoke a token": (
        ("/{id}/tokens/{token}/revoke", {}),
        ["token", "revoke", "{token}"],
        ("DELETE", "/members/{id}/tokens/{token}", None),
    ),
}
KEPT = {  # table -> what tells its rows apart from another way of doing the same
    "users": "role, disabled_at IS NULL",
    "balances": "grant_balance, quota_balance, wallet_balance",
    "entries": "pocket, kind, amount, balance_after, note",
    "subscriptions": "plan, quota, left, paid, (ends_at - starts_at) / 86400000, renew, months_of",
    "caps": "cap_day, cap_month, models",
    "tokens": "name, revoked_at IS NULL",
}


def left_behind(home, who) -> dict:
    """What the database has of a member, and what the trail says was done: no times, no ids."""
    conn = home.db.read()
    found = {
        table: [
            tuple(row)
            for row in conn.execute(
                f"SELECT {columns} FROM {table}"
                f" WHERE {'id' if table == 'users' else 'user_id'} = ? ORDER BY rowid",
                (who.id,),
            ).fetchall()
        ]
        for table, columns in KEPT.items()
    }
    trail = conn.execute(
        "SELECT action, detail FROM audit WHERE target = ? ORDER BY id", (who.name,)
    )
    # The quota of a given plan has a row of its own where somebody with an id gave it; the plan has
    # one in any case.
    found["audit"] = [
        (action, _bare(detail)) for action, detail in trail.fetchall() if action != "ledger.quota"
    ]
    return found


def _bare(detail: str) -> dict:
    """Without what is another for each member or way, and notes, which only commands may lack."""
    said = json.loads(detail)
    return {name: each for name, each in said.items() if name not in ("entry", "id", "hint")}


@pytest.mark.parametrize("act", ACTS)
def test_a_page_a_command_and_the_api_leave_the_same_behind(home, act):
    (page, form), command, (method, path, body) = ACTS[act]
    carol = home.member("carol", role="admin")
    desk = tokens.mint(home.db, carol.id, "desk", scope="admin")[1]
    people = [home.member(name, wallet="10") for name in ("alice", "bob", "dora")]
    own = [home.token(each) for each in people]

    def filled(text: str, number: int) -> str:
        who = people[number]
        return text.format(id=who.id, name=who.name, token=own[number])

    note = {"credit-note": "lunch", "credit-key": "k", "plan-key": "k"}
    answer = home.browser(carol).send(f"/admin/members{filled(page, 0)}", **(note | form))
    assert answer.status_code in (200, 303)
    done = home.app.test_cli_runner().invoke(args=[filled(each, 1) for each in command])
    assert done.exit_code == 0, done.output
    answer = home.app.test_client().open(
        PREFIX + filled(path, 2),
        method=method,
        json=body,
        headers={"Authorization": f"Bearer {desk}"},
    )
    assert answer.status_code == 200, answer.get_data()
    by_page, by_command, by_api = (left_behind(home, who) for who in people)
    assert by_page == by_api
    assert by_command == by_api
    before = left_behind(home, home.member("eve", wallet="10"))
    assert by_api != before
    assert accounts.find(home.db, people[2].id) is not None
