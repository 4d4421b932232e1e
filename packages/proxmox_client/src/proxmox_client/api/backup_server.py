"""Answers of Proxmox Backup Server; times are epochs, sizes bytes."""

import re
from typing import Any, ClassVar

from msgspec import field

from proxmox_client.json_decoder import Answer
from proxmox_client.properties import require_version, whole_number

_UPID_START = re.compile(
    r"UPID:[^:]+:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8,}:(?P<started>[0-9A-F]{8}):", re.IGNORECASE
)


def start_of(upid: str) -> int | None:
    """Return when a task began, an epoch; None for another text.

    A backup server's UPID has one field more than that of Proxmox VE: a number before the time.
    """
    match = _UPID_START.match(upid)
    return int(match["started"], 16) if match else None


class BackupServerVersion(Answer, frozen=True):
    """The version of Proxmox Backup Server: major and minor in `release_name`, then the patch."""

    release_name: str = field(name="version")
    patch: str = field(name="release", default="")

    def __post_init__(self) -> None:
        """Raise ValueError for a text that is no version."""
        require_version(self.version)

    @property
    def version(self) -> str:
        """The whole version: 4.1.2."""
        return ".".join(filter(None, (self.release_name, self.patch)))

    @property
    def number(self) -> tuple[int, ...]:
        """The version as numbers for comparison."""
        digits = self.version.replace("-", ".").split(".")
        numbers = map(whole_number, digits)
        return tuple(number for number in numbers if number is not None)


class GarbageCollection(Answer, frozen=True):
    """What the last garbage collection of a datastore counted.

    `index_data_bytes` is the size of all backups before deduplication, `disk_bytes` that of their
    chunks.
    """

    upid: str | None = None
    index_data_bytes: int = field(name="index-data-bytes", default=0)
    disk_bytes: int = field(name="disk-bytes", default=0)
    removed_bytes: int = field(name="removed-bytes", default=0)
    pending_bytes: int = field(name="pending-bytes", default=0)
    still_bad: int = field(name="still-bad", default=0)

    @property
    def deduplication_factor(self) -> float | None:
        """How many times larger the backups are than what they take; None before the first run."""
        return self.index_data_bytes / self.disk_bytes if self.disk_bytes else None


class DatastoreUsage(Answer, frozen=True):
    """The use of a datastore; sizes are absent if it is not readable or only parts are visible.

    `history` has the used fraction (0 to 1) of the last month, one value every `history_delta`
    seconds from `history_start` on. `estimated_full_date` is 0 or in the past for never.
    """

    store: str
    total: int | None = None
    used: int | None = None
    available: int | None = field(name="avail", default=None)
    history: list[float | None] = field(default_factory=list)
    history_start: int | None = field(name="history-start", default=None)
    history_delta: int | None = field(name="history-delta", default=None)
    estimated_full_date: int | None = field(name="estimated-full-date", default=None)
    error: str | None = None
    garbage_collection: GarbageCollection | None = field(name="gc-status", default=None)


class Namespace(Answer, frozen=True):
    """A namespace of a datastore; the root is an empty text."""

    name: str = field(name="ns", default="")


class SnapshotVerification(Answer, frozen=True):
    """The result of a snapshot's last verification."""

    state: str = ""
    upid: str = ""

    @property
    def time(self) -> int | None:
        """When the verification began."""
        return start_of(self.upid)


class BackupSnapshot(Answer, frozen=True):
    """A backup at one time; `fingerprint` is that of its encryption key."""

    are_many: ClassVar[bool] = True

    type: str = field(name="backup-type")
    id: str = field(name="backup-id")
    time: int = field(name="backup-time")
    size: int | None = None
    owner: str | None = None
    comment: str | None = None
    protected: bool = False
    fingerprint: str | None = None
    verification: SnapshotVerification | None = None
    files: list[Any] = field(default_factory=list)

    @property
    def is_encrypted(self) -> bool:
        """Whether its data is encrypted with a key."""
        return self.fingerprint is not None or any(
            isinstance(file, dict) and file.get("crypt-mode") == "encrypt" for file in self.files
        )


class ServerJob(Answer, frozen=True):
    """A job of a datastore and its last run; a garbage collection has no id of its own.

    `last_state` is `OK`, `WARNINGS: n` or an error; it is absent while the job runs.
    """

    id: str = ""
    store: str = ""
    namespace: str | None = field(name="ns", default=None)
    schedule: str | None = None
    next_run: int | None = field(name="next-run", default=None)
    last_state: str | None = field(name="last-run-state", default=None)
    last_upid: str | None = field(name="last-run-upid", default=None)
    last_end: int | None = field(name="last-run-endtime", default=None)
    upid: str | None = None
    disable: bool = False
    comment: str | None = None
    remote: str | None = None
    remote_store: str | None = field(name="remote-store", default=None)
    direction: str | None = field(name="sync-direction", default=None)

    @property
    def last_run(self) -> int | None:
        """When the last run began."""
        return start_of(self.last_upid or self.upid or "")
