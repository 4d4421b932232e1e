"""One HTTP exchange with bounds: how large and slow it may be, and a way to end it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from pvemcp_server.http.errors import Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES: Final = 256 * 1024
BODY_SECONDS: Final = 20.0  # a client that needs longer for its request holds a place for nothing
SEND_SECONDS: Final = 60.0  # a client that reads nothing for so long is gone


@dataclass
class HttpExchange:
    """Receive and send of one exchange; `close()` lets a stream see that its client has left.

    It only notes since when it waits for the client. Somebody who looks after all wires now and
    then ends those that wait too long: a timer for each message would cost more than the message.
    """

    receiving: Receive
    sending: Send
    is_stream: bool = False  # stays open until somebody leaves, rather than until it is answered
    body: bytes | None = None
    given_up: bool = False
    started: bool = False
    _finished: bool = False
    _until: float | None = None  # when our patience ends, while we wait for the client
    _task: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, most: int = BODY_BYTES) -> None:
        """Take in the whole body; raises Refused when it is too large."""
        body, more = bytearray(), True
        self._until = monotonic() + BODY_SECONDS
        while more:
            message = await self.receiving()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                raise Refused(413, f"The body is larger than {most // 1024} KiB.")
        self._until = None
        self.body = bytes(body)

    async def receive(self) -> Message:
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.is_stream:
            return await self.receiving()
        return await self._until_left()

    async def send(self, message: Message) -> None:
        self._until = monotonic() + SEND_SECONDS
        await self.sending(message)
        self._until = None
        self.started = True
        if message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)

    def close(self) -> None:
        """End the stream."""
        self._closing.set()

    def look_after(self, now: float) -> None:
        """Give the exchange up when its client has kept us waiting for too long."""
        if self._until is not None and now > self._until and self._task and not self.given_up:
            self.given_up = True
            self._task.cancel()

    async def finish(self) -> None:
        """Complete an answer that was ended before its end."""
        if self.started and not self._finished and not self.given_up:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_left(self) -> Message:
        """The client's own disconnect, or ours."""
        theirs = asyncio.ensure_future(self.receiving())
        ours = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((theirs, ours), return_when=asyncio.FIRST_COMPLETED)
            return await theirs if theirs.done() else {"type": "http.disconnect"}
        finally:
            theirs.cancel()
            ours.cancel()
