"""Nothing there, or nothing to be seen? Proxmox answers both with an empty list."""

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.registry import Table
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.needs import Extent, RequiredPrivilege, extent

_OF_TABLE = {
    "nodes": (needs.NODES,),
    "guests": (needs.GUESTS,),
    "snapshots": (needs.GUESTS,),
    "replications": (needs.GUESTS,),
    "storages": (needs.STORAGES,),
    "storage_content": (needs.STORAGES,),
    "backups": (needs.STORAGES, needs.BACKUPS_OF_GUESTS, needs.BACKUPS_ON_STORAGES),
    "pools": (needs.POOLS,),
    "tasks": (needs.NODES,),
}

_HIDES = "shows it little or nothing here"


async def say_why_empty(cluster: Cluster, table: Table) -> None:
    """Note it when the account lacks a privilege that would show rows of this table."""
    await note_lacks(cluster, *_OF_TABLE.get(table.name, ()))


async def note_lacks(cluster: Cluster, *wanted: RequiredPrivilege, so: str = _HIDES) -> None:
    """Note the privileges that the account has nowhere on their path or below it."""
    extents = await extents_of(cluster, *wanted)
    for need in (one for one, how_far in extents.items() if how_far is Extent.NOWHERE):
        privilege = need.privileges[0]
        lacks = f"{cluster.account} lacks {privilege} on {need.path} of {cluster.name}"
        advice = await cluster.acl.advice(need.path, [privilege])
        cluster.notes.add(advice.after(f"{lacks}, so Proxmox {so}"))


async def extents_of(
    cluster: Cluster, *wanted: RequiredPrivilege
) -> dict[RequiredPrivilege, Extent]:
    """How far the account has each of these privileges; nothing when nobody knows."""
    if not wanted:
        return {}
    try:
        held = await cluster.pve.access.permissions()
    except ProxmoxError:
        return {}  # what was answered stands for itself
    return {need: extent(need, held, major=9)[0] for need in wanted}
