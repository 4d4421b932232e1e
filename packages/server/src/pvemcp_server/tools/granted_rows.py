"""Tables for a tool that combines the answers of others, within what these are granted."""

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any

from pvemcp_server.access.model import Effect
from pvemcp_server.clusters import Cluster
from pvemcp_server.query.sources import view_of
from pvemcp_server.tables import LoadRequest, Table, load
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import with_budget
from pvemcp_server.toolkit.missing_privileges import explain_filtered


def granted_view(call: Call, cluster: Cluster, tools: Sequence[str], what: str) -> Cluster | None:
    """Return the cluster as far as the role grants these tools and the calling one there.

    None, with a note on `what` is missing, if it grants one of them not at all.
    """
    caller, name = call.caller, cluster.name
    scope = reduce(and_, (caller.resources(t, Effect.READ, name) for t in tools), cluster.scope)
    if scope:
        return cluster.within(scope)
    cluster.notes.add(f"No {what} of {name} here: {' and '.join(tools)} is not granted there.")
    return None


async def granted_rows(
    call: Call, cluster: Cluster, table: Table, request: LoadRequest
) -> Sequence[Any] | None:
    """Return the rows that the role grants to this tool and to those that show the table.

    None, with a note, if the role grants them not at all or the read failed.
    """
    view = view_of(call.caller, table, cluster, call.tool)
    if view is None:
        return None
    what = table.name.replace("_", " ")
    rows = await view.optional(
        load(table, view, with_budget(call, request)), f"The {what} are missing"
    )
    if rows is not None and table.looks_filtered(view.account, rows):
        await explain_filtered(view, table)
    return rows
