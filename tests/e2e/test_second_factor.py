"""Second factors in Chromium, with a virtual authenticator, over the real server."""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from playwright.sync_api import BrowserContext, Page, expect
from pyotp import TOTP

from .chromium import Watched, agree

PASSWORD = "a password of my own"
AUTHENTICATOR = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}
pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.xdist_group("browser")]
NewBrowser = Callable[[], Watched]


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    return start(tmp_path_factory.mktemp("factors"))


@pytest.fixture
def new_browser(browser, server) -> Iterator[NewBrowser]:
    """Return how to open a browser with its own cookies, at a name that passkeys work for."""
    contexts: list[BrowserContext] = []
    pages: list[Watched] = []

    def opened() -> Watched:
        contexts.append(browser.new_context())
        pages.append(Watched(contexts[-1], f"http://localhost:{server.port}"))
        return pages[-1]

    yield opened
    for context in contexts:
        context.close()
    assert [page.trouble for page in pages] == [[] for _ in pages]


@pytest.fixture(autouse=True)
def no_factor_left(server) -> Iterator[None]:
    """Remove what a test that fails leaves: the others sign in with the password alone."""
    yield
    with closing(sqlite3.connect(server.state / "pvemcp.sqlite3")) as database, database:
        database.execute("DELETE FROM second_factors")
        database.execute("DELETE FROM recovery_codes")


@pytest.fixture
def watched(new_browser, server) -> Watched:
    """Sign in with the password; the first test of the module changes the one-time password."""
    watched = new_browser()
    first = re.search(r"one-time password (\S+)", server.output)[1]
    changed = getattr(server, "changed", False)
    enter_password(watched, PASSWORD if changed else first)
    if not changed:
        page = watched.page
        page.get_by_label("Current password").fill(first)
        page.get_by_label("New password", exact=True).fill(PASSWORD)
        page.get_by_label("New password again").fill(PASSWORD)
        page.get_by_role("button", name="Change password").click()
        server.changed = True
    expect(watched.page.get_by_role("heading", name="Overview")).to_be_visible()
    return watched


def enter_password(watched: Watched, password: str = PASSWORD) -> None:
    page = watched.go("/sign-in")
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page).not_to_have_url(re.compile("/sign-in$"))


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page).to_have_url(re.compile("/sign-in$"))


def proceed(page: Page, title: str, button: str = "Continue") -> None:
    """Go on in the open dialog."""
    page.get_by_role("dialog", name=title).get_by_role("button", name=button, exact=True).click()


def recovery_codes(page: Page) -> list[str]:
    codes = page.locator("#recovery-codes").inner_text().split()
    with page.expect_navigation():  # the page is reloaded without the codes
        page.get_by_role("button", name="I have stored it").click()
    expect(page.locator("#recovery-codes")).to_have_count(0)
    return codes


def remove(page: Page, name: str) -> None:
    page.get_by_role("button", name=f"Remove {name}").click()
    with page.expect_navigation():
        proceed(page, f"Remove {name}", "Remove")
    expect(page.get_by_role("button", name=f"Remove {name}")).to_have_count(0)


def test_a_passkey_signs_in_confirms_and_follows_the_password(watched, forget_proof):
    page = watched.page
    devtools = page.context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    devtools.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})
    watched.go("/account")
    page.get_by_role("button", name="Add passkey").click()
    proceed(page, "Add a passkey")
    assert len(recovery_codes(page)) == 10
    expect(page.get_by_text("passkey on localhost")).to_be_visible()
    sign_out(page)

    page.get_by_role("link", name="Sign in with a passkey").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    sign_out(page)

    enter_password(watched)
    expect(page.get_by_role("heading", name="Second factor")).to_be_visible()
    page.get_by_role("button", name="Use your passkey").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    watched.go("/account")
    forget_proof()
    page.get_by_role("button", name="Remove Passkey").click()
    proceed(page, "Remove Passkey", "Remove")
    with page.expect_navigation():  # a passkey that has verified its user needs no password
        page.get_by_role("dialog", name="Confirm it's you").get_by_text("Use your passkey").click()
    expect(page.get_by_role("button", name="Remove Passkey")).to_have_count(0)


def test_an_app_and_a_recovery_code_sign_in(watched):
    page = watched.go("/account")
    page.get_by_role("button", name="Add authenticator app").click()
    proceed(page, "Add an authenticator app")
    dialog = page.get_by_role("dialog", name="Add an authenticator app").last
    expect(dialog.get_by_role("img", name="QR code")).to_be_visible()
    app = TOTP(page.locator("#app-secret").inner_text())
    dialog.get_by_label("Code that the app shows").fill("000000")
    page.keyboard.press("Enter")
    expect(dialog.locator(".wrong")).to_contain_text("present code")
    dialog.get_by_label("Code that the app shows").fill(app.now())
    page.keyboard.press("Enter")
    codes = recovery_codes(page)
    sign_out(page)

    enter_password(watched)
    page.get_by_label("Code").fill(app.at(time.time() + 30))  # the present one was used
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    sign_out(page)

    enter_password(watched)
    page.get_by_label("Code").fill(codes[0])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    watched.go("/account")
    expect(page.get_by_text("9 of 10 recovery codes left")).to_be_visible()
    remove(page, "Authenticator app")


def test_one_session_and_all_others_end(watched, new_browser):
    others = [new_browser() for _ in range(3)]
    for other in others:
        enter_password(other)
        expect(other.page.get_by_text("Live", exact=True)).to_be_visible()
    page = watched.go("/account")
    sessions = page.get_by_role("region", name="Sessions").get_by_role("row")
    before = sessions.count()
    with page.expect_navigation():
        page.get_by_role("button", name=re.compile("End the session")).first.click()
    expect(sessions).to_have_count(before - 1)
    with page.expect_navigation():
        agree(page, page.get_by_role("button", name="End all others"))
    expect(sessions).to_have_count(2)  # the header, and this one
    for other in others:  # the pages reload themselves; a navigation now would abort one of the two
        expect(other.page).to_have_url(re.compile(r"/sign-in\?ended=1$"))
