"""What is being served right now: counted, ended with its key, awaited at shutdown."""

import asyncio
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from anyio import CancelScope, move_on_after

from pvemcp_server.http.exchange import HttpExchange

LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 1.0  # for calls that were given up to tell their clients so


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
    """All visits. While it is closing nobody new is let in."""

    closing: bool = False
    _visits: set[ActiveRequest] = field(default_factory=set)
    # tool calls: with HTTP+SSE they outlive the exchange that brought them
    _working: set[CancelScope] = field(default_factory=set)
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def track(self, visit: ActiveRequest) -> Iterator[None]:
        self._visits.add(visit)
        try:
            yield
        finally:
            self._visits.discard(visit)
            self._settle()

    @contextmanager
    def working(self) -> Iterator[None]:
        """While a tool call runs, however it came; it is left early when the call is given up."""
        with CancelScope() as scope:
            self._working.add(scope)
            try:
                yield
            finally:
                self._working.discard(scope)
                self._settle()

    @property
    def calls(self) -> int:
        """Exchanges that will end by themselves, and calls that run without one."""
        return max(len(self._working), sum(not visit.is_stream for visit in self._visits))

    def keys(self) -> set[str]:
        """The keys that hold streams open."""
        return {visit.key_id for visit in self._visits if visit.is_stream}

    async def look_after(self) -> None:
        """Give up exchanges whose clients keep us waiting, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = monotonic()
            for visit in list(self._visits):
                visit.exchange.look_after(now)

    def end_streams(self, key_ids: Iterable[str] | None = None) -> None:
        """End the streams of these keys, or all streams."""
        chosen = None if key_ids is None else set(key_ids)
        for visit in list(self._visits):
            if visit.is_stream and (chosen is None or visit.key_id in chosen):
                visit.exchange.close()

    async def drain(self, seconds: float) -> bool:
        """Let no one new in and wait for the running calls; whether all of them ended in time."""
        self.closing = True
        self._settle()
        if await self._quiet_within(seconds):
            return True
        for call in self._working:
            call.cancel()
        for visit in list(self._visits):
            visit.exchange.look_after(math.inf)
        await self._quiet_within(ANSWER_SECONDS)
        return False

    async def _quiet_within(self, seconds: float) -> bool:
        with move_on_after(seconds):
            await self._quiet.wait()
        return self._quiet.is_set()

    def _settle(self) -> None:
        if self.closing and not self.calls:
            self._quiet.set()
