"""The command line.

What it prints, what it refuses, and that it works beside a server that runs.
"""

import csv
import io
import json
import os
import re
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import click
import pytest

import app as application
import billing
import codes
import plans
import settings
import verify
from db import Database
from members import accounts, call_rows, tokens
from tests.client import CHAT
from tests.fake_upstream import answer
from tests.providers import plain, usage
from tests.stage import configuration, flask, wait_until, write_config

PASSWORD = "a long enough password"
HELLO = {"model": "test-model", "messages": [{"role": "user", "content": "Hello"}]}
ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 19},
}
PLANS = {
    "pro": {
        "price": "29.90",
        "quota": "40.00",
        "days": 30,
        "requests_per_minute": 600,
        "discount": "0.80",
    }
}


class Operator:
    """Who types commands.

    `operator("user", "list")` gives what was printed, `refused` the reason.
    """

    def __init__(self, config, app=None):
        self.config = config
        self.app = app or application.create_app(settings.load(str(config)))
        self.db = self.app.extensions["relay"].db

    def run(self, *words, input=""):
        result = self.app.test_cli_runner().invoke(args=[str(word) for word in words], input=input)
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            result.exception
        )
        return result

    def __call__(self, *words, input="") -> str:
        result = self.run(*words, input=input)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *words):
        return json.loads(self(*words, "--json"))

    def refused(self, *words, status: int = 1, input="") -> str:
        result = self.run(*words, input=input)
        assert result.exit_code == status and result.stdout == "", result.output
        assert status == 2 or len(result.stderr.splitlines()) == 1
        return result.stderr


@pytest.fixture
def operator(tmp_path):
    """The command line on a new file, with alice in it."""
    config = configuration(
        tmp_path, "http://127.0.0.1:9/v1", {"plans": PLANS, "site": {"timezone": "Asia/Shanghai"}}
    )
    someone = Operator(write_config(tmp_path, config))
    someone("user", "add", "alice", "--password", PASSWORD)
    return someone


@pytest.fixture
def beside(relay, fake):
    """The command line beside a server that runs, whose upstream answers every call."""
    fake.always(answer(ANSWER))
    return Operator(relay.config)


# ---- members


def test_it_adds_members_and_administrators(operator):
    operator("user", "add", "carol", "--admin", "--password", PASSWORD)
    listed = operator.json("user", "list")
    assert [(each["name"], each["role"], each["plan"], each["disabled"]) for each in listed] == [
        ("alice", "member", "free", False),
        ("carol", "admin", "free", False),
    ]
    assert list(listed[0]) == ["id", "name", "role", "plan", "disabled", "created_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", listed[0]["created_at"])


def test_a_team_shares_its_wallet(operator):
    assert operator.json("team", "add", "ops")["balance"] == "0"
    operator("team", "credit", "ops", "--wallet", "10", "--note", "November", "--key", "k1")
    operator("team", "credit", "OPS", "--wallet", "10", "--note", "November", "--key", "k1")
    operator("team", "join", "ops", "alice")
    (listed,) = operator.json("team", "list")
    assert list(listed) == ["id", "name", "closed", "members", "balance", "held", "created_at"]
    assert (listed["members"], listed["balance"]) == (1, "10.00")
    has = operator.json("balance", "alice")
    assert has["team"] == {"name": "ops", "balance": "10.00", "held": "0"}
    assert "10.00 in ops" in operator("balance", "alice")
    assert operator.json("team", "show", "ops")["shares"] == [
        {"name": "alice", "inside": True, "calls": 0, "paid": "0"}
    ]
    (entry,) = operator.json("team", "entries", "ops")
    assert (entry["amount"], entry["note"], entry["member"]) == ("10.00", "November", None)
    operator("team", "leave", "alice")
    assert "team" not in operator.json("balance", "alice")
    assert operator.json("team", "close", "ops")["closed"] is True
    assert "closed" in operator.refused("team", "join", "ops", "alice")
    assert operator.json("team", "reopen", "ops")["closed"] is False


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["team", "add", "alice"], "already"),
        (["team", "join", "web", "alice"], "no team 'web'"),
        (["team", "join", "ops", "ops"], "no member 'ops'"),
        (["team", "credit", "ops", "--wallet", "-1"], "available: 0"),
        (["team", "reopen", "ops"], "no such team that is closed"),
        (["user", "disable", "ops"], "no member 'ops'"),
        (["credit", "ops", "--wallet", "1"], "no member 'ops'"),
    ],
)
def test_what_cannot_be_done_to_a_team_is_refused(operator, words, reason):
    operator("team", "add", "ops")
    assert reason in operator.refused(*words)


