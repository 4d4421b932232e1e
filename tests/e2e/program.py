"""A program on the user's computer that connects: its loopback redirect, tokens and calls."""

import base64
import hashlib
import json
import re
import secrets
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx2 as httpx

VERIFIER = secrets.token_urlsafe(48)
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=")
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Program:
    """A program that waits for the answer on a loopback redirect."""

    def __init__(self) -> None:
        self.client = ""
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

    def authorization(self, url: str, scope: str = "pve:read") -> str:
        """Register at the server, once, and return the URL to open."""
        if not self.client:
            registered = {"client_name": "Assistant", "redirect_uris": [self.redirect]}
            answer = httpx.post(f"{url}/oauth/register", json=registered)
            self.client = answer.json()["client_id"]
        query = {
            "response_type": "code",
            "client_id": self.client,
            "redirect_uri": self.redirect,
            "code_challenge": CHALLENGE.decode(),
            "code_challenge_method": "S256",
            "state": "s",
            "scope": scope,
        }
        self.answered.clear()
        return f"{url}/oauth/authorize?{urlencode(query)}"

    def token(self, url: str) -> str:
        """Wait for the answer, check it, and return an access token for its code."""
        assert self.answered.wait(20)
        assert self.answer["state"] == "s"
        assert self.answer["iss"] == f"{url}/oauth"
        form = {
            "grant_type": "authorization_code",
            "client_id": self.client,
            "code": self.answer["code"],
            "code_verifier": VERIFIER,
            "redirect_uri": self.redirect,
        }
        return str(httpx.post(f"{url}/oauth/token", data=form).json()["access_token"])

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


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
