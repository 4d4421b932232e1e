"""JSON-RPC messages: which kind each one is, which era it speaks, what identifies it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from pvemcp_bridge import jsontext

__all__ = [
    "INTERNAL_ERROR",
    "INVALID_REQUEST",
    "PARSE_ERROR",
    "VERSION_KEY",
    "Kind",
    "Malformed",
    "Message",
    "error_text",
    "id_key",
    "notification",
    "parse_messages",
    "request",
]

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
INTERNAL_ERROR = -32603
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"


class Kind(Enum):
    """What a message is."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


class Malformed(Exception):
    """A line that is no JSON-RPC message; `reply` is the error that says so."""

    def __init__(self, code: int, message: str, raw_id: str = "null") -> None:
        super().__init__(message)
        self.reply = error_text(raw_id, code, message)


@dataclass(frozen=True)
class Message:
    """One JSON-RPC message and the exact text that carries it."""

    text: str
    body: Mapping[str, Any]
    kind: Kind

    @property
    def method(self) -> str:
        return str(self.body.get("method", ""))

    @cached_property
    def key(self) -> tuple[bool, Any]:
        """What finds this request again: 1 and 1.0 are one id, 1 and "1" are two."""
        return id_key(self.body.get("id"))

    @property
    def raw_id(self) -> str:
        """The id exactly as it was written."""
        return jsontext.member(self.text, "id") or "null"

    @property
    def params(self) -> Mapping[str, Any]:
        return _mapping(self.body.get("params"))

    @property
    def version(self) -> str | None:
        """The protocol version the message itself names: only the modern era does."""
        version = _mapping(self.params.get("_meta")).get(VERSION_KEY)
        return version if isinstance(version, str) else None

    @property
    def result(self) -> Mapping[str, Any]:
        return _mapping(self.body.get("result"))

    @property
    def error_code(self) -> int | None:
        code = _mapping(self.body.get("error")).get("code")
        return code if isinstance(code, int) else None

    def with_id(self, raw_id: str) -> "Message":
        """The same message under another id."""
        text = jsontext.with_member(self.text, "id", raw_id)
        return Message(text, jsontext.parse(text), self.kind)


def id_key(value: Any) -> tuple[bool, Any]:
    """A dictionary key for an id; values that are no id share one that no request has."""
    return type(value) is str, value if _usable(value) else None


def parse_messages(line: str) -> list[Message | Malformed]:
    """The message of a line, or of each entry of a batch, in order."""
    try:
        value = jsontext.parse(line)
    except jsontext.BadJson as error:
        return [Malformed(PARSE_ERROR, f"The line is not JSON: {error}.")]
    if not isinstance(value, list):
        return [_message(line, value)]
    if not value:
        return [Malformed(INVALID_REQUEST, "The batch is empty.")]
    return [_message(text, one) for text, one in zip(jsontext.elements(line), value, strict=True)]


def _message(text: str, value: Any) -> Message | Malformed:
    if not isinstance(value, dict):
        return Malformed(INVALID_REQUEST, "A JSON-RPC message is an object.")
    has_id, identified = "id" in value, _usable(value.get("id"))
    method = value.get("method")
    if isinstance(method, str) and not has_id:
        return Message(text, value, Kind.NOTIFICATION)
    if isinstance(method, str) and identified:
        return Message(text, value, Kind.REQUEST)
    if method is None and ("result" in value or "error" in value):
        return Message(text, value, Kind.RESPONSE)
    raw_id = jsontext.member(text, "id") if identified else None
    why = "The id is a string or a number." if has_id and not identified else "No method is named."
    return Malformed(INVALID_REQUEST, why, raw_id or "null")


def _usable(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def request(own_id: str, method: str, params: Mapping[str, Any]) -> Message:
    """A request of the bridge itself."""
    body = {"jsonrpc": "2.0", "id": own_id, "method": method, "params": params}
    return Message(json.dumps(body), body, Kind.REQUEST)


def notification(method: str, params: str) -> Message:
    """A notification of the bridge itself; its parameters are a JSON text."""
    text = f'{{"jsonrpc":"2.0","method":"{method}","params":{params}}}'
    return Message(text, jsontext.parse(text), Kind.NOTIFICATION)


def error_text(raw_id: str, code: int, message: str, data: Mapping[str, Any] | None = None) -> str:
    """A JSON-RPC error as a line."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data:
        error["data"] = data
    return f'{{"jsonrpc":"2.0","id":{raw_id},"error":{json.dumps(error)}}}'
