"""The administrators' API: who may, what it does, and that it does what the command line does."""

import json

import pytest

import billing
import plans
from billing import nano
from members import accounts, audit, credit_requests, tokens
from tests.client import CHAT, ask, assert_openai_error
from tests.providers import plain, usage
from tests.stage import flask

ADMIN = "/api/v1/admin"


@pytest.fixture
def desk(relay, carol):
    """A client with a token of the administrator's for this API."""
    _id, raw = tokens.mint(relay.db, carol.id, "desk", scope="admin")
    return relay.client(raw)


def read(desk, path):
    answer = desk.get(ADMIN + path)
    assert answer.status == 200, answer.body
    return answer.json


def do(desk, method, path, body=None, status=200, **headers):
    answer = desk.call(method, ADMIN + path, body, **headers)
    assert answer.status == status, answer.body
    return answer.json


# ---- who may


PATHS = [
    "/members",
    "/calls",
    "/upstreams",
    "/credit-requests",
    "/usage?from=2026-01-01&to=2026-01-02",
]


@pytest.mark.parametrize("path", PATHS)
def test_it_opens_for_an_administrators_token_with_the_scope_only(relay, alice, carol, desk, path):
    assert desk.get(ADMIN + path).status == 200
    assert relay.client().get(ADMIN + path).status == 401
    for other in (alice, carol):
        assert_openai_error(other.get(ADMIN + path), 403, "admin_scope_needed")
    accounts.set_role(relay.db, alice.id, "admin")
    _id, raw = tokens.mint(relay.db, alice.id, "no administrator's", scope="admin")
    accounts.set_role(relay.db, alice.id, "member")
    assert_openai_error(relay.client(raw).get(ADMIN + path), 403, "admin_scope_needed")


def test_it_closes_when_its_holder_is_no_administrator_any_more(relay, carol, desk):
    other = accounts.add(relay.db, "dora", "correct horse battery", role="admin")
    accounts.set_role(relay.db, carol.id, "member")
    assert_openai_error(desk.get(f"{ADMIN}/members"), 403, "admin_scope_needed")
    assert other.role == "admin"


def test_its_token_makes_no_calls(desk, fake):
    fake.always(plain(usage(20, 10)))
    assert_openai_error(desk.post(CHAT, ask()), 403, "model_not_allowed")


# ---- what it does


def test_a_member_is_made_given_money_bound_and_shut_out(relay, desk):
    made = do(desk, "POST", "/members", {"name": "dora", "password": "a-good-password"}, 201)
    path = f"/members/{made['id']}"
    found = do(desk, "POST", f"{path}/credit", {"wallet": "12.50", "grant": 1000, "note": "start"})
    assert found["balance"] == {"grant": 1000, "quota": "0", "wallet": "12.50"}
    bound = do(desk, "PUT", f"{path}/caps", {"day": "5", "models": ["test-model"]})
    limits = {"day": "5.00", "month": None, "models": ["test-model"]}
    assert bound["caps"] == limits | {"day_used": "0", "month_used": None}
    token = do(desk, "POST", f"{path}/tokens", {"name": "laptop", "rpm": 5, "cap_day": "1"}, 201)
    assert relay.client(token["token"]).get("/v1/models").status == 200
    (listed,) = read(desk, f"{path}/tokens")["data"]
    assert (listed["name"], listed["rpm"], listed["cap_day"]) == ("laptop", 5, "1.00")
    do(desk, "DELETE", f"{path}/tokens/{token['id']}")
    assert relay.client(token["token"]).get("/v1/models").status == 401
    assert do(desk, "PATCH", path, {"disabled": True})["disabled"] is True
    trail = [each["action"] for each in audit.trail(relay.db)]
    assert {"member.add", "ledger.top_up", "user.cap", "token.revoke", "member.disable"} <= set(
        trail
    )
    assert relay.ledger_is_right()


