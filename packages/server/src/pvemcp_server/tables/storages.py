"""Storages, as each node sees them."""

from operator import attrgetter
from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.resources import StorageResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_NODE
from pvemcp_server.tables.reach import of_storage
from pvemcp_server.tables.registry import NARROWED, Col, Cost, LoadRequest, Row, Unit, table
from pvemcp_server.tables.values import share


class Storage(Row):
    """A storage on a node."""

    minimal: ClassVar[tuple[str, ...]] = (
        "storage",
        "node",
        "type",
        "status",
        "disk_usage_percentage",
    )
    full: ClassVar[tuple[str, ...]] = (
        *minimal,
        "plugin_type",
        "content",
        "shared",
        "is_available",
        "disk_usage",
        "disk_total",
    )

    storage: Annotated[str, Col("Name", also=("name",))]
    node: Annotated[str, Col("Node that sees it")]
    type: Annotated[str, Col("Kind of storage: dir, nfs, lvmthin, zfspool, rbd, pbs …")]
    status: Annotated[str, Col("State", values=("available", "unknown"))]
    disk_usage_percentage: Annotated[
        float | None, Col("Space in use", Unit.PERCENT, ("usage_percentage",))
    ]
    plugin_type: Annotated[str, Col("The same as type, by Proxmox's name")]
    content: Annotated[list[str], Col("What it may hold: images, rootdir, backup, iso …")]
    shared: Annotated[bool, Col("Whether all nodes see the same", also=("is_shared",))]
    is_available: Annotated[bool, Col("Whether it can be used now")]
    is_primary: Annotated[
        bool, Col("True on one row of each storage: sum over these to count shared ones once")
    ]
    disk_usage: Annotated[int | None, Col("Space in use", Unit.BYTES, ("used", "disk_used"))]
    disk_total: Annotated[int | None, Col("Space", Unit.BYTES, ("total", "disk_max"))]
    disk_free: Annotated[int | None, Col("Space left", Unit.BYTES, ("free", "available"))]
    pool: Annotated[str | None, Col("Resource pool; reading it takes a call per pool")] = None


@table(
    "storages",
    tool="ListStorage",
    cost=Cost.ONE,
    covered=of_storage,
    relations=(TO_NODE,),
    of_inventory=True,
    last_known=attrgetter("storages"),
    extra=("pool",),
    pushed={**NARROWED, "status": "status"},
    once="is_primary",
)
async def storages(cluster: Cluster, want: LoadRequest) -> list[Storage]:
    """Storages with their use; one that is shared has a row for each node."""
    seen = (await cluster.inventory_view()).storages
    primary = _primary(seen)
    rows = [_storage(one, (one.storage, one.node) in primary) for one in seen if _wanted(one, want)]
    return await _with_pools(cluster, rows, want) if want.column("pool") else rows


def _wanted(one: StorageResource, want: LoadRequest) -> bool:
    return want.storage(one.storage) and want.node(one.node) and want.state(one.status)


def _primary(seen: tuple[StorageResource, ...]) -> set[tuple[str, str]]:
    """One row of each storage, by storage and node: an available one where there is one."""
    found: dict[tuple[str, str], StorageResource] = {}
    for one in sorted(seen, key=lambda one: (one.status != "available", one.node)):
        found.setdefault((one.storage, "" if one.shared else one.node), one)
    return {(one.storage, one.node) for one in found.values()}


async def _with_pools(cluster: Cluster, rows: list[Storage], want: LoadRequest) -> list[Storage]:
    names = [one.pool for one in (await cluster.inventory_view()).pools]
    found = await fanout.each(cluster, names, cluster.pve.pool, want, "pool")
    # a member names one node only, yet the storage is in the pool wherever it is
    pool_of = {one.storage: name for name, pool in found.items() for one in pool.members}
    return [replace(row, pool=pool_of.get(row.storage)) for row in rows]


def _storage(one: StorageResource, primary: bool) -> Storage:
    return Storage(
        storage=one.storage,
        node=one.node,
        type=one.plugin_type,
        status=one.status,
        disk_usage_percentage=share(one.disk, one.disk_max),
        plugin_type=one.plugin_type,
        content=one.content_list,
        shared=one.shared,
        is_available=one.status == "available",
        is_primary=primary,
        disk_usage=one.disk,
        disk_total=one.disk_max,
        disk_free=_free(one),
    )


def _free(one: StorageResource) -> int | None:
    return None if one.disk is None or one.disk_max is None else one.disk_max - one.disk
