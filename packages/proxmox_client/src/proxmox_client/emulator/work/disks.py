"""The disks of guests: allocated, copied, grown and moved."""

from typing import Any, Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.scenario.builder import disk_name
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Disk, Guest, Kind
from proxmox_client.emulator.state.sizes import GIB, MIB, format_size
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.work.board import Job, Work

COPY_SPEED: Final = 1200 * MIB
LONGEST: Final = 30.0
SLOTS: Final = ("scsi", "virtio", "sata", "ide", "rootfs", "mp", "efidisk", "tpmstate")


def allocate(state: ClusterState, guest: Guest, slot: str, config: dict[str, Any]) -> list[str]:
    """Turn a wish like shared:32 into a disk that lies there; the answer is what a log says.

    The configuration is the guest's running or its pending one.
    """
    value = config[slot]
    if not isinstance(value, str) or slot.rstrip("0123456789") not in SLOTS:
        return []
    wish, _, rest = value.removeprefix("file=").partition(",")
    storage, _, size = wish.partition(":")
    if not size.replace(".", "", 1).isdigit() or storage not in state.storages:
        return []
    volume = _new_volume(state, guest, state.storages[storage], int(float(size) * GIB))
    kept = [part for part in rest.split(",") if part and not part.startswith("format=")]
    disk = ",".join([volume.volid, *kept, f"size={format_size(volume.size)}"])
    config[slot] = disk
    return [
        f"Formatting '{volume.name}', fmt={volume.format} size={volume.size}",
        f"{slot}: successfully created disk '{disk}'",
    ]


def _new_volume(state: ClusterState, guest: Guest, storage: Storage, size: int) -> Volume:
    """An empty disk of a guest."""
    taken = sum(each.vmid == guest.vmid for each in storage.volumes(guest.node).values())
    name, format_ = disk_name(storage, guest, taken)
    content = "images" if guest.kind is Kind.QEMU else "rootdir"
    volid, made = f"{storage.name}:{name}", int(state.now)
    return storage.put(guest.node, Volume(volid, content, format_, size, made, guest.vmid))


async def copy_disk(job: Job, copy: Guest, disk: Disk, storage: str, *, full: bool) -> None:
    """Give a guest a copy of a disk: whole, or a thin one that hangs on it."""
    target = job.state.storage(storage)
    job.log(f"create {'full' if full else 'linked'} clone of drive {disk.slot} ({disk.volid})")
    await job.spend(min(LONGEST, disk.size / COPY_SPEED) if full else 0.5)
    volume = _new_volume(job.state, copy, target, disk.size)
    if not full:
        target.remove(copy.node, volume.volid)
        volume.used, volume.parent = MIB, disk.volid.partition(":")[2]
        target.put(copy.node, volume)
    copy.config[disk.slot] = str(copy.config[disk.slot]).replace(disk.volid, volume.volid)


def resize(guest: Guest, slot: str, size: int) -> Work:
    """Grow a disk."""

    async def work(job: Job) -> None:
        disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
        if disk is None:
            raise TaskFailed(f"disk '{slot}' does not exist")
        if size < disk.size:
            raise TaskFailed("shrinking disks is not supported")
        await job.spend(0.5)
        job.state.storage(disk.storage).resize(guest.node, disk.volid, size)
        old, new = f"size={format_size(disk.size)}", f"size={format_size(size)}"
        guest.config[slot] = str(guest.config[slot]).replace(old, new)
        guest.touch()

    return work


def move_disk(guest: Guest, slot: str, storage: str, *, delete: bool) -> Work:
    """Copy a disk to another storage; what it was stays as unused unless it is deleted."""

    async def work(job: Job) -> None:
        disk = next((disk for disk in guest.disks() if disk.slot == slot), None)
        if disk is None:
            raise TaskFailed(f"disk '{slot}' does not exist")
        job.log(f"create full clone of drive {slot} ({disk.volid})")
        await copy_disk(job, guest, disk, storage, full=True)
        if delete:
            job.state.storage(disk.storage).remove(guest.node, disk.volid)
        else:
            number = next(n for n in range(256) if f"unused{n}" not in guest.config)
            guest.config[f"unused{number}"] = disk.volid
        guest.touch()

    return work