def test_where_passwords_are_off_none_is_made_or_set(start_relay, person):
    rules = {"issuer": "https://sso.example.com", "client_id": "relay", "passwords": False}
    relay = start_relay(sign_in=rules)
    carol, alice = person("carol", relay), person("alice", relay)
    _id, raw = tokens.mint(relay.db, carol.id, "desk", scope="admin")
    desk = relay.client(raw)
    for method, path, body in (
        ("POST", "/members", {"name": "dora", "password": "a-good-password"}),
        ("PATCH", f"/members/{alice.id}", {"password": "a-good-password", "disabled": True}),
        ("PATCH", f"/members/{alice.id}", {"new_password": True}),
    ):
        said = do(desk, method, path, body, 400)
        assert "Passwords sign nobody in here" in said["error"]["message"]
        assert said["error"]["param"] == list(body)[-1] or said["error"]["param"] == "password"
    assert not accounts.find(relay.db, alice.id).disabled
    made = do(desk, "POST", "/members", {"name": "dora"}, 201)
    assert "password" not in made and not accounts.has_password(relay.db, made["id"])


def test_what_is_sent_twice_with_a_key_is_done_once(relay, alice, desk):
    path, key = f"/members/{alice.id}/credit", {"idempotency_key": "k-1"}
    for _ in range(2):
        do(desk, "POST", path, {"wallet": "5"}, **key)
    assert alice.balance().wallet == nano("15")
    do(desk, "POST", path, {"wallet": "6"}, 400, **key)
    assert alice.balance().wallet == nano("15")


def test_a_plan_is_given_and_ended(start_relay, person, fake):
    relay = start_relay(plans={"pro": {"price": "10", "quota": "20", "requests_per_minute": 600}})
    carol, alice = person("carol", relay), person("alice", relay)
    _id, raw = tokens.mint(relay.db, carol.id, "desk", scope="admin")
    desk, path = relay.client(raw), f"/members/{alice.id}/plan"
    for _ in range(2):
        found = do(desk, "POST", path, {"plan": "pro", "days": 3}, idempotency_key="k")
    assert (found["plan"], found["balance"]["quota"]) == ("pro", "20.00")
    assert do(desk, "POST", path, {"plan": "free"})["plan"] == "free"
    do(desk, "POST", path, {"plan": "gold"}, 400)
    for _ in range(2):
        found = do(desk, "POST", path, {"plan": "pro", "monthly": True})
    (held,) = plans.active(relay.db, alice.id)
    assert held.renew and held.months_of == "Asia/Shanghai" and found["balance"]["quota"] == "20.00"


def test_calls_and_usage_are_read_page_by_page(relay, alice, bob, desk, fake):
    fake.always(plain(usage(20, 10)))
    ids = [who.chat().request_id for who in (alice, bob, alice)]
    first = read(desk, "/calls?limit=2")
    rest = read(desk, f"/calls?limit=2&after={first['next']}")
    assert [each["id"] for each in (*first["data"], *rest["data"])] == ids[::-1]
    assert rest["next"] is None
    assert {each["user"] for each in read(desk, f"/calls?member={bob.id}")["data"]} == {"bob"}
    found = read(desk, "/usage?from=2026-01-01&to=2999-01-01")["data"]
    assert [(each["member"], each["calls"]) for each in found] == [("alice", 2), ("bob", 1)]


def test_members_are_read_page_by_page_and_by_name(relay, alice, bob, carol, desk):
    seen, after = [], 0
    while after is not None:
        page = read(desk, f"/members?limit=1&after={after}")
        seen += [each["name"] for each in page["data"]]
        after = page["next"]
    assert seen == [each.name for each in accounts.members(relay.db)]
    assert [each["name"] for each in read(desk, "/members?name=ali")["data"]] == ["alice"]


