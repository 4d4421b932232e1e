"""Changing a guest's configuration: at once, or at its next start."""

from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, BadParameters
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.work.disks import SLOTS, allocate
from proxmox_client.emulator.work.guest_lifecycle import with_address
from proxmox_client.emulator.work.pending import REMOVAL, REMOVAL_WITH_VOLUME, remove, replace
from proxmox_client.schema import Endpoint

AT_ONCE: Final = frozenset(
    {"name", "hostname", "description", "tags", "onboot", "protection", "startup", "hookscript"}
    | {"shares", "cpuunits", "cpulimit", "balloon", "nameserver", "searchdomain", "agent"}
)
AT_ONCE_IN_CONTAINERS: Final = AT_ONCE | {"memory", "swap", "cores"}
HOTPLUG: Final = {"scsi": "disk", "virtio": "disk", "net": "network", "usb": "usb"}
"""The part of a machine's option `hotplug` that lets a device come and go while it runs."""
HOTPLUG_DEFAULT: Final = "network,disk,usb"
NO_OPTIONS: Final = (
    "node",
    "vmid",
    "delete",
    "revert",
    "digest",
    "skiplock",
    "force",
    "background_delay",
)
PRIVILEGES: Final = {
    "memory": "VM.Config.Memory",
    "balloon": "VM.Config.Memory",
    "shares": "VM.Config.Memory",
    "swap": "VM.Config.Memory",
    "cores": "VM.Config.CPU",
    "sockets": "VM.Config.CPU",
    "cpu": "VM.Config.CPU",
    "cpulimit": "VM.Config.CPU",
    "cpuunits": "VM.Config.CPU",
    "numa": "VM.Config.CPU",
    "vcpus": "VM.Config.CPU",
    "net": "VM.Config.Network",
    "nameserver": "VM.Config.Network",
    "searchdomain": "VM.Config.Network",
    "hostname": "VM.Config.Network",
    "bios": "VM.Config.HWType",
    "machine": "VM.Config.HWType",
    "scsihw": "VM.Config.HWType",
    "vga": "VM.Config.HWType",
    "ciuser": "VM.Config.Cloudinit",
    "cipassword": "VM.Config.Cloudinit",
    "ipconfig": "VM.Config.Cloudinit",
    "sshkeys": "VM.Config.Cloudinit",
}


def privilege_for(option: str) -> str:
    """The privilege it takes to change an option."""
    family = option.rstrip("0123456789")
    if family in SLOTS or family == "unused":
        return "VM.Config.Disk"
    return PRIVILEGES.get(family, "VM.Config.Options")


def change(
    state: ClusterState, guest: Guest, endpoint: Endpoint, params: Mapping[str, Any]
) -> None:
    """Make the changes of a request."""
    if params.get("digest", guest.digest) != guest.digest:
        raise ApiError("checksum mismatch (file change by other user?)")
    if not params.get("skiplock"):
        guest.require_unlocked()
    deleted, reverted = _names(params.get("delete")), _names(params.get("revert"))
    for name in deleted:
        if endpoint.parameter(name) is None:
            raise BadParameters({"delete": f"unknown option '{name}'"})
    for name in reverted:
        guest.pending.pop(name, None)
        guest.removals.pop(name, None)
    for name, value in stored(params).items():
        if name not in NO_OPTIONS:
            _set(state, guest, name, value)
    for name in deleted:
        _delete(state, guest, name, force=bool(params.get("force")))
    guest.touch()


def _names(text: Any) -> list[str]:
    return [name for name in str(text or "").replace(";", ",").split(",") if name]


def _set(state: ClusterState, guest: Guest, name: str, value: Any) -> None:
    if name == "tags":
        value = tags(str(value))
    if name.startswith("net") and name[3:].isdigit() and guest.kind is Kind.QEMU:
        value = with_address(str(value), guest.vmid, int(name[3:]))
    if name.rstrip("0123456789") in SLOTS:
        _require_storage(state, str(value))
    guest.removals.pop(name, None)
    guest.pending.pop(name, None)
    if guest.config.get(name) == value:
        return
    if guest.running and not _is_set_at_once(guest, name, str(value)):
        guest.pending[name] = value
        allocate(state, guest, name, guest.pending)
        return
    replace(guest, name, value)
    allocate(state, guest, name, guest.config)


def _delete(state: ClusterState, guest: Guest, name: str, *, force: bool) -> None:
    guest.pending.pop(name, None)
    if name not in guest.config:
        return
    if guest.running and not _is_deleted_at_once(guest, name):
        guest.removals[name] = REMOVAL_WITH_VOLUME if force else REMOVAL
    else:
        remove(state, guest, name, force=force)


def _is_set_at_once(guest: Guest, name: str, value: str) -> bool:
    """Whether a running guest takes a new value of this option."""
    if guest.kind is Kind.LXC:
        new = name not in guest.config
        return _is_at_once_in_container(name) or (name.startswith("mp") and new)
    is_cd = "media=cdrom" in value and "media=cdrom" in str(guest.config.get(name, ""))
    return is_cd or _is_at_once_in_machine(guest, name)


def _is_deleted_at_once(guest: Guest, name: str) -> bool:
    """Whether a running guest loses this option while it runs."""
    if guest.kind is Kind.LXC:
        return _is_at_once_in_container(name)
    return _is_at_once_in_machine(guest, name)


def _is_at_once_in_container(name: str) -> bool:
    return name in AT_ONCE_IN_CONTAINERS or name.rstrip("0123456789") in ("net", "unused")


def _is_at_once_in_machine(guest: Guest, name: str) -> bool:
    family = name.rstrip("0123456789")
    hotplug = str(guest.config.get("hotplug", HOTPLUG_DEFAULT))
    features = _names(HOTPLUG_DEFAULT if hotplug == "1" else hotplug)
    return name in AT_ONCE or family == "unused" or HOTPLUG.get(family) in features


def tags(text: str) -> str:
    """Tags in the one spelling they are stored in."""
    if not text.strip():
        return text
    words = text.replace(",", ";").replace(" ", ";").split(";")
    return ";".join(sorted({word.lower() for word in words if word}))


def _require_storage(state: ClusterState, value: str) -> None:
    storage, colon, _ = value.removeprefix("file=").partition(",")[0].partition(":")
    if colon and storage not in state.storages:
        raise ApiError(f"storage '{storage}' does not exist")
