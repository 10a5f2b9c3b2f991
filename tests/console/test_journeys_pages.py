"""Every page of a relay that a team has used for a month, in real Chromium: nothing overflows,
breaks the content policy, lacks a name for who listens, or forgets its other language."""

from importlib.resources import files

import pytest

from tests.browser_stage import Visitors, fits, sign_in
from tests.console import seed_month
from tests.stage import in_thread, shown_config

# What a screen reader would stumble over.
NAMELESS = """() => {
  const named = (e) => e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim() || e.title;
  const found = [...document.querySelectorAll("a, button, input:not([type=hidden]), select, textarea, [role=img], nav")]
    .filter((e) => !named(e) && e.checkVisibility() && !e.closest("[aria-hidden=true]")).map((e) => e.outerHTML);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  const headings = [...document.querySelectorAll("main :is(h1, h2, h3, h4)")]
    .filter((e) => e.checkVisibility() && !e.closest("nav"));
  const levels = headings.map((e) => Number(e.tagName[1]));
  return [
    ...found, ...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `twice: #${id}`),
    ...levels.flatMap((level, i) => level - (levels[i - 1] ?? 0) > 1 ? [`leap: ${headings[i].outerHTML}`] : []),
    ...(levels.filter((level) => level === 1).length === 1 ? [] : ["not one h1"]),
    ...[...document.querySelectorAll("[aria-describedby], label[for]")]
      .flatMap((e) => (e.getAttribute("aria-describedby") ?? e.htmlFor).split(" "))
      .filter((id) => !document.getElementById(id)).map((id) => `nowhere: #${id}`),
  ];
}"""


AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
FAULTS = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .map((rule) => [rule.id, rule.nodes.slice(0, 3).map((node) => node.html.slice(0, 160))])"""
WEIGHT_MAX = 100_000  # bytes of a page's HTML, uncompressed


@pytest.fixture(scope="module")
def relay(tmp_path_factory):
    """A relay in demo mode."""
    folder = tmp_path_factory.mktemp("lived-in")
    started = in_thread(shown_config(folder), folder / "relay.db")
    yield started
    started.stop()


@pytest.fixture(scope="module")
def month(relay):
    return seed_month.live(relay.app, busy=0.15)


@pytest.fixture(scope="module")
def signed_in(chromium, relay, month):
    """The cookies of who signed in once: name -> state of a browser."""
    states = {None: None}
    with Visitors(chromium, relay.url) as visit:
        for name in ("alice", "carol"):
            page = visit("/login")
            sign_in(page, name, seed_month.PASSWORD)
            states[name] = page.context.storage_state()
    return states


@pytest.fixture
def visit(chromium, relay, month, signed_in):
    """Opens a page as somebody: `visit("/console", who="alice")`."""
    with Visitors(chromium, relay.url) as visitors:
        yield lambda path="/", who=None, **options: visitors(
            path, storage_state=signed_in[who], **options
        )


def pages_of(who: str | None, month) -> dict[str, str]:
    return {
        None: lambda _: seed_month.public_pages(),
        "alice": seed_month.member_pages,
        "carol": seed_month.admin_pages,
    }[who](month)


@pytest.mark.parametrize(
    "language, theme, axe_at", [("en-GB", "dark", 1280), ("zh-CN", "light", 360)]
)
@pytest.mark.parametrize("who", [None, "alice", "carol"])
def test_every_page_is_whole_on_a_desk_a_tablet_and_a_phone(
    visit, month, who, language, theme, axe_at
):
    """It fits, names all that it has, complains of nothing, and axe finds nothing."""
    page, widths = visit("/", who, language=language, theme=theme), [1280, 880, 360]
    page.expected = ["404"]  # of the page that is not there
    found = {}
    for name, path in pages_of(who, month).items():
        answer = page.goto(path)
        for width in widths:
            page.set_viewport_size({"width": width, "height": 800})
            assert fits(page), f"{name} is wider than {width}"
            if width == axe_at:
                page.evaluate(AXE)
                found[name] = page.evaluate(FAULTS)
        widths.reverse()  # the next page is looked at in this width first
        lang, other = page.evaluate("""() => [document.documentElement.lang,
                                              new URL(document.querySelector(".tools a[hreflang]").href).pathname]""")
        assert lang == {"en-GB": "en"}.get(language, language), name
        assert other == path.split("?")[0] or name == "no-page", name
        assert page.evaluate(NAMELESS) == [], name
        assert page.complaints == [] or name == "no-page", (name, page.complaints)
        weight = len(answer.body())
        assert weight <= WEIGHT_MAX, f"{name} is {weight} bytes"
    assert not any(found.values()), {
        (rule, html) for faults in found.values() for rule, nodes in faults for html in nodes
    }


def test_no_page_is_forgotten(relay, month):
    addresses = relay.app.url_map.bind("")
    walked = {
        addresses.match(path.split("?")[0])[0]
        for who in (None, "alice", "carol")
        for name, path in pages_of(who, month).items()
        if name != "no-page"
    }
    there = {
        rule.endpoint
        for rule in relay.app.url_map.iter_rules()
        if "GET" in (rule.methods or ())
        and not rule.endpoint.startswith(("api.", "ops.", "static"))
    }
    files = {
        "docs.openapi_json",
        "usage.find",
        "admin.find_call",
        "docs.administration_json",
        "docs.postman_json",
        "usage.cost",
        "public.setup_sh",
        "public.setup_ps1",
        *(name for name in there if name.endswith("csv")),
    }
    # Gone once there is an administrator, and not there without a provider or an operator's key.
    doors = {"signin.setup", "sign_on.begin", "sign_on.callback", "sign_on.ask_once"}
    assert there - walked - files == doors


@pytest.mark.parametrize(
    "who, path",
    [
        (None, "/models?q=qwen"),
        ("alice", "/console/usage?outcome=failed"),
        ("carol", "/admin/codes?state=unused"),
    ],
)
def test_the_language_is_switched_where_one_is(visit, who, path):
    page = visit(path, who)
    page.locator(".tools a[hreflang=zh-CN]").click()
    page.locator("html[lang=zh-CN]").wait_for()
    assert page.url.endswith(f"{path}&lang=zh")
    page.goto(path)  # and stays chosen
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.locator(".tools a[hreflang=en]").click()
    page.locator("html[lang=en]").wait_for()


def test_after_a_form_with_a_mistake_the_language_leads_to_its_page(visit):
    page = visit("/console/wallet", "alice")
    page.get_by_label("Code").fill("no-such-code")
    page.get_by_role("button", name="Redeem").click()
    page.locator(".error").wait_for()
    page.locator(".tools a[hreflang=zh-CN]").click()
    page.wait_for_url("**/console/wallet?lang=zh")
