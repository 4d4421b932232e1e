"""One HTTP exchange with bounds: how large and slow it may be, and a way to end it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from pvemcp_server.endpoint.refusals import Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES: Final = 256 * 1024
BODY_SECONDS: Final = 20.0  # a client that needs longer for its request holds a place for nothing
SEND_SECONDS: Final = 60.0  # a client that reads nothing for so long is gone


async def read_body(
    receive: Receive, *, most: int = BODY_BYTES, seconds: float = BODY_SECONDS
) -> bytes:
    """The whole body; raises Refused when it is too large or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > most:
                    raise Refused(413, f"The body is larger than {most // 1024} KiB.")
    except TimeoutError:
        raise Refused(408, f"The body did not arrive within {seconds:.0f} s.") from None
    return bytes(body)


@dataclass
class Wire:
    """Receive and send of one exchange; `close()` lets a stream see that its client has left."""

    receiving: Receive
    sending: Send
    body: bytes | None = None
    is_stream: bool = False  # stays open until somebody leaves, rather than until it is answered
    seconds: float = SEND_SECONDS
    stalled: bool = False
    _started: bool = False
    _finished: bool = False
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """End the stream."""
        self._closing.set()

    async def receive(self) -> Message:
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self.is_stream:
            return await self.receiving()
        return await self._until_left()

    async def send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await self.sending(message)
        except TimeoutError:
            self.stalled = True
            self.close()
            raise ConnectionError("the client does not read") from None
        self._started = True
        if message["type"] == "http.response.body":
            self._finished = not message.get("more_body", False)

    async def finish(self) -> None:
        """Complete an answer that was ended before its end."""
        if self._started and not self._finished and not self.stalled:
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
