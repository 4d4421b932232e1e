"""Nothing there, or nothing to be seen? Proxmox answers both with an empty list."""

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster
from pvemcp_server.clusters.explain import pveum
from pvemcp_server.tables.registry import Table

# What an account needs to see rows of a table, and the top of the paths where it may have it.
NEEDED: dict[str, tuple[str, str]] = {
    "guests": ("VM.Audit", "/vms"),
    "snapshots": ("VM.Audit", "/vms"),
    "replications": ("VM.Audit", "/vms"),
    "storages": ("Datastore.Audit", "/storage"),
    "storage_content": ("Datastore.Audit", "/storage"),
    "backups": ("VM.Backup", "/vms"),
    "pools": ("Pool.Audit", "/pool"),
    "tasks": ("Sys.Audit", "/nodes"),
    "nodes": ("Sys.Audit", "/nodes"),
}


async def say_why_empty(cluster: Cluster, table: Table) -> None:
    """Note it when the account lacks the privilege that would show rows of this table."""
    if table.name in NEEDED:
        await note_lack(cluster, *NEEDED[table.name])


async def note_lack(cluster: Cluster, privilege: str, top: str) -> None:
    """Note it when the account has the privilege nowhere on the path or below it."""
    try:
        held = await cluster.pve.access.permissions()
    except ProxmoxError:
        return  # then nobody knows, and the empty list stands for itself
    if any(privilege in privileges and _reaches(path, top) for path, privileges in held.items()):
        return
    cluster.notes.add(
        f"{cluster.account} lacks {privilege} on {top} of {cluster.name}, so Proxmox shows it "
        f"nothing here: run `{pveum(cluster.account, top, privilege)}`."
    )


def _reaches(path: str, top: str) -> bool:
    return path in ("/", top) or path.startswith((f"{top}/", "/pool/"))