def test_it_reads_a_password_from_standard_input(operator):
    operator("user", "add", "bob", input=PASSWORD + "\n")
    from members import accounts

    assert accounts.authenticate(operator.db, "bob", PASSWORD)


def test_it_gives_no_sign_up_reward_to_who_is_added(operator):
    assert operator.json("balance", "alice")["grant"] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["user", "add", "Alice", "--password", PASSWORD], "already"),
        (["user", "add", "bob", "--password", "short"], "8 to 128"),
        (["user", "add", "bob"], "8 to 128"),
        (["user", "add", "", "--password", PASSWORD], "1 to 64"),
        (["user", "add", "b\x1bob", "--password", PASSWORD], "visible"),
        (["user", "disable", "nobody"], "no member 'nobody'"),
        (["user", "plan", "alice", "gold"], "there are free, pro"),
        (["balance", "nobody"], "no member"),
        (["token", "add", "nobody", "dev"], "no member"),
        (["token", "add", "alice", ""], "1 to 64"),
        (["token", "add", "alice", "dev", "--model", "gpt"], "no model 'gpt'"),
        (["token", "add", "alice", "dev", "--address", "here"], "here"),
        (["token", "add", "alice", "dev", "--expires", "2001-01-01"], "past"),
        (["token", "revoke", "99"], "no token 99"),
        (["credit", "alice", "--grant", "-1"], "holds 0"),
        (["credit", "alice", "--wallet", "0"], "zero"),
        (["credit", "alice", "--grant", "9" * 30], "absurdly"),
        (["code", "add", "--plan", "gold"], "there are pro"),
        (["code", "add", "--plan", "free"], "no plan"),
        (["code", "revoke", "99"], "no code 99"),
        (["credit", "alice", "--wallet", "1", "--key", "k" * 256], "key"),
    ],
)
def test_it_refuses_in_one_line(operator, words, reason):
    assert reason in operator.refused(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["user"],
        ["user", "add"],
        ["user", "role", "alice", "king"],
        ["credit", "alice"],
        ["credit", "alice", "--wallet", "ten"],
        ["credit", "alice", "--wallet", "1.0000000001"],
        ["credit", "alice", "--wallet", "NaN"],
        ["credit", "alice", "--wallet", "1e3"],
        ["credit", "alice", "--grant", "1.5"],
        ["token", "add", "alice", "dev", "--rpm", "0"],
        ["token", "add", "alice", "dev", "--expires", "soon"],
        ["token", "revoke", "9" * 30],
        ["code", "add"],
        ["code", "add", "--wallet", "1", "--grant", "1"],
        ["code", "add", "--wallet", "1", "--count", "0"],
        ["requests", "--since", "2026-13-01"],
        ["requests", "--outcome", "lost"],
        ["token", "add", "alice", "dev", "--expires", "999999w"],
        ["token", "add", "alice", "dev", "--expires", "9999-12-31"],
        ["code", "add", "--grant", "1", "--expires", "200000d"],
        ["requests", "--json", "--csv"],
        ["requests", "--since", "9" * 40 + "d"],
        ["restore", "nowhere.db"],
    ],
)
def test_what_is_typed_wrongly_ends_with_status_2(operator, words):
    assert operator.run(*words).exit_code == 2


def commands_of(group, path=()):
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands_of(command, (*path, name))


def test_every_command_says_what_it_does(operator):
    for path in commands_of(operator.app.cli):
        command = operator.app.cli
        for name in path:
            command = command.commands[name]
        assert command.help, path
        assert "Usage:" in operator(*path, "--help")


def test_every_command_that_prints_takes_json(operator):
    for path in commands_of(operator.app.cli):
        command = operator.app.cli
        for name in path:
            command = command.commands[name]
        if path[0] not in ("run", "shell", "routes") and not isinstance(command, click.Group):
            assert "--json" in operator(*path, "--help"), path