def test_requests_for_credit_are_decided_once(relay, bob, desk):
    made = credit_requests.ask(relay.db, bob.id, nano("5"), "please")
    (listed,) = read(desk, "/credit-requests")["data"]
    assert (listed["name"], listed["amount"], listed["note"]) == ("bob", "5.00", "please")
    path = f"/credit-requests/{made.id}"
    do(desk, "POST", path, {}, 400)
    assert do(desk, "POST", path, {"amount": "3", "reason": "half"})["given"] == "3.00"
    do(desk, "POST", path, {"decline": True}, 400)
    assert bob.balance().wallet == nano("13")


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("POST", "/members", {"password": "a-good-password"}),
        ("POST", "/members", {"name": "", "password": "a-good-password"}),
        ("POST", "/members", {"name": "x", "password": "a-good-password", "admin": True}),
        ("POST", "/members", b"no json"),
        ("POST", "/members/1/credit", {}),
        ("POST", "/members/1/credit", {"wallet": "ten"}),
        ("POST", "/members/1/credit", {"wallet": 5}),
        ("PUT", "/members/1/caps", {"day": "-1"}),
        ("PUT", "/members/1/caps", {"models": ["gpt-9"]}),
        ("POST", "/members/1/tokens", {"name": "x", "expires_at": "tomorrow"}),
        ("PATCH", "/members/1", {"role": "king"}),
        ("GET", "/usage", None),
        ("GET", "/usage?from=x&to=y", None),
        ("GET", "/calls?since=yesterday", None),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_done(relay, desk, method, path, body):
    before = audit.trail(relay.db)
    answer = desk.call(method, ADMIN + path, body)
    assert answer.status == 400 and answer.json["error"]["message"], answer.body
    assert audit.trail(relay.db) == before


@pytest.mark.parametrize(
    "method, path",
    [("GET", "/members/999"), ("DELETE", "/members/1/tokens/999"), ("GET", "/nowhere")],
)
def test_what_is_not_there_is_not_found(desk, method, path):
    assert desk.call(method, ADMIN + path).status == 404


def test_it_says_what_the_command_line_says(relay, alice, desk):
    found = read(desk, f"/members/{alice.id}")
    said = json.loads(flask(relay.config, "balance", "alice", "--json").stdout)
    assert said["wallet"] == found["balance"]["wallet"] and said["plan"] == found["plan"]
    (listed,) = (
        each
        for each in json.loads(flask(relay.config, "user", "list", "--json").stdout)
        if each["name"] == "alice"
    )
    assert listed == {name: found[name] for name in listed}
    assert billing.verify(relay.db) == []


# ---- what is refused leaves nothing behind


@pytest.mark.parametrize(
    "body, param",
    [
        ({"role": "admin", "password": "x"}, "password"),
        ({"role": "admin", "password": ""}, "password"),
        ({"disabled": True, "password": ""}, "password"),
        ({"role": "admin", "password": "a-good-password", "new_password": True}, "new_password"),
    ],
)
def test_a_change_of_a_member_that_is_refused_changes_nothing(relay, alice, desk, body, param):
    before, path = audit.trail(relay.db), f"/members/{alice.id}"
    assert do(desk, "PATCH", path, body, 400)["error"]["param"] == param
    found = read(desk, path)
    assert (found["role"], found["disabled"]) == ("member", False)
    assert audit.trail(relay.db) == before


def test_the_last_administrator_keeps_role_and_password(relay, carol, desk):
    before = audit.trail(relay.db)
    for body in ({"role": "member"}, {"disabled": True}):
        asked = {"password": "another-password"} | body
        do(desk, "PATCH", f"/members/{carol.id}", asked, 400)
    assert not accounts.password_is(relay.db, carol.id, "another-password")
    assert audit.trail(relay.db) == before


def test_a_new_member_has_no_empty_password(relay, desk):
    said = do(desk, "POST", "/members", {"name": "dora", "password": ""}, 400)
    assert said["error"]["param"] == "password"
    assert accounts.named(relay.db, "dora") is None


