"""One HTTP exchange: limits for size and time of its body, and a way to end it."""

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
BODY_SECONDS: Final = 20.0  # a request that arrives more slowly would hold a place of its key
SEND_SECONDS: Final = 60.0  # a client that reads nothing for so long is gone


@dataclass
class HttpExchange:
    """`receive` and `send` of one exchange, with a deadline for each wait on the client.

    The exchange only records until when it waits. `ActiveRequests` polls all exchanges once a
    second and cancels overdue ones: a timer per message would cost more than the message.
    `timed_out` marks that the cancellation of its task came from here; every other
    cancellation has to propagate.
    """

    receiving: Receive
    sending: Send
    is_stream: bool = False  # stays open until a side leaves, rather than until it is answered
    timed_out: bool = False
    started: bool = False  # the response
    _body: bytes | None = None
    _finished: bool = False
    _deadline: float | None = None  # on the monotonic clock, while it waits for the client
    _task: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, most: int = BODY_BYTES) -> None:
        """Read the whole body ahead of the application; raises Refused when it is too large."""
        body, more = bytearray(), True
        self._deadline = monotonic() + BODY_SECONDS
        while more:
            message = await self.receiving()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                raise Refused(413, f"The body is larger than {most // 1024} KiB.")
        self._deadline = None
        self._body = bytes(body)

    async def receive(self) -> Message:
        """Return the body, and afterwards the disconnect: the client's own, or ours."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.is_stream:
            return await self.receiving()
        theirs = asyncio.ensure_future(self.receiving())
        ours = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((theirs, ours), return_when=asyncio.FIRST_COMPLETED)
            return await theirs if theirs.done() else {"type": "http.disconnect"}
        finally:
            theirs.cancel()
            ours.cancel()

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        self._deadline = monotonic() + SEND_SECONDS
        await self.sending(message)
        self._deadline = None
        self.started = True
        if message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)

    def close(self) -> None:
        """End the stream: the application sees a disconnect."""
        self._closing.set()

    def check_deadline(self, now: float) -> None:
        """Cancel the exchange when its client is overdue."""
        overdue = self._deadline is not None and now > self._deadline
        if overdue and self._task and not self.timed_out:
            self.timed_out = True
            self._task.cancel()

    async def finish(self) -> None:
        """Complete a response whose stream was closed before its end."""
        if self.started and not self._finished and not self.timed_out:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})
