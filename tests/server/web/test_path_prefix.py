"""Every link of every page is below the path prefix, whether a proxy removes it or passes it on."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2 as httpx
import pytest
from tests.server.reverse_proxy import ReverseProxy

from pvemcp_server.approvals import Approvals
from pvemcp_server.web.templates import HERE, NAVIGATION

from .conftest import ADMIN, PASSWORD

pytestmark = pytest.mark.anyio
HOST = "https://tools.example"
ADDRESSES = ("href", "src", "action", "formaction", "hx-get", "hx-post", "data-add")
OPENED = ("href", "src", "hx-get", "data-add")  # with GET; the others are for POST
FEW = 3
REDIRECT = "http://127.0.0.1:33418/callback"


class Links(HTMLParser):
    """The addresses in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ADDRESSES or (name.startswith("hx-") and name[3:] in ("put", "delete")):
                self.found.append((name, value))
            if name == "content" and value.startswith("0;url="):
                self.found.append(("href", value.removeprefix("0;url=")))


@pytest.fixture(params=[("", True), ("/pve", True), ("/pve", False), ("/tools/pve.1", True)])
async def proxied(request, open_front, emulator):
    """Open a browser behind a proxy, signed in, on a server with clusters, keys and clients."""
    prefix, strips = request.param
    async with open_front(public_url=f"{HOST}{prefix}") as front:
        for emulated in emulator:
            await front.add_cluster(emulated)
        await front.services.settings.change({"enabled": True}, by="test")
        await front.services.access.keys.create("night", role="Operator")
        app = httpx.ASGITransport(front.app.asgi)
        async with httpx.AsyncClient(transport=app, base_url=HOST) as server:
            proxy = httpx.ASGITransport(ReverseProxy(server, prefix, strips))
            async with httpx.AsyncClient(transport=proxy, base_url=f"{HOST}{prefix}") as http:
                front.http = http
                yield front, prefix


async def walk_pages(http, prefix: str, paths: list[str]) -> dict[str, set[str]]:
    """Open pages and what they link to; return each address with the attributes it is in.

    Of many links to one folder in a page, a few are opened.
    """
    due, seen, opened = [f"{prefix}{path}" for path in paths], {}, Counter()
    while due:
        path = due.pop()
        answer = await http.get(f"{HOST}{path}")
        assert answer.status_code != 404, path
        is_page = "text/html" in answer.headers.get("content-type", "")
        found = Links(answer.text).found if is_page else []
        if "location" in answer.headers:
            found = [("href", answer.headers["location"])]
        for attribute, address in found:
            target = urlsplit(urljoin(f"{HOST}{path}", address))
            if address.startswith("#") or target.netloc != "tools.example":
                continue
            assert target.path.startswith(f"{prefix}/"), (path, attribute, address)
            folder = path, target.path.rpartition("/")[0]
            if target.path not in seen and attribute in OPENED and opened[folder] < FEW:
                due.append(f"{target.path}?{target.query}")
                opened[folder] += 1
            seen.setdefault(target.path, set()).add(attribute)
    return seen


async def test_no_link_of_any_page_leaves_the_prefix(proxied):
    front, prefix = proxied
    client = {"client_name": "Claude", "redirect_uris": [REDIRECT]}
    registered = (await front.http.post("/oauth/register", json=client)).json()
    query = urlencode(
        {
            "response_type": "code",
            "client_id": registered["client_id"],
            "redirect_uri": REDIRECT,
            "code_challenge": "x" * 43,
            "code_challenge_method": "S256",
        }
    )
    outside = ["/", "/admin", "/admin/", "/admin/sign-in", "/admin/sign-in/passkey", "/connections"]
    strangers = await walk_pages(front.http, prefix, outside)
    assert strangers.keys() >= {f"{prefix}/icon.svg", f"{prefix}/admin/sign-in"}

    await front.sign_in()
    inside = [*(entry.path for entry in NAVIGATION.values()), "/admin/account", "/admin/password"]
    inside += ["/connections", "/oauth/authorize", f"/oauth/authorize?{query}"]
    seen = await walk_pages(front.http, prefix, inside)
    pages = {f"{prefix}{entry.path}" for entry in NAVIGATION.values()}
    assert seen.keys() >= pages | {f"{prefix}/oauth/consent", f"{prefix}/admin/roles/grant"}
    assert len(seen) > 100
    for path, attributes in seen.items():
        if attributes.isdisjoint(OPENED):  # for POST: the path is served, whatever it answers
            assert (await front.http.get(f"{HOST}{path}")).status_code == 405, path


