"""Pictures of every page, wide and narrow, light and dark, in both languages: `make screenshots`.

Owns what is photographed and how; the pages and what fills them are lived_in's. Writes to
screenshots/, a folder for each look. With words on the command line only the pages whose names hold
one of them: `python tests/screenshots.py wallet usage`.
"""

import itertools
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import billing  # noqa: E402
from members import accounts  # noqa: E402
from tests import browser_stage  # noqa: E402
from tests.browser_stage import Visitors, sign_in  # noqa: E402
from tests.console import seed_month  # noqa: E402
from tests.console.seed_month import PASSWORD  # noqa: E402
from tests.stage import free_port, in_thread, shown_config  # noqa: E402

FOLDER = ROOT / "screenshots"
WIDTHS, THEMES, LANGUAGES = (
    {"wide": 1280, "narrow": 390},
    ("light", "dark"),
    {"en": "en-GB", "zh": "zh-CN"},
)


# ---- pages that something must be done for: each takes a browser's page, and its language does not


# matter


def submit(page, path: str, **fields: str) -> None:
    """Open a page, fill fields in by their id, and send the form."""
    page.goto(path)
    for name, value in fields.items():
        page.locator(f"#{name.replace('_', '-')}").fill(value)
    page.locator("main form .primary").first.click()


def fresh_token(page) -> None:
    submit(page, "/console/tokens/new", name="iPad")
    page.locator("#fresh-token").wait_for()


def conversation(page) -> None:
    page.goto("/console/test")
    page.locator("#model").select_option("deepseek-r1")
    for text in ("What is a relay?", "为什么天空是蓝色的？"):
        page.locator("#text").fill(text)
        page.locator("#send").click()
        page.locator(".turn.theirs:last-child .tail a").wait_for()


def prove(page) -> None:
    """Send a form with a wrong password of one's own, as if the session were old."""
    page.goto("/admin/members/9")
    page.locator("#credit-amount").fill("5")
    page.evaluate("""() => document.querySelector("#credit form").insertAdjacentHTML(
        "beforeend", '<input type=hidden name=own_password value=wrong>')""")
    page.locator("#credit .primary").click()
    page.locator("#own_password").wait_for()


def new_password(page) -> None:
    page.goto("/admin/members/9")
    page.locator("#access .card").first.locator("button").click()
    page.wait_for_url("**/password#access")


BY_ALICE = {"model-test-talk": conversation}
BY_BOB = {
    "token-fresh": fresh_token,
    "token-mistaken": lambda page: submit(page, "/console/tokens/new", rpm="0"),
    "wallet-code-wrong": lambda page: submit(page, "/console/wallet", code="AAAA-BBBB"),
    "account-mistaken": lambda page: submit(
        page, "/console/account", current="no", password="12345678", again="x"
    ),
}
BY_CAROL = {
    "codes-fresh": lambda page: submit(page, "/admin/codes/new", amount="20", count="3"),
    "codes-mistaken": lambda page: submit(page, "/admin/codes/new", amount="much", count="0"),
    "member-made-not": lambda page: submit(page, "/admin/members/new", name="alice"),
    "prove": prove,
    "member-password": new_password,
    "member-credit-mistaken": lambda page: submit(
        page, "/admin/members/1", **{"credit-amount": "much"}
    ),
}
BY_NOBODY = {
    "sign-in-wrong": lambda page: submit(page, "/login", name="nobody-at-all", password="wrong"),
    "register-mistaken": lambda page: submit(
        page, "/register", name="alice", password="12345678", again="x"
    ),
}
EMPTY = {
    "setup-not": "/setup?key=old",
    "overview-new": "/console",
    "tokens-none": "/console/tokens",
    "usage-no-calls": "/console/usage",
    "wallet-none": "/console/wallet",
    "model-test-none": "/console/test",
    "invites-none": "/console/invites",
    "calls-none": "/admin/calls",
    "codes-none": "/admin/codes",
    "audit-none": "/admin/audit",
    "members-one": "/admin/members",
}
LIVE = {
    "upstreams-live": "/admin/upstreams",
    "connect": "/admin/upstreams/new?preset=deepseek",
    "upstream-live": "/admin/upstreams/fake",
    "models-live": "/models",
    "front-live": "/",
    "admin-models-live": "/admin/models",
}


