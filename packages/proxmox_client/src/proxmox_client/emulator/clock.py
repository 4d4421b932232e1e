"""The time of an emulated cluster: as fast as life, faster, or moved by hand."""

import asyncio
import heapq
import itertools
import time


class Clock:
    """Time that runs at a speed: 60 makes a minute of a second."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._born = time.time()
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._born + (time.monotonic() - self._began) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait for this much of the cluster's time."""
        await asyncio.sleep(seconds / self.speed)


class ManualClock(Clock):
    """Time that stands still until it is moved."""

    def __init__(self, start: float | None = None) -> None:
        super().__init__()
        self._now = time.time() if start is None else start
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the time is moved past this many seconds from now."""
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), woken))
        await woken.wait()

    async def advance(self, seconds: float) -> None:
        """Move the time, waking those whose time has come in the order they are due."""
        until = self._now + seconds
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, woken = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            woken.set()
            await _settle()
        self._now = until


async def _settle() -> None:
    """Let everything that can run without the clock run."""
    for _ in range(20):
        await asyncio.sleep(0)
