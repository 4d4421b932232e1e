"""MCP server with its own authorization server, over real sockets, for the bridge's sign-in.

It checks what a careful server checks, and its documents can be replaced by those of an attacker.
`visit` is the user with a browser.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import socket
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2 as httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("look", "write")]


class OAuthServer:
    """The server; `requests` holds method and path of all requests, `forms` those of tokens."""

    def __init__(self):
        self.url = ""
        self.audience = ""  # the MCP endpoint, if it is on another server
        self.reset()

    def reset(self):
        """Forget clients and tokens, and answer like a server without a fault."""
        self.requests, self.forms, self.authorizations = [], [], []
        self.clients, self.codes = {}, {}
        self.access, self.refresh, self.used = {}, {}, set()
        self.lifetime = 3600
        self.challenge = True  # names the metadata
        self.resource, self.metadata, self.registration, self.token = {}, {}, {}, {}
        self.response = {}  # replaces parameters of the authorization response; None omits one
        self.pages = {}  # path: response in place of the normal one

    @property
    def mcp(self):
        return f"{self.url}/mcp"

    def paths(self, prefix=""):
        return [path for _, path in self.requests if path.startswith(prefix)]

    def end_access(self):
        """Let all access tokens end; refresh tokens stay."""
        self.access.clear()

    # the resource

    async def call(self, request):
        scope = self.access.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if scope is None:
            return self._refuse(401, scope="pve:read")
        if request.method != "POST":
            return Response(status_code=405)
        message = await request.json()
        if "id" not in message:
            return Response(status_code=202)
        is_write = message["params"].get("name") == "write"
        if is_write and "pve:write" not in scope:
            return self._refuse(403, error="insufficient_scope", scope="pve:write")
        return JSONResponse(
            {"jsonrpc": "2.0", "id": message["id"], "result": self._result(message)}
        )

    def _refuse(self, status, **values):
        if self.challenge:
            values["resource_metadata"] = f"{self.url}/.well-known/oauth-protected-resource/mcp"
        pairs = ", ".join(f'{name}="{value}"' for name, value in values.items())
        # OAuth's form of an error, which is not one of JSON-RPC
        body = {"error": values.get("error", "invalid_token"), "error_description": "no"}
        return JSONResponse(body, status, headers={"www-authenticate": f"Bearer {pairs}"})

    def _result(self, message):
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            info = {"name": "real", "version": "1"}
            return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        if message["method"] == "server/discover":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        if message["method"] == "tools/list":
            return {"tools": TOOLS}
        return {"content": [{"type": "text", "text": "done"}]}

    # the authorization server

    async def resource_metadata(self, _):
        document = {"resource": self.mcp, "authorization_servers": [self.url]}
        return JSONResponse(
            document | {"scopes_supported": ["pve:read", "pve:write"]} | self.resource
        )

    async def server_metadata(self, _):
        endpoints = ("authorization", "token", "registration", "revocation")
        document = {f"{name}_endpoint": f"{self.url}/{name}" for name in endpoints}
        document |= {
            "issuer": self.url,
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "authorization_response_iss_parameter_supported": True,
        }
        return JSONResponse(document | self.metadata)

    async def register(self, request):
        client = await request.json()
        assert client["application_type"] == "native", client
        client["client_id"] = secrets.token_hex(8)
        if client["token_endpoint_auth_method"] != "none":
            client["client_secret"] = secrets.token_hex(8)
        self.clients[client["client_id"]] = client
        return JSONResponse(client | self.registration, 201)

    async def authorize(self, request):
        asked = dict(request.query_params)
        self.authorizations.append(asked)
        client = self.clients.get(asked["client_id"])
        if client is None or asked["redirect_uri"] not in client["redirect_uris"]:
            return Response("unknown client or address", 400)
        assert asked["code_challenge_method"] == "S256"
        assert asked["resource"] == (self.audience or self.mcp)
        code = secrets.token_hex(8)
        self.codes[code] = asked
        answer = {"code": code, "state": asked["state"], "iss": self.url} | self.response
        answer = {name: value for name, value in answer.items() if value is not None}
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}", 302)

    async def token_endpoint(self, request):
        form = {
            name: values[0] for name, values in parse_qs((await request.body()).decode()).items()
        }
        self.forms.append(form)
        if not self._is_client(form, request.headers.get("authorization", "")):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form["grant_type"] == "authorization_code":
            scope = self._redeem(form)
        else:
            scope = self._rotate(form)
        if scope is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.access[access], self.refresh[refresh] = scope, (form["client_id"], scope)
        answer = {"access_token": access, "token_type": "Bearer", "refresh_token": refresh}
        answer |= {"expires_in": self.lifetime, "scope": " ".join(scope)}
        return JSONResponse(answer | self.token)

    def _is_client(self, form, header):
        """Return whether a form comes from a client, by the method that it registered."""
        client = self.clients.get(form.get("client_id"), {})
        secret, method = client.get("client_secret"), client.get("token_endpoint_auth_method")
        pair = base64.b64encode(f"{client.get('client_id')}:{secret}".encode()).decode()
        expected = {
            "none": (None, ""),
            "client_secret_post": (secret, ""),
            "client_secret_basic": (None, f"Basic {pair}"),
        }
        return (form.get("client_secret"), header) == expected.get(method)

    def _redeem(self, form):
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        is_right = (
            asked
            and asked["code_challenge"] == expected
            and all(asked[name] == form[name] for name in ("client_id", "redirect_uri", "resource"))
        )
        return asked.get("scope", "").split() if is_right else None

    def _rotate(self, form):
        token = form["refresh_token"]
        client, scope = self.refresh.pop(token, (None, None))
        if token in self.used:  # reuse ends the connection
            self.access.clear()
            self.refresh.clear()
        self.used.add(token)
        return scope if client == form["client_id"] else None

    async def revoke(self, request):
        form = parse_qs((await request.body()).decode())
        fields = {name: values[0] for name, values in form.items()}
        if not self._is_client(fields, request.headers.get("authorization", "")):
            return JSONResponse({"error": "invalid_client"}, 401)
        if self.refresh.pop(form["token"][0], None):
            self.access.clear()
        return Response()

    async def answer(self, request):
        self.requests.append((request.method, request.url.path))
        if page := self.pages.get(request.url.path):
            return page
        handlers = {
            "/mcp": self.call,
            "/.well-known/oauth-protected-resource/mcp": self.resource_metadata,
            "/.well-known/oauth-authorization-server": self.server_metadata,
            "/registration": self.register,
            "/authorization": self.authorize,
            "/token": self.token_endpoint,
            "/revocation": self.revoke,
        }
        handler = handlers.get(request.url.path)
        return await handler(request) if handler else Response(status_code=404)


async def visit(address, *, verify=True, follow_redirects=True):
    """Open an address as a browser does; return the last page."""
    async with httpx.AsyncClient(follow_redirects=follow_redirects, verify=verify) as browser:
        return await browser.get(address)


def query(address):
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


class Output:
    """The client's end of a bridge in the test's process."""

    def __init__(self):
        self.messages = asyncio.Queue()

    async def send(self, line):
        await self.messages.put(json.loads(line))

    async def read(self):
        async with asyncio.timeout(10):
            return await self.messages.get()


@asynccontextmanager
async def running(certificate=None):
    """Run the server, over TLS with a certificate."""
    server = OAuthServer()
    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", server.answer, methods=methods)])
    listener = socket.create_server(("127.0.0.1", 0))
    scheme, tls = ("https", certificate.files) if certificate else ("http", {})
    server.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_level="error", lifespan="off", ws="none", **tls)
    process = uvicorn.Server(config)
    task = asyncio.create_task(process.serve([listener]))
    try:
        yield server
    finally:
        process.should_exit = True
        await task
