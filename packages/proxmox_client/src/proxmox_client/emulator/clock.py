"""The clock of an emulated cluster: in real time, accelerated, or advanced by the test."""

import asyncio
import heapq
import itertools
import time


class Clock:
    """A clock that runs `speed` times as fast as real time."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._epoch = time.time()
        self._started = time.monotonic()

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return self._epoch + (time.monotonic() - self._started) * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds of the cluster's time."""
        await asyncio.sleep(seconds / self.speed)


class ManualClock(Clock):
    """A clock that stands still until `advance` is called."""

    def __init__(self, start: float | None = None) -> None:
        super().__init__()
        self._now = time.time() if start is None else start
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by this many seconds."""
        wake_up = asyncio.Event()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), wake_up))
        await wake_up.wait()

    async def advance(self, seconds: float) -> None:
        """Move the clock forward, waking each sleeper at its own time, in order.

        After each step the event loop runs until everything that needs no clock is done, so that
        a task that sleeps twice is woken twice within one call.
        """
        until = self._now + seconds
        await _run_ready_tasks()
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, wake_up = heapq.heappop(self._sleepers)
            self._now = max(self._now, due)
            wake_up.set()
            await _run_ready_tasks()
        self._now = until


async def _run_ready_tasks() -> None:
    """Yield to the event loop often enough for tasks that don't wait for the clock."""
    for _ in range(20):
        await asyncio.sleep(0)
