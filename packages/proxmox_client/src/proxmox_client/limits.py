"""How much we ask of a cluster at once, and how long we wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary


@dataclass(frozen=True)
class Limits:
    """Requests in flight, and seconds.

    pveproxy has three workers, and a node may serve others too. `timeout` bounds one operation
    with its retries and its wait for a turn; a `deadline` block can only shorten it.
    """

    per_cluster: int = 4
    per_node: int = 2
    timeout: float = 60.0
    connect_timeout: float = 5.0
    # a 401 comes 3 s late, and a call that one node passes to another may take 30 s
    read_timeout: float = 35.0


class Turns:
    """Lets requests through, some at a time per node and per cluster."""

    def __init__(self, limits: Limits) -> None:
        self._per_node = limits.per_node
        self._cluster = asyncio.Semaphore(limits.per_cluster)
        # a node's turns last while somebody uses them: names may come from anywhere
        self._nodes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, node: str) -> AsyncIterator[None]:
        """Wait for the node's turn, then for the cluster's; `""` is no node in particular."""
        if not node:
            async with self._cluster:
                yield
            return
        # the node comes first: who waits for a slow node must not hold a place of the cluster
        turns = self._nodes.setdefault(node, asyncio.Semaphore(self._per_node))
        async with turns, self._cluster:
            yield