# ---- three relays: one lived in, one just set up, one with providers of which one fails


def lived_in_relay(folder: Path):
    relay = in_thread(shown_config(folder), folder / "relay.db")
    return relay, seed_month.live(relay.app)


def empty_relay(folder: Path):
    return in_thread(shown_config(folder), folder / "relay.db")


def live_relay(folder: Path):
    """DeepSeek and Zhipu have keys here, and nobody listens where they should be."""
    config, nowhere = shown_config(folder), f"http://127.0.0.1:{free_port()}"
    text = config.read_text(encoding="utf-8")
    text = re.sub(
        r'^base_url = "(https://api.deepseek.com|https://open.bigmodel.cn/api/paas/v4)"',
        f'base_url = "{nowhere}"\nallow_private = true',
        text,
        flags=re.M,
    )
    config.write_text(re.sub(r"^wire_urls = .*", "", text, flags=re.M), encoding="utf-8")
    relay = in_thread(config, folder / "relay.db")
    month = seed_month.live(relay.app, busy=0.2)
    return relay, month


def photograph(browser, address: str, pages: dict, wanted: list[str], state=None) -> int:
    """Take every wanted page in every look; how many pictures that were."""
    pages = {
        name: page
        for name, page in pages.items()
        if not wanted or any(word in name for word in wanted)
    }
    if not pages:
        return 0
    looks = list(itertools.product(WIDTHS, THEMES, LANGUAGES))
    for width, theme, language in looks:
        with Visitors(browser, address) as visit:
            page = visit("/", WIDTHS[width], LANGUAGES[language], theme, storage_state=state)
            page.expected = [""]  # what pages complain of is the tests' business
            for name, what in pages.items():
                page.goto(what) if isinstance(what, str) else what(page)
                page.evaluate("scrollTo(0, 0)")
                page.screenshot(
                    path=FOLDER / f"{width}-{theme}-{language}" / f"{name}.png", full_page=True
                )
    return len(looks) * len(pages)


def signed_in(browser, address: str, name: str):
    with Visitors(browser, address) as visit:
        page = visit("/login")
        sign_in(page, name, PASSWORD)
        return page.context.storage_state()


def main(wanted: list[str]) -> None:
    with ExitStack() as stack, browser_stage.chromium() as browser:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(3)]
        relay, month = lived_in_relay(folders[0])
        stack.callback(relay.stop)
        state = {name: signed_in(browser, relay.url, name) for name in ("alice", "bob", "carol")}
        count = sum(
            (
                photograph(browser, relay.url, seed_month.public_pages() | BY_NOBODY, wanted),
                photograph(
                    browser, relay.url, seed_month.member_pages(month), wanted, state["alice"]
                ),
                photograph(
                    browser, relay.url, seed_month.admin_pages(month), wanted, state["carol"]
                ),
                photograph(browser, relay.url, BY_ALICE, wanted, state["alice"]),
                photograph(browser, relay.url, BY_BOB, wanted, state["bob"]),
                photograph(browser, relay.url, BY_CAROL, wanted, state["carol"]),
            )
        )

        live, _ = live_relay(folders[1])
        stack.callback(live.stop)
        carol = signed_in(browser, live.url, "carol")
        count += photograph(browser, live.url, LIVE, wanted, carol)
        count += photograph_first_start(browser, folders[2], stack, wanted)
    print(f"{count} pictures in {FOLDER}")


def photograph_first_start(browser, folder: Path, stack: ExitStack, wanted: list[str]) -> int:
    """The set-up page, and the pages of whoever has done nothing yet."""
    relay = empty_relay(folder)
    stack.callback(relay.stop)
    key = accounts.setup_key(relay.db)
    count = photograph(browser, relay.url, {"setup": f"/setup?key={key}"}, wanted)
    carol = accounts.set_up(relay.db, key, "carol", PASSWORD)
    billing.credit(relay.db, carol.id, "grant", 100_000, "reward", "sign-up")
    return count + photograph(
        browser, relay.url, EMPTY, wanted, signed_in(browser, relay.url, "carol")
    )


if __name__ == "__main__":
    main(sys.argv[1:])
