"""EvacuateNode: moves the guests of a node to others, each to one that has room for it.

Guests are moved one by one through their own migration, never by Proxmox's bulk actions (decision
19 says why).
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any, Final

from msgspec.structs import replace as with_fields

from proxmox_client.api.status import GuestStatus
from pvemcp_server import tables
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition, counted
from pvemcp_server.tables import Guest, LoadRequest, load
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import MOST_GUESTS, ItsCluster, NodeName, StopAtFailure
from pvemcp_server.toolkit.bulk import BulkLimits, BulkPlan, by_reason, plan_each
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_for_several
from pvemcp_server.toolkit.write_target import target_guest, writable_cluster
from pvemcp_server.tools.guests.migration import migration
from pvemcp_server.tools.maintenance.facts import HA_MAINTENANCE, MoveFacts, read_move_facts
from pvemcp_server.tools.maintenance.placement import Placement, placements
from pvemcp_server.tools.maintenance.targets import Targets

_LIMITS: Final = BulkLimits(per_node=2, strict=True)
_STATES: Final = frozenset({"running", "paused", "stopped", "unknown"})
_BY_HA: Final = "by HA maintenance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evacuation(BulkPlan):
    """The moves of a node's guests, with a table of all of them for the dry run."""

    node: str
    table: Sequence[Mapping[str, Any]]
    later: int  # guests of the node that another call has to move

    def preview(self) -> dict[str, Any]:
        """Return the answer of a dry run: the guests, where they go and how, or why not."""
        room = {"room": self.room} if self.room else {}
        would = {"would": self.sentence} if self.plans else {}
        return {"dry_run": True, "node": self.node, **would, **room, "guests": self.table}

    async def carry_out(self, call: Call) -> dict[str, Any]:
        """Move the guests; the answer has a row for each."""
        answer = await super(Evacuation, self).carry_out(call)
        answer["results"] = [self._result(row) for row in answer["results"]]
        answer["success"] = answer["success"] and not self.later
        return {**answer, "node": self.node}

    def _result(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with its target; of a task that ended well, nothing more is of use."""
        plan = self.plans.get(row["vmid"])
        target = {"target_node": plan.ids["target_node"]} if plan else {}
        if row.get("exit_status") == "OK":
            row = {name: row[name] for name in ("vmid", "success")}
        return {**row, **target}


@tool(
    "EvacuateNode",
    view="plan",
    area=Area.NODES,
    effect=Effect.WRITE,
    toolset=Toolset.MAINTENANCE,
    may_lose_data=True,
    needs=(needs.GUESTS, needs.MIGRATE),
)
async def evacuate_node(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    node: NodeName,
    stop_at_failure: StopAtFailure = False,
) -> BulkPlan:
    """Move all guests off a node."""
    cluster = await writable_cluster(call, cluster_name, nodes=[node])
    allowed = await _allowed_nodes(cluster, node)
    guests = await _guests(cluster, node)
    guests.sort(key=lambda row: (row.status == "stopped", row.vmid))
    if not guests:
        raise Precondition(f"{node} on {cluster.name} has no guests to move.")
    guests, later = guests[:MOST_GUESTS], guests[MOST_GUESTS:]
    facts = await read_move_facts(call, cluster, node, guests)
    found = await asyncio.to_thread(placements, facts, _STATES)
    placed = {each.vmid: each for each in found or ()}
    by_ha = [vmid for vmid, each in placed.items() if each.by_ha and _is_in_maintenance(facts)]
    moved = [each for vmid, each in placed.items() if vmid not in by_ha]
    chosen = await _targets(cluster, facts, moved, allowed)

    async def plan(own: Call, vmid: int) -> Plan:
        guest = await target_guest(own, cluster.name, vmid)
        if guest.node != node:
            raise Precondition(f"{guest.label} is on {guest.node} by now.")
        return replace(await migration(own, guest, chosen.nodes[vmid], online=True), room="")

    plans, refused, notes = await plan_each(call, plan, _in_order(chosen.nodes, guests))
    reasons = chosen.obstacles | refused
    reasons |= {
        row.vmid: "its configuration or the other nodes could not be read"
        for row in guests
        if row.vmid not in placed
    }
    repeat = {row.vmid: f"one call moves {MOST_GUESTS} guests: repeat it" for row in later}
    if not plans and not call.dry_run:
        raise Precondition(f"No guest of {node} is moved by this call. {by_reason(reasons)}")
    takes = [plan.takes for plan in plans.values()]
    return Evacuation(
        cluster=cluster,
        plans=plans,
        refused=reasons,
        limits=_LIMITS,
        notes=notes,
        stop_at_failure=stop_at_failure,
        node=node,
        table=[_row(row, plans, reasons | repeat) for row in (*guests, *later)],
        later=len(later),
        advice=(*_advice(cluster, facts, placed.values(), by_ha), *_rest(node, later)),
        room=room_for_several(await cluster.inventory_view(), chosen.memory, takes),
    )


async def _allowed_nodes(cluster: Cluster, node: str) -> AbstractSet[str]:
    """Return the nodes that the role lets guests be moved to.

    Raise UnknownName or Precondition if the node cannot be emptied.
    """
    view = await cluster.inventory_view()
    known = {*view.by_node, *(guest.node for guest in view.guests)}
    if node not in known:
        raise cluster.unknown("node", node, known)
    await cluster.require_not_offline(node)
    every = await cluster.inventory.view()
    online = every.by_node.keys() - every.offline_nodes - {node}
    if not online:
        raise Precondition(f"No other node of {cluster.name} is online.")
    return {name for name in online if cluster.scope.covers_target_node(name)}


async def _guests(cluster: Cluster, node: str) -> list[Guest]:
    """Return the guests of the node; where the inventory lacks their state, they are asked."""
    rows = await load(tables.guests, cluster, LoadRequest(nodes=frozenset({node})))

    async def status(vmid: int) -> GuestStatus:
        return await (await cluster.handle(vmid)).status()

    unknown = [row.vmid for row in rows if row.status == "unknown"]
    known, missing = await cluster.ask_all(unknown, status)
    cluster.note_missing(missing, "state of guest")
    return [
        with_fields(
            row,
            name=known[row.vmid].name or row.name,
            status=known[row.vmid].status,
            memory_max=known[row.vmid].memory_max,
            memory_usage=known[row.vmid].memory,
        )
        if row.vmid in known
        else row
        for row in rows
    ]


async def _targets(
    cluster: Cluster, facts: MoveFacts, placed: Sequence[Placement], allowed: AbstractSet[str]
) -> Targets:
    """Choose a node for each guest."""
    promised = dict[str, int]()
    for guest in (await cluster.inventory.view()).guests:
        if guest.status == "running":
            promised[guest.node] = promised.get(guest.node, 0) + (guest.memory_max or 0)
    models: Mapping[str, str] = {}
    if any(each.cpu_is_host and not each.obstacle for each in placed):
        models = await _processor_models(cluster, {facts.node, *allowed})
    mapped = await _mapping_nodes(cluster, placed)
    chosen = Targets(facts, allowed=allowed, promised=promised, models=models)
    guests = {row.vmid: row for row in facts.guests or ()}
    narrowed = [_narrowed(each, mapped.get(each.vmid)) for each in placed]
    await asyncio.to_thread(chosen.choose, narrowed, guests)
    return chosen


def _narrowed(guest: Placement, nodes: AbstractSet[str] | None) -> Placement:
    """Return the guest with those of its targets only that are among the nodes."""
    if nodes is None or guest.obstacle:
        return guest
    targets = tuple(name for name in guest.targets if name in nodes)
    obstacle = "" if targets else "no other node has its mapped devices"
    return replace(guest, targets=targets, obstacle=obstacle)


async def _mapping_nodes(
    cluster: Cluster, placed: Sequence[Placement]
) -> Mapping[int, AbstractSet[str]]:
    """Return the nodes that Proxmox allows for guests with mapped devices, by VMID."""

    async def allowed(vmid: int) -> AbstractSet[str]:
        return frozenset((await (await cluster.handle(vmid)).migrate_check()).allowed_nodes)

    vmids = [each.vmid for each in placed if each.has_mapped_devices and not each.obstacle]
    answers, _unknown = await cluster.ask_all(vmids, allowed)
    return answers


async def _processor_models(cluster: Cluster, nodes: AbstractSet[str]) -> Mapping[str, str]:
    """Return the model of the processors of nodes; those that cannot be read are left out."""

    async def model(node: str) -> str:
        return (await cluster.pve.node(node).status()).cpu_info.model

    answers, _unknown = await cluster.ask_all(sorted(nodes), model)
    return {node: name for node, name in answers.items() if name}


def _rest(node: str, later: Sequence[Guest]) -> Iterator[str]:
    """Yield how many guests are left for further calls: a node may have thousands, so no names."""
    if later:
        more = counted(len(later), "guest")
        yield f"Left for further calls, as one moves {MOST_GUESTS}: {more} of {node}."


def _is_in_maintenance(facts: MoveFacts) -> bool:
    return facts.ha is not None and facts.node in facts.ha.in_maintenance


def _in_order(targets: Mapping[int, str], guests: Sequence[Guest]) -> list[int]:
    return [row.vmid for row in guests if row.vmid in targets]


def _row(row: Guest, plans: Mapping[int, Plan], reasons: Mapping[int, str]) -> dict[str, Any]:
    """Return a guest as the dry run shows it."""
    guest = {"vmid": row.vmid, "name": row.name}
    if plan := plans.get(row.vmid):
        live = plan.ids["online"]
        how = ("restart" if row.type == "lxc" else "online") if live else "offline"
        return {**guest, "target_node": plan.ids["target_node"], "how": how}
    if reason := reasons.get(row.vmid):
        return {**guest, "why_not": reason}
    return {**guest, "how": _BY_HA}


def _advice(
    cluster: Cluster, facts: MoveFacts, placed: Iterable[Placement], by_ha: Sequence[int]
) -> Iterator[str]:
    """Yield what to know about the node: guests that stay unsaid, and HA."""
    if not cluster.scope.covers_node(facts.node):
        yield "Guests that the role of this key does not cover stay there, if it has any."
    if by_ha:
        yield f"{facts.node} is in HA maintenance, by which HA moves {', '.join(map(str, by_ha))}."
    elif any(each.by_ha for each in placed):
        yield (
            "HA may place guests there again, unless an administrator runs "
            f"`{HA_MAINTENANCE.format(facts.node)}` on a node first."
        )
