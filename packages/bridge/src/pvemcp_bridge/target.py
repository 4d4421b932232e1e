"""Where the messages go, with what key, and what of it must never be written anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from pvemcp_bridge.tls import Trust

__all__ = ["BadTarget", "Target", "target"]

_DEFAULT_PATH = "/mcp"
_SECRET_LENGTH = 7  # longer than "Bearer"; shorter words say nothing


class BadTarget(ValueError):
    """The URL, key or header given cannot be used; says which and why."""


@dataclass(frozen=True)
class Target:
    """One MCP endpoint and how to speak to it."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trust: Trust = field(default_factory=Trust)
    silence: float | None = 120.0

    @property
    def origin(self) -> str:
        """Scheme, host and port: what may be shown."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def secrets(self) -> frozenset[str]:
        """Every text that may be a key: parts of the URL and of header values."""
        parts = urlsplit(self.url)
        pieces = {*parts.path.split("/"), parts.query, parts.username, parts.password}
        values = {word for value in self.headers.values() for word in value.split()}
        return frozenset(text for text in pieces | values if text and len(text) >= _SECRET_LENGTH)


def target(
    url: str,
    api_key: str = "",
    headers: Mapping[str, str] | None = None,
    trust: Trust | None = None,
    silence: float | None = 120.0,
) -> Target:
    """The endpoint for a URL as people write it, its key in a header rather than in the URL."""
    given = {name.lower(): value for name, value in (headers or {}).items()}
    return Target(_endpoint(url), _with_key(given, api_key), trust or Trust(), silence or None)


def _endpoint(url: str) -> str:
    if not url:
        raise BadTarget("No server is given: use --url or MCP_URL.")
    try:
        parts = urlsplit(url.strip())
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise BadTarget(f"The URL is malformed: {error}.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadTarget("The URL starts with https:// or http:// and names a host.")
    path = _DEFAULT_PATH if parts.path in ("", "/") else parts.path
    return urlunsplit(parts._replace(path=path, fragment=""))


def _with_key(headers: dict[str, str], api_key: str) -> dict[str, str]:
    if not api_key:
        return headers
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise BadTarget("The API key holds characters that no key has.")
    # a proxy in front may want Authorization for itself; the server takes the key in either header
    if "authorization" in headers:
        return headers | {"x-api-key": api_key}
    return headers | {"authorization": f"Bearer {api_key}"}
