"""Who comes in by a trusted proxy's header: on the real server, for only it sees who speaks."""

import http.client
import re

import pytest

from members import accounts, identities

PROXY = {"server": {"trusted_proxy": "127.0.0.1"}}
HEADERS = {
    "header": "Remote-User",
    "header_email": "Remote-Email",
    "header_groups": "Remote-Groups",
    "header_name": "Remote-Name",
}


class Visitor:
    """A browser, in front of which a proxy puts these headers."""

    def __init__(self, relay, **headers: str):
        self.relay, self.cookie = relay, ""
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        """A page: (status, where it leads, or its text)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.relay.port, timeout=60)
        connection.putrequest(method, path)
        for name, value in (
            {"Cookie": self.cookie, "Accept-Language": "en"} | self.headers
        ).items():
            connection.putheader(name, value.encode())
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        for name, value in answer.getheaders():
            if name == "Set-Cookie" and value.startswith("session="):
                self.cookie = value.partition(";")[0]
        connection.close()
        return answer.status, answer.headers.get("Location") or text

    @property
    def signed_in(self) -> str:
        for _ in range(2):
            status, text = self.get("/console/account")
        found = re.search(r"<dt>Name</dt><dd>([^<]*)", text)
        return found[1] if status == 200 and found else ""


@pytest.fixture
def relay(start_relay):
    return start_relay(sign_in=HEADERS, **PROXY)


def test_whom_the_trusted_proxy_names_is_in_and_is_led_where_they_wanted(relay):
    dora = Visitor(relay, Remote_User="dora", Remote_Name="小 Dora", Remote_Email="d@example.com")
    assert dora.get("/console/usage?model=x") == (303, "/console/usage?model=x")
    assert dora.signed_in == "小 Dora"
    known = identities.of(relay.db, accounts.named(relay.db, "小 dora").id)[0]
    assert (known.issuer, known.subject) == ("header:remote-user", "dora")
    assert known.email == "d@example.com"
    assert Visitor(relay, Remote_User="dora").signed_in == "小 Dora"  # on another device


def test_a_name_that_somebody_has_takes_over_nobody(relay):
    assert Visitor(relay, Remote_User="alice").signed_in == "alice-2"


@pytest.mark.parametrize("said", ["", " ", "dora, eve", "x" * 256, "a\u2028b", "\xa0"])
def test_a_header_that_names_nobody_lets_nobody_in(relay, said):
    visitor = Visitor(relay, Remote_User=said)
    assert visitor.get("/console")[0] == 302 and not visitor.signed_in
    assert [each.name for each in accounts.members(relay.db)] == ["alice", "bob", "carol"]


def test_a_header_that_comes_twice_lets_nobody_in(relay):
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=60)
    connection.putrequest("GET", "/console")
    for name in ("carol", "dora"):
        connection.putheader("Remote-User", name)
    connection.endheaders()
    assert connection.getresponse().status == 302


def test_a_header_of_anybody_else_lets_nobody_in(start_relay):
    relay = start_relay(sign_in=HEADERS, server={"trusted_proxy": "10.0.0.1"})
    visitor = Visitor(relay, Remote_User="dora", X_Forwarded_For="10.0.0.1")
    assert visitor.get("/console")[0] == 302 and not visitor.signed_in


def test_a_header_in_other_letters_is_not_another_persons(relay):
    """Who writes Remote_User hopes that a proxy replaces only Remote-User."""
    connection = http.client.HTTPConnection("127.0.0.1", relay.port, timeout=60)
    connection.putrequest("GET", "/console")
    connection.putheader("Remote_User", "carol")
    connection.endheaders()
    assert connection.getresponse().status == 302


def test_the_session_ends_with_the_header_and_is_nobody_elses(relay):
    visitor = Visitor(relay, Remote_User="dora")
    assert visitor.signed_in == "dora"
    visitor.headers = {}
    assert visitor.get("/console")[0] == 302
    visitor.headers = {"Remote-User": "dora"}
    assert visitor.signed_in == "dora"
    visitor.headers = {"Remote-User": "eve"}
    assert visitor.signed_in == "eve"


def test_the_groups_of_the_proxy_count(start_relay):
    relay = start_relay(sign_in=HEADERS | {"groups": ["staff"], "admin_groups": ["heads"]}, **PROXY)
    assert Visitor(relay, Remote_User="dora").get("/console")[0] == 403
    assert Visitor(relay, Remote_User="dora", Remote_Groups="guests").get("/login")[0] == 403
    assert Visitor(relay, Remote_User="dora", Remote_Groups="staff, heads").signed_in == "dora"
    assert accounts.named(relay.db, "dora").admin


def test_the_api_and_open_pages_are_asked_no_header(relay):
    visitor = Visitor(relay, Remote_User="dora")
    assert visitor.get("/")[0] == 200 and visitor.get("/api/v1/models")[0] == 401
    assert accounts.named(relay.db, "dora") is None


def test_who_signs_out_everywhere_is_named_anew_in_the_other_browsers(relay):
    here, there = Visitor(relay, Remote_User="dora"), Visitor(relay, Remote_User="dora")
    assert here.signed_in == there.signed_in == "dora"
    accounts.end_sessions(relay.db, accounts.named(relay.db, "dora").id)
    assert here.get("/console/usage") == (303, "/console/usage")
    assert here.signed_in == there.signed_in == "dora"


@pytest.mark.parametrize("said", ["", "a@example.com, b@example.com", "x" * 250 + "@example.com"])
def test_an_address_that_is_none_is_not_taken_from_the_users_name(start_relay, said):
    relay = start_relay(sign_in=HEADERS | {"domains": ["example.com"]}, **PROXY)
    visitor = Visitor(relay, Remote_User="dora@example.com", Remote_Email=said)
    assert visitor.get("/console")[0] == 403 and not visitor.signed_in
    visitor.headers["Remote-Email"] = "dora@example.com"
    assert visitor.signed_in


def test_where_no_address_is_configured_a_users_name_may_be_one(start_relay):
    rules = {"header": "Remote-User", "domains": ["example.com"]}
    relay = start_relay(sign_in=rules, **PROXY)
    assert Visitor(relay, Remote_User="dora@example.com").signed_in == "dora"
    assert Visitor(relay, Remote_User="eve@evil.example").get("/console")[0] == 403


def test_a_style_sheet_without_the_header_ends_no_session(relay):
    """A cache that is told to keep it for ever would keep the cookie with it."""
    visitor = Visitor(relay, Remote_User="dora")
    assert visitor.signed_in == "dora"
    visitor.headers, kept = {}, visitor.cookie
    assert visitor.get("/static/member.css?v=1")[0] == 200 and visitor.cookie == kept