def test_what_was_done_is_said_as_json(operator, tmp_path):
    operator("user", "add", "carol", "--admin", "--password", PASSWORD)
    operator("token", "add", "alice", "dev")
    operator("code", "add", "--grant", "5")
    assert operator.json("user", "disable", "alice") == {"name": "alice", "disabled": True}
    assert operator.json("user", "enable", "alice") == {"name": "alice", "disabled": False}
    assert operator.json("user", "role", "alice", "admin") == {"name": "alice", "role": "admin"}
    assert operator.json("user", "password", "alice", "--password", PASSWORD) == {"name": "alice"}
    given = operator.json("user", "plan", "alice", "pro", "--renew")
    assert given == {"name": "alice", "plan": "pro", "ends_at": given["ends_at"], "renew": True}
    assert operator.json("user", "plan", "alice", "free") == {"name": "alice", "plan": "free"}
    assert (
        operator.json("token", "revoke", "1") == operator.json("code", "revoke", "1") == {"id": 1}
    )
    copy = tmp_path / "copy.db"
    assert operator.json("backup", copy) == {"file": str(copy), "bytes": copy.stat().st_size}
    assert operator.json("restore", copy, "--yes")["kept"].startswith(str(operator.db.path))


def test_it_shuts_out_and_lets_in_and_keeps_an_administrator(operator):
    operator("user", "add", "carol", "--admin", "--password", PASSWORD)
    operator("user", "disable", "alice")
    assert operator.json("user", "list")[0]["disabled"] is True
    operator("user", "enable", "alice")
    assert operator.json("user", "list")[0]["disabled"] is False
    assert "last administrator" in operator.refused("user", "disable", "carol")
    operator("user", "role", "alice", "admin")
    operator("user", "disable", "carol")


def test_it_gives_a_plan_and_ends_it(operator):
    operator("user", "plan", "alice", "pro", "--days", "7", "--renew")
    assert operator.json("balance", "alice") == {
        "grant": 0,
        "quota": "40.00",
        "wallet": "0",
        "held": {"grant": 0, "quota": "0", "wallet": "0"},
        "plan": "pro",
    }
    operator("user", "plan", "alice", "free")
    assert operator.json("balance", "alice")["quota"] == "0"
    for _ in range(2):  # by the site's months, and once
        given = operator.json("user", "plan", "alice", "pro", "--monthly")
    ends = datetime.fromisoformat(given["ends_at"]).astimezone(ZoneInfo("Asia/Shanghai"))
    assert given["renew"] and (ends.day, ends.hour, ends.minute) == (1, 0, 0)
    assert operator.json("balance", "alice")["quota"] == "40.00"
    refused = operator.refused("user", "plan", "alice", "pro", "--monthly", "--days", "3")
    assert "days: give one of them" in refused
    operator("user", "plan", "alice", "free")
    assert operator.json("user", "list")[0]["plan"] == "free"


def test_free_ends_an_allowance_that_waits_for_its_next_period_too(operator):
    operator("user", "plan", "alice", "pro", "--days", "7", "--renew")
    in_a_month = billing.now_ms() + 30 * 86_400_000
    operator.db.write(
        lambda conn: conn.execute(
            "UPDATE subscriptions SET starts_at = starts_at - 30 * 86400000, ends_at = ends_at - 30 * 86400000"
        )
    )
    operator("user", "plan", "alice", "free")
    assert plans.expire_due(operator.db, in_a_month) == 0
    assert operator.json("balance", "alice")["quota"] == "0" and verify.verify(operator.db) == []


# ---- tokens


def test_a_token_is_printed_alone(operator):
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}\n", operator("token", "add", "alice", "dev"))


def test_tokens_are_listed_without_their_secret(operator):
    raw = operator(
        "token",
        "add",
        "alice",
        "dev",
        "--model",
        "test-model",
        "--rpm",
        "30",
        "--expires",
        "2099-01-31",
    )
    [listed] = operator.json("token", "list", "alice")
    assert listed == {
        "id": 1,
        "name": "dev",
        "hint": listed["hint"],
        "models": ["test-model"],
        "rpm": 30,
        "expires_at": "2099-01-31T15:59:59Z",
        "revoked_at": None,
        "last_used_at": None,
        "calls": 0,
    }
    assert raw.strip() not in operator("token", "list", "alice") + json.dumps(listed)


def test_a_member_holds_only_so_many_tokens(operator):
    for number in range(20):
        operator("token", "add", "alice", f"token {number}")
    assert "20 API keys" in operator.refused("token", "add", "alice", "one more")


