"""Sign-in with OAuth: the whole flow over real HTTP, and what attackers try in it."""

import asyncio
import itertools
import json
import os
import queue
import re
import stat
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from pvemcp_bridge.bridge import Bridge
from pvemcp_bridge.doctor import examine
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.oauth import account as accounts
from pvemcp_bridge.oauth import browser, documents, sign_in, store
from pvemcp_bridge.oauth.account import UserAccount
from pvemcp_bridge.oauth.client import OAuthClient
from pvemcp_bridge.oauth.store import Store
from pvemcp_bridge.target import target
from pvemcp_bridge.transport import Transport

pytestmark = pytest.mark.anyio

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.fixture(scope="module")
async def _server(oauth):
    async with oauth.running() as server:
        yield server


@pytest.fixture
def server(_server):
    """Give the server of the module, without clients, tokens and faults of earlier tests."""
    _server.reset()
    return _server


class User:
    """The user and the browser: signs in at once, unless `waits`."""

    def __init__(self, visit):
        self.visit = visit
        self.has_browser = True
        self.waits = False
        self.addresses = []
        self.pages = []
        self.shown = asyncio.Event()

    async def __call__(self, address):
        self.addresses.append(address)
        self.shown.set()
        if not self.waits:
            self.pages.append(asyncio.create_task(self.visit(address)))
        return self.has_browser


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    """Keep sign-ins in the test's folder; no keychain, and no waiting."""
    for name in ("XDG_STATE_HOME", "HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setattr(accounts, "_STORE_POLL_SECONDS", 0.05)
    return tmp_path


@pytest.fixture
def user(oauth, monkeypatch):
    user = User(oauth.visit)
    monkeypatch.setattr(accounts, "open_in_browser", user)
    return user


class Client:
    """MCP client of a bridge in this process."""

    def __init__(self, bridge, output):
        self.bridge, self.output = bridge, output
        self._numbers = itertools.count(1)

    def send(self, method, params=None, **message):
        body = {"jsonrpc": "2.0", "method": method, "params": params or {}} | message
        self.bridge.receive(json.dumps(body).encode())

    async def ask(self, method, params=None):
        self.send(method, params, id=next(self._numbers))
        return await self.output.read()

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - of a server that has no events
                await asyncio.sleep(0)

    async def call(self, tool="look"):
        return await self.ask("tools/call", {"name": tool, "_meta": META})


@asynccontextmanager
async def connected(oauth, server, *, wait_seconds=5.0, api_key="", url=None):
    where = target(url or server.mcp, api_key)
    account = (
        None if where.has_key else UserAccount(where, Masker(()).add, wait_seconds=wait_seconds)
    )
    async with Transport(where, account) as transport:
        output = oauth.Output()
        bridge = Bridge(transport, output)
        yield Client(bridge, output)
        await bridge.finish(0, asyncio.Event())
        await bridge.close(1)


@pytest.fixture
async def client(oauth, server, user):
    async with connected(oauth, server) as client:
        yield client


def is_done(reply):
    return reply.get("result", {}).get("content") == [{"type": "text", "text": "done"}]


def fact(reply):
    return reply["error"]["data"]["reason"], reply["error"]["message"]


async def test_the_first_request_signs_in_and_gets_its_reply(client, server, user, oauth):
    assert is_done(await client.call())
    (address,) = user.addresses
    asked = oauth.query(address)
    assert asked["code_challenge_method"] == "S256"
    assert asked["resource"] == server.mcp
    assert asked["scope"] == "pve:read"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", asked["redirect_uri"])
    assert "go back" in (await user.pages[0]).text
    assert server.paths("/mcp") == ["/mcp", "/mcp"]


async def test_a_handshake_and_its_session_use_the_account(client, server):
    opened = await client.ask("initialize", HELLO)
    assert opened["result"]["serverInfo"]["name"] == "real"
    client.send("notifications/initialized")
    assert len((await client.ask("tools/list"))["result"]["tools"]) == 2


async def test_parallel_requests_open_one_page(client, user):
    for number in range(8):
        client.send("tools/call", {"name": "look", "_meta": META}, id=number)
    replies = [await client.output.read() for _ in range(8)]
    assert all(map(is_done, replies))
    assert len(user.addresses) == 1


async def test_a_later_bridge_uses_the_stored_sign_in(oauth, server, user, home):
    async with connected(oauth, server) as client:
        await client.call()
    async with connected(oauth, server) as client:
        assert is_done(await client.call())
    assert len(user.addresses) == 1
    (file,) = home.rglob("*.json")
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_refused_token_is_refreshed_once_for_all_requests(oauth, server, user):
    async with connected(oauth, server) as first, connected(oauth, server) as second:
        assert is_done(await first.call())
        assert is_done(await second.call())
        server.end_access()
        for number in range(5):
            for client in (first, second):  # two bridges, as two processes
                client.send("tools/call", {"name": "look", "_meta": META}, id=number)
        replies = [await client.output.read() for client in (first, second) for _ in range(5)]
    assert all(map(is_done, replies))
    assert [form["grant_type"] for form in server.forms] == ["authorization_code", "refresh_token"]
    assert len(user.addresses) == 1


async def test_a_token_is_refreshed_before_it_expires(client, server, monkeypatch):
    server.lifetime = 100
    await client.call()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 89)
    await client.call()
    assert len(server.forms) == 1
    monkeypatch.setattr(time, "time", lambda: now() + 91)
    assert is_done(await client.call())
    assert server.forms[-1]["grant_type"] == "refresh_token"
    assert server.paths("/mcp") == ["/mcp"] * 4


