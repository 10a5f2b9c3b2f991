"""What an identity provider may say wrongly, slowly or in an odd shape, and who is let in by it.

The provider is a real socket; what it says is bent by each test.
"""

import http.client
import json
import socket
import threading
import time
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jws

import settings
from console.sign_on import provider
from console.sign_on.person import Person, Refused, check, from_claims
from settings.sign_in import SignIn
from tests.console.member_stage import house
from tests.identity_provider import ALICE, SECRET, IdentityProvider

ISSUER = "https://sso.example"
CORP = SignIn(issuer=ISSUER, client_id="x", domains=("corp.com",), emails=("kay@home.example",))


# What is an address


NO_ADDRESSES = [
    "a" * 246 + "@corp.com.evil.com",
    "a" * 300 + "@corp.com",
    "corp.com",
    "@corp.com",
    "a@",
    "a@evil.com \n@corp.com",
    "a@evil.com @corp.com",
    "evil@evil.com@corp.com",
    "a b@corp.com",
    "a\x00@corp.com",
    "a\u200b@corp.com",
    "a\ud800@corp.com",
]


@pytest.mark.parametrize("email", NO_ADDRESSES)
def test_what_is_no_address_is_of_no_company(email):
    with pytest.raises(Refused, match="no_email"):
        check(CORP, from_claims(CORP, ALICE | {"email": email}))
    with pytest.raises(Refused, match="no_email"):  # whoever says it, a proxy's header too
        check(CORP, Person(ISSUER, "s", email=email, verified=True, domain="corp.com"))


@pytest.mark.parametrize("email", ["A@corp.com", "a@CORP.com", " a@corp.com ", "用户@corp.com"])
def test_an_address_is_of_the_company_whatever_its_letters_size(email):
    check(CORP, from_claims(CORP, ALICE | {"email": email}))


@pytest.mark.parametrize(
    "email", ["\u212aay@home.example", "kay@home.e\u212aample", "a@\uff43orp.com"]
)
def test_a_letter_that_looks_like_another_is_another(email):
    with pytest.raises(Refused, match="not_of_the_company"):
        check(CORP, from_claims(CORP, ALICE | {"email": email}))
    with pytest.raises(Refused, match="not_of_the_company"):
        check(CORP, Person(ISSUER, "s", email=email, verified=True, domain="corp.com"))


def test_the_kelvin_sign_in_a_domain_is_no_k():
    rules = SignIn(issuer=ISSUER, client_id="x", domains=("k.com",))
    check(rules, from_claims(rules, ALICE | {"email": "a@K.com"}))
    with pytest.raises(Refused, match="not_of_the_company"):
        check(rules, from_claims(rules, ALICE | {"email": "a@\u212a.com"}))


@pytest.mark.parametrize(
    "hd", ["corp.com" + " " * 300 + ".evil.com", "\u212aorp.com", ["corp.com"]]
)
def test_google_s_word_for_a_company_is_taken_as_it_is(hd):
    rules = SignIn(
        issuer="https://accounts.google.com", client_id="x", domains=("corp.com", "korp.com")
    )
    with pytest.raises(Refused, match="not_of_the_company"):
        check(rules, from_claims(rules, ALICE | {"hd": hd}))


@pytest.mark.parametrize("email", ["a@b@c.com", "@c.com", "a b@c.com", "nobody"])
def test_a_single_address_in_the_settings_is_an_address(email):
    with pytest.raises(settings.SettingsError, match="must be an e-mail address"):
        settings.check({"plans": {"free": {}}, "sign_in": {"emails": [email]}}, {})


# Whose header is believed


def by_header(trusted_proxy: str):
    tables = {"sign_in": {"header": "Remote-User"}, "server": {"trusted_proxy": trusted_proxy}}
    return settings.check({"plans": {"free": {}}} | tables, {})


WIDE = ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.1, 8.0.0.0/7", "2000::/3", "0::/15"]


@pytest.mark.parametrize("networks", WIDE)
def test_a_header_is_believed_from_no_network_with_strangers_in_it(networks):
    with pytest.raises(settings.SettingsError) as said:
        by_header(networks)
    assert "sign_in.header: server.trusted_proxy has strangers in it" in str(said.value)


