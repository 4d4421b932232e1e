"""Lists of guests."""

from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import Guest, LoadRequest, described, guests
from pvemcp_server.tables.rows import GUEST_TYPES
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NO_FILTER, ClusterName, DetailLevel, Words
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import listed
from pvemcp_server.toolkit.registry import Rows, tool

Status = Annotated[
    Literal["running", "stopped", "paused"] | None, NO_FILTER, Field(description="State")
]
Kind = Annotated[
    Literal["qemu", "lxc"] | None,
    NO_FILTER,
    Words(GUEST_TYPES),
    Field(description="VM or container"),
]


@tool(
    "ListVms",
    view="inventory",
    title="List guests",
    area=Area.VMS,
    effect=Effect.READ,
    answer=Guest,
    needs=(needs.GUESTS,),
)
async def list_vms(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    status: Status = None,
    type: Kind = None,  # noqa: A002 - the published name
    detail_level: DetailLevel = "Minimal",
) -> Rows:
    """List VMs and containers; Full adds CPU, memory, disk and network use."""
    return await listed(
        call,
        guests,
        cluster_name,
        Guest.full if detail_level == "Full" else Guest.minimal,
        request=LoadRequest(
            status=frozenset(filter(None, [status])), types=frozenset(filter(None, [type]))
        ),
        order=attrgetter("vmid"),
        finish=described,
    )
