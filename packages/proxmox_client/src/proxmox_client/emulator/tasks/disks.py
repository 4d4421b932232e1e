"""Disks of guests: allocate, copy, resize and move."""

import re
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Disk, Guest, Kind
from proxmox_client.emulator.state.sizes import GIB, MIB, format_size
from proxmox_client.emulator.state.storage import BLOCK_TYPES, Storage, Volume
from proxmox_client.emulator.state.volume_names import disk_name
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

BYTES_PER_SECOND: Final = 1200 * MIB
MAX_SECONDS: Final = 30.0
IMPORT: Final = "import-from="
CLOUD_INIT: Final = re.compile(r"([\w.-]+):(?:\d+/)?vm-\d+-cloudinit(?:\.\w+)?(?=,|$)")
CLOUD_INIT_REQUEST: Final = re.compile(r"([\w.-]+):cloudinit(?:,.*)?")
SLOTS: Final = ("scsi", "virtio", "sata", "ide", "rootfs", "mp", "efidisk", "tpmstate")


def allocate(state: ClusterState, guest: Guest, slot: str, config: dict[str, Any]) -> list[str]:
    """Create the disk of a slot like `scsi0: shared:32` and return the lines for the log.

    `config` is the guest's running or its pending configuration; the value of the slot becomes
    the volume. Other values are left unchanged.
    """
    value = config[slot]
    if isinstance(value, str) and (drive := CLOUD_INIT_REQUEST.fullmatch(value)):
        volume = _new_cloud_init(state, guest, state.storages[drive[1]])
        config[slot] = f"{volume.volid},media=cdrom"
        return [f"{slot}: successfully created disk '{config[slot]}'"]
    if not isinstance(value, str) or slot.rstrip("0123456789") not in SLOTS:
        return []
    request, _, rest = value.removeprefix("file=").partition(",")
    storage, _, size = request.partition(":")
    if not size.replace(".", "", 1).isdigit() or storage not in state.storages:
        return []
    parts = [part for part in rest.split(",") if part]
    source = next((part[12:] for part in parts if part.startswith(IMPORT)), "")
    capacity = volume_named(state, guest.node, source).size if source else int(float(size) * GIB)
    volume = _new_volume(state, guest, state.storages[storage], capacity)
    options = [part for part in parts if not part.startswith(("format=", IMPORT))]
    disk = ",".join([volume.volid, *options, f"size={format_size(volume.size)}"])
    config[slot] = disk
    return [
        f"Formatting '{volume.name}', fmt={volume.format} size={volume.size}",
        f"{slot}: successfully created disk '{disk}'",
    ]


def with_size(state: ClusterState, guest: Guest, value: str) -> str:
    """Return the value of a drive with an existing volume as Proxmox stores it, with its size.

    Raise ApiError if the volume does not exist. Requests for a new volume, CDs of images and paths
    are returned as they are.
    """
    drive, _, rest = value.removeprefix("file=").removeprefix("volume=").partition(",")
    volume = drive.partition(":")[2]
    options = [part for part in rest.split(",") if part and not part.startswith("size=")]
    is_request = volume.replace(".", "", 1).isdigit() or volume == "cloudinit"
    if not volume or is_request or drive.startswith("/") or "media=cdrom" in options:
        return value
    size = format_size(volume_named(state, guest.node, drive).size)
    return ",".join([drive, *sorted([*options, f"size={size}"])])


def volume_named(state: ClusterState, node: str, volid: str) -> Volume:
    """Return a volume on a node; raise ApiError if it does not exist."""
    volume = state.storage(volid.partition(":")[0]).volumes(node).get(volid)
    if volume is None:
        raise ApiError(f"volume '{volid}' does not exist")
    return volume


def copy_cloud_init(context: TaskContext, copy: Guest, storage: str | None) -> None:
    """Give a clone a cloud-init drive of its own, if its source has one."""
    for slot, value in list(copy.config.items()):
        if drive := CLOUD_INIT.match(str(value)):
            target = context.state.storage(storage or drive[1])
            volume = _new_cloud_init(context.state, copy, target)
            context.log(f"create full clone of drive {slot} ({drive[0]})")
            copy.config[slot] = f"{volume.volid},media=cdrom"


def _new_cloud_init(state: ClusterState, guest: Guest, storage: Storage) -> Volume:
    """Create the drive that Proxmox writes cloud-init's files to."""
    name = f"vm-{guest.vmid}-cloudinit"
    is_block = storage.type in BLOCK_TYPES
    volid = f"{storage.name}:{name}" if is_block else f"{storage.name}:{guest.vmid}/{name}.qcow2"
    format_ = "raw" if is_block else "qcow2"
    volume = Volume(volid, "images", format_, 4 * MIB, int(state.now), guest.vmid)
    return storage.put(guest.node, volume)


def _new_volume(state: ClusterState, guest: Guest, storage: Storage, size: int) -> Volume:
    """Create an empty disk of a guest."""
    number = sum(volume.vmid == guest.vmid for volume in storage.volumes(guest.node).values())
    name, format_ = disk_name(storage, guest, number)
    content = "images" if guest.kind is Kind.QEMU else "rootdir"
    volid, created = f"{storage.name}:{name}", int(state.now)
    return storage.put(guest.node, Volume(volid, content, format_, size, created, guest.vmid))


async def copy_disk(
    context: TaskContext, copy: Guest, disk: Disk, storage: str, *, full: bool
) -> None:
    """Add a copy of a disk to a guest: a full clone, or a linked one based on the disk."""
    target = context.state.storage(storage)
    context.log(f"create {'full' if full else 'linked'} clone of drive {disk.slot} ({disk.volid})")
    await context.spend(min(MAX_SECONDS, disk.size / BYTES_PER_SECOND) if full else 0.5)
    volume = _new_volume(context.state, copy, target, disk.size)
    if not full:
        target.remove(copy.node, volume.volid)
        base = disk.volid.partition(":")[2]
        volume.volid = f"{target.name}:{base}/{volume.name}"
        volume.used, volume.parent = MIB, base
        target.put(copy.node, volume)
    copy.config[disk.slot] = str(copy.config[disk.slot]).replace(disk.volid, volume.volid)


def resize(guest: Guest, slot: str, size: int) -> TaskFunction:
    """Return the task that grows a disk to a size in bytes."""

    async def run(context: TaskContext) -> None:
        guest.require_unlocked()
        disk = _find_disk(guest, slot)
        if size < disk.size:
            raise TaskFailed("shrinking disks is not supported")
        await context.spend(0.5)
        context.state.storage(disk.storage).resize(guest.node, disk.volid, size)
        old, new = f"size={format_size(disk.size)}", f"size={format_size(size)}"
        guest.config[slot] = str(guest.config[slot]).replace(old, new)
        guest.touch()

    return run


def move_disk(guest: Guest, slot: str, storage: str, *, delete: bool) -> TaskFunction:
    """Return the task that moves a disk; the source becomes unused, or is deleted."""

    async def run(context: TaskContext) -> None:
        disk = _find_disk(guest, slot)
        context.log(f"create full clone of drive {slot} ({disk.volid})")
        await copy_disk(context, guest, disk, storage, full=True)
        if delete:
            context.state.storage(disk.storage).remove(guest.node, disk.volid)
        else:
            number = next(n for n in range(256) if f"unused{n}" not in guest.config)
            guest.config[f"unused{number}"] = disk.volid
        guest.touch()

    return run


def _find_disk(guest: Guest, slot: str) -> Disk:
    disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
    if disk is None:
        raise TaskFailed(f"disk '{slot}' does not exist")
    return disk
