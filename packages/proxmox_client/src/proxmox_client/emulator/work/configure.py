"""Changing a guest's configuration: at once, or at its next start."""

from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, BadParameters
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.work.disks import SLOTS, allocate
from proxmox_client.emulator.work.provisioning import with_address
from proxmox_client.schema import Endpoint

AT_ONCE: Final = frozenset(
    {"name", "hostname", "description", "tags", "onboot", "protection", "startup", "hookscript"}
    | {"shares", "cpuunits", "cpulimit", "balloon", "nameserver", "searchdomain", "agent"}
)
HOTPLUGGED: Final = (*SLOTS, "net", "usb", "unused")
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
    deleted = [name for name in str(params.get("delete", "")).replace(";", ",").split(",") if name]
    for name in deleted:
        if endpoint.parameter(name) is None:
            raise BadParameters({"delete": f"unknown option '{name}'"})
    for name in str(params.get("revert", "")).split(","):
        guest.pending.pop(name, None)
    for name, value in stored(params).items():
        if name not in NO_OPTIONS:
            _set(state, guest, name, value)
    for name in deleted:
        _delete(guest, name)
    guest.touch()


def _set(state: ClusterState, guest: Guest, name: str, value: Any) -> None:
    if name == "tags":
        value = tags(str(value))
    if name.startswith("net") and name[3:].isdigit() and guest.kind is Kind.QEMU:
        value = with_address(str(value), guest.vmid, int(name[3:]))
    if name.rstrip("0123456789") in SLOTS:
        _require_storage(state, str(value))
    if guest.running and not is_at_once(name):
        if guest.config.get(name) == value:
            guest.pending.pop(name, None)
        else:
            guest.pending[name] = value
        return
    guest.config[name] = value
    allocate(state, guest, name)


def _delete(guest: Guest, name: str) -> None:
    guest.pending.pop(name, None)
    if name not in guest.config:
        return
    if guest.running and not is_at_once(name):
        guest.pending[name] = None
    else:
        del guest.config[name]


def is_at_once(name: str) -> bool:
    """Whether a running guest takes a change of this option."""
    return name in AT_ONCE or name.rstrip("0123456789") in HOTPLUGGED


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