async def test_a_cancelled_request_does_not_lose_the_refreshed_token(oauth, server, user):
    async with connected(oauth, server) as client:
        await client.call()
        server.end_access()
        client.send("tools/call", {"name": "look", "_meta": META}, id="gone")
        await client.until(lambda: server.paths("/mcp")[2:])
        client.send("notifications/cancelled", {"requestId": "gone", "_meta": META})
        assert is_done(await client.call())
    assert len(user.addresses) == 1
    assert server.used <= {form.get("refresh_token") for form in server.forms}
    assert len(server.forms) == 2


async def test_an_ended_connection_makes_the_user_sign_in_again(client, server, user):
    await client.call()
    server.end_access()
    server.refresh.clear()
    assert is_done(await client.call())
    assert len(user.addresses) == 2
    assert len(server.clients) == 1  # the registered client stays


async def test_a_start_without_a_sign_in_leaves_its_client_to_the_next(oauth, server, user, home):
    for user.has_browser in (False, False, True):
        user.waits = not user.has_browser
        async with connected(oauth, server) as client:
            await client.ask("initialize", HELLO)
    assert len(server.clients) == 1
    (file,) = home.rglob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"used_at": 1.0}))
    server.access, server.refresh = {}, {}
    async with connected(oauth, server) as client:
        await client.ask("initialize", HELLO)
    assert len(server.clients) == 2  # the server may have deleted the old one


async def test_a_deleted_client_is_registered_again(client, server, user):
    await client.call()
    server.end_access()
    server.clients.clear()
    assert is_done(await client.call())
    assert len(server.clients) == 1


async def test_a_call_that_needs_more_asks_for_all_scopes(client, server, user, oauth):
    await client.call()
    assert is_done(await client.call("write"))
    assert [oauth.query(address)["scope"] for address in user.addresses] == [
        "pve:read",
        "pve:read pve:write",
    ]
    assert len(server.clients) == 1


async def test_a_user_who_grants_less_is_not_asked_for_each_call(client, server, user):
    server.token = {"scope": "pve:read"}
    server.access = _AlwaysRead()
    for _ in range(3):
        reason, text = fact(await client.call("write"))
        assert (reason, "insufficient_scope" in text) == ("Refused", True)
    assert len(user.addresses) == 2


