"""Guests with the jobs that back them up and the backups that they have."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from proxmox_client.api.backups import UncoveredGuest
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.storage import StorageContentKind, Volume
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables.backup_jobs import guests_of_jobs
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import Reach, of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import Col, Gap, Row, Unit, moment, seconds_since
from pvemcp_server.tables.volumes import listed_volumes, note_hidden_volumes

_KINDS: frozenset[StorageContentKind] = frozenset({"backup"})
_JOBS = ("jobs", "disabled_jobs", "covered")
_BACKUPS = (
    *("last_backup", "last_backup_age", "last_backup_volid", "last_backup_storage"),
    *("last_verified_backup", "last_verified_backup_age", "backups"),
)
_NO_BACKUP = Gap("they have no such backup")


class BackupCoverage(Row):
    """A guest, the jobs that cover it, and its newest backups."""

    minimal: ClassVar[tuple[str, ...]] = (
        "vmid",
        "vm_name",
        "jobs",
        "last_backup",
        "last_backup_age",
        "last_verified_backup",
    )

    vmid: Annotated[int, Col("Guest", aliases=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", aliases=("guest_name", "name"))]
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]
    is_template: Annotated[bool, Col("Whether it is a template")]
    covered: Annotated[bool | None, Col("Whether an enabled job covers it")]
    jobs: Annotated[list[str] | None, Col("Enabled jobs that cover it")]
    disabled_jobs: Annotated[list[str] | None, Col("Disabled jobs that cover it")]
    not_backed_up: Annotated[
        bool | None,
        Col("Whether Proxmox lists it as not backed up: by no job, not even a disabled one"),
    ]
    backups: Annotated[int, Col("Backups of it on all storages that answered", Unit.COUNT)]
    last_backup: Annotated[datetime | None, Col("When the newest was made", Unit.TIME)]
    last_backup_age: Annotated[int | None, Col("Age of the newest", Unit.SECONDS, gap=_NO_BACKUP)]
    last_backup_storage: Annotated[str | None, Col("Storage of the newest")]
    last_backup_volid: Annotated[str | None, Col("Volume id of the newest")]
    last_verified_backup: Annotated[
        datetime | None,
        Col("When the newest verified one was made; only a Backup Server verifies", Unit.TIME),
    ]
    last_verified_backup_age: Annotated[
        int | None, Col("Age of the newest verified one", Unit.SECONDS, gap=_NO_BACKUP)
    ]


@dataclass(frozen=True)
class _Jobs:
    """The jobs that cover each guest, by VMID."""

    enabled: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    disabled: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))


@table(
    "backup_coverage",
    tool="ListBackups",
    joined=("ListBackupJobs",),
    cost=Cost.PER_STORAGE,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
)
async def backup_coverage(cluster: Cluster, request: LoadRequest) -> list[BackupCoverage]:
    """Every guest with the jobs that cover it, its newest backup, and its newest verified one."""
    guests = [
        guest
        for guest in (await cluster.inventory_view()).guests
        if request.wants_vmid(guest.vmid) and request.wants_node(guest.node)
    ]
    jobs, uncovered, backups = await asyncio.gather(
        _jobs(cluster, request), _uncovered(cluster, request), _backups(cluster, request)
    )
    return await made(
        cluster,
        sorted(guests, key=lambda guest: guest.vmid),
        lambda guest: [_row(guest, jobs, uncovered, backups.get(guest.vmid, ()))],
    )


async def _jobs(cluster: Cluster, request: LoadRequest) -> _Jobs | None:
    """Return the jobs of each guest; None with a note if the account may not list them."""
    if not request.wants_column(*_JOBS):
        return None
    failure = f"Jobs that cover guests of {cluster.name} are missing"
    every = await cluster.optional(cluster.pve.cluster.backup_jobs(), failure)
    if every is None:
        return None
    covering = _Jobs()
    resolved = await guests_of_jobs(cluster, await Reach.of(cluster), every, request)
    for job in sorted(every, key=lambda job: job.id):
        by_vmid = covering.enabled if job.enabled else covering.disabled
        for vmid in resolved[job.id]:
            by_vmid[vmid].append(job.id)
    return covering


async def _uncovered(cluster: Cluster, request: LoadRequest) -> frozenset[int] | None:
    """Return the guests that Proxmox lists as not backed up; None if it does not answer."""
    if not request.wants_column("not_backed_up"):
        return None
    failure = f"Guests that {cluster.name} lists as not backed up are missing"
    rows: Sequence[UncoveredGuest] | None = await cluster.optional(
        cluster.pve.cluster.not_backed_up(), failure
    )
    return None if rows is None else frozenset(row.vmid for row in rows)


async def _backups(cluster: Cluster, request: LoadRequest) -> dict[int, list[Volume]]:
    """Return the backups of each guest, the newest first.

    A guest's backups may lie on any node's storage, so the nodes asked for do not narrow this.
    """
    if not request.wants_column(*_BACKUPS):
        return {}
    everywhere = LoadRequest(vmids=request.vmids, budget=request.budget)
    listed = await listed_volumes(cluster, everywhere, _KINDS)
    await note_hidden_volumes(cluster, everywhere, _KINDS, listed)
    by_vmid: dict[int, list[Volume]] = defaultdict(list)
    for volume in (volume for some in listed.values() for volume in some):
        if volume.vmid is not None:
            by_vmid[volume.vmid].append(volume)
    for volumes in by_vmid.values():
        volumes.sort(key=lambda volume: volume.created or 0, reverse=True)
    return by_vmid


def _is_verified(volume: Volume) -> bool:
    return volume.verification is not None and volume.verification.state == "ok"


def _row(
    guest: GuestResource,
    jobs: _Jobs | None,
    uncovered: Iterable[int] | None,
    backups: Sequence[Volume],
) -> BackupCoverage:
    newest = next(iter(backups), None)
    verified = next(filter(_is_verified, backups), None)
    last = moment(newest.created) if newest else None
    last_verified = moment(verified.created) if verified else None
    return BackupCoverage(
        vmid=guest.vmid,
        vm_name=guest.name,
        node=guest.node,
        type=guest.type,
        is_template=guest.template,
        covered=None if jobs is None else bool(jobs.enabled.get(guest.vmid)),
        jobs=None if jobs is None else jobs.enabled.get(guest.vmid, []),
        disabled_jobs=None if jobs is None else jobs.disabled.get(guest.vmid, []),
        not_backed_up=None if uncovered is None else guest.vmid in uncovered,
        backups=len(backups),
        last_backup=last,
        last_backup_age=seconds_since(last),
        last_backup_storage=newest.volid.partition(":")[0] if newest else None,
        last_backup_volid=newest.volid if newest else None,
        last_verified_backup=last_verified,
        last_verified_backup_age=seconds_since(last_verified),
    )
