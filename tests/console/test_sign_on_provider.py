"""What an identity provider may say wrongly, slowly or in an odd shape, and who is let in by it.

The provider is a real socket; what it says is bent by each test.
"""

import pytest

import settings
from console.sign_on.person import Person, Refused, check, from_claims
from settings.sign_in import SignIn
from tests.identity_provider import ALICE

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
