"""The emulator in this process."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.cluster import Cluster
from proxmox_client.emulator.http.connection import ConnectionLimits
from proxmox_client.emulator.scenario.model import Scenario


class Emulator:
    """Clusters that answer over HTTPS while the context lasts: on loopback, on any free ports.

    With `first_port` the nodes take that port and those after it, cluster by cluster.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        clock: Clock | None = None,
        limits: ConnectionLimits | None = None,
        address: str = "127.0.0.1",
        first_port: int = 0,
    ) -> None:
        self._scenario = scenario or Scenario.cluster("lab")
        self.clock = clock or Clock()
        self._limits = limits
        self._address, self._next_port = address, first_port
        self.clusters: dict[str, Cluster] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for name, build in self._scenario.clusters.items():
                cluster = self.clusters[name] = Cluster(build(self.clock), self._limits)
                for fault in self._scenario.faults.get(name, []):
                    cluster.fault(**fault)  # type: ignore[arg-type]  # checked by Fault
                stack.push_async_callback(cluster.stop)
                await cluster.start(self._address, self._ports(len(cluster.state.nodes)))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()
        self.clusters.clear()

    def _ports(self, count: int) -> list[int]:
        """Ports for so many nodes: one after the other, or any when none was named."""
        if not self._next_port:
            return [0] * count
        self._next_port += count
        return list(range(self._next_port - count, self._next_port))

    def __getitem__(self, name: str) -> Cluster:
        return self.clusters[name]

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self.clusters.values())
