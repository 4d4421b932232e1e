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
_KEY_HEADERS: Final = (b"x-api-key", b"authorization")


@dataclass(frozen=True, slots=True)
class Credential:
    """The key as the client sent it, and whether in the path."""

    secret: str = field(repr=False)
    in_path: bool = False


def take_key(scope: Scope) -> Credential | None:
    """Remove the key (path, X-API-Key or Bearer) from the scope and return it.

    The scope is changed in place, because uvicorn's access log reads the same object after the
    response. Whatever looks like a key is hidden anywhere in path and query, also at paths that
    are no endpoint. Only endpoints lose the two headers: the admin API reads Authorization.
    """
    parts = scope["path"].split("/")
    is_endpoint = len(parts) > 1 and parts[1] in ENDPOINTS
    in_path = ""
    if is_endpoint and len(parts) > 2 and parts[2] not in ("", MESSAGES):
        in_path = parts.pop(2)
    if parts[1:2] == [".well-known"]:
        del parts[3:]  # discovery of a resource repeats the resource's path, key and all
    path = "/".join(parts).rstrip("/") if is_endpoint else "/".join(parts)
    scope["path"] = KEY_LIKE.sub(HIDDEN, path)
    scope["raw_path"] = quote(scope["path"]).encode()
    query = scope.get("query_string", b"").decode("latin-1")
    scope["query_string"] = KEY_LIKE.sub(HIDDEN, query).encode("latin-1")
    if not is_endpoint:
        return None
    # Blanks around a value do not belong to it (RFC 9110, 5.5); httptools keeps the trailing ones
    headers = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
    values = dict(reversed(headers))  # of a repeated header, the first
    scope["headers"] = [header for header in headers if header[0] not in _KEY_HEADERS]
    if in_path:
        return Credential(in_path, in_path=True)
    if key := values.get(b"x-api-key"):
        return Credential(key.decode("latin-1"))
    scheme, _, token = values.get(b"authorization", b"").decode("latin-1").partition(" ")
    return Credential(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
