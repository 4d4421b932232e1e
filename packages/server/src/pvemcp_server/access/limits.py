"""Rate limits (token buckets) and concurrency limits, for all processes of a fleet together."""

import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import anyio

from pvemcp_server.errors import Busy, OverBudget, counted
from pvemcp_server.store.shared_limits import SharedLimits

MOST_BUCKETS = 10_000  # the least recently used one is evicted
MOST_WAITING = 8  # sources for a turn, and requests of one source
BUSY_SECONDS = 2  # until another try
PLACE_SECONDS = 2.0  # to wait for a place on a cluster: a healthy one gives it back sooner
Clock = Callable[[], float]


class RateLimiter:
    """A token bucket for each name; a full one holds a minute's tokens.

    Processes that share a database share its buckets; `kind` keeps those of limiters apart.
    """

    def __init__(
        self,
        kind: str = "",
        shared: SharedLimits | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._kind = kind
        self._shared = shared
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def take(self, name: str, per_minute: int) -> bool:
        """Take one token; return False when the bucket is empty.

        Raise StateUnavailable when it is shared and the database does not answer.
        """
        if self._shared and self._shared.are_used:
            return await self._shared.take(f"{self._kind} {name}", per_minute)
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
        if self._shared and self._shared.are_used:
            self._shared.give_back(f"{self._kind} {name}")
        elif name in self._buckets:
            tokens, since = self._buckets[name]
            self._buckets[name] = (tokens + 1, since)


class CallLimits:
    """The limits of calls: calls a minute and concurrent calls of a key, refusals of an address.

    Refusals are counted apart from calls: what an unauthenticated client can count up never decides
    about an authenticated one.
    """

    def __init__(
        self, shared: SharedLimits | None = None, *, clock: Clock = time.monotonic
    ) -> None:
        self._shared = shared
        self._rate = RateLimiter("calls", shared, clock=clock)
        self._refusals = RateLimiter("refusals", shared, clock=clock)
        self._running: Counter[str] = Counter()
        # weak: as many as there are calls
        self._on_cluster: WeakValueDictionary[tuple[str, str], anyio.Semaphore] = (
            WeakValueDictionary()
        )

    async def check_rate(self, name: str, per_minute: int) -> None:
        """Count a call of `name`, a key's id; raise OverBudget beyond the rate."""
        if not await self._rate.take(name, per_minute):
            raise OverBudget(
                f"More than {counted(per_minute, 'call')} a minute.",
                hint="Wait a few seconds and try again.",
                seconds=60 / per_minute,
            )

    async def count_refusal(self, name: str, per_minute: int) -> bool:
        """Count a refused call of `name`, an address; return False beyond the rate."""
        return await self._refusals.take(name, per_minute)

    @asynccontextmanager
    async def running(self, name: str, most: int, *, shared: bool = False) -> AsyncIterator[None]:
        """Hold one of the key's slots while inside; raise OverBudget when all are taken.

        They are those of this process, and with `shared` also those of all processes together.
        """
        if self._running[name] >= most:
            raise _all_running(most)
        self._running[name] += 1
        claims = self._shared if shared and self._shared and self._shared.are_used else None
        is_claimed = False
        try:
            if claims:
                is_claimed = await claims.claim(name, most)
                if not is_claimed:
                    raise _all_running(most)
            yield
        finally:
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]
            if claims and is_claimed:
                claims.release(name)

    @asynccontextmanager
    async def on_cluster(self, key_id: str, cluster: str, most: int) -> AsyncIterator[None]:
        """Hold one of the key's places on a cluster while inside (bulkhead).

        A quarter of the key's slots, and at least one, is for other clusters, so that one that
        hangs or is slow never takes all. Wait briefly for a place; then raise OverBudget.
        """
        number = max(1, most - max(1, most // 4))
        places = self._on_cluster.setdefault((key_id, cluster), anyio.Semaphore(number))
        with anyio.move_on_after(PLACE_SECONDS) as wait:
            await places.acquire()
        if wait.cancelled_caught:
            raise _all_on_cluster(cluster, number, most)
        name = f"{key_id} on {cluster}"
        claims = self._shared if self._shared and self._shared.are_used else None
        is_claimed = False
        try:
            if claims:
                is_claimed = await claims.claim(name, number, PLACE_SECONDS)
                if not is_claimed:
                    raise _all_on_cluster(cluster, number, most)
            yield
        finally:
            places.release()
            if claims and is_claimed:
                claims.release(name)


def _all_running(most: int) -> OverBudget:
    fact = f"This key has {counted(most, 'call')} running already."
    return OverBudget(fact, hint="Wait for one to end.")


def _all_on_cluster(cluster: str, number: int, most: int) -> OverBudget:
    return OverBudget(
        f"This key has {counted(number, 'call')} on {cluster} running already; "
        f"{most - number} of its {most} are for other clusters.",
        hint="Wait for one to end, or call another cluster.",
    )


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
