"""JSON-RPC messages of the handshake eras: checked, and batches (2025-03-26) split.

The SDK takes single messages only, and mistakes a request whose id it cannot read for a
notification, which would never be answered. Each message of a batch is served as if it had come
alone, and counts against the key's calls a minute.
"""

import json
from collections.abc import Collection, Iterable
from typing import Any, Final

from mcp_types import PARSE_ERROR, PROTOCOL_VERSION_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import check_kept

BATCHING: Final = (None, "2025-03-26")  # the header came later than batches
MOST_MESSAGES: Final = 50
LONGEST_ID: Final = 256  # characters; each answer repeats the id of its request
_NOT_HERE: Final = (
    f"HTTP+SSE takes the revisions {', '.join(HANDSHAKE_PROTOCOL_VERSIONS)} only: POST to /mcp."
)
_EVENT: Final = b"event: message\r\ndata: "


class Messages:
    """ASGI middleware in front of the SDK's transports.

    Requests of later revisions go to `modern`; the SDK checks all but the length of their ids. A
    transport without `modern` refuses them. `batching` are the revisions of the protocol that have
    batches.
    """

    def __init__(
        self, app: ASGIApp, modern: ASGIApp | None, batching: Collection[str | None] = BATCHING
    ) -> None:
        self._app = app
        self._modern = modern
        self._batching = batching

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the messages of a POST and pass them on one by one; raise Refused."""
        version = Headers(scope=scope).get("mcp-protocol-version")
        if version not in (None, *HANDSHAKE_PROTOCOL_VERSIONS):
            if self._modern is None:
                raise Refused(400, _NOT_HERE)
            if scope["method"] == "POST":
                body = scope["state"]["body"]
                # without a longer text between two quotes, there is no longer id
                texts = body.replace(b'\\"', b"..").split(b'"')
                if max(map(len, texts)) > LONGEST_ID:
                    _check_length_of_id(body)
            await self._modern(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        body = scope["state"]["body"]  # whole: the gate has read it
        parsed = _parsed(body)
        if not isinstance(parsed, list) or version not in self._batching:
            check(parsed)
            if self._modern is None and _is_modern(parsed):
                raise Refused(400, _NOT_HERE)
            if parsed.get("method") == "initialize":
                check_kept(body)  # a session keeps what its client says of itself
            await self._app(scope, receive, send)
            return
        messages = _batch(parsed)
        for _ in messages[1:]:
            await scope["state"]["count_call"]()
        await receive()  # the body that the messages are of
        await self._each(messages, scope, receive, send)

    async def _each(
        self, messages: list[dict[str, Any]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        response = _BatchResponse(send, expected=any("method" in m and "id" in m for m in messages))
        for message in messages:
            single = Replay(json.dumps(message).encode(), receive)
            await self._app(_with_length(scope, len(single.body)), single, response.take)
            if response.refused:
                return
        await response.end()


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
    """Raise Refused unless this is a request, a notification or a response."""
    if not isinstance(message, dict):
        raise Refused(400, "A JSON-RPC message is an object; only 2025-03-26 has batches.")
    if message.get("jsonrpc") != "2.0":
        raise Refused(400, 'A JSON-RPC message has "jsonrpc": "2.0".')
    if "id" in message and not _is_id(message["id"], in_error="error" in message):
        raise Refused(400, "The id of a message is a string or a whole number.")
    _check_length(message.get("id"))
    if not isinstance(message.get("method", ""), str):
        raise Refused(400, "The method of a message is a string.")
    if not isinstance(message.get("params"), dict | None):
        raise Refused(400, "The params of a message are an object.")
    if not message.keys() & {"method", "result", "error"}:
        raise Refused(400, "A JSON-RPC message has a method, a result or an error.")


def _is_modern(message: dict[str, Any]) -> bool:
    """Return whether a request names its revision, as those without a handshake do."""
    meta = (message.get("params") or {}).get("_meta")
    return isinstance(meta, dict) and PROTOCOL_VERSION_META_KEY in meta


def _is_id(value: Any, *, in_error: bool) -> bool:
    """Return whether it is an id; null only in an error for a message without a readable id."""
    return type(value) in (str, int) or (in_error and value is None)


def _check_length(identifier: Any) -> None:
    if isinstance(identifier, str | int) and len(str(identifier)) > LONGEST_ID:
        raise Refused(400, f"The id of a message has at most {LONGEST_ID} characters.")


def _check_length_of_id(body: bytes) -> None:
    """Raise Refused for a message with a long id; whatever else is wrong, the SDK answers."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(parsed, dict):
        _check_length(parsed.get("id"))


def _with_length(scope: Scope, length: int) -> Scope:
    others = [header for header in scope["headers"] if header[0] != b"content-length"]
    return {**scope, "headers": [*others, (b"content-length", str(length).encode())]}


class Replay:
    """`receive` for another body, and then for the rest of the exchange."""

    def __init__(self, body: bytes, rest: Receive) -> None:
        self.body = body
        self._rest = rest
        self._sent = False

    async def __call__(self) -> Message:
        if self._sent:
            return await self._rest()
        self._sent = True
        return {"type": "http.request", "body": self.body, "more_body": False}


class _BatchResponse:
    """`send` that joins the responses to single messages into one event stream."""

    def __init__(self, send: Send, *, expected: bool) -> None:
        self._send = send
        self._expected = expected
        self._started = False
        self._is_events = False
        self._head: Message = {"type": "http.response.start", "status": 202, "headers": []}
        self.refused = False  # the whole batch: the session is unknown

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
    content_type = dict(headers).get(b"content-type", b"")
    return content_type.startswith(b"text/event-stream")
