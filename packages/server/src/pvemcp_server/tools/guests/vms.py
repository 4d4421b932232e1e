"""Lists of guests and of their snapshots."""

from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import UnknownName
from pvemcp_server.tables import Guest, LoadRequest, Snapshot, described, guests, snapshots
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ClusterName, DetailLevel, VmIds
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import at, listed
from pvemcp_server.toolkit.registry import Rows, tool

Status = Annotated[Literal["running", "stopped", "paused"] | None, Field(description="State")]
Kind = Annotated[Literal["qemu", "lxc"] | None, Field(description="VM or container")]
Size = Annotated[bool, Field(description="Add the size of saved RAM")]

_FULL_GUEST = (
    "description",
    "is_template",
    "uptime",
    "lock",
    "pool",
    "host_cpu_usage",
    "host_memory_usage",
    "cpu_usage",
    "cpu_count",
    "memory_usage",
    "memory_max",
    "memory_usage_percentage",
    "disk_usage",
    "disk_max",
    "disk_read",
    "disk_write",
    "network_in",
    "network_out",
)
_FULL_SNAPSHOT = ("description", "parent", "include_ram")


@tool(
    "ListVms",
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
        at(detail_level, Guest, _FULL_GUEST),
        want=LoadRequest(
            status=frozenset(filter(None, [status])), types=frozenset(filter(None, [type]))
        ),
        order=attrgetter("vmid"),
        finish=described,
    )


@tool("ListSnapshots", area=Area.VMS, effect=Effect.READ, answer=Snapshot, needs=(needs.GUESTS,))
async def list_snapshots(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    vmids: VmIds = [],  # noqa: B006 - becomes a schema's default, never written to
    detail_level: DetailLevel = "Minimal",
    include_size: Size = False,
) -> Rows:
    """List snapshots of some or all VMs and containers."""
    size = ("size",) if include_size else ()
    columns = (*at(detail_level, Snapshot, _FULL_SNAPSHOT), *size)
    await _known(call, cluster_name, vmids)
    return await listed(
        call,
        snapshots,
        cluster_name,
        columns,
        want=LoadRequest(vmids=frozenset(vmids)),
        order=lambda row: (row.vmid, row.date.timestamp() if row.date else 0.0),
    )


async def _known(call: Call, cluster_name: str | None, vmids: list[int]) -> None:
    """Raise for a guest that none of the clusters has; one without snapshots is no error."""
    if not vmids:
        return
    clusters = await call.all_clusters(cluster_name)
    views = await call.each(clusters, lambda cluster: cluster.inventory_view())
    known = {vmid for _, view in views for vmid in view.by_vmid}
    for vmid in vmids:
        if vmid not in known and len(views) == len(clusters):
            raise UnknownName("guest", vmid, sorted(known, key=lambda one: abs(one - vmid))[:5])
