"""Scheduled backups and the outcome of their last run."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, ClassVar

from msgspec.structs import replace

from proxmox_client.api.backups import BackupJob as JobAnswer
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.backup_runs import Run, last_runs
from pvemcp_server.tables.reach import Reach
from pvemcp_server.tables.registry import Cost, LoadRequest, made, never_filtered, table
from pvemcp_server.tables.rows import Col, Row, Unit, moment

_KEEP = tuple(
    f"keep-{span}" for span in ("all", "last", "hourly", "daily", "weekly", "monthly", "yearly")
)
_LAST_RUN = ("last_run", "last_run_duration", "last_run_status", "last_run_ok", "last_run_upid")


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
        "last_run_duration",
        "last_run_status",
        "last_run_ok",
    )

    id: Annotated[str, Col("Job id", aliases=("job", "job_id"))]
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
    last_run: Annotated[
        datetime | None, Col("Start of its last run on record as it is now", Unit.TIME)
    ]
    last_run_duration: Annotated[
        int | None,
        Col(
            "Until its tasks had ended on all nodes; null while it runs",
            Unit.SECONDS,
            ("duration",),
        ),
    ]
    last_run_status: Annotated[str | None, Col("OK, WARNINGS: n, or what went wrong")]
    last_run_ok: Annotated[bool | None, Col("Whether the last run went well")]
    last_run_upid: Annotated[str | None, Col("Task of the last run: what GetTask takes")]


def _covered(reach: Reach, row: BackupJob) -> BackupJob | None:
    """Return a visible job with its visible guests only."""
    if not _is_visible(reach, row.vmids):
        return None
    return replace(
        row,
        vmids=[vmid for vmid in row.vmids if reach.guest(vmid)],
        excluded=[vmid for vmid in row.excluded if reach.guest(vmid)],
    )


def _is_visible(reach: Reach, vmids: Iterable[int]) -> bool:
    return reach.scope.everything or any(map(reach.guest, vmids))


@table(
    "backup_jobs",
    tool="ListBackupJobs",
    cost=Cost.PER_NODE,
    covered=_covered,
    looks_filtered=never_filtered,
)
async def backup_jobs(cluster: Cluster, request: LoadRequest) -> list[BackupJob]:
    """Backup jobs with the guests they cover and the outcome of their last run."""
    reach = await Reach.of(cluster)
    every = await cluster.pve.cluster.backup_jobs()
    vmids = await guests_of_jobs(cluster, reach, every, request)
    jobs = [
        job
        for job in every
        if _is_visible(reach, vmids[job.id])
        and (not request.vmids or request.vmids.intersection(vmids[job.id]))
    ]
    runs: dict[str, Run] = {}
    if request.wants_column(*_LAST_RUN):
        runs = await last_runs(cluster, reach, jobs, every, request)
    return await made(cluster, jobs, lambda job: [_row(job, vmids[job.id], runs.get(job.id))])


async def guests_of_jobs(
    cluster: Cluster, reach: Reach, jobs: Sequence[JobAnswer], request: LoadRequest
) -> dict[str, list[int]]:
    """Return the guests of each job, as Proxmox resolves them now.

    Where that call fails, these are the guests that the job names itself.
    """
    named = {job.id: job.vmids for job in jobs}

    async def resolve(job_id: str) -> list[int]:
        included = await cluster.pve.cluster.backup_job_volumes(job_id)
        return sorted(guest.id for guest in included.children)

    resolved = await fanout.each_masked(
        cluster,
        list(named),
        lambda job_id: _is_visible(reach, named[job_id]),
        lambda view, some: fanout.each(view, some, resolve, request, "backup job"),
        request,
    )
    return {**named, **resolved}


def _retention(job: JobAnswer) -> str | None:
    """Return the rules that keep backups, in one order: Proxmox's own is random."""
    rules = job.retention
    names = [*(name for name in _KEEP if name in rules), *sorted(rules.keys() - set(_KEEP))]
    return ",".join(f"{name}={rules[name]}" for name in names) or None


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
        retention=_retention(job),
        notes=job.comment,
        notes_template=job.notes_template,
        last_run=run.start if run else None,
        last_run_duration=run.seconds if run else None,
        last_run_status=run.status if run else None,
        last_run_ok=run.ok if run else None,
        last_run_upid=run.upid if run else None,
    )
