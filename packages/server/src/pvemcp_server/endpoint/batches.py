"""Batches of 2025-03-26: several messages in one body, each served as if it had come alone.

They count as alone as well: the key's calls a minute are those of the messages.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.endpoint.refusals import Refused

VERSIONS: Final = (None, "2025-03-26")  # the header came later than batches
MOST_MESSAGES: Final = 50
_EVENT: Final = b"event: message\r\ndata: "


class Batches:
    """ASGI shim before the SDK's transport, which takes single messages only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = Headers(scope=scope).get("mcp-protocol-version")
        if scope["method"] != "POST" or version not in VERSIONS:
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        if not body.lstrip().startswith(b"["):
            await self._app(scope, _Replay(body, receive), send)
            return
        try:
            messages = _parsed(body)
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
        await answers.end()


async def _whole(receive: Receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _parsed(body: bytes) -> list[dict[str, Any]]:
    try:
        messages = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON.") from None
    if not 0 < len(messages) <= MOST_MESSAGES or not all(isinstance(m, dict) for m in messages):
        raise Refused(400, f"A batch is 1 to {MOST_MESSAGES} JSON-RPC messages.")
    if any(m.get("method") == "initialize" for m in messages):
        raise Refused(400, "The initialize request must not be part of a batch.")
    found: list[dict[str, Any]] = messages
    return found


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
        self._status = 202

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_events = _is_event_stream(message["headers"])
            self._status = max(self._status, message["status"])
            return
        if message.get("body") and self._expected:
            await self._start()
            body = message["body"] if self._is_events else _EVENT + message["body"] + b"\r\n\r\n"
            await self._write(body, more=True)

    async def end(self) -> None:
        if self._started:
            await self._write(b"", more=False)
            return
        await self._send({"type": "http.response.start", "status": self._status, "headers": []})
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
