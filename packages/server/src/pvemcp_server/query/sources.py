"""Where a query's rows come from: every cluster and table, as far as this caller reaches them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pvemcp_server.access.model import Caller, Effect, Resources
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.query.catalog import Catalog
from pvemcp_server.tables.registry import Table, tables

TOOL = "ExecuteQuery"


def reach(caller: Caller, table: Table, cluster: str) -> Resources:
    """What of a cluster the caller reads in that table.

    The query must be granted there, and so must the tool that would show the table; a row has to
    be covered by both.
    """
    query = caller.resources(TOOL, Effect.READ, cluster)
    return query & caller.resources(table.tool, Effect.READ, cluster)


def catalog_of(caller: Caller, clusters: Sequence[str]) -> Catalog:
    """The tables that the caller may read on any of these clusters, in order of their names."""
    known = sorted(tables().items())
    return Catalog(
        {
            name: table
            for name, table in known
            if any(reach(caller, table, cluster) for cluster in clusters)
        }
    )


async def _say_nothing(_cluster: Cluster, _table: Table) -> None:
    """None is an answer too."""


@dataclass(frozen=True)
class Sources:
    """The clusters a query asks; `say_why_empty` is for one that has no rows of a table."""

    caller: Caller
    clusters: Sequence[Cluster]
    say_why_empty: Callable[[Cluster, Table], Awaitable[None]] = _say_nothing

    @property
    def catalog(self) -> Catalog:
        return catalog_of(self.caller, [one.name for one in self.clusters])

    @property
    def notes(self) -> Notes:
        """What the answer says beside its rows: all clusters of a call add to the same."""
        return self.clusters[0].notes if self.clusters else Notes()

    def views(self, table: Table) -> dict[str, Cluster]:
        """The clusters where the caller may read the table, each narrowed to what they may see."""
        found: dict[str, Cluster] = {}
        for cluster in self.clusters:
            if scope := reach(self.caller, table, cluster.name):
                found[cluster.name] = cluster.within(scope)
            else:
                cluster.notes.add(
                    f"No {table.name} of {cluster.name} here: {table.tool} is not granted there."
                )
        return found
