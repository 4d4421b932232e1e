"""Row-level access: which rows of any table a caller may see."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

from pvemcp_server.access.model import Resources
from pvemcp_server.clusters import Cluster

R = TypeVar("R")


@dataclass(frozen=True)
class Reach:
    """The guests, nodes and storages of one cluster that a caller may see."""

    scope: Resources
    vmids: frozenset[int]
    nodes: frozenset[str]
    storages: frozenset[tuple[str, str]]

    @classmethod
    async def of(cls, cluster: Cluster) -> "Reach":
        """Return the reach of the cluster's scope, by its inventory."""
        view = await cluster.inventory_view()
        return cls(
            cluster.scope,
            frozenset(guest.vmid for guest in view.guests),
            frozenset(node.node for node in view.nodes),
            frozenset((storage.storage, storage.node) for storage in view.storages),
        )

    def guest(self, vmid: int | None) -> bool:
        """Return whether the guest is visible, also a deleted one that is granted by its number."""
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
    """Cover rows about a visible guest."""
    return row if reach.guest(row.vmid) else None


def of_node(reach: Reach, row: Nodes) -> Nodes | None:
    """Cover rows about a visible node."""
    return row if reach.node(row.node) else None


def of_storage(reach: Reach, row: Storages) -> Storages | None:
    """Cover rows about a visible storage on a node."""
    return row if reach.storage(row.storage, row.node) else None


def of_content(reach: Reach, row: Contents) -> Contents | None:
    """Cover volumes on a visible storage, and those of a visible guest."""
    return row if reach.guest(row.vmid) or reach.storage(row.storage, row.node) else None


def of_task(reach: Reach, row: Tasks) -> Tasks | None:
    """Cover tasks of a visible node, and those about a visible guest."""
    return row if reach.guest(row.vmid) or reach.node(row.node) else None


def of_any(_reach: Reach, row: R) -> R:
    """Cover every row: it shows no single resource."""
    return row


def of_everything(reach: Reach, row: R) -> R | None:
    """Cover rows about the whole cluster, such as its users, for a scope of everything only."""
    return row if reach.scope.everything else None
