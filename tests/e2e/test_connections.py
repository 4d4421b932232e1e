"""A user connects a program in Chromium: sign-in, second factor, consent, and a tool call."""

import base64
import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2 as httpx
import pytest
from playwright.sync_api import expect

from proxmox_client.emulator.auth import totp
from proxmox_client.emulator.scenario.people import PASSWORD, TOTP_SECRET

from .chromium import Watched

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.xdist_group("browser")]
VERIFIER = secrets.token_urlsafe(48)
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=")
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Program:
    """A program on the user's computer, which waits for the answer on a loopback redirect."""

    def __init__(self) -> None:
        self.answer: dict[str, str] = {}
        self.answered = threading.Event()
        program = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/callback"):
                    program.answer = dict(parse_qsl(urlsplit(self.path).query))
                    program.answered.set()
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(b"<title>Done</title><h1>Back in the program</h1>")

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def redirect(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/callback"


@pytest.fixture
def program() -> Iterator[Program]:
    program = Program()
    yield program
    program.server.shutdown()
    program.server.server_close()


@pytest.fixture(scope="module")
def server(start, tmp_path_factory):
    return start(tmp_path_factory.mktemp("connections"))


def call(url: str, token: str, tool: str, **arguments: object) -> dict:
    """Call a tool with an access token and return its result."""
    params = {"name": tool, "arguments": arguments, "_meta": MODERN}
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    text = httpx.post(f"{url}/mcp", json=body, headers=headers, timeout=30).text
    lines = re.findall(r"^data: (.+)$", text, re.MULTILINE)
    return json.loads(lines[-1] if lines else text)["result"]


def test_a_user_connects_a_program_and_ends_it_again(browser, server, program):
    url = f"http://127.0.0.1:{server.port}"
    registered = {"client_name": "Assistant", "redirect_uris": [program.redirect]}
    client = httpx.post(f"{url}/oauth/register", json=registered).json()["client_id"]
    query = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": program.redirect,
        "code_challenge": CHALLENGE.decode(),
        "code_challenge_method": "S256",
        "state": "s",
        "scope": "pve:read",
    }
    context = browser.new_context()
    watched = Watched(context, url)
    page = watched.page
    page.goto(f"{url}/oauth/authorize?{urlencode(query)}")
    expect(page.get_by_text("wants to use Proxmox for you")).to_be_visible()
    page.get_by_label("Realm").select_option("prod/pve")
    page.get_by_label("User").fill("carol")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_label("Code").fill(totp.code(TOTP_SECRET, time.time()))
    page.get_by_role("button", name="Sign in", exact=True).first.click()

    expect(page.get_by_role("heading", name=re.compile("Connect .?Assistant.?\\?"))).to_be_visible()
    expect(page.get_by_text("carol@pve on prod")).to_be_visible()
    page.get_by_role("button", name="Connect", exact=True).click()
    expect(page.get_by_role("heading", name="Back in the program")).to_be_visible()
    assert program.answered.wait(20)
    assert program.answer["state"] == "s"
    assert program.answer["iss"] == f"{url}/oauth"

    form = {
        "grant_type": "authorization_code",
        "client_id": client,
        "code": program.answer["code"],
        "code_verifier": VERIFIER,
        "redirect_uri": program.redirect,
    }
    token = httpx.post(f"{url}/oauth/token", data=form).json()["access_token"]
    answer = call(url, token, "ListVms", cluster_name="prod")
    assert not answer.get("isError"), answer

    page.goto(f"{url}/connections")
    page.get_by_role("button", name=re.compile("administrator account|Sign in")).first.wait_for()
    page.get_by_label("Realm").select_option("prod/pve")
    page.get_by_label("User").fill("carol")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    page.get_by_label("Recovery key").fill("0a1b-2c3d-4e5f-6789")  # the code was used
    page.get_by_role("button", name="Sign in", exact=True).last.click()
    page.get_by_role("region", name="Assistant").get_by_role("button", name="End").click()
    expect(page.get_by_text("No program is connected.")).to_be_visible()
    refused = httpx.post(f"{url}/mcp", headers={"Authorization": f"Bearer {token}"}, json={})
    assert refused.status_code == 401
    context.close()
    listener = program.redirect.removesuffix("callback")
    assert [trouble for trouble in watched.trouble if listener not in trouble] == []
