"""Every path that is not exactly a known one is refused: key gate and router cannot differ.

Each path of the application is changed in each segment and sent as raw HTTP, without a key and
without a session, because clients normalize what they send. Behind a path prefix, a path has the
same reading with the prefix and without it.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise, product
from urllib.parse import unquote

import anyio
import pytest
from anyio.streams.buffered import BufferedByteStream
from fastapi import FastAPI
from starlette.routing import Mount, Route

from pvemcp_server.app import create_app
from pvemcp_server.config import RESERVED, Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.http.gate import PUBLIC, is_public
from pvemcp_server.oauth.addresses import NOWHERE, OAUTH
from pvemcp_server.services import open_services
from pvemcp_server.web.site import AdminSite

pytestmark = pytest.mark.anyio

CONTROL = ("%0a", "%0d", "%00", "%09", "%0d%0a", "%7f")
SLASHES = ("%2f", "%5c", "\\", "//", "/./", "/../", "%2e%2e/", "%2f%2e%2e%2f", "..;/", ";", "%3b")
TWICE = tuple(
    characters.replace("%", "%25")
    for characters in (*CONTROL, *SLASHES, "%20")
    if "%" in characters
)
# Valid characters of a name: the changed path names an object that does not exist
HARMLESS = ("%20", "%2e", "/", "%85", "%c0%af", "%e2%80%a8")
ALL = (*CONTROL, *SLASHES, *TWICE, *HARMLESS)
FEW = ("%0a", "%00", "%20", "%2f", "//", ";", "%250a")  # for many routes

PREFIX = "/pve"
WITH_KEY = ("/mcp/x", "/sse/x", "/sse/x/messages")
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"},
    },
}


def routed(app: FastAPI, prefix: str = "") -> Iterator[str]:
    """Yield every path of the application and of what is mounted in it."""
    for route in app.routes:
        mounted = route.app if isinstance(route, Mount) else None
        if isinstance(mounted, AdminSite):
            mounted = mounted.application
        if isinstance(mounted, FastAPI):
            yield from routed(mounted, prefix + route.path)
        elif isinstance(route, Route):
            yield prefix + route.path.replace("{name}", "style.css")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a route for GET and HEAD has one operation id
        yield from (re.sub(r"\{\w+\}", "1", prefix + path) for path in app.openapi()["paths"])


def variants(path: str, inserted: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield what is inserted, and the path with it before, inside and after each segment."""
    ends = [at for at, letter in enumerate(path) if letter == "/"] + [len(path)]
    places = set(ends)
    for start, end in pairwise(ends):
        places |= {start + 1, (start + 1 + end) // 2}
    for characters, at in product(inserted, sorted(places)):
        yield characters, path[:at] + characters + path[at:]


class Connection:
    """Raw HTTP/1.1 on one connection, or the next one when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.stream: BufferedByteStream | None = None

    async def send(self, method: str, path: str) -> tuple[int, str]:
        """Return the status, and where the answer leads to."""
        if self.stream is None:
            self.stream = BufferedByteStream(await anyio.connect_tcp(*self.address))
        await self.stream.send(request(method, path))
        answer = await self.stream.receive_until(b"\r\n\r\n", 65536)
        fields = dict(re.findall(r"(?m)^([\w-]+): (.*?)\r?$", answer.decode("latin-1").lower()))
        if "content-length" in fields:
            await self.stream.receive_exactly(int(fields["content-length"]))
        if "content-length" not in fields or fields.get("connection") == "close":
            await self.aclose()
        return int(answer.split()[1]), fields.get("location", "")

    async def aclose(self) -> None:
        if self.stream is not None:
            await self.stream.aclose()
            self.stream = None


def request(method: str, path: str) -> bytes:
    """Return a request without any credentials; a POST initializes an MCP session."""
    head = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    body = b""
    if method == "POST":
        body = json.dumps(INITIALIZE).encode()
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        head += ["Accept: application/json, text/event-stream"]
    return "\r\n".join([*head, "", ""]).encode() + body


@pytest.fixture(scope="module")
async def served(anyio_backend, module_serving):
    """Start a server with all of the product's routes, and limits beyond these tests."""
    async with module_serving(calls_per_minute_per_address=10**6) as server:
        yield server


@pytest.fixture
async def connection(served):
    """Send to the server as it is written, and close the connection afterwards."""
    host, port = served.url.removeprefix("http://").split(":")
    connection = Connection(host, int(port))
    yield connection
    await connection.aclose()


@pytest.fixture(scope="module")
def known(served) -> list[str]:
    """Return every path that is served."""
    return sorted({*routed(served.app.fastapi), *served.app.asgi.transports, *WITH_KEY})


REFUSED = {(400, ""), (401, ""), (404, "")}
SIGNED_OUT = REFUSED | {(303, "/admin/sign-in"), (405, "")}


async def served_variants(connection, known, paths, inserted, method, harmless=REFUSED):
    """Return each variant that is not refused, and its answer."""
    wrong_answers = []
    for path in paths:
        for characters, variant in variants(path, inserted):
            if variant in known:
                continue
            answer = await connection.send(method, variant)
            if answer not in (harmless if characters in HARMLESS else REFUSED):
                wrong_answers.append((method, variant, *answer))
    return wrong_answers


def outside_admin(known) -> list[str]:
    return [path for path in known if not path.startswith("/admin/")]


async def test_every_route_is_a_transport_or_listed_as_public(served):
    routes = set(routed(served.app.fastapi))
    assert {"/", "/admin/sign-in", "/admin/api/keys", "/version"} <= routes
    assert [path for path in routes if not is_public(path)] == []
    assert [path for path in served.app.asgi.transports if is_public(path)] == []


async def test_known_paths_answer_as_they_should_without_a_key(connection):
    for path in ("/healthz", "/readyz", "/version", "/icon.svg", "/admin/sign-in"):
        assert await connection.send("GET", path) == (200, "")
    assert await connection.send("GET", "/") == (307, "/admin/")
    for path in ("/mcp", "/mcp/", "/sse", "/sse/messages", *WITH_KEY):
        assert await connection.send("POST", path) == (401, "")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_no_variant_of_an_endpoint_or_public_path_is_served(connection, known, method):
    paths = outside_admin(known)
    with anyio.fail_after(120):
        assert await served_variants(connection, known, paths, ALL, method) == []


async def test_no_variant_of_an_admin_path_is_served(connection, known):
    paths = [path for path in known if path not in outside_admin(known)]
    assert len(paths) > 80
    with anyio.fail_after(120):
        assert await served_variants(connection, known, paths, FEW, "GET", SIGNED_OUT) == []


async def test_no_variant_is_served_while_the_endpoint_is_switched_off(served, connection, known):
    await served.state.settings.change({"enabled": False}, by="test")
    assert await connection.send("POST", "/mcp") == (503, "")
    with anyio.fail_after(120):
        wrong_answers = await served_variants(connection, known, outside_admin(known), ALL, "POST")
    await served.state.settings.change({"enabled": True}, by="test")
    assert [answer for answer in wrong_answers if answer[2] != 503] == []


@pytest.fixture(scope="module")
async def prefixed(served):
    """Return the gate of the same server behind a path prefix."""
    config = served.state.config.model_copy(update={"public_url": f"http://localhost{PREFIX}"})
    async with open_services(replace(served.state, config=config)) as services:
        yield create_app(services).asgi


async def answer_of(gate, method: str, path: str) -> tuple[int, str]:
    """Return the status of a request in this process, and where its answer leads to."""
    body = json.dumps(INITIALIZE).encode() if method == "POST" else b""
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": method, "scheme": "http", "http_version": "1.1"}
    scope |= {"path": unquote(path), "raw_path": path.encode(), "query_string": b""}
    scope |= {"headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)}
    answers = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        if message["type"] == "http.response.start":
            location = dict(message["headers"]).get(b"location", b"")
            answers.append((message["status"], location.decode()))

    await gate(scope, receive, send)
    return answers[0]


def below_prefix(path: str) -> list[str]:
    """Return the forms of a path that a proxy passes on with the prefix."""
    inserted = re.sub(r"\A(/\.well-known/[^/]+)(?=/)", rf"\1{PREFIX}", path)
    return [PREFIX + path, *([inserted] if inserted != path else [])]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_path_has_one_reading_with_and_without_the_prefix(served, prefixed, known, method):
    for path in known:
        status, location = await answer_of(served.app.asgi, method, path)
        answer = (status, location and PREFIX + location)
        for form in (path, *below_prefix(path)):
            assert (form, await answer_of(prefixed, method, form)) == (form, answer)
        twice = PREFIX + PREFIX + path
        assert (twice, await answer_of(prefixed, method, twice)) == (twice, (404, ""))
    assert await answer_of(prefixed, "GET", PREFIX) == (307, f"{PREFIX}/admin/")


async def test_no_variant_of_a_path_below_the_prefix_is_served(prefixed, known):
    forms = {form for path in known for form in (path, *below_prefix(path))}
    assert len(forms) > 2 * len(known) > 200
    wrong_answers = []
    for path in sorted(forms - {*known}):
        is_admin = path.startswith(f"{PREFIX}/admin/")
        for characters, variant in variants(path, FEW):
            behind = len(variant) - len(path) + len(PREFIX) + 1
            if is_admin and variant[:behind] == path[:behind]:
                continue  # behind the prefix, these are the variants of the path without it
            answer = await answer_of(prefixed, "GET", variant)
            if variant not in forms and answer not in REFUSED:
                wrong_answers.append((characters, variant, *answer))
    assert wrong_answers == []


async def test_no_prefix_begins_like_a_path_of_this_server(known):
    own = {*known, *PUBLIC, *OAUTH, NOWHERE, "/register", "/authorize", "/token"}
    behind = [re.sub(r"\A/\.well-known/[^/]+", "", path) for path in own]
    first = {path.split("/")[1] for path in (*own, *behind) if path}
    assert first - {"", ".well-known"} == RESERVED  # no segment of a prefix begins with a dot
    for name in RESERVED:
        with pytest.raises(ConfigError, match="PVEMCP_PUBLIC_URL: must have another path"):
            Config.load(public_url=f"https://tools.example/{name}/x")
