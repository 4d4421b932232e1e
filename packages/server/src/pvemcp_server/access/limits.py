"""Rate limits (token buckets) and concurrency limits, each within this process."""

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import anyio

from pvemcp_server.errors import Busy, OverBudget, counted

MOST_BUCKETS = 10_000  # the least recently used one is evicted
MOST_WAITING = 20  # requests of one actor
BUSY_SECONDS = 5  # until another try
MOST_QUEUED = 8  # sources of strangers, and requests of one source
QUEUED_SECONDS = 2
Clock = Callable[[], float]


class RateLimiter:
    """A token bucket for each name; a full one holds a minute's tokens."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, per_minute: int) -> bool:
        """Take one token; return False when the bucket is empty."""
        now = self._clock()
        left, since = self._buckets.get(name, (float(per_minute), now))
        tokens = min(float(per_minute), left + (now - since) * per_minute / 60)
        if tokens < 1:
            return False
        self._buckets[name] = (tokens - 1, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return True

    def give_back(self, name: str) -> None:
        """Return a token to the bucket."""
        if name in self._buckets:
            tokens, since = self._buckets[name]
            self._buckets[name] = (tokens + 1, since)


class CallLimits:
    """The limits of calls: calls a minute and concurrent calls of a key, refusals of an address.

    Refusals are counted apart from calls: what an unauthenticated client can count up never decides
    about an authenticated one.
    """

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._rate = RateLimiter(clock=clock)
        self._refusals = RateLimiter(clock=clock)
        self._running: Counter[str] = Counter()

    def check_rate(self, name: str, per_minute: int) -> None:
        """Count a call of `name`, a key's id; raise OverBudget beyond the rate."""
        if not self._rate.take(name, per_minute):
            raise OverBudget(
                f"More than {counted(per_minute, 'call')} a minute.",
                hint="Wait a few seconds and try again.",
                seconds=60 / per_minute,
            )

    def count_refusal(self, name: str, per_minute: int) -> bool:
        """Count a refused call of `name`, an address; return False beyond the rate."""
        return self._refusals.take(name, per_minute)

    @contextmanager
    def running(self, key_id: str, most: int) -> Iterator[None]:
        """Hold one of the key's slots while inside; raise OverBudget when all are taken."""
        if self._running[key_id] >= most:
            raise OverBudget(
                f"This key has {counted(most, 'call')} running already.",
                hint="Wait for one to end.",
            )
        self._running[key_id] += 1
        try:
            yield
        finally:
            self._running[key_id] -= 1
            if not self._running[key_id]:
                del self._running[key_id]


class FairTurns:
    """Turns for expensive work: one of each actor, `at_once` in total, first come, first served.

    Each actor has a queue of its own, and only its first request waits among those of others: one
    that sends many delays the others by one turn.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._all = anyio.Semaphore(at_once)
        self._queues: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def turn(self, actor: str) -> AsyncIterator[None]:
        """Wait for the turn; raise Busy when too many requests of this actor wait already."""
        self.check(actor)
        async with self.further_turn(actor):
            yield

    def check(self, actor: str) -> None:
        """Raise Busy when too many requests of this actor wait already."""
        queue = self._queues.get(actor)
        if queue is not None and queue.statistics().tasks_waiting >= MOST_WAITING:
            raise Busy(
                "Too many of your requests wait already.",
                hint="Send one after another.",
                seconds=BUSY_SECONDS,
            )

    @asynccontextmanager
    async def further_turn(self, actor: str) -> AsyncIterator[None]:
        """Wait for a further turn of work that has begun, and is refused no more."""
        # without a checkpoint after the check
        queue = self._queues.setdefault(actor, anyio.Lock(fast_acquire=True))
        try:
            async with queue, self._all:
                yield
        finally:
            if not queue.locked():  # a queue with another request passes from one to the next
                self._queues.pop(actor, None)


class FairQueue(FairTurns):
    """Turns of strangers, by address or what else they cannot choose freely; bounded in total."""

    def check(self, actor: str) -> None:
        """Raise the error of `full` when too many wait already, of this actor or of all."""
        queue = self._queues.get(actor)
        own = queue.statistics().tasks_waiting if queue is not None else 0
        if max(own, self._all.statistics().tasks_waiting) >= MOST_QUEUED:
            raise self.full()

    def full(self) -> Exception:
        """Return the error for a request that may not wait."""
        return OverBudget("Too many requests wait already.", seconds=QUEUED_SECONDS)
