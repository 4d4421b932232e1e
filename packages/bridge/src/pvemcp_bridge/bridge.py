"""The bridge between one client and one server: each request gets exactly one reply."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from pvemcp_bridge.annotations import ToolAnnotations, remove_tools
from pvemcp_bridge.errors import BridgeError, Closing
from pvemcp_bridge.exchange import Exchange
from pvemcp_bridge.legacy import Legacy
from pvemcp_bridge.messages import (
    INTERNAL_ERROR,
    PARSE_ERROR,
    Kind,
    Malformed,
    Message,
    error_text,
    id_key,
    parse_messages,
)
from pvemcp_bridge.modern import Modern
from pvemcp_bridge.subscription import METHOD as LISTEN
from pvemcp_bridge.subscription import Subscription
from pvemcp_bridge.transport import Transport

__all__ = ["Bridge", "Output"]

log = logging.getLogger(__name__)

_HANDSHAKE = ("initialize", "notifications/initialized")
_CANCEL_SECONDS = 1.0


class Output(Protocol):
    """Destination of the lines for the client."""

    async def send(self, line: str) -> None:
        """Write a whole line."""


@dataclass(eq=False)
class PendingRequest:
    """A request of the client without a reply yet."""

    message: Message
    output: Output
    modern: bool
    cancelled: bool = False
    task: asyncio.Task[None] | None = None

    async def deliver(self, message: Message) -> None:
        """Send the client a message that precedes the reply; no progress of a cancelled request."""
        if self.cancelled and message.method == "notifications/progress":
            return
        await self.output.send(message.text)

    def abort(self) -> None:
        """Cancel the task, which closes the HTTP connection; the client gets no reply."""
        self.cancelled = True
        if self.task:
            self.task.cancel()


class Bridge:
    """Forwarder of messages between one client and one server.

    Each message runs in a task of its own, so that no slow request delays another. The exception is
    the handshake: other messages of the legacy eras wait for its tasks, because they need its
    session.
    """

    def __init__(
        self,
        transport: Transport,
        output: Output,
        *,
        read_timeout: float | None = None,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._output = output
        self._tools = ToolAnnotations()
        self._exchange = Exchange(transport, self._tools, read_timeout, mask)
        self._legacy = Legacy(self._exchange, self._deliver)
        self._modern = Modern(self._exchange, self._tools)
        self._pending: dict[tuple[bool, Any], PendingRequest] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshake: asyncio.Task[None] | None = None

    def receive(self, line: bytes) -> None:
        """Start handling the messages in a line of the client."""
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            reply = error_text("null", PARSE_ERROR, "The line is not UTF-8.")
            self._start(self._output.send(reply))
            return
        for message in parse_messages(text) if text else ():
            if isinstance(message, Malformed):
                log.warning("The client sent a malformed line: %s", message)
                self._start(self._output.send(message.reply))
            else:
                self._accept(message)

    async def finish(self, seconds: float, immediate: asyncio.Event) -> None:
        """Wait for pending requests, then answer the rest with an error.

        Wait at most `seconds`, or until `immediate` is set. Subscriptions and cancelled requests
        end at once, because they have no reply to wait for.
        """
        for request in self._pending.values():
            if request.cancelled or request.message.method == LISTEN:
                request.abort()
        is_immediate = asyncio.create_task(immediate.wait())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._tasks and not is_immediate.done() and (left := deadline - loop.time()) > 0:
            await asyncio.wait(
                {*self._tasks, is_immediate}, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
        is_immediate.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)

    async def close(self, seconds: float) -> None:
        """End the session; give up after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._legacy.close()
        except TimeoutError:
            log.debug("The server did not confirm the end of the session.")

    def _accept(self, message: Message) -> None:
        modern = message.version is not None
        if message.method == "notifications/cancelled" and self._cancel_request(message):
            return
        after = None if modern else self._handshake
        if message.kind is Kind.REQUEST:
            request = PendingRequest(message, self._output, modern)
            self._pending[message.key] = request
            task = request.task = self._start(self._answer(request, after))
        else:
            task = self._start(self._notify(message, modern, after))
        if message.method in _HANDSHAKE and not modern:
            self._handshake = task

    def _cancel_request(self, message: Message) -> bool:
        """Mark the request as cancelled; return whether the notification must not be sent.

        In the era without sessions, closing the connection is how a server learns of it.
        """
        request = self._pending.get(id_key(message.params.get("requestId")))
        if request is None:
            return message.version is not None
        request.cancelled = True
        if request.modern:
            request.abort()
        return request.modern

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer(self, request: PendingRequest, after: asyncio.Task[None] | None) -> None:
        """Send the client the one reply to its request, whatever happens.

        A cancelled task still answers: it is cancelled when the bridge ends, and a client that gets
        no reply would hang. Only a request that the client itself cancelled stays unanswered.
        """
        message = request.message
        try:
            await _wait_for(after)
            reply = await self._request(request)
        except BridgeError as error:
            log.warning("%s: %s", message.method, error)
            reply = error.reply_to(message)
        except asyncio.CancelledError:
            reply = Closing("The bridge ended before the reply arrived.").reply_to(message)
        except Exception:
            log.exception("%s failed inside the bridge.", message.method)
            reply = error_text(
                message.raw_id, INTERNAL_ERROR, "The bridge failed; see its log for details."
            )
        finally:
            # An id that the client used again belongs to the later request
            if self._pending.get(message.key) is request:
                del self._pending[message.key]
        if not request.cancelled:
            await self._output.send(reply)

    async def _request(self, request: PendingRequest) -> str:
        message = request.message
        if request.modern and message.method == LISTEN:
            subscription = Subscription(message, self._modern, self._exchange, request.deliver)
            return await subscription.run()
        era = self._modern if request.modern else self._legacy
        reply = await era.request(message, request.deliver)
        if message.method == "tools/list":
            invalid = self._tools.record(reply.result.get("tools"))
            if invalid and request.modern:  # the legacy eras have no header annotations
                for name, reason in invalid.items():
                    log.warning("The tool %r is not offered: %s.", name, reason)
                reply = remove_tools(reply, invalid)
        return reply.text

    async def _notify(
        self, message: Message, modern: bool, after: asyncio.Task[None] | None
    ) -> None:
        """Send a notification or a response; failures only appear in the log."""
        await _wait_for(after)
        try:
            await (self._modern if modern else self._legacy).notify(message)
        except BridgeError as error:
            log.warning("%s was not delivered: %s", message.method or "A response", error.fact)

    async def _deliver(self, message: Message) -> None:
        await self._output.send(message.text)


async def _wait_for(task: asyncio.Task[None] | None) -> None:
    """Wait until a task ends, even if it fails or is cancelled."""
    if task and not task.done():
        await asyncio.wait({task})
