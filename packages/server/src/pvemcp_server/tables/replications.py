"""Replication jobs of guests."""

from datetime import datetime
from typing import Annotated, ClassVar

from proxmox_client.api.replication import ReplicationJob, ReplicationStatus
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST
from pvemcp_server.tables.reach import Reach, of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, Relation, made, table
from pvemcp_server.tables.rows import Col, Row, Unit, moment

_EVERY_QUARTER = "*/15"  # Proxmox's default, in minutes
_STATE = ("last_sync", "next_sync", "last_try", "duration", "fail_count", "error", "status", "ok")


class Replication(Row):
    """A replication job and the outcome of its last run."""

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

    id: Annotated[
        str, Col("Job id: the guest's VMID and the job's number", aliases=("job", "job_id"))
    ]
    vmid: Annotated[int, Col("Guest it copies", aliases=("guest", "guest_id"))]
    source: Annotated[str | None, Col("Node it copies from", aliases=("node", "source_node"))]
    target: Annotated[str, Col("Node it copies to", aliases=("target_node",))]
    type: Annotated[str, Col("Kind; local is the only one")]
    disabled: Annotated[bool, Col("Whether it is switched off")]
    schedule: Annotated[str, Col("Calendar event")]
    last_sync: Annotated[datetime | None, Col("Last success", Unit.TIME)]
    next_sync: Annotated[
        datetime | None, Col("Next run; null if disabled or before the first", Unit.TIME)
    ]
    duration: Annotated[float | None, Col("How long the last run took", Unit.SECONDS)]
    fail_count: Annotated[int | None, Col("Failures since the last success", Unit.COUNT)]
    error: Annotated[str | None, Col("What went wrong last", aliases=("status_message",))]
    last_try: Annotated[datetime | None, Col("Last attempt", Unit.TIME)]
    ok: Annotated[bool | None, Col("Whether the last attempt went well")]
    job_number: Annotated[int, Col("Number of the job at this guest")]
    rate_limit: Annotated[float | None, Col("Limit in MB/s", aliases=("rate",))]
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
async def replications(cluster: Cluster, request: LoadRequest) -> list[Replication]:
    """Replication jobs of guests with the state of their last run."""
    guests = (await cluster.inventory_view()).by_vmid
    reach = await Reach.of(cluster)  # nodes of hidden guests are neither asked nor named
    jobs = [
        job
        for job in await cluster.pve.cluster.replications()
        if request.wants_vmid(job.guest) and reach.guest(job.guest)
    ]
    # a job follows its guest, while its own source stays the node of its creation
    sources = {
        job.id: guests[job.guest].node if job.guest in guests else job.source for job in jobs
    }
    states: dict[str, ReplicationStatus] = {}
    if request.wants_column(*_STATE):
        states = await _states(cluster, {node for node in sources.values() if node}, request)
    return await made(cluster, jobs, lambda job: [_row(job, sources[job.id], states.get(job.id))])


async def _states(
    cluster: Cluster, sources: set[str], request: LoadRequest
) -> dict[str, ReplicationStatus]:
    """Return the state of each job, as reported by the nodes that run them."""
    answers = await fanout.each(
        cluster,
        sorted(sources - await fanout.offline_among(cluster, sources)),
        lambda node: cluster.pve.node(node).replications(),
        request,
        "state of replications of node",
    )
    return {state.id: state for answer in answers.values() for state in answer}


def _next_run(job: ReplicationJob, state: ReplicationStatus | None) -> datetime | None:
    """Return the next run; for a job that never ran, Proxmox computes it from 1970."""
    return moment(state.next_sync) if state and state.last_try and not job.disabled else None


def _row(job: ReplicationJob, source: str | None, state: ReplicationStatus | None) -> Replication:
    return Replication(
        id=job.id,
        vmid=job.guest,
        source=source,
        target=job.target,
        type=job.type,
        disabled=job.disabled,
        schedule=job.schedule or _EVERY_QUARTER,
        last_sync=moment(state.last_sync) if state else None,
        next_sync=_next_run(job, state),
        duration=state.duration if state else None,
        fail_count=state.fail_count if state else None,
        error=state.error if state else None,
        last_try=moment(state.last_try) if state else None,
        ok=state.fail_count == 0 and not state.error if state and state.last_try else None,
        job_number=job.job_number,
        rate_limit=job.rate,
        comment=job.comment,
    )
