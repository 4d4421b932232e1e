"""Lets each message of the client go its way and sees that each request is answered once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from pvemcp_bridge.annotations import Tools, without
from pvemcp_bridge.errors import BridgeError, Closing
from pvemcp_bridge.exchange import Exchange
from pvemcp_bridge.legacy import Legacy
from pvemcp_bridge.listen import METHOD as LISTEN
from pvemcp_bridge.listen import Subscription
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
from pvemcp_bridge.transport import Transport

__all__ = ["Bridge", "Output"]

log = logging.getLogger(__name__)

_HANDSHAKE = ("initialize", "notifications/initialized")


class Output(Protocol):
    """Where lines for the client go."""

    async def send(self, line: str) -> None:
        """Writes one line whole."""


@dataclass(eq=False)
class Flight:
    """A request under way."""

    message: Message
    output: Output
    modern: bool
    cancelled: bool = False
    task: asyncio.Task[None] | None = None

    async def deliver(self, message: Message) -> None:
        """Gives the client what comes before the reply; nothing about a request it took back."""
        if self.cancelled and message.method == "notifications/progress":
            return
        await self.output.send(message.text)


class Bridge:
    """Carries messages between one client and one server."""

    def __init__(
        self,
        transport: Transport,
        output: Output,
        *,
        silence: float | None = None,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._output = output
        self._tools = Tools()
        self._exchange = Exchange(transport, self._tools, silence, mask)
        self._legacy = Legacy(self._exchange, self._deliver)
        self._modern = Modern(self._exchange, self._tools)
        self._flights: dict[tuple[bool, Any], Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handshake: asyncio.Task[None] | None = None

    def receive(self, line: bytes) -> None:
        """Starts carrying what a line of the client holds."""
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

    async def finish(self, seconds: float, hurry: asyncio.Event) -> None:
        """Lets what is under way arrive, then answers the rest."""
        for flight in self._flights.values():
            if flight.cancelled or flight.message.method == LISTEN:
                flight.cancelled = True
                _cancel(flight.task)
        await self._arrive(seconds, hurry)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    async def close(self, seconds: float) -> None:
        """Ends the session, if that can be said in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._legacy.close()
        except TimeoutError:
            log.debug("The server did not confirm the end of the session.")

    async def _arrive(self, seconds: float, hurry: asyncio.Event) -> None:
        """Waits until nothing is under way, for some seconds or until there is no time."""
        hurried = asyncio.create_task(hurry.wait())
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks and not hurried.done():
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                break
            await asyncio.wait(
                {*self._tasks, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
        hurried.cancel()

    def _accept(self, message: Message) -> None:
        modern = message.version is not None
        if message.method == "notifications/cancelled" and self._take_back(message):
            return
        after = None if modern else self._handshake
        if message.kind is Kind.REQUEST:
            flight = Flight(message, self._output, modern)
            self._flights[message.key] = flight
            task = flight.task = self._start(self._request(flight, after))
        else:
            task = self._start(self._tell(message, modern, after))
        if message.method in _HANDSHAKE and not modern:
            self._handshake = task

    def _take_back(self, message: Message) -> bool:
        """Marks the request as cancelled; True when the server learns of it by our hanging up."""
        flight = self._flights.get(id_key(message.params.get("requestId")))
        if flight is None:
            return message.version is not None
        flight.cancelled = True
        if flight.modern:
            _cancel(flight.task)
        return flight.modern

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _request(self, flight: Flight, after: asyncio.Task[None] | None) -> None:
        """One request to its one reply."""
        message = flight.message
        try:
            await _done(after)
            reply = await self._carried(flight)
        except BridgeError as error:
            log.warning("%s: %s", message.method, error)
            reply = error.reply_to(message)
        except asyncio.CancelledError:
            reply = Closing("The bridge ended before the reply came.").reply_to(message)
        except Exception:  # whatever it is, a request without a reply would hang the client
            log.exception("%s failed inside the bridge.", message.method)
            reply = error_text(message.raw_id, INTERNAL_ERROR, "The bridge failed; see its log.")
        finally:
            if self._flights.get(message.key) is flight:
                del self._flights[message.key]
        if not flight.cancelled:
            await self._output.send(reply)

    async def _carried(self, flight: Flight) -> str:
        message = flight.message
        if flight.modern and message.method == LISTEN:
            subscription = Subscription(message, self._modern, self._exchange, flight.deliver)
            return await subscription.last_word()
        era = self._modern if flight.modern else self._legacy
        reply = await era.request(message, flight.deliver)
        return self._learned(flight, reply).text

    def _learned(self, flight: Flight, reply: Message) -> Message:
        """Notes what a list of tools says, and takes out what the era does not allow."""
        if flight.message.method != "tools/list":
            return reply
        invalid = self._tools.learn(reply.result.get("tools"))
        if not invalid or not flight.modern:
            return reply
        for name, why in invalid.items():
            log.warning("The tool %r is not offered: %s.", name, why)
        return without(reply, invalid)

    async def _tell(self, message: Message, modern: bool, after: asyncio.Task[None] | None) -> None:
        """One notification or response, which nobody answers; failures are for the log."""
        await _done(after)
        tell: Callable[[Message], Awaitable[None]] = (
            self._modern.tell if modern else self._legacy.tell
        )
        try:
            await tell(message)
        except BridgeError as error:
            log.warning("%s was not delivered: %s", message.method or "A response", error.fact)

    async def _deliver(self, message: Message) -> None:
        await self._output.send(message.text)


async def _done(task: asyncio.Task[None] | None) -> None:
    """Waits for a task, whatever becomes of it."""
    if task and not task.done():
        await asyncio.wait({task})


def _cancel(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
