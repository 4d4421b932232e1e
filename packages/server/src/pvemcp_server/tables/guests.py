"""Guests: virtual machines and containers."""

import dataclasses
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, ClassVar, Literal

from msgspec.structs import replace

from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster, InventoryView, Notes, offload
from pvemcp_server.shown_names import listed_names
from pvemcp_server.tables import fanout
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import COMMON_PUSHDOWN, Cost, LoadRequest, Relation, made, table
from pvemcp_server.tables.rows import GUEST_TYPES, Caveat, Col, Gap, Row, Unit, percent

_PAUSED = "paused"
_UNKNOWN = "unknown"
_NAMED = 10  # guests that a note names

_OF_CONTAINERS = Gap("Proxmox reports it for running containers only, not for VMs")

_COUNTER = Caveat(
    "Counters of guests run since their start; guest_metrics has rates, also of the time_frame now."
)

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

    vmid: Annotated[int, Col("Number, unique in the cluster", aliases=("id", "guest_id"))]
    name: Annotated[str, Col("Display name")]
    node: Annotated[str, Col("Node it is on")]
    status: Annotated[
        str,
        Col(
            "State; paused VMs are reported as running unless you filter on paused",
            values=("running", "stopped", "paused", "unknown"),
            gap=Gap("Proxmox has no current statistics of their nodes", (_UNKNOWN,)),
            caveat=Caveat(
                "Paused VMs count as running here, unless a condition names paused.",
                unless=(_PAUSED,),
                about=("running",),
            ),
        ),
    ]
    type: Annotated[
        Literal["qemu", "lxc"],
        Col("Virtual machine (qemu) or container (lxc)", meanings=GUEST_TYPES),
    ]
    tags: Annotated[tuple[str, ...], Col("Tags")]
    description: Annotated[
        str | None, Col("Notes from its configuration; reading them takes a call per guest")
    ] = None
    is_template: Annotated[bool, Col("Whether it is a template")]
    uptime: Annotated[int | None, Col("Time since its start", Unit.SECONDS)]
    lock: Annotated[str | None, Col("What it is locked for: backup, migrate, snapshot …")]
    is_locked: Annotated[bool, Col("Whether it is locked")]
    pool: Annotated[str | None, Col("Resource pool")]
    ha_state: Annotated[str | None, Col("State requested from high availability")]
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
    memory_max: Annotated[int | None, Col("Memory it may use", Unit.BYTES, ("memory_total",))]
    memory_usage_percentage: Annotated[float | None, Col("Memory in use", Unit.PERCENT)]
    disk_usage: Annotated[
        int | None,
        Col(
            "Root disk in use (lxc); not reported for VMs",
            Unit.BYTES,
            ("disk_used",),
            gap=_OF_CONTAINERS,
        ),
    ]
    disk_max: Annotated[
        int | None,
        Col(
            "Size of the root disk",
            Unit.BYTES,
            ("disk_total",),
            caveat=Caveat("disk_max is the root disk only: SUM(size) of disks has all of a guest."),
        ),
    ]
    disk_usage_percentage: Annotated[
        float | None, Col("Root disk in use (lxc)", Unit.PERCENT, gap=_OF_CONTAINERS)
    ]
    disk_read: Annotated[int | None, Col("Read since its start", Unit.BYTES, caveat=_COUNTER)]
    disk_write: Annotated[int | None, Col("Written since its start", Unit.BYTES, caveat=_COUNTER)]
    network_in: Annotated[int | None, Col("Received since its start", Unit.BYTES, caveat=_COUNTER)]
    network_out: Annotated[int | None, Col("Sent since its start", Unit.BYTES, caveat=_COUNTER)]


