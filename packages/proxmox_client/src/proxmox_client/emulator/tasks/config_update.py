"""Updates of a guest's configuration: applied at once, or pending until its next start."""

import re
from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, BadParameters
from proxmox_client.emulator.parameters import stored
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import REMOVAL, REMOVAL_WITH_VOLUME, Guest, Kind
from proxmox_client.emulator.tasks.disks import SLOTS, allocate, with_size
from proxmox_client.emulator.tasks.guest_lifecycle import with_mac_address
from proxmox_client.emulator.tasks.pending_changes import (
    drop_used_again,
    keep_unused,
    remove,
    replace,
)
from proxmox_client.emulator.tasks.power import missing_bridge
from proxmox_client.schema import Endpoint

HOT_OPTIONS: Final = frozenset(
    {"name", "description", "tags", "onboot", "protection", "startup", "hookscript", "shares"}
    | {"vmstatestorage", "cpuunits", "cpulimit", "nameserver", "searchdomain", "ciuser"}
    | {"cipassword", "sshkeys", "ipconfig", "citype", "cicustom", "ciupgrade", "lock"}
)
"""Options of a VM that are applied while it runs; those of cloud-init reach its drive later."""
HOT_CONTAINER_OPTIONS: Final = frozenset(
    {"hostname", "description", "tags", "onboot", "protection", "startup", "hookscript", "cores"}
    | {"memory", "swap", "cpuunits", "cpulimit"}
)
LIVE_NETWORK_PARTS: Final = frozenset({"bridge", "tag", "trunks", "firewall", "rate", "link_down"})
"""Parts of a VM's network device that change while it runs, whatever may be plugged."""
HOTPLUG: Final = {
    "scsi": "disk",
    "virtio": "disk",
    "net": "network",
    "usb": "usb",
    "tablet": "usb",
    "memory": "memory",
    "vcpus": "cpu",
}
"""The value of a VM's option `hotplug` that allows it to be changed while it runs."""
HOTPLUG_DEFAULT: Final = "network,disk,usb"
MISMATCH: Final = {
    Kind.QEMU: "checksum mismatch (file change by other user?)",
    Kind.LXC: "detected modified configuration - file changed by other user? Try again.",
}
"""The error for an outdated digest."""
_HOTPLUG_FAILED: Final = {
    Kind.QEMU: "hotplug problem - VM {0} qmp command 'netdev_add' failed - network script "
    "/usr/libexec/qemu-server/pve-bridge-hotplug failed with status 512\n",
    Kind.LXC: "unable to hotplug {1}: bridge '{2}' does not exist\n",
}
NOT_OPTIONS: Final = (
    "node",
    "vmid",
    "delete",
    "revert",
    "digest",
    "skiplock",
    "force",
    "background_delay",
)
CONDITIONS: Final = frozenset(NOT_OPTIONS) - {"delete", "revert"}
"""Parameters that change nothing by themselves."""
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
    """Return the privilege that is needed to change an option."""
    family = option.rstrip("0123456789")
    if family in SLOTS or family == "unused":
        return "VM.Config.Disk"
    return PRIVILEGES.get(family, "VM.Config.Options")


def update_config(
    state: ClusterState, guest: Guest, endpoint: Endpoint, params: Mapping[str, Any]
) -> None:
    """Apply the changes of a request.

    Raise ApiError for a locked guest or an outdated digest, BadParameters for an unknown option
    to delete.
    """
    require_allowed(guest, endpoint, params)
    deleted, reverted = _names(params.get("delete")), _names(params.get("revert"))
    for name in reverted:
        guest.pending.pop(name, None)
        guest.removals.pop(name, None)
    failures: dict[str, str] = {}
    for name, value in stored(params).items():
        if name not in NOT_OPTIONS:
            try:
                _set(state, guest, name, value)
            except _HotplugFailed as failure:  # it stays pending, and the rest is applied
                failures[name] = str(failure)
    for name in deleted:
        _require_unprotected(guest, name)
        _delete(state, guest, name, force=bool(params.get("force")))
    drop_used_again(guest)
    guest.touch()
    if failures:
        raise BadParameters(failures)


class _HotplugFailed(Exception):
    """A running guest cannot take a device."""


def logged_options(params: Mapping[str, Any]) -> str:
    """Return the changes of a request as the cluster log has them."""
    changes = {name: v for name, v in stored(params).items() if name not in CONDITIONS}
    hidden = {"cipassword": "<hidden>"} if "cipassword" in changes else {}
    return " ".join(f"-{name} {value}" for name, value in sorted((changes | hidden).items()))


