"""Reading tables for a caller: the one way by which tools and queries get rows."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import starmap
from typing import Any, overload

from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.tables.reach import within
from pvemcp_server.tables.registry import ALL, LoadRequest, Row, Table


async def load(table: Table, cluster: Cluster, want: LoadRequest = ALL) -> Sequence[Any]:
    """The rows of the table that `cluster.scope` covers; no other way leads to rows."""
    with cluster.patience():
        rows = await table.load(cluster, want)
    return await within(cluster, table.covered, rows)


def placed(table: Table, seen: InventoryView) -> frozenset[str]:
    """The nodes of which the table has rows, by Proxmox's last word on them."""
    slot = ("nodes of", table.name)
    if slot not in seen.derived:
        rows = table.last_known(seen) if table.last_known else ()
        seen.derived[slot] = frozenset(row.node for row in rows)
    nodes: frozenset[str] = seen.derived[slot]
    return nodes


async def say_last_known(cluster: Cluster, nodes: AbstractSet[str]) -> None:
    """Note which of these nodes are offline: what is told of them is what they said last."""
    every = (await cluster.inventory.view()).nodes
    if lost := sorted(one.node for one in every if one.node in nodes and one.status == "offline"):
        cluster.notes.add(
            f"Offline on {cluster.name}: {', '.join(lost)}; rows of it are what was last known."
        )


class Named(Sequence[Mapping[str, Any]]):
    """Rows of several clusters, each with its cluster's name first, made when they are read."""

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
            return Named(self._rows[at])
        return _named(*self._rows[at])

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return starmap(_named, self._rows)


def rows_of(found: Sequence[tuple[Cluster, Sequence[Row]]]) -> Named:
    """The rows of several clusters, in that order, with the column `cluster` first."""
    return Named([(cluster.name, row) for cluster, rows in found for row in rows])


def _named(cluster: str, row: Row) -> Mapping[str, Any]:
    return {"cluster": cluster, **{name: getattr(row, name) for name in row.__struct_fields__}}
