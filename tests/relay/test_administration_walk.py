"""The administrators' API from one end to the other: every address answers as its document says.

One relay, one administrator's token, and a walk over all addresses; an address that is missing from
the walk fails it. Changes are in the audit trail by who made them.
"""

import re

import pytest

from members import audit, credit_requests, tokens
from relay.administration import ADDRESSES, PREFIX
from tests.fake_upstream import FakeUpstream
from tests.json_schema import wrong
from tests.open_provider import KEY, provider
from tests.providers import plain, usage
from tests.stage import free_port

PLANS = {
    "free": {"requests_per_minute": 60_000, "input_tokens_max": 1_000_000},
    "pro": {"title": "Pro", "price": "10", "quota": "20", "requests_per_minute": 600},
}
PRIVATE = {"base_url": "", "name": "north", "key": KEY, "private": True}
# What is done, in this order: method, path, body, status. A name in <> is what an earlier answer
# had: `keep` says under which name.
WALK = [
    ("POST", "/members", {"name": "dora", "reward": True}, 201),
    ("GET", "/members?name=OR&state=active&limit=5", None, 200),
    ("GET", "/members/<alice>", None, 200),
    ("PATCH", "/members/<alice>", {"role": "admin", "new_password": True, "disabled": False}, 200),
    ("PATCH", "/members/<alice>", {"role": "member"}, 200),
    ("DELETE", "/members/<alice>/sessions", None, 200),
    ("POST", "/members/<alice>/identities", {"issuer": "https://id", "subject": "a1"}, 200),
    ("GET", "/members/<alice>/identities", None, 200),
    ("DELETE", "/members/<alice>/identities?issuer=https://id&subject=a1", None, 200),
    ("GET", "/members/<alice>/invite", None, 200),
    ("POST", "/members/<alice>/invite", {"uses": 3, "days": 7}, 200),
    ("GET", "/members/<carol>/invited", None, 200),
    ("GET", "/members/<alice>/tokens?limit=1", None, 200),
    ("POST", "/members/<alice>/tokens", {"name": "ci", "expires_at": "2199-12-31"}, 201),
    ("PATCH", "/members/<alice>/tokens/<token>", {"rpm": 5, "cap_day": "2.50"}, 200),
    ("POST", "/members/<alice>/tokens/<token>/rotate", {"keep": True}, 200),
    ("DELETE", "/members/<alice>/tokens/<token>", None, 200),
    ("POST", "/members/<alice>/tokens/clear", {}, 200),
    ("POST", "/members/<alice>/credit", {"wallet": "5", "kind": "refund", "note": "sorry"}, 200),
    ("PUT", "/members/<alice>/caps", {"day": "50", "models": ["test-model"]}, 200),
    ("POST", "/members/<alice>/plan", {"plan": "pro", "monthly": True}, 200),
    ("GET", "/members/<alice>/subscriptions", None, 200),
    ("PATCH", "/members/<alice>/subscriptions/<subscription>", {"renew": False}, 200),
    ("DELETE", "/members/<alice>/subscriptions/<subscription>", None, 200),
    ("GET", "/members/<alice>/entries?pocket=wallet&since=2026-01-01", None, 200),
    ("POST", "/teams", {"name": "ops"}, 201),
    ("GET", "/teams", None, 200),
    ("GET", "/teams/<team>", None, 200),
    ("POST", "/teams/<team>/credit", {"wallet": "5", "note": "November"}, 200),
    ("PUT", "/teams/<team>/members/<alice>", None, 200),
    ("GET", "/teams/<team>/members?first=2026-01-01", None, 200),
    ("DELETE", "/teams/<team>/members/<alice>", None, 200),
    ("GET", "/teams/<team>/entries?kind=top_up", None, 200),
    ("PATCH", "/teams/<team>", {"closed": True}, 200),
    ("PATCH", "/teams/<team>", {"closed": False}, 200),
    ("GET", "/credit-requests", None, 200),
    ("POST", "/credit-requests/<asked>", {"amount": "3"}, 200),
    ("GET", "/budget", None, 200),
    ("POST", "/codes", {"wallet": "5", "count": 2, "expires_at": "2199-12-31"}, 201),
    ("POST", "/codes", {"plan": "pro"}, 201),
    ("GET", "/codes?state=unused", None, 200),
    ("DELETE", "/codes/<code>", None, 200),
    ("GET", "/calls?since=2026-01-01&outcome=complete", None, 200),
    ("GET", "/calls/<call>", None, 200),
    ("GET", "/usage?from=2026-01-01&to=2199-12-31&by=day,member,token,model", None, 200),
    ("GET", "/usage?from=2026-01-01&to=2199-12-31&by=upstream", None, 200),
    ("GET", "/presets?limit=2", None, 200),
    ("POST", "/presets/look", PRIVATE, 200),
    ("POST", "/upstreams", PRIVATE | {"models": ["north-large"], "input": "2", "output": "8"}, 201),
    ("GET", "/upstreams", None, 200),
    ("GET", "/upstreams/north", None, 200),
    ("POST", "/upstreams/north/test", {}, 200),
    ("POST", "/upstreams/north/ask", {"question": "Who are you?"}, 200),
    ("PUT", "/upstreams/north/key", {"key": KEY}, 200),
    ("PATCH", "/upstreams/north", {"enabled": False}, 200),
    ("GET", "/upstreams/fake/bill", None, 200),
    ("POST", "/upstreams/fake/bill", b"day,amount\n2026-11-01,5.00\n", 200),
    ("GET", "/models", None, 200),
    ("GET", "/models/prices", None, 200),
    ("GET", "/plans", None, 200),
    ("GET", "/settings?limit=1000", None, 200),
    ("GET", "/settings/changes", None, 200),
    ("POST", "/settings/reload", {}, 200),
    ("DELETE", "/upstreams/north", None, 200),
    ("GET", "/ledger/proof", None, 200),
    ("POST", "/ledger/verify", {}, 200),
    ("GET", "/backup", None, 200),
    ("POST", "/backup", {}, 200),
    ("GET", "/system", None, 200),
    ("POST", "/notices/test", {}, 200),
    ("GET", "/audit?action=member.add", None, 200),
]
ELSEWHERE = {("POST", "/models/prices")}  # it needs a catalogue that differs: tested below
UNAUDITED = {"/members/<alice>/tokens/clear", "/settings/changes"}  # there was nothing to clear


