"""What sessions are sent: JSON-RPC messages, in 2025-03-26 also several of them in one body.

The SDK takes single messages only, and a request with an id that it cannot read for a notification,
which nobody would answer. Each message of a batch is served as if it had come alone, and counts as
alone: the key's calls a minute are those of the messages.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from mcp_types import PARSE_ERROR
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.http.errors import Refused

BATCHING: Final = (None, "2025-03-26")  # the header came later than batches
MOST_MESSAGES: Final = 50
_EVENT: Final = b"event: message\r\ndata: "


class Messages:
    """ASGI shim before the SDK's transports; `batching` are the revisions that know batches."""

    def __init__(self, app: ASGIApp, batching: Collection[str | None] = BATCHING) -> None:
        self._app = app
        self._batching = batching

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = Headers(scope=scope).get("mcp-protocol-version")
        if scope["method"] != "POST" or version not in (None, *HANDSHAKE_PROTOCOL_VERSIONS):
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        try:
            parsed = _parsed(body)
            if not isinstance(parsed, list) or version not in self._batching:
                check(parsed)
                await self._app(scope, _Replay(body, receive), send)
                return
            messages = _batch(parsed)
            for _ in messages[1:]:
                scope["state"]["count"]()
        except Refused as refused:
            await refused.response(scope, receive, send)
            return
        await self._each(messages, scope, receive, send)

    async def _each(
        self, messages: list[dict[str, Any]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        answers = _Answers(send, expected=any("method" in m and "id" in m for m in messages))
        for message in messages:
            single = _Replay(json.dumps(message).encode(), receive)
            await self._app(_with_length(scope, len(single.body)), single, answers.take)
            if answers.refused:
                return
        await answers.end()


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON.", code=PARSE_ERROR) from None


def _batch(messages: list[Any]) -> list[dict[str, Any]]:
    if not 0 < len(messages) <= MOST_MESSAGES:
        raise Refused(400, f"A batch is 1 to {MOST_MESSAGES} JSON-RPC messages.")
    for message in messages:
        check(message)
    if any(message.get("method") == "initialize" for message in messages):
        raise Refused(400, "The initialize request must not be part of a batch.")
    return messages


def check(message: Any) -> None:
    """Raises Refused unless this is a request, a notification or an answer."""
    if not isinstance(message, dict):
        raise Refused(400, "A JSON-RPC message is an object; batches are of 2025-03-26 alone.")
    if message.get("jsonrpc") != "2.0":
        raise Refused(400, 'A JSON-RPC message says "jsonrpc": "2.0".')
    if "id" in message and not _is_id(message["id"], answers="error" in message):
        raise Refused(400, "The id of a message is a string or a whole number.")
    if not isinstance(message.get("method", ""), str):
        raise Refused(400, "The method of a message is a string.")
    if not isinstance(message.get("params"), dict | None):
        raise Refused(400, "The params of a message are an object.")
    if not message.keys() & {"method", "result", "error"}:
        raise Refused(400, "A JSON-RPC message has a method, a result or an error.")


def _is_id(value: Any, *, answers: bool) -> bool:
    """An error may answer what had no id that could be read."""
    return type(value) in (str, int) or (answers and value is None)


def _with_length(scope: Scope, length: int) -> Scope:
    others = [header for header in scope["headers"] if header[0] != b"content-length"]
    return {**scope, "headers": [*others, (b"content-length", str(length).encode())]}


class _Replay:
    """A body that was already read, then what the client does after it."""

    def __init__(self, body: bytes, rest: Receive) -> None:
        self.body = body
        self._rest = rest
        self._sent = False

    async def __call__(self) -> Message:
        if self._sent:
            return await self._rest()
        self._sent = True
        return {"type": "http.request", "body": self.body, "more_body": False}


class _Answers:
    """Joins the answers of single messages into one event stream, as they come."""

    def __init__(self, send: Send, *, expected: bool) -> None:
        self._send = send
        self._expected = expected
        self._started = False
        self._is_events = False
        self._head: Message = {"type": "http.response.start", "status": 202, "headers": []}
        self.refused = False  # as a whole: there is no such session

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_events = _is_event_stream(message["headers"])
            self._head = message
            return
        if self._head["status"] >= 400 and not self._started:
            self.refused = True
            await self._send(self._head)
            await self._send(message)
            return
        if message.get("body") and self._expected:
            await self._start()
            body = message["body"] if self._is_events else _EVENT + message["body"] + b"\r\n\r\n"
            await self._write(body, more=True)

    async def end(self) -> None:
        if self._started:
            await self._write(b"", more=False)
            return
        await self._send({"type": "http.response.start", "status": 202, "headers": []})
        await self._write(b"", more=False)

    async def _start(self) -> None:
        if self._started:
            return
        self._started = True
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _write(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


def _is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    found = dict(headers).get(b"content-type", b"")
    return found.startswith(b"text/event-stream")
