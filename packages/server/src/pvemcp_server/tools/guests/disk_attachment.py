"""Disks of guests: attach a new or an unused one, and detach one, which keeps its volume."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field

from proxmox_client import ProxmoxError, Qemu, Task
from proxmox_client.api.configs import GuestDisk, QemuConfig, bytes_of
from proxmox_client.api.guests import BothConfigs
from proxmox_client.api.resources import GuestType
from proxmox_client.api.storage import StorageContentKind
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.errors import BadArgument, Precondition, counted
from pvemcp_server.shown_names import shown_volume
from pvemcp_server.tables.config_options import pending_changes
from pvemcp_server.toolkit import guest_options as options_of
from pvemcp_server.toolkit import hotplug, needs
from pvemcp_server.toolkit.arguments import ItsCluster, Rule, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.config_write import require_valid, write_config
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import readable, room_on_storages
from pvemcp_server.toolkit.task_wait import follow
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.undo_check import left_options
from pvemcp_server.toolkit.write_target import TargetGuest, refuse_template, target_guest
from pvemcp_server.tools.guests.disks import DiskName, disk_storage, refuse_without_room

DiskSource = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z][^\s,]*(,[a-z_]+=[^\s,]+)*$",
        max_length=500,
        description="unused0, or new: storage:GiB; then as ,mp=/srv",
    ),
    Rule("a volume is unused0, storage:GiB or a volume id, then options as ,discard=on,ssd=1"),
]
FreeName = Annotated[DiskName | None, Field(description="As scsi1")]
BootDisk = Annotated[bool, Field(description="Also a boot disk")]

_NEW: Final = re.compile(r"([A-Za-z][\w.-]*):(\d{1,6}(?:\.\d{1,3})?)", re.ASCII)
_NUMBERS: Final[Mapping[GuestType, Mapping[str, int]]] = {
    "qemu": {"scsi": 31, "virtio": 16, "sata": 6, "ide": 4},
    "lxc": {"mp": 256},
}
"""How many disks each bus of a guest takes. Source: PVE/QemuServer/Drive.pm, PVE/LXC/Config.pm."""
_OPTIONS: Final[Mapping[GuestType, re.Pattern[str]]] = {
    "qemu": re.compile(
        r"aio|backup|cache|detect_zeroes|discard|format|iothread|queues|replicate|ro|serial|ssd"
        r"|werror|rerror|wwn|(?:bps|iops|mbps)(?:_rd|_wr)?(?:_max)?(?:_length)?"
    ),
    "lxc": re.compile(r"acl|backup|mountoptions|mp|quota|replicate|ro"),
}
"""What a disk may have: nothing that reads another volume, maps ids or drops what is written."""
_FORMAT: Final = "format"
# Volumes of a guest that are none of its disks: saved RAM, which QEMU trusts when it is loaded,
# the cloud-init drive, and images that linked clones are based on
_NO_DISK: Final = re.compile(r"(?:vm-\d+-(?:state-|cloudinit)|base(?:vol)?-\d+-)")
_RESTART: Final = (
    "Pending changes take effect when it is stopped and started, or rebooted by ChangeVmState."
)


class _Source(NamedTuple):
    """The volume of a disk to attach, as Proxmox's parameter names it."""

    value: str
    words: str  # for the plan
    storage: str
    size: int | None
    is_new: bool


@tool(
    "AttachDisk",
    area=Area.VMS,
    effect=Effect.WRITE,
    toolset=Toolset.LIFECYCLE,
    needs=(needs.GUESTS, needs.CONFIG_DISK, needs.SPACE),
)
async def attach_disk(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    volume: DiskSource,
    disk: FreeName = None,
) -> Plan:
    """Add a new or unused disk to a guest."""
    guest = await target_guest(call, cluster_name, vmid)
    refuse_template(guest, "get a disk")
    configs: BothConfigs[Any] = await guest.api.configs()
    given, _, rest = volume.partition(",")
    options = _options(guest, configs, rest)
    source = await _source(guest, configs, given)
    if _FORMAT in options and not source.is_new:  # a guest could write the header of another one
        raise BadArgument("volume", "the format is that of the volume; only a new disk gets one.")
    name = _free_name(guest, configs, disk)
    value = ",".join([source.value, *(f"{key}={text}" for key, text in options.items())])
    await require_valid(guest, {name: value}, "volume")
    at_once = hotplug.takes_at_once(guest.resource.type, name, configs.current.raw, value)
    parts = f" ({', '.join(f'{key}={text}' for key, text in options.items())})" if options else ""
    report = partial(_attached, call, guest, configs, name)
    by_task = source.is_new and isinstance(guest.api, Qemu)  # it may take longer than a request
    room = await room_on_storages(guest.cluster, guest.node, [(source.storage, source.size)])
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Attach {source.words} to {guest.label} as {name}{parts}."
        f"{_when(guest, at_once=at_once)}",
        ids={"vmid": vmid, "disk": name},
        digest=configs.current.digest,
        act=partial(_attach, guest, configs, name, value, by_task=by_task),
        report=report,
        finish=partial(_finish, guest, configs, name),
        room=room if source.is_new else "",
        storage=source.storage if source.is_new else "",
    )


