"""Lookup of a backup that a caller names by its volume ID, or by the guest that it is of."""

from typing import Annotated

from pydantic import Field

from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.tables import Backup, LoadRequest, backups
from pvemcp_server.tables.registry import load
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import NewestFirst, with_budget

NamedBackup = Annotated[
    str, Field(max_length=500, description="Its volid, or a VMID for its newest backup")
]
_FEW = 5  # backups that an error names


async def backup_named(
    call: Call, cluster_name: str | None, name: str, node: str | None = None
) -> tuple[Cluster, Backup]:
    """Return the cluster and the backup, which the caller may see by its guest or its storage.

    For a VMID, also of a guest that is deleted, it is the newest one. A volume ID that several
    nodes have, each on a local storage, needs the `node`. Raise UnknownName, or BadArgument with
    what there is if several clusters have it.
    """
    clusters = await _clusters(call, cluster_name, name)
    request = with_budget(call, _request(name), shared_by=clusters)

    async def read(cluster: Cluster) -> list[Backup]:
        rows = await load(backups, cluster, request)
        return sorted(rows, key=NewestFirst("creation"))

    answers = await call.each(clusters, read, request.budget.shares)
    if cluster_name is None and len(answers) < len(clusters):
        raise BadArgument("cluster_name", "say which cluster; not all of them answer.")
    matching = {
        cluster.name: (cluster, some)
        for cluster, rows in answers
        if (some := [row for row in rows if name in (row.volid, str(row.vmid))])
    }
    if not matching:
        known = [row.volid for _, rows in answers for row in rows]
        where = f"on {cluster_name}" if cluster_name else "on any cluster you reach"
        vmid = whole_number(name)
        kind, what = ("backup", name) if vmid is None else ("backup of guest", vmid)
        raise UnknownName(kind, what, known[:_FEW], where=where, more=len(known[_FEW:]))
    if len(matching) > 1:
        facts = "; ".join(f"{place} has {some[0].volid}" for place, (_, some) in matching.items())
        raise BadArgument("cluster_name", f"say which cluster; {facts}.")
    [(cluster, some)] = matching.values()
    newest = [row for row in some if row.volid == some[0].volid]
    if len(newest) > 1 and node in {row.node for row in newest}:
        newest = [row for row in newest if row.node == node]
    if len(newest) > 1:
        nodes = ", ".join(sorted(row.node for row in newest))
        raise BadArgument("node", f"say which node's; {some[0].volid} is on {nodes}.")
    return cluster, newest[0]


async def _clusters(call: Call, cluster_name: str | None, name: str) -> list[Cluster]:
    """Return the clusters to ask: without a name, those that have the guest or the storage.

    All of them if none has it: the guest may be deleted, and the storage hidden.
    """
    if cluster_name is not None or len(await call.reachable()) < 2:
        return await call.all_clusters(cluster_name)
    storage = name.partition(":")[0]
    views, silent = await call.inventory_views()
    having = [
        place
        for place, view in views.items()
        if any(name == str(vmid) for vmid in view.by_vmid)
        or any(row.storage == storage for row in view.storages)
    ]
    if not having or silent:
        return await call.all_clusters(None)
    return [await call.cluster(place) for place in having]


def _request(name: str) -> LoadRequest:
    storage, colon, _ = name.partition(":")
    if colon:
        return LoadRequest(storages=frozenset({storage}))
    if (vmid := whole_number(name)) is None:
        raise BadArgument(
            "backup", f"{name!r} is neither a volume id nor a VMID.", hint="ListBackups shows both."
        )
    return LoadRequest(vmids=frozenset({vmid}))
