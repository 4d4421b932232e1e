"""Which rows a caller may see: decided here for every table, whoever reads it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pvemcp_server.access.model import Resources
from pvemcp_server.clusters import Cluster, offload

R = TypeVar("R")


@dataclass(frozen=True)
class Reach:
    """What a caller reaches of one cluster, asked row by row."""

    scope: Resources
    vmids: frozenset[int]
    nodes: frozenset[str]
    storages: frozenset[tuple[str, str]]

    @classmethod
    async def of(cls, cluster: Cluster) -> "Reach":
        seen = await cluster.inventory_view()
        return cls(
            cluster.scope,
            frozenset(guest.vmid for guest in seen.guests),
            frozenset(node.node for node in seen.nodes),
            frozenset((one.storage, one.node) for one in seen.storages),
        )

    def guest(self, vmid: int | None) -> bool:
        """Also one that is gone, as long as it is granted by its number."""
        return vmid is not None and (vmid in self.vmids or self.scope.covers_guest(vmid))

    def node(self, name: str) -> bool:
        return name in self.nodes or self.scope.covers_node(name)

    def storage(self, name: str, node: str = "") -> bool:
        return (name, node) in self.storages or self.scope.covers_storage(name, node=node)


class _OfGuest(Protocol):
    @property
    def vmid(self) -> int | None: ...


class _OfNode(Protocol):
    @property
    def node(self) -> str: ...


class _OfStorage(_OfNode, Protocol):
    @property
    def storage(self) -> str: ...


class _OfContent(_OfGuest, _OfStorage, Protocol): ...


class _OfTask(_OfGuest, _OfNode, Protocol): ...


Guests = TypeVar("Guests", bound=_OfGuest)
Nodes = TypeVar("Nodes", bound=_OfNode)
Storages = TypeVar("Storages", bound=_OfStorage)
Contents = TypeVar("Contents", bound=_OfContent)
Tasks = TypeVar("Tasks", bound=_OfTask)


def of_guest(reach: Reach, row: Guests) -> Guests | None:
    """Rows that belong to a guest."""
    return row if reach.guest(row.vmid) else None


def of_node(reach: Reach, row: Nodes) -> Nodes | None:
    """Rows that belong to a node."""
    return row if reach.node(row.node) else None


def of_storage(reach: Reach, row: Storages) -> Storages | None:
    """Rows that belong to a storage on a node."""
    return row if reach.storage(row.storage, row.node) else None


def of_content(reach: Reach, row: Contents) -> Contents | None:
    """What is on a storage belongs to the storage and, where it names one, to a guest."""
    return row if reach.guest(row.vmid) or reach.storage(row.storage, row.node) else None


def of_task(reach: Reach, row: Tasks) -> Tasks | None:
    """A task belongs to the node where it runs and, where it names one, to a guest."""
    return row if reach.guest(row.vmid) or reach.node(row.node) else None


def of_everybody(_reach: Reach, row: R) -> R:
    """Rows that say nothing about single resources."""
    return row


async def within(
    cluster: Cluster, covered: Callable[[Reach, Any], R | None], rows: Sequence[R]
) -> Sequence[R]:
    """The rows, or parts of rows, that the caller of this cluster may see."""
    if cluster.scope.everything:
        return rows
    reach = await Reach.of(cluster)
    return await offload(
        len(rows), lambda: [seen for row in rows if (seen := covered(reach, row)) is not None]
    )
