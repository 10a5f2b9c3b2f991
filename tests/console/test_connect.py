"""From a clean start to a real answer in Chromium, without a shell; and what goes wrong on the way."""

import re

import pytest

from db import meta
from settings import providers
from tests.browser_stage import Visitors, fits
from tests.console.member_stage import house
from tests.fake_upstream import FakeUpstream, answer
from tests.open_provider import KEY, provider
from tests.stage import free_port, in_process, write_config

PASSWORD = "some words in a row"


@pytest.fixture
def clean(tmp_path):
    """`python app.py` that nobody has set up."""
    port = free_port()
    config = {
        "site": {"language": "en"},
        "server": {"port": port, "drain_s": 1},
        "database": {"path": str(tmp_path / "relay.db")},
    }
    relay = in_process(write_config(tmp_path, config), config)
    yield relay
    relay.stop()


@pytest.fixture
def north():
    with FakeUpstream() as upstream:
        yield upstream.always(provider())


@pytest.fixture
def page(chromium, clean):
    """The page on which the administrator connects a provider, right after set-up."""
    with Visitors(chromium, clean.url) as visit:
        opened = visit("/")
        assert "begins with" in opened.locator(".banner").inner_text()
        opened.goto(re.search(r"http://\S+/setup\?key=\S+", clean.log.read_text())[0])
        opened.get_by_label("Name").fill("ada")
        opened.get_by_label("Password", exact=True).fill(PASSWORD)
        opened.get_by_label("Once more").fill(PASSWORD)
        opened.get_by_role("button", name="Make me the administrator").click()
        opened.locator("#next-step a").click()
        yield opened


def connect(page, url: str, key: str, name: str = "north") -> None:
    page.get_by_label("Address", exact=False).first.fill(url)
    page.get_by_label("Key").fill(key)
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Connect and try").click()


def test_from_a_clean_start_to_a_streamed_answer_without_a_shell(page, north, clean):
    fits(page)
    connect(page, f"http://127.0.0.1:{north.port}", KEY)
    page.locator("#answered").wait_for()
    fits(page)
    page.get_by_role("button", name="Keep these models").click()
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Hello", exact=False).first.wait_for()
    page.wait_for_function("!document.querySelector('#said').hasAttribute('aria-busy')")
    assert len(page.locator("#said").inner_text()) > 3
    fits(page)
    assert not clean.client().get("/healthz").json["demo"]
    assert [each["name"] for each in _kept(clean)["upstreams"]] == ["north"]
    assert "input_tokens_max" not in _kept(clean)["plans"]["free"]
    assert KEY not in page.content() + clean.log.read_text()
    holding = [
        path.name
        for path in clean.config.parent.rglob("*")
        if path.is_file() and KEY.encode() in path.read_bytes()
    ]
    assert holding == ["providers.toml"]


@pytest.mark.parametrize(
    ("url", "key", "reason"),
    [
        (
            "http://127.0.0.1:{port}/v1",
            "sk-of-somebody-else-entirely",
            "Incorrect API key provided",
        ),
        ("http://127.0.0.1:{port}/wrong/v1", KEY, "there is no API"),
        ("http://127.0.0.1:{dead}/v1", KEY, "Nobody listens at this address"),
        ("http://no-such-host.invalid/v1", KEY, "Nobody knows this host name"),
    ],
)
def test_what_goes_wrong_is_said_and_mended_on_the_same_page(page, north, clean, url, key, reason):
    connect(page, url.format(port=north.port, dead=free_port()), key)
    assert reason in page.get_by_role("alert").inner_text()
    assert key not in page.content() and not _kept(clean).get("upstreams")
    connect(page, north.url, KEY if key != KEY else "")  # the key is still known
    page.locator("#answered").wait_for()


def test_ollama_needs_no_key(page, clean):
    def script(request):
        if request.path == "/api/tags":
            return answer({"models": [{"name": "qwen3:8b"}]})
        if request.path.startswith("/v1/chat"):
            return provider(key=None)(request)
        return answer(b"404 page not found", 404, content_type="text/plain")

    with FakeUpstream() as ollama:
        ollama.always(script)
        page.get_by_role("link", name="Ollama").first.click()
        connect(page, f"http://127.0.0.1:{ollama.port}", "", "ollama")
        page.locator("#answered").wait_for()
        page.get_by_role("button", name="Keep these models").click()
        page.locator("#said").wait_for(state="attached")
    assert _kept(clean)["models"][0]["prices"] == {"input": "0", "output": "0"}


def test_a_provider_is_switched_off_and_on_given_another_key_and_removed(page, north, clean):
    connect(page, north.url, KEY)
    page.get_by_role("button", name="Keep these models").click()
    page.get_by_role("button", name="Switch off").click()
    assert "Switched off" in page.locator(".head").inner_text()
    page.get_by_role("button", name="Switch on").click()
    page.get_by_label("Another key").fill("sk-a-key-that-is-wrong")
    page.get_by_role("button", name="Change the key").click()
    assert "The old key stays" in page.locator(".alert.bad").inner_text()
    north.always(provider(key="sk-the-next-key-of-north"))
    page.get_by_label("Another key").fill("sk-the-next-key-of-north")
    page.get_by_role("button", name="Change the key").click()
    assert "in force" in page.locator(".alert.good").inner_text()
    page.get_by_role("button", name="Remove").click()
    page.goto(f"{clean.url}/admin/audit")
    trail = page.locator("table").inner_text()
    for action in ("connected", "switched off", "switched on", "key changed", "removed"):
        assert f"{action}" in trail
    assert _kept(clean)["upstreams"] == [] and clean.client().get("/healthz").json["demo"]


def _kept(relay) -> dict:
    return providers.read(relay.config.parent / "providers.toml")


def test_the_plaza_says_honestly_how_a_model_is(start_relay, fake, person):
    relay = start_relay(site={"language": "en"})

    def shown() -> str:
        return re.search(
            r'class="badge[^>]*>([^<]+)<', relay.client().get("/models").body.decode()
        )[1]

    assert shown() == "Not tested"
    meta.put(relay.db, "upstream_tests", {"fake": {"at": 1, "code": "upstream_account"}})
    assert shown() == "Fails"
    meta.put(relay.db, "upstream_tests", {"fake": {"at": 1, "code": "ok"}})
    assert shown() == "Works"
    fake.always(answer({"error": {"message": "broken"}}, 500))
    person("alice", relay).given(wallet="10").chat()
    assert shown() == "Fails"


def test_a_fresh_token_says_beside_an_agents_settings_that_the_plan_refuses_it(tmp_path):
    home = house(tmp_path)
    alice = home.browser(home.member("alice"))
    html = alice.send("/console/tokens/new", name="first").get_data(as_text=True)
    claude = html.split('id="tool-claude-code"')[1].split("</section>")[0]
    assert "your plan takes at most 5,000" in claude and "ask your administrator" in claude
    assert "your plan takes" not in html.split('id="tool-qwen-code"')[1].split("</section>")[0]
    home.db.close()
