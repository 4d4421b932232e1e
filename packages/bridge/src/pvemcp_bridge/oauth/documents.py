"""Documents of OAuth, checked: the challenge of a 401, metadata, registration and tokens.

A server that the user has chosen sends or names all of them, so each value is checked before it is
used: addresses must be https (http on this machine only if the server is there as well), issuer and
resource must be those that were requested, and a token must fit into a header.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pvemcp_bridge.target import is_this_machine, origin_of

__all__ = [
    "BadDocument",
    "Challenge",
    "Resource",
    "Server",
    "Tokens",
    "challenge",
    "checked_url",
    "resource",
    "resource_metadata_urls",
    "server",
    "server_metadata_urls",
    "tokens",
]

_LONGEST_URL = 2000
_LONGEST_TOKEN = 8000
_LONGEST_LIFETIME = 366 * 86_400.0
_MOST_SCOPES = 100
_CHALLENGE_PART = re.compile(
    r'([A-Za-z][\w.~+-]*)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]+)|([A-Za-z][\w.~+-]*)'
)
_ESCAPED = re.compile(r"\\(.)")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")
_RESOURCE_PATH = "/.well-known/oauth-protected-resource"
_SERVER_PATH = "/.well-known/oauth-authorization-server"
_OPENID_PATH = "/.well-known/openid-configuration"


class BadDocument(ValueError):
    """A document cannot be used; the message says why."""


@dataclass(frozen=True)
class Challenge:
    """Bearer challenge of a `WWW-Authenticate` header (RFC 6750, RFC 9728)."""

    error: str = ""
    scope: tuple[str, ...] = ()
    metadata_url: str = ""


@dataclass(frozen=True)
class Resource:
    """Protected resource metadata (RFC 9728)."""

    resource: str
    issuer: str
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class Server:
    """Authorization server metadata (RFC 8414, or OpenID Connect Discovery)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str
    revocation_endpoint: str
    scopes: tuple[str, ...]
    auth_methods: tuple[str, ...]
    promises_issuer: bool


@dataclass(frozen=True)
class Tokens:
    """Answer of a token endpoint; `lifetime` in seconds, None if the server names none."""

    access_token: str
    refresh_token: str
    lifetime: float | None
    scope: tuple[str, ...]


def challenge(header: str) -> Challenge:
    """Parse a `WWW-Authenticate` header; other schemes than Bearer count as no challenge."""
    values: dict[str, str] = {}
    is_bearer = False
    for name, value, scheme in _CHALLENGE_PART.findall(header):
        if scheme:
            is_bearer = scheme.lower() == "bearer"
        elif is_bearer:
            text = _ESCAPED.sub(r"\1", value[1:-1]) if value.startswith('"') else value
            values.setdefault(name.lower(), text)
    return Challenge(
        values.get("error", ""),
        _scopes(values.get("scope", "").split()),
        values.get("resource_metadata", ""),
    )


def checked_url(value: Any, *, loopback: bool) -> str:
    """Return an https URL, or with `loopback` an http URL of this machine; else raise BadDocument.

    Control characters, spaces, user names and fragments are refused in each.
    """
    if not (isinstance(value, str) and len(value) <= _LONGEST_URL and _TOKEN.fullmatch(value)):
        raise BadDocument("an address is missing or malformed")
    parts = _split(value)
    host = parts.hostname or ""
    is_safe = parts.scheme == "https" or (
        parts.scheme == "http" and loopback and is_this_machine(host)
    )
    if not (host and is_safe) or parts.username is not None or parts.fragment:
        raise BadDocument(f"{value} is not an https address")
    return value


def resource_metadata_urls(url: str) -> list[str]:
    """Return the well-known places for the metadata of an MCP endpoint, the nearest first."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    urls = [_with_path(parts, _RESOURCE_PATH + path), _with_path(parts, _RESOURCE_PATH)]
    return list(dict.fromkeys(urls))


def server_metadata_urls(issuer: str) -> list[str]:
    """Return the well-known places for the metadata of an issuer, in the order of MCP."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    urls = [_with_path(parts, _SERVER_PATH + path), _with_path(parts, _OPENID_PATH + path)]
    return list(dict.fromkeys([*urls, _with_path(parts, path + _OPENID_PATH)]))


