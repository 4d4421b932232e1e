"""Replication jobs and the results of their last runs."""

from msgspec import field

from proxmox_client.json_decoder import Answer
from proxmox_client.names import Name


class ReplicationJob(Answer, frozen=True):
    """A job's configuration; `id` is `vmid-number`, `rate` is MB/s."""

    id: Name
    type: str = "local"
    guest: int = 0
    job_number: int = field(name="jobnum", default=0)
    source: Name | None = None
    target: Name = ""
    schedule: str | None = None
    rate: float | None = None
    disabled: bool = field(name="disable", default=False)
    comment: str | None = None
    remove_job: str | None = None


class ReplicationStatus(ReplicationJob, frozen=True):
    """A job with the state of its runs; times are epoch seconds, 0 for never."""

    vm_type: str | None = field(name="vmtype", default=None)
    last_sync: int | None = None
    last_try: int | None = None
    next_sync: int | None = None
    duration: float | None = None
    fail_count: int = 0
    error: str | None = None
    pid: int | None = None