def test_a_token_works_and_ends_at_the_very_next_request(beside, relay):
    beside("user", "add", "dave", "--password", PASSWORD)
    token = beside("token", "add", "dave", "dev").strip()
    beside("credit", "dave", "--wallet", "1")
    assert relay.client(token).post(CHAT, HELLO).status == 200
    [listed] = beside.json("token", "list", "dave")
    beside("token", "revoke", listed["id"])
    assert relay.client(token).post(CHAT, HELLO).status == 401
    assert beside.json("token", "list", "dave")[0]["revoked_at"]
    assert "no token" in beside.refused("token", "revoke", listed["id"])


# ---- money


def test_balances_are_decimal_strings_of_full_precision(operator):
    operator("credit", "alice", "--wallet", "10.00", "--grant", "1200", "--note", "welcome")
    shown = operator.json("credit", "alice", "--wallet", "-10.0000125")
    assert shown == {
        "grant": 1200,
        "quota": "0",
        "wallet": "-0.000012500",
        "held": {"grant": 0, "quota": "0", "wallet": "0"},
        "plan": "free",
    }
    assert shown == operator.json("balance", "alice")
    assert "-0.000012500" in operator("balance", "alice")


def test_a_credit_with_a_key_happens_once(operator):
    for _ in range(3):
        operator("credit", "alice", "--wallet", "5", "--grant", "7", "--key", "order-17")
    shown = operator.json("balance", "alice")
    assert (shown["wallet"], shown["grant"]) == ("5.00", 7)
    assert "key" in operator.refused("credit", "alice", "--wallet", "6", "--key", "order-17")


def test_a_credit_into_two_pockets_happens_whole_or_not_at_all(operator):
    before = operator.json("balance", "alice")
    assert "holds 0" in operator.refused("credit", "alice", "--wallet", "10", "--grant", "-5")
    assert "zero" in operator.refused("credit", "alice", "--grant", "5", "--wallet", "0")
    assert operator.json("balance", "alice") == before


def test_no_balance_grows_beyond_what_can_be_counted(operator):
    operator("credit", "alice", "--wallet", "1000000000", "--grant", 10**18)
    assert "absurdly" in operator.refused("credit", "alice", "--wallet", "0.01")
    assert "absurdly" in operator.refused("credit", "alice", "--grant", "1")
    operator("credit", "alice", "--wallet", "-1000000000")
    assert operator.json("balance", "alice")["wallet"] == "0" and verify.verify(operator.db) == []


def test_the_ledger_is_shown_newest_first(operator):
    operator("credit", "alice", "--wallet", "10", "--note", "first")
    operator("credit", "alice", "--grant", "3", "--note", "second")
    shown = operator.json("ledger", "show", "alice")
    assert [
        (each["note"], each["pocket"], each["amount"], each["balance_after"]) for each in shown
    ] == [("second", "grant", 3, 3), ("first", "wallet", "10.00", "10.00")]
    assert [
        each["note"] for each in operator.json("ledger", "show", "alice", "--pocket", "wallet")
    ] == ["first"]
    assert operator.json("ledger", "show", "alice", "--since", "2099-01-01") == []


def test_verify_proves_the_ledger_and_names_what_is_wrong(operator):
    operator("credit", "alice", "--wallet", "10")
    assert operator.json("ledger", "verify") == {"ok": True, "problems": []}
    with sqlite3.connect(operator.db.path) as file:
        file.execute("UPDATE balances SET wallet_balance = wallet_balance + 1")
    file.close()
    result = operator.run("ledger", "verify")
    assert result.exit_code == 1 and "alice" in result.stdout and "wallet" in result.stdout
    result = operator.run("ledger", "verify", "--json")
    assert result.exit_code == 1 and json.loads(result.stdout)["problems"]


@pytest.mark.parametrize(
    ("worth", "pocket", "gained"),
    [
        (["--wallet", "2.50"], "wallet", "2.50"),
        (["--grant", "900"], "grant", 900),
        (["--plan", "pro"], "quota", "40.00"),
    ],
)
def test_codes_are_worth_what_they_were_made_for(operator, worth, pocket, gained):

    made = operator("code", "add", *worth, "--count", "2", "--expires", "30d").split()
    assert len(made) == 2
    codes.redeem(operator.db, 1, made[0])
    assert operator.json("balance", "alice")[pocket] == gained
    second, first = operator.json("code", "list")
    assert (first["redeemed_by"], second["redeemed_by"]) == ("alice", None)
    assert not set(made) & {second["hint"], first["hint"]}
    operator("code", "revoke", second["id"])
    with pytest.raises(codes.CodeRefused):
        codes.redeem(operator.db, 1, made[1])


