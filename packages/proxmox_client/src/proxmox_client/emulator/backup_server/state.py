"""The state of an emulated Proxmox Backup Server; times are in seconds since 1970."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from proxmox_client.emulator.clock import Clock
from proxmox_client.emulator.state.cluster import ClusterState

NODE = "pbs"
PRIVILEGES = frozenset(
    {
        *("Sys.Audit", "Sys.Modify", "Datastore.Audit", "Datastore.Allocate", "Datastore.Modify"),
        *("Datastore.Read", "Datastore.Verify", "Datastore.Backup", "Datastore.Prune"),
        *("Remote.Audit", "Remote.Modify", "Remote.Read", "Permissions.Modify"),
    }
)


@dataclass(slots=True)
class Snapshot:
    """A backup at one time; `verified` is ok, failed or empty."""

    type: str
    id: str
    time: int
    size: int
    owner: str = "pve@pbs"
    comment: str = ""
    protected: bool = False
    fingerprint: str = ""
    """That of the key with which it is encrypted."""
    verified: str = ""
    verified_at: int = 0


@dataclass(slots=True)
class Run:
    """The last run of a job; it is running while it has no end."""

    started: int
    ended: int | None
    state: str = "OK"
    user: str = "root@pam"

    def upid(self, type_: str, id_: str) -> str:
        """Return the task's identifier: with one field more than in Proxmox VE."""
        ended = f"{self.started:08X}:{type_}:{id_}:{self.user}:"
        return f"UPID:{NODE}:000003A1:0000B5C1:00000007:{ended}"


@dataclass(slots=True)
class Datastore:
    """A datastore with its snapshots by namespace; the root is an empty text."""

    name: str
    total: int
    used: int
    growth: float = 0.0
    """Bytes per day, during the last month."""
    namespaces: dict[str, list[Snapshot]] = field(default_factory=lambda: {"": []})
    deduplication: float = 9.0
    collected: Run | None = None
    gc_schedule: str = "daily"
    failure: str = ""
    """The error while it cannot be read."""
    comment: str = ""

    def everything(self) -> Iterator[Snapshot]:
        """List the snapshots of all namespaces."""
        for snapshots in self.namespaces.values():
            yield from snapshots


@dataclass(slots=True)
class Job:
    """A scheduled job of a datastore: verify, prune or sync."""

    kind: str
    id: str
    store: str
    schedule: str
    namespace: str = ""
    comment: str = ""
    remote: str = ""
    pushes: bool = False
    """Whether a sync job sends snapshots instead of fetching them."""
    last: Run | None = None


@dataclass(slots=True)
class Account:
    """An API token: its secret and its privileges by path, which hold below it too."""

    secret: str
    privileges: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def on(self, path: str) -> frozenset[str]:
        """Return the privileges on a path: those of the nearest path that has some."""
        while path not in self.privileges and path != "/":
            path = path.rpartition("/")[0] or "/"
        return self.privileges.get(path, frozenset())


@dataclass
class BackupServerState:
    """Everything that a backup server holds; tests may read and change it."""

    name: str
    clock: Clock
    version: str = "4.1"
    patch: str = "2"
    datastores: dict[str, Datastore] = field(default_factory=dict)
    jobs: list[Job] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)

    @property
    def now(self) -> float:
        """The server's time."""
        return self.clock.now()

    @property
    def lists_pushing_jobs(self) -> bool:
        """Whether this version has jobs that push, and a parameter to list them."""
        return tuple(map(int, self.version.split("."))) >= (3, 3)


BuildBackupServer = Callable[[Clock, Mapping[str, ClusterState]], BackupServerState]
"""A function that builds the state of a backup server beside the clusters of a scenario."""
