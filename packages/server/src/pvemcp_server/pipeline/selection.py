"""The guests that a query selects for a write on many: resolved before the write is planned."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from pvemcp_server.access.model import Effect
from pvemcp_server.clusters import Notes
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.query.execute import QueryResult, execute
from pvemcp_server.query.sources import TOOL, Sources
from pvemcp_server.tables.registry import Budget, Shares
from pvemcp_server.toolkit.arguments import MOST_GUESTS
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.write_target import writable_cluster

_SHARE: Final = 0.5  # of the call's time: the rest is for the plans
_FEW: Final = 3  # notes in an error


async def with_selected(
    call: Call, arguments: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the arguments with `vmids` in place of `query`, and what the query's notes say.

    Consent and approval are thus for the guests and not for the query: a call that is repeated
    when other rows match asks again. What the caller may not query selects nothing.
    """
    others = dict(arguments)
    query, vmids = others.pop("query"), others["vmids"]
    if query is None:
        if vmids is None:
            raise BadArgument("vmids", "this argument or query is required.")
        return others, ()
    if vmids is not None:
        raise BadArgument("query", "give it or vmids, not both.")
    own = replace(call, notes=Notes())
    cluster = await writable_cluster(own, others["cluster_name"])
    if not call.caller.resources(TOOL, Effect.READ, cluster.name):
        raise Precondition(f"{TOOL} is not granted on {cluster.name}.", hint="Give vmids.")
    cluster.read_again()  # no cached rows: the answer to a question may have taken a while
    budget = Budget(until=monotonic() + call.seconds_left * _SHARE, shares=Shares())
    sources = Sources(call.caller, [cluster])
    result = await execute(query, sources, budget, datetime.now(UTC), call.settings.row_cap)
    others |= {"vmids": _vmids(result, list(own.notes)), "cluster_name": cluster.name}
    return others, tuple(own.notes)


def _vmids(result: QueryResult, notes: list[str]) -> list[int]:
    """Return the VMIDs in the rows; raise BadArgument if there are none or too many."""
    if "vmid" not in result.columns:
        columns = ", ".join(result.columns)
        raise BadArgument("query", f"its rows have {columns}: they need the column vmid.")
    vmids = {row["vmid"] for row in result.rows} - {None}
    if not vmids:
        raise BadArgument("query", " ".join(["it selects no guest.", *notes[:_FEW]]))
    if any(not isinstance(vmid, int) for vmid in vmids):
        raise BadArgument("query", "its column vmid has other values than VMIDs.")
    if result.next_offset is not None:
        raise BadArgument("query", f"it has more than {len(result.rows):,} rows. Narrow it.")
    if len(vmids) > MOST_GUESTS:
        raise BadArgument(
            "query", f"it selects {len(vmids)} guests, and one call takes {MOST_GUESTS}. Narrow it."
        )
    return sorted(vmids)