# ---- calls


SHAPE = [
    "id",
    "created_at",
    "user",
    "token",
    "wire",
    "model",
    "upstream",
    "outcome",
    "status",
    "stream",
    "input_tokens",
    "cached_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "searches",
    "usage_source",
    "cost",
    "upstream_cost",
    "charged",
    "first_byte_ms",
    "duration_ms",
    "attempts",
]


def test_calls_are_listed_newest_first_in_the_documented_shape(beside, relay, alice, bob):
    first, second = alice.post(CHAT, HELLO), bob.post(CHAT, HELLO | {"stream": True})
    assert (first.status, second.status) == (200, 200)
    newest, oldest = wait_until(
        lambda: (
            [each for each in beside.json("requests") if each["outcome"]]
            if len(beside.json("requests")) == 2
            else None
        )
    )
    assert list(newest) == SHAPE
    assert (newest["user"], oldest["user"]) == ("bob", "alice")
    assert (
        oldest["id"] == first.request_id
        and oldest["outcome"] == "complete"
        and oldest["upstream"] == "fake"
    )
    assert oldest["cost"] == "0.000092000"  # 10 at 2 yuan and 9 at 8 yuan per million
    assert oldest["charged"] == {"grant": 0, "quota": "0", "wallet": "0.000092000"}
    assert (oldest["stream"], newest["stream"]) == (False, True)
    assert oldest["attempts"][0]["status"] == 200
    assert [each["user"] for each in beside.json("requests", "alice")] == ["alice"]
    assert beside.json("requests", "--since", "2099-01-01") == []
    assert len(beside.json("requests", "--since", "1h", "--limit", "1")) == 1
    assert datetime.fromisoformat(oldest["created_at"]).tzinfo == UTC


def test_long_listings_are_read_page_by_page(beside, alice, monkeypatch):
    monkeypatch.setattr(call_rows, "BATCH", 2)
    for _ in range(5):
        alice.post(CHAT, HELLO)
    assert len(beside.json("requests")) == 5
    assert len(beside.json("requests", "--limit", "3")) == 3


def test_no_text_of_a_call_becomes_a_formula_or_steers_a_terminal(beside, alice):
    for model in ("=1+1", "\x1b[31mred"):
        assert alice.post(CHAT, HELLO | {"model": model}).status == 404
    rows = list(csv.DictReader(io.StringIO(beside("requests", "--csv"))))
    assert {row["model"] for row in rows} == {"'=1+1", "\x1b[31mred"}
    assert rows[0]["charged_wallet"] == "0" and rows[0]["status"] == "404"
    assert "\x1b" not in beside("requests")


# ---- the file


