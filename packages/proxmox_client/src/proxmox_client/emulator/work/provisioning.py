"""Making, copying and destroying guests, and what happens to their disks."""

from collections.abc import Mapping
from typing import Any

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.scenario.builder import disk_name
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Agent, Disk, Guest, Kind, disks_of
from proxmox_client.emulator.state.load import Load
from proxmox_client.emulator.state.sizes import GIB, MIB, format_size
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.work.board import Job, Work
from proxmox_client.emulator.work.locks import locked
from proxmox_client.emulator.work.power import start as start_work

COPY_SPEED = 1200 * MIB
LONGEST = 30.0


def create(
    state: ClusterState, kind: Kind, node: str, vmid: int, options: Mapping[str, Any]
) -> Work:
    """Make a guest, with the disks its options ask for."""

    async def work(job: Job) -> None:
        guest = Guest(vmid, kind, node, created=state.now, load=Load(phase=vmid))
        guest.obeys = False
        state.guests[vmid] = guest
        skipped = (
            "node",
            "vmid",
            "start",
            "pool",
            "ostemplate",
            "storage",
            "force",
            "password",
            "archive",
        )
        settings = {key: value for key, value in options.items() if key not in skipped}
        guest.config.update(stored(settings))
        if kind is Kind.LXC:
            guest.agent = Agent()
            storage = str(options.get("storage", "local"))
            guest.config.setdefault("rootfs", f"{storage}:4")
            guest.config.setdefault("arch", "amd64")
        for slot in list(guest.config):
            allocate(job, guest, slot)
        _complete(state, guest)
        if pool := options.get("pool"):
            state.pools[pool].vmids.add(vmid)
        state.changed()
        await job.spend(1)
        if options.get("start"):
            await start_work(state, kind, node, vmid)(job)

    return work


def allocate(job: Job | None, guest: Guest, slot: str, state: ClusterState | None = None) -> None:
    """Turn a wish like shared:32 into a disk that lies there."""
    value = guest.config[slot]
    where = state or (job.state if job else None)
    if where is None or not isinstance(value, str) or slot.rstrip("0123456789") not in DISK_SLOTS:
        return
    volume, _, rest = value.removeprefix("file=").partition(",")
    storage, _, size = volume.partition(":")
    if not size.replace(".", "", 1).isdigit() or storage not in where.storages:
        return
    target = where.storages[storage]
    taken = sum(volume.vmid == guest.vmid for volume in target.volumes(guest.node).values())
    name, format_ = disk_name(target, guest, taken)
    length = int(float(size) * GIB)
    content = "images" if guest.kind is Kind.QEMU else "rootdir"
    made = int(where.now)
    target.put(guest.node, Volume(f"{storage}:{name}", content, format_, length, made, guest.vmid))
    kept = ",".join(part for part in rest.split(",") if part and not part.startswith("format="))
    guest.config[slot] = ",".join(
        filter(None, [f"{storage}:{name}", kept, f"size={format_size(length)}"])
    )
    if job is not None:
        disk = guest.config[slot]
        job.log(f"Formatting '{name}', fmt={format_} size={length}")
        job.log(f"{slot}: successfully created disk '{disk}'")


DISK_SLOTS = ("scsi", "virtio", "sata", "ide", "rootfs", "mp", "efidisk", "tpmstate")


def _complete(state: ClusterState, guest: Guest) -> None:
    """Add what a machine gets when nobody says."""
    if guest.kind is Kind.LXC:
        return
    mark = f"{guest.vmid:08x}"
    guest.config.setdefault("smbios1", f"uuid={mark}-0000-4000-8000-000000000000")
    guest.config.setdefault("vmgenid", f"{mark}-0000-4000-9000-000000000000")
    guest.config.setdefault("meta", f"creation-qemu=10.0.2,ctime={int(state.now)}")
    bootable = [disk.slot for disk in guest.disks()] + [
        key for key in guest.config if key[:3] == "net"
    ]
    guest.config.setdefault("boot", f"order={';'.join(bootable)}")
    for key, value in guest.config.items():
        if key.startswith("net") and key[3:].isdigit():
            guest.config[key] = with_address(str(value), guest.vmid, int(key[3:]))


def with_address(value: str, vmid: int, number: int) -> str:
    """A network device with the hardware address it gets when nobody gives one."""
    model, comma, rest = value.partition(",")
    if "=" in model or "macaddr" in rest:
        return value
    tail = f"{vmid >> 8 & 255:02X}:{vmid & 255:02X}:{number:02X}"
    return f"{model}=BC:24:11:{tail}{comma}{rest}"


