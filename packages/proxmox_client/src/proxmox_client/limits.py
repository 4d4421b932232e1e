"""Limits on concurrent requests and on waiting times."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary


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


class ConcurrencyLimiter:
    """Limits concurrent requests per node and per cluster."""

    def __init__(self, limits: Limits) -> None:
        self._per_node = limits.per_node
        self._cluster = asyncio.Semaphore(limits.per_cluster)
        # weak: node names come from callers, so unused semaphores must not accumulate
        self._nodes: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, node: str) -> AsyncIterator[None]:
        """Acquire a slot of the node, then one of the cluster; `""` means no particular node.

        The order matters: requests that queue for a slow node must not occupy the cluster's slots.
        """
        if not node:
            async with self._cluster:
                yield
            return
        node_slots = self._nodes.setdefault(node, asyncio.Semaphore(self._per_node))
        async with node_slots, self._cluster:
            yield