def test_a_backup_under_load_is_whole(beside, relay, alice, tmp_path):
    done = threading.Event()

    def load():
        while not done.is_set():
            alice.post(CHAT, HELLO)

    callers = [threading.Thread(target=load) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        wait_until(lambda: len(relay.rows()) > 10)
        beside("backup", tmp_path / "copy.db")
    finally:
        done.set()
        for caller in callers:
            caller.join()
    copy = Database(tmp_path / "copy.db", writer=False)
    billing.release_orphans(copy)
    assert verify.verify(copy) == []
    assert copy.read().execute("SELECT count(*) FROM requests").fetchone()[0] >= 10
    copy.close()


def test_a_restored_file_is_in_force_at_once_while_the_server_runs(beside, relay, alice, tmp_path):
    beside("backup", tmp_path / "copy.db")
    alice.given(wallet="90")
    said = beside("restore", tmp_path / "copy.db", "--yes")
    assert "kept as" in said
    assert beside.json("balance", "alice")["wallet"] == "10.00"
    assert alice.post(CHAT, HELLO).status == 200
    assert relay.ledger_is_right()


def test_restore_asks_and_says_what_is_in_force_and_what_comes(
    beside, relay, alice, tmp_path, fake
):
    fake.always(plain(usage(20, 10)))
    copy = tmp_path / "copy.db"
    beside("backup", copy)
    assert alice.chat().status == 200
    refused = flask(relay.config, "restore", str(copy))
    assert refused.returncode == 1 and "--yes" in refused.stderr
    assert len(relay.rows()) == 1, "nothing happened"
    done = flask(relay.config, "restore", str(copy), "--yes")
    assert done.returncode == 0
    assert "in force:" in done.stdout and "to come:" in done.stdout
    assert "1 calls are only in the file in force" in done.stdout
    assert relay.rows() == []
    (row,) = (
        relay.db.read()
        .execute("SELECT detail FROM audit WHERE action = 'database.restore'")
        .fetchall()
    )
    assert "copy.db" in row[0]


@pytest.mark.parametrize("keep", [True, False])
def test_tokens_revoked_or_renewed_since_the_backup_stay_so(
    beside, relay, alice, bob, tmp_path, fake, keep
):
    fake.always(plain(usage(20, 10)))
    copy = tmp_path / "copy.db"
    (mine,), (his,) = (tokens.tokens(relay.db, who.id) for who in (alice, bob))
    gone = accounts.add(relay.db, "gone", "a-good-password")
    beside("backup", copy)
    accounts.disable(relay.db, gone.id)
    tokens.revoke(relay.db, mine["id"])
    fresh = tokens.rotate(relay.db, bob.id, his["id"])
    more = [] if keep else ["--no-keep-revoked"]
    said = json.loads(flask(relay.config, "restore", str(copy), "--yes", "--json", *more).stdout)
    assert said["revoked_kept"] == (2 if keep else 0)
    assert said["disabled_kept"] == (1 if keep else 0)
    assert accounts.find(relay.db, gone.id).disabled is keep
    assert alice.chat().status == (401 if keep else 200)
    assert bob.chat().status == (401 if keep else 200)
    assert relay.client(fresh).chat().status == (200 if keep else 401)


def test_restore_refuses_a_damaged_file_and_keeps_the_old_one(operator, tmp_path):
    operator("credit", "alice", "--wallet", "10")
    operator("backup", tmp_path / "copy.db")
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        copy.execute("UPDATE balances SET wallet_balance = 99 * 1000000000")
    copy.close()
    assert "wrong" in operator.refused("restore", tmp_path / "copy.db", "--yes")
    (tmp_path / "noise.db").write_bytes(b"SQLite format 3\0" + b"noise" * 5000)
    operator.refused("restore", tmp_path / "noise.db", "--yes")
    (tmp_path / "empty.db").write_bytes(b"")
    operator.refused("restore", tmp_path / "empty.db", "--yes")
    operator.refused("restore", operator.db.path, "--yes")
    assert operator.json("balance", "alice")["wallet"] == "10.00"


DOCTORED = {
    "a code is unused again": (
        "UPDATE codes SET redeemed_at = NULL, redeemed_by = NULL",
        "codes for the wallet that were redeemed",
    ),
    "the trail is emptied": ("DELETE FROM audit", "in the audit trail"),
    "a row of the trail is gone": (
        "DELETE FROM audit WHERE id = (SELECT max(id) - 1 FROM audit)",
        "the audit trail",
    ),
    "money came from nowhere": (
        """INSERT INTO entries (user_id, pocket, kind, amount, balance_after, created_at)
           VALUES (1, 'wallet', 'adjust', 5, 15000000005, 1)""",
        "it has no row in the audit trail",
    ),
}


@pytest.mark.parametrize("how", DOCTORED)
def test_a_backup_that_somebody_has_doctored_is_refused_by_name(operator, tmp_path, how):
    operator("credit", "alice", "--wallet", "10")
    (made,) = operator.json("code", "add", "--wallet", "5")
    codes.redeem(operator.db, 1, made)
    operator("credit", "alice", "--grant", "10")
    operator("backup", tmp_path / "copy.db")
    statement, words = DOCTORED[how]
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        laws = copy.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for name, _ in laws:
            copy.execute(f"DROP TRIGGER {name}")
        copy.execute(statement)
        if "entries" in statement:
            copy.execute("UPDATE balances SET wallet_balance = wallet_balance + 5")
        for _, law in laws:
            copy.execute(law)
        copy.commit()
    assert words in operator.refused("restore", tmp_path / "copy.db", "--yes")
    assert operator.json("balance", "alice")["wallet"] == "15.00"


def test_restore_says_which_codes_can_be_redeemed_again(operator, tmp_path):
    (made,) = operator.json("code", "add", "--wallet", "5")
    operator("backup", tmp_path / "copy.db")
    codes.redeem(operator.db, 1, made)
    said = operator("restore", tmp_path / "copy.db", "--yes")
    assert "1 codes that were redeemed can be redeemed again" in said
    assert "codes redeemed 1" in said and "audit rows" in said


def test_backup_refuses_where_it_cannot_write(operator, tmp_path):
    operator.refused("backup", tmp_path / "no" / "such" / "folder.db")
    operator.refused("backup", operator.db.path)
    operator.refused("backup", "")
    pipe = tmp_path / "pipe"  # as /dev/stdout, in whose place root would put a file
    os.mkfifo(pipe)
    operator.refused("backup", pipe)
    assert pipe.is_fifo()
    operator.refused("restore", pipe, "--yes")


def test_restore_mends_a_file_that_cannot_be_opened(operator, tmp_path):
    operator("credit", "alice", "--wallet", "10")
    operator("backup", tmp_path / "copy.db")
    operator.db.close()
    for end in ("", "-wal", "-shm"):
        operator.db.path.with_name(operator.db.path.name + end).unlink(missing_ok=True)
    operator.db.path.write_bytes(b"this was a database" * 1000)
    broken = flask(operator.config, "user", "list")
    assert broken.returncode == 1 and "Traceback" not in broken.stderr and broken.stdout == ""
    mended = flask(operator.config, "restore", str(tmp_path / "copy.db"), "--yes")
    assert mended.returncode == 0, mended.stderr
    assert '"wallet": "10.00"' in flask(operator.config, "balance", "alice", "--json").stdout


# ---- the settings


def test_config_check_says_what_follows_from_the_settings(operator):
    assert operator.json("config", "check") == {
        "ok": True,
        "mistakes": [],
        "demo": False,
        "models": ["test-model"],
        "upstreams_without_key": [],
    }


def test_config_check_names_every_mistake_with_its_key(operator, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text('[server]\nport = "x"\nthread = 3\n[plans.free]\ndiscount = "2"\n')
    result = operator.run("config", "check", bad)
    assert result.exit_code == 1
    for key in ("server.port", "server.thread", "plans.free.discount"):
        assert re.search(rf"^{re.escape(key)}: ", result.stdout, re.M), result.stdout


def test_a_bad_file_in_force_is_said_in_lines_and_not_in_a_traceback(operator):
    operator.config.write_text('[server]\nport = "x"\nthread = 3\n')
    for words in (["config", "check"], ["user", "list"], ["--help"]):
        done = flask(operator.config, *words)
        assert done.returncode == 1
        assert "server.port: " in done.stderr and "server.thread: " in done.stderr
        assert "Traceback" not in done.stderr + done.stdout


def test_upstreams_are_listed_with_their_state_and_without_their_keys(relay_process, person):
    alice = person("alice", relay_process).given(wallet="1")
    alice.post(CHAT, HELLO)  # the fake has no script: it hangs up
    operator = Operator(relay_process.config)
    [listed] = wait_until(lambda: [each for each in operator.json("upstreams") if each["failed"]])
    assert (listed["name"], listed["speaks"], listed["keys"], listed["state"]) == (
        "fake",
        ["chat"],
        1,
        "ok",
    )
    assert listed["last_error"] == "upstream_error" and listed["last_error_at"].endswith("Z")
    assert "sk-upstream-secret" not in operator("upstreams") + json.dumps(listed)


def test_upstreams_are_listed_when_no_relay_serves(operator):
    result = operator.run("upstreams", "--json")
    assert json.loads(result.stdout)[0]["state"] is None
    assert "No relay serves" in result.stderr


def test_reload_lets_the_relay_that_serves_read_its_settings_again(relay_process, person):
    alice = person("alice", relay_process)
    changed = relay_process.config.read_text().replace('"test-model"', '"renamed-model"')
    relay_process.config.write_text(changed)
    assert flask(relay_process.config, "reload").returncode == 0
    wait_until(
        lambda: (
            [each["id"] for each in alice.get("/api/v1/models").json["data"]] == ["renamed-model"]
        )
    )


def test_reload_is_refused_when_no_relay_serves(operator):
    assert "no relay serves" in operator.refused("reload")


def test_commands_run_in_a_process_of_their_own(operator):
    done = flask(operator.config, "balance", "alice", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["plan"] == "free"


def test_a_reader_that_leaves_early_sees_no_traceback(operator, monkeypatch):
    from commands import shown

    def leave(*_args, **_options):
        raise BrokenPipeError

    monkeypatch.setattr(shown, "click", SimpleNamespace(echo=leave))
    assert operator.run("balance", "alice", "--json").exit_code == 1
