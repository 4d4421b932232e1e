"""The clusters and tables of a query, as far as its caller reaches them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import reduce
from operator import and_

from pvemcp_server.access.model import Caller, Effect, Resources
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.errors import BadArgument
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.store.records import ClusterKind
from pvemcp_server.tables.registry import EVERY_KIND, Table, tables

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


def catalog_of(
    caller: Caller, clusters: Iterable[str], kinds: AbstractSet[ClusterKind] = EVERY_KIND
) -> Catalog:
    """Return the tables of these kinds that the caller may read on any of the clusters, sorted."""
    names = list(clusters)
    return Catalog(
        {
            name: table
            for name, table in sorted(tables().items())
            if table.kinds & kinds and any(reach(caller, table, cluster) for cluster in names)
        }
    )


def granted_catalog(caller: Caller, kinds: Mapping[str, ClusterKind]) -> Catalog:
    """Return the tables that the caller may query on these clusters, each with its kind."""
    granted = {n: k for n, k in kinds.items() if caller.resources(TOOL, Effect.READ, n)}
    return catalog_of(caller, granted, frozenset(granted.values()))


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

    def of_kind(self, table: Table) -> list[Cluster]:
        """Return the clusters of the kinds that have rows of this table."""
        return [cluster for cluster in self.clusters if cluster.kind in table.kinds]

    def require_kind(self, table: Table) -> None:
        """Raise BadArgument if no cluster is of a kind that has rows of this table."""
        if self.clusters and not self.of_kind(table):
            needed = " or ".join(sorted(kind.product for kind in table.kinds))
            present = ", ".join(f"{c.name} is {c.kind.product}" for c in self.clusters)
            raise BadArgument("from", f"{table.name} are rows of {needed}, but {present}.")

    def readable(self, table: Table) -> list[Cluster]:
        """Return the clusters on which the caller may read the table."""
        return [each for each in self.of_kind(table) if reach(self.caller, table, each.name)]

    def views(self, table: Table) -> dict[str, Cluster]:
        """Return the clusters where the caller may read the table, narrowed to their rights.

        Clusters of other kinds have no such rows, so they are left out without a note.
        """
        of_kind = self.of_kind(table)
        if self.clusters and not of_kind:
            products = " or ".join(sorted(kind.product for kind in table.kinds))
            self.notes.add(f"No {table.name} here: they are rows of {products}, which is not read.")
        views = {each.name: view_of(self.caller, table, each) for each in of_kind}
        return {name: view for name, view in views.items() if view is not None}
