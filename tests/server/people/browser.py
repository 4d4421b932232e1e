"""A browser that goes through the sign-in and the consent without JavaScript."""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2 as httpx

VERIFIER = "a-verifier-of-forty-three-characters-or-more-0123"
CHALLENGE = (
    base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
)
BASE = "http://localhost"


@dataclass
class Browser:
    """A browser with its own cookies, and the page that it shows."""

    http: httpx.AsyncClient
    page: httpx.Response | None = None
    client: dict[str, str] = field(default_factory=dict)

    async def go(self, path: str) -> httpx.Response:
        """Open a path and follow redirects within the server."""
        self.page = await self.http.get(path)
        return await self._follow()

    async def submit(self, path: str, **fields: object) -> httpx.Response:
        """Send a form of the page that it shows, with its CSRF token."""
        csrf = {"csrf": self.csrf} if self.csrf else {}
        origin = {"Origin": str(self.http.base_url).rstrip("/")}
        self.page = await self.http.post(path, data={**csrf, **fields}, headers=origin)
        return await self._follow()

    async def authorize(self, **changes: str | None) -> httpx.Response:
        """Open the authorization endpoint for the client, with changed or omitted parameters."""
        return await self.go(self.authorization(**changes))

    def authorization(self, **changes: str | None) -> str:
        """Return the path and query of an authorization request."""
        parameters = {
            "response_type": "code",
            "client_id": self.client["client_id"],
            "redirect_uri": self.client["redirect_uris"][0],
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "state": "state of the client",
            "scope": "pve:read",
            **changes,
        }
        kept = {name: value for name, value in parameters.items() if value is not None}
        return f"/oauth/authorize?{urlencode(kept)}"

    async def sign_in(self, realm: str, user: str, password: str) -> httpx.Response:
        """Sign in on the page that it shows."""
        return await self.submit(
            f"/oauth/sign-in{self.query}", realm=realm, user=user, password=password
        )

    async def consent(self, decision: str = "connect", **fields: object) -> httpx.Response:
        """Answer the consent page as it shows it, but for these fields."""
        checked = {"role": "Read-only", "cluster": self.clusters}
        return await self.submit(
            f"/oauth/consent{self.query}", decision=decision, **{**checked, **fields}
        )

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.page.text)
        return found[1] if found else ""

    @property
    def cookie(self) -> str:
        """The cookie of the session."""
        return self.http.cookies["pvemcp_person"]

    @property
    def query(self) -> str:
        query = self.page.url.query.decode()
        return f"?{query}" if query else ""

    @property
    def clusters(self) -> list[str]:
        return re.findall(r'name="cluster" value="(\w+)" checked', self.page.text)

    @property
    def text(self) -> str:
        """The text of the page."""
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", self.page.text)).split())

    @property
    def answer(self) -> dict[str, str]:
        """The parameters of the redirect to the client that the page leads to."""
        found = re.search(r'content="0;url=([^"]+)"', self.page.text)
        url = unescape(found[1]) if found else self.page.headers["location"]
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    async def token(self, **changes: str) -> httpx.Response:
        """Exchange the code of the answer."""
        fields = {
            "grant_type": "authorization_code",
            "client_id": self.client["client_id"],
            "code": self.answer["code"],
            "code_verifier": VERIFIER,
            "redirect_uri": self.client["redirect_uris"][0],
            **changes,
        }
        return await self.http.post("/oauth/token", data=fields)

    async def _follow(self) -> httpx.Response:
        while (target := self.page.headers.get("location", "")).startswith("/"):
            self.page = await self.http.get(target)
        return self.page
