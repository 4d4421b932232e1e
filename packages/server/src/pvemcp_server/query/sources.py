"""The clusters and tables of a query, as far as its caller reaches them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

from pvemcp_server.access.model import Caller, Effect, Resources
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.tables.registry import Table, tables

TOOL = "ExecuteQuery"


def reach(caller: Caller, table: Table, cluster: str, through: str = TOOL) -> Resources:
    """Return the resources of a cluster that the caller reads in the table through a tool.

    That tool and those that show the table must be granted there, and all must cover a row.
    """
    scopes = (caller.resources(tool, Effect.READ, cluster) for tool in (through, *table.tools))
    return reduce(and_, scopes)


def view_of(caller: Caller, table: Table, cluster: Cluster, through: str = TOOL) -> Cluster | None:
    """Return the cluster, narrowed to what the caller reads in the table through a tool.

    If that is nothing, a note names the tools that are not granted.
    """
    if scope := reach(caller, table, cluster.name, through):
        return cluster.within(scope)
    tools = " and ".join(table.tools)
    granted = "is not granted" if len(table.tools) == 1 else "are not both granted"
    cluster.notes.add(f"No {table.name} of {cluster.name} here: {tools} {granted} there.")
    return None


def catalog_of(caller: Caller, clusters: Sequence[str]) -> Catalog:
    """Return the tables that the caller may read on any of these clusters, sorted by name."""
    return Catalog(
        {
            name: table
            for name, table in sorted(tables().items())
            if any(reach(caller, table, cluster) for cluster in clusters)
        }
    )


async def _no_note(_cluster: Cluster, _table: Table) -> None:
    """Accept an empty table without a note."""


@dataclass(frozen=True)
class Sources:
    """The clusters of a query. `note_why_empty` is called for one without rows of a table."""

    caller: Caller
    clusters: Sequence[Cluster]
    note_why_empty: Callable[[Cluster, Table], Awaitable[None]] = _no_note

    @property
    def catalog(self) -> Catalog:
        return catalog_of(self.caller, [cluster.name for cluster in self.clusters])

    @property
    def notes(self) -> Notes:
        """The notes of the call: all its clusters share them."""
        return self.clusters[0].notes if self.clusters else Notes()

    def views(self, table: Table) -> dict[str, Cluster]:
        """Return the clusters where the caller may read the table, narrowed to their rights."""
        views = {c.name: view_of(self.caller, table, c) for c in self.clusters}
        return {name: view for name, view in views.items() if view is not None}
