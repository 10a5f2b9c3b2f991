"""Single sign-on by OpenID Connect: who comes in, who does not, and how it ends.

The provider is a real socket that checks what the relay sends, and lies when told to.
"""

import http.client
import re
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from itsdangerous import URLSafeTimedSerializer
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey

import billing
import plans
from console.sign_on import attempt as attempts
from console.sign_on import provider as spoken
from members import accounts, audit, identities, way_in
from tests.console.member_stage import PASSWORD, house
from tests.identity_provider import ALICE, IdentityProvider, new_key

CAROL = ALICE | {"sub": "subject-of-carol", "preferred_username": "carol", "email": "c@example.com"}


@pytest.fixture
def company():
    with IdentityProvider() as provider:
        yield provider


@pytest.fixture
def make_home(company, tmp_path):
    """A function: a console that takes the company's word, `make_home(domains=["example.com"])`."""
    made = []

    def make(*, accounts=None, **rules):
        more = {"accounts": accounts} if accounts else {}
        made.append(house(tmp_path, sign_in=company.settings | rules, **more))
        return made[-1]

    yield make
    for each in made:
        each.db.close()


@pytest.fixture
def home(make_home):
    return make_home()


def ask(url: str) -> str:
    """Go to an address as a browser does; where it leads."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 302, answer.status
    return answer.headers["Location"]


def led(answer) -> str:
    """The address to which an answer leads the browser by itself."""
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.headers["Refresh"].partition("url=")[2]


def way_back(browser, path: str = "/sign-in/begin") -> str:
    """Go to the provider; the path and query of the way back."""
    parts = urlsplit(ask(led(browser.get(path))))
    return f"{parts.path}?{parts.query}"


def come(browser, path: str = "/sign-in/begin"):
    """Come in by the provider; the last answer."""
    return browser.get(way_back(browser, path))


def signed_in(browser) -> str:
    """Who is signed in; empty if nobody."""
    answer = browser.get("/console/account")
    found = re.search(r"<dt>Name</dt><dd>([^<]*)", answer.get_data(as_text=True))
    return found[1] if answer.status_code == 200 and found else ""


def trail(home) -> list[str]:
    return [each["action"] for each in audit.trail(home.db)]


# Coming in


def test_a_newcomer_comes_in_by_the_button_and_is_led_to_where_they_wanted(home, company):
    browser = home.browser()
    assert "Sign in with single sign-on" in browser.read("/login")
    answer = come(browser, "/sign-in/begin?next=/console/usage?model=plain-1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/usage?model=plain-1")
    assert signed_in(browser) == "alice"
    alice = accounts.named(home.db, "alice")
    assert not alice.admin and not accounts.has_password(home.db, alice.id)
    assert billing.balances(home.db, alice.id)["balance"].grant == 100_000
    known = identities.of(home.db, alice.id)[0]
    assert (known.issuer, known.subject) == (company.url, ALICE["sub"])
    assert trail(home)[:2] == ["member.sign_in", "member.add"]


def test_the_same_identity_is_the_same_member_whatever_it_is_called_now(home, company):
    come(home.browser())
    company.person |= {"preferred_username": "alicia", "email": "married@example.com"}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"
    assert "married@example.com" in browser.read("/console/account")
    assert len(accounts.members(home.db)) == 1
    assert billing.balances(home.db, 1)["balance"].grant == 100_000  # and no second reward


def test_a_name_and_an_address_that_coincide_take_over_nobody(home, company):
    old = home.member("alice", wallet="10")
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice-2"
    assert identities.of(home.db, old.id) == []
    company.person |= {"sub": "another-subject"}  # with the same address, too
    third = home.browser()
    come(third)
    assert signed_in(third) == "alice-3"


@pytest.mark.parametrize(
    "said, name",
    [
        ({"preferred_username": "  小明\u202e\n "}, "小明"),
        ({"preferred_username": None}, "Alice Liddell"),
        ({"preferred_username": None, "name": None}, "alice"),
        ({"preferred_username": None, "name": None, "email": None}, "member"),
        ({"preferred_username": "x" * 200}, "x" * 56),
        ({"preferred_username": "alice@corp.example"}, "alice"),
        ({"preferred_username": ["alice"]}, "Alice Liddell"),
    ],
)
def test_a_newcomer_has_a_name_that_will_do(home, company, said, name):
    company.person |= said
    company.userinfo = {"sub": ALICE["sub"]}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == name


def test_the_name_can_be_another_claim(make_home, company):
    home = make_home(name_claim="extra.nick")
    company.person |= {"extra": {"nick": "lid"}}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "lid"


def test_newcomers_get_the_plan_of_the_settings_once(make_home):
    home = make_home(plan="pro")
    come(home.browser())
    come(home.browser())
    held = plans.subscriptions(home.db, accounts.named(home.db, "alice").id)
    assert [(each.plan, each.renew) for each in held] == [("pro", True)]


def test_where_no_newcomers_are_made_only_who_has_connected_comes(make_home):
    home = make_home(newcomers=False)
    answer = come(home.browser())
    assert answer.status_code == 403 and accounts.members(home.db) == []
    assert "an administrator makes the members" in home.browser().text(answer)
    assert trail(home) == ["sign_in.refuse"]


def test_registration_does_not_bind_who_comes_by_single_sign_on(make_home):
    home = make_home(accounts={"registration": "closed"})
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"


def test_the_groups_of_the_provider_make_administrators_and_unmake_them(make_home, company):
    home = make_home(admin_groups=["heads"], group_claim="realm.roles")
    come(home.browser())
    assert not accounts.named(home.db, "alice").admin
    company.person |= {"realm": {"roles": ["heads"]}}
    come(home.browser())
    assert accounts.named(home.db, "alice").admin
    company.person |= {"realm": {"roles": []}}
    come(home.browser())
    assert accounts.named(home.db, "alice").admin  # the last one stays, or nobody could mend it
    home.member("carol", role="admin")
    come(home.browser())
    assert not accounts.named(home.db, "alice").admin


def test_what_the_id_token_lacks_is_read_from_the_user_info(make_home, company):
    home = make_home(domains=["example.com"], groups=["staff"])
    hidden = ("email", "email_verified", "groups", "preferred_username")
    company.bend = lambda claims: {k: v for k, v in claims.items() if k not in hidden}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"
    company.userinfo = ALICE | {"sub": "somebody-else"}
    assert come(home.browser()).status_code == 400


def test_a_new_key_of_the_provider_is_fetched_when_it_signs(home, company, monkeypatch):
    come(home.browser())
    company.rotate()
    monkeypatch.setattr(spoken, "KEYS_AGAIN_S", 0)
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"


def test_the_secret_goes_in_the_form_where_the_provider_wants_it_there(home, company):
    company.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"


def test_a_missing_variable_is_named(make_home, company, caplog):
    home = make_home(client_secret="$NO_SUCH_VARIABLE")
    assert home.browser().get("/sign-in/begin").status_code == 503
    assert "$NO_SUCH_VARIABLE is not set" in caplog.text


# Who may come

RULES = [
    ({"domains": ["example.com"]}, {}, None),
    ({"domains": ["example.com"]}, {"email": "Alice@EXAMPLE.com"}, None),
    ({"domains": ["example.com"]}, {"email": "a@sub.example.com"}, "not among those"),
    ({"domains": ["example.com"]}, {"email": "a@example.com.evil.net"}, "not among those"),
    ({"domains": ["example.com"]}, {"email": "example.com"}, None),  # replaced below
    ({"domains": ["example.com"]}, {"email": None}, "has no e-mail address"),
    ({"domains": ["example.com"]}, {"email_verified": False}, "has not been verified"),
    ({"domains": ["example.com"]}, {"email_verified": "false"}, "has not been verified"),
    ({"domains": ["example.com"]}, {"email_verified": "true"}, None),
    ({"domains": ["example.com"]}, {"email_verified": None}, "has not been verified"),
    ({"domains": ["example.com"], "trust_email": True}, {"email_verified": False}, None),
    ({"emails": ["Alice@example.com"]}, {}, None),
    ({"emails": ["bob@example.com"]}, {}, "not among those"),
    ({"groups": ["staff", "guests"]}, {}, None),
    ({"groups": ["guests"]}, {}, "in none of the groups"),
    ({"groups": ["staff"]}, {"groups": "staff"}, None),
    ({"groups": ["staff"], "domains": ["other.example"]}, {}, "not among those"),
    ({}, {"email": None, "email_verified": None}, None),
]
RULES.pop(4)


@pytest.mark.parametrize("rules, said, refusal", RULES)
def test_who_may_come(make_home, company, rules, said, refusal):
    home = make_home(**rules)
    company.person = {k: v for k, v in (company.person | said).items() if v is not None}
    browser = home.browser()
    answer = come(browser)
    if refusal is None:
        assert signed_in(browser)
    else:
        assert answer.status_code == 403 and refusal in browser.text(answer)
        assert not signed_in(browser) and accounts.members(home.db) == []


def test_entra_says_in_another_claim_that_an_address_is_its_owners(make_home, company):
    home = make_home(domains=["example.com"])
    del company.person["email_verified"]
    company.person |= {"xms_edov": True}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"
    company.person |= {"email_verified": False}  # who denies it is believed
    assert come(home.browser()).status_code == 403


def test_at_google_only_its_own_word_makes_an_address_the_companys():
    from console.sign_on.person import Refused, check, from_claims
    from settings.sign_in import SignIn

    rules = SignIn(issuer="https://accounts.google.com", client_id="x", domains=("example.com",))
    check(rules, from_claims(rules, ALICE | {"hd": "example.com"}))
    with pytest.raises(Refused):  # a private account that was made with a company's address
        check(rules, from_claims(rules, ALICE))


def test_a_disabled_member_stays_out(home):
    come(home.browser())
    accounts.disable(home.db, 1)
    browser = home.browser()
    assert "is disabled" in browser.text(come(browser))
    assert not signed_in(browser)


# What must not be believed


def other_key(company):
    """A signature with a key of somebody else's, under the name of the provider's."""
    key = new_key("a stranger's")
    return lambda claims: jwt.encode({"alg": "RS256", "kid": company.key.kid}, claims, key)


LIES = {
    "another nonce": lambda p: {"bend": lambda c: c | {"nonce": "another"}},
    "no nonce": lambda p: {"bend": lambda c: {k: v for k, v in c.items() if k != "nonce"}},
    "another issuer": lambda p: {"bend": lambda c: c | {"iss": "https://evil.example"}},
    "no issuer": lambda p: {"bend": lambda c: {k: v for k, v in c.items() if k != "iss"}},
    "another audience": lambda p: {"bend": lambda c: c | {"aud": "another-client"}},
    "ours among many, for another": lambda p: {
        "bend": lambda c: c | {"aud": ["relay", "other"], "azp": "other"}
    },
    "ours among many, for nobody": lambda p: {"bend": lambda c: c | {"aud": ["relay", "other"]}},
    "for another party": lambda p: {"bend": lambda c: c | {"azp": "other"}},
    "expired": lambda p: {"bend": lambda c: c | {"exp": int(time.time()) - 120}},
    "without an end": lambda p: {"bend": lambda c: {k: v for k, v in c.items() if k != "exp"}},
    "of the future": lambda p: {"bend": lambda c: c | {"iat": int(time.time()) + 3600}},
    "another access token": lambda p: {"bend": lambda c: c | {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"}},
    "no subject": lambda p: {"bend": lambda c: {k: v for k, v in c.items() if k != "sub"}},
    "unsigned": lambda p: {"sign": p.unsigned},
    "signed with what everybody knows": lambda p: {"sign": p.signed_with_public_key},
    "signed by another": lambda p: {"sign": other_key(p)},
    "cut": lambda p: {"sign": lambda c: p.signed(c)[:-9]},
    "no token": lambda p: {"sign": lambda c: None},
    "nonsense": lambda p: {"sign": lambda c: "a.b.c"},
    "the way back names another": lambda p: {"leads_back": {"iss": "https://evil.example"}},
    "the way back names nobody": lambda p: {"leads_back": {"iss": None}},
    "no code": lambda p: {"leads_back": {"code": None}},
    "another code": lambda p: {"leads_back": {"code": "guessed"}},
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_signs_nobody_in(home, company, lie):
    for name, value in LIES[lie](company).items():
        setattr(company, name, value)
    browser = home.browser()
    answer = come(browser)
    assert answer.status_code == 400 and "could not be believed" in browser.text(answer)
    assert not signed_in(browser) and accounts.members(home.db) == []


def test_signatures_by_a_shared_secret_count_nowhere_even_if_it_is_among_the_keys(home):
    there, key = spoken.Provider(home.relay.settings.sign_in), OctKey.import_key("secret " * 8)
    there._keys, there._keys_at = KeySet([key]), time.monotonic()
    with pytest.raises(spoken.NotBelieved):
        there._signed(jwt.encode({"alg": "HS256"}, {"sub": "x"}, key))


def test_little_leeway_is_given_to_clocks(home, company):
    company.bend = lambda claims: claims | {"exp": int(time.time()) - 30}
    browser = home.browser()
    come(browser)
    assert signed_in(browser) == "alice"


def test_a_subject_that_would_be_cut_short_is_none(home, company):
    company.person["sub"] = "x" * 256
    assert come(home.browser()).status_code == 403
    assert accounts.members(home.db) == []


def stale(browser, path: str) -> bool:
    answer = browser.get(path)
    return answer.status_code == 400 and "has ended, or began in another" in browser.text(answer)


def test_a_way_back_is_good_in_the_browser_in_which_it_began_alone(home):
    """Or somebody could sign me in as themselves, and read what I then write."""
    path = way_back(home.browser())
    victim = home.browser()
    assert stale(victim, path) and not signed_in(victim)


def test_another_state_or_none_is_no_way_back(home):
    browser = home.browser()
    path = way_back(browser)
    state = parse_qs(urlsplit(path).query)["state"][0]
    assert stale(browser, path.replace(state, "x" * 32))
    assert stale(browser, path.replace(state, state[:12] + "x" * 20))  # the cookie's name is right
    assert stale(browser, re.sub("state=[^&]*&?", "", path))
    assert not signed_in(browser)


def test_a_way_back_is_good_once_even_if_the_cookie_is_shown_again(home):
    browser = home.browser()
    path = way_back(browser)
    cookie = next(each for each in browser.client._cookies.values() if "sign-in-" in each.key)
    assert browser.get(path).status_code == 303
    browser.send("/logout")
    assert stale(browser, path)
    browser.client.set_cookie(cookie.key, cookie.value)
    assert stale(browser, path) and not signed_in(browser)


def test_an_attempt_ends_after_ten_minutes(home, monkeypatch):
    browser = home.browser()
    path = way_back(browser)
    monkeypatch.setattr(attempts, "LASTS_S", -1)
    assert stale(browser, path)


def test_a_session_begins_anew_at_sign_on(home):
    browser = home.browser()
    before = browser.csrf()
    come(browser)
    assert browser.csrf() != before


@pytest.mark.parametrize(
    "wish", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_nobody_is_led_off_the_site(home, wish):
    browser = home.browser()
    answer = browser.get("/sign-in/begin", query_string={"next": wish})
    parts = urlsplit(ask(led(answer)))
    back = browser.get(f"{parts.path}?{parts.query}")
    assert back.headers["Location"] == "/console"


def test_many_tabs_come_in_side_by_side(home):
    browser = home.browser()
    paths = [way_back(browser) for _ in range(3)]
    assert [browser.get(path).status_code for path in paths] == [303] * 3


def test_a_browser_carries_no_more_than_a_few_attempts(home):
    browser = home.browser()
    for _ in range(20):
        browser.get("/sign-in/begin")
    assert sum("sign-in-" in each.key for each in browser.client._cookies.values()) <= 9


def test_who_says_no_at_the_provider_sees_a_calm_page(home, company):
    company.denies = "access_denied"
    browser = home.browser()
    answer = come(browser)
    assert answer.status_code == 403 and "Nothing has happened here" in browser.text(answer)
    company.denies = "temporarily_unavailable"
    assert come(home.browser()).status_code == 502
    company.denies = "<script>"
    assert "<script>" not in come(home.browser()).get_data(as_text=True)


# A provider that is dead, or slow


def test_a_dead_provider_is_a_page_that_says_so_and_is_not_asked_by_everybody(home, company):
    company.broken = {"/.well-known/openid-configuration"}
    answers = [home.browser().get("/sign-in/begin") for _ in range(5)]
    assert [each.status_code for each in answers] == [503] * 5
    assert "cannot be reached" in home.browser().text(answers[0])
    assert len(company.asked) == 1
    assert home.browser().get("/login").status_code == 200  # and passwords go on working


@pytest.mark.parametrize("way", ["silent", "dripping"])
@pytest.mark.parametrize("path", ["/.well-known/openid-configuration", "/token", "/keys"])
def test_a_slow_provider_holds_nobody_for_long(home, company, monkeypatch, way, path):
    monkeypatch.setattr(spoken, "SILENT_S", 0.3)
    monkeypatch.setattr(spoken, "WHOLE_S", 0.6)
    setattr(company, way, {path})
    browser, began = home.browser(), time.monotonic()
    answer = browser.get("/sign-in/begin")
    if answer.status_code == 200:
        parts = urlsplit(ask(led(answer)))
        answer = browser.get(f"{parts.path}?{parts.query}")
    assert answer.status_code == 503 and "cannot be reached" in browser.text(answer)
    assert time.monotonic() - began < 30


def test_an_answer_without_an_end_is_not_read(home, company, monkeypatch):
    monkeypatch.setattr(spoken, "BYTES_MAX", 100)
    assert home.browser().get("/sign-in/begin").status_code == 503


def test_only_so_many_wait_for_the_provider_at_once(home, monkeypatch):
    monkeypatch.setattr(spoken, "WAIT_S", 0)
    there = spoken.Provider(home.relay.settings.sign_in)
    for _ in range(spoken.AT_ONCE):
        there._places.acquire()
    with pytest.raises(spoken.Unreachable, match="too many"):
        there.way(state="s", nonce="n", verifier="v" * 43, back="http://localhost/")


@pytest.mark.parametrize(
    "said",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"authorization_endpoint": "https://a.example/\nX: y"},
    ],
)
def test_a_provider_that_calls_itself_otherwise_is_none(home, company, said):
    company.metadata = said
    assert home.browser().get("/sign-in/begin").status_code == 503


def test_an_https_provider_cannot_lead_to_plain_http(company):
    from settings.sign_in import SignIn

    there = spoken.Provider(SignIn(issuer="https://sso.example", client_id="x"))
    there._fetch = lambda session, url: company.discovered() | {"issuer": "https://sso.example"}
    with pytest.raises(spoken.Unreachable, match="is not https"):
        there._discover()


# Sessions that end at the next check


def age(browser, seconds: int) -> None:
    """Let the session have begun earlier."""
    with browser.client.session_transaction() as session:
        session["sign_on"] = session["sign_on"] | {"at": session["sign_on"]["at"] - seconds}


def test_when_the_check_is_due_the_browser_goes_through_the_provider_and_comes_back(home):
    browser = home.browser()
    come(browser)
    age(browser, 8 * 3600 + 1)
    answer = come(browser, "/console/usage?model=plain-1")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/console/usage?model=plain-1")
    assert signed_in(browser) == "alice"
    assert trail(home).count("member.sign_in") == 1  # nobody signed in anew


def test_a_form_that_was_open_when_the_check_fell_due_can_still_be_sent(home):
    browser = home.browser()
    come(browser)
    token = browser.csrf()
    for late_s, status in ((60, 303), (3600, 302)):
        age(browser, 8 * 3600 + late_s)
        answer = browser.client.post(
            "/console/account/language", data={"csrf_token": token, "language": "en"}
        )
        assert answer.status_code == status
    assert answer.headers["Location"].startswith("/login")


def test_who_has_left_is_out_at_the_next_check_everywhere(make_home, company):
    home = make_home(domains=["example.com"])
    browser, elsewhere = home.browser(), home.browser()
    come(browser), come(elsewhere)
    company.person |= {"email": "alice@gone.example"}
    assert signed_in(elsewhere) == "alice"
    age(browser, 8 * 3600 + 1)
    assert come(browser, "/console").status_code == 403
    assert not signed_in(browser) and not signed_in(elsewhere)
    assert not accounts.find(home.db, 1).disabled


def test_leaving_disables_where_the_settings_say_so(make_home, company):
    home = make_home(groups=["staff"], leaving="disable")
    browser = home.browser()
    come(browser)
    company.person |= {"groups": []}
    age(browser, 8 * 3600 + 1)
    come(browser, "/console")
    assert accounts.find(home.db, 1).disabled
    company.person |= {"groups": ["staff"]}
    assert come(home.browser()).status_code == 403  # until an administrator lets them in again


def test_the_last_administrator_is_never_disabled_by_the_provider(make_home, company):
    home = make_home(groups=["staff"], admin_groups=["staff"], leaving="disable")
    browser = home.browser()
    come(browser)
    company.person |= {"groups": ["guests"]}
    age(browser, 8 * 3600 + 1)
    come(browser, "/console")
    assert not accounts.find(home.db, 1).disabled and not signed_in(browser)


def test_whom_the_provider_denies_at_a_check_is_signed_out_everywhere(home, company):
    browser, elsewhere = home.browser(), home.browser()
    come(browser), come(elsewhere)
    company.denies = "access_denied"
    age(browser, 8 * 3600 + 1)
    assert come(browser, "/console").status_code == 403
    assert not signed_in(browser) and not signed_in(elsewhere)


def test_a_check_that_another_person_answers_is_their_sign_in(home, company):
    browser = home.browser()
    come(browser)
    company.person = CAROL
    age(browser, 8 * 3600 + 1)
    come(browser, "/console")
    assert signed_in(browser) == "carol"


def test_a_dead_provider_at_the_check_lets_nobody_in_for_longer(home, company, monkeypatch):
    monkeypatch.setattr(spoken, "KNOWN_S", -1)
    browser = home.browser()
    come(browser)
    company.broken = {"/.well-known/openid-configuration"}
    age(browser, 8 * 3600 + 1)
    assert browser.get("/console").status_code == 503
    assert browser.get("/models").status_code == 200  # what is for everybody goes on


def test_without_the_provider_in_the_settings_its_sessions_are_over(home, company):
    browser = home.browser()
    come(browser)
    import msgspec

    relay = home.relay
    relay.settings = msgspec.structs.replace(relay.settings, sign_in=type(relay.settings.sign_in)())
    assert not signed_in(browser)
    assert browser.get("/sign-in/begin").status_code == 404


def test_who_signs_out_at_the_provider_is_signed_out_here(home, company):
    browser = home.browser()
    come(browser)
    for wrong in (
        {"logout_token": "nonsense"},
        {"logout_token": company.logout_token(nonce="n")},
        {"logout_token": company.logout_token(events={})},
        {"logout_token": company.logout_token(aud="other")},
        {"logout_token": company.logout_token(iss="https://evil.example")},
        {},
    ):
        answer = home.app.test_client().post("/sign-in/logged-out", data=wrong)
        assert answer.status_code == 400, wrong
    assert signed_in(browser)
    sent = {"logout_token": company.logout_token()}
    assert home.app.test_client().post("/sign-in/logged-out", data=sent).status_code == 200
    assert not signed_in(browser)


# Connecting and disconnecting


def connect(browser):
    """Connect the account of who is signed in, with whom the provider names."""
    parts = urlsplit(ask(led(browser.send("/console/account/connect"))))
    return browser.get(f"{parts.path}?{parts.query}")


def test_who_has_a_password_connects_it_on_the_account_page(home):
    bob = home.member("bob")
    browser = home.browser(bob)
    assert connect(browser).headers["Location"] == "/console/account"
    assert "alice@example.com" in browser.read("/console/account")
    other = home.browser()
    come(other)
    assert signed_in(other) == "bob" and len(accounts.members(home.db)) == 1
    assert "member.connect" in trail(home)


def test_an_attempt_to_connect_is_worth_nothing_to_another_member(home):
    bob, mallory = home.member("bob"), home.member("mallory")
    browser = home.browser(mallory)
    parts = urlsplit(ask(led(browser.send("/console/account/connect"))))
    browser.send("/logout")
    browser.send("/login", name="bob", password=PASSWORD)
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 400
    assert identities.of(home.db, bob.id) == identities.of(home.db, mallory.id) == []


def test_an_identity_is_one_members_alone(home):
    come(home.browser())
    answer = connect(home.browser(home.member("bob")))
    assert answer.status_code == 403
    assert "connected with another member" in home.browser().text(answer)


def test_connecting_takes_a_form_of_ours(home):
    browser = home.browser(home.member("bob"))
    assert browser.client.post("/console/account/connect").status_code == 400
    assert browser.get("/console/account/connect").status_code == 405


def test_what_was_disconnected_makes_no_new_member_and_no_second_reward(home, company):
    bob = home.member("bob")
    browser = home.browser(bob)
    connect(browser)
    identity = {"issuer": company.url, "subject": ALICE["sub"]}
    assert browser.send("/console/account/disconnect", **identity).status_code == 303
    assert signed_in(browser) == "bob"
    answer = come(home.browser())
    assert answer.status_code == 403 and "was disconnected" in browser.text(answer)
    assert [each.name for each in accounts.members(home.db)] == ["bob"]
    connect(browser)  # and back
    other = home.browser()
    come(other)
    assert signed_in(other) == "bob"


def test_the_only_way_in_cannot_be_disconnected_by_oneself_but_by_an_administrator(home, company):
    browser, identity = home.browser(), {"issuer": company.url, "subject": ALICE["sub"]}
    come(browser)
    assert "the only way" in browser.read("/console/account")
    assert browser.send("/console/account/disconnect", **identity).status_code == 403
    desk = home.browser(home.member("carol", role="admin"))
    assert "alice@example.com" in desk.read("/admin/members/1")
    assert "There is no password." in desk.read("/admin/members/1")
    desk.send("/admin/members/1/disconnect", **identity)
    assert identities.of(home.db, 1) == [] and not signed_in(browser)


def test_a_member_without_a_password_can_set_none(home):
    """Whoever has left the company would come in by it."""
    browser = home.browser()
    come(browser)
    assert "Change password" not in browser.read("/console/account")
    fields = {"current": "", "password": "another long one", "again": "another long one"}
    assert browser.send("/console/account/password", **fields).status_code == 403
    answer = home.browser().send("/login", name="alice", password="another long one")
    assert answer.status_code == 200 and not accounts.has_password(home.db, 1)


# Passwords off


def token_of(home, client) -> str:
    """A token for the forms of a browser that no page has given one."""
    with client.session_transaction() as session:
        session["csrf_token"] = "raw"
    return URLSafeTimedSerializer(home.app.secret_key, salt="wtf-csrf-token").dumps("raw")


def test_where_passwords_are_off_there_is_no_form_and_none_is_read(make_home):
    home = make_home(passwords=False)
    home.member("carol", role="admin")
    browser = home.browser()
    html = browser.page("/login")
    assert "Sign in with" in html and 'type="password"' not in html and "/register" not in html
    assert "Registration is closed" in browser.read("/register")
    sent = {"csrf_token": token_of(home, browser.client), "name": "carol", "password": PASSWORD}
    assert browser.client.post("/login", data=sent).status_code == 403
    sent |= {"name": "dora", "again": PASSWORD}
    assert "Registration is closed" in browser.text(browser.client.post("/register", data=sent))
    assert not signed_in(browser) and accounts.named(home.db, "dora") is None


def test_where_passwords_are_off_nobody_sets_one(make_home):
    home = make_home(passwords=False, admin_groups=["staff"])
    browser = home.browser()
    come(browser)
    fields = {"current": PASSWORD, "password": "another long one", "again": "another long one"}
    assert browser.send("/console/account/password", **fields).status_code == 403
    assert 'type="password"' not in browser.page("/admin/members/1")
    assert 'type="password"' not in browser.page("/admin/members/new")
    assert browser.send("/admin/members/1/password").status_code == 404
    browser.send("/admin/members/new", name="dora", role="member")
    dora = accounts.named(home.db, "dora")
    assert dora and not accounts.has_password(home.db, dora.id)


def test_the_api_takes_tokens_alone_whatever_signs_people_in(make_home):
    home = make_home(passwords=False)
    home.member("carol", role="admin")
    for headers in (
        {"Authorization": "Basic Y2Fyb2w6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5"},
        {"Authorization": f"Bearer {PASSWORD}"},
    ):
        assert home.app.test_client().get("/api/v1/models", headers=headers).status_code == 401


def test_an_operator_is_let_back_in_once_by_the_command_line(make_home, company):
    home = make_home(passwords=False)
    carol = home.member("carol", role="admin")
    company.broken = {"/.well-known/openid-configuration"}
    key, browser = way_in.make(home.db, carol.id), home.browser()
    assert "signs you in once" in browser.read(f"/sign-in/once?key={key}")
    sent = {"csrf_token": token_of(home, browser.client), "key": key}
    assert browser.client.post("/sign-in/once", data=sent).headers["Location"] == "/console"
    assert signed_in(browser) == "carol"
    assert home.browser().get(f"/sign-in/once?key={key}").status_code == 404
    assert home.browser().get("/sign-in/once?key=guessed").status_code == 404


def test_the_way_back_in_ends_after_minutes_and_opens_to_nobody_disabled(make_home, monkeypatch):
    home = make_home(passwords=False)
    bob = home.member("bob")
    monkeypatch.setattr(way_in, "GOOD_MS", -1)
    assert not way_in.opens(home.db, way_in.make(home.db, bob.id))
    monkeypatch.setattr(way_in, "GOOD_MS", 60_000)
    key, browser = way_in.make(home.db, bob.id), home.browser()
    accounts.disable(home.db, bob.id)
    sent = {"csrf_token": token_of(home, browser.client), "key": key}
    assert browser.client.post("/sign-in/once", data=sent).status_code == 403
    assert not signed_in(browser)


# What wants a proof


def test_an_administrator_without_a_password_proves_it_at_the_provider(make_home, company):
    home = make_home(admin_groups=["staff"])
    desk, bob = home.browser(), home.member("bob")
    come(desk)
    with desk.client.session_transaction() as session:
        session["since"] -= 3600
    asked = desk.send(f"/admin/members/{bob.id}/disable")
    assert "Is it still you?" in desk.text(asked) and not accounts.find(home.db, bob.id).disabled
    company.bend = lambda claims: claims | {"auth_time": int(time.time()) - 3600}
    assert come(desk, "/sign-in/begin?prove=&next=/admin/members").status_code == 400
    company.bend = lambda claims: claims | {"auth_time": int(time.time())}
    answer = come(desk, "/sign-in/begin?prove=&next=/admin/members")
    assert answer.headers["Location"] == "/admin/members"
    assert any(given.get("prompt") == "login" for _, given in company.asked)
    desk.send(f"/admin/members/{bob.id}/disable")
    assert accounts.find(home.db, bob.id).disabled


def test_a_check_that_nobody_noticed_proves_nothing(make_home):
    home = make_home(admin_groups=["staff"])
    desk, bob = home.browser(), home.member("bob")
    come(desk)
    age(desk, 8 * 3600 + 1)
    with desk.client.session_transaction() as session:
        session["since"] -= 8 * 3600
    come(desk, "/admin/")
    assert "Is it still you?" in desk.text(desk.send(f"/admin/members/{bob.id}/disable"))


def test_another_person_cannot_prove_it(make_home, company):
    home = make_home(admin_groups=["staff"])
    desk = home.browser()
    come(desk)
    company.person = CAROL
    assert come(desk, "/sign-in/begin?prove=").status_code == 403