@tool(
    "DetachDisk",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    toolset=Toolset.LIFECYCLE,
    needs=(needs.GUESTS, needs.CONFIG_DISK),
)
async def detach_disk(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    disk: DiskName,
    boot_disk: BootDisk = False,
) -> Plan:
    """Detach a disk; its volume stays as unused."""
    guest = await target_guest(call, cluster_name, vmid)
    refuse_template(guest, "lose a disk")
    configs: BothConfigs[Any] = await guest.api.configs()
    drive = _attached_disk(guest, configs, disk)
    boots = disk in _boot_order(configs)
    if boots and not boot_disk:
        raise Precondition(
            f"{guest.label} boots from {disk}.", hint="Give boot_disk=true to detach it even so."
        )
    in_use = disk in configs.current.raw
    at_once = hotplug.takes_at_once(guest.resource.type, disk, configs.current.raw, None)
    size = f", {readable(drive.size)}" if drive.size else ""
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Detach {disk} ({shown_volume(drive.volume)}{size}) from {guest.label}. Its volume "
        f"stays as unused; nothing is deleted.{_when(guest, at_once=at_once) if in_use else ''}",
        loses=" ".join(_losses(guest, disk, boots=boots, unplugged=at_once and in_use)),
        ids={"vmid": vmid, "disk": disk},
        digest=configs.current.digest,
        act=partial(write_config, guest, {}, delete=(disk,), digest=configs.current.digest),
        report=partial(_detached, call, guest, configs, drive),
        warnings=tuple(await _warnings(guest, drive)),
    )


def _options(guest: TargetGuest, configs: BothConfigs[Any], rest: str) -> dict[str, str]:
    """Return the options of a disk; raise BadArgument for those that it may not have."""
    kind = guest.resource.type
    options = dict(part.partition("=")[::2] for part in rest.split(",") if part)
    if wrong := [name for name in options if not _OPTIONS[kind].fullmatch(name)]:
        raise BadArgument("volume", f"{', '.join(wrong)} cannot be set here.")
    path = options.get("mp", "")
    if kind == "lxc" and not path.startswith("/"):
        raise BadArgument(
            "volume", "a container needs the path to mount it on.", hint="As unused0,mp=/srv/data"
        )
    mounted = {disk.mount_point: disk.id for disk in configs.disks}
    if path in mounted:
        raise BadArgument("volume", f"{mounted[path]} of {guest.label} is mounted on {path}.")
    return options


async def _source(guest: TargetGuest, configs: BothConfigs[Any], given: str) -> _Source:
    """Return the volume to attach: a new one, or one that is the guest's own and not in use."""
    if match := _NEW.fullmatch(given):
        storage = await disk_storage(guest, match[1])
        size = bytes_of(f"{match[2]}G") or 0
        if not size:
            raise BadArgument("volume", "a new disk has a size in GiB, as in local-zfs:32.")
        refuse_without_room(storage, size, "Name another storage, or a smaller size.")
        words = f"a new disk of {readable(size)} on {storage.storage}"
        return _Source(given, words, storage.storage, size, is_new=True)
    unused = {disk.id: disk for disk in configs.current.disks if disk.bus == "unused"}
    by_volume = {disk.volume: disk for disk in unused.values()}
    if drive := unused.get(given) or by_volume.get(given):
        return _Source(
            drive.volume,
            f"{drive.id} ({shown_volume(drive.volume)})",
            drive.storage or "",
            drive.size,
            is_new=False,
        )
    if ":" in given:
        return await _own_volume(guest, configs, given)
    hint = f"Unused are {', '.join(unused)}." if unused else "It has no unused disks."
    raise BadArgument("volume", f"{given} of {guest.label} does not exist.", hint=hint)


