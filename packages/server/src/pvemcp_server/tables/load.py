"""Loads tables for a caller: the only way by which tools and queries get rows."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import starmap
from typing import Any, overload

from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.tables.reach import visible
from pvemcp_server.tables.registry import ALL, LoadRequest, Row, Table


async def load(table: Table, cluster: Cluster, request: LoadRequest = ALL) -> Sequence[Any]:
    """Load the rows of the table that `cluster.scope` covers."""
    with cluster.short_deadline():
        rows = await table.load(cluster, request)
    return await visible(cluster, table.covered, rows)


def nodes_with_rows(table: Table, view: InventoryView) -> frozenset[str]:
    """Return the nodes of the rows that Proxmox still reports when a node is offline."""
    slot = ("nodes of", table.name)
    if slot not in view.derived:
        rows = table.last_known(view) if table.last_known else ()
        view.derived[slot] = frozenset(row.node for row in rows)
    nodes: frozenset[str] = view.derived[slot]
    return nodes


async def note_offline_nodes(cluster: Cluster, nodes: AbstractSet[str]) -> None:
    """Note which of these nodes are offline: their rows are the last known ones."""
    every = (await cluster.inventory.view()).nodes
    if offline := sorted(n.node for n in every if n.node in nodes and n.status == "offline"):
        names = ", ".join(offline)
        cluster.notes.add(
            f"Offline on {cluster.name}: {names}; rows there show the last known values."
        )


class NamedRows(Sequence[Mapping[str, Any]]):
    """Rows of several clusters as mappings with the cluster's name first, made when read."""

    def __init__(self, rows: Sequence[tuple[str, Row]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, at: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(at, slice):
            return NamedRows(self._rows[at])
        return _with_cluster(*self._rows[at])

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return starmap(_with_cluster, self._rows)


def _with_cluster(cluster: str, row: Row) -> Mapping[str, Any]:
    return {"cluster": cluster, **{name: getattr(row, name) for name in row.__struct_fields__}}