def test_a_team_is_no_member(relay, desk):
    """Teams and members are accounts of one table."""
    team = do(desk, "POST", "/teams", {"name": "ops"}, 201)["id"]
    row = "SELECT * FROM users WHERE id = ?"
    before, trail = tuple(relay.db.one(row, (team,))), audit.trail(relay.db)
    for method, path, body in (
        ("PATCH", "", {"disabled": True}),
        ("DELETE", "/sessions", None),
        ("POST", "/invite", {}),
        ("POST", "/tokens", {"name": "x"}),
        ("POST", "/credit", {"wallet": "1"}),
        ("PUT", "/caps", {"day": "1"}),
    ):
        do(desk, method, f"/members/{team}{path}", body, 404)
    for act in (accounts.end_sessions, accounts.renew_invite, accounts.disable):
        with pytest.raises(billing.Unknown):
            act(relay.db, team)
    assert tuple(relay.db.one(row, (team,))) == before and audit.trail(relay.db) == trail


def test_a_key_for_this_api_is_for_administrators(relay, alice, carol, desk):
    before = audit.trail(relay.db)
    path, asked = f"/members/{alice.id}/tokens", {"name": "x", "scope": "admin"}
    refused = do(desk, "POST", path, asked, 400)["error"]
    assert refused["param"] == "scope" and "Only an administrator" in refused["message"]
    typed = flask(relay.config, "token", "add", "alice", "x", "--admin", check=False)
    assert typed.returncode == 1 and "Only an administrator" in typed.stderr
    assert audit.trail(relay.db) == before
    do(desk, "POST", f"/members/{carol.id}/tokens", asked, 201)


def test_a_team_is_credited_with_a_kind_by_api_and_command(relay, desk):
    team = do(desk, "POST", "/teams", {"name": "ops"}, 201)["id"]
    for kind in ("top_up", "refund", "reward", "adjust"):
        do(desk, "POST", f"/teams/{team}/credit", {"wallet": "2", "kind": kind})
    before = audit.trail(relay.db)
    for kind in ("top_up", "refund", "reward"):
        asked = {"wallet": "-1", "kind": kind}
        assert do(desk, "POST", f"/teams/{team}/credit", asked, 400)["error"]["param"] == "kind"
    credit = ("team", "credit", "ops", "--wallet", "-1", "--kind")
    typed = flask(relay.config, *credit, "refund")
    assert typed.returncode == 1 and "only a correction" in typed.stderr
    assert audit.trail(relay.db) == before
    assert flask(relay.config, *credit, "adjust").returncode == 0
    kinds = [each["kind"] for each in read(desk, f"/teams/{team}/entries")["data"]]
    assert kinds == ["adjust", "adjust", "reward", "refund", "top_up"]


def test_a_members_credit_has_a_kind_at_the_command_line(relay, alice):
    credit = ("credit", "alice", "--kind")
    assert flask(relay.config, *credit, "refund", "--wallet", "1").returncode == 0
    typed = flask(relay.config, *credit, "refund", "--wallet", "-1")
    assert typed.returncode == 1 and "only a correction" in typed.stderr


def test_days_of_a_team_that_end_before_they_begin_are_refused(desk):
    team = do(desk, "POST", "/teams", {"name": "ops"}, 201)["id"]
    path = f"/teams/{team}/members?first=2026-12-01&last=2026-11-01"
    assert do(desk, "GET", path, None, 400)["error"]["param"] == "first"


# ---- what is wrong is named; what is sent twice is done once


