"""Behind a real reverse proxy with a path prefix: clients from 401 to a call, an administrator."""

import asyncio
import json
import socket
import sys
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2 as httpx
import pytest
import uvicorn
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from tests.bridge.oauth_server import Output, query, visit
from tests.server.reverse_proxy import ReverseProxy

from pvemcp_bridge.bridge import Bridge
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.oauth import account, sign_in
from pvemcp_bridge.target import target
from pvemcp_bridge.transport import Transport
from pvemcp_server.store.records import TlsMode

from .consent import consenting
from .test_python_client import Storage

pytestmark = pytest.mark.anyio
NAME, PASSWORD = "ada", "correct horse battery"
REDIRECT = "http://127.0.0.1:33418/callback"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Page(HTMLParser):
    """Links of a page, and its forms with the fields as they are filled."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.forms: dict[str, dict[str, str]] = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "a":
            self.links.append(values["href"])
        if tag == "form":
            self.forms[values.get("action", "")] = self.fields = {}
        is_filled = values.get("type") not in ("radio", "checkbox") or "checked" in values
        if tag == "input" and is_filled and "name" in values:
            self.fields[values["name"]] = values.get("value", "")


class Browser:
    """A browser that opens nothing outside of the site."""

    def __init__(self, http: httpx.AsyncClient, base: str) -> None:
        self.http = http
        self.base = base
        self.answer = None

    async def open(self, url: str) -> Page:
        assert httpx.URL(self.base).join(url).path.startswith("/pve/")
        return await self._follow(await self.http.get(url))

    async def submit(self, action: str, page: Page, **fields: str) -> Page:
        """Send the form of a page that leads to a path below the prefix."""
        [target] = [each for each in page.forms if each.startswith(f"/pve{action}")]
        data, headers = page.forms[target] | fields, {"Origin": self.base.removesuffix("/pve")}
        return await self._follow(await self.http.post(target, data=data, headers=headers))

    async def _follow(self, answer: httpx.Response) -> Page:
        while answer.is_redirect:
            assert answer.headers["location"].startswith("/pve/")
            answer = await self.http.get(answer.headers["location"])
        assert answer.status_code == 200, answer.text
        self.answer = answer
        return Page(answer.text)


@asynccontextmanager
async def proxy_in_front(listening: socket.socket, app: ReverseProxy):
    """Serve the proxy on a socket until the end of the block."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", ws="none"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [listening])
        yield
        server.should_exit = True


@pytest.fixture(params=[True, False], ids=["removed", "passed on"])
async def site(request, serving):
    """Serve below /pve of a proxy on loopback, with a cluster and an administrator."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        base = f"http://127.0.0.1:{listening.getsockname()[1]}/pve"
        async with serving(public_url=base) as served:
            access = served.state.access
            await access.admins.create(NAME, PASSWORD, must_change=False)
            await access.clusters.create(
                "lab",
                ["127.0.0.1:1"],
                token_id="mcp@pve!pvemcp",
                secret="00000000-0000-0000-0000-000000000001",
                tls_mode=TlsMode.INSECURE,
            )
            await served.state.store.watch.poll()
            proxy = ReverseProxy(served.http, "/pve", strips=request.param)
            async with (
                proxy_in_front(listening, proxy),
                httpx.AsyncClient(base_url=base.removesuffix("/pve"), timeout=30) as http,
            ):
                yield base, served, Browser(http, base)


async def test_a_client_signs_in_as_an_administrator_and_calls_a_tool(site):
    base, served, browser = site
    answers = []

    async def open_browser(url):
        page = await browser.open(url)
        [link] = [each for each in page.links if "/admin/connect" in each]
        page = await browser.open(link)
        page = await browser.submit("/admin/sign-in", page, name=NAME, password=PASSWORD)
        page = await browser.submit("/oauth/consent", page, decision="connect")
        [target] = [each for each in page.links if each.startswith(REDIRECT)]
        answers.append({k: v[0] for k, v in parse_qs(urlsplit(target).query).items()})

    async def called_back():
        return AuthorizationCodeResult(**answers.pop())

    metadata = OAuthClientMetadata(redirect_uris=[REDIRECT], client_name="Python SDK")
    provider = OAuthClientProvider(f"{base}/mcp", metadata, Storage(), open_browser, called_back)
    with anyio.fail_after(60):
        async with httpx.AsyncClient(auth=provider, timeout=30) as http:
            transport = streamable_http_client(f"{base}/mcp", http_client=http)
            async with Client(transport) as client:
                result = await client.call_tool("GetThing", {"vmid": 101})
                assert '"vmid":101' in result.content[0].text
                assert client.server_info.icons[0].src == f"{base}/icon.svg"
    assert "Python SDK" in (await served.state.store.connections.all())[0].client_name
    page = await browser.open("/pve/admin/")
    assert "/pve/admin/account" in page.links
    assert {cookie.path for cookie in browser.http.cookies.jar} <= {"/pve/", "/pve/admin"}
    page = await browser.submit("/admin/sign-out", page)
    assert browser.answer.url.path == "/pve/admin/sign-in"


async def test_the_stream_of_sse_names_an_endpoint_below_the_prefix(site):
    base, served, _ = site
    with anyio.fail_after(60):
        for path in ("/sse", f"/sse/{served.key}"):
            headers = {"X-API-Key": served.key} if path == "/sse" else {}
            transport = sse_client(f"{base}{path}", headers=headers)
            async with Client(transport, mode="legacy") as client:
                assert len((await client.list_tools()).tools) == len(served.fake_tools.tools)


@asynccontextmanager
async def bridged(url):
    """Run the bridge to a URL; yield how to call a tool through it, which returns the text."""
    where = target(url)
    async with Transport(where, account.UserAccount(where, Masker(()).add)) as transport:
        bridge = Bridge(transport, output := Output())

        async def call(tool):
            params = {"name": tool, "arguments": {"vmid": 101}, "_meta": META}
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            bridge.receive(json.dumps(message).encode())
            return (await output.read())["result"]["content"][0]["text"]

        yield call
        await bridge.finish(0, asyncio.Event())
        await bridge.close(1)


async def test_the_bridge_signs_in_refreshes_steps_up_and_signs_out(site, monkeypatch, tmp_path):
    base, served, _ = site
    store, opened = served.state.store, []

    async def open_in_browser(url):
        assert url.startswith(f"{base}/oauth/authorize?")
        opened.append((query(url), asyncio.create_task(visit(url))))
        return True

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setattr(account, "open_in_browser", open_in_browser)
    with consenting(served):
        async with bridged(f"{base}/mcp") as call:
            assert '"vmid":101' in await call("GetThing")
            [token] = await store.tokens.all(kind="access")
            await store.tokens.change(token.id, expires=token.created)
            await served.state.access.authenticator._clear()
            assert '"vmid":101' in await call("GetThing")
            assert len(opened) == 1
        async with bridged(f"{base}/mcp") as call:  # a later one, which has the same sign-in
            await call("StartThing")
    assert served.fake_tools.done == ["Start thing 101."]
    assert {asked["resource"] for asked, _ in opened} == {f"{base}/mcp"}
    assert opened[1][0]["scope"].split()[:2] == ["pve:read", "pve:write"]
    assert await store.tokens.all(kind="refresh", used=None)
    assert await sign_in.logout(target(f"{base}/mcp")) == (f"Signed out of {base[:-4]}.", True)
    assert await store.tokens.all(kind="refresh", used=None) == []