class _AlwaysRead(dict):
    """Access tokens that all allow reading only."""

    def get(self, token, default=None):
        return ["pve:read"] if token in self else default


async def test_without_a_browser_the_handshake_names_the_address(client, server, user, oauth):
    user.has_browser, user.waits = False, True
    opened = await client.ask("initialize", HELLO)
    (address,) = user.addresses
    assert address in opened["result"]["instructions"]
    assert opened["result"]["protocolVersion"] == "2025-11-25"
    client.send("notifications/initialized")
    assert (await client.ask("ping"))["result"] == {}
    reason, text = fact(await client.ask("tools/list"))
    assert reason == "SignInRequired"
    assert address in text
    await oauth.visit(address)
    changes = [(await client.output.read())["method"] for _ in range(3)]
    assert changes[0] == "notifications/tools/list_changed"
    assert len((await client.ask("tools/list"))["result"]["tools"]) == 2


async def test_discovery_names_the_address_as_well(client, user, oauth):
    user.has_browser, user.waits = False, True
    found = (await client.ask("server/discover", {"_meta": META}))["result"]
    assert found["supportedVersions"] == ["2026-07-28"]
    assert user.addresses[0] in found["instructions"]
    assert fact(await client.call())[0] == "SignInRequired"
    await oauth.visit(user.addresses[0])
    assert is_done(await client.call())


async def test_a_sign_in_of_another_process_ends_the_wait(oauth, server, user, monkeypatch):
    user.waits = True
    async with connected(oauth, server) as waiting, connected(oauth, server) as other:
        waiting.send("tools/call", {"name": "look", "_meta": META}, id=1)
        await user.shown.wait()
        user.waits = False
        assert is_done(await other.call())
        assert is_done(await waiting.output.read())


async def test_waiting_for_the_user_does_not_ask_the_keychain_again_and_again(
    client, server, user, oauth, monkeypatch
):
    monkeypatch.setitem(sys.modules, "keyring", keyring := FakeKeyring())
    monkeypatch.setattr(accounts, "_STORE_POLL_SECONDS", 0.0)
    await Store(server.mcp).write(replace(_stored(), issuer=server.url))
    user.waits = True
    client.send("tools/call", {"name": "look", "_meta": META}, id=1)
    await user.shown.wait()
    reads = keyring.reads
    for _ in range(100):
        await asyncio.sleep(0)
    assert keyring.reads <= reads + 1  # the registration was stored
    await oauth.visit(user.addresses[0])
    assert is_done(await client.output.read())


async def test_a_registration_keeps_the_sign_in_of_another_process(
    client, server, user, monkeypatch
):
    user.waits = True
    register = OAuthClient.register

    async def later(*arguments):
        client = await register(*arguments)
        await Store(server.mcp).write(replace(client, access_token="of-the-other"))
        return client

    monkeypatch.setattr(OAuthClient, "register", later)
    server.access["of-the-other"] = ["pve:read"]
    assert is_done(await client.call())
    assert (await Store(server.mcp).read()).access_token == "of-the-other"


async def test_a_slow_user_gets_the_address_and_continues_later(oauth, server, user):
    user.waits = True
    async with connected(oauth, server, wait_seconds=0.05) as client:
        reason, text = fact(await client.call())
        assert (reason, user.addresses[0] in text) == ("SignInRequired", True)
        await oauth.visit(user.addresses[0])
        assert is_done(await client.call())
    assert len(user.addresses) == 1


@pytest.mark.parametrize("key", ["header", "path"])
async def test_a_key_never_starts_a_sign_in(oauth, server, user, key):
    server.challenge = key == "header"  # a server names no metadata to one who presents a key
    url = f"{server.mcp}/some-key" if key == "path" else None
    server.pages["/mcp/some-key"] = Response("no", 401, {"www-authenticate": "Bearer"})
    api_key = "wrong" if key == "header" else ""
    async with connected(oauth, server, api_key=api_key, url=url) as client:
        assert "API key" in fact(await client.call())[1]
    assert user.addresses == []
    assert server.paths("/.well-known") == []


