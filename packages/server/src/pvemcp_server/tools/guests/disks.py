"""Disks of guests: grow, and move to another storage."""

import re
from functools import partial
from typing import Annotated, Any, Final

from pydantic import Field

from proxmox_client.api.configs import GuestDisk, bytes_of
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import StorageResource
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.errors import BadArgument, Precondition, counted
from pvemcp_server.shown_names import shown_name, shown_volume
from pvemcp_server.toolkit import needs, write_target
from pvemcp_server.toolkit.arguments import ItsCluster, Rule, StorageName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.node_bound import clone_base
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import readable, room_on_storages
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.write_target import TargetGuest, refuse_template, target_guest

DiskName = Annotated[
    str,
    Field(pattern=r"^[a-z]+\d*$", max_length=20, description="As scsi0, rootfs"),
    Rule("a name of a disk is one of the configuration, like scsi0, mp0 or rootfs"),
]
NewSize = Annotated[
    str,
    Field(pattern=r"^\+?\d{1,9}(?:\.\d{1,3})?[KMGT]$", description="+10G, or the new size: 64G"),
    Rule("a size has a unit: +10G grows by that, 64G is the new size"),
]
DeleteSource = Annotated[bool, Field(description="Delete the old volume, else it stays as unused")]

_FIXED_SIZE: Final = {"efidisk", "tpmstate"}
_THICK: Final = {"lvm", "iscsi", "iscsidirect"}  # storages that take the whole size at once
_FILE_SNAPSHOTS: Final = re.compile(r"\.(qcow2|vmdk)$")


@tool(
    "ResizeVmDisk",
    title="Grow disk",
    area=Area.VMS,
    effect=Effect.WRITE,
    toolset=Toolset.MAINTENANCE,
    needs=(needs.GUESTS, needs.CONFIG_DISK, needs.SPACE),
)
async def resize_vm_disk(
    call: Call, *, cluster_name: ItsCluster = None, vmid: VmId, disk: DiskName, size: NewSize
) -> Plan:
    """Grow a disk of a VM or container; disks cannot shrink."""
    guest = await target_guest(call, cluster_name, vmid)
    refuse_template(guest, "grow its disks")
    configs: BothConfigs[Any] = await guest.api.configs()
    drive = _disk(guest, configs, disk)
    if drive.bus in _FIXED_SIZE:
        raise Precondition(f"The size of {disk} is fixed: it has variables, no file system.")
    growth = _growth(guest, drive, size)
    storage = await disk_storage(guest, drive.storage or "")
    thick = storage.plugin_type in _THICK
    if growth:
        refuse_without_room(storage, growth, "MoveVmDisk moves the disk to a storage with room.")
    room = await room_on_storages(guest.cluster, guest.node, [(storage.storage, growth)])
    when = "at once" if thick else "as it is written, on thin storage"
    old = readable(drive.size) if drive.size else "an unknown size"
    new = readable((drive.size or 0) + growth) if growth else size
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Grow {disk} of {guest.label} from {old} to {new} on {storage.storage}.",
        ids={"vmid": vmid, "disk": disk},
        digest=configs.current.digest,
        act=partial(guest.api.resize_disk, disk, size, digest=configs.current.digest),
        warnings=(
            "It cannot be shrunk again: no call undoes this.",
            *await _resize_warnings(guest, drive),
        ),
        room=f"{room} The space is taken {when}.",
    )


@tool(
    "MoveVmDisk",
    title="Move disk",
    area=Area.VMS,
    effect=Effect.WRITE,
    toolset=Toolset.MAINTENANCE,
    needs=(needs.GUESTS, needs.CONFIG_DISK, needs.SPACE),
)
async def move_vm_disk(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    disk: DiskName,
    target_storage: StorageName,
    delete_source: DeleteSource = False,
) -> Plan:
    """Move a disk of a VM or stopped container to another storage of its node."""
    guest = await target_guest(call, cluster_name, vmid)
    refuse_template(guest, "move its disks")
    configs: BothConfigs[Any] = await guest.api.configs()
    drive = _disk(guest, configs, disk)
    if drive.storage == target_storage:
        raise Precondition(f"{disk} of {guest.label} is on {target_storage} already.")
    if guest.state != "stopped" and (guest.resource.type == "lxc" or drive.bus == "tpmstate"):
        raise Precondition(
            f"{guest.label} is {guest.state}, and Proxmox moves {disk} only while it is stopped.",
            hint="ChangeVmState shuts it down.",
        )
    storage = await disk_storage(guest, target_storage)
    snapshots = [each.name for each in await guest.api.snapshots()]
    if snapshots and delete_source:
        raise Precondition(
            f"{guest.label} has {counted(len(snapshots), 'snapshot')}, which need the old volume.",
            hint="Move it without delete_source, or delete the snapshots first.",
        )
    room = await room_on_storages(guest.cluster, guest.node, [(storage.storage, drive.size)])
    source = "Delete the old volume then." if delete_source else "The old volume stays as unused."
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Move {disk} of {guest.label} from {shown_name(drive.storage or '')} to "
        f"{target_storage}. {source}",
        ids={"vmid": vmid, "disk": disk, "target_storage": target_storage},
        digest=configs.current.digest,
        past=past_tasks(guest, "qmmove", "move_volume"),
        act=partial(
            guest.api.move_disk,
            disk,
            target_storage,
            delete=delete_source or None,
            digest=configs.current.digest,
        ),
        warnings=tuple(_move_warnings(guest, drive, snapshots)),
        room=room,
        undo=_move_back(guest, drive, target_storage),
    )