def clone(source: Guest, newid: int, target: str, options: Mapping[str, Any]) -> Work:
    """Copy a guest: in full, or linked to a template."""

    async def work(job: Job) -> None:
        kind, state = source.kind, job.state
        job.log(f"creating a clone of {kind.word} {source.vmid} with ID {newid}")
        copy = Guest(newid, kind, target, dict(source.config), state.now, load=Load(phase=newid))
        copy.obeys, copy.agent = source.obeys, source.agent
        for key in ("template", "lock", "protection"):
            copy.config.pop(key, None)
        copy.config["lock"] = "clone"
        state.guests[newid] = copy
        name = options.get("name") or options.get("hostname")
        fallback = f"Copy-of-{'VM' if kind is Kind.QEMU else 'CT'}-{source.name}"
        copy.config["name" if kind is Kind.QEMU else "hostname"] = name or fallback
        if description := options.get("description"):
            copy.config["description"] = description
        full = bool(options.get("full", not source.template))
        for disk in list(disks_of(source.config, kind)):
            await _copy_disk(
                job, copy, disk, str(options.get("storage") or disk.storage), full=full
            )
        copy.config.pop("lock")
        if pool := options.get("pool"):
            state.pools[pool].vmids.add(newid)
        state.changed()

    return work


async def _copy_disk(job: Job, copy: Guest, disk: Disk, storage: str, *, full: bool) -> None:
    target = job.state.storage(storage)
    taken = sum(volume.vmid == copy.vmid for volume in target.volumes(copy.node).values())
    name, format_ = disk_name(target, copy, taken)
    word = "full" if full else "linked"
    job.log(f"create {word} clone of drive {disk.slot} ({disk.volid})")
    content = "images" if copy.kind is Kind.QEMU else "rootdir"
    made = int(job.state.now)
    volume = Volume(f"{storage}:{name}", content, format_, disk.size, made, copy.vmid)
    if not full:
        volume.used, volume.parent = MIB, disk.volid.partition(":")[2]
    await job.spend(min(LONGEST, disk.size / COPY_SPEED) if full else 0.5)
    target.put(copy.node, volume)
    copy.config[disk.slot] = str(copy.config[disk.slot]).replace(disk.volid, volume.volid)


def destroy(guest: Guest, *, purge: bool) -> Work:
    """Remove a guest and its disks."""

    async def work(job: Job) -> None:
        state = job.state
        if guest.running:
            raise TaskFailed(f"{guest.kind.word} {guest.vmid} is running - destroy failed")
        async with locked(guest, "destroyed"):
            await job.spend(1)
        for storage in state.storages.values():
            mine = storage.volumes(guest.node).values()
            for volume in [each for each in mine if each.vmid == guest.vmid]:
                if volume.content != "backup":
                    storage.remove(guest.node, volume.volid)
                    job.log(f"Removed volume '{volume.volid}'")
        if purge:
            job.log(f"purging {guest.kind.word} {guest.vmid} from related configurations..")
            forget(state, guest)
        state.guests.pop(guest.vmid, None)
        for pool in state.pools.values():
            pool.vmids.discard(guest.vmid)
        state.changed()

    return work


def forget(state: ClusterState, guest: Guest) -> None:
    """Take a guest out of every job and grant that names it."""
    if resource := state.ha_of(guest):
        del state.ha_resources[resource.sid]
    for job in list(state.replications.values()):
        if job.guest == guest.vmid:
            del state.replications[job.id]
    people = state.people
    people.grants = [grant for grant in people.grants if grant.path != guest.path]


def make_template(guest: Guest) -> Work:
    """Turn a guest into a template: its disks become bases."""

    async def work(job: Job) -> None:
        await job.spend(1)
        guest.config["template"] = 1
        for disk in list(guest.disks()):
            storage = job.state.storage(disk.storage)
            volume = storage.remove(guest.node, disk.volid)
            based = disk.volid.replace(f"vm-{guest.vmid}-", f"base-{guest.vmid}-")
            if volume is not None:
                volume.volid = based
                storage.put(guest.node, volume)
            guest.config[disk.slot] = str(guest.config[disk.slot]).replace(disk.volid, based)
        guest.touch()

    return work


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
        await _copy_disk(job, guest, disk, storage, full=True)
        if delete:
            job.state.storage(disk.storage).remove(guest.node, disk.volid)
        else:
            number = next(n for n in range(256) if f"unused{n}" not in guest.config)
            guest.config[f"unused{number}"] = disk.volid
        guest.touch()

    return work
