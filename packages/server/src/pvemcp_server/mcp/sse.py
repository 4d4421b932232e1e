"""HTTP+SSE, the transport of 2024-11-05: one event stream to listen on, one URL to post to."""

import re
from collections import Counter
from typing import Any, Final

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import (
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.types import Message, Receive, Scope, Send

from pvemcp_server.http.credentials import MESSAGES
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import BODY_BYTES
from pvemcp_server.mcp.relay import Relay

MOST_UNANSWERED: Final = 64
"""Requests of a key whose answers its clients have not taken: 202 has ended their exchange, and an
unread stream would collect them, 256 KiB each."""
_ENDPOINT: Final = b"event: endpoint"  # begins the part that names where to post
_PROCESS: Final = re.compile("[0-9a-f]{8}")
_SESSION: Final = b"?session_id="
_MESSAGE: Final = b"event: message"  # begins a part of the body that has a message of the server
_REST: Final = {"type": "http.response.body", "body": b"", "more_body": True}


class SseEndpoint:
    """The two ASGI applications of the transport; `prefix` is that of the public URL's path.

    The URL to post to names the process that holds the stream, if there may be others: what another
    one receives is passed on to it.
    """

    def __init__(self, server: Server[Any], relay: Relay, prefix: str = "") -> None:
        self._server = server
        self._relay = relay
        self._prefix = prefix
        self._transport = SseServerTransport(f"/{MESSAGES}", max_request_body_size=BODY_BYTES)
        self.unanswered = Counter[str]()  # by the id of the key

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a stream; the URL it names repeats the key if the key came in the path."""
        credential = scope["state"]["credential"]
        key = f"/{credential.secret}" if credential.in_path else ""
        mounted = {**scope, "root_path": f"{self._prefix}/sse{key}"}
        requests = _Requests(self.unanswered, scope["state"]["caller"].holder)
        writer = _Writer(requests)

        async def write(message: Message) -> None:
            body = message.get("body", b"")
            is_message = body.startswith(_MESSAGE)
            if self._relay.process and body.startswith(_ENDPOINT):
                process = f"?process={self._relay.process}&session_id=".encode()
                message = {**message, "body": body.replace(_SESSION, process)}
            try:
                await send(message)
                if is_message:
                    await send(_REST)  # waits while the connection holds too much
            finally:
                if is_message:
                    writer.written()

        try:
            async with self._transport.connect_sse(mounted, receive, write) as (incoming, outgoing):
                await self._server.run(
                    _Incoming(incoming, requests),
                    _Outgoing(outgoing, writer),
                    self._server.create_initialization_options(),
                )
        finally:
            requests.end()

    async def messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a message; its response comes over the stream. Raise Refused otherwise.

        Only requests count: a notification may cancel one, and a response may answer a question.
        """
        process = QueryParams(scope["query_string"]).get("process", "")
        if _PROCESS.fullmatch(process) and self._relay.process not in ("", process):
            if not await self._relay.pass_on(process, scope, scope["state"]["body"], send):
                raise Refused(404, "The event stream has ended: open a new one, and initialize.")
            return
        await self.accept(scope, receive, send)

    async def accept(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Accept a message of a stream of this process, or refuse it."""
        try:
            message = jsonrpc_message_adapter.validate_json(scope["state"]["body"], by_name=False)
        except ValidationError:
            # the SDK would write the message into the log
            raise Refused(400, "The body is no JSON-RPC message.") from None
        unanswered = self.unanswered[scope["state"]["caller"].holder]
        if isinstance(message, JSONRPCRequest) and unanswered >= MOST_UNANSWERED:
            raise Refused(
                429,
                f"{MOST_UNANSWERED} requests of this key wait for their answers to be read from "
                "its event streams. Read these, then send the request again.",
                {"Retry-After": "1"},
            )
        await self._transport.handle_post_message(scope, receive, send)


class _Requests:
    """The requests of one stream that are not answered yet, counted among those of its key."""

    def __init__(self, of_keys: Counter[str], key_id: str) -> None:
        self._of_keys = of_keys
        self._key_id = key_id
        self._open = Counter[RequestId | None]()  # a client may use an id twice

    def begin(self, message: SessionMessage | Exception) -> None:
        """Count a request, until `answered`, or until the SDK drops it when it is cancelled."""
        if not isinstance(message, SessionMessage) or not isinstance(
            message.message, JSONRPCRequest
        ):
            return
        request_id = message.message.id
        self._open[request_id] += 1
        self._of_keys[self._key_id] += 1

        async def dropped() -> None:
            self._end_one(request_id)

        if isinstance(message.metadata, ServerMessageMetadata):
            message.metadata.on_request_unanswered = dropped

    def answered(self, message: SessionMessage) -> None:
        """End the count of the request that the message answers, if it answers one."""
        if isinstance(message.message, JSONRPCResponse | JSONRPCError):
            self._end_one(message.message.id)

    def _end_one(self, request_id: RequestId | None) -> None:
        if self._open[request_id]:
            self._open[request_id] -= 1
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


class _Writer:
    """Hands messages to the SDK's writer one by one: the next one when the client took the last.

    A request is answered once its answer was taken, or was given up before it reached the writer.
    """

    def __init__(self, requests: _Requests) -> None:
        self._requests = requests
        self._free = anyio.Semaphore(1)
        self._message: SessionMessage | None = None  # in the SDK's writer

    async def write(
        self, stream: ObjectSendStream[SessionMessage], message: SessionMessage
    ) -> None:
        """Return once the SDK's writer has the message."""
        try:
            await self._free.acquire()
        except BaseException:
            self._requests.answered(message)
            raise
        self._message = message
        try:
            with anyio.CancelScope(shield=True):  # the writer is idle: it takes this one or closes
                await stream.send(message)
        except BaseException:
            self.written()
            raise

    def written(self) -> None:
        """Count the message in the writer as taken; the client may also have closed the stream."""
        if self._message is not None:
            self._requests.answered(self._message)
            self._message = None
            self._free.release()


class _Outgoing(ObjectSendStream[SessionMessage]):
    """The messages to a client."""

    def __init__(self, stream: Any, writer: _Writer) -> None:  # a private type of the SDK
        self._stream = stream
        self._writer = writer

    async def send(self, item: SessionMessage) -> None:
        """Wait until the stream takes the message."""
        await self._writer.write(self._stream, item)

    async def aclose(self) -> None:
        """Close the stream."""
        await self._stream.aclose()
