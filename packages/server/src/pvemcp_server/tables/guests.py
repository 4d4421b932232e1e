"""Guests: virtual machines and containers."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, ClassVar, Literal

from msgspec.structs import replace

from proxmox_client.api.resources import GuestResource, NodeResource
from pvemcp_server.clusters import Cluster, InventoryView, offload
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import (
    NARROWED,
    Col,
    Cost,
    LoadRequest,
    Relation,
    Row,
    Unit,
    table,
)
from pvemcp_server.tables.values import percent, share

_PAUSED = "paused"

TO_GUEST = Relation("guest", "guests", {"vmid": "vmid"}, "The guest")
TO_NODE = Relation("node", "nodes", {"node": "node"}, "The node")


class Guest(Row, kw_only=True):
    """A virtual machine or container."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "name", "node", "status", "type", "tags")
    full: ClassVar[tuple[str, ...]] = (
        *minimal,
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

    vmid: Annotated[int, Col("Number, unique in the cluster", also=("id", "guest_id"))]
    name: Annotated[str, Col("Display name")]
    node: Annotated[str, Col("Node it is on")]
    status: Annotated[
        str,
        Col(
            "State; paused ones are told as running, unless they are asked for",
            values=("running", "stopped", "paused", "unknown"),
        ),
    ]
    type: Annotated[Literal["qemu", "lxc"], Col("Virtual machine (qemu) or container (lxc)")]
    tags: Annotated[tuple[str, ...], Col("Tags")]
    description: Annotated[
        str | None, Col("Notes from its configuration; reading them takes a call per guest")
    ] = None
    is_template: Annotated[bool, Col("Whether it is a template")]
    uptime: Annotated[int | None, Col("Time since its start", Unit.SECONDS)]
    lock: Annotated[str | None, Col("What it is locked for: backup, migrate, snapshot …")]
    is_locked: Annotated[bool, Col("Whether it is locked")]
    pool: Annotated[str | None, Col("Resource pool")]
    ha_state: Annotated[str | None, Col("State that high availability wants")]
    host_cpu_usage: Annotated[
        float | None, Col("Its share of the node's processors", Unit.PERCENT, ("node_cpu_share",))
    ]
    host_memory_usage: Annotated[
        float | None,
        Col("Its share of the node's memory", Unit.PERCENT, ("node_memory_share",)),
    ]
    cpu_usage: Annotated[
        float | None, Col("Use of its own cores", Unit.PERCENT, ("cpu_usage_percentage",))
    ]
    cpu_count: Annotated[float | None, Col("Cores, or the limit of CPU time", Unit.COUNT)]
    memory_usage: Annotated[int | None, Col("Memory in use", Unit.BYTES, ("memory_used",))]
    memory_max: Annotated[
        int | None, Col("Memory it may use", Unit.BYTES, ("memory_total", "memory"))
    ]
    memory_usage_percentage: Annotated[float | None, Col("Memory in use", Unit.PERCENT)]
    disk_usage: Annotated[
        int | None,
        Col("Root disk in use (lxc); nobody tells for a machine", Unit.BYTES, ("disk_used",)),
    ]
    disk_max: Annotated[int | None, Col("Size of the root disk", Unit.BYTES, ("disk_total",))]
    disk_usage_percentage: Annotated[float | None, Col("Root disk in use (lxc)", Unit.PERCENT)]
    disk_read: Annotated[int | None, Col("Read since its start", Unit.BYTES)]
    disk_write: Annotated[int | None, Col("Written since its start", Unit.BYTES)]
    network_in: Annotated[int | None, Col("Received since its start", Unit.BYTES)]
    network_out: Annotated[int | None, Col("Sent since its start", Unit.BYTES)]


@table(
    "guests",
    tool="ListVms",
    cost=Cost.ONE,
    covered=of_guest,
    of_inventory=True,
    last_known=attrgetter("guests"),
    beyond=lambda want: _PAUSED in want.states,
    extra=("description",),
    pushed={**NARROWED, "status": "status"},
    relations=(
        TO_NODE,
        Relation("pool", "pools", {"pool": "poolid"}, "The resource pool"),
        Relation("qemu_config", "qemu_configs", {"vmid": "vmid"}, "Its configuration, if a VM"),
        Relation(
            "lxc_config", "lxc_configs", {"vmid": "vmid"}, "Its configuration, if a container"
        ),
        Relation("ha_resource", "ha_resources", {"vmid": "vmid"}, "Its high availability"),
    ),
)
async def guests(cluster: Cluster, want: LoadRequest) -> list[Guest]:
    """Virtual machines and containers with their state and resource usage."""
    rows = await _current(cluster)
    if want.vmids or want.nodes or want.types:
        rows = await offload(len(rows), lambda: [row for row in rows if _wanted(row, want)])
    if _PAUSED in want.status | want.states:
        held = await paused(cluster, want)
        rows = [replace(row, status=_PAUSED) if row.vmid in held else row for row in rows]
    if want.status:
        rows = await offload(len(rows), lambda: [row for row in rows if want.state(row.status)])
    return await described(cluster, rows, want) if want.column("description") else rows


async def paused(cluster: Cluster, want: LoadRequest) -> frozenset[int]:
    """The machines that are paused: to /cluster/resources they are running, QEMU knows better."""
    seen = (await cluster.inventory_view()).guests
    running = {
        one.node
        for one in seen
        if one.type == "qemu" and one.status == "running" and want.node(one.node)
    }
    found = await fanout.each(
        cluster,
        sorted(running - await fanout.down_among(cluster, running)),
        lambda node: cluster.pve.node(node).qemus(full=True),
        want,
        "paused guests of node",
    )
    told = (one for guests in found.values() for one in guests)
    return frozenset(one.vmid for one in told if one.qmp_status in (_PAUSED, "suspended"))


async def described(cluster: Cluster, rows: Sequence[Guest], want: LoadRequest) -> list[Guest]:
    """The rows with their descriptions, which takes a call for each."""
    every = (await cluster.inventory.view()).nodes
    down = {one.node for one in every if one.status == "offline"} & {row.node for row in rows}
    if down:
        where = f"{', '.join(sorted(down))} of {cluster.name}"
        cluster.notes.add(f"Descriptions of guests on {where} are missing: offline.")
    known = [row.vmid for row in rows if row.node not in down]
    found = await fanout.each(
        cluster, known, lambda vmid: _description(cluster, vmid), want, "description of guest"
    )
    return [replace(row, description=found.get(row.vmid)) for row in rows]


async def _description(cluster: Cluster, vmid: int) -> str | None:
    config = await (await cluster.handle(vmid)).config()
    return (config.description or "").strip() or None


async def _current(cluster: Cluster) -> list[Guest]:
    """All visible guests, made once per snapshot."""
    view = await cluster.inventory_view()
    if "guests" not in view.derived:
        view.derived["guests"] = await offload(len(view.guests), lambda: _rows(view))
    rows: list[Guest] = view.derived["guests"]
    return rows


def _rows(view: InventoryView) -> list[Guest]:
    guests = sorted(view.guests, key=attrgetter("vmid"))
    return [_guest(one, view.by_node.get(one.node)) for one in guests]


def _wanted(row: Guest, want: LoadRequest) -> bool:
    return want.vmid(row.vmid) and want.node(row.node) and want.type(row.type)


def _guest(one: GuestResource, node: NodeResource | None) -> Guest:
    disk = one.disk if one.type == "lxc" else None  # Proxmox says 0 of every machine
    on_host = one.memory if one.memory_host is None else one.memory_host
    return Guest(
        vmid=one.vmid,
        name=one.name,
        node=one.node,
        status=one.status,
        type=one.type,
        tags=tuple(one.tag_list),
        is_template=one.template,
        uptime=one.uptime,
        lock=one.lock,
        is_locked=one.lock is not None,
        pool=one.pool,
        ha_state=one.ha_state,
        host_cpu_usage=share(_product(one.cpu, one.cpu_count), node.cpu_count if node else None),
        host_memory_usage=share(on_host, node.memory_max if node else None),
        cpu_usage=percent(one.cpu),
        cpu_count=one.cpu_count,
        memory_usage=one.memory,
        memory_max=one.memory_max,
        memory_usage_percentage=share(one.memory, one.memory_max),
        disk_usage=disk,
        disk_max=one.disk_max,
        disk_usage_percentage=share(disk, one.disk_max),
        disk_read=one.disk_read,
        disk_write=one.disk_write,
        network_in=one.network_in,
        network_out=one.network_out,
    )


def _product(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left * right
