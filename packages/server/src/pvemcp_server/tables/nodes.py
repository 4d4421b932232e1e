"""Nodes of a cluster."""

from operator import attrgetter
from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.resources import NodeResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import of_node
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Row, Unit, percent, whole


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
        "network_in_rate",
        "network_out_rate",
    )

    node: Annotated[str, Col("Name", aliases=("name",))]
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
    network_in_rate: Annotated[
        int | None,
        Col("Received lately; takes a call per node", Unit.BYTES_PER_SECOND, ("network_in",)),
    ] = None
    network_out_rate: Annotated[
        int | None,
        Col("Sent lately; takes a call per node", Unit.BYTES_PER_SECOND, ("network_out",)),
    ] = None


@table(
    "nodes",
    tool="ListNodes",
    cost=Cost.ONE,
    covered=of_node,
    from_inventory=True,
    last_known=attrgetter("nodes"),
    extra=("network_in_rate", "network_out_rate"),
    pushdown={**COMMON_PUSHDOWN, "status": "status"},
    # without Sys.Audit, Proxmox lists nodes by name and state only
    looks_filtered=lambda _account, rows: (
        not rows or any(row.status == "online" and row.memory_total is None for row in rows)
    ),
)
async def nodes(cluster: Cluster, request: LoadRequest) -> list[Node]:
    """Nodes with their state and resource usage."""
    view = await cluster.inventory_view()
    rows = [
        row
        for row in await made(cluster, view.nodes, lambda node: [to_row(node)])
        if request.wants_node(row.node) and request.wants_status(row.status)
    ]
    if not request.wants_column("network_in_rate", "network_out_rate"):
        return rows

    async def traffic(name: str) -> tuple[int | None, int | None]:
        """Return the bytes in and out per second, in the latest measured minute."""
        for point in reversed(await cluster.pve.node(name).rrd("hour")):
            if point.network_in is not None:
                return whole(point.network_in), whole(point.network_out)
        return None, None

    answering = [row.node for row in rows if row.node not in view.offline_nodes]
    answers = await fanout.each(cluster, answering, traffic, request, "traffic of node")
    none = (None, None)
    return [
        replace(row, network_in_rate=received, network_out_rate=sent)
        for row in rows
        for received, sent in (answers.get(row.node, none),)
    ]


def to_row(node: NodeResource) -> Node:
    """Convert a node of the inventory to a row."""
    return Node(
        node=node.node,
        status=node.status,
        cpu_usage=percent(node.cpu),
        memory_usage_percentage=percent(node.memory, node.memory_max),
        disk_usage_percentage=percent(node.disk, node.disk_max),
        uptime=node.uptime,
        cpu_total=whole(node.cpu_count),
        memory_usage=node.memory,
        memory_total=node.memory_max,
        disk_usage=node.disk,
        disk_total=node.disk_max,
        level=node.level or None,
    )