@pytest.mark.parametrize(
    "method, path, body, param",
    [
        ("GET", "/members?limit=0", None, "limit"),
        ("GET", "/members?limit=many", None, "limit"),
        ("GET", "/members?limit=99999", None, "limit"),
        ("GET", "/members?after=x", None, "after"),
        ("GET", f"/members?after={10**30}", None, "after"),
        ("GET", "/members?state=king", None, "state"),
        ("GET", "/members?naem=x", None, "naem"),
        ("GET", "/calls?after=7", None, "after"),
        ("GET", "/calls?since=yesterday", None, "since"),
        ("GET", "/calls?member=alice", None, "member"),
        ("GET", "/calls?outcome=splendid", None, "outcome"),
        ("GET", "/usage?to=2026-01-01", None, "from"),
        ("GET", "/usage?from=2026-01-01&to=2026-01-02&by=colour", None, "by"),
        ("GET", "/usage?from=2026-01-01&to=2026-01-02&by=upstream,member", None, "by"),
        ("GET", "/usage?from=2026-01-01&to=2026-01-02&after=x", None, "after"),
        ("GET", "/members/1/entries?pocket=purse", None, "pocket"),
        ("GET", "/audit?after=-1", None, "after"),
        ("GET", "/upstreams/fake/bill?month=13-2026", None, "month"),
        ("POST", "/members", {"name": "x", "role": "king"}, "role"),
        ("POST", "/members/1/credit", {"wallet": "ten"}, "wallet"),
        ("POST", "/members/1/credit", {"grant": "ten"}, "grant"),
        ("PUT", "/members/1/caps", {"month": "much"}, "month"),
        ("PUT", "/members/1/caps", {"models": ["gpt-9"]}, "models"),
        ("POST", "/members/1/plan", {"plan": "gold"}, "plan"),
        ("POST", "/members/1/tokens", {"name": "x", "rpm": 0}, "rpm"),
        ("POST", "/members/1/tokens", {"name": "x", "models": ["gpt-9"]}, "models"),
        ("POST", "/members/1/tokens", {"name": "x", "expires_at": "tomorrow"}, "expires_at"),
        ("POST", "/members/1/tokens", {"name": "x", "addresses": ["here"]}, "addresses"),
        ("POST", "/members/1/credit", {"wallet": "-1", "kind": "top_up"}, "kind"),
        ("POST", "/members/1/credit", {"grant": -1, "kind": "reward"}, "kind"),
        ("PUT", "/members/1/caps", {"day": "-1"}, "day"),
        ("GET", "/members/1/entries?kind=zz", None, "kind"),
        ("GET", "/teams/1/entries?kind=zz", None, "kind"),
        ("POST", "/members", {"name": "x", "password": "short"}, "password"),
        ("POST", "/teams", {"name": "ALICE"}, "name"),
        ("POST", "/teams", {"name": "x" * 65}, "name"),
        ("POST", "/codes", {"wallet": "1", "grant": 5}, "wallet"),
        ("POST", "/codes", {"wallet": "1", "count": 0}, "count"),
        ("POST", "/codes", {"plan": "gold"}, "plan"),
        ("POST", "/upstreams", {"preset": "acme", "key": "k"}, "preset"),
        ("POST", "/upstreams", {"base_url": "https://api.example.com/v1"}, "key"),
        ("POST", "/models/prices", {"models": ["gpt-9"]}, "models"),
        ("POST", "/upstreams/fake/test", {"model": 5}, "model"),
    ],
)
def test_what_is_wrong_is_named(relay, alice, desk, method, path, body, param):
    before = audit.trail(relay.db)
    answer = desk.call(method, ADMIN + path, body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]["param"] == param, answer.body
    assert audit.trail(relay.db) == before


