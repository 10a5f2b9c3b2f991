"""Real Chromium for tests: a browser for the tests of one file, and visitors in it, each with a
profile of their own.

Owns how the browser is started, and that nothing a page complains of is overlooked: a broken
content policy and an error in a script both speak on the console. It knows no relay.
"""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HEIGHT = 800
PATIENCE_MS = (
    60_000  # for each condition that a test waits for; only a slow machine needs any of it
)


@contextmanager
def chromium():
    """A browser; where there is none the test is skipped, but not by who must test all."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        program = CHROMIUM or started.chromium.executable_path
        if not Path(program).exists():
            (pytest.fail if "CI" in os.environ else pytest.skip)(
                "Chromium is not installed, and tests in a browser need it. On Debian: sudo apt install chromium"
            )
        browser = started.chromium.launch(
            executable_path=program, args=ARGUMENTS, timeout=PATIENCE_MS
        )
        yield browser
        browser.close()


class Visitors:
    """Opens pages of one address, each in a profile of its own: `visit("/models", width=360)`.

    A page has `complaints`, what its console said; at the end they must be those that the test
    expects, by parts of their text in `page.expected`.
    """

    def __init__(self, browser, address: str):
        self.browser, self.address, self.pages = browser, address, []

    def __call__(
        self,
        path: str = "/",
        width: int = 1280,
        language: str = "en-GB",
        theme: str = "light",
        scripts: bool = True,
        **options,
    ):
        context = self.browser.new_context(
            viewport={"width": width, "height": HEIGHT},
            locale=language,
            color_scheme=theme,
            base_url=self.address,
            java_script_enabled=scripts,
            permissions=["clipboard-read", "clipboard-write"],
            **options,
        )
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        self.pages.append(page)
        page.complaints, page.expected = [], []
        page.on(
            "console",
            lambda said: page.complaints.append(said.text) if said.type == "error" else None,
        )
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto(path)
        return page

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for page in self.pages:
            page.context.close()
        if kind is None:
            assert not self.complaints(), self.complaints()

    def complaints(self) -> list[str]:
        """What pages said that nobody expected."""
        return [
            said
            for page in self.pages
            for said in page.complaints
            if not any(part in said for part in page.expected)
        ]


def fits(page) -> bool:
    """Whether the page needs no scrolling to the side."""
    return page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def sign_in(page, name: str, password: str) -> None:
    """Sign in on the page for it."""
    page.goto("/login")
    page.locator("#name").fill(name)
    page.locator("#password").fill(password)
    page.locator("#password").press("Enter")
    page.wait_for_url("**/console")
