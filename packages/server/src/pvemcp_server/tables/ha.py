"""High availability of guests."""

from typing import Annotated, ClassVar

from proxmox_client.api.ha import HaResource as HaAnswer
from proxmox_client.api.ha import HaStatus
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.guests import TO_GUEST
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, Relation, made, never_filtered, table
from pvemcp_server.tables.rows import Col, Row, Unit

_TYPES = {"vm": "qemu kvm", "ct": "lxc container"}


class HaResource(Row):
    """A guest under high availability."""

    minimal: ClassVar[tuple[str, ...]] = ("sid", "vmid", "node", "requested_state", "state")

    sid: Annotated[str, Col("Service id: vm:100 or ct:200", aliases=("id",))]
    vmid: Annotated[int, Col("Guest", aliases=("guest_id",))]
    type: Annotated[str, Col("Kind of service", values=("vm", "ct"), meanings=_TYPES)]
    node: Annotated[str | None, Col("Node where it is run")]
    requested_state: Annotated[str, Col("State asked for: started, stopped, disabled, ignored")]
    state: Annotated[str | None, Col("State the manager reports: started, error, fence …")]
    group: Annotated[str | None, Col("HA group (until 8.4)")]
    max_restart: Annotated[int, Col("Restarts tried on a node", Unit.COUNT)]
    max_relocate: Annotated[int, Col("Relocations tried", Unit.COUNT)]
    failback: Annotated[bool | None, Col("Whether it moves back to its preferred node")]
    comment: Annotated[str | None, Col("Comment")]


@table(
    "ha_resources",
    tool="GetClusterStatus",
    cost=Cost.ONE,
    covered=of_guest,
    relations=(TO_GUEST, Relation("node", "nodes", {"node": "node"}, "The node it is run on")),
    looks_filtered=never_filtered,
)
async def ha_resources(cluster: Cluster, request: LoadRequest) -> list[HaResource]:
    """Guests under high availability with the state asked for and the state they are in."""
    resources = await cluster.pve.cluster.ha_resources()
    states: dict[str, HaStatus] = {}
    if resources and request.wants_column("node", "state", "failback"):
        request_states = cluster.pve.cluster.ha_status()
        entries = await cluster.optional(request_states, f"HA states of {cluster.name} are missing")
        states = {entry.sid: entry for entry in entries or () if entry.sid}
    rows = made(cluster, resources, lambda resource: [_row(resource, states.get(resource.sid))])
    return [row for row in rows if request.wants_vmid(row.vmid)]


def _row(resource: HaAnswer, status: HaStatus | None) -> HaResource:
    kind, _, vmid = resource.sid.partition(":")
    return HaResource(
        sid=resource.sid,
        vmid=int(vmid),
        type=resource.type or kind,
        node=status.node if status else None,
        requested_state=resource.state,
        state=status.state or status.crm_state if status else None,
        group=resource.group,
        max_restart=resource.max_restart,
        max_relocate=resource.max_relocate,
        failback=status.failback if resource.failback is None and status else resource.failback,
        comment=resource.comment,
    )