async def test_metadata_is_found_at_its_well_known_place(client, server):
    server.challenge = False
    assert is_done(await client.call())


async def test_a_server_without_a_sign_in_is_refused_as_before(client, server):
    server.challenge = False
    server.pages["/.well-known/oauth-protected-resource/mcp"] = Response("", 404)
    assert "API key" in fact(await client.call())[1]


async def test_metadata_of_openid_connect_is_used_in_the_order_of_mcp(client, server):
    server.resource = {"authorization_servers": [f"{server.url}/tenant"]}
    server.metadata = {"issuer": f"{server.url}/tenant"}
    server.response = {"iss": f"{server.url}/tenant"}
    document = await server.server_metadata(None)
    server.pages["/tenant/.well-known/openid-configuration"] = document
    assert is_done(await client.call())
    assert [
        path for path in server.paths() if "authorization-server" in path or "openid" in path
    ] == [
        "/.well-known/oauth-authorization-server/tenant",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ]


ATTACKS = {
    "another issuer answers": ("response", {"iss": "https://evil.example"}, "another issuer"),
    "a promised issuer is missing": ("response", {"iss": None}, "another issuer"),
    "the issuer differs in a slash": ("response", {"iss": "{url}/"}, "another issuer"),
    "an error of another issuer": (
        "response",
        {"iss": "https://evil.example", "error": "access_denied"},
        "another issuer",
    ),
    "the user refuses": ("response", {"code": None, "error": "access_denied"}, "access_denied"),
    "no code": ("response", {"code": None}, "no code"),
    "an injected code": ("response", {"code": "of-another-client"}, "invalid_grant"),
    "metadata of another issuer": (
        "metadata",
        {"issuer": "https://evil.example"},
        "another issuer",
    ),
    "no PKCE": ("metadata", {"code_challenge_methods_supported": ["plain"]}, "PKCE"),
    "a page over http": (
        "metadata",
        {"authorization_endpoint": "http://evil.example/a"},
        "not an https address",
    ),
    "a page that is a script": (
        "metadata",
        {"authorization_endpoint": "javascript:alert(1)//"},
        "not an https address",
    ),
    "a file as a page": (
        "metadata",
        {"authorization_endpoint": "file:///etc/passwd"},
        "not an https address",
    ),
    "tokens over http": ("metadata", {"token_endpoint": "http://192.0.2.1/t"}, "not an https"),
    "line ends in an address": (
        "metadata",
        {"token_endpoint": "http://127.0.0.1/\r\nx: y"},
        "malformed",
    ),
    "no registration": ("metadata", {"registration_endpoint": None}, "registers no clients"),
    "a registration without an id": ("registration", {"client_id": 7}, "did not register"),
    "another resource": ("resource", {"resource": "https://evil.example/mcp"}, "another resource"),
    "a resource below ours": ("resource", {"resource": "{url}/mcp/x"}, "another resource"),
    "a resource that is ours as text": ("resource", {"resource": "{url}/mc"}, "another resource"),
    "an issuer over http": (
        "resource",
        {"authorization_servers": ["http://evil.example"]},
        "not an https address",
    ),
    "no issuer": ("resource", {"authorization_servers": []}, "no authorization server"),
    "a token with a line end": ("token", {"access_token": "a\r\nx-api-key: b"}, "malformed"),
    "a token of another kind": ("token", {"token_type": "mac"}, "not a bearer token"),
    "a huge token": ("token", {"access_token": "a" * 9000}, "malformed"),
    "a huge answer": ("token", {"pad": "a" * (1 << 18)}, "128 KiB"),
    "huge metadata": ("metadata", {"pad": "a" * (1 << 18)}, "128 KiB"),
}


