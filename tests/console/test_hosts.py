"""By which names browsers may come, and whom members ask."""

import pytest

from tests.client import CHAT, ask


def page(relay, host, path="/"):
    return relay.client().get(path, host=host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "192.168.1.7",
        "[::1]:8000",
        "localhost:1",
        "relay",
        "nas.local",
        "box.lan",
        "relay.internal",
        "relay.home.arpa.",
        "RELAY.example.com:8443",
        "other.example.org",
    ],
)
def test_names_that_nobody_else_can_hold_and_names_of_the_settings_are_known(start_relay, host):
    relay = start_relay(
        site={"public_url": "https://relay.example.com", "hosts": ["Other.example.org"]}
    )
    assert page(relay, host).status == 200


@pytest.mark.parametrize("path", ["/", "/console", "/login", "/admin/"])
def test_a_name_of_the_internet_gets_a_page_with_the_line_to_add(relay, path):
    answer = page(relay, "evil.example.com:8000", path)
    assert answer.status == 400
    assert b"hosts = [&#34;evil.example.com&#34;]" in answer.body


def test_what_is_no_host_is_not_repeated(relay):
    answer = page(relay, "a.b/<script>")
    assert answer.status == 400 and b"script>" not in answer.body.split(b"<main")[1]


@pytest.mark.parametrize("host", ["relay..", "." * 3, "x" * 64, "a." + "x" * 300 + ":80"])
@pytest.mark.parametrize("path", ["/", "/login", "/static/console.css", "/healthz", "/v1/models"])
def test_a_host_of_which_no_address_can_be_made_is_a_mistake_of_the_caller(relay, host, path):
    assert page(relay, host, path).status == 400


def test_programs_prove_who_they_are_and_come_by_any_name(relay, alice, fake):
    assert page(relay, "relay.example.com", "/healthz").status == 200
    assert page(relay, "relay.example.com", "/v1/models").status == 401


def test_members_read_whom_to_ask_on_pages_and_where_money_is_missing(start_relay, person, fake):
    relay = start_relay(site={"contact": "Li Hua, li@example.com"})
    assert b"li@example.com" in page(relay, "localhost").body
    poor = person("bob", relay)
    answer = poor.post(CHAT, ask("x" * 400_000))
    assert answer.status in (400, 402)
    assert answer.json["error"]["message"].endswith("Ask for help: Li Hua, li@example.com")
