"""Replication jobs of guests."""

from datetime import datetime
from typing import Annotated, ClassVar

from proxmox_client.api.replication import ReplicationJob, ReplicationStatus
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST
from pvemcp_server.tables.reach import Reach, of_guest
from pvemcp_server.tables.registry import Col, Cost, LoadRequest, Relation, Row, Unit, table
from pvemcp_server.tables.values import moment

_STATE = ("last_sync", "next_sync", "last_try", "duration", "fail_count", "error", "status", "ok")


class Replication(Row):
    """A replication job and how its last run went."""

    minimal: ClassVar[tuple[str, ...]] = (
        "id",
        "vmid",
        "source",
        "target",
        "type",
        "disabled",
        "schedule",
        "last_sync",
        "next_sync",
        "duration",
        "fail_count",
        "error",
    )

    id: Annotated[str, Col("Job id: the guest's number and the job's")]
    vmid: Annotated[int, Col("Guest it copies", also=("guest", "guest_id"))]
    source: Annotated[str | None, Col("Node it copies from", also=("node", "source_node"))]
    target: Annotated[str, Col("Node it copies to", also=("target_node",))]
    type: Annotated[str, Col("Kind; local is the only one")]
    disabled: Annotated[bool, Col("Whether it is switched off")]
    schedule: Annotated[str | None, Col("Calendar event; every 15 minutes when none is given")]
    last_sync: Annotated[datetime | None, Col("Last success", Unit.TIME)]
    next_sync: Annotated[datetime | None, Col("Next run", Unit.TIME)]
    duration: Annotated[float | None, Col("How long the last run took", Unit.SECONDS)]
    fail_count: Annotated[int | None, Col("Failures since the last success", Unit.COUNT)]
    error: Annotated[str | None, Col("What went wrong last", also=("status_message",))]
    last_try: Annotated[datetime | None, Col("Last attempt", Unit.TIME)]
    ok: Annotated[bool | None, Col("Whether the last attempt went well")]
    job_number: Annotated[int, Col("Number of the job at this guest")]
    rate_limit: Annotated[float | None, Col("Limit in MB/s", also=("rate",))]
    comment: Annotated[str | None, Col("Comment")]


@table(
    "replications",
    tool="ListReplications",
    cost=Cost.PER_NODE,
    covered=of_guest,
    relations=(
        TO_GUEST,
        Relation("source_node", "nodes", {"source": "node"}, "The node it copies from"),
        Relation("target_node", "nodes", {"target": "node"}, "The node it copies to"),
    ),
)
async def replications(cluster: Cluster, want: LoadRequest) -> list[Replication]:
    """Replication jobs of guests with the state of their last run."""
    known = (await cluster.inventory_view()).by_vmid
    reach = await Reach.of(cluster)  # nodes of other guests are neither asked nor named
    jobs = [
        one
        for one in await cluster.pve.cluster.replications()
        if want.vmid(one.guest) and reach.guest(one.guest)
    ]
    where = {
        one.id: _source(one, known[one.guest].node if one.guest in known else None) for one in jobs
    }
    states = await _states(cluster, {node for node in where.values() if node}, want)
    return [_row(one, where[one.id], states.get(one.id)) for one in jobs]


async def _states(
    cluster: Cluster, sources: set[str], want: LoadRequest
) -> dict[str, ReplicationStatus]:
    """How the runs of each job went, as the nodes say that run them."""
    if not want.column(*_STATE):
        return {}
    down = await fanout.down_among(cluster, sources)
    online = sorted(sources - down)
    found = await fanout.each(
        cluster,
        online,
        lambda node: cluster.pve.node(node).replications(),
        want,
        "state of replications of node",
    )
    return {one.id: one for answer in found.values() for one in answer}


def _source(job: ReplicationJob, node: str | None) -> str | None:
    # the job follows the guest: its own source is what was true when it was made
    return node or job.source


def _row(job: ReplicationJob, source: str | None, state: ReplicationStatus | None) -> Replication:
    return Replication(
        id=job.id,
        vmid=job.guest,
        source=source,
        target=job.target,
        type=job.type,
        disabled=job.disabled,
        schedule=job.schedule,
        last_sync=moment(state.last_sync) if state else None,
        next_sync=moment(state.next_sync) if state else None,
        duration=state.duration if state else None,
        fail_count=state.fail_count if state else None,
        error=state.error if state else None,
        last_try=moment(state.last_try) if state else None,
        ok=state.fail_count == 0 and not state.error if state and state.last_try else None,
        job_number=job.job_number,
        rate_limit=job.rate,
        comment=job.comment,
    )
