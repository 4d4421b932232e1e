"""CheckMaintenance: whether a node can be rebooted or taken away, and what to do before."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Annotated, Final

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.shown_names import shown_phrase
from pvemcp_server.tables.rows import Col, Row, Unit
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import cluster_with
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.registry import Document, document, tool, tools
from pvemcp_server.tools.maintenance.facts import Facts, read_facts
from pvemcp_server.tools.maintenance.findings import VERDICTS, findings, verdict
from pvemcp_server.tools.maintenance.placement import Placement, placements

_MOST: Final = 30  # guests of each list


class MaintenanceCheck(Row):
    """Whether a node can be rebooted or taken away now."""

    cluster: Annotated[str, Col("Cluster")]
    node: Annotated[str, Col("Node")]
    verdict: Annotated[
        str,
        Col(
            "safe; prepare: safe after what the findings say; unsafe: the cluster or its data is "
            "at risk; unknown: something that decides is not known",
            values=tuple(VERDICTS.values()),
        ),
    ]
    findings: Annotated[list[str], Col("Reasons, the most severe first")]
    running: Annotated[
        int | None, Col("Running guests; null: the state of some is unknown", Unit.COUNT)
    ]
    ha: Annotated[list[str], Col("Running guests that HA can move, and where to")]
    movable: Annotated[list[int], Col("Running guests without HA that MigrateVm can move")]
    stuck: Annotated[list[str], Col("Running guests that cannot move, and why")]
    next: Annotated[
        list[str], Col("Calls that prepare it: move guests to a node, shut the others down")
    ]


@tool(
    "CheckMaintenance",
    area=Area.NODES,
    effect=Effect.READ,
    answer=MaintenanceCheck,
    needs=(needs.CLUSTER, needs.GUESTS, needs.NODES, needs.STORAGES),
)
async def check_maintenance(
    call: Call, *, cluster_name: ItsCluster = None, node: NodeName
) -> Document:
    """Check whether a node is safe to reboot: guests, HA, quorum, Ceph, room, tasks, jobs."""
    cluster = await cluster_with(call, cluster_name, nodes=[node])
    name = (await cluster.node(node)).node
    facts = await read_facts(call, cluster, name)
    placed = await asyncio.to_thread(placements, facts)
    found = findings(facts, placed)
    ha = [each for each in placed or () if each.by_ha and not each.obstacle]
    movable = [each for each in placed or () if not each.by_ha and not each.obstacle]
    stuck = [each for each in placed or () if each.obstacle]
    if (most := max(map(len, (ha, movable, stuck)))) > _MOST:
        call.notes.add(f"Each list has its first {_MOST} guests, of up to {most}.")
    return document(
        MaintenanceCheck(
            cluster=cluster.name,
            node=name,
            verdict=verdict(found),
            findings=[finding.text for finding in found],
            running=_running(facts),
            ha=[f"{shown_phrase(each.label)} → {_first(each.targets)}" for each in ha[:_MOST]],
            movable=[each.vmid for each in movable[:_MOST]],
            stuck=[f"{shown_phrase(each.label)}: {each.obstacle}" for each in stuck[:_MOST]],
            next=list(_next_calls(call, facts, movable, stuck)),
        )
    )


def _running(facts: Facts) -> int | None:
    """Return how many guests run there; None if the state of one is not known."""
    states = None if facts.guests is None else [row.status for row in facts.guests]
    if states is None or facts.is_offline or "unknown" in states:
        return None
    return states.count("running")


def _next_calls(
    call: Call, facts: Facts, movable: Sequence[Placement], stuck: Sequence[Placement]
) -> Iterator[str]:
    """Yield the calls that the key may make."""
    place = {"cluster_name": facts.cluster}
    steps = []
    if facts.tasks:
        steps.append(NextCall("ListTasks", {**place, "node": facts.node, "status": "running"}))
    if movable:
        target = movable[0].targets[0]
        vmids = [each.vmid for each in movable if each.targets[0] == target][:_MOST]
        move = {**place, "vmids": vmids, "target_node": target, "online": True}
        steps.append(NextCall("MigrateVm", move))
        every = {**place, "node": facts.node, "dry_run": True}
        steps.append(NextCall("EvacuateNode", every))
    if stuck:
        vmids = [each.vmid for each in stuck[:_MOST]]
        stop = {**place, "vmids": vmids, "action": "Shutdown"}
        steps.append(NextCall("ChangeVmState", stop))
    yield from (step.text for step in steps if call.caller.may_call(tools()[step.tool]))


def _first(targets: Sequence[str]) -> str:
    more = f" or {len(targets) - 1} more" if len(targets) > 1 else ""
    return f"{targets[0]}{more}"
