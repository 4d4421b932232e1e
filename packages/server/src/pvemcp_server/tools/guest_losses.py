"""What a guest has that its deletion, or a restore over it, would take away: disks, snapshots.

And what would be left of it: its backups, and volumes that Proxmox doesn't remove with it.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from proxmox_client.api.configs import GuestConfig, GuestDisk
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.guests import Snapshot as ProxmoxSnapshot
from proxmox_client.api.storage import Volume
from proxmox_client.volumes import owners
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition, counted
from pvemcp_server.shown_names import shown_name, shown_volume
from pvemcp_server.tables import Backup, LoadRequest, backups
from pvemcp_server.tables.rows import seconds_since
from pvemcp_server.tables.volumes import listed_volumes
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import NewestFirst, with_budget
from pvemcp_server.toolkit.room import readable
from pvemcp_server.toolkit.volume_users import clones_of
from pvemcp_server.toolkit.write_target import TargetGuest
from pvemcp_server.tools.granted_rows import granted_rows

_NAMED = 5  # things of a kind that a sentence names
_DAY = 86_400


@dataclass(frozen=True)
class GuestLosses:
    """What a guest has. `backups` are those that the key may see, newest first; None if unknown."""

    label: str
    vmid: int
    configs: BothConfigs[Any]
    snapshots: Sequence[ProxmoxSnapshot]
    volumes: Sequence[Volume]  # those that it owns, as far as the account may list them
    named: frozenset[str]  # the volumes that its configuration and its snapshots name
    backups: Sequence[Backup] | None

    @property
    def disks(self) -> list[GuestDisk]:
        """The disks that it owns, and that go with it."""
        return [disk for disk in self._volumes if _owner(disk.volume) == self.vmid]

    @property
    def foreign_disks(self) -> list[GuestDisk]:
        """The disks that other guests own or that are no volumes; they stay."""
        disks = (disk for disk in self._volumes if disk.media != "cdrom")
        return [disk for disk in disks if _owner(disk.volume) != self.vmid]

    @property
    def _volumes(self) -> list[GuestDisk]:
        return [disk for disk in self.configs.disks if disk.volume != "none"]

    @property
    def lost(self) -> str:
        """A sentence on what cannot be restored."""
        sizes = {volume.volid: volume.size for volume in self.volumes}
        disks = [
            f"{disk.id} on {shown_name(disk.storage or '')}"
            f"{_size(disk.size or sizes.get(disk.volume))}"
            for disk in self.disks
        ]
        parts = [_some("disk", disks)]
        if self.snapshots:
            parts.append(
                _some("snapshot", [shown_name(snapshot.name) for snapshot in self.snapshots])
            )
        return f"Lost: {' and '.join(parts)}."

    @property
    def backed_up(self) -> str:
        """A sentence on its newest backup."""
        if self.backups is None:
            return "Whether it has a backup is not known."
        if not self.backups:
            return "It has no backup that this key sees: BackupVm first keeps it."
        newest = self.backups[0]
        time = f" of {newest.creation:%Y-%m-%d %H:%M} UTC" if newest.creation else ""
        days = (seconds_since(newest.creation) or 0) // _DAY
        age = f"{counted(days, 'day')} old" if days else "less than a day old"
        others = f", and {len(self.backups) - 1} older" if len(self.backups) > 1 else ""
        bad = ", whose verification failed" if newest.verified is False else ""
        backup = f"{shown_volume(newest.volid)}{time}, {age}{bad}{others}"
        return f"Its newest backup is {backup}; backups stay."

    @property
    def staying(self) -> Iterator[str]:
        """Yield sentences on volumes that stay."""
        if unnamed := [volume for volume in self.volumes if volume.volid not in self.named]:
            volumes = [f"{shown_volume(volume.volid)}{_size(volume.size)}" for volume in unnamed]
            yield f"Its configuration does not name {_some('volume', volumes)}, so that stays."
        if foreign := self.foreign_disks:
            volumes = [shown_volume(disk.volume) for disk in foreign]
            yield f"Not its own, so they stay: {', '.join(volumes)}."


async def guest_losses(call: Call, guest: TargetGuest) -> GuestLosses:
    """Read what a guest has.

    Raise Precondition for a template with linked clones, whose disks need its own.
    """
    reads: tuple[Any, ...] = (guest.api.configs(), guest.api.snapshots())
    configs, snapshots = await asyncio.gather(*reads)
    saved = await asyncio.gather(*(guest.api.config(snapshot=each.name) for each in snapshots))
    volumes, own_backups = await asyncio.gather(
        _volumes(call, guest), _backups(call, guest.cluster, guest.vmid)
    )
    losses = GuestLosses(
        label=guest.label,
        vmid=guest.vmid,
        configs=configs,
        snapshots=snapshots,
        volumes=volumes,
        named=frozenset(_named((configs.current, configs.pending, *saved))),
        backups=own_backups,
    )
    if configs.current.template:
        await _refuse_linked_clones(guest, losses.disks)
    return losses


def refuse_protection(losses: GuestLosses) -> None:
    """Raise Precondition if Proxmox's option protects the guest."""
    if losses.configs.current.protection:
        raise Precondition(
            f"{losses.label} is protected in Proxmox.",
            hint="Switch its option protection off in Proxmox first.",
        )


