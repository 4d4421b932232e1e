"""Lists of storages."""

from operator import attrgetter
from typing import Annotated

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import Storage, storages
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NO_FILTER, ClusterName, DetailLevel
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import listed
from pvemcp_server.toolkit.registry import Rows, tool

StorageType = Annotated[
    str | None, NO_FILTER, Field(max_length=50, description="dir, nfs, lvmthin, pbs …")
]


@tool(
    "ListStorage",
    title="List storages",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=Storage,
    needs=(needs.STORAGES,),
)
async def list_storage(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    type: StorageType = None,  # noqa: A002 - the published name
    detail_level: DetailLevel = "Minimal",
) -> Rows:
    """List storages per node with their use; Full adds content and sizes."""
    types = storages.fields["type"].values_for(type.casefold()) if type else ()
    rows = await listed(
        call,
        storages,
        cluster_name,
        Storage.full if detail_level == "Full" else Storage.minimal,
        keep=lambda row: not types or row.type.casefold() in types,
        order=attrgetter("storage", "node"),
    )
    if cluster_name is None and not types:
        await call.note_datastores()
    if types and not rows.rows:
        call.notes.add(f"No storage of type {' or '.join(map(repr, types))}.")
    return rows