@table(
    "guests",
    tool="ListVms",
    cost=Cost.ONE,
    covered=of_guest,
    from_inventory=True,
    last_known=attrgetter("guests"),
    exceeds_inventory=lambda request: _PAUSED in request.states,
    extra=("description",),
    pushdown={**COMMON_PUSHDOWN, "status": "status"},
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
async def guests(cluster: Cluster, request: LoadRequest) -> list[Guest]:
    """Virtual machines and containers with their state and resource usage."""
    view = await cluster.inventory_view()
    if "guests" not in view.derived:  # rows and notes are made once per view
        quiet = dataclasses.replace(cluster, notes=Notes())
        in_order = sorted(view.guests, key=attrgetter("vmid"))
        rows = await made(quiet, in_order, lambda guest: [to_row(view, guest)])
        view.derived["guests"] = rows, quiet.notes
    rows, notes = view.derived["guests"]
    cluster.notes.update(notes)
    if request.vmids or request.nodes or request.types:
        rows = await offload(len(rows), lambda: [row for row in rows if _matches(row, request)])
    if _PAUSED in request.status | request.states:
        vmids = await paused(cluster, request)
        rows = [replace(row, status=_PAUSED) if row.vmid in vmids else row for row in rows]
    if request.status:
        _note_unknown_states(cluster, view, rows, request)
        rows = await offload(
            len(rows), lambda: [row for row in rows if request.wants_status(row.status)]
        )
    return await described(cluster, rows, request) if request.wants_column("description") else rows


def _note_unknown_states(
    cluster: Cluster, view: InventoryView, rows: Sequence[Guest], request: LoadRequest
) -> None:
    """Note the guests that a filter by state leaves out because their state is unknown."""
    if _UNKNOWN in request.status:
        return
    if left_out := [row for row in rows if row.status == _UNKNOWN]:
        some = ", ".join(str(row.vmid) for row in left_out[:_NAMED])
        more = f" and {len(left_out) - _NAMED} more" if left_out[_NAMED:] else ""
        nodes = {row.node for row in left_out}
        advice = "; GetVmStatus asks their node" if nodes - view.offline_nodes else ""
        if advice and nodes & view.offline_nodes:
            advice += ", unless it is offline"
        cluster.notes.add(
            f"The state of {some}{more} on {cluster.name} is unknown, so this filter by state "
            f"leaves them out{advice}."
        )


async def paused(cluster: Cluster, request: LoadRequest) -> frozenset[int]:
    """Return the VMIDs of paused VMs: /cluster/resources reports them as running."""
    running = {
        guest.node
        for guest in (await cluster.inventory_view()).guests
        if guest.type == "qemu" and guest.status == "running" and request.wants_node(guest.node)
    }
    answers = await fanout.each(
        cluster,
        sorted(running - await fanout.offline_among(cluster, running)),
        lambda node: cluster.pve.node(node).qemus(full=True),
        request,
        "paused guests of node",
    )
    vms = (vm for answer in answers.values() for vm in answer)
    return frozenset(vm.vmid for vm in vms if vm.is_paused)


async def described(cluster: Cluster, rows: Sequence[Guest], request: LoadRequest) -> list[Guest]:
    """Return the rows with their descriptions, which takes a call for each."""
    view = await cluster.inventory.view()
    offline = view.offline_nodes & {row.node for row in rows}
    if offline:
        where = f"{listed_names(sorted(offline))} of {cluster.name}"
        cluster.notes.add(f"Descriptions of guests on {where} are missing: offline.")

    async def description(vmid: int) -> str | None:
        config = await (await cluster.handle(vmid)).config()
        return (config.description or "").strip() or None

    vmids = [row.vmid for row in rows if row.node not in offline]
    answers = await fanout.each(cluster, vmids, description, request, "description of guest")
    return [replace(row, description=answers.get(row.vmid)) for row in rows]


def _matches(row: Guest, request: LoadRequest) -> bool:
    return (
        request.wants_vmid(row.vmid)
        and request.wants_node(row.node)
        and request.wants_type(row.type)
    )


def to_row(view: InventoryView, guest: GuestResource) -> Guest:
    """Convert a guest of an inventory to a row."""
    node = view.by_node.get(guest.node)
    cores = None  # in use
    if guest.cpu is not None and guest.cpu_count is not None:
        cores = guest.cpu * guest.cpu_count
    disk = guest.disk if guest.type == "lxc" else None  # Proxmox reports 0 for every VM
    on_host = guest.memory if guest.memory_host is None else guest.memory_host
    return Guest(
        vmid=guest.vmid,
        name=guest.name,
        node=guest.node,
        status=guest.status,
        type=guest.type,
        tags=tuple(guest.tag_list),
        is_template=guest.template,
        uptime=guest.uptime,
        lock=guest.lock or None,  # some versions send an empty text
        is_locked=bool(guest.lock),
        pool=guest.pool,
        ha_state=guest.ha_state,
        host_cpu_usage=percent(cores, node.cpu_count if node else None),
        host_memory_usage=percent(on_host, node.memory_max if node else None),
        cpu_usage=percent(guest.cpu),
        cpu_count=guest.cpu_count,
        memory_usage=guest.memory,
        memory_max=guest.memory_max,
        memory_usage_percentage=percent(guest.memory, guest.memory_max),
        disk_usage=disk,
        disk_max=guest.disk_max,
        disk_usage_percentage=percent(disk, guest.disk_max),
        disk_read=guest.disk_read,
        disk_write=guest.disk_write,
        network_in=guest.network_in,
        network_out=guest.network_out,
    )