async def _own_volume(guest: TargetGuest, configs: BothConfigs[Any], volid: str) -> _Source:
    """Return a volume that belongs to the guest though its configuration does not name it."""
    users = [disk.id for disk in configs.disks if disk.volume == volid]
    if users:
        raise Precondition(f"{volid} is {users[0]} of {guest.label} already.")
    missing = BadArgument("volume", f"{volid} is no disk of {guest.label}.")
    storage = volid.partition(":")[0]
    names = {row.storage for row in (await guest.cluster.inventory.view()).storages}
    if storage not in names:
        raise missing
    kind: StorageContentKind = "images" if guest.resource.type == "qemu" else "rootdir"
    try:
        rows = await guest.cluster.pve.storage(guest.node, storage).content(kind, guest.vmid)
    except ProxmoxError:
        if guest.cluster.scope.covers_target_storage(storage, node=guest.node):
            raise
        raise missing from None  # as for a storage that does not exist
    own = next((row for row in rows if row.volid == volid and row.vmid == guest.vmid), None)
    if own is None:
        raise missing
    if _NO_DISK.match(re.split("[:/]", volid)[-1]):
        raise BadArgument(
            "volume", f"{volid} holds RAM, cloud-init or a base image; it is no disk."
        )
    words = f"{shown_volume(volid)} ({readable(own.size)})"
    return _Source(volid, words, storage, own.size, is_new=False)


def _free_name(guest: TargetGuest, configs: BothConfigs[Any], name: str | None) -> str:
    """Return the name for a disk; without one, the next free of the bus that the guest boots from.

    Raise BadArgument for a name that is taken or that the guest cannot have.
    """
    numbers = _NUMBERS[guest.resource.type]
    names = {f"{bus}{number}" for bus, count in numbers.items() for number in range(count)}
    taken = configs.current.raw.keys() | configs.pending.raw.keys()
    if name is None:
        buses = [each.rstrip("0123456789") for each in _boot_order(configs)]
        bus = next((bus for bus in buses if bus in numbers), next(iter(numbers)))
        free = (f"{bus}{n}" for n in range(numbers[bus]) if f"{bus}{n}" not in taken)
        if (name := next(free, None)) is None:
            raise Precondition(f"{guest.label} has no free {bus} disk.")
        return name
    if name not in names:
        limits = ", ".join(f"{bus}0 to {bus}{count - 1}" for bus, count in numbers.items())
        raise BadArgument("disk", f"{guest.label} takes no {name}.", hint=f"It takes {limits}.")
    if name in taken:
        raise BadArgument("disk", f"{guest.label} has {name} already.")
    return name


def _attached_disk(guest: TargetGuest, configs: BothConfigs[Any], name: str) -> GuestDisk:
    """Return a disk that can be detached; raise an error for others."""
    current, pending = configs.current.raw.get(name), configs.pending.raw.get(name)
    disks = {disk.id: disk for disk in configs.disks if disk.media != "cdrom"}
    drive = disks.get(name)
    if drive is None:
        names = [each for each, disk in disks.items() if disk.bus != "unused"]
        raise BadArgument(
            "disk", f"{guest.label} has no disk {name}.", hint=f"It has {', '.join(names)}."
        )
    if drive.bus == "unused":
        raise Precondition(f"{name} of {guest.label} is detached already.")
    if name == "rootfs":
        raise Precondition(f"{guest.label} cannot be without its rootfs.")
    if configs.current.protection:
        raise Precondition(
            f"{guest.label} is in protection mode, so Proxmox detaches none of its disks.",
            hint="UpdateVmConfig with options=['protection=0'] ends it.",
        )
    if not drive.storage:
        volume = shown_volume(drive.volume)
        raise Precondition(f"{name} of {guest.label} is {volume}, which no storage holds.")
    if current is not None and pending is None:
        raise Precondition(f"{name} is detached when {guest.label} restarts.")
    if current is not None and pending != current:
        raise Precondition(
            f"A change of {name} is pending until {guest.label} restarts.",
            hint=f"Restart it, or drop the change by UpdateVmConfig with revert=['{name}'].",
        )
    return drive


def _boot_order(configs: BothConfigs[Any]) -> list[str]:
    """Return the devices that a virtual machine boots from."""
    config = configs.pending
    return config.boot_order if isinstance(config, QemuConfig) else []


def _when(guest: TargetGuest, *, at_once: bool) -> str:
    """Return when a change takes effect, as a sentence."""
    if guest.state == "stopped":
        return ""
    return " At once." if at_once else " It waits for a restart of the guest."


