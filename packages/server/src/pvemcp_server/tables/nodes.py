"""Nodes of a cluster."""

from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.resources import NodeResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import of_node
from pvemcp_server.tables.registry import NARROWED, Col, Cost, LoadRequest, Row, Unit, table
from pvemcp_server.tables.values import percent, share, whole


class Node(Row):
    """A node."""

    minimal: ClassVar[tuple[str, ...]] = (
        "node",
        "status",
        "cpu_usage",
        "memory_usage_percentage",
        "disk_usage_percentage",
    )
    full: ClassVar[tuple[str, ...]] = (
        *minimal,
        "uptime",
        "cpu_total",
        "memory_usage",
        "memory_total",
        "disk_usage",
        "disk_total",
        "level",
        "network_in",
        "network_out",
    )

    node: Annotated[str, Col("Name", also=("name",))]
    status: Annotated[str, Col("State", values=("online", "offline", "unknown"))]
    cpu_usage: Annotated[
        float | None, Col("Use of all its processors", Unit.PERCENT, ("cpu_usage_percentage",))
    ]
    memory_usage_percentage: Annotated[float | None, Col("Memory in use", Unit.PERCENT)]
    disk_usage_percentage: Annotated[float | None, Col("Root file system in use", Unit.PERCENT)]
    uptime: Annotated[int | None, Col("Time since its start", Unit.SECONDS)]
    cpu_total: Annotated[int | None, Col("Processors (threads)", Unit.COUNT, ("cpu_count",))]
    memory_usage: Annotated[int | None, Col("Memory in use", Unit.BYTES, ("memory_used",))]
    memory_total: Annotated[int | None, Col("Memory", Unit.BYTES, ("memory_max",))]
    disk_usage: Annotated[int | None, Col("Root file system in use", Unit.BYTES, ("disk_used",))]
    disk_total: Annotated[int | None, Col("Root file system", Unit.BYTES, ("disk_max",))]
    level: Annotated[str | None, Col("Support subscription level")]
    network_in: Annotated[
        int | None, Col("Received lately; takes a call per node", Unit.BYTES_PER_SECOND)
    ] = None
    network_out: Annotated[
        int | None, Col("Sent lately; takes a call per node", Unit.BYTES_PER_SECOND)
    ] = None


@table(
    "nodes",
    tool="ListNodes",
    cost=Cost.ONE,
    covered=of_node,
    of_inventory=True,
    extra=("network_in", "network_out"),
    pushed={**NARROWED, "status": "status"},
    # without Sys.Audit, Proxmox lists nodes by name and state only
    looks_filtered=lambda _account, rows: (
        not rows or any(row.status == "online" and row.memory_total is None for row in rows)
    ),
)
async def nodes(cluster: Cluster, want: LoadRequest) -> list[Node]:
    """Nodes with their state and resource usage."""
    seen = (await cluster.inventory_view()).nodes
    rows = [_node(one) for one in seen if want.node(one.node) and want.state(one.status)]
    return await _with_traffic(cluster, rows, want) if _wants_traffic(want) else rows


def _wants_traffic(want: LoadRequest) -> bool:
    return want.column("network_in", "network_out")


async def _with_traffic(cluster: Cluster, rows: list[Node], want: LoadRequest) -> list[Node]:
    online = [row.node for row in rows if row.status == "online"]
    found = await fanout.each(
        cluster, online, lambda name: _traffic(cluster, name), want, "traffic of node"
    )
    none = (None, None)
    return [
        replace(row, network_in=coming, network_out=going)
        for row in rows
        for coming, going in (found.get(row.node, none),)
    ]


async def _traffic(cluster: Cluster, name: str) -> tuple[int | None, int | None]:
    """What the latest measured minute says."""
    points = await cluster.pve.node(name).rrd("hour")
    for point in reversed(points):
        if point.network_in is not None:
            return whole(point.network_in), whole(point.network_out)
    return None, None


def _node(one: NodeResource) -> Node:
    return Node(
        node=one.node,
        status=one.status,
        cpu_usage=percent(one.cpu),
        memory_usage_percentage=share(one.memory, one.memory_max),
        disk_usage_percentage=share(one.disk, one.disk_max),
        uptime=one.uptime,
        cpu_total=whole(one.cpu_count),
        memory_usage=one.memory,
        memory_total=one.memory_max,
        disk_usage=one.disk,
        disk_total=one.disk_max,
        level=one.level or None,
    )
