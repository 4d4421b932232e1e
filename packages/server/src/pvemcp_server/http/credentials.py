"""Takes the API key out of a request, so that nothing behind the gate can see or log it."""

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

from pvemcp_server.store.key_format import KEY_LIKE

Scope = MutableMapping[str, Any]

ENDPOINTS: Final = ("mcp", "sse")
MESSAGES: Final = "messages"  # where clients of HTTP+SSE post to, below /sse or /sse/<key>
HIDDEN: Final = "***"
_CARRIERS: Final = (b"x-api-key", b"authorization")


@dataclass(frozen=True, slots=True)
class Presented:
    """The key as it was presented, and whether it stood in the path."""

    secret: str = field(repr=False)
    in_path: bool = False


def take_key(scope: Scope) -> Presented | None:
    """The key from path, X-API-Key or Bearer; afterwards it is nowhere in the scope.

    The scope is changed in place: the server's access log reads the same object.
    """
    parts = scope["path"].split("/")
    is_endpoint = len(parts) > 1 and parts[1] in ENDPOINTS
    in_path = parts.pop(2) if is_endpoint and _names_key(parts) else ""
    if parts[1:2] == [".well-known"]:
        del parts[3:]  # discovery of a resource repeats the resource's path, key and all
    _rewrite(scope, "/".join(parts).rstrip("/") if is_endpoint else "/".join(parts))
    headers = _strip(scope["headers"])
    found = Presented(in_path, in_path=True) if in_path else _in_headers(headers)
    scope["headers"] = [h for h in headers if h[0] not in _CARRIERS] if is_endpoint else headers
    return found if is_endpoint else None


def _names_key(parts: list[str]) -> bool:
    return len(parts) > 2 and parts[2] not in ("", MESSAGES)


def _rewrite(scope: Scope, path: str) -> None:
    scope["path"] = KEY_LIKE.sub(HIDDEN, path)
    scope["raw_path"] = quote(scope["path"]).encode()
    query = scope.get("query_string", b"").decode("latin-1")
    scope["query_string"] = KEY_LIKE.sub(HIDDEN, query).encode("latin-1")


def _strip(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # RFC 9110 5.5: blanks around a value are no part of it; httptools leaves trailing ones
    return [(name, value.strip(b" \t")) for name, value in headers]


def _in_headers(headers: list[tuple[bytes, bytes]]) -> Presented | None:
    values = dict(reversed(headers))
    if key := values.get(b"x-api-key"):
        return Presented(key.decode("latin-1"))
    scheme, _, token = values.get(b"authorization", b"").decode("latin-1").partition(" ")
    return Presented(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