def resource(document: Mapping[str, Any], url: str, *, loopback: bool) -> Resource:
    """Check protected resource metadata for the MCP endpoint at `url`.

    The resource may be the endpoint or a path above it at the same origin: tokens for another
    server would be of use there, and not here.
    """
    name = checked_url(document.get("resource"), loopback=loopback)
    if not _covers(name, url):
        raise BadDocument(f"its metadata is that of another resource, {name}")
    servers = document.get("authorization_servers")
    if not (isinstance(servers, list) and servers):
        raise BadDocument("its metadata names no authorization server")
    issuer = checked_url(servers[0], loopback=loopback)
    if urlsplit(issuer).query:
        raise BadDocument(f"the issuer {issuer} has a query")
    return Resource(name, issuer, _scopes(document.get("scopes_supported")))


def server(document: Mapping[str, Any], issuer: str, *, loopback: bool) -> Server:
    """Check authorization server metadata; the issuer must be exactly the requested one."""
    if document.get("issuer") != issuer:
        raise BadDocument(f"the metadata of {issuer} names another issuer")
    if "S256" not in _strings(document.get("code_challenge_methods_supported")):
        raise BadDocument(f"{issuer} does not support PKCE with S256")

    def endpoint(name: str, *, required: bool = False) -> str:
        value = document.get(f"{name}_endpoint")
        return checked_url(value, loopback=loopback) if required or value is not None else ""

    return Server(
        issuer,
        endpoint("authorization", required=True),
        endpoint("token", required=True),
        endpoint("registration"),
        endpoint("revocation"),
        _scopes(document.get("scopes_supported")),
        tuple(_strings(document.get("token_endpoint_auth_methods_supported"))),
        document.get("authorization_response_iss_parameter_supported") is True,
    )


def tokens(document: Mapping[str, Any]) -> Tokens:
    """Check the answer of a token endpoint."""
    if str(document.get("token_type")).lower() != "bearer":
        raise BadDocument("the token is not a bearer token")
    scope = document.get("scope")
    return Tokens(
        _token(document.get("access_token")),
        _token(document["refresh_token"]) if document.get("refresh_token") else "",
        _seconds(document.get("expires_in")),
        _scopes(scope.split() if isinstance(scope, str) else ()),
    )


def _seconds(value: Any) -> float | None:
    is_positive = isinstance(value, int | float) and value > 0
    return float(min(value, _LONGEST_LIFETIME)) if is_positive else None


def _token(value: Any) -> str:
    if not (isinstance(value, str) and len(value) <= _LONGEST_TOKEN and _TOKEN.fullmatch(value)):
        raise BadDocument("a token is missing or malformed")
    return value


def _scopes(values: Any) -> tuple[str, ...]:
    """Return the valid scopes of a list, each once."""
    scopes = [text for text in _strings(values) if _SCOPE.fullmatch(text)]
    return tuple(dict.fromkeys(scopes))[:_MOST_SCOPES]


def _strings(values: Any) -> Iterator[str]:
    if isinstance(values, list | tuple):
        yield from (value for value in values if isinstance(value, str))


def _covers(name: str, url: str) -> bool:
    """Return whether a resource is the endpoint or a path above it at the same origin."""
    above, endpoint = _split(name), _split(url)
    if origin_of(name) != origin_of(url) or above.query not in ("", endpoint.query):
        return False
    path = above.path.rstrip("/")
    return endpoint.path.rstrip("/") == path or endpoint.path.startswith(f"{path}/")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise BadDocument("an address is malformed") from None
    return parts


def _with_path(parts: SplitResult, path: str) -> str:
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
