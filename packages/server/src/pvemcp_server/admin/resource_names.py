"""Names of pools, tags, guests, nodes and storages on the clusters: suggestions, and a check.

A grant may name what does not exist yet, so a name without a match is reported and not refused.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

from pvemcp_server.access.model import ANY, RESOURCE_KINDS, Grant
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.clusters import InventoryView, outcome_of
from pvemcp_server.errors import MOST_WRONG, UnknownName

READ_SECONDS: Final = 5  # for all clusters, which are asked at once
Names = Mapping[str, frozenset[str]]
"""The names of one cluster by kind of resource; VMIDs are texts."""

_NOUNS: Final = {
    "pools": "pool",
    "tags": "tag",
    "vmids": "VMID",
    "nodes": "node",
    "storages": "storage",
    "target_nodes": "node",
    "target_storages": "storage",
}


async def names_by_cluster(context: AdminContext) -> dict[str, Names | None]:
    """Return the names of each cluster as its default identity sees them.

    None stands for a cluster that does not answer within READ_SECONDS.
    """

    async def read(name: str) -> InventoryView:
        async with asyncio.timeout(READ_SECONDS):
            connection = await context.services.clusters.connection(name)
            return await connection.inventory.view()

    clusters = [record.name for record in await context.services.access.clusters.all()]
    views = await asyncio.gather(*(outcome_of(read(name), f"cluster {name}") for name in clusters))
    return {
        name: None if isinstance(view, Exception) else _names(view)
        for name, view in zip(clusters, views, strict=True)
    }


def all_names(names: Iterable[Names | None]) -> Names:
    """Return the names of all clusters that answered together."""
    known = [each for each in names if each is not None]
    return {kind: frozenset().union(*(each[kind] for each in known)) for kind in RESOURCE_KINDS}


def unmatched(grants: Sequence[Grant], names: Mapping[str, Names | None]) -> list[str]:
    """Return a sentence for each name that nothing on the grant's clusters has.

    A grant that reaches a cluster without an answer is not checked: the name may be there.
    """
    wrong: list[str] = []
    for grant in grants:
        reached = {name: each for name, each in names.items() if grant.reaches(name)}
        if not reached or None in reached.values():
            continue
        where = f"on {', '.join(reached)}"
        known = all_names(reached.values())
        for kind in RESOURCE_KINDS:
            named = {str(name) for name in getattr(grant.resources, kind)} - {ANY} - known[kind]
            wrong += [
                str(UnknownName(_NOUNS[kind], name, known[kind], where=where))
                for name in sorted(named)
            ]
    return wrong[:MOST_WRONG]


def unread(grants: Sequence[Grant], names: Mapping[str, Names | None]) -> list[str]:
    """Return the clusters without an answer that a grant with named resources reaches."""
    naming = [grant for grant in grants if not grant.resources.everything]
    silent = (name for name, each in names.items() if each is None)
    return [name for name in silent if any(grant.reaches(name) for grant in naming)]


def _names(view: InventoryView) -> Names:
    nodes = frozenset(node.node for node in view.nodes)
    storages = {storage.storage for storage in view.storages}
    storages |= {usage.store for usage in view.datastores}
    return {
        "pools": frozenset(pool for each in view.pools for pool in _with_above(each.pool)),
        "tags": frozenset(tag for guest in view.guests for tag in guest.tag_list),
        "vmids": frozenset(str(guest.vmid) for guest in view.guests),
        "nodes": nodes,
        "storages": frozenset(storages),
        "target_nodes": nodes,
        "target_storages": frozenset(storages),
    }


def _with_above(pool: str) -> Iterable[str]:
    """Return the pool and those above it, which cover it: prod and prod/web."""
    return accumulate(pool.split("/"), "{}/{}".format)
