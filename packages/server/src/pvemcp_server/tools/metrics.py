"""What Proxmox has recorded of guests and nodes over time: one row per thing and moment."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field

from proxmox_client.api.resources import GuestResource
from proxmox_client.api.rrd import Consolidation, GuestRrd, NodeRrd, TimeFrame
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.errors import CallError
from pvemcp_server.tables.registry import Row
from pvemcp_server.tables.values import moment, percent, whole
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NodeName, OneCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.downsample import interval, step_for, thinned
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.toolkit.rrd_rows import NodePoint, VmPoint

Frame = Annotated[
    Literal["Hour", "Day", "Week", "Month", "Year"], Field(description="How far back")
]
Consolidate = Annotated[Literal["Average", "Maximum"], Field(description="Of each interval")]
Metrics = Annotated[
    list[Literal["Cpu", "Memory", "Disk", "Network", "Pressure", "All"]],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(min_length=1, description="Pressure: PSI, from 9.0"),
]
SomeVms = Annotated[list[VmId], Field(min_length=1, max_length=100, description="Guest numbers")]
SomeNodes = Annotated[list[NodeName] | None, Field(max_length=100, description="All when absent")]

K = TypeVar("K", int, str)
P = TypeVar("P", GuestRrd, NodeRrd)
T = TypeVar("T")

_FRAMES: dict[str, TimeFrame] = {
    "Hour": "hour",
    "Day": "day",
    "Week": "week",
    "Month": "month",
    "Year": "year",
}
_FUNCTIONS: dict[str, Consolidation] = {"Average": "AVERAGE", "Maximum": "MAX"}

_CATEGORY = {
    "cpu": "Cpu",
    "loadavg": "Cpu",
    "iowait": "Cpu",
    "memory": "Memory",
    "swap": "Memory",
    "disk": "Disk",
    "root": "Disk",
    "network": "Network",
    "pressure": "Pressure",
}


@tool(
    "ListVmRrdData",
    title="Guest metrics",
    area=Area.VMS,
    effect=Effect.READ,
    answer=VmPoint,
    needs=(needs.GUESTS,),
)
async def list_vm_rrd_data(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    vmids: SomeVms,
    time_frame: Frame = "Day",
    consolidation: Consolidate = "Average",
    metrics: Metrics = ["All"],  # noqa: B006 - becomes a schema's default, never written to
) -> Rows:
    """List recorded metrics of VMs and containers over time."""
    cluster = await call.cluster(cluster_name)
    guests = {vmid: await cluster.guest(vmid) for vmid in dict.fromkeys(vmids)}

    async def ask(vmid: int) -> list[GuestRrd]:
        calls = await cluster.handle(vmid)
        return await calls.rrd(_FRAMES[time_frame], _FUNCTIONS[consolidation])

    found = await _series(cluster, guests, ask, "guest")
    series = _readable(call, found, maximum=consolidation == "Maximum")
    points = [_vm_point(guests[vmid], one) for vmid, all_ in series.items() for one in all_]
    return _flat(call, points, ("vmid", "name", "time"), VmPoint, metrics)


@tool(
    "ListNodeRrdData",
    title="Node metrics",
    area=Area.NODES,
    effect=Effect.READ,
    answer=NodePoint,
    needs=(needs.NODES,),
)
async def list_node_rrd_data(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    nodes: SomeNodes = None,
    time_frame: Frame = "Day",
    consolidation: Consolidate = "Average",
    metrics: Metrics = ["All"],  # noqa: B006 - becomes a schema's default, never written to
) -> Rows:
    """List recorded metrics of nodes over time, pressure (PSI) included."""
    cluster = await call.cluster(cluster_name)
    named = [(await cluster.node(one)).node for one in nodes or ()]
    names = list(dict.fromkeys(named)) or await cluster.online()

    async def ask(node: str) -> list[NodeRrd]:
        return await cluster.pve.node(node).rrd(_FRAMES[time_frame], _FUNCTIONS[consolidation])

    found = await _series(cluster, names, ask, "node")
    series = _readable(call, found, maximum=consolidation == "Maximum")
    points = [_node_point(node, one) for node, all_ in series.items() for one in all_]
    return _flat(call, points, ("node", "time"), NodePoint, metrics)


async def _series(
    cluster: Cluster, keys: Iterable[K], ask: Callable[[K], Awaitable[T]], what: str
) -> dict[K, T]:
    """Every series; what is missing is noted, but when all are that is an error."""
    offload = replace(cluster, notes=Notes())
    found = await offload.each(keys, ask, what=what)
    said = list(offload.notes)
    if said and not found:
        raise CallError(" ".join(said))
    for sentence in said:
        cluster.notes.add(sentence)
    return found


def _readable(call: Call, found: Mapping[K, Sequence[P]], *, maximum: bool) -> dict[K, list[P]]:
    """The series short enough to be read, with a note when points were joined."""
    longest = max(found.values(), key=len, default=())
    step = step_for(len(longest), len(found))
    if step > 1:
        minutes = step * interval(longest) / 60
        what = "highest value" if maximum else "average"
        call.notes.add(
            f"Each row is the {what} of {minutes:g} minutes; a shorter time_frame or fewer at a "
            "time show more detail."
        )
    return {key: thinned(series, step, maximum=maximum) for key, series in found.items()}


def _flat(
    call: Call, points: Sequence[Row], keys: tuple[str, ...], row: type[Row], metrics: Sequence[str]
) -> Rows:
    """The points that say anything, with the columns of the wanted categories."""
    values = [name for name in row.__struct_fields__ if name not in keys]
    wanted = [n for n in values if "All" in metrics or _CATEGORY[n.partition("_")[0]] in metrics]
    told = [one for one in points if any(getattr(one, name) is not None for name in wanted)]
    if points and not told:
        call.notes.add("None of this was recorded; pressure (PSI) comes with Proxmox VE 9.0.")
    return Rows(told, (*keys, *wanted))


def _vm_point(guest: GuestResource, at: GuestRrd) -> VmPoint:
    return VmPoint(
        vmid=guest.vmid,
        name=guest.name,
        time=moment(at.time),
        cpu_usage=percent(at.cpu),
        cpu_total=at.cpu_count,
        memory_usage=whole(at.memory),
        memory_total=whole(at.memory_max),
        disk_usage=whole(at.disk) if guest.type == "lxc" else None,
        disk_total=whole(at.disk_max),
        disk_read=whole(at.disk_read),
        disk_write=whole(at.disk_write),
        network_in=whole(at.network_in),
        network_out=whole(at.network_out),
        **_pressure(at),
        pressure_cpu_full=_hundredth(at.pressure_cpu_full),
    )


def _node_point(node: str, at: NodeRrd) -> NodePoint:
    return NodePoint(
        node=node,
        time=moment(at.time),
        cpu_usage=percent(at.cpu),
        cpu_total=whole(at.cpu_count),
        loadavg=_hundredth(at.load_average),
        iowait=percent(at.io_wait),
        memory_usage=whole(at.memory),
        memory_total=whole(at.memory_max),
        swap_usage=whole(at.swap),
        swap_total=whole(at.swap_max),
        root_usage=whole(at.root),
        root_total=whole(at.root_max),
        network_in=whole(at.network_in),
        network_out=whole(at.network_out),
        **_pressure(at),
    )


def _pressure(at: GuestRrd | NodeRrd) -> dict[str, Any]:
    return {
        "pressure_cpu_some": _hundredth(at.pressure_cpu_some),
        "pressure_io_some": _hundredth(at.pressure_io_some),
        "pressure_io_full": _hundredth(at.pressure_io_full),
        "pressure_memory_some": _hundredth(at.pressure_memory_some),
        "pressure_memory_full": _hundredth(at.pressure_memory_full),
    }


def _hundredth(number: float | None) -> float | None:
    """Pressure is often far below one percent, so it keeps two decimals."""
    return None if number is None else round(number, 2)
