"""Limits for size and time of the body of any request that needs no key."""

import asyncio
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.http import errors
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.exchange import BODY_BYTES, BODY_SECONDS


async def serve_bounded(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, most: int = BODY_BYTES
) -> None:
    """Run the application; answer 413 or 408 itself when a body is too large or too slow.

    The body is limited while the application reads it, so that a session can be checked before.
    """
    request = BoundedRequest(receive, send, _declared_bytes(scope), most)
    try:
        await app(scope, request.receive, request.send)
    except (Exception, BodyRefused):
        if request.refused is None:
            raise
    if request.refused is not None and not request.started:
        await request.refused.response(scope, receive, send)


class BodyRefused(BaseException):
    """The end of an application whose request is refused while it reads the body.

    It is no Exception: frameworks would make an answer of their own, a page that costs more time
    than the rest of the request and is not sent.
    """


@dataclass(eq=False)
class BoundedRequest:
    """`receive` and `send` of a request: beyond a limit, `receive` raises BodyRefused.

    What the application still sends afterwards is dropped in favour of the refusal.
    """

    receiving: Receive
    sending: Send
    declared: int = 0  # bytes
    most: int = BODY_BYTES
    started: bool = False  # the response
    refused: Refused | None = None
    _bytes: int = 0
    _deadline: float | None = None  # on the clock of the event loop, from the first `receive`
    _is_complete: bool = False

    async def receive(self) -> Message:
        """Return the next part of the body, or the disconnect."""
        if self._is_complete or self.started:  # what a client sends after its answer is not kept
            return await self.receiving()
        if self.declared > self.most:
            raise self._refuse(errors.too_large(self.most))
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self.receiving()
        except TimeoutError:
            raise self._refuse(errors.too_slow()) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self.most:
            raise self._refuse(errors.too_large(self.most))
        self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response, unless the request was refused before."""
        if self.refused is None or self.started:
            self.started = True
            await self.sending(message)

    def _refuse(self, refused: Refused) -> BodyRefused:
        self.refused = self.refused or refused
        return BodyRefused()


def _declared_bytes(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"")
    digits = length.lstrip(b"0")  # the parser has checked the value, but any zeros may precede it
    return int(digits) if digits.isdigit() else 0