async def _volumes(call: Call, guest: TargetGuest) -> list[Volume]:
    """Return the disks that belong to the guest, as far as the account may list them."""
    request = LoadRequest(vmids=frozenset({guest.vmid}), nodes=frozenset({guest.node}))
    kinds = frozenset({"images", "rootdir"})
    places = await listed_volumes(guest.cluster, with_budget(call, request), kinds)  # type: ignore[arg-type]  # literals
    volumes = {volume.volid: volume for some in places.values() for volume in some}
    return [v for _, v in sorted(volumes.items()) if v.vmid == guest.vmid and v.content in kinds]


async def _backups(call: Call, cluster: Cluster, vmid: int) -> list[Backup] | None:
    """Return the backups of a guest that the role grants, newest first; None if unknown."""
    request = LoadRequest(vmids=frozenset({vmid}))
    rows = await granted_rows(call, cluster, backups, request)
    if rows is None:
        return None
    return sorted((row for row in rows if row.vmid == vmid), key=NewestFirst("creation"))


def _named(configs: Iterable[GuestConfig]) -> Iterator[str]:
    """Yield the words of all values: the volumes that configurations name are among them."""
    for config in configs:
        for value in config.raw.values():
            yield from re.split("[,=]", str(value))


async def _refuse_linked_clones(guest: TargetGuest, disks: Sequence[GuestDisk]) -> None:
    """Raise Precondition if disks of other guests build on the template's."""
    guests = (await guest.cluster.inventory_view()).by_vmid
    vmids: set[int | None] = set()
    for storage in sorted({disk.storage for disk in disks if disk.storage}):
        content = await guest.cluster.pve.storage(guest.node, storage).content()
        own = {disk.volume for disk in disks}
        bases = {volume.volid: volume for volume in content if volume.volid in own}
        vmids |= {clone.vmid for clone in clones_of([*bases.values()], content)}
    if vmids:
        visible = [str(vmid) for vmid in sorted(guests.keys() & vmids)]
        hidden = "others" if visible else "guests that this key does not see"
        named = [*visible, *([hidden] if len(visible) < len(vmids) else [])]
        raise Precondition(
            f"{guest.label} is the base of linked clones: {', '.join(named)}.",
            hint="Delete those first, or make full copies of them.",
        )


def _owner(volume: str) -> int | None:
    """Return the VMID in a volume's name, which decides about its owner."""
    return next(reversed(owners(volume)), None)


def _some(what: str, names: Sequence[str]) -> str:
    """Return a number of things and the first of their names."""
    if not names:
        return f"no {what}"
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{counted(len(names), what)} ({', '.join(names[:_NAMED])}{more})"


def _size(size: int | None) -> str:
    return f", {readable(size)}" if size else ""
