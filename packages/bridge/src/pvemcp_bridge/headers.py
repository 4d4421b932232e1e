"""HTTP headers that mirror the body of a message in the 2026-07-28 era."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from pvemcp_bridge.annotations import HeaderMap
from pvemcp_bridge.messages import Message

__all__ = ["encode_value", "mirrored_headers"]

_NAME_PARAMS = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_ENCODED = re.compile(r"=\?base64\?.*\?=")


def mirrored_headers(message: Message, version: str, arguments: HeaderMap) -> dict[str, str]:
    """Return the protocol version, method, name and annotated arguments as headers."""
    headers = {
        "mcp-protocol-version": encode_value(version),
        "mcp-method": encode_value(message.method),
    }
    name = message.params.get(_NAME_PARAMS.get(message.method, ""))
    if isinstance(name, str):
        headers["mcp-name"] = encode_value(name)
    for path, header in arguments.items():
        value = _lookup(message.params.get("arguments"), path)
        if isinstance(value, bool):
            value = "true" if value else "false"
        if isinstance(value, str | int | float):
            headers[f"mcp-param-{header.lower()}"] = encode_value(str(value))
    return headers


def encode_value(value: str) -> str:
    """Return the value as a header can hold it: visible ASCII unchanged, all else in base64."""
    if not value or (_PLAIN.fullmatch(value) and not _ENCODED.fullmatch(value)):
        return value
    # A lone surrogate has no UTF-8 form; the server will report that header and body differ
    encoded = base64.b64encode(value.encode("utf-8", "replace")).decode("ascii")
    return f"=?base64?{encoded}?="


def _lookup(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
