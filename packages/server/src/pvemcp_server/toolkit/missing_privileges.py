"""Nothing there, or nothing to be seen? Proxmox answers both with an empty list."""

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster
from pvemcp_server.clusters.explain import pveum
from pvemcp_server.tables.registry import Table
from pvemcp_server.toolkit.needs import Extent, RequiredPrivilege, extent
from pvemcp_server.toolkit.registry import tools

_HIDES = "shows it little or nothing here"


async def note_missing_privileges(cluster: Cluster, table: Table) -> None:
    """Note the privileges that the account lacks to see rows of this table, if it has no rows.

    They are those of the tool that lists the table; Proxmox hides rows without them.
    """
    governing = tools().get(table.tool)
    if governing is not None and table.looks_filtered(cluster.account, ()):
        await note_lacks(cluster, *governing.needs)


async def note_lacks(cluster: Cluster, *wanted: RequiredPrivilege, so: str = _HIDES) -> None:
    """Note the privileges that the account has nowhere on their path or below it."""
    extents = await extents_of(cluster, *wanted)
    for need in (one for one, how_far in extents.items() if how_far is Extent.NOWHERE):
        privilege = need.privileges[0]
        lacks = f"{cluster.account} lacks {privilege} on {need.path} of {cluster.name}"
        fix = pveum(cluster.account, need.path, privilege)
        cluster.notes.add(f"{lacks}, so Proxmox {so}: run `{fix}`.")


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
