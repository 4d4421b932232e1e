"""Cluster lookup: the cluster of a named guest, node or storage if no `cluster_name` is given."""

from collections.abc import Collection, Iterable, Iterator

from proxmox_client.properties import whole_number
from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.toolkit.call import Call

Places = Iterable[tuple[str, str]]
"""Each (node, storage), and each node as (node, "")."""


async def cluster_with(
    call: Call,
    cluster_name: str | None,
    *,
    vmids: Collection[int] = (),
    nodes: Collection[str] = (),
) -> Cluster:
    """Return the named cluster; without a name, the only one that has any of these guests or nodes.

    Raise BadArgument, with what each cluster has of that name, if several have it or if one that
    does not answer may have it too; raise UnknownName if none has it. A guest or node that the
    returned cluster lacks is an error of its own.
    """
    if cluster_name is not None or not (vmids or nodes) or len(await call.reachable()) < 2:
        return await call.cluster(cluster_name)
    views, silent = await call.inventory_views()
    descriptions = {name: list(_describe(view, vmids, nodes)) for name, view in views.items()}
    matching = {name: ", ".join(texts) for name, texts in descriptions.items() if texts}
    if len(matching) == 1 and not silent:
        for name in (name for name in views if name not in matching):
            if vmids and views[name].may_lack_guests:
                call.notes.add(f"{name} may have it too: a row of its inventory is malformed.")
        return await call.cluster(*matching)
    if not matching and not silent:
        raise _unknown(views.values(), vmids, nodes)
    facts = [f"{name} has {texts}" for name, texts in matching.items()]
    facts += [f"{name} does not answer" for name in silent]
    raise BadArgument("cluster_name", f"say which cluster; {'; '.join(facts)}.")


async def guest_named(call: Call, cluster_name: str | None, name: str) -> tuple[str | None, int]:
    """Return cluster and VMID of a guest by its VMID or its name, which has to be unique.

    Raise UnknownName for a name that no visible guest has, BadArgument for one of several.
    """
    if (vmid := whole_number(name)) is not None:
        return cluster_name, vmid
    if cluster_name is not None or len(await call.reachable()) == 1:
        cluster = await call.cluster(cluster_name)
        views = {cluster.name: await cluster.inventory_view()}
        silent: list[str] = []
    else:
        views, silent = await call.inventory_views()
    everyone = [(place, guest) for place, view in views.items() for guest in view.guests]
    found = [(place, guest) for place, guest in everyone if guest.name == name]
    if len(found) == 1 and not silent:
        return found[0][0], found[0][1].vmid
    if found or silent:
        facts = [f"{place} has {guest.vmid} ({guest.type})" for place, guest in found]
        facts += [f"{place} does not answer" for place in silent]
        raise BadArgument("source", f"{name!r} is not unique; {'; '.join(facts)}. Give its VMID.")
    where = f"on {cluster_name}" if cluster_name else "on any cluster you reach"
    where += max((view.doubt for view in views.values()), default="")
    raise UnknownName("guest", name, {guest.name for _, guest in everyone}, where=where)


def _describe(view: InventoryView, vmids: Collection[int], nodes: Collection[str]) -> Iterator[str]:
    """Yield what a cluster has of these names, in words that distinguish equal names."""
    for guest in (view.by_vmid[vmid] for vmid in vmids if vmid in view.by_vmid):
        name = f" {guest.name}" if guest.name else ""
        yield f"{guest.vmid} ({guest.type}{name} on {guest.node or 'a node'}, {guest.status})"
    for name in nodes:
        if name in view.by_node:
            yield f"{name} ({view.by_node[name].status})"
        elif name in _node_names(view):
            yield name


def _node_names(view: InventoryView) -> set[str]:
    """Return the names of all nodes, also of those that only guests or storages name."""
    guests, storages = (row.node for row in view.guests), (row.node for row in view.storages)
    return {*view.by_node, *guests, *storages}


def _unknown(
    views: Collection[InventoryView], vmids: Collection[int], nodes: Collection[str]
) -> UnknownName:
    """Build the error for a guest or node that no cluster has, with the nearest ones."""
    where = "on any cluster you reach" + max((view.doubt for view in views), default="")
    for vmid in vmids:
        known = {known for view in views for known in view.by_vmid}
        near = sorted(known, key=lambda other: abs(other - vmid))[:5]
        return UnknownName("guest", vmid, near, where=where, more=len(known) - len(near))
    known_nodes = {name for view in views for name in _node_names(view)}
    return UnknownName("node", next(iter(nodes)), known_nodes, where=where)


async def clusters_with(
    call: Call,
    cluster_name: str | None,
    node: str | None,
    storage: str | None = None,
    *,
    may_be_offline: bool = False,
) -> list[Cluster]:
    """Return the clusters that have the named node and storage, as far as the caller sees them.

    Raise UnknownName with suggestions when none has, and Precondition for a node that is offline
    unless others know about it too: a named place that cannot answer is an error, never an empty
    list.
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
            if node is not None and not may_be_offline:
                await cluster.require_not_offline(node)
        return matching
    known = {place for _, places in views for place in places}
    where = cluster_name or "any cluster you reach"
    where += max([(await cluster.inventory_view()).doubt for cluster in clusters])
    nodes = {n for n, _ in known}
    if node is not None and node not in nodes:
        raise UnknownName("node", node, nodes, where=f"on {where}")
    storages = {s for n, s in known if s and node in (None, n)}
    if len(clusters) == 1:
        raise clusters[0].unknown("storage", storage, storages, node=node or "")
    raise UnknownName("storage", storage, storages, where=f"on {node or where}")


async def _places(cluster: Cluster) -> Places:
    """Return every node, and every storage on it, that the caller may see."""
    view = await cluster.inventory_view()
    return {(node, "") for node in view.by_node} | {(s.node, s.storage) for s in view.storages}
