"""Chromium, and pages that record what goes wrong in them."""

from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Locator, Page, expect

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
]
expect.set_options(timeout=20_000)  # the machine may be busy


class Watched:
    """A page that records console errors and external requests."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.url = url
        self.trouble: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", self._record_request)

    def go(self, path: str) -> Page:
        self.page.goto(f"{self.url}/admin{path}")
        return self.page

    def _said(self, message) -> None:
        if message.type in ("error", "warning"):
            self.trouble.append(message.text)

    def _record_request(self, request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.trouble.append(f"asked {request.url}")


def agree(page: Page, button: Locator) -> None:
    """Answer a button that asks first with its namesake in the question."""
    name = button.inner_text()
    button.click()
    page.get_by_role("alertdialog").get_by_role("button", name=name).click()