async def test_answers_of_an_attacker_end_the_sign_in(oauth, server, user, home):
    for name, (part, values, words) in ATTACKS.items():
        server.reset()
        values = {
            key: value.format(url=server.url) if isinstance(value, str) else value
            for key, value in values.items()
        }
        setattr(server, part, values)
        async with connected(oauth, server) as client:
            reason, text = fact(await client.call())
        assert (reason, words in text) == ("SignInFailed", True), (name, text)
        assert bool(user.addresses) == (part in ("response", "token")), name
        user.addresses.clear()
        for file in home.rglob("*.json"):
            assert json.loads(file.read_text())["access_token"] == "", name
            file.unlink()


async def test_answers_with_another_state_change_nothing(client, server, user, oauth):
    user.waits = True
    client.send("tools/call", {"name": "look", "_meta": META}, id=1)
    await user.shown.wait()
    asked = oauth.query(user.addresses[0])
    back = asked["redirect_uri"]
    state = asked["state"]
    for bad in (
        f"{back}?code=x&state=wrong",
        f"{back}?code=x",
        f"{back}?error=access_denied&state=wrong",
        f"{back}?code=x&code=y&state={state}",
        f"{back}?state={state}&" + "&".join(f"p{n}=" for n in range(30)),
        back.replace("/callback", "/other") + f"?code=x&state={state}",
    ):
        assert (await oauth.visit(bad)).status_code in (400, 404), bad
    assert (await oauth.visit(user.addresses[0])).status_code == 200
    assert is_done(await client.output.read())


async def test_no_document_is_fetched_through_a_redirect(client, server):
    page = "/.well-known/oauth-protected-resource/mcp"
    server.pages[page] = RedirectResponse(f"{server.url}/elsewhere")
    server.pages["/elsewhere"] = JSONResponse({"resource": server.mcp})
    assert fact(await client.call())[0] == "SignInFailed"
    assert "/elsewhere" not in server.paths()


async def test_a_server_that_moves_to_another_issuer_gets_no_old_client(client, server, user):
    await client.call()
    (first,) = server.clients
    server.end_access()
    server.resource = {"authorization_servers": [f"{server.url}/new"]}
    server.metadata = {"issuer": f"{server.url}/new"}
    server.response = {"iss": f"{server.url}/new"}
    document = await server.server_metadata(None)
    server.pages["/.well-known/oauth-authorization-server/new"] = document
    assert is_done(await client.call())
    assert server.forms[-1]["client_id"] != first
    assert [form["grant_type"] for form in server.forms] == ["authorization_code"] * 2


async def test_a_server_that_refuses_every_token_opens_few_pages(client, server, user):
    server.access = _Forgetful()
    for _ in range(10):
        assert "error" in await client.call()
    assert len(user.addresses) <= 5


class _Forgetful(dict):
    """Access tokens that are never accepted."""

    def get(self, _token, default=None):
        return default


async def test_plain_http_to_another_machine_needs_a_key(oauth, server, user):
    where = target("http://192.0.2.1/mcp")
    account = UserAccount(where, Masker(()).add)
    header = 'Bearer resource_metadata="https://192.0.2.1/m"'
    with pytest.raises(accounts.SignInFailed, match="needs an https"):
        await account.attempt(interactive=True).may_repeat(401, header)
    assert not await account.attempt(interactive=True).may_repeat(401, "Bearer")


async def test_logout_revokes_the_tokens_and_forgets_them(oauth, server, user, home):
    where = target(server.mcp)
    async with connected(oauth, server) as client:
        await client.call()
    text, ok = await sign_in.logout(where)
    assert (ok, "Signed out" in text) == (True, True)
    assert (server.access, server.refresh) == ({}, {})
    assert not [*home.rglob("*.json")]
    assert "not signed in" in (await sign_in.logout(where))[0]


