"""HTTP exchanges: size and time limits, cancellation, and the set of all in progress."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from anyio import CancelScope, move_on_after
from starlette.types import ASGIApp, Scope

from pvemcp_server.access.model import Caller
from pvemcp_server.http import errors

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES: Final = 256 * 1024
KEPT_BYTES: Final = 16 * 1024  # of what stays in memory: a request that opens a session or stream
KEPT_VALUES: Final = 600  # of that: each takes up to a hundred times its text
BODY_SECONDS: Final = 20.0  # a request that arrives more slowly would hold a slot of its key
SEND_SECONDS: Final = 60.0  # a client that reads nothing for so long is gone
LEAVING_SECONDS: Final = 8.0  # HAProxy notices in 6 s by default (3 checks, one in 2 s)
PROBE_SECONDS: Final = 60.0  # a balancer asks more often
POLL_SECONDS: Final = 1.0  # between two checks of the deadlines
DRAIN_POLL_SECONDS: Final = 0.02  # between two checks whether all calls have ended
ANSWER_SECONDS: Final = 1.0  # in which cancelled calls may still send their clients an answer
log = logging.getLogger(__name__)


def check_kept(body: bytes) -> None:
    """Raise Refused for a body that would take much memory as long as it is kept."""
    if len(body) > KEPT_BYTES:
        raise errors.too_large(KEPT_BYTES)
    if sum(map(body.count, (b",", b"[", b"{"))) > KEPT_VALUES:
        raise errors.too_many_values(KEPT_VALUES)


@dataclass(eq=False)
class HttpExchange:
    """`receive` and `send` of one exchange, with a deadline for each wait on the client.

    The exchange only records until when it waits. `ActiveRequests` polls all exchanges once a
    second and cancels overdue ones: a timer per message would cost more than the message.
    `timed_out` marks that the cancellation of its task came from here; every other
    cancellation has to propagate.
    """

    receiving: Receive
    sending: Send
    caller: Caller | None = None  # as admitted
    is_stream: bool = False  # open until the client or the server closes it
    timed_out: bool = False
    started: bool = False  # the response
    finished: bool = False
    _body: bytes | None = None
    _deadline: float | None = None  # on the monotonic clock, while it waits for the client
    _task: asyncio.Task[Any] | None = field(default_factory=asyncio.current_task)
    _closing: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, most: int = BODY_BYTES) -> bytes:
        """Read the whole body ahead of the application; raise Refused when it is too large."""
        body, more = bytearray(), True
        self._deadline = monotonic() + BODY_SECONDS
        while more:
            message = await self.receiving()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > most:
                raise errors.too_large(most)
        self._deadline = None
        self._body = bytes(body)
        return self._body

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
            self.finished = not message.get("more_body", False)

    def close(self) -> None:
        """End the stream: the application sees a disconnect."""
        self._closing.set()

    def check_deadline(self, now: float) -> None:
        """Cancel the exchange when its client is overdue."""
        overdue = self._deadline is not None and now > self._deadline
        if overdue and self._task and not self.timed_out:
            self.timed_out = True
            self._task.cancel()


@dataclass
class ActiveRequests:
    """All requests in progress. The gate refuses new ones while it is closing.

    Before that the server is leaving: `/readyz` says so, and calls are still served until balancers
    have noticed.
    """

    leaving: bool = False
    closing: bool = False
    probed: float = -math.inf  # when a balancer last asked for `/readyz`, on the monotonic clock
    # those of the pipeline: with HTTP+SSE a tool call outlives the exchange that brought it
    tool_calls: Collection[CancelScope] = ()
    _requests: set[HttpExchange] = field(default_factory=set)

    async def serve(self, request: HttpExchange, transport: ASGIApp, scope: Scope) -> None:
        """Run a transport with a request, whose whole body is in the scope's state before.

        Raise Refused, 408 or 503, when the client was too slow to send it. Only a cancellation by
        the exchange itself is caught (and uncancelled, or the task would stay marked); one from
        outside, such as uvicorn's at shutdown, propagates.
        """
        self._requests.add(request)
        try:
            if scope["method"] == "POST":
                most = KEPT_BYTES if request.is_stream else BODY_BYTES
                body = scope["state"]["body"] = await request.read(most)
                if request.is_stream:
                    check_kept(body)
            await transport(scope, request.receive, request.send)
            if request.started and not request.finished:  # a stream that was closed
                await request.send({"type": "http.response.body", "body": b"", "more_body": False})
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not request.timed_out or task is None:
                raise
            task.uncancel()
            if not request.started:
                raise (errors.shutting_down() if self.closing else errors.too_slow()) from None
            log.info("A client stopped reading its answer; the exchange was given up")
        finally:
            self._requests.discard(request)

    @property
    def calls(self) -> int:
        """Number of running requests without streams, or of running tool calls if larger."""
        return max(len(self.tool_calls), sum(not request.is_stream for request in self._requests))

    def streams(self) -> list[HttpExchange]:
        """Return the open streams."""
        return [request for request in self._requests if request.is_stream]

    async def enforce_deadlines(self) -> None:
        """Cancel exchanges whose clients are too slow, once a second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = monotonic()
            for request in list(self._requests):
                request.check_deadline(now)

    def leave(self) -> float:
        """Begin to answer `/readyz` with 503; return the seconds in which balancers notice it.

        Where none asks, there is nothing to wait for.
        """
        self.leaving = True
        return LEAVING_SECONDS if monotonic() - self.probed < PROBE_SECONDS else 0.0

    def end_streams(self) -> None:
        """End all streams."""
        for stream in self.streams():
            stream.close()

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests and wait for the running ones; return whether all ended in time.

        Afterwards running tool calls are cancelled (their clients get an answer that says so),
        and then every exchange that still waits for its client.
        """
        self.leaving = self.closing = True
        if await self._idle_within(seconds):
            return True
        for call in list(self.tool_calls):
            call.cancel()
        for request in list(self._requests):
            request.check_deadline(math.inf)
        await self._idle_within(ANSWER_SECONDS)
        return False

    async def _idle_within(self, seconds: float) -> bool:
        with move_on_after(seconds):
            while self.calls:  # noqa: ASYNC110 - once in the life of a server, so no call sets an event
                await asyncio.sleep(DRAIN_POLL_SECONDS)
        return not self.calls
