"""Users connect a program in Chromium: sign-in in each way, consent, and a tool call."""

import base64
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from html import escape
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import BrowserContext, expect

from proxmox_client.emulator import Emulator, Scenario
from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.auth.webauthn import SecurityKey
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.scenario.people import PASSWORD, TOTP_SECRET
from proxmox_client.emulator.state.user_config import AclEntry, Realm, User

from .chromium import Watched
from .program import Program, call

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.xdist_group("browser")]
PVEMCP = Path(sys.executable).with_name("pvemcp")
KEYS = {
    "protocol": "ctap2",
    "transport": "usb",
    "hasResidentKey": False,
    "hasUserVerification": False,
    "automaticPresenceSimulation": True,
}


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.close()


class Provider:
    """An OpenID provider with one user, who signs in by a link of its page."""

    def __init__(self, lab: EmulatedCluster, user: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target = lab.openid.sign_in(self.path, user) if "go=1" in self.path else ""
                self.send_response(302 if target else 200)
                self.send_header("Location", target)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                if not target:
                    link = escape(f"{self.path}&go=1")
                    self.wfile.write(f'<h1>Provider</h1><a href="{link}">Go on</a>'.encode())

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def lab() -> Iterator[EmulatedCluster]:
    """Start a cluster in this process, whose users tests add."""
    with start_blocking_portal() as portal:
        scenario = Scenario.cluster("lab", nodes=1, guests=3)
        with portal.wrap_async_context_manager(Emulator(scenario)) as emulator:
            yield emulator["lab"]


@pytest.fixture(scope="module")
def provider(lab) -> Iterator[Provider]:
    """Start the provider of the realm sso, at which erin signs in."""
    provider = Provider(lab, "erin")
    lab.state.user_config.realms["sso"] = Realm(
        "sso", "openid", "Example provider", issuer_url=provider.url
    )
    yield provider
    provider.server.shutdown()
    provider.server.server_close()


@pytest.fixture(scope="module")
def server(start, lab, provider, tmp_path_factory):
    """Start the demo, with the cluster of this process beside its own."""
    server = start(tmp_path_factory.mktemp("connections"))
    token_id, secret = lab.token
    options = ["--host", lab.hosts[0], "--token-id", token_id, "--token-secret-file", "-"]
    options += ["--fingerprint", next(iter(lab.fingerprints.values()))]
    command = [PVEMCP, "clusters", "add", "lab", *options, "--state-dir", str(server.state)]
    subprocess.run(command, input=secret, text=True, check=True, capture_output=True)
    return server


@pytest.fixture
def context(browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    yield context
    context.close()


def add_user(lab, userid: str, **details: object) -> User:
    """Add a user who may look at everything."""
    user = lab.state.user_config.users[userid] = User(userid, **details)
    lab.state.user_config.acl.append(AclEntry("/", "user", userid, "PVEAuditor"))
    return user


def sign_in(page, realm: str, user: str) -> None:
    page.get_by_label("Realm").select_option(realm)
    page.get_by_label("User").fill(user)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def connect(page, account: str) -> None:
    """Check the account on the page of the consent, and connect."""
    expect(page.get_by_role("heading", name=re.compile("Connect .?Assistant.?\\?"))).to_be_visible()
    expect(page.get_by_text(account)).to_be_visible()
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.get_by_role("heading", name="Back in the program")).to_be_visible()


def trouble_of(watched: Watched, *others: str) -> list[str]:
    """Return what went wrong in a page, apart from requests to other sites of the flow."""
    return [text for text in watched.trouble if not any(other in text for other in others)]


def test_a_user_connects_a_program_and_ends_it_again(context, server, program):
    url = f"http://127.0.0.1:{server.port}"
    watched = Watched(context, url)
    page = watched.page
    page.goto(program.authorization(url))
    expect(page.get_by_text("wants to use Proxmox for you")).to_be_visible()
    sign_in(page, "prod/pve", "carol")
    page.get_by_label("Code").fill(totp.code(TOTP_SECRET, time.time()))
    page.get_by_role("button", name="Sign in", exact=True).first.click()
    connect(page, "carol@pve on prod")
    token = program.token(url)
    answer = call(url, token, "ListVms", cluster_name="prod")
    assert not answer.get("isError"), answer

    page.goto(f"{url}/connections")
    page.get_by_role("button", name=re.compile("administrator account|Sign in")).first.wait_for()
    sign_in(page, "prod/pve", "carol")
    page.get_by_label("Recovery key").fill("0a1b-2c3d-4e5f-6789")  # the code was used
    page.get_by_role("button", name="Sign in", exact=True).last.click()
    page.get_by_role("region", name="Assistant").get_by_role("button", name="End").click()
    expect(page.get_by_text("No program is connected.")).to_be_visible()
    refused = httpx.post(f"{url}/mcp", headers={"Authorization": f"Bearer {token}"}, json={})
    assert refused.status_code == 401
    assert trouble_of(watched, program.redirect.removesuffix("callback")) == []


def test_a_security_key_of_proxmox_signs_in_where_its_settings_cover_the_page(
    context, lab, server, program
):
    url, key = f"http://localhost:{server.port}", SecurityKey()
    lab.state.options["webauthn"] = {"id": "localhost", "rp": "Lab", "origin": url}
    add_user(lab, "dora@pve", password=PASSWORD, factors=[key.factor()])
    watched = Watched(context, url)
    page = watched.page
    devtools = context.new_cdp_session(page)
    devtools.send("WebAuthn.enable")
    made = devtools.send("WebAuthn.addVirtualAuthenticator", {"options": KEYS})
    credential_id = base64.urlsafe_b64decode(key.credential + "==")
    credential = {
        "credentialId": base64.b64encode(credential_id).decode(),
        "isResidentCredential": False,
        "rpId": "localhost",
        "privateKey": base64.b64encode(key.pkcs8()).decode(),
        "signCount": 1,
    }
    devtools.send(
        "WebAuthn.addCredential",
        {"authenticatorId": made["authenticatorId"], "credential": credential},
    )
    page.goto(program.authorization(url))
    sign_in(page, "lab/pve", "dora")
    page.get_by_role("button", name="Use your security key").click()
    connect(page, "dora@pve on lab")
    answer = call(url, program.token(url), "ListVms")
    assert not answer.get("isError"), answer
    assert trouble_of(watched, program.redirect.removesuffix("callback")) == []


def test_a_user_of_an_openid_realm_signs_in_at_its_provider(
    context, lab, provider, server, program
):
    url = f"http://localhost:{server.port}"
    add_user(lab, "erin@sso")
    watched = Watched(context, url)
    page = watched.page
    page.goto(program.authorization(url))
    page.get_by_role("button", name="Sign in with Example provider on lab").click()
    expect(page.get_by_role("heading", name="Provider")).to_be_visible()
    asked = parse_qs(urlsplit(page.url).query)
    assert asked["redirect_uri"] == [f"{url}/oauth/openid"]
    page.get_by_role("link", name="Go on").click()
    connect(page, "erin@sso on lab")
    answer = call(url, program.token(url), "ListVms")
    assert not answer.get("isError"), answer
    [made] = lab.state.user_config.users["erin@sso"].tokens.values()
    assert made.comment.startswith("Assistant (name not verified")
    assert trouble_of(watched, program.redirect.removesuffix("callback"), provider.url) == []