@pytest.mark.parametrize(
    "method, path, body",
    [
        ("GET", "/members/999", None),
        ("GET", f"/members/{10**30}", None),
        ("DELETE", "/members/999/sessions", None),
        ("POST", "/members/999/invite", {}),
        ("GET", "/members/999/invited", None),
        ("GET", "/members/999/tokens", None),
        ("PATCH", "/members/1/tokens/999", {}),
        ("POST", "/members/1/tokens/999/rotate", {}),
        ("GET", "/members/999/entries", None),
        ("GET", "/members/999/subscriptions", None),
        ("PATCH", "/members/1/subscriptions/999", {"renew": False}),
        ("DELETE", "/members/1/subscriptions/999", None),
        ("POST", "/credit-requests/999", {"decline": True}),
        ("GET", "/teams/1", None),
        ("PUT", "/teams/999/members/1", None),
        ("DELETE", "/teams/999/members/1", None),
        ("POST", "/teams/999/credit", {"wallet": "1"}),
        ("PATCH", "/teams/999", {"closed": True}),
        ("DELETE", "/codes/999", None),
        ("GET", "/calls/req_999", None),
        ("GET", "/upstreams/nobody", None),
        ("POST", "/upstreams/nobody/test", {}),
        ("GET", "/upstreams/nobody/bill", None),
        ("PUT", "/upstreams/nobody/key", {"key": "k"}),
    ],
)
def test_an_id_that_nothing_has_is_not_found(desk, method, path, body):
    assert_openai_error(desk.call(method, ADMIN + path, body), 404, "not_found")


@pytest.mark.parametrize(
    "path, body, other",
    [
        ("/members/{alice}/tokens", {"name": "ci"}, {"name": "cd"}),
        ("/codes", {"wallet": "5", "count": 2}, {"wallet": "6", "count": 2}),
    ],
)
def test_secrets_are_made_once_for_a_key(relay, alice, desk, path, body, other):
    path, key = path.format(alice=alice.id), {"idempotency_key": "k-1"}
    made = do(desk, "POST", path, body, 201, **key)
    for again in (body, other):
        answer = do(desk, "POST", path, again, 400, **key)
        assert answer["error"]["code"] == "idempotency_key_used"
        assert answer["error"]["param"] == "Idempotency-Key"
    assert sum(each["name"] == "ci" for each in tokens.tokens(relay.db, alice.id)) <= 1
    assert len(read(desk, "/codes")["data"]) == len(made.get("codes", ()))


def test_a_key_that_is_too_long_is_refused_and_not_cut(relay, alice, desk):
    """Two long keys with the same begin would else be one."""
    path = f"/members/{alice.id}/credit"
    said = do(desk, "POST", path, {"wallet": "1"}, 400, idempotency_key="k" * 256)
    assert said["error"]["param"] == "Idempotency-Key"
    do(desk, "POST", path, {"wallet": "1"}, 200, idempotency_key="k" * 255)


def test_every_list_goes_on_where_it_ended(relay, alice, bob, carol, desk, fake):
    fake.always(plain(usage(20, 10)))
    for who in (alice, bob):
        who.chat()
        for name in ("one", "two"):
            tokens.mint(relay.db, who.id, name)
        billing.credit(relay.db, who.id, "wallet", nano("1"))
    do(desk, "POST", "/codes", {"grant": 5, "count": 3}, 201)
    days = "from=2026-01-01&to=2199-12-31&by=member,token,model"
    for path in (
        "/members?",
        f"/members/{alice.id}/tokens?",
        f"/members/{alice.id}/entries?",
        "/codes?",
        "/calls?",
        "/audit?",
        "/presets?",
        "/settings?",
        "/plans?",
        f"/usage?{days}&",
    ):
        whole, seen, after = read(desk, f"{path}limit=1000")["data"], [], ""
        assert len(whole) > 1 or path == "/plans?", path
        while after is not None:
            found = read(desk, f"{path}limit=1{after and f'&after={after}'}")
            seen += found["data"]
            after = found["next"]
        assert seen == whole, path


def test_a_day_is_the_sites(relay, alice, desk, fake):
    """Shanghai's midnight is four in the afternoon in London the day before."""
    made = do(
        desk, "POST", f"/members/{alice.id}/tokens", {"name": "x", "expires_at": "2199-06-30"}, 201
    )
    (found,) = (
        each
        for each in read(desk, f"/members/{alice.id}/tokens")["data"]
        if each["id"] == made["id"]
    )
    assert found["expires_at"] == "2199-06-30T15:59:59Z"
