"""Requests in progress: counted, ended with their key, and awaited at shutdown."""

import asyncio
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from anyio import CancelScope, move_on_after

from pvemcp_server.http.exchange import HttpExchange

POLL_SECONDS: Final = 1.0  # between two checks of the deadlines
ANSWER_SECONDS: Final = 1.0  # in which cancelled calls may still send their clients an answer


@dataclass(eq=False)
class ActiveRequest:
    """One admitted exchange of a key."""

    key_id: str
    exchange: HttpExchange

    @property
    def is_stream(self) -> bool:
        return self.exchange.is_stream


@dataclass
class ActiveRequests:
    """All requests in progress. The gate refuses new ones while it is closing."""

    closing: bool = False
    _requests: set[ActiveRequest] = field(default_factory=set)
    # Tool calls are tracked apart: with HTTP+SSE they outlive the exchange that brought them
    _calls: set[CancelScope] = field(default_factory=set)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)  # set while closing, at zero calls

    @contextmanager
    def track(self, request: ActiveRequest) -> Iterator[None]:
        """Count the request while inside."""
        self._requests.add(request)
        try:
            yield
        finally:
            self._requests.discard(request)
            self._check_idle()

    @contextmanager
    def tool_call(self) -> Iterator[None]:
        """Count a tool call while inside; `drain` cancels it when its time is over.

        The cancellation ends at this block: the code after it still answers the client.
        """
        with CancelScope() as scope:
            self._calls.add(scope)
            try:
                yield
            finally:
                self._calls.discard(scope)
                self._check_idle()

    @property
    def calls(self) -> int:
        """Number of requests that end by themselves, or of tool calls if these are more."""
        return max(len(self._calls), sum(not request.is_stream for request in self._requests))

    def stream_keys(self) -> set[str]:
        """Return the ids of the keys with open streams."""
        return {request.key_id for request in self._requests if request.is_stream}

    async def enforce_deadlines(self) -> None:
        """Cancel exchanges whose clients are too slow, once a second, until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = monotonic()
            for request in list(self._requests):
                request.exchange.check_deadline(now)

    def end_streams(self, key_ids: Iterable[str] | None = None) -> None:
        """End the streams of these keys, or all streams."""
        chosen = None if key_ids is None else set(key_ids)
        for request in list(self._requests):
            if request.is_stream and (chosen is None or request.key_id in chosen):
                request.exchange.close()

    async def drain(self, seconds: float) -> bool:
        """Refuse new requests and wait for the running ones; return whether all ended in time.

        Afterwards running tool calls are cancelled (their clients get an answer that says so),
        and then every exchange that still waits for its client.
        """
        self.closing = True
        self._check_idle()
        if await self._idle_within(seconds):
            return True
        for call in self._calls:
            call.cancel()
        for request in list(self._requests):
            request.exchange.check_deadline(math.inf)
        await self._idle_within(ANSWER_SECONDS)
        return False

    async def _idle_within(self, seconds: float) -> bool:
        with move_on_after(seconds):
            await self._idle.wait()
        return self._idle.is_set()

    def _check_idle(self) -> None:
        if self.closing and not self.calls:
            self._idle.set()
