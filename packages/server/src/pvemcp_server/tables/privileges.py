"""Notes on privileges without which Proxmox leaves rows out of a list."""

from proxmox_client import ProxmoxError
from pvemcp_server.clusters import Cluster


async def note_filtered(cluster: Cluster, path: str, *privileges: str, what: str) -> None:
    """Note that Proxmox lists a part only, unless the account has one of these privileges there.

    The first one is the one to grant. Nothing is noted if Proxmox does not answer.
    """
    try:
        held = await cluster.pve.access.permissions(path)
    except ProxmoxError:
        return
    if held.get(path, {}).keys().isdisjoint(privileges):
        fact = f"{cluster.account} lacks {privileges[0]} on {path} of {cluster.name}"
        advice = await cluster.acl.advice(path, privileges[:1])
        cluster.notes.add(advice.after(f"{fact}, so Proxmox lists {what}"), advice=True)
