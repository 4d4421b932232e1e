"""High availability of guests: resources, rules (from 9.0) and groups (until 8.4)."""

from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Annotated, ClassVar, Final

from msgspec.structs import replace

from proxmox_client import MethodMissing, ResponseError
from proxmox_client.api.ha import HaGroup as GroupAnswer
from proxmox_client.api.ha import HaResource as HaAnswer
from proxmox_client.api.ha import HaRule as RuleAnswer
from proxmox_client.api.ha import HaStatus
from proxmox_client.json_decoder import split_list
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.guests import TO_GUEST
from pvemcp_server.tables.reach import Reach, of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, Relation, made, never_filtered, table
from pvemcp_server.tables.rows import Col, Gap, Row, Unit

_TYPES = {"vm": "qemu kvm", "ct": "lxc container"}
_MIGRATED: Final = "migrated to rules"


class HaResource(Row):
    """A guest under high availability."""

    minimal: ClassVar[tuple[str, ...]] = ("sid", "vmid", "node", "requested_state", "state")

    sid: Annotated[str, Col("Service id: vm:100 or ct:200", aliases=("id",))]
    vmid: Annotated[int, Col("Guest", aliases=("guest_id",))]
    type: Annotated[str, Col("Kind of service", values=("vm", "ct"), meanings=_TYPES)]
    node: Annotated[str | None, Col("Node where it is run")]
    requested_state: Annotated[str, Col("State asked for: started, stopped, disabled, ignored")]
    state: Annotated[str | None, Col("State the manager reports: started, error, fence …")]
    group: Annotated[
        str | None, Col("HA group (until 8.4)", gap=Gap("in none; from 9.0 on see ha_rules"))
    ]
    max_restart: Annotated[int, Col("Restarts tried on a node", Unit.COUNT)]
    max_relocate: Annotated[int, Col("Relocations tried", Unit.COUNT)]
    failback: Annotated[bool | None, Col("Whether it moves back to its preferred node")]
    comment: Annotated[str | None, Col("Comment")]


class HaRule(Row):
    """A rule about where guests under high availability run."""

    minimal: ClassVar[tuple[str, ...]] = ("rule", "type", "vmids", "nodes", "strict", "affinity")

    rule: Annotated[str, Col("Name", aliases=("id", "name"))]
    type: Annotated[str, Col("node-affinity: which nodes; resource-affinity: together or apart")]
    enabled: Annotated[bool, Col("Whether it is in force")]
    vmids: Annotated[list[int], Col("Guests it is about", aliases=("guests",))]
    resources: Annotated[list[str], Col("Their service ids: vm:100, ct:200")]
    nodes: Annotated[
        list[str], Col("Nodes to run on; pve1:2 has priority 2, the highest is preferred")
    ]
    strict: Annotated[bool | None, Col("Whether they may run on no other node, of node-affinity")]
    affinity: Annotated[
        str | None,
        Col("positive: on one node; negative: on different ones; of resource-affinity"),
    ]
    comment: Annotated[str | None, Col("Comment")]


class HaGroup(Row):
    """A group of nodes that guests under high availability prefer."""

    minimal: ClassVar[tuple[str, ...]] = ("group", "nodes", "vmids", "restricted")

    group: Annotated[str, Col("Name", aliases=("id", "name"))]
    nodes: Annotated[
        list[str], Col("Nodes to run on; pve1:2 has priority 2, the highest is preferred")
    ]
    vmids: Annotated[list[int], Col("Guests in it", aliases=("guests",))]
    restricted: Annotated[bool, Col("Whether they may run on no other node")]
    no_failback: Annotated[bool, Col("Whether they stay when a preferred node comes back")]
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
    rows = await made(
        cluster, resources, lambda resource: [_row(resource, states.get(resource.sid))]
    )
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


def _covered_rule(reach: Reach, row: HaRule) -> HaRule | None:
    """Return a rule about a visible guest, with the visible guests only."""
    if reach.scope.everything:
        return row
    pairs = [(v, sid) for v, sid in zip(row.vmids, row.resources, strict=True) if reach.guest(v)]
    seen = replace(row, vmids=[vmid for vmid, _ in pairs], resources=[sid for _, sid in pairs])
    return seen if pairs else None


def _covered_group(reach: Reach, row: HaGroup) -> HaGroup | None:
    """Return a group with a visible guest, with the visible guests only."""
    if reach.scope.everything:
        return row
    vmids = [vmid for vmid in row.vmids if reach.guest(vmid)]
    return replace(row, vmids=vmids) if vmids else None


ha_table = partial(
    table,
    tool="GetClusterStatus",
    cost=Cost.ONE,
    pushdown={},
    looks_filtered=never_filtered,
    rare=True,
)


@ha_table("ha_rules", covered=_covered_rule)
async def ha_rules(cluster: Cluster, _request: LoadRequest) -> list[HaRule]:
    """Rules of high availability, from Proxmox VE 9.0 on; before, ha_groups has groups."""
    try:
        rules = await cluster.pve.cluster.ha_rules()
    except MethodMissing:
        cluster.notes.add(f"{cluster.name} has no HA rules before Proxmox VE 9: see ha_groups.")
        return []
    return await made(cluster, rules, lambda rule: [_rule(rule)])


@ha_table("ha_groups", covered=_covered_group)
async def ha_groups(cluster: Cluster, _request: LoadRequest) -> list[HaGroup]:
    """Groups of high availability, until Proxmox VE 8.4; from 9.0 on, ha_rules has rules."""
    try:
        groups = await cluster.pve.cluster.ha_groups()
    except ResponseError as error:
        if _MIGRATED not in str(error):
            raise
        cluster.notes.add(f"{cluster.name} has HA rules in place of groups: see ha_rules.")
        return []
    sids = defaultdict[str | None, list[str]](list)
    for resource in await cluster.pve.cluster.ha_resources():
        sids[resource.group].append(resource.sid)
    return await made(cluster, groups, lambda group: [_group(group, sids.get(group.group, ()))])


def _vmid(sid: str) -> int:
    return int(sid.partition(":")[2])


def _rule(rule: RuleAnswer) -> HaRule:
    resources = sorted(split_list(rule.resources), key=_vmid)
    return HaRule(
        rule=rule.rule,
        type=rule.type,
        enabled=not rule.disable,
        vmids=[_vmid(sid) for sid in resources],
        resources=resources,
        nodes=split_list(rule.nodes),
        strict=bool(rule.strict) if rule.type == "node-affinity" else None,
        affinity=rule.affinity,
        comment=rule.comment or None,
    )


def _group(group: GroupAnswer, sids: Iterable[str]) -> HaGroup:
    return HaGroup(
        group=group.group,
        nodes=split_list(group.nodes),
        vmids=sorted(map(_vmid, sids)),
        restricted=group.restricted,
        no_failback=group.no_failback,
        comment=group.comment or None,
    )
