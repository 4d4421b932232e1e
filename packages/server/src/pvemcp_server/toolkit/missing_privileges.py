"""Notes on missing privileges, for lists that Proxmox filters without saying so.

Proxmox answers with an empty list both when there is nothing and when the account may see nothing.
"""

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.registry import Table
from pvemcp_server.toolkit.needs import Extent, RequiredPrivilege, extent
from pvemcp_server.toolkit.registry import tools

_HIDES = "shows it little or nothing here"


async def explain_filtered(cluster: Cluster, table: Table) -> None:
    """Note the privileges that the account lacks to see the table's rows.

    They are those of the tool that governs the table. Nothing is noted for tables that Proxmox
    refuses to list without them, since that is an error anyway.
    """
    governing = tools().get(table.tool)
    if governing is not None and table.looks_filtered(cluster.account, ()):
        await note_missing_privileges(cluster, *governing.needs)


async def note_missing_privileges(
    cluster: Cluster, *required: RequiredPrivilege, so: str = _HIDES
) -> None:
    """Note each privilege that the account has nowhere on its path or below; `so` is the effect."""
    for need, how_far in (await extents_of(cluster, *required)).items():
        if how_far is Extent.NOWHERE:
            privilege = need.privileges[0]
            lacks = f"{cluster.account} lacks {privilege} on {need.path} of {cluster.name}"
            advice = await cluster.acl.advice(need.path, [privilege])
            cluster.notes.add(advice.after(f"{lacks}, so Proxmox {so}"))


async def extents_of(
    cluster: Cluster, *required: RequiredPrivilege
) -> dict[RequiredPrivilege, Extent]:
    """Return how far the account has each privilege; empty if Proxmox does not answer that."""
    if not required:
        return {}
    try:
        held = await cluster.pve.access.permissions()
    except ProxmoxError:
        return {}  # the answer stands without the note
    return {need: extent(need, held, major=9)[0] for need in required}
