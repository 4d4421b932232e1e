"""Credentials of a request: the API key, hidden from all behind the gate, and the cookies."""

import re
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote

from pvemcp_server.access.authentication import is_jwt
from pvemcp_server.store.key_format import ACCESS_PREFIX, KEY_LIKE, PREFIX

Scope = MutableMapping[str, Any]

ENDPOINTS: Final = ("mcp", "sse")
MESSAGES: Final = "messages"  # where clients of HTTP+SSE post to, below /sse or /sse/<key>
HIDDEN: Final = "***"
MOST_DECODED: Final = 6  # times that a part is decoded to look for a key
_TAKEN: Final = (b"x-api-key", b"authorization", b"cookie")  # an endpoint needs no cookie
# Python quotes those of ours that end with "=", and escapes nothing in any; `__Host-` is for https,
# and a path prefix ends the name
_OWN: Final = re.compile(rb"(?:__Host-)?" + PREFIX.encode() + rb'_[\w.~-]+="?[^"\\\s]*"?')


@dataclass(frozen=True, slots=True)
class Credential:
    """The key or token as the client sent it, and where.

    A token is an access token of ours, or a JWT in Authorization; all else is taken for an API key.
    """

    secret: str = field(repr=False)
    is_token: bool
    in_path: bool = False
    is_bearer: bool = False


def take_key(scope: Scope) -> Credential | None:
    """Remove the key (path, X-API-Key or Bearer) from the scope and return it.

    The scope is changed in place, because uvicorn's access log reads the same object after the
    response. Whatever looks like a key is hidden anywhere in path and query, also at paths that
    are no endpoint. Only endpoints lose the headers: the admin API reads Authorization and cookies.
    """
    parts = scope["path"].split("/")
    is_endpoint = len(parts) > 1 and parts[1] in ENDPOINTS
    in_path = ""
    if is_endpoint and len(parts) > 2 and parts[2] not in ("", MESSAGES):
        in_path = parts.pop(2)
    if parts[1:2] == [".well-known"]:
        parts[4:] = [HIDDEN] * bool(parts[4:])  # discovery of a resource repeats its path, key too
    path = "/".join(parts).rstrip("/") if is_endpoint else "/".join(parts)
    if PREFIX in path or "%" in path:  # nothing else can be a key
        path = "/".join(map(_hidden, path.split("/")))
    scope["path"] = path
    scope["raw_path"] = quote(path).encode()
    if query := scope.get("query_string", b"").decode("latin-1"):
        scope["query_string"] = "&".join(map(_hidden, query.split("&"))).encode("latin-1")
    if not is_endpoint:
        return None
    # Blanks around a value do not belong to it (RFC 9110, 5.5); httptools keeps the trailing ones
    headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
    values = dict(reversed(headers))  # of a repeated header, the first
    scope["headers"] = [header for header in headers if header[0] not in _TAKEN]
    secret = in_path or values.get(b"x-api-key", b"").decode("latin-1")
    is_bearer = False
    if not secret:
        scheme, _, token = values.get(b"authorization", b"").decode("latin-1").partition(" ")
        secret, is_bearer = token.strip(), scheme.lower() == "bearer"
        if not secret or not is_bearer:
            return None
    is_token = secret.startswith(f"{ACCESS_PREFIX}_") or (is_bearer and is_jwt(secret))
    return Credential(secret, is_token, in_path=bool(in_path), is_bearer=is_bearer)


def _hidden(part: str) -> str:
    """Hide what looks like a key; the whole part of path or query that is one after decoding."""
    part = KEY_LIKE.sub(HIDDEN, part)
    decoded = part
    for _ in range(MOST_DECODED):
        before, decoded = decoded, unquote(decoded, "latin-1")
        if decoded == before:
            return part
        if KEY_LIKE.search(decoded):
            return HIDDEN
    return HIDDEN  # encoded more often than any client does


def keep_own_cookies(scope: Scope) -> None:
    """Remove all cookies from the scope that this server cannot have set.

    The cookies of a host are shared by all its ports. Before 3.11.10 and 3.12.6, Python takes half
    a minute for the backslashes of one quoted cookie, and FastAPI decodes the cookies for every
    route.
    """
    scope["headers"] = [
        (name, _own(value) if name == b"cookie" else value) for name, value in scope["headers"]
    ]


def _own(header: bytes) -> bytes:
    cookies = (cookie.strip() for cookie in header.split(b";"))
    return b"; ".join(cookie for cookie in cookies if _OWN.fullmatch(cookie))
