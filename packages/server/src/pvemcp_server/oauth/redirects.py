"""Redirect URIs: which ones a client may have, and which request matches one."""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from pvemcp_server.store.records import OAuthClientRecord

LONGEST: Final = 512  # characters
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# Of native apps that have no loopback redirect; others need a dot, as com.example.app (RFC 8252)
APPS: Final = frozenset(
    {
        *("claude", "cursor", "goose", "jan", "kiro", "postman", "raycast", "trae", "void"),
        *("vscode", "vscode-insiders", "vscodium", "warp", "windsurf", "zed"),
    }
)
_CHARACTERS: Final = re.compile(r"[!-~]+")  # printable ASCII without blanks
_UNSAFE: Final = re.compile(r"[\\<>\"^`{|}#]")  # what no URI has, and the fragment
_AUTHORITY: Final = re.compile(
    r"(?P<host>localhost|\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)


def is_allowed(uri: str) -> bool:
    """Return whether a client may register it: https, http to loopback, or a native app's scheme.

    Nothing that browsers could run or read differently: `javascript:`, `data:`, users, fragments.
    """
    if len(uri) > LONGEST or not _CHARACTERS.fullmatch(uri) or _UNSAFE.search(uri):
        return False
    parts = _split(uri)
    if parts is None:
        return False
    if parts.scheme in ("https", "http"):
        authority = _AUTHORITY.fullmatch(parts.netloc)
        if authority is None or int(authority["port"] or 0) > 65535:
            return False
        return parts.scheme == "https" or authority["host"].lower() in LOOPBACK
    return parts.scheme in APPS or "." in parts.scheme


def matches(client: OAuthClientRecord, uri: str) -> bool:
    """Return whether the redirect URI of a request is one of the client's.

    By exact comparison, but for the port of a loopback redirect: a native app listens on any that
    is free (RFC 8252, 7.3).
    """
    if not is_allowed(uri):
        return False
    registered = client.metadata["redirect_uris"]
    portless = _portless(uri)
    return uri in registered or (
        portless is not None and portless in {_portless(each) for each in registered}
    )


def is_loopback(uri: str) -> bool:
    """Return whether the redirect stays on the user's machine, where any program may listen."""
    return _portless(uri) is not None


def _portless(uri: str) -> str | None:
    """Return a loopback redirect without its port; None for any other."""
    parts = _split(uri)
    authority = _AUTHORITY.fullmatch(parts.netloc) if parts else None
    if parts is None or authority is None or parts.scheme != "http":
        return None
    host = authority["host"].lower()
    return uri.replace(parts.netloc, host, 1) if host in LOOPBACK else None


def _split(uri: str) -> SplitResult | None:
    try:
        return urlsplit(uri)
    except ValueError:
        return None