def _move_back(guest: TargetGuest, drive: GuestDisk, target_storage: str) -> Undo:
    arguments = {"disk": drive.id, "target_storage": drive.storage}
    where = {"cluster_name": guest.cluster.name, "vmid": guest.vmid}
    left = LeftState(storages={drive.id: target_storage})
    return Undo(NextCall("MoveVmDisk", where | arguments), {guest.vmid: left})


def _disk(guest: TargetGuest, configs: BothConfigs[Any], name: str) -> GuestDisk:
    """Return a disk that the guest uses now and after a restart; raise an error for others."""
    disks: list[GuestDisk] = [
        disk for disk in configs.current.disks if disk.media != "cdrom" and disk.bus != "unused"
    ]
    drive = next((disk for disk in disks if disk.id == name), None)
    if drive is None:
        names = ", ".join(disk.id for disk in disks)
        unused = next((disk for disk in configs.current.disks if disk.id == name), None)
        kind = "is no disk that it uses" if unused else "does not exist"
        raise BadArgument("disk", f"{name} of {guest.label} {kind}.", hint=f"It has {names}.")
    if configs.pending.raw.get(name) != configs.current.raw.get(name):
        raise Precondition(
            f"A change of {name} is pending until {guest.label} restarts.",
            hint=f"Restart it, or drop the change by UpdateVmConfig with revert=['{name}'].",
        )
    if not drive.storage:
        volume = shown_volume(drive.volume)
        raise Precondition(f"{name} of {guest.label} is {volume}, which no storage holds.")
    return drive


def _growth(guest: TargetGuest, drive: GuestDisk, size: str) -> int | None:
    """Return the bytes by which the disk grows, None if its present size is unknown."""
    given = bytes_of(size.removeprefix("+")) or 0
    if drive.size is None:
        return given if size.startswith("+") else None
    growth = given if size.startswith("+") else given - drive.size
    if growth < 0:
        raise Precondition(
            f"{drive.id} of {guest.label} has {readable(drive.size)}: disks cannot shrink.",
            hint="A smaller one takes a new disk and a copy of the files inside the guest.",
        )
    if growth == 0:
        raise Precondition(f"{drive.id} of {guest.label} has {readable(drive.size)} already.")
    return growth


def refuse_without_room(storage: StorageResource, size: int, hint: str) -> None:
    """Raise Precondition if a storage that takes a size at once has less free."""
    free = None if storage.disk is None else (storage.disk_max or 0) - storage.disk
    if storage.plugin_type in _THICK and free is not None and size > free:
        raise Precondition(
            f"{storage.storage} has {readable(free)} free, and takes {readable(size)} more at "
            "once.",
            hint=hint,
        )


async def disk_storage(guest: TargetGuest, name: str) -> StorageResource:
    """Return a storage that the caller may fill with disks of the guest's kind."""
    content = "images" if guest.resource.type == "qemu" else "rootdir"
    return await write_target.target_storage(guest.cluster, name, guest.node, content)


async def _resize_warnings(guest: TargetGuest, drive: GuestDisk) -> list[str]:
    warnings = []
    if guest.resource.type == "qemu":
        sees = "sees it at once" if guest.state != "stopped" else "sees it when it starts"
        warnings.append(
            f"The guest {sees}; its partition and file system have to be grown inside of it."
        )
    else:
        warnings.append("Proxmox grows the file system in it too.")
    if snapshots := await guest.api.snapshots():
        count = counted(len(snapshots), "snapshot")
        warnings.append(f"It has {count}: rolling back to one brings the old size back.")
        if _FILE_SNAPSHOTS.search(drive.volume):
            warnings.append("Proxmox may refuse it for an image that has snapshots inside.")
    return warnings


def _move_warnings(guest: TargetGuest, drive: GuestDisk, snapshots: list[str]) -> list[str]:
    warnings = []
    if drive.size:
        live = " while the guest runs" if guest.state != "stopped" else ""
        warnings.append(f"{readable(drive.size)} are copied{live}, which may take long.")
    if base := clone_base(drive):
        warnings.append(f"It is a linked clone of {shown_volume(base)}, and becomes a full copy.")
    if snapshots:
        names = ", ".join(map(shown_name, snapshots[:5]))
        warnings.append(f"Its snapshots keep the old volume: {names}.")
    return warnings