@pytest.fixture
def north():
    with FakeUpstream() as upstream:
        yield upstream.always(provider())


def matching(method: str, path: str):
    """The address that a path is of."""
    bare = path.partition("?")[0]
    for each in ADDRESSES:
        shape = re.sub(r"<(?:int:)?\w+>", r"[^/]+", each.path)
        if each.method == method and re.fullmatch(shape, bare):
            # `/presets/look` is no id
            yield each


def of(method: str, path: str):
    found = list(matching(method, path))
    return min(found, key=lambda each: each.path.count("<"))


def kept(names: dict, path: str, found) -> None:
    """Note the ids that later steps speak of."""
    if path.endswith("/tokens") and "token" in found:
        names["token"] = found["id"]
    if path == "/teams" and "id" in found:
        names["team"] = found["id"]
    for end, name in (("/subscriptions", "subscription"), ("/codes?state=unused", "code")):
        if path.endswith(end):
            names[name] = found["data"][0]["id"]


def test_every_address_answers_as_its_document_says_and_changes_are_audited(
    start_relay, alice_in, fake, north
):
    relay, names = alice_in(start_relay(process=True, server={"port": free_port()}, plans=PLANS))
    fake.always(plain(usage(20, 10)))
    assert relay.client(names["raw"]).call("POST", "/v1/chat/completions", CHAT).status == 200
    names["call"] = relay.rows()[0]["id"]
    desk = relay.client(names["desk"])
    document = relay.client().get("/docs/admin-openapi.json").json
    walked = set()
    for method, template, body, status in WALK:
        path = re.sub(r"<(\w+)>", lambda found: str(names[found[1]]), template)
        if isinstance(body, dict) and body.get("name") == "north":
            body = body | {"base_url": north.url}
        address = of(method, path)
        walked.add((method, address.path))
        before = audit.trail(relay.db, limit=1)[0]["id"]
        answer = desk.call(method, PREFIX + path, body)
        assert answer.status == status, (method, path, answer.body[:500])
        shape = re.sub(r"<(?:int:)?(\w+)>", r"{\1}", address.path)
        good = document["paths"][shape][method.lower()]["responses"][str(status)]["content"]
        ((media, content),) = good.items()
        assert answer.headers["content-type"].partition(";")[0] == media
        if media == "application/json":
            assert wrong(answer.json, content["schema"], document) == [], path
            kept(names, path, answer.json)
        if method != "GET" and template not in UNAUDITED and not template.endswith("/bill"):
            newest = audit.trail(relay.db, limit=1)[0]
            assert newest["id"] > before and newest["by"] == "carol", path
    assert walked | ELSEWHERE == {(each.method, each.path) for each in ADDRESSES}


CHAT = {"model": "test-model", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def alice_in(people_file):
    """A function that takes a relay and gives it back with the ids and tokens of its people."""
    import billing

    def entered(relay):
        _path, people = people_file
        ids = {name: people[name][0] for name in people}
        billing.credit(relay.db, ids["alice"], "wallet", billing.nano("50"))
        made = credit_requests.ask(relay.db, ids["alice"], billing.nano("5"), "please")
        desk = tokens.mint(relay.db, ids["carol"], "desk", scope="admin")[1]
        names = {"raw": people["alice"][1], "desk": desk, "asked": made.id}
        return relay, ids | names

    return entered
