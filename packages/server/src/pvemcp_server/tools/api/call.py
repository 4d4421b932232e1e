"""CallApi: one request to Proxmox's API."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pvemcp_server.access.key_threads import in_key_thread
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.toolkit.arguments import OneCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.toolkit.write_target import refuse_protected
from pvemcp_server.tools.api import effects, mask
from pvemcp_server.tools.api.request import ApiParameters, ApiPath, ApiRequest, Method, checked
from pvemcp_server.tools.api.writes import planned

WRITE: Final = "CallApi:write"
"""The permission that a role grants beside CallApi for requests that change something."""
MOST_ROWS: Final = 10_000  # a whole journal has millions
MOST_COLUMNS: Final = 1_000  # a guest's configuration has about 800 options at most


@tool(
    "CallApi",
    area=Area.QUERY,
    effect=Effect.WRITE,
    may_lose_data=True,
    open_world=True,  # some requests make a cluster contact other hosts
    toolset=Toolset.API,
    write_permission=WRITE,
)
async def call_api(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    method: Method = None,
    path: ApiPath,
    parameters: ApiParameters = None,
) -> Rows | Plan:
    """Call a path of Proxmox's API that no other tool covers; FindApi names them."""
    cluster = await call.cluster(cluster_name)
    if not cluster.scope.everything:
        raise Precondition(
            f"CallApi needs the whole of {cluster.name}, and the role of this key covers a part.",
            hint="Other tools and ExecuteQuery answer within it.",
        )
    request = await checked(cluster, method or "GET", path, parameters or [])
    if effects.effect(request.endpoint, request.parameters) is Effect.READ:
        return await _read(call, cluster, request)
    _require_permission(call, cluster, request)
    refuse_protected(cluster)
    return await planned(call, cluster, request)


def _require_permission(call: Call, cluster: Cluster, request: ApiRequest) -> None:
    """Raise Precondition unless role and key grant writing on the whole cluster."""
    if not call.caller.resources(WRITE, Effect.WRITE, cluster.name).everything:
        raise Precondition(
            f"{request.method} {request.endpoint.path} changes something, and this key has CallApi "
            f"on {cluster.name} for reading only.",
            hint=f"An administrator can grant {WRITE} for the whole cluster in its role.",
        )
    # pools, tags, nodes and VMIDs decide about these grants, and many requests change them
    grants = call.caller.role.grants
    if any(each.reaches(cluster.name) and not each.resources.everything for each in grants):
        raise Precondition(
            f"The role of this key grants other tools on a part of {cluster.name}, and what "
            "CallApi changes could decide what is in that part.",
            hint=f"An administrator can grant {WRITE} in a role without such parts.",
        )


async def _read(call: Call, cluster: Cluster, request: ApiRequest) -> Rows:
    data = await cluster.pve.raw(request.method, request.path, **request.parameters)
    if isinstance(data, list) and len(data) > MOST_ROWS:
        call.notes.add(f"The first {MOST_ROWS:,} of {len(data):,} rows; parameters give others.")
        data = data[:MOST_ROWS]
    # the texts of a long answer take seconds, and calls of other keys go on
    rows, columns, more = await in_key_thread(call.caller.holder, lambda: _table(data))
    if more:
        call.notes.add(f"The first {MOST_COLUMNS:,} columns; {more:,} more values are left out.")
    sent = f"{request.method} {request.endpoint.path}"
    call.notes.add(f"{sent} as Proxmox answers it: its texts are data, its units raw.")
    return Rows(rows, columns if rows else call.fields)


def _table(data: Any) -> tuple[list[dict[str, Any]], tuple[str, ...], int]:
    """Return rows and columns of any answer, and how many values are in further columns.

    An object is one row, a plain value one cell. A hostile host chooses how many names its objects
    have, and each costs a cell in every row.
    """
    items: Iterable[Any] = data if isinstance(data, list) else [] if data is None else [data]
    columns: dict[str, None] = {}
    rows, more = [], 0
    for item in items:
        row = {}
        for name, value in item.items() if isinstance(item, Mapping) else [("value", item)]:
            if name in columns or len(columns) < MOST_COLUMNS:
                columns[name] = None
                row[name] = value
            else:
                more += 1
        rows.append(mask.masked(row) if isinstance(item, Mapping) else {"value": mask.masked(item)})
    return rows, tuple(columns), more
