"""The emulator in this process."""

import asyncio
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.cluster import Cluster
from proxmox_client.emulator.http.connection import ConnectionLimits
from proxmox_client.emulator.scenario.model import Scenario


class Emulator:
    """Clusters that answer over HTTPS on loopback while the context lasts."""

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        clock: Clock | None = None,
        limits: ConnectionLimits | None = None,
    ) -> None:
        self._scenario = scenario or Scenario.cluster("lab")
        self.clock = clock or Clock()
        self._limits = limits
        self.clusters: dict[str, Cluster] = {}

    async def __aenter__(self) -> Self:
        for name, build in self._scenario.clusters.items():
            cluster = Cluster(build(self.clock), self._limits)
            for fault in self._scenario.faults.get(name, []):
                cluster.fault(**fault)  # type: ignore[arg-type]  # checked by Fault
            await cluster.start()
            self.clusters[name] = cluster
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(cluster.stop() for cluster in self))
        self.clusters.clear()

    def __getitem__(self, name: str) -> Cluster:
        return self.clusters[name]

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self.clusters.values())
