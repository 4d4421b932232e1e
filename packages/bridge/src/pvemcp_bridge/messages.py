"""JSON-RPC messages: their kind, id and protocol era, with the exact text."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from pvemcp_bridge import jsontext
from pvemcp_bridge.jsontext import as_object

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
    """Kind of a JSON-RPC message."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    RESPONSE = "response"


class Malformed(Exception):
    """A line that is not a JSON-RPC message; `reply` is the error for the client."""

    def __init__(self, code: int, message: str, raw_id: str = "null") -> None:
        super().__init__(message)
        self.reply = error_text(raw_id, code, message)


@dataclass(frozen=True)
class Message:
    """JSON-RPC message: the exact text and its parsed value."""

    text: str
    body: Mapping[str, Any]
    kind: Kind

    @property
    def method(self) -> str:
        return str(self.body.get("method", ""))

    @cached_property
    def key(self) -> tuple[bool, Any]:
        """Dictionary key of the id: 1 and 1.0 are the same id, 1 and "1" are different ones."""
        return id_key(self.body.get("id"))

    @property
    def raw_id(self) -> str:
        """Text of the id, unchanged."""
        return jsontext.member(self.text, "id") or "null"

    @property
    def params(self) -> Mapping[str, Any]:
        return as_object(self.body.get("params"))

    @property
    def version(self) -> str | None:
        """Protocol version in the message's `_meta`; None for the eras with a handshake."""
        version = as_object(self.params.get("_meta")).get(VERSION_KEY)
        return version if isinstance(version, str) else None

    @property
    def result(self) -> Mapping[str, Any]:
        return as_object(self.body.get("result"))

    @property
    def error_code(self) -> int | None:
        code = as_object(self.body.get("error")).get("code")
        return code if isinstance(code, int) else None

    def with_id(self, raw_id: str) -> "Message":
        """Return the same message with another id."""
        text = jsontext.with_member(self.text, "id", raw_id)
        return Message(text, jsontext.parse(text), self.kind)


def id_key(value: Any) -> tuple[bool, Any]:
    """Return a dictionary key for an id; invalid ids share a key that no request has."""
    return type(value) is str, value if _is_id(value) else None


def parse_messages(line: str) -> list[Message | Malformed]:
    """Return the message of a line, or the messages of a batch in order."""
    try:
        value = jsontext.parse(line)
    except jsontext.BadJson as error:
        return [Malformed(PARSE_ERROR, f"The line is not JSON: {error}.")]
    if not isinstance(value, list):
        return [_message(line, value)]
    if not value:
        return [Malformed(INVALID_REQUEST, "The batch is empty.")]
    return [_message(*pair) for pair in zip(jsontext.elements(line), value, strict=True)]


def _message(text: str, value: Any) -> Message | Malformed:
    if not isinstance(value, dict):
        return Malformed(INVALID_REQUEST, "A JSON-RPC message must be an object.")
    has_id, has_valid_id = "id" in value, _is_id(value.get("id"))
    method = value.get("method")
    if isinstance(method, str) and not has_id:
        return Message(text, value, Kind.NOTIFICATION)
    if isinstance(method, str) and has_valid_id:
        return Message(text, value, Kind.REQUEST)
    # An error that is a text is one of OAuth, not of JSON-RPC
    if method is None and ("result" in value or isinstance(value.get("error"), dict)):
        return Message(text, value, Kind.RESPONSE)
    if has_id and not has_valid_id:
        return Malformed(INVALID_REQUEST, "The id must be a string or a number.")
    raw_id = jsontext.member(text, "id") if has_valid_id else None
    return Malformed(INVALID_REQUEST, "The method is missing.", raw_id or "null")


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def request(request_id: str, method: str, params: Mapping[str, Any]) -> Message:
    """Create a request of the bridge itself."""
    body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return Message(json.dumps(body), body, Kind.REQUEST)


def notification(method: str, params: str) -> Message:
    """Create a notification of the bridge itself; `params` is JSON text."""
    text = f'{{"jsonrpc":"2.0","method":"{method}","params":{params}}}'
    return Message(text, jsontext.parse(text), Kind.NOTIFICATION)


def error_text(raw_id: str, code: int, message: str, data: Mapping[str, Any] | None = None) -> str:
    """Return a JSON-RPC error as a line; `raw_id` is JSON text."""
    error: dict[str, Any] = {"code": code, "message": message}
    if data:
        error["data"] = data
    return f'{{"jsonrpc":"2.0","id":{raw_id},"error":{json.dumps(error)}}}'
