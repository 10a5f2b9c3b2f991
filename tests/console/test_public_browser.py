"""The public pages in real Chromium.

Nothing breaks the content policy, nothing overflows, keys and copying work.
"""

import threading

import pytest

from tests.browser_stage import Visitors, fits
from tests.console.console_stage import site

PAGES = [
    "/",
    "/models",
    "/models/tiered-2",
    "/calculator?grant=1500",
    "/docs/",
    "/docs/chat",
    "/docs/errors",
    "/docs/billing",
    "/docs/rates",
    "/docs/tools",
    "/docs/tools/claude-code",
    "/docs/tools/dify",
    "/docs/tools/cc-switch",
    "/no-such-page",
]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The console on a free port."""
    from waitress import create_server

    folder = tmp_path_factory.mktemp("site")
    app = site(folder, site={"public_url": "http://127.0.0.1:8000"})
    server = create_server(app, host="127.0.0.1", port=0)
    threading.Thread(target=server.run, daemon=True).start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


@pytest.fixture
def opened(chromium, address):
    """Opens a page: `opened(path, width=..., language=..., scripts=...)`."""
    with Visitors(chromium, address) as visitors:
        yield visitors


@pytest.mark.parametrize(
    "language, width, theme", [("zh-CN", 1280, "light"), ("en-GB", 360, "dark")]
)
def test_no_page_breaks_the_policy_or_its_frame(opened, language, width, theme):
    page = opened("/", width, language, theme)
    page.expected = ["404"]
    for path in PAGES:
        page.goto(path)
        assert fits(page), path
        assert page.locator("h1").is_visible()


def test_the_base_address_is_copied_by_a_click(opened):
    page = opened("/")
    page.evaluate("""() => { window.said = []; const button = document.querySelector("[data-copy=base-address]");
      new MutationObserver(() => said.push(button.textContent)).observe(button, { childList: true }) }""")
    page.locator("[data-copy=base-address]").click()
    page.wait_for_function("() => said.includes('Copied') && said.includes('Copy')")  # for a moment
    assert page.evaluate("navigator.clipboard.readText()") == "http://127.0.0.1:8000/api/v1"
    assert page.get_by_role("status").text_content() == "Copied"  # read out; a button is not


def test_samples_are_tabs_that_keys_walk_through(opened):
    page = opened("/docs/chat")
    tabs = page.get_by_role("tab")
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("tab", name="Python", selected=True).wait_for()
    assert (
        page.get_by_role("tabpanel").locator("visible=true").inner_text().count("import requests")
        == 1
    )
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.get_by_role("tab", name="Java", exact=True, selected=True).wait_for()
    page.keyboard.press("Home")
    assert tabs.first.get_attribute("aria-selected") == "true"
    page.keyboard.press("End")
    assert tabs.last.get_attribute("aria-selected") == "true"


def test_a_filter_does_not_act_while_arrows_walk_through_it(opened):
    page = opened("/docs/tools/codex")
    field = page.get_by_label("Model in the examples")
    field.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    assert page.url.endswith("/docs/tools/codex")
    chosen = field.input_value()
    page.get_by_role("button", name="Fill in").first.click()
    page.wait_for_url(f"**/docs/tools/codex?model={chosen}*")


def test_a_model_is_picked_without_a_further_click(opened):
    page = opened("/docs/tools/codex")
    page.get_by_label("Model in the examples").select_option("tiered-2")
    page.wait_for_url("**/docs/tools/codex?model=tiered-2")
    assert 'model = "tiered-2"' in page.locator("#snippet-codex-toml").inner_text()


def test_everything_is_there_without_scripts(opened):
    page = opened("/docs/chat", scripts=False)
    for sample in ("snippet-curl-sh", "snippet-chat-py", "snippet-chat-mjs", "snippet-chat-java"):
        assert page.locator(f"#{sample}").is_visible()
    assert page.locator("button.copy").first.is_hidden()
    page.goto(page.url.replace("/docs/chat", "/models"))
    page.get_by_label("Search").fill("gratis")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**q=gratis*")
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="中文").first.click()
    page.locator("html[lang=zh-CN]").wait_for()
    assert page.locator("tbody tr").count() == 1


def test_the_first_key_leads_to_the_content_and_the_focus_is_seen(opened):
    page = opened("/models")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.wait_for_url("**/models#main")
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_side_of_the_documentation_folds_on_a_phone(opened):
    page = opened("/docs/errors", width=360)
    link = page.get_by_role("link", name="Streaming").locator("visible=true")
    assert link.count() == 0
    page.locator("details.folded summary").click()
    link.click()
    page.wait_for_url("**/docs/streaming")


def test_a_theme_that_was_chosen_wins_over_the_systems(opened):
    page = opened("/?theme=dark")
    page.goto(page.url.split("?")[0])
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(16, 20, 21)"