def hidden(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as Proxmox shows them: without the password of cloud-init."""
    return {name: "**********" if name == "cipassword" else v for name, v in options.items()}


def require_allowed(guest: Guest, endpoint: Endpoint, params: Mapping[str, Any]) -> None:
    """Raise ApiError or BadParameters for a change that is refused as a whole."""
    if params.get("digest", guest.digest) != guest.digest:
        raise ApiError(MISMATCH[guest.kind])
    if not params.get("skiplock"):
        guest.require_unlocked()
    for action in ("delete", "revert"):
        for name in _names(params.get(action)):
            if endpoint.parameter(name) is None:
                raise BadParameters({action: f"unknown option '{name}'"})
    twice = next((name for name in _names(params.get("delete")) if name in params), None)
    if twice is not None:
        problem = f"you can't use '-{twice}' and -delete {twice}' at the same time"
        raise BadParameters({"delete": problem})
    if params.keys() <= CONDITIONS:
        raise ApiError("no options specified")


def _require_unprotected(guest: Guest, name: str) -> None:
    """Raise ApiError for a disk of a guest in protection mode."""
    if guest.config.get("protection") and name.rstrip("0123456789") in SLOTS:
        raise ApiError(f"can't remove drive '{name}' - protection mode enabled")


def unlink(state: ClusterState, guest: Guest, names: str, *, force: bool) -> None:
    """Remove disks from a virtual machine; with `force` their volumes are deleted."""
    guest.require_unlocked()
    for name in _names(names):
        _delete(state, guest, name, force=force)
    guest.touch()


def _names(text: Any) -> list[str]:
    return [name for name in str(text or "").replace(";", ",").split(",") if name]


def _set(state: ClusterState, guest: Guest, name: str, value: Any) -> None:
    if name == "tags":
        value = normalize_tags(str(value))
    if name.startswith("net") and name[3:].isdigit() and guest.kind is Kind.QEMU:
        value = with_mac_address(str(value), guest.vmid, int(name[3:]))
    if name.rstrip("0123456789") in SLOTS:
        _require_storage(state, str(value))
        value = with_size(state, guest, str(value))
    guest.removals.pop(name, None)
    guest.pending.pop(name, None)
    if guest.config.get(name) == value:
        return
    if guest.running and not _is_applied_at_once(guest, name, str(value)):
        guest.pending[name] = value
        allocate(state, guest, name, guest.pending)
        return
    if guest.running and name.startswith("net") and (bridge := missing_bridge(str(value))):
        guest.pending[name] = value
        raise _HotplugFailed(_HOTPLUG_FAILED[guest.kind].format(guest.vmid, name, bridge))
    replace(guest, name, value)
    allocate(state, guest, name, guest.config)


def _delete(state: ClusterState, guest: Guest, name: str, *, force: bool) -> None:
    if drive := guest.pending.pop(name, None):
        keep_unused(guest, name, {name: drive})
    elif guest.kind is Kind.QEMU:
        _remove_from_boot_order(state, guest, name)
    if name not in guest.config:
        return
    if guest.running and not _is_removed_at_once(guest, name):
        guest.removals[name] = REMOVAL_WITH_VOLUME if force else REMOVAL
    else:
        remove(state, guest, name, force=force)


def _remove_from_boot_order(state: ClusterState, guest: Guest, name: str) -> None:
    """Take a device that is removed out of the boot order, as far as it has one."""
    order = str(guest.next_config.get("boot", "")).removeprefix("order=").split(";")
    if name in order:
        left = ";".join(each for each in order if each != name)
        _set(state, guest, "boot", f"order={left}" if left else "")


def _is_applied_at_once(guest: Guest, name: str, value: str) -> bool:
    """Return whether a new value is applied to a running guest at once."""
    if guest.kind is Kind.LXC:
        is_new_volume = name.startswith("mp") and name not in guest.config
        return _is_hot_in_container(name) or is_new_volume
    old = str(guest.config.get(name, ""))
    if name == "balloon":  # the device itself cannot be added or removed
        return (old == "0") == (value == "0")
    if name.startswith("net") and old and _changed_parts(old, value) <= LIVE_NETWORK_PARTS:
        return True
    is_cd = "media=cdrom" in value and "media=cdrom" in old
    return is_cd or _is_hot_in_vm(guest, name)


def _changed_parts(old: str, new: str) -> set[str]:
    """Return the names of the parts in which two property strings differ."""
    return {part.partition("=")[0] for part in {*old.split(",")} ^ {*new.split(",")}}


def _is_removed_at_once(guest: Guest, name: str) -> bool:
    """Return whether an option is removed from a running guest at once."""
    if guest.kind is Kind.LXC:
        return name != "memory" and _is_hot_in_container(name)
    if name == "balloon":
        return str(guest.config.get(name)) != "0"
    return _is_hot_in_vm(guest, name)


def _is_hot_in_container(name: str) -> bool:
    return name in HOT_CONTAINER_OPTIONS or name.rstrip("0123456789") in ("net", "unused")


def _is_hot_in_vm(guest: Guest, name: str) -> bool:
    family = name.rstrip("0123456789")
    hotplug = str(guest.config.get("hotplug", HOTPLUG_DEFAULT))
    features = _names(HOTPLUG_DEFAULT if hotplug == "1" else hotplug)
    return family in HOT_OPTIONS or family == "unused" or HOTPLUG.get(family) in features


def normalize_tags(text: str) -> str:
    """Normalize tags: lower case, sorted, separated by semicolons."""
    if not text.strip():
        return text
    parts = text.replace(",", ";").replace(" ", ";").split(";")
    return ";".join(sorted({part.lower() for part in parts if part}))


def _require_storage(state: ClusterState, value: str) -> None:
    storage, colon, _ = value.removeprefix("file=").partition(",")[0].partition(":")
    if not colon:
        return
    if storage not in state.storages:
        raise ApiError(f"storage '{storage}' does not exist")
    volume = value.removeprefix("file=").partition(",")[0].partition(":")[2]
    if re.fullmatch(r"[a-z]+", volume) and volume != "cloudinit":
        raise ApiError(f"unable to parse directory volume name '{volume}'")
