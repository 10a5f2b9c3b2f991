"""The console against whoever means ill: the wrong person, the wrong form, hostile words,
impossible numbers.

Most of it walks the map of addresses, so that no new page can be forgotten.
"""

import io
import re
from functools import partial
from urllib.parse import quote_from_bytes, urlencode

import msgspec
import pytest
from werkzeug.security import generate_password_hash

import billing
import codes
import plans
from console import throttle
from console.context import is_api
from console.session import SIGNED
from members import accounts, credit_requests, teams
from tests.console.member_stage import MODELS, PASSWORD, PLANS, house

SECRET = "sk-upstream-secret-of-the-north"
MARK = "<img src=x onerror=alert(1)>"
HOSTILE = MARK + "\"'{{7*7}}&lt;</script>"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WHAT_HAPPENED = (
    "users",
    "tokens",
    "entries",
    "subscriptions",
    "codes",
    "requests",
    "audit",
    "invites",
    "operations",
)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
SEARCHED = (
    "q",
    "member",
    "who",
    "model",
    "upstream",
    "from",
    "to",
    "input",
    "wallet",
    "key",
    "next",
)
ENDS_THE_SESSION = ("/logout", "/console/account/sessions", "/console/account/password")
# Numbers beyond 64 bits and beyond what Python reads, no numbers, bytes that are no text, days that
# are none.
NONSENSE = [
    b"9" * 30,
    b"-9223372036854775809",
    b"9" * 5000,
    b"1e99",
    "²".encode(),
    b"a\x00b",
    b"\xed\xa0\x80\xff",
    b"0001-01-01",
    b"9999-12-31",
    b"\r\nSet-Cookie: a=b",
]
GOOD = {
    "kind": b"wallet",
    "amount": b"5",
    "count": b"1",
    "name": b"ok",
    "role": b"member",
    "code": b"1",
    "password": PASSWORD.encode(),
    "again": PASSWORD.encode(),
    "current": PASSWORD.encode(),
    "plan-plan": b"pro",
    "credit-pocket": b"wallet",
    "credit-kind": b"top_up",
    "credit-amount": b"1",
    "credit-note": b"n",
    "price": b"29900000000",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A house of hostile words, whose passwords cost little and whose attempts are not counted."""
    monkeypatch.setattr(
        accounts,
        "generate_password_hash",
        partial(generate_password_hash, method="pbkdf2:sha256:1"),
    )
    monkeypatch.setattr(throttle, "wait_s", lambda *_given: None)
    models = [
        MODELS[0]
        | {
            "title": HOSTILE,
            "provider": HOSTILE[:40],
            "routes": [{"upstream": "north", "model": "x"}],
        },
        *MODELS[1:],
    ]
    upstream = {"name": "north", "base_url": "https://north.example/v1", "api_keys": [SECRET]}
    made = house(
        tmp_path,
        accounts={"registration": "open"},
        models=models,
        upstreams=[upstream],
        site={"language": "en", "name": HOSTILE[:40]},
        plans=PLANS | {"pro": PLANS["pro"] | {"title": HOSTILE[:40]}},
    )
    yield made
    made.db.close()


@pytest.fixture
def carol(home):
    return home.member("carol", role="admin")


@pytest.fixture
def alice(home):
    return home.member(HOSTILE[:60], wallet="50", grant=1500)


@pytest.fixture
def things(home, carol, alice):
    """What addresses name: something of alice's of every kind."""
    token = home.token(alice, HOSTILE[:64])
    call = home.called(
        alice,
        token,
        upstream="north",
        attempts=[
            {"upstream": "north", "model": HOSTILE, "status": 503, "ms": 12, "error": HOSTILE}
        ],
    )
    home.called(alice, token, outcome="refused", model=HOSTILE, error=HOSTILE)
    billing.credit(home.db, alice.id, "wallet", 5, note=HOSTILE, by=carol.id)
    plans.give_plan(home.db, alice.id, "pro", quota=5, days=3, by=carol.id)
    codes.make(home.db, "wallet", 2, amount=5, note=HOSTILE, by=carol.id)
    (given,) = plans.active(home.db, alice.id)
    request = credit_requests.ask(home.db, alice.id, 5, HOSTILE)
    return {
        "request_id": request.id,
        "user_id": alice.id,
        "team_id": teams.add(home.db, f"t{HOSTILE[:60]}", by=carol.id).id,
        "token_id": token,
        "call_id": call,
        "subscription_id": given.id,
        "model_id": "plain-1",
        "slug": "cursor",
        "filename": "console.css",
    }


def pages(app, method: str = "GET") -> list:
    """The rules of the console that take this method."""
    return [
        rule
        for rule in app.url_map.iter_rules()
        if method in (rule.methods or ()) and not is_api(rule.rule)
    ]


def address(rule, things: dict) -> str:
    """An address of a rule; a mere `name` is a plan, an upstream or a page of the documentation."""
    names = {"/console": "pro", "/admin": "north", "/docs": "chat"}
    name = next((each for start, each in names.items() if rule.rule.startswith(start)), "x")
    return re.sub(r"<(?:\w+:)?(\w+)>", lambda found: str(things.get(found[1], name)), rule.rule)


def everything(home) -> dict:
    """All rows of what must not change by itself."""
    return {
        table: [tuple(row) for row in home.db.read().execute(f"SELECT * FROM {table}").fetchall()]
        for table in WHAT_HAPPENED
    }


# ---- who may


def test_no_address_of_administration_answers_a_visitor_or_a_member_by_any_method(
    home, things, alice
):
    rules = [rule for rule in home.app.url_map.iter_rules() if rule.rule.startswith("/admin")]
    assert len(rules) > 35
    before, bob = everything(home), home.browser(home.member("bob"))
    visitor, changed = home.browser(), {"users"}
    who = [(visitor, visitor.csrf(), (302, 405)), (bob, bob.csrf(), (404, 405))]
    for rule in rules:
        path = address(rule, things)
        for method in METHODS:
            for browser, token, refusals in who:
                answer = browser.client.open(
                    path,
                    method=method,
                    headers={"X-CSRFToken": token},
                    data={"role": "admin", "credit-amount": "5"},
                )
                assert answer.status_code in refusals, (method, path, answer.status_code)
                if answer.status_code == 302:
                    assert answer.headers["Location"].startswith("/login")
    after = everything(home)
    assert {
        name
        for name in after
        if name not in changed and after[name][: len(before[name])] != before[name]
    } == set()
    assert (
        accounts.find(home.db, alice.id).role == "member"
        and billing.balances(home.db, alice.id)["balance"].grant
    )


def test_no_page_changes_anything_by_being_looked_at(home, things, carol):
    desk = home.browser(carol)
    before = everything(home)
    for rule in pages(home.app):
        answer = desk.get(address(rule, things))
        assert answer.status_code in (200, 302, 303, 404, 308), (rule, answer.status_code)
        answer.close()
    assert everything(home) == before


def test_every_form_of_the_console_needs_its_own_token_and_its_own_site(home, things, carol):
    desk, other, before = home.browser(carol), home.browser(), everything(home)
    token = desk.csrf()
    rules = [each for each in pages(home.app, "POST") if each.endpoint not in SIGNED]
    wrong = [
        {},
        {"data": {"csrf_token": other.csrf()}},
        {"data": {"csrf_token": ""}},
        {"query_string": {"csrf_token": token}},
        {"data": {"csrf_token": token}, "headers": {"Sec-Fetch-Site": "cross-site"}},
        {"data": {"csrf_token": token}, "headers": {"Sec-Fetch-Site": "same-site"}},
    ]
    assert len(rules) > 30
    for rule in rules:
        path = address(rule, things)
        for options in wrong:
            assert desk.client.post(path, **options).status_code == 400, (path, options)
    assert everything(home) == before


# ---- hostile words


def test_hostile_words_are_text_on_every_page_and_no_upstreams_key_is_anywhere(
    home, things, carol, alice, caplog
):
    seen = ""
    for browser, start in (
        (home.browser(carol), ("/admin", "/console")),
        (home.browser(alice), "/console"),
        (home.browser(), "/"),
    ):
        for path in (
            address(rule, things) for rule in pages(home.app) if rule.rule.startswith(start)
        ):
            for query in ("", "?" + urlencode(dict.fromkeys(SEARCHED, HOSTILE))):
                answer = browser.get(path + query)
                html = answer.get_data(as_text=True)
                assert SECRET not in html, path
                if answer.mimetype == "text/html":
                    assert "<img src=x" not in html and "49&lt;" not in html, path + query
                    seen += html
                elif answer.mimetype == "text/csv":
                    assert answer.headers["Content-Disposition"].startswith("attachment"), path
    assert seen.count("&lt;img src=x onerror") > 100 and SECRET not in caplog.text
    for file in home.db.path.parent.glob("relay.db*"):
        assert SECRET.encode() not in file.read_bytes(), file


# ---- headers


def test_every_page_and_every_error_carries_the_headers_that_keep_it_safe(
    home, things, carol, monkeypatch
):
    desk, found = home.browser(carol), set()
    answers = [desk.get(address(rule, things)) for rule in pages(home.app)]
    answers += [
        desk.get("/nothing"),
        desk.client.post("/login"),
        desk.client.delete("/login"),
        desk.get("/admin"),
        desk.send("/login", name="x" * 1_000_000),
        desk.get("/static/nothing.css"),
    ]
    monkeypatch.setattr(throttle, "wait_s", lambda *_given: 7)
    answers.append(desk.get("/admin/calls.csv"))
    monkeypatch.setattr(accounts, "find", lambda *_given: 1 / 0)
    answers.append(desk.get("/console"))
    for answer in answers:
        found.add(answer.status_code)
        missing = [
            name
            for name, start in HEADERS.items()
            if not answer.headers.get(name, "").startswith(start)
        ]
        assert not missing, (answer.request.path, answer.status_code, missing)
        if answer.request.path.startswith(("/admin", "/console")) and answer.status_code == 200:
            assert answer.headers["Cache-Control"] == "no-store", answer.request.path
        answer.close()
    assert found >= {200, 302, 308, 400, 404, 405, 413, 429, 500}


def test_with_an_address_configured_no_answer_repeats_another_host(home, carol):
    at = home.app.extensions["relay"]
    public = msgspec.structs.replace(at.settings.site, public_url="https://relay.example")
    at.settings = msgspec.structs.replace(at.settings, site=public)
    desk, headers = (
        home.browser(carol),
        {"Host": "evil.lan", "X-Forwarded-Host": "evil.lan"},
    )
    for path in (
        "/admin",
        "/docs?x=//evil",
        "//admin//codes",
        "/console/",
        "/",
        "/console/invites",
        "/login",
    ):
        answer = desk.client.get(path, headers=headers)
        assert "evil.lan" not in str(answer.headers) and b"evil.lan" not in answer.data, path
        assert re.match("/[^/]|/$", answer.headers.get("Location", "/")), path
        assert answer.status_code in (200, 302, 308, 404)


# ---- impossible input


def names_of(home, things, browser) -> list[str]:
    """The names of all fields of all forms."""
    found = set()
    for rule in pages(home.app):
        if not rule.rule.startswith(("/docs", "/static")):
            html = browser.get(address(rule, things)).get_data(as_text=True)
            found |= set(re.findall(r'\sname="([\w-]+)"', html))
    return sorted(found - {"csrf_token", "viewport", "color-scheme"})


def turns(names) -> list[dict[str, bytes]]:
    """Each name with a piece of nonsense, turn by turn with another, until each has had each."""
    return [
        {name: NONSENSE[(number + by) % len(NONSENSE)] for number, name in enumerate(names)}
        for by in range(len(NONSENSE))
    ]


def encoded(values: dict[str, bytes]) -> str:
    return "&".join(f"{name}={quote_from_bytes(value)}" for name, value in values.items())


def test_no_query_and_no_path_breaks_a_page(home, things, carol):
    desk = home.browser(carol)
    more = {"before", "after", "key", "invite", "next", "lang", "theme"}
    names = sorted(
        more.union(names_of(home, things, desk)) - {"token"}
    )  # a wrong one of these is no page at all
    assert len(names) > 40
    queries = [*map(encoded, turns(names)), "q=\xff\xfe", "token=" + "9" * 30, "token=x"]
    for rule in pages(home.app):
        asked = [
            (address(rule, things), query)
            for query in (queries[-3:] if "/docs" in rule.rule else queries)
        ]
        if "<" in rule.rule:
            asked += [
                (re.sub(r"<[^>]+>", quote_from_bytes(each), rule.rule), "")
                for each in NONSENSE[::2]
            ]
        for path, query in asked:
            answer = desk.client.get(path, environ_overrides={"QUERY_STRING": query})
            assert answer.status_code < 500, (path, query)
            answer.close()


def test_no_form_breaks_whatever_it_holds(home, things, carol):
    desk = home.browser(carol)
    names, token = names_of(home, things, desk), desk.csrf()
    assert {
        "credit-amount",
        "plan-days",
        "expires",
        "addresses",
        "cap_day",
        "again",
        "role",
    } <= set(names)
    for rule in pages(home.app, "POST"):
        path = address(rule, things)
        for by, values in enumerate(turns(names)):
            good = {
                name: value
                for number, (name, value) in enumerate(GOOD.items())
                if (number + by) % 4
            }
            answer = desk.client.post(
                path,
                data=encoded(values | good | {"csrf_token": token.encode()}),
                content_type="application/x-www-form-urlencoded",
            )
            assert answer.status_code < 500, (path, by)
            answer.close()
            if path in ENDS_THE_SESSION:
                desk = home.browser(carol)
                token = desk.csrf()
    assert billing.verify(home.db) == []


def test_a_file_in_place_of_a_field_breaks_no_form(home, things, carol):
    desk = home.browser(carol)
    names, token = names_of(home, things, desk), desk.csrf()
    for path in (address(rule, things) for rule in pages(home.app, "POST")):
        files = {name: (io.BytesIO(b"x"), "x.txt") for name in names}
        answer = desk.client.post(path, data={"csrf_token": token, **files})
        assert answer.status_code < 500, path
        answer.close()
        if path in ENDS_THE_SESSION:
            desk = home.browser(carol)
            token = desk.csrf()


BODIES = [
    (b"x=" + b"a" * 2_000_000, "application/x-www-form-urlencoded", 413),
    (b"&" * 2_000_000, "application/x-www-form-urlencoded", 413),
    (b"\xff\xfe=1", "application/x-www-form-urlencoded", 400),
    (b"x", "multipart/form-data", 400),
    (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n',
        "multipart/form-data; boundary=x",
        400,
    ),
    (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 2000 + b"--x--",
        "multipart/form-data; boundary=x",
        413,
    ),
    (b"[" * 100_000, "application/json", 400),
    (b"{}", "text/plain; charset=utf-77", 400),
]


@pytest.mark.parametrize("path", ["/login", "/console/test/1", "/nothing"])
def test_a_body_that_is_no_form_or_too_much_of_one_gets_a_page_with_a_sentence(home, path):
    visitor = home.browser()
    for body, kind, status in BODIES:
        answer = visitor.client.post(path, data=body, content_type=kind)
        assert answer.status_code == (404 if path == "/nothing" else status), (kind, body[:50])
        assert answer.mimetype == "text/html" and "<h1" in answer.get_data(as_text=True)


def test_nonsense_in_a_header_breaks_no_page(home):
    for headers in (
        {"Cookie": "session=" + "x" * 100},
        {"Cookie": "session=.eJ"},
        {"Cookie": "lang=\xff; theme=<b>"},
        {"Accept-Language": "en;q=nan, zh;q=1e999"},
        {"Accept-Language": "x," * 5000},
        {"Sec-Fetch-Site": "\xff"},
        {"If-Modified-Since": "nonsense"},
        {"Range": "bytes=0-99999999999999999999"},
        {"Authorization": "Basic \xff"},
        {"X-Forwarded-For": "1.2.3.4, \xff", "X-Forwarded-Proto": "javascript"},
    ):
        for path in ("/login", "/console", "/static/console.css"):
            answer = home.app.test_client().get(path, headers=headers)
            assert answer.status_code < 500, headers
            answer.close()
