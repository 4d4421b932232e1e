"""Backup jobs, replication jobs, HA resources, pools and the cluster log."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class BackupJob:
    """A scheduled backup job."""

    id: str
    schedule: str
    options: dict[str, Any] = field(default_factory=dict)
    """Its settings by API name: storage, vmid, all, mode, compress and so on."""
    enabled: bool = True

    @property
    def vmids(self) -> list[int]:
        """The VMIDs that it lists."""
        return [int(vmid) for vmid in str(self.options.get("vmid", "")).split(",") if vmid]

    def covers(self, vmid: int, pool: str) -> bool:
        """Return whether it backs up a guest, given the guest's pool ID."""
        if self.options.get("pool"):
            return bool(self.options["pool"] == pool)
        if self.options.get("all"):
            return str(vmid) not in str(self.options.get("exclude", "")).split(",")
        return vmid in self.vmids


@dataclass(slots=True)
class Replication:
    """A replication job: a guest's disks, copied to another node on a schedule."""

    guest: int
    number: int
    source: str
    target: str
    schedule: str = ""
    """When it runs; empty means every 15 minutes."""
    rate: float | None = None
    comment: str = ""
    disabled: bool = False
    obstacle: str = ""
    """The error of every run until it is cleared."""
    run_now: bool = False
    """Whether to run at the next minute, independent of the schedule."""
    last_sync: int = 0
    last_try: int = 0
    duration: float = 0.0
    fail_count: int = 0
    error: str = ""
    pid: int = 0
    """The process of a run that goes on; 0 between runs."""
    removal: str = ""
    """How it is removed at its next run: `full`, with the copies, or `local`; empty otherwise."""

    @property
    def id(self) -> str:
        return f"{self.guest}-{self.number}"

    @property
    def due_times(self) -> str:
        """Its schedule, with the default."""
        return self.schedule or "*/15"


@dataclass(slots=True)
class HaResource:
    """A guest that is managed by HA."""

    sid: str
    state: str = "started"
    group: str = ""
    comment: str = ""
    shows_state: bool = False
    """Whether its configuration holds the state; started is the default."""
    limits: dict[str, int] = field(default_factory=dict)
    """The limits that were set: max_restart and max_relocate."""

    @property
    def vmid(self) -> int:
        return int(self.sid.partition(":")[2])


@dataclass(slots=True)
class Pool:
    """A pool of guests and storages."""

    poolid: str
    comment: str = ""
    vmids: set[int] = field(default_factory=set)
    storages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class LogEntry:
    """A line of the cluster log."""

    time: int
    node: str
    user: str
    tag: str
    text: str
    number: int
    pid: int
    priority: int = 6