def _losses(guest: TargetGuest, disk: str, *, boots: bool, unplugged: bool) -> Iterator[str]:
    if guest.state != "stopped" and unplugged:
        yield f"What the guest has not written to {disk} yet is lost: unmount it inside first."
    if boots:
        yield f"It does not boot from {disk} any more."


async def _warnings(guest: TargetGuest, drive: GuestDisk) -> list[str]:
    """Return what to know before: snapshots with the disk, and what it holds for the start."""
    warnings = []
    if snapshots := await guest.api.snapshots():
        count = counted(len(snapshots), "snapshot")
        warnings.append(f"It has {count}: rolling back to one that has the disk attaches it again.")
    if drive.bus in ("efidisk", "tpmstate"):
        what = "settings of its firmware" if drive.bus == "efidisk" else "keys of its TPM"
        warnings.append(f"The guest then starts without the {what}.")
    return warnings


async def _attach(
    guest: TargetGuest, configs: BothConfigs[Any], name: str, value: str, *, by_task: bool
) -> Task | None:
    digest = configs.current.digest
    if by_task and isinstance(guest.api, Qemu):
        return await guest.api.set_config_by_task({name: value}, digest=digest)
    await write_config(guest, {name: value}, digest=digest)
    return None


async def _finish(
    guest: TargetGuest, configs: BothConfigs[Any], name: str, call: Call, task: Task
) -> dict[str, Any]:
    """Follow the task of a new disk; when it has ended, return the state after it too."""
    outcome = await follow(call, task)
    if not outcome.get("ok"):
        call.undos.append(_detachment(guest, name))
        return outcome
    return outcome | await _attached(call, guest, configs, name)


async def _attached(
    call: Call, guest: TargetGuest, before: BothConfigs[Any], name: str
) -> dict[str, Any]:
    """Return what is in force and what is pending, and the call that detaches the disk."""
    after: BothConfigs[Any] = await guest.api.configs()
    left = left_options(after, [name])
    call.undos.append(_detachment(guest, name, left))
    return _state(call, before, after)


def _detachment(guest: TargetGuest, name: str, left: LeftState | None = None) -> Undo:
    place = {"cluster_name": guest.cluster.name, "vmid": guest.vmid}
    call = NextCall("DetachDisk", {**place, "disk": name})
    return Undo(call, {guest.vmid: left} if left else {})


async def _detached(
    call: Call, guest: TargetGuest, before: BothConfigs[Any], drive: GuestDisk
) -> dict[str, Any]:
    """Return what is in force and what is pending, and the call that attaches the disk again."""
    after: BothConfigs[Any] = await guest.api.configs()
    boot = before.pending.raw.get("boot")
    moved = boot != after.pending.raw.get("boot")
    if drive.id in after.current.raw:
        names = [drive.id, *(["boot"] if moved else [])]
        left = left_options(after, names)
        call.undos.append(guest.undo("UpdateVmConfig", left, revert=names))
        return _state(call, before, after)
    allowed = _OPTIONS[guest.resource.type]
    kept = {k: v for k, v in drive.options.items() if allowed.fullmatch(k) and k != _FORMAT}
    options = [f"{name}={value}" for name, value in kept.items()]
    volume = ",".join([drive.volume, *options])
    place = {"cluster_name": guest.cluster.name, "vmid": guest.vmid}
    again = {**place, "volume": volume, "disk": drive.id}
    unused = [name for name, value in after.current.raw.items() if value == drive.volume]
    left = left_options(after, [drive.id, *unused])
    call.undos.append(Undo(NextCall("AttachDisk", again), {guest.vmid: left}))
    if moved and boot:
        left = left_options(after, ["boot"])
        call.undos.append(guest.undo("UpdateVmConfig", left, options=[f"boot={boot}"]))
    return _state(call, before, after)


def _state(call: Call, before: BothConfigs[Any], after: BothConfigs[Any]) -> dict[str, Any]:
    """Return what a write has changed in force, and what is pending after it."""
    pending = pending_changes(after)
    if pending:
        call.notes.add(_RESTART)
    old, now = before.current.raw, after.current.raw
    changed = sorted(n for n in old.keys() | now.keys() if old.get(n) != now.get(n))
    new = {name: now.get(name) for name in changed if name != "digest"}
    in_force = options_of.changes(old, new)
    return {"in_force": [each.words for each in in_force], "pending": pending}
