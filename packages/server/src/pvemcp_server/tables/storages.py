"""Storages, as each node sees them."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.resources import StorageResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_NODE
from pvemcp_server.tables.reach import of_storage
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Row, Unit, percent

# Types of Proxmox's storage plugins, by words that people use for them
_TYPES = {
    "rbd": "ceph", "cephfs": "ceph", "zfspool": "zfs", "zfs": "zfs", "cifs": "smb samba",
    "dir": "directory folder", "iscsidirect": "libiscsi",
}  # fmt: skip


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

    storage: Annotated[str, Col("Name", aliases=("name",))]
    node: Annotated[str, Col("Node that sees it")]
    type: Annotated[
        str, Col("Kind of storage: dir, nfs, lvmthin, zfspool, rbd, pbs …", meanings=_TYPES)
    ]
    status: Annotated[str, Col("State", values=("available", "unknown"))]
    disk_usage_percentage: Annotated[
        float | None, Col("Space in use", Unit.PERCENT, ("usage_percentage",))
    ]
    plugin_type: Annotated[str, Col("The same as type, by Proxmox's name")]
    content: Annotated[list[str], Col("What it may hold: images, rootdir, backup, iso …")]
    shared: Annotated[bool, Col("Whether all nodes see the same", aliases=("is_shared",))]
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
    from_inventory=True,
    last_known=attrgetter("storages"),
    extra=("pool",),
    pushdown={**COMMON_PUSHDOWN, "status": "status"},
    primary_field="is_primary",
)
async def storages(cluster: Cluster, request: LoadRequest) -> list[Storage]:
    """Storages with their use; one that is shared has a row for each node."""
    view = await cluster.inventory_view()
    first_rows = primary(view.storages)
    requested = (
        storage
        for storage in view.storages
        if request.wants_storage(storage.storage)
        and request.wants_node(storage.node)
        and request.wants_status(storage.status)
    )
    rows = await made(
        cluster,
        requested,
        lambda storage: [_row(storage, is_primary=(storage.storage, storage.node) in first_rows)],
    )
    if not request.wants_column("pool"):
        return rows
    names = [pool.pool for pool in view.pools]
    pools = await fanout.each(cluster, names, cluster.pve.pool, request, "pool")
    # a member names one node only, yet the storage is in the pool on all its nodes
    pool_of = {member.storage: name for name, pool in pools.items() for member in pool.members}
    return [replace(row, pool=pool_of.get(row.storage)) for row in rows]


def primary(storages: Iterable[StorageResource]) -> set[tuple[str, str]]:
    """Return the name and node of one row of each storage, an available one if possible."""
    chosen: dict[tuple[str, str], StorageResource] = {}
    for storage in sorted(storages, key=lambda s: (not s.is_available, s.node)):
        chosen.setdefault((storage.storage, "" if storage.shared else storage.node), storage)
    return {(storage.storage, storage.node) for storage in chosen.values()}


def _row(storage: StorageResource, *, is_primary: bool) -> Storage:
    used, total = storage.disk, storage.disk_max
    return Storage(
        storage=storage.storage,
        node=storage.node,
        type=storage.plugin_type,
        status=storage.status,
        disk_usage_percentage=percent(used, total),
        plugin_type=storage.plugin_type,
        content=storage.content_list,
        shared=storage.shared,
        is_available=storage.is_available,
        is_primary=is_primary,
        disk_usage=used,
        disk_total=total,
        disk_free=None if used is None or total is None else total - used,
    )
