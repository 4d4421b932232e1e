"""The headers that repeat what a message of the 2026-07-28 era says in its body."""

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pvemcp_bridge.annotations import HeaderMap
from pvemcp_bridge.messages import Message

__all__ = ["mirrored", "safe_value"]

_NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_SENTINEL = re.compile(r"=\?base64\?.*\?=")


def mirrored(message: Message, version: str, arguments: HeaderMap) -> dict[str, str]:
    """The protocol version, method, name and annotated arguments of a message as headers."""
    headers = {
        "mcp-protocol-version": safe_value(version),
        "mcp-method": safe_value(message.method),
    }
    name = message.params.get(_NAMED_BY.get(message.method, ""))
    if isinstance(name, str):
        headers["mcp-name"] = safe_value(name)
    return headers | dict(_annotated(message.params.get("arguments"), arguments))


def safe_value(value: str) -> str:
    """The value as a header can carry it: visible ASCII as it is, all else in base64."""
    if not value or (_PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value)):
        return value
    # a lone surrogate has no UTF-8 form; the server will see that the two differ and say so
    encoded = base64.b64encode(value.encode("utf-8", "replace")).decode("ascii")
    return f"=?base64?{encoded}?="


def _annotated(arguments: Any, names: HeaderMap) -> Iterator[tuple[str, str]]:
    for path, name in names.items():
        value = _rendered(_at(arguments, path))
        if value is not None:
            yield f"mcp-param-{name.lower()}", safe_value(value)


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _rendered(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None
