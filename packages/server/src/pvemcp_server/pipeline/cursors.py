"""Cursors: the start of the next page, valid only for the call that returned them."""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pvemcp_server.errors import BadArgument

_PAGING = frozenset({"cursor", "limit", "format"})


def make_cursor(offset: int, tool: str, arguments: Mapping[str, Any]) -> str:
    """Return an opaque cursor of the page that starts at row `offset`."""
    raw = offset.to_bytes(4) + _fingerprint(tool, arguments)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def read_cursor(cursor: str, tool: str, arguments: Mapping[str, Any]) -> int:
    """Return the offset; raise BadArgument when the cursor belongs to another call."""
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 12 or raw[4:] != _fingerprint(tool, arguments):
        raise BadArgument(
            "cursor",
            "it does not belong to this call.",
            hint="Repeat the other arguments of the call that gave it, or leave it out.",
        )
    return int.from_bytes(raw[:4])


def _fingerprint(tool: str, arguments: Mapping[str, Any]) -> bytes:
    identifying = {name: value for name, value in arguments.items() if name not in _PAGING}
    text = json.dumps([tool, identifying], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).digest()[:8]
