"""Limits: concurrent requests, deadlines of blocks, and time limits of single operations."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from proxmox_client.errors import DeadlineExceeded

PROBE_TIMEOUT: Final = 3.0
"""Seconds for a read that shows whether something answers again."""

_deadline: ContextVar[float | None] = ContextVar("proxmox_client_deadline", default=None)
requester: ContextVar[str] = ContextVar("proxmox_client_requester", default="")
"""Whose requests those of the present task are: requesters get free slots in turn."""


@dataclass(frozen=True)
class Limits:
    """Concurrent requests, and timeouts in seconds.

    pveproxy has three workers, and a node may serve other clients too. `timeout` limits one
    operation including its retries and its wait for a slot; a `deadline` block can only shorten it.
    """

    per_cluster: int = 4
    per_node: int = 2
    timeout: float = 60.0
    connect_timeout: float = 5.0
    # Proxmox delays a 401 by 3 s, and allows 30 s for a call that one node passes to another
    read_timeout: float = 35.0
    # of a read about the whole cluster, which every host answers by itself
    cluster_timeout: float = 15.0
    # of a read of a node before the node is asked whether it answers anything, and of that request
    patience: float = 2.0
    probe_timeout: float = PROBE_TIMEOUT


class FairSemaphore:
    """A semaphore that requesters enter in turn (round robin), each of them in its own order.

    First come, first served would let one requester's thousands of reads delay all others.
    """

    def __init__(self, value: int) -> None:
        self._free = value
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}  # the next requester first

    @property
    def has_waiting(self) -> bool:
        """Whether any requester waits."""
        return bool(self._queues)

    @property
    def waiting(self) -> int:
        """The number of those that wait."""
        return sum(map(len, self._queues.values()))

    async def __aenter__(self) -> None:
        if self._free:  # none waits then: a slot that is given back goes to one who does
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(requester.get(), deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had the slot by then
                await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Give the slot to the next requester."""
        while self._queues:
            name = next(iter(self._queues))
            queue = self._queues.pop(name)
            turn = queue.popleft()
            if queue:
                self._queues[name] = queue
            if not turn.done():  # those that were cancelled wait no more
                turn.set_result(None)
                return
        self._free += 1


class ConcurrencyLimiter:
    """Limits concurrent requests per node and per cluster, shared fairly among requesters."""

    def __init__(self, limits: Limits) -> None:
        self._per_node = limits.per_node
        self._cluster = FairSemaphore(limits.per_cluster)
        # weak: node names come from callers, so unused semaphores must not accumulate
        self._nodes: WeakValueDictionary[str, FairSemaphore] = WeakValueDictionary()

    @property
    def is_full(self) -> bool:
        """Whether requests wait for a slot of the cluster."""
        return self._cluster.has_waiting

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a slot of the cluster."""
        return self._cluster.waiting

    @asynccontextmanager
    async def slot(self, node: str) -> AsyncIterator[None]:
        """Acquire a slot of the node, then one of the cluster; `""` means no particular node.

        The order matters: requests that queue for a slow node must not occupy the cluster's slots.
        """
        if not node:
            async with self._cluster:
                yield
            return
        node_slots = self._nodes.setdefault(node, FairSemaphore(self._per_node))
        async with node_slots, self._cluster:
            yield


def node_of(path: str) -> str:
    """Return the node that a path addresses, or `""`."""
    parts = path.split("/", 3)
    return parts[2] if len(parts) > 2 and parts[1] == "nodes" else ""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit every request and wait inside the block, also in tasks that it starts.

    An inner block can only shorten the outer one. Calls that are cut off raise `DeadlineExceeded`.
    """
    end = asyncio.get_running_loop().time() + seconds
    outer = _deadline.get()
    reset = _deadline.set(end if outer is None else min(outer, end))
    try:
        yield
    finally:
        _deadline.reset(reset)


def remaining() -> float | None:
    """Return the seconds left in the surrounding `deadline` block, or None outside of one."""
    end = _deadline.get()
    return None if end is None else end - asyncio.get_running_loop().time()


@asynccontextmanager
async def time_limit(seconds: float | None, operation: str) -> AsyncIterator[None]:
    """Raise `DeadlineExceeded` when the body outlasts the surrounding deadline or `seconds`.

    A TimeoutError that the body itself raises passes through unchanged.
    """
    limits = [limit for limit in (remaining(), seconds) if limit is not None]
    limit = min(limits, default=None)
    if limit is not None and limit <= 0:
        raise DeadlineExceeded(f"No time was left for {operation}")
    try:
        async with asyncio.timeout(limit) as timer:
            yield
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise DeadlineExceeded(f"{operation} took longer than {limit:.2f} s") from error
