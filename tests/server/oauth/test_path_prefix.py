"""Behind a reverse proxy with a path prefix: clients from 401 to a call, an administrator.

nginx and Caddy end TLS, with what the docs have for them.
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import sys
from contextlib import asynccontextmanager
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
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

from proxmox_client.emulator.certificates import CertificateAuthority
from pvemcp_bridge.bridge import Bridge
from pvemcp_bridge.logs import Masker
from pvemcp_bridge.oauth import account, sign_in
from pvemcp_bridge.target import target
from pvemcp_bridge.tls import Trust
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


PROXIES = {
    "nginx": """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr crit;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address} ssl;
        ssl_certificate {folder}/certificate.pem;
        ssl_certificate_key {folder}/key.pem;
        location ~ ^/(pve(/|$)|\\.well-known/(oauth|openid)-[^/]+/pve/) {{
            proxy_pass {target};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
""",
    "caddy": """
{{
    admin off
    auto_https off
    storage file_system {folder}
}}
https://{address} {{
    tls {folder}/certificate.pem {folder}/key.pem
    @pvemcp path /pve /pve/* /.well-known/*/pve/*
    reverse_proxy @pvemcp {target}
}}
""",
}
COMMANDS = {
    "nginx": ("-e", "stderr", "-c"),
    "caddy": ("run", "--adapter", "caddyfile", "--config"),
}


@asynccontextmanager
async def program_in_front(name: str, folder: Path, base: str, target: str):
    """Run a reverse proxy that ends TLS and passes on what is below the prefix."""
    authority, address = CertificateAuthority("test"), urlsplit(base).netloc
    certificate = authority.issue("proxy", "127.0.0.1")
    (folder / "certificate.pem").write_text(certificate.pem)
    (folder / "key.pem").write_text(certificate.private_key)
    configuration = PROXIES[name].format(folder=folder, address=address, target=target)
    (folder / "configuration").write_text(configuration)
    command = [name, *COMMANDS[name], str(folder / "configuration")]
    environment = {"HOME": str(folder), "PATH": os.environ["PATH"]}
    async with await anyio.open_process(command, env=environment, stderr=None) as process:
        try:
            yield ssl.create_default_context(cadata=authority.pem)
        finally:
            process.terminate()
            await process.wait()


def installed(name: str):
    """Return the name of the program; its tests are skipped where it is missing."""
    missing = shutil.which(name) is None
    return pytest.param(name, marks=pytest.mark.skipif(missing, reason=f"apt-get install {name}"))


@pytest.fixture(params=["prefix removed", "prefix passed on", *map(installed, PROXIES)])
async def site(request, serving, tmp_path):
    """Serve below /pve of a proxy on loopback, with a cluster and an administrator."""
    is_program = request.param in PROXIES
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        if is_program:
            listening.close()
        base = f"http{'s' * is_program}://{host}/pve"
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
            if is_program:
                front = program_in_front(request.param, tmp_path, base, served.url)
            else:
                strips = request.param == "prefix removed"
                front = proxy_in_front(listening, ReverseProxy(served.http, "/pve", strips=strips))
            async with front as trust:
                options = {"timeout": 30, "verify": trust or True}
                origin = base.removesuffix("/pve")
                async with httpx.AsyncClient(base_url=origin, **options) as http:
                    await answering(http)
                    yield base, served, Browser(http, base), options


async def answering(http: httpx.AsyncClient) -> None:
    """Wait until the proxy accepts connections."""
    with anyio.fail_after(20):
        while True:
            try:
                assert (await http.get("/pve/healthz")).status_code == 200
            except httpx.ConnectError:
                await anyio.sleep(0.02)
            else:
                return


async def test_a_client_signs_in_as_an_administrator_and_calls_a_tool(site):
    base, served, browser, options = site
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
        async with httpx.AsyncClient(auth=provider, **options) as http:
            transport = streamable_http_client(f"{base}/mcp", http_client=http)
            async with Client(transport) as client:
                result = await client.call_tool("GetThing", {"vmid": 101})
                assert '"vmid":101' in result.content[0].text
                assert client.server_info.icons[0].src == f"{base}/icon.svg"
    assert "Python SDK" in (await served.state.store.connections.all())[0].client_name
    page = await browser.open("/pve/admin/")
    assert "/pve/admin/account" in page.links
    cookies = [(each.name[:7], each.path) for each in browser.http.cookies.jar]
    if base.startswith("https:"):
        assert {*cookies} == {("__Host-", "/")}
    else:
        assert {path for _, path in cookies} <= {"/pve/", "/pve/admin"}
    page = await browser.submit("/admin/sign-out", page)
    assert browser.answer.url.path == "/pve/admin/sign-in"


async def test_the_stream_of_sse_names_an_endpoint_below_the_prefix(site):
    base, served, _, options = site

    def open_client(headers=None, timeout=None, auth=None):
        return httpx.AsyncClient(headers=headers, auth=auth, **options)

    with anyio.fail_after(60):
        for path in ("/sse", f"/sse/{served.key}"):
            headers = {"X-API-Key": served.key} if path == "/sse" else {}
            transport = sse_client(f"{base}{path}", headers, httpx_client_factory=open_client)
            async with Client(transport, mode="legacy") as client:
                assert len((await client.list_tools()).tools) == len(served.fake_tools.tools)


@asynccontextmanager
async def bridged(where):
    """Run the bridge to a target; yield how to call a tool through it, which returns the text."""
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
    base, served, _, options = site
    store, opened, certificate = served.state.store, [], tmp_path / "certificate.pem"
    trust = Trust()
    if certificate.exists():
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        trust = Trust(fingerprint=sha256(der).hexdigest())
    where = target(f"{base}/mcp", trust=trust)

    async def open_in_browser(url):
        assert url.startswith(f"{base}/oauth/authorize?")
        opened.append((query(url), asyncio.create_task(visit(url, verify=options["verify"]))))
        return True

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "keyring", None)
    monkeypatch.setattr(account, "open_in_browser", open_in_browser)
    with consenting(served):
        async with bridged(where) as call:
            assert '"vmid":101' in await call("GetThing")
            [token] = await store.tokens.all(kind="access")
            await store.tokens.change(token.id, expires=token.created)
            await served.state.access.authenticator._clear()
            assert '"vmid":101' in await call("GetThing")
            assert len(opened) == 1
        async with bridged(where) as call:  # a later one, which has the same sign-in
            await call("StartThing")
    assert served.fake_tools.done == ["Start thing 101."]
    assert {asked["resource"] for asked, _ in opened} == {f"{base}/mcp"}
    assert opened[1][0]["scope"].split()[:2] == ["pve:read", "pve:write"]
    assert await sign_in.logout(where) == (f"Signed out of {base[:-4]}.", True)
    [left] = await store.tokens.all(kind="refresh", used=None)
    assert left.scopes == ["pve:read"]  # of the first consent, which is a connection of its own
