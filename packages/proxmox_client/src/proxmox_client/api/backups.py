"""Backup jobs and the guests they cover."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

from msgspec import field

from proxmox_client.api.resources import GuestResource, GuestType
from proxmox_client.json_decoder import Answer, convert, convert_rows, split_list
from proxmox_client.names import Name
from proxmox_client.properties import Properties, parse, whole_number

_MOST_NAMED: Final = 2 << 20  # characters of all lists of guests; 10,000 guests take 70,000


class BackupJob(Answer, frozen=True):
    """A scheduled backup; `next_run` (epoch) is set only while it is enabled.

    `raw` has all options unparsed, also those without a field here.
    """

    id: Name
    type: str = "vzdump"
    enabled: bool = True
    schedule: str | None = None
    next_run: int | None = field(name="next-run", default=None)
    node: Name | None = None
    storage: Name | None = None
    mode: str | None = None
    compress: str | None = None
    vmid: str | None = None
    all: bool = False
    exclude: str | None = None
    pool: Name | None = None
    prune_backups: dict[str, Any] | str | None = field(name="prune-backups", default=None)
    max_files: int | None = field(name="maxfiles", default=None)
    notes_template: str | None = field(name="notes-template", default=None)
    comment: str | None = None
    protected: bool = False
    repeat_missed: bool = field(name="repeat-missed", default=False)
    mail_to: str | None = field(name="mailto", default=None)
    notification_mode: str | None = field(name="notification-mode", default=None)
    bwlimit: int | None = None
    fleecing: dict[str, Any] | str | None = None
    raw: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Parse a job's options."""
        return convert({**raw, "raw": dict(raw)}, cls)

    @classmethod
    def list_of(cls, rows: Sequence[Mapping[str, Any]]) -> list[Self]:
        """Parse the options of jobs; a malformed job costs itself, as a row of any list does.

        Raise ValueError for jobs that name more guests than any cluster's.
        """
        lists = (str(raw.get(name) or "") for raw in rows for name in ("vmid", "exclude"))
        if sum(map(len, lists)) > _MOST_NAMED:
            raise ValueError("its jobs name too many guests")
        return convert_rows([{**raw, "raw": dict(raw)} for raw in rows], cls)

    @property
    def vmids(self) -> list[int]:
        """The guests named in the job; empty for `all` and for a pool."""
        return _parse_vmids(self.vmid)

    @property
    def excluded(self) -> list[int]:
        """The guests excluded from `all`."""
        return _parse_vmids(self.exclude)

    def covered(self, guests: Iterable[GuestResource]) -> set[int]:
        """Return the VMIDs of those guests that the job selects. Source: PVE/VZDump.pm."""
        here = {guest.vmid: guest.pool for guest in guests if self.node in (None, guest.node)}
        if self.pool:
            return {vmid for vmid, pool in here.items() if pool == self.pool}
        if self.vmid:
            return here.keys() & self.vmids
        return here.keys() - self.excluded

    @property
    def retention(self) -> Properties:
        """The retention: `{"keep-last": "3"}`."""
        return parse(self.prune_backups)


class IncludedVolume(Answer, frozen=True):
    """A volume of a guest, and the reason why it is in the backup or not."""

    id: str = ""
    name: str = ""
    included: bool = False
    reason: str = ""


class IncludedGuest(Answer, frozen=True):
    """A guest that a job covers, with its volumes."""

    id: int
    type: GuestType | str = ""
    name: str = ""
    children: list[IncludedVolume] = field(default_factory=list)


class IncludedVolumes(Answer, frozen=True):
    """The guests and volumes that a backup job covers now."""

    children: list[IncludedGuest] = field(default_factory=list)


class UncoveredGuest(Answer, frozen=True):
    """A guest that no backup job covers."""

    vmid: int
    name: str = ""
    type: str = ""


def _parse_vmids(text: str | None) -> list[int]:
    return list(filter(None, map(whole_number, split_list(text))))
