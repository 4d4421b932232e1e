"""Where a read is about: the clusters that have the node and the storage it names."""

from collections.abc import Iterable, Mapping, Sequence

from proxmox_client.api.resources import StorageResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.toolkit.call import Call

Storages = Mapping[tuple[str, str], str]  # (node, storage) to what Proxmox says of it


async def clusters_with(
    call: Call, cluster_name: str | None, node: str | None, storage: str | None = None
) -> list[Cluster]:
    """Those clusters where the named node and storage are; the nearest names when there is none."""
    clusters = await call.all_clusters(cluster_name)
    if node is None and storage is None:
        return clusters
    views = await call.each(clusters, _places)
    found = [c for c, places in views if any(_named(one, node, storage) for one in places)]
    if found or len(views) < len(clusters):
        for cluster, places in views:
            _refuse_unusable(cluster, places, node, storage)
        return found
    known = {one for _, places in views for one in places}
    where = cluster_name or "any cluster you reach"
    nodes = {one for one, _ in known}
    if node is not None and node not in nodes:
        raise UnknownName("node", node, nodes, where=f"on {where}")
    here = {name for at, name in known if name and node in (None, at)}
    if len(clusters) == 1:
        raise clusters[0].unknown("storage", storage, here, node=node or "")
    raise UnknownName("storage", storage, here, where=f"on {node or where}")


async def note_unsupported_content(
    clusters: Sequence[Cluster], node: str, storage: str, content: str
) -> None:
    """Note it when the named storage cannot hold what is asked for: it is empty for a reason."""
    for cluster in clusters:
        here = [one for one in (await cluster.inventory_view()).storages if one.node == node]
        for one in here:
            if one.storage == storage and content not in one.content_list:
                cluster.notes.add(" ".join(unsupported_content(one, content, here)))


def unsupported_content(
    storage: StorageResource, content: str, others: Iterable[StorageResource]
) -> tuple[str, str]:
    """That the storage does not take this content, and which do."""
    able = [one.storage for one in others if content in one.content_list]
    takes = ", ".join(storage.content_list)
    return (
        f"Storage {storage.storage} does not take {content} (it takes {takes}).",
        f"These do: {', '.join(able)}." if able else "No storage on that node does.",
    )


async def _places(cluster: Cluster) -> Storages:
    """Every node, and every storage on it, that the caller may see."""
    view = await cluster.inventory_view()
    nodes = {(one.node, ""): one.status for one in view.nodes}
    return nodes | {(one.node, one.storage): one.status for one in view.storages}


def _named(place: tuple[str, str], node: str | None, storage: str | None) -> bool:
    return node in (None, place[0]) and (storage or "") in ("", place[1])


def _refuse_unusable(
    cluster: Cluster, places: Storages, node: str | None, storage: str | None
) -> None:
    """A place that was named and cannot answer is an error, never an empty list."""
    if node is not None and (state := places.get((node, ""))) not in (None, "online"):
        raise CallError(f"Node {node} on {cluster.name} is {state}.")
    if node is None or storage is None:
        return
    if (state := places.get((node, storage))) not in (None, "available"):
        raise CallError(f"Storage {storage} is {state} on {node} of {cluster.name}.")
