"""Clusters of a read that names a node or a storage."""

from collections.abc import Iterable, Sequence

from proxmox_client.api.resources import StorageResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import UnknownName
from pvemcp_server.toolkit.call import Call

Places = Iterable[tuple[str, str]]
"""Each (node, storage), and each node as (node, "")."""


async def clusters_with(
    call: Call, cluster_name: str | None, node: str | None, storage: str | None = None
) -> list[Cluster]:
    """Return the clusters that have the named node and storage, as far as the caller sees them.

    Raise UnknownName with suggestions when none has, and Precondition for a node that is offline: a
    named place that cannot answer is an error, never an empty list.
    """
    clusters = await call.all_clusters(cluster_name)
    if node is None and storage is None:
        return clusters
    views = await call.each(clusters, _places)
    matching = [
        cluster
        for cluster, places in views
        if any(node in (None, n) and storage in (None, s) for n, s in places)
    ]
    if matching or len(views) < len(clusters):  # a cluster that is silent may have the place
        for cluster in matching:
            if node is not None:
                await cluster.require_not_offline(node)
        return matching
    known = {place for _, places in views for place in places}
    where = cluster_name or "any cluster you reach"
    nodes = {n for n, _ in known}
    if node is not None and node not in nodes:
        raise UnknownName("node", node, nodes, where=f"on {where}")
    storages = {s for n, s in known if s and node in (None, n)}
    if len(clusters) == 1:
        raise clusters[0].unknown("storage", storage, storages, node=node or "")
    raise UnknownName("storage", storage, storages, where=f"on {node or where}")


async def note_unsupported_content(
    clusters: Sequence[Cluster], node: str, storage: str, content: str
) -> None:
    """Add a note if the storage does not accept this content: that is why the list is empty."""
    for cluster in clusters:
        on_node = [row for row in (await cluster.inventory_view()).storages if row.node == node]
        for row in on_node:
            if row.storage == storage and content not in row.content_list:
                cluster.notes.add(" ".join(unsupported_content(row, content, on_node)))


def unsupported_content(
    storage: StorageResource, content: str, candidates: Iterable[StorageResource]
) -> tuple[str, str]:
    """Return a message that the storage does not accept this content, and a hint which do."""
    names = [row.storage for row in candidates if content in row.content_list]
    takes = ", ".join(storage.content_list)
    return (
        f"Storage {storage.storage} does not take {content} (it takes {takes}).",
        f"These do: {', '.join(names)}." if names else "No storage on that node does.",
    )


async def _places(cluster: Cluster) -> Places:
    """Return every node, and every storage on it, that the caller may see."""
    view = await cluster.inventory_view()
    return {(node, "") for node in view.by_node} | {(s.node, s.storage) for s in view.storages}
