"""Nothing there, or nothing to be seen? Proxmox answers both with an empty list."""

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster
from pvemcp_server.clusters.explain import pveum
from pvemcp_server.tables.registry import Table
from pvemcp_server.tools import needs
from pvemcp_server.tools.needs import Extent, Need, extent

_OF_TABLE = {
    "nodes": needs.NODES,
    "guests": needs.GUESTS,
    "snapshots": needs.GUESTS,
    "replications": needs.GUESTS,
    "storages": needs.STORAGES,
    "storage_content": needs.STORAGES,
    "backups": needs.BACKUP,
    "pools": needs.POOLS,
    "tasks": needs.NODES,
}


async def say_why_empty(cluster: Cluster, table: Table) -> None:
    """Note it when the account lacks the privilege that would show rows of this table."""
    if table.name in _OF_TABLE:
        await note_lack(cluster, _OF_TABLE[table.name])


async def note_lack(cluster: Cluster, need: Need) -> None:
    """Note it when the account has the privilege nowhere on the path or below it."""
    try:
        held = await cluster.pve.access.permissions()
    except ProxmoxError:
        return  # then nobody knows, and the empty list stands for itself
    if extent(need, held, major=9)[0] is not Extent.NOWHERE:
        return
    privilege = need.privileges[0]
    cluster.notes.add(
        f"{cluster.account} lacks {privilege} on {need.path} of {cluster.name}, so Proxmox shows "
        f"it little or nothing here: run `{pveum(cluster.account, need.path, privilege)}`."
    )
