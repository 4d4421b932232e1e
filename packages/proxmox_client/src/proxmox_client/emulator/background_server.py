"""The emulator as a context manager in this process."""

from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from proxmox_client.emulator.actions import act
from proxmox_client.emulator.backup_server.server import EmulatedBackupServer
from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.cluster import EmulatedCluster
from proxmox_client.emulator.http.connection import ConnectionLimits
from proxmox_client.emulator.scenario.model import Scenario
from proxmox_client.emulator.state.cluster import ClusterState


class Emulator:
    """Clusters that serve HTTPS until the context ends: on loopback, on any free ports.

    With `first_port` the nodes take that port and the ones after it, cluster by cluster, then the
    backup servers. Iterating yields the clusters.
    Entering raises OSError if a port is in use.
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
        self.clusters: dict[str, EmulatedCluster] = {}
        self.backup_servers: dict[str, EmulatedBackupServer] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for name, build in self._scenario.clusters.items():
                cluster = self.clusters[name] = EmulatedCluster(build(self.clock), self._limits)
                for fault in self._scenario.faults.get(name, []):
                    cluster.fault(**fault)  # type: ignore[arg-type]  # checked by Fault
                stack.push_async_callback(cluster.stop)
                await cluster.start(self._address, self._allocate_ports(len(cluster.state.nodes)))
                for action in self._scenario.actions.get(name, []):
                    await act(cluster, str(action["action"]), _arguments(action))
            states = {name: cluster.state for name, cluster in self.clusters.items()}
            for name, build_server in self._scenario.backup_servers.items():
                server = EmulatedBackupServer(build_server(self.clock, states), self._limits)
                self.backup_servers[name] = server
                stack.push_async_callback(server.stop)
                await server.start(self._address, *self._allocate_ports(1))
                _trust(server, states.values())
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
        self.backup_servers.clear()

    def _allocate_ports(self, count: int) -> list[int]:
        """Return the next ports in sequence, or 0 (any free port) without a first port."""
        if not self._next_port:
            return [0] * count
        self._next_port += count
        return list(range(self._next_port - count, self._next_port))

    def __getitem__(self, name: str) -> EmulatedCluster:
        return self.clusters[name]

    def __iter__(self) -> Iterator[EmulatedCluster]:
        return iter(self.clusters.values())


def _trust(server: EmulatedBackupServer, clusters: Iterable[ClusterState]) -> None:
    """Write the server's fingerprint into the clusters' storages that have a datastore of it."""
    for cluster in clusters:
        for storage in cluster.storages.values():
            if storage.is_backup_server and storage.options["datastore"] in server.state.datastores:
                storage.options["fingerprint"] = server.fingerprint.lower()


def _arguments(action: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in action.items() if name != "action"}