@pytest.mark.parametrize("networks", ["10.0.0.0/8", "127.0.0.1,::1", "fd00::/16", "172.16.0.0/12"])
def test_a_header_is_believed_from_a_network_of_ones_own(networks):
    assert by_header(networks).server.trusted_proxy == networks


def test_without_a_header_a_wide_network_may_still_forward_addresses():
    assert settings.check({"plans": {"free": {}}, "server": {"trusted_proxy": "0.0.0.0/0"}}, {})


# Slow answers


class Rude(IdentityProvider):
    """It says on some paths what a function of (connection) writes, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.rude: dict = {}

    def __enter__(self):
        super().__enter__()
        polite = self._server.RequestHandlerClass
        there = self

        class Answers(polite):
            def _answer(self, given):
                path = urlsplit(self.path).path
                if path not in there.rude:
                    super()._answer(given)
                    return
                there.asked.append((path, given))
                try:
                    there.rude[path](self.wfile)
                except OSError:
                    pass
                self.close_connection = True

        self._server.RequestHandlerClass = Answers
        return self

    def drips(self, first: bytes):
        """A function that says `first`, and a letter a moment after it for ever."""

        def say(out) -> None:
            out.write(first)
            while not self.woken(0.05):
                out.write(b"a")

        return say


def says(body: bytes, *headers: bytes):
    """A function that answers 200 with this body."""
    head = [b"HTTP/1.1 200 OK", b"Content-Type: application/json", *headers]
    head.append(b"Content-Length: %d" % len(body))
    return lambda out: out.write(b"\r\n".join([*head, b"", body]))


@pytest.fixture
def company():
    with Rude() as provider:
        yield provider


def at(company) -> provider.Provider:
    """What the console keeps of a provider, without a console."""
    rules = SignIn(**company.settings, keys=(SECRET,))
    return provider.Provider(rules)


WAY = {"state": "s", "nonce": "n", "verifier": "v" * 43, "back": "http://localhost/back"}
DISCOVERY = "/.well-known/openid-configuration"


def named(there: provider.Provider) -> dict:
    """Go to the provider and back; the claims of who came."""
    parts = urlsplit(there.way(**WAY))
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.request("GET", f"{parts.path}?{parts.query}")
    back = connection.getresponse().headers["Location"]
    connection.close()
    code = parse_qs(urlsplit(back).query)["code"][0]
    return there.claims(code=code, nonce="n", verifier="v" * 43, back="http://localhost/back")


@pytest.mark.parametrize("path", [DISCOVERY, "/token", "/keys"])
@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
    ],
)
def test_an_answer_that_drips_ends_in_time_wherever_it_drips(company, monkeypatch, path, first):
    monkeypatch.setattr(provider, "WHOLE_S", 0.5)
    company.rude[path] = company.drips(first)
    began = time.monotonic()
    with pytest.raises(provider.Unreachable):
        named(at(company))
    assert time.monotonic() - began < 10


def test_an_answer_of_a_proxy_that_drips_ends_in_time(company, monkeypatch):
    monkeypatch.setattr(provider, "WHOLE_S", 0.5)
    listening = socket.create_server(("127.0.0.1", 0))
    gone = threading.Event()

    def serve():
        line, _ = listening.accept()
        with line:
            line.recv(65536)
            line.sendall(b"HTTP/1.1 200 O")
            while not gone.wait(0.05):
                try:
                    line.sendall(b"a")
                except OSError:
                    return

    threading.Thread(target=serve, daemon=True).start()
    proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
    there = provider.Provider(SignIn(issuer="https://sso.example", client_id="x", proxy=proxy))
    began = time.monotonic()
    with pytest.raises(provider.Unreachable):
        there.way(**WAY)
    assert time.monotonic() - began < 10
    gone.set()
    listening.close()


# Answers of an odd shape


DEEP = b"[" * 300_000
ODD = [
    b"[]",
    b'"x"',
    b"null",
    b"5",
    DEEP,
    b'{"a":' * 150_000,
    b"\xff{",
    b"",
    b'{"a":NaN}',
    b'{"a":"\\ud800"}',
]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("path", [DISCOVERY, "/token", "/keys", "/userinfo"])
def test_an_answer_of_an_odd_shape_is_none(company, path, body):
    company.rude[path] = says(body)
    company.bend = lambda claims: {k: v for k, v in claims.items() if k != "email"}
    with pytest.raises(provider.ProviderError):
        named(at(company))


def test_an_answer_that_is_packed_wrongly_is_none(company):
    company.rude[DISCOVERY] = says(b"no gzip at all", b"Content-Encoding: gzip")
    with pytest.raises(provider.Unreachable):
        at(company).way(**WAY)


def test_a_discovery_of_an_odd_shape_is_not_asked_for_by_everybody(company):
    company.rude[DISCOVERY] = says(DEEP)
    there = at(company)
    for _ in range(3):
        with pytest.raises(provider.Unreachable):
            there.way(**WAY)
    assert len(company.asked) == 1


@pytest.mark.parametrize(
    "said",
    [
        {"token_endpoint_auth_methods_supported": 5},
        {"token_endpoint_auth_methods_supported": "client_secret_post"},
        {"authorization_endpoint": "http://[bad"},
        {"authorization_endpoint": "http://127.0.0.1/授权"},
        {"authorization_endpoint": "http://127.0.0.1:99999/a"},
        {"authorization_endpoint": "http://127.0.0.1/a#b"},
        {"userinfo_endpoint": 5},
    ],
)
def test_a_provider_that_describes_itself_oddly_is_a_calm_page(company, tmp_path, said):
    company.metadata = said
    home = house(tmp_path, sign_in=company.settings)
    answer = home.browser().get("/sign-in/begin")
    assert answer.status_code == 503 and "cannot be reached" in answer.get_data(as_text=True)
    home.db.close()


@pytest.mark.parametrize(
    "said",
    [
        {"sub": "a\ud800"},
        {"email": "a\ud800@corp.com"},
        {"name": "a\ud800"},
        {"auth_time": ""},
        {"auth_time": [1]},
        {"exp": [1]},
        {"iat": {}},
        {"nonce": ["n"]},
        {"aud": {"relay": 1}},
        {"nbf": float("inf")},
        {"deep": "DEEP"},
    ],
)
def test_an_id_token_of_an_odd_shape_is_not_believed(company, said):
    company.bend = lambda claims: claims | said
    company.sign = lambda claims: signed_as_it_is(company, claims)
    with pytest.raises(provider.NotBelieved):
        named(at(company))


def signed_as_it_is(company, claims: dict) -> str:
    """A token with a good signature, whatever it says."""
    text = json.dumps(claims).replace('"DEEP"', "[" * 100_000 + "]" * 100_000)
    return jws.serialize_compact(
        {"alg": "RS256", "kid": company.key.kid}, text.encode(), company.key
    )


def test_an_address_and_the_word_that_it_is_verified_are_of_one_source(company):
    """The token's may be what somebody typed, and the user info's another that is verified."""
    company.person = {"sub": "s", "email": "forged@corp.com"}
    company.userinfo = {"sub": "s", "email": "me@evil.com", "email_verified": True, "name": "Me"}
    claims = named(at(company))
    assert claims["email"] == "forged@corp.com" and "email_verified" not in claims
    assert claims["name"] == "Me"
    company.person = {"sub": "s", "email_verified": True}
    company.userinfo = {"sub": "s", "email": "me@evil.com", "auth_time": 1}
    claims = named(at(company))
    assert claims["email"] == "me@evil.com" and "email_verified" not in claims
    assert "auth_time" not in claims  # when somebody proved it, the signed token alone says


# Keys


BAD_KEYS = [
    {"kty": "EC", "crv": "P-999", "kid": "e", "x": "AAAA", "y": "AAAA"},
    {"kty": "RSA", "kid": "e", "n": "!!!!", "e": "AQAB"},
    {"kty": "RSA", "kid": "e", "n": 5, "e": "AQAB"},
    {"kty": "RSA", "kid": "e", "n": "AAAA", "e": "AQAB"},
    {"kty": "OKP", "crv": "Ed448", "kid": "e", "x": "AAAA"},
    {"kty": "AKP", "kid": "e", "alg": "ML-DSA-44", "pub": "AAAA"},
    {"kty": ["RSA"]},
    {"kid": "e"},
    None,
    [1],
]


@pytest.mark.parametrize("bad", BAD_KEYS, ids=range(len(BAD_KEYS)))
def test_a_key_that_cannot_be_read_takes_none_of_the_others_along(company, bad):
    keys = [bad, company.key.as_dict(private=False)]
    company.rude["/keys"] = says(json.dumps({"keys": keys}).encode())
    assert named(at(company))["sub"] == ALICE["sub"]
    company.rude["/keys"] = says(json.dumps({"keys": [bad]}).encode())
    with pytest.raises(provider.ProviderError):
        named(at(company))


def asked_for_keys(company) -> int:
    return [path for path, _ in company.asked].count("/keys")


def test_keys_that_do_not_come_are_asked_for_once_a_minute_by_all(company, monkeypatch):
    there = at(company)
    named(there)
    there._keys_asked_at -= provider.KEYS_AGAIN_S + 1
    company.broken = {"/keys"}
    strange = company.signed({"sub": "x"}, kid="unheard-of")
    for _ in range(5):
        with pytest.raises(provider.ProviderError):
            there.logged_out(strange)
    assert asked_for_keys(company) == 2
    assert named(there)["sub"] == ALICE["sub"]
    there._keys_at -= provider.KEYS_KNOWN_S + 1  # and old ones are better than none
    there._keys_asked_at -= provider.KEYS_AGAIN_S + 1
    assert named(there)["sub"] == ALICE["sub"] and asked_for_keys(company) == 3


def test_who_comes_by_a_key_that_is_known_waits_for_nobody_who_asks_for_another(company):
    there = at(company)
    named(there)
    there._keys_asked_at -= provider.KEYS_AGAIN_S + 1
    with there._asking:  # as somebody does, of a provider that is silent
        assert named(there)["sub"] == ALICE["sub"]
        with pytest.raises(provider.NotBelieved):
            there.logged_out(company.signed({"sub": "x"}, kid="unheard-of"))


def test_without_any_keys_they_are_asked_for_again_a_moment_later(company, monkeypatch):
    there = at(company)
    company.broken = {"/keys"}
    for _ in range(3):
        with pytest.raises(provider.Unreachable):
            named(there)
    assert asked_for_keys(company) == 1
    company.broken = set()
    monkeypatch.setattr(provider, "DEAD_S", 0)
    assert named(there)["sub"] == ALICE["sub"]


# Logout tokens


EVENT = provider.LOGOUT_EVENT


@pytest.mark.parametrize(
    "changes",
    [
        {"events": f"xx {EVENT}"},
        {"events": [EVENT]},
        {"events": 5},
        {"events": {EVENT: 5}},
        {"events": {}},
        {"sub": ["s"]},
        {"sub": ""},
        {"jti": None},
        {"jti": 5},
        {"exp": None},
        {"exp": 5},
        {"iat": 5},
        {"iat": None},
        {"iat": int(time.time()) - 3600, "exp": int(time.time()) + 3600},
    ],
)
def test_what_is_no_logout_token_ends_nothing(company, changes):
    with pytest.raises(provider.NotBelieved):
        at(company).logged_out(company.logout_token(**changes))


def test_a_logout_token_is_good_once(company):
    there, token = at(company), company.logout_token()
    assert there.logged_out(token) == ALICE["sub"]
    with pytest.raises(provider.NotBelieved, match="used before"):
        there.logged_out(token)
    assert there.logged_out(company.logout_token(jti="2")) == ALICE["sub"]


def test_only_so_many_logout_tokens_are_remembered_and_only_while_they_are_good(
    company, monkeypatch
):
    monkeypatch.setattr(provider, "LOGOUTS_MAX", 2)
    there = at(company)
    for jti in "123":
        there.logged_out(company.logout_token(jti=jti))
    assert list(there._logouts) == ["2", "3"]
    there._logouts["2"] = 0
    there.logged_out(company.logout_token(jti="4"))
    assert list(there._logouts) == ["3", "4"]
