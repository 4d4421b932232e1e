"""HTTP+SSE, the transport of 2024-11-05: one event stream to listen on, one URL to post to."""

from collections import Counter
from typing import Any, Final

from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.shared.message import SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from pvemcp_server.http.credentials import MESSAGES
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import BODY_BYTES

MOST_UNANSWERED: Final = 64
"""Requests of a key whose answers its streams have not taken: 202 has ended their exchange, and an
unread stream would collect them, 256 KiB each."""


class SseEndpoint:
    """The two ASGI applications of the transport; `prefix` is that of the public URL's path."""

    def __init__(self, server: Server[Any], prefix: str = "") -> None:
        self._server = server
        self._prefix = prefix
        self._transport = SseServerTransport(f"/{MESSAGES}", max_request_body_size=BODY_BYTES)
        self.unanswered = Counter[str]()  # by the id of the key

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a stream; the URL it names repeats the key if the key came in the path."""
        credential = scope["state"]["credential"]
        key = f"/{credential.secret}" if credential.in_path else ""
        mounted = {**scope, "root_path": f"{self._prefix}/sse{key}"}
        requests = _Requests(self.unanswered, scope["state"]["caller"].key_id)
        try:
            async with self._transport.connect_sse(mounted, receive, send) as (incoming, outgoing):
                await self._server.run(
                    _Incoming(incoming, requests),
                    _Outgoing(outgoing, requests),
                    self._server.create_initialization_options(),
                )
        finally:
            requests.end()

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a message; its response comes over the stream. Raise Refused otherwise."""
        if self.unanswered[scope["state"]["caller"].key_id] >= MOST_UNANSWERED:
            raise Refused(
                429,
                f"{MOST_UNANSWERED} requests of this key wait for their answers to be read from "
                "its event streams. Read these, then send the request again.",
                {"Retry-After": "1"},
            )
        try:
            jsonrpc_message_adapter.validate_json(scope["state"]["body"], by_name=False)
        except ValidationError:
            # the SDK would write the message into the log
            raise Refused(400, "The body is no JSON-RPC message.") from None
        await self._transport.handle_post_message(scope, receive, send)


class _Requests:
    """The requests of one stream that are not answered yet, counted among those of its key."""

    def __init__(self, of_keys: Counter[str], key_id: str) -> None:
        self._of_keys = of_keys
        self._key_id = key_id
        self._open = Counter[RequestId | None]()  # a client may use an id twice

    def begin(self, message: SessionMessage | Exception) -> None:
        if isinstance(message, SessionMessage) and isinstance(message.message, JSONRPCRequest):
            self._open[message.message.id] += 1
            self._of_keys[self._key_id] += 1

    def answered(self, message: SessionMessage) -> None:
        answer = message.message
        if isinstance(answer, JSONRPCResponse | JSONRPCError) and self._open[answer.id]:
            self._open[answer.id] -= 1
            self._of_keys[self._key_id] -= 1

    def end(self) -> None:
        self._of_keys[self._key_id] -= self._open.total()
        if not self._of_keys[self._key_id]:
            del self._of_keys[self._key_id]


class _Incoming(ObjectReceiveStream[SessionMessage | Exception]):
    """The messages of a client, whose requests are counted as they are read."""

    def __init__(self, stream: Any, requests: _Requests) -> None:  # a private type of the SDK
        self._stream = stream
        self._requests = requests

    @property
    def last_context(self) -> Any:
        """The context of the exchange that brought the last message, for its handler."""
        return self._stream.last_context

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message; raise EndOfStream after the last one."""
        message: SessionMessage | Exception = await self._stream.receive()
        self._requests.begin(message)
        return message

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()


class _Outgoing(ObjectSendStream[SessionMessage]):
    """The messages to a client; a request is answered once the stream has taken its answer."""

    def __init__(self, stream: Any, requests: _Requests) -> None:  # a private type of the SDK
        self._stream = stream
        self._requests = requests

    async def send(self, item: SessionMessage) -> None:
        """Wait until the stream takes the message."""
        await self._stream.send(item)
        self._requests.answered(item)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