async def test_a_client_with_a_secret_proves_it_as_the_server_wants(oauth, server, user, home):
    for methods, used in (
        (["client_secret_basic"], "client_secret_basic"),
        (["client_secret_basic", "client_secret_post"], "client_secret_post"),
        (["private_key_jwt", "none", "client_secret_post"], "none"),
        (None, "none"),
    ):
        server.reset()
        server.metadata = {"token_endpoint_auth_methods_supported": methods}
        async with connected(oauth, server) as client:
            assert is_done(await client.call()), methods
            server.end_access()
            assert is_done(await client.call()), methods
        ((_, registered),) = server.clients.items()
        assert registered["token_endpoint_auth_method"] == used
        assert (await sign_in.logout(target(server.mcp)))[1], methods
        assert server.refresh == {}, methods


async def test_logout_forgets_also_if_the_server_does_not_confirm(oauth, server, user, home):
    async with connected(oauth, server) as client:
        await client.call()
    server.pages["/revocation"] = Response("", 503)
    text, ok = await sign_in.logout(target(server.mcp))
    assert (ok, "end the connection there" in text) == (False, True)
    assert not [*home.rglob("*.json")]


BROWSER = """
import sys, urllib.request
print("output of a browser, which is not for the client")
assert not sys.stdin.read()
urllib.request.urlopen(sys.argv[1]).read()
"""


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these always have a browser")
async def test_a_browser_starts_where_there_is_a_display_with_its_own_libraries(monkeypatch):
    started = []

    def start(address):
        started.append((address, os.environ.get("LD_LIBRARY_PATH")))
        return True

    monkeypatch.setattr(browser.webbrowser, "open", start)
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY", "LD_LIBRARY_PATH_ORIG"):
        monkeypatch.delenv(name, raising=False)
    assert not await browser.open_in_browser("https://pve.example")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/binary")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert await browser.open_in_browser("https://one.example")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/of/the/binary")
    monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", "/of/the/system")
    assert await browser.open_in_browser("https://two.example")
    assert started == [("https://one.example", None), ("https://two.example", "/of/the/system")]


async def findings(server):
    return [finding async for finding in examine(target(server.mcp), Masker(()))]


@pytest.mark.e2e
async def test_a_process_signs_in_with_the_browser_of_the_system(bridges, server, home):
    (home / "browser.py").write_text(BROWSER)
    env = {"XDG_STATE_HOME": str(home), "LOCALAPPDATA": str(home), "HOME": str(home)}
    env["BROWSER"] = f"{sys.executable} {home / 'browser.py'} %s"
    env["MCP_URL"] = server.mcp
    async with bridges.running(env=env) as bridge:
        assert len(await bridge.open()) == 2
        assert await bridge.end() == ([], 0)
    assert f"{server.url}/authorization?" in bridge.log
    assert (await findings(server))[1].name == "sign-in"
    process = await asyncio.create_subprocess_exec(
        *bridges.command(),
        "logout",
        stdout=asyncio.subprocess.PIPE,
        env=bridges.environment(**env),
    )
    output, _ = await process.communicate()
    assert (process.returncode, output) == (0, f"Signed out of {server.url}.\n".encode())
    assert server.refresh == {}


async def test_doctor_says_how_the_user_is_signed_in(server, user, home):
    last = (await findings(server))[-1]
    assert (last.name, last.ok) == ("sign-in", False)
    assert "pvemcp-bridge login" in last.text
    assert user.addresses == []
    text = await sign_in.login(target(server.mcp), Masker(()))
    shown = next(item.text for item in await findings(server) if item.name == "sign-in")
    assert shown == text
    assert shown.startswith(f"signed in at {server.url}; scope pve:read; renewed")
    assert not [token for token in (*server.access, *server.refresh) if token in shown]


async def test_login_waits_for_the_user_without_a_browser(server, user, oauth, caplog):
    user.has_browser, user.waits = False, True
    waiting = asyncio.create_task(sign_in.login(target(server.mcp), Masker(())))
    await user.shown.wait()
    await oauth.visit(user.addresses[0])
    assert (await waiting).startswith("signed in at")


