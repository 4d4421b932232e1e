"""What a cluster does on schedule: backups, replication, high availability."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class BackupJob:
    """A scheduled backup."""

    id: str
    schedule: str
    options: dict[str, Any] = field(default_factory=dict)
    """Its settings by their API name: storage, vmid, all, mode, compress and so on."""
    enabled: bool = True

    @property
    def vmids(self) -> list[int]:
        """The guests it names."""
        return [int(one) for one in str(self.options.get("vmid", "")).split(",") if one]

    def covers(self, vmid: int, pool: str) -> bool:
        """Whether a guest is among those it saves."""
        if self.options.get("pool"):
            return bool(self.options["pool"] == pool)
        if self.options.get("all"):
            return str(vmid) not in str(self.options.get("exclude", "")).split(",")
        return vmid in self.vmids


@dataclass(slots=True)
class Replication:
    """A guest's disks, copied to another node on schedule."""

    guest: int
    number: int
    source: str
    target: str
    schedule: str = "*/15"
    rate: float | None = None
    comment: str = ""
    disabled: bool = False
    obstacle: str = ""
    """What keeps it from working, until somebody clears it away."""
    is_wanted_now: bool = False
    """Whether somebody asked for it, whatever the schedule says."""
    last_sync: int = 0
    last_try: int = 0
    duration: float = 0.0
    fail_count: int = 0
    error: str = ""

    @property
    def id(self) -> str:
        return f"{self.guest}-{self.number}"


@dataclass(slots=True)
class HaResource:
    """A guest that the cluster keeps running."""

    sid: str
    state: str = "started"
    group: str = ""
    comment: str = ""
    max_restart: int = 1
    max_relocate: int = 1

    @property
    def vmid(self) -> int:
        return int(self.sid.partition(":")[2])


@dataclass(slots=True)
class Pool:
    """Guests and storages under one name."""

    poolid: str
    comment: str = ""
    vmids: set[int] = field(default_factory=set)
    storages: set[str] = field(default_factory=set)


@dataclass(slots=True)
class LogEntry:
    """A line of the cluster's log."""

    time: int
    node: str
    user: str
    tag: str
    text: str
    number: int
    pid: int
    priority: int = 6
