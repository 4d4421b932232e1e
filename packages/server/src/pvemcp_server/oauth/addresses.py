"""The addresses of the endpoint and of the authorization server, below one base URL."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

AUTHORIZE: Final = "/oauth/authorize"
TOKEN: Final = "/oauth/token"  # noqa: S105 - a path
REGISTER: Final = "/oauth/register"
REVOKE: Final = "/oauth/revoke"
RESOURCE_METADATA: Final = "/.well-known/oauth-protected-resource"
SERVER_METADATA: Final = (
    "/.well-known/oauth-authorization-server/oauth",
    "/.well-known/openid-configuration/oauth",
    "/oauth/.well-known/openid-configuration",
)
RESOURCE_DOCUMENTS: Final = frozenset(
    {RESOURCE_METADATA, f"{RESOURCE_METADATA}/mcp", f"{RESOURCE_METADATA}/sse"}
)
# Clients call these, also pages of any origin (CORS); no cookie counts there
OPEN: Final = frozenset(
    {
        *(TOKEN, REGISTER, REVOKE),
        *SERVER_METADATA,
        *RESOURCE_DOCUMENTS,
    }
)
# The user's browser opens these
PAGES: Final = frozenset(
    {
        *(AUTHORIZE, "/oauth/consent", "/oauth/openid"),
        *("/oauth/sign-in", "/oauth/sign-in/second-factor", "/oauth/sign-in/openid"),
        *("/connections", "/connections/end", "/connections/sign-out"),
    }
)
OAUTH: Final = OPEN | PAGES
NOWHERE: Final = f"{RESOURCE_METADATA}/api-key"  # answered with 404: a key needs no sign-in
_DEFAULT_PORT: Final = {"http": re.compile(r":80\Z"), "https": re.compile(r":443\Z")}


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses below `base`, as https://mcp.example or, with a prefix, https://x.example/pve.

    All of them are below the prefix: the metadata of a resource is found by its challenge, that of
    the issuer by appending its well-known path.
    """

    base: str

    @property
    def prefix(self) -> str:
        """The path of the base URL, such as /pve; empty without one."""
        return urlsplit(self.base).path

    @property
    def issuer(self) -> str:
        """The identifier of the authorization server (RFC 8414), the `iss` of RFC 9207."""
        return f"{self.base}/oauth"

    @property
    def resources(self) -> tuple[str, str]:
        """The resources that tokens are issued for: the endpoint, and that of HTTP+SSE."""
        return f"{self.base}/mcp", f"{self.base}/sse"

    def resource_at(self, path: str) -> str:
        """Return the resource that a path of a transport belongs to."""
        mcp, sse = self.resources
        return sse if path.startswith("/sse") else mcp

    def resource_metadata(self, path: str) -> str:
        """Return the URL of the metadata of the resource at this path of a transport."""
        return f"{self.base}{RESOURCE_METADATA}{'/sse' if path.startswith('/sse') else '/mcp'}"

    def resource_of(self, indicator: str | None) -> str | None:
        """Return the resource that a resource indicator (RFC 8707) names; None for another server.

        A request without one, or for the base URL, is for the endpoint. Case of scheme and host, a
        default port and a slash at the end do not matter.
        """
        mcp, sse = self.resources
        if not indicator:
            return mcp
        try:
            parts = urlsplit(indicator)
        except ValueError:
            return None
        scheme = parts.scheme.lower()
        host = (
            _DEFAULT_PORT[scheme].sub("", parts.netloc.lower()) if scheme in _DEFAULT_PORT else ""
        )
        origin = normalized(self.base.removesuffix(self.prefix))
        if f"{scheme}://{host}" != origin or parts.query or "#" in indicator:
            return None
        paths = {self.prefix: mcp, f"{self.prefix}/mcp": mcp, f"{self.prefix}/sse": sse}
        return paths.get(parts.path.rstrip("/"))


def normalized(origin: str) -> str:
    """Return scheme and host in lower case, without a default port."""
    scheme, _, host = origin.lower().partition("://")
    return f"{scheme}://{_DEFAULT_PORT[scheme].sub('', host)}"
