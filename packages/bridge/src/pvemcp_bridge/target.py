"""The server: its URL, headers and TLS trust, and which parts of them are secrets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from pvemcp_bridge.tls import Trust

__all__ = ["BadTarget", "Target", "is_this_machine", "origin_of", "target"]

_DEFAULT_PATH = "/mcp"
_CREDENTIAL_HEADERS = frozenset({"authorization", "x-api-key"})
_SECRET_LENGTH = 7  # longer than "Bearer"; masking shorter words would garble the log
_NOT_ENCRYPTED = (
    "http:// to another machine is not encrypted: the key and all data can be read on the way. "
    "Use an https:// URL."
)
_NOT_VERIFIED = (
    "--insecure: the server's certificate is not verified, so another machine can take its place "
    "and read the key. Use --fingerprint or --ca instead."
)


class BadTarget(ValueError):
    """An option cannot be used; the message names it and the reason."""


@dataclass(frozen=True)
class Target:
    """MCP endpoint with headers, TLS trust and read timeout in seconds (None: no timeout)."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    trust: Trust = field(default_factory=Trust)
    read_timeout: float | None = 120.0

    @property
    def origin(self) -> str:
        """Scheme, host and port, the part of the URL that may be shown."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def is_on_this_machine(self) -> bool:
        return is_this_machine(urlsplit(self.url).hostname or "")

    @property
    def is_readable_on_the_way(self) -> bool:
        """Whether the connection to another machine is not encrypted."""
        return urlsplit(self.url).scheme == "http" and not self.is_on_this_machine

    @property
    def has_key(self) -> bool:
        """Whether an option holds a credential: then the user never signs in."""
        has_user = urlsplit(self.url).username is not None
        return has_user or not _CREDENTIAL_HEADERS.isdisjoint(self.headers)

    @property
    def may_hold_key(self) -> bool:
        """Whether the URL may hold a key, as /mcp/<key> does."""
        parts = urlsplit(self.url)
        return bool(parts.query) or parts.path.rpartition(_DEFAULT_PATH + "/")[2] != parts.path

    @property
    def risks(self) -> list[str]:
        """What lets others read the key on its way; empty for a verified server or this machine."""
        parts = urlsplit(self.url)
        if self.is_readable_on_the_way:
            return [_NOT_ENCRYPTED]
        if parts.scheme == "https" and self.trust.insecure and not self.trust.fingerprint:
            return [_NOT_VERIFIED]
        return []

    @property
    def secrets(self) -> frozenset[str]:
        """All texts that may be a key: parts of the URL and of header values."""
        parts = urlsplit(self.url)
        pieces = {*parts.path.split("/"), parts.query, parts.username, parts.password}
        values = {word for value in self.headers.values() for word in value.split()}
        return frozenset(text for text in pieces | values if text and len(text) >= _SECRET_LENGTH)


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL, to compare it with others.

    Raise ValueError if it is malformed.
    """
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", parts.port or default


def is_this_machine(host: str) -> bool:
    """Return whether a host name or address is that of this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def target(
    url: str,
    api_key: str = "",
    headers: Mapping[str, str] | None = None,
    trust: Trust | None = None,
    read_timeout: float | None = 120.0,
) -> Target:
    """Return the target for a URL as users write it, with the key in a header."""
    lower_headers = {name.lower(): value for name, value in (headers or {}).items()}
    return Target(
        _endpoint(url), _with_key(lower_headers, api_key), trust or Trust(), read_timeout or None
    )


def _endpoint(url: str) -> str:
    if not url:
        raise BadTarget("No server URL: set --url or MCP_URL.")
    if not url.strip().isprintable():
        raise BadTarget("The URL is malformed: it has characters that are not text.")
    try:
        parts = urlsplit(url.strip())
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise BadTarget(f"The URL is malformed: {error}.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise BadTarget("The URL must start with https:// or http:// and name a host.")
    path = _DEFAULT_PATH if parts.path in ("", "/") else parts.path
    return urlunsplit(parts._replace(path=path, fragment=""))


def _with_key(headers: dict[str, str], api_key: str) -> dict[str, str]:
    if not api_key:
        return headers
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise BadTarget("The API key must be printable ASCII without spaces.")
    # A proxy may need Authorization for itself; the server accepts the key in either header
    if "authorization" in headers:
        return headers | {"x-api-key": api_key}
    return headers | {"authorization": f"Bearer {api_key}"}
