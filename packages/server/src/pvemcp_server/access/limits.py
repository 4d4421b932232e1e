"""Rate limits (token buckets) and concurrency limits, each within this process."""

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

import anyio

from pvemcp_server.errors import Busy, OverBudget, counted

MOST_BUCKETS = 10_000  # the least recently used one is evicted
MOST_WAITING = 8  # sources for a turn, and requests of one source
BUSY_SECONDS = 2  # until another try
PLACE_SECONDS = 2.0  # to wait for a place on a cluster: a healthy one gives it back sooner
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
        # weak: as many as there are calls
        self._on_cluster: WeakValueDictionary[tuple[str, str], anyio.Semaphore] = (
            WeakValueDictionary()
        )

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

    @asynccontextmanager
    async def on_cluster(self, key_id: str, cluster: str, most: int) -> AsyncIterator[None]:
        """Hold one of the key's places on a cluster while inside (bulkhead).

        A quarter of the key's slots, and at least one, is for other clusters, so that one that
        hangs or is slow never takes all. Wait briefly for a place; then raise OverBudget.
        """
        kept = max(1, most // 4)
        number = max(1, most - kept)
        places = self._on_cluster.setdefault((key_id, cluster), anyio.Semaphore(number))
        with anyio.move_on_after(PLACE_SECONDS) as wait:
            await places.acquire()
        if wait.cancelled_caught:
            raise OverBudget(
                f"This key has {counted(number, 'call')} on {cluster} running already; "
                f"{kept} of its {most} are for other clusters.",
                hint="Wait for one to end, or call another cluster.",
            )
        try:
            yield
        finally:
            places.release()


class FairQueue:
    """A bounded queue in which sources, as addresses or administrators, have their turns.

    `at_once` sources have their turn at the same time, and each source one request: whatever a
    source sends, another one waits for one request of it at most (round robin).
    """

    def __init__(self, at_once: int = 1) -> None:
        self._turns = anyio.Semaphore(at_once)
        # weak: sources come from callers, so unused ones must not accumulate
        self._sources: WeakValueDictionary[str, anyio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, source: str) -> AsyncIterator[None]:
        """Wait for the turn of a source; raise the error of `full` when too many wait already."""
        self.check(source)
        async with self.further_turn(source):
            yield

    def check(self, source: str) -> None:
        """Raise the error of `full` when too many requests wait already."""
        queues = (self._sources.get(source), self._turns)
        if any(each and each.statistics().tasks_waiting >= MOST_WAITING for each in queues):
            raise self.full()

    @asynccontextmanager
    async def further_turn(self, source: str) -> AsyncIterator[None]:
        """Wait for a further turn of work that has begun, and is refused no more."""
        # without a checkpoint between the check and the wait
        own = self._sources.setdefault(source, anyio.Semaphore(1, fast_acquire=True))
        async with own, self._turns:
            yield

    def full(self) -> Exception:
        """Return the error for a request that may not wait."""
        return OverBudget("Too many requests wait already.", seconds=BUSY_SECONDS)


class FairTurns(FairQueue):
    """The queue of expensive work of administrators and service tokens."""

    def full(self) -> Exception:
        text = "Too many of your requests wait already."
        return Busy(text, hint="Send one after another.", seconds=BUSY_SECONDS)
