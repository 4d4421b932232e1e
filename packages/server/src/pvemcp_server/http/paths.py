"""Request paths: which of them need no key, and which spellings are refused."""

import re
from typing import Final

from starlette.types import Scope

MCP: Final = "/mcp"
SSE: Final = "/sse"
SSE_MESSAGES: Final = "/sse/messages"

# Probes of orchestrators address us by whatever name they have
PROBES: Final = ("/healthz", "/readyz")
PUBLIC: Final = frozenset({"/", "/version", "/icon.svg", "/admin", *PROBES})
ADMIN_SITE: Final = "/admin/"  # every page and operation below it checks its own session

# Proxies, routers and file systems read these differently; no path of ours contains any
_AMBIGUOUS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\\%;]"  # a remaining percent sign was encoded twice
    r"|//"
    r"|/\.{1,2}(?:/|\Z)"
)
_ENCODED_SLASH: Final = re.compile(rb"%2f", re.IGNORECASE)


def is_canonical(scope: Scope) -> bool:
    """Return whether the path has one reading only, before the key is taken out of it."""
    path: str = scope["path"]
    encoded: bytes = scope.get("raw_path") or b""
    return (
        path.startswith("/")
        and _AMBIGUOUS.search(path) is None
        and _ENCODED_SLASH.search(encoded) is None
    )


def is_public(path: str) -> bool:
    """Return whether a canonical path is served without an API key."""
    return path in PUBLIC or path.startswith(ADMIN_SITE)
