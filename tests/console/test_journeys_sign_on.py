"""A member comes by single sign-on, uses the relay, and is out when they have left: in real
Chromium, through a provider that asks them to click."""

import pytest

from members import accounts, identities
from tests.browser_stage import Visitors, fits
from tests.identity_provider import ALICE, IdentityProvider
from tests.stage import configuration, in_thread, write_config

PASSWORD = "some words in a row"


@pytest.fixture(scope="module")
def company():
    with IdentityProvider() as provider:
        provider.asks = True
        yield provider


@pytest.fixture(scope="module")
def relay(company, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sign-on")
    rules = company.settings | {"button": "Example Corp", "domains": ["example.com"]}
    changes = {"site": {"language": "en"}, "sign_in": rules, "models": [], "upstreams": []}
    config = configuration(folder, "http://127.0.0.1:9", changes)
    started = in_thread(write_config(folder, config), folder / "relay.db")
    accounts.add(started.db, "carol", PASSWORD, role="admin")
    yield started
    started.stop()


@pytest.fixture
def visit(chromium, relay):
    with Visitors(chromium, relay.url) as visitors:
        yield visitors


def test_a_member_comes_by_single_sign_on_and_is_out_when_they_have_left(visit, relay, company):
    page = visit("/console/usage?model=x")
    page.get_by_role("link", name="Sign in with Example Corp").click()
    page.get_by_role("link", name="Sign in as Alice Liddell").click()
    page.get_by_text("Welcome, alice.").wait_for()
    assert page.url == f"{relay.url}/console/usage?model=x"

    page.goto("/console/tokens/new")
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create the API key").click()
    token = page.locator("#fresh-token").inner_text()
    assert relay.client(token).get("/api/v1/models").status == 200

    page.goto("/console/account")
    page.get_by_text("alice@example.com").wait_for()
    assert page.get_by_text("Change password").count() == 0
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.get_by_role("link", name="Sign in with Example Corp").click()
    page.get_by_role("link", name="Sign in as Alice Liddell").click()
    page.wait_for_url("**/console")

    company.person = ALICE | {"email": "alice@gone.example"}
    other = visit("/login")
    other.get_by_role("link", name="Sign in with Example Corp").click()
    other.get_by_role("link", name="Sign in as Alice Liddell").click()
    other.get_by_text("not among those that may come here").wait_for()
    other.expected = ["403"]
    page.goto("/console")
    page.wait_for_url("**/login?next=**")
    company.person = dict(ALICE)


def test_who_has_a_password_connects_it_and_the_form_leads_to_the_provider(visit, relay, company):
    """A browser refuses to be redirected off the site by a form: the way there is a page."""
    company.person = ALICE | {"sub": "carols", "email": "carol@example.com", "name": "Carol"}
    page = visit("/login")
    page.locator("#name").fill("carol")
    page.locator("#password").fill(PASSWORD)
    page.locator("#password").press("Enter")
    page.wait_for_url("**/console")
    page.goto("/console/account")
    page.get_by_role("button", name="Connect Example Corp").click()
    page.get_by_role("link", name="Sign in as Carol").click()
    page.get_by_text("From now on you can come in by single sign-on.").wait_for()
    carol = accounts.named(relay.db, "carol")
    assert [each.subject for each in identities.of(relay.db, carol.id)] == ["carols"]
    page.goto(f"/admin/members/{carol.id}")
    page.get_by_text("There is a password, too.").wait_for()
    company.person = dict(ALICE)


@pytest.mark.parametrize("path", ["/login", "/sign-in/callback"])
def test_the_doors_are_whole_on_a_phone_in_chinese(visit, path):
    page = visit(path, width=360, language="zh-CN", theme="dark")
    page.expected = ["400"]
    assert fits(page)
    assert page.locator("html").get_attribute("lang") == "zh-CN"
