"""Requests to the server: sent with retries, their responses read to the end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field

from pvemcp_bridge import jsontext, retry
from pvemcp_bridge.annotations import ToolAnnotations
from pvemcp_bridge.errors import Lost, NoReply, Refused, Unreachable, refusal
from pvemcp_bridge.messages import Kind, Malformed, Message, parse_messages
from pvemcp_bridge.sse import Event
from pvemcp_bridge.transport import HttpResponse, Transport

__all__ = [
    "STREAM_READ_TIMEOUT",
    "Cursor",
    "Deliver",
    "Exchange",
    "OutgoingRequest",
    "Reply",
    "read_messages",
]

log = logging.getLogger(__name__)

Deliver = Callable[[Message], Awaitable[None]]

_POST = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
_GET = {"accept": "text/event-stream"}
# Seconds without a byte on a long-lived stream. Servers send a comment every few seconds; a
# computer that was suspended does not notice that the connection has ended
STREAM_READ_TIMEOUT = 300.0
_MAX_EMPTY_RESUMPTIONS = 5
_EXCERPT_LENGTH = 200


@dataclass
class OutgoingRequest:
    """A request with its headers and the callback for messages that precede the reply."""

    message: Message
    headers: Mapping[str, str]
    deliver: Deliver
    retry_seconds: float = retry.RETRY_SECONDS
    resumable: bool = False
    long_lived: bool = False
    delivered: bool = False

    async def forward(self, message: Message) -> None:
        """Deliver a message that precedes the reply; from now on a retry would deliver it twice."""
        self.delivered = True
        await self.deliver(message)


@dataclass(frozen=True)
class Reply:
    """The server's JSON-RPC reply and the headers of its HTTP response."""

    message: Message
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Cursor:
    """Position in an event stream: the last event id, and the pause in seconds before resuming."""

    id: str = ""
    pause: float = 1.0

    def update(self, event: Event) -> None:
        """Move to this event."""
        self.id = event.id or self.id
        self.pause = self.pause if event.retry is None else event.retry


class Exchange:
    """Sender of messages to the server, with retries where they do no harm."""

    def __init__(
        self,
        transport: Transport,
        tools: ToolAnnotations,
        read_timeout: float | None,
        mask: Callable[[str], str],
    ) -> None:
        self.transport = transport
        self._tools = tools
        self._read_timeout = read_timeout
        self._mask = mask

    async def request(self, request: OutgoingRequest) -> Reply:
        """Send a request and return its reply; raise a BridgeError if there is none."""
        return await retry.with_retries(
            request.message.method or "A request",
            lambda: self._send_request(request),
            request.retry_seconds,
            lambda: not request.delivered and retry.is_idempotent(request.message, self._tools),
        )

    async def notify(self, message: Message, headers: Mapping[str, str]) -> None:
        """Send a notification or a response, which the server only acknowledges."""

        async def send() -> None:
            async with self.transport.send(
                "POST", {**_POST, **headers}, message.text, read_timeout=self._read_timeout
            ) as response:
                if response.status >= 400:
                    raise self._refused(response, await response.text(), None)

        await retry.with_retries(
            message.method or "A response", send, retry.RETRY_SECONDS, idempotent=lambda: False
        )

    async def _send_request(self, request: OutgoingRequest) -> Reply:
        cursor = Cursor()
        message = request.message
        read_timeout = STREAM_READ_TIMEOUT if request.long_lived else self._read_timeout
        async with self.transport.send(
            "POST", {**_POST, **request.headers}, message.text, read_timeout=read_timeout
        ) as response:
            if not (response.is_stream and response.status < 300):
                return await self._read_body(response, message)
            reply = await self._read_stream(response, request, cursor)
            headers = response.headers
        if reply is None:
            reply = await self._resume(request, cursor)
        return Reply(reply, headers)

    async def _read_body(self, response: HttpResponse, request: Message) -> Reply:
        text = await response.text()
        matches = (match_reply(request, message) for message in read_messages(text))
        replies = [reply for reply in matches if reply]
        if response.status >= 400:
            raise self._refused(response, text, replies[0] if replies else None)
        if not replies:
            excerpt = self._excerpt(text)
            raise NoReply(
                f"The server's reply is not JSON-RPC (HTTP {response.status})"
                f"{excerpt and ': ' + excerpt}.",
                status=response.status,
            )
        return Reply(replies[0], response.headers)

    async def _read_stream(
        self, response: HttpResponse, request: OutgoingRequest, cursor: Cursor
    ) -> Message | None:
        """Forward the messages of a stream and return the reply.

        Return None when the stream ends before the reply and can be resumed at the cursor.
        """
        try:
            async with aclosing(response.events()) as events:
                async for event in events:
                    cursor.update(event)
                    for message in read_messages(event.data.decode("utf-8", "replace")):
                        if reply := match_reply(request.message, message):
                            return reply
                        if message.kind is not Kind.RESPONSE:
                            await request.forward(message)
        except Lost:
            if not (request.resumable and cursor.id):
                raise
        if not (request.resumable and cursor.id):
            raise Lost("The server ended the stream without a reply.", status=response.status)
        return None

    async def _resume(self, request: OutgoingRequest, cursor: Cursor) -> Message:
        """Resume a stream at the last event until the reply arrives.

        Give up after some resumptions in a row that brought no event.
        """
        empty = 0
        while empty < _MAX_EMPTY_RESUMPTIONS:
            before = cursor.id
            await asyncio.sleep(cursor.pause)
            if reply := await self._resume_once(request, cursor):
                return reply
            empty = empty + 1 if cursor.id == before else 0
        raise Lost("The stream with the reply ended and could not be resumed.")

    async def _resume_once(self, request: OutgoingRequest, cursor: Cursor) -> Message | None:
        headers = {**_GET, **request.headers, "last-event-id": cursor.id}
        try:
            async with self.transport.send(
                "GET", headers, read_timeout=self._read_timeout
            ) as response:
                if response.is_stream and response.status < 300:
                    return await self._read_stream(response, request, cursor)
                # Not Refused, which could open a new session and send the request again: it was
                # sent already, and its result may be gone with its session
                raise Lost("The server no longer has the reply.", status=response.status)
        except Unreachable:
            return None

    def _refused(self, response: HttpResponse, text: str, reply: Message | None) -> Refused:
        """Return the error for a status, with what the server says in its reply or its text."""
        words = reply and jsontext.as_object(reply.body.get("error")).get("message")
        return refusal(
            response.status,
            reply=reply,
            retry_after=response.retry_after,
            excerpt=self._excerpt(words if isinstance(words, str) and words else text),
        )

    def _excerpt(self, text: str) -> str:
        """Return the beginning of the server's text, masked; nothing of an HTML page."""
        excerpt = " ".join(self._mask(text).split())  # masked whole: a cut key would not be found
        return "" if excerpt.startswith("<") else excerpt[:_EXCERPT_LENGTH]


def read_messages(text: str) -> Iterator[Message]:
    """Yield the JSON-RPC messages in a body or an event; log what is malformed."""
    if not text.strip():
        return
    for message in parse_messages(jsontext.one_line(text)):
        if isinstance(message, Malformed):
            log.warning("The server sent a malformed JSON-RPC message: %s", message)
        else:
            yield message


def match_reply(request: Message, message: Message) -> Message | None:
    """Return the message if it is the reply to this request."""
    if message.kind is not Kind.RESPONSE:
        return None
    if message.key == request.key:
        return message
    # The server could not read the id; the response belongs to this request alone
    if message.body.get("id") is None:
        return message.with_id(request.raw_id)
    log.warning("The server sent a reply to another request.")
    return None