async def test_the_address_of_a_browser_elsewhere_can_be_pasted(server, user, oauth):
    user.has_browser, user.waits = False, True
    lines = queue.SimpleQueue()
    waiting = asyncio.create_task(sign_in.login(target(server.mcp), Masker(()), lines.get))
    await user.shown.wait()
    there = await oauth.visit(user.addresses[0], follow_redirects=False)
    for line in ("what?\n", f"{server.url}/x\n", f"  {there.headers['location']}\n"):
        lines.put(line.lstrip())
    assert (await waiting).startswith("signed in at")
    assert "/x" not in server.paths()
    lines.put("")


def _stored(**values):
    names = ("issuer", "resource", "token_endpoint", "revocation_endpoint", "client_id")
    base = dict.fromkeys((*names, "auth_method", "redirect_uri", "access_token"), "t")
    return store.Credentials(**base | values)


@pytest.mark.skipif(sys.platform == "win32", reason="no such links and modes")
async def test_a_stored_sign_in_of_others_is_not_used(tmp_path):
    kept = Store("https://pve.example/mcp", tmp_path)
    await kept.write(_stored())
    (file,) = tmp_path.glob("*.json")
    assert (await kept.read()).access_token == "t"
    file.chmod(0o640)
    assert await kept.read() is None
    file.chmod(0o600)
    real = file.rename(tmp_path / "real")
    file.symlink_to(real)
    assert await kept.read() is None
    await kept.write(_stored(access_token="new"))
    assert not file.is_symlink()
    assert '"t"' in real.read_text()
    file.write_text('{"server": "https://pve.example/mcp", "issuer": 7}')
    assert await kept.read() is None
    assert await Store("https://other.example/mcp", tmp_path).read() is None


class FakeKeyring:
    """The functions of `keyring`, with a backend that may refuse long secrets."""

    def __init__(self, longest=10_000):
        self.entries, self.longest, self.reads = {}, longest, 0

    def set_password(self, service, name, secret):
        if len(secret) > self.longest:
            raise OSError("too long")
        self.entries[service, name] = secret

    def get_password(self, service, name):
        self.reads += 1
        return self.entries.get((service, name))

    def delete_password(self, service, name):
        del self.entries[service, name]


async def test_the_keychain_holds_the_secrets_where_there_is_one(tmp_path, monkeypatch):
    keyring = FakeKeyring()
    monkeypatch.setitem(sys.modules, "keyring", keyring)
    kept = Store("https://pve.example/mcp", tmp_path)
    secrets = {"access_token": "secret-a", "refresh_token": "secret-r", "client_secret": "secret-c"}
    credentials = replace(_stored(), **secrets)
    await kept.write(credentials)
    (file,) = tmp_path.glob("*.json")
    assert "secret-" not in file.read_text()
    assert await kept.read() == credentials
    assert kept.place == "the keychain"
    keyring.longest = 10
    await kept.write(replace(credentials, access_token="secret-2"))
    assert (await kept.read()).access_token == "secret-2"
    assert kept.place == str(file)
    keyring.longest = 10_000
    await kept.write(credentials)
    await kept.delete()
    assert (keyring.entries, [*tmp_path.glob("*.json")]) == ({}, [])


@pytest.mark.parametrize(
    ("seconds", "lifetime"),
    [
        (60, 60.0),
        (10**400, 366 * 86_400.0),
        (float("inf"), 366 * 86_400.0),
        (-1, None),
        ("60", None),
    ],
    ids=["minute", "huge", "infinite", "negative", "text"],
)
def test_a_token_has_a_lifetime_whatever_number_its_server_names(seconds, lifetime):
    answer = {"token_type": "Bearer", "access_token": "a", "expires_in": seconds}
    assert documents.tokens(answer).lifetime == lifetime
