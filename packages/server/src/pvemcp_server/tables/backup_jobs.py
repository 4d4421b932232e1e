"""Scheduled backups and how they last went."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.backups import BackupJob as JobAnswer
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.backup_runs import Run, last_runs
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import Col, Cost, LoadRequest, Row, Unit, never_filtered, table
from pvemcp_server.tables.values import moment

_LAST_RUN = ("last_run", "last_run_status", "last_run_ok", "last_run_upid")


class BackupJob(Row):
    """A backup job."""

    minimal: ClassVar[tuple[str, ...]] = ("id", "enabled", "schedule", "next_run", "storage")
    full: ClassVar[tuple[str, ...]] = (
        "id",
        "enabled",
        "schedule",
        "next_run",
        "node",
        "storage",
        "mode",
        "compress",
        "vmids",
        "pool",
        "retention",
        "notes",
        "last_run",
        "last_run_status",
        "last_run_ok",
    )

    id: Annotated[str, Col("Job id")]
    enabled: Annotated[bool, Col("Whether it runs")]
    schedule: Annotated[str | None, Col("Calendar event")]
    next_run: Annotated[datetime | None, Col("Next run", Unit.TIME)]
    node: Annotated[str | None, Col("Node it is limited to")]
    storage: Annotated[str | None, Col("Storage it writes to")]
    mode: Annotated[
        str | None, Col("How guests are treated", values=("snapshot", "suspend", "stop"))
    ]
    compress: Annotated[str | None, Col("Compression")]
    vmids: Annotated[list[int], Col("Guests it covers: all, exclude and pool resolved")]
    all_guests: Annotated[bool, Col("Whether it covers all guests but the excluded")]
    excluded: Annotated[list[int], Col("Guests left out of all")]
    pool: Annotated[str | None, Col("Pool whose guests it covers")]
    retention: Annotated[str | None, Col("How many backups are kept")]
    notes: Annotated[str | None, Col("Comment of the job")]
    notes_template: Annotated[str | None, Col("Notes that its backups get")]
    last_run: Annotated[datetime | None, Col("Start of its last run that is on record", Unit.TIME)]
    last_run_status: Annotated[str | None, Col("OK, WARNINGS: n, or what went wrong")]
    last_run_ok: Annotated[bool | None, Col("Whether the last run went well")]
    last_run_upid: Annotated[str | None, Col("Task of the last run: what GetTask takes")]


def _covered(reach: Reach, row: BackupJob) -> BackupJob | None:
    """A job with those of its guests that the caller may see."""
    return (
        replace(
            row,
            vmids=[vmid for vmid in row.vmids if reach.guest(vmid)],
            excluded=[vmid for vmid in row.excluded if reach.guest(vmid)],
        )
        if _is_seen(reach, row.vmids)
        else None
    )


def _is_seen(reach: Reach, vmids: Iterable[int]) -> bool:
    return reach.scope.everything or any(map(reach.guest, vmids))


@table(
    "backup_jobs",
    tool="ListBackupJobs",
    cost=Cost.PER_NODE,
    covered=_covered,
    looks_filtered=never_filtered,
)
async def backup_jobs(cluster: Cluster, want: LoadRequest) -> list[BackupJob]:
    """Backup jobs with the guests they cover and the outcome of their last run."""
    reach = await Reach.of(cluster)
    jobs = await cluster.pve.cluster.backup_jobs()
    vmids = await _vmids(cluster, reach, jobs, want)
    wanted = [
        job
        for job in jobs
        if _is_seen(reach, vmids[job.id])
        and (not want.vmids or want.vmids.intersection(vmids[job.id]))
    ]
    runs = await last_runs(cluster, reach, wanted, jobs, want) if want.column(*_LAST_RUN) else {}
    return [_row(job, vmids[job.id], runs.get(job.id)) for job in wanted]


async def _vmids(
    cluster: Cluster, reach: Reach, jobs: Sequence[JobAnswer], want: LoadRequest
) -> dict[str, list[int]]:
    """The guests of each job; those that it names where nobody says which it covers."""
    named = {job.id: job.vmids for job in jobs}
    covered = await fanout.quietly(
        cluster,
        list(named),
        lambda name: _is_seen(reach, named[name]),
        lambda view, some: fanout.each(
            view, some, lambda name: _covers(view, name), want, "backup job"
        ),
    )
    return {**named, **covered}


async def _covers(cluster: Cluster, job_id: str) -> list[int]:
    """The guests it would back up now, as Proxmox works it out."""
    included = await cluster.pve.cluster.backup_job_volumes(job_id)
    return sorted(guest.id for guest in included.children)


def _row(job: JobAnswer, vmids: list[int], run: Run | None) -> BackupJob:
    return BackupJob(
        id=job.id,
        enabled=job.enabled,
        schedule=job.schedule,
        next_run=moment(job.next_run),
        node=job.node,
        storage=job.storage,
        mode=job.mode,
        compress=job.compress,
        vmids=vmids,
        all_guests=job.all,
        excluded=job.excluded,
        pool=job.pool,
        retention=",".join(f"{key}={n}" for key, n in job.retention.items()) or None,
        notes=job.comment,
        notes_template=job.notes_template,
        last_run=run.start if run else None,
        last_run_status=run.status if run else None,
        last_run_ok=run.ok if run else None,
        last_run_upid=run.upid if run else None,
    )