async def test_redirects_cookies_and_headers_of_forms_keep_the_prefix(proxied):
    front, prefix = proxied
    form = {"name": ADMIN, "password": PASSWORD}
    signed_in = await front.http.post("/admin/sign-in", data=form, headers={"Origin": HOST})
    assert (signed_in.status_code, signed_in.headers["location"]) == (303, f"{prefix}/admin/")
    names = {cookie.name: cookie.path for cookie in front.http.cookies.jar}
    suffix = prefix.replace("/", "-")
    assert names == {f"__Host-pvemcp_session{suffix}": "/", f"__Host-pvemcp_device{suffix}": "/"}
    front.csrf = re.search(r"X-CSRF-Token\": \"(\w+)", (await front.get("/admin/keys")).text)[1]
    fields = {"name": "Two", "0-tool": ["ListVms"], "0-reach": "everything"}
    saved = await front.post("/admin/roles", **fields)
    assert saved.headers["hx-redirect"] == f"{prefix}/admin/roles?saved=Two"
    front.http.cookies.clear()
    sent_out = await front.post("/admin/roles", **fields)
    assert sent_out.headers["hx-redirect"] == f"{prefix}/admin/sign-in"


async def test_addresses_for_programs_are_below_the_prefix(proxied):
    front, prefix = proxied
    base, services = f"{HOST}{prefix}", front.services
    await front.sign_in()
    desktop = (await front.get("/admin/bridge/claude_desktop_config.json")).json()
    assert desktop["mcpServers"]["pvemcp"]["env"]["MCP_URL"] == f"{base}/mcp"
    assert f"{base}/admin/api" in (await front.get("/admin/service-tokens")).text
    assert isinstance(services.approvals, Approvals)
    assert services.approvals.page == f"{base}/admin/approvals"
    challenge = (await front.http.post("/mcp", json={})).headers["www-authenticate"]
    metadata = re.search(r'resource_metadata="([^"]+)"', challenge)[1]
    resource = (await front.http.get(metadata)).json()
    assert metadata.startswith(f"{base}/.well-known/")
    assert resource["resource"] == f"{base}/mcp"
    [issuer] = resource["authorization_servers"]
    found = (await front.http.get(f"{issuer}/.well-known/openid-configuration")).json()
    assert found["issuer"] == issuer == f"{base}/oauth"
    endpoints = {name: url for name, url in found.items() if name.endswith("_endpoint")}
    assert len(endpoints) == 4
    assert {url.startswith(f"{base}/oauth/") for url in endpoints.values()} == {True}


ATTRIBUTE = re.compile(rf'\b({"|".join(ADDRESSES)})="([^"]*)"')
INTERNAL = re.compile(r"#|\{\{ (?:root \}\}|path\b|here \}\})")
ABSOLUTE = {
    ("issuer.html", "{{ then }}"),
    ("oauth_continue.html", "{{ then }}"),
    ("oauth_error.html", "{{ then }}"),
    ("issuer.html", "{{ then }}"),
    ("connections.html", "{{ own }}"),
    ("client_tabs.html", "{{ client.link(connection) }}"),  # of a program on the visitor's machine
}


def test_every_address_in_a_template_begins_with_the_prefix():
    wrong = []
    for template in sorted(Path(HERE / "templates").glob("*.html")):
        text = template.read_text("utf-8")
        for attribute, address in ATTRIBUTE.findall(text):
            is_absolute = (template.name, address) in ABSOLUTE
            if not is_absolute and not INTERNAL.match(address):
                wrong.append((template.name, attribute, address))
        values = re.findall(r"\{% set (?:path|here) = (.*) %\}", text)
        made_elsewhere = [value for value in values if not value.startswith(("root ~", "path ~"))]
        wrong += [(template.name, "set", value) for value in made_elsewhere]
    assert wrong == []


async def test_a_browser_at_an_endpoint_is_led_below_the_prefix(proxied):
    front, prefix = proxied
    for path in ("/mcp", "/sse", "/mcp/wrong"):
        answer = await front.http.get(f"{HOST}{prefix}{path}", headers={"Accept": "text/html"})
        assert answer.headers["Location"] == f"{prefix}/admin/endpoint"
        page = await front.http.get(f"{HOST}{answer.headers['Location']}")
        assert page.status_code == 200
