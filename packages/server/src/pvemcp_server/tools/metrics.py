"""Recorded metrics of guests and nodes: one row per guest or node and point in time."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from proxmox_client.api.resources import GuestResource
from proxmox_client.api.rrd import Consolidation, GuestRrd, NodeRrd, TimeFrame
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import fanout
from pvemcp_server.tables.rows import Row, moment, percent, whole
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NodeName, OneCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.downsample import downsampled, interval, step_for
from pvemcp_server.toolkit.lists import rows_or_error, with_budget
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.toolkit.rrd_rows import NodePoint, VmPoint

Frame = Annotated[
    Literal["Hour", "Day", "Week", "Month", "Year"], Field(description="How far back")
]
Consolidate = Annotated[Literal["Average", "Maximum"], Field(description="Of each interval")]
Metrics = Annotated[
    list[Literal["Cpu", "Memory", "Disk", "Network", "Pressure", "All"]],
    Field(min_length=1, description="Pressure: PSI, from 9.0"),
]
SomeVms = Annotated[list[VmId], Field(min_length=1, max_length=100, description="Guest numbers")]
SomeNodes = Annotated[list[NodeName] | None, Field(max_length=100, description="All when absent")]

K = TypeVar("K", int, str)
P = TypeVar("P", GuestRrd, NodeRrd)

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

    async def read(vmid: int) -> list[GuestRrd]:
        api = cluster.api_of(guests[vmid])
        return await api.rrd(_FRAMES[time_frame], _FUNCTIONS[consolidation])

    request = with_budget(call)
    recorded = await rows_or_error(
        cluster, lambda quiet: fanout.each(quiet, guests, read, request, "guest")
    )
    series, step = _downsampled(recorded, maximum=consolidation == "Maximum")
    rows = [_vm_point(guests[vmid], point) for vmid, points in series.items() for point in points]
    return _rows(call, rows, ("vmid", "name", "time"), VmPoint, metrics, step)


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
    picked = [(await cluster.node(name)).node for name in nodes or ()]
    names = list(dict.fromkeys(picked)) or await fanout.nodes(cluster)

    async def read(node: str) -> list[NodeRrd]:
        return await cluster.pve.node(node).rrd(_FRAMES[time_frame], _FUNCTIONS[consolidation])

    request = with_budget(call)
    recorded = await rows_or_error(
        cluster, lambda quiet: fanout.each(quiet, names, read, request, "node")
    )
    series, step = _downsampled(recorded, maximum=consolidation == "Maximum")
    rows = [_node_point(node, point) for node, points in series.items() for point in points]
    return _rows(call, rows, ("node", "time"), NodePoint, metrics, step)


def _downsampled(
    recorded: Mapping[K, Sequence[P]], *, maximum: bool
) -> tuple[dict[K, list[P]], str]:
    """Reduce all series by the same step; return them with a note if points were joined."""
    longest = max(recorded.values(), key=len, default=())
    step = step_for(len(longest), len(recorded))
    note = ""
    if step > 1:
        minutes = step * interval(longest) / 60
        what = "highest value" if maximum else "average"
        note = (
            f"Each row is the {what} of {minutes:g} minutes; a shorter time_frame or fewer at a "
            "time show more detail."
        )
    series = {key: downsampled(points, step, maximum=maximum) for key, points in recorded.items()}
    return series, note


def _rows(
    call: Call,
    points: Sequence[Row],
    keys: tuple[str, ...],
    row: type[Row],
    metrics: Sequence[str],
    step_note: str,
) -> Rows:
    """Return the points with a value in the chosen categories, and the columns of these."""
    values = [name for name in row.__struct_fields__ if name not in keys]
    chosen = [n for n in values if "All" in metrics or _CATEGORY[n.partition("_")[0]] in metrics]
    rows = [point for point in points if any(getattr(point, n) is not None for n in chosen)]
    if rows and step_note:
        call.notes.add(step_note)
    if points and not rows:
        only_pressure = all(name.startswith("pressure") for name in chosen)
        reason = "; pressure (PSI) comes with Proxmox VE 9.0" if only_pressure else ""
        call.notes.add(f"None of this was recorded in this time_frame{reason}.")
    return Rows(rows, (*keys, *chosen))


def _vm_point(guest: GuestResource, point: GuestRrd) -> VmPoint:
    return VmPoint(
        vmid=guest.vmid,
        name=guest.name,
        time=moment(point.time),
        cpu_usage=percent(point.cpu),
        cpu_total=point.cpu_count,
        memory_usage=whole(point.memory),
        memory_total=whole(point.memory_max),
        disk_usage=whole(point.disk) if guest.type == "lxc" else None,
        disk_total=whole(point.disk_max),
        disk_read=whole(point.disk_read),
        disk_write=whole(point.disk_write),
        network_in=whole(point.network_in),
        network_out=whole(point.network_out),
        **_pressure(point),
        pressure_cpu_full=_hundredth(point.pressure_cpu_full),
    )


def _node_point(node: str, point: NodeRrd) -> NodePoint:
    return NodePoint(
        node=node,
        time=moment(point.time),
        cpu_usage=percent(point.cpu),
        cpu_total=whole(point.cpu_count),
        loadavg=_hundredth(point.load_average),
        iowait=percent(point.io_wait),
        memory_usage=whole(point.memory),
        memory_total=whole(point.memory_max),
        swap_usage=whole(point.swap),
        swap_total=whole(point.swap_max),
        root_usage=whole(point.root),
        root_total=whole(point.root_max),
        network_in=whole(point.network_in),
        network_out=whole(point.network_out),
        **_pressure(point),
    )


def _pressure(point: GuestRrd | NodeRrd) -> dict[str, Any]:
    return {
        "pressure_cpu_some": _hundredth(point.pressure_cpu_some),
        "pressure_io_some": _hundredth(point.pressure_io_some),
        "pressure_io_full": _hundredth(point.pressure_io_full),
        "pressure_memory_some": _hundredth(point.pressure_memory_some),
        "pressure_memory_full": _hundredth(point.pressure_memory_full),
    }


def _hundredth(number: float | None) -> float | None:
    """Round to two decimals: pressure is often far below one percent."""
    return None if number is None else round(number, 2)
