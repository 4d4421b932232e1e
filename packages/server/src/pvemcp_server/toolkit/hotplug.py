"""What a running guest takes at once of a change to its configuration, and what waits.

Source: vmconfig_hotplug_pending in PVE/QemuServer.pm and in PVE/LXC/Config.pm. It is a forecast
for plans; after a write, Proxmox reports what is pending.
"""

from collections.abc import Mapping
from typing import Any, Final

from proxmox_client.api.resources import GuestType
from proxmox_client.json_decoder import split_list
from proxmox_client.properties import flag, parse

_VM: Final = frozenset(
    {"name", "description", "tags", "onboot", "protection", "startup", "hookscript", "shares"}
    | {"cpuunits", "cpulimit"}
)
_CONTAINER: Final = frozenset(
    {"hostname", "description", "tags", "onboot", "protection", "startup", "hookscript", "cores"}
    | {"memory", "swap", "cpuunits", "cpulimit", "net"}
)
_CLOUD_INIT: Final = frozenset(
    {"ciuser", "cipassword", "sshkeys", "ipconfig", "nameserver", "searchdomain", "ciupgrade"}
)
_LIVE_PARTS: Final = frozenset({"bridge", "tag", "trunks", "firewall", "rate", "link_down"})
_FEATURES: Final = {
    "net": "network",
    "memory": "memory",
    "vcpus": "cpu",
    "scsi": "disk",
    "virtio": "disk",
}
_DEFAULT: Final = "network,disk,usb"


def takes_at_once(
    kind: GuestType, option: str, current: Mapping[str, Any], new: str | None
) -> bool:
    """Return whether the guest takes the option's new value while it runs; None unsets it."""
    family, old = option.rstrip("0123456789"), current.get(option)
    if kind == "lxc" and family == "mp":  # it can be mounted, but not unmounted
        return old is None and new is not None
    if kind == "lxc":
        return family in _CONTAINER and (option, new) != ("memory", None)
    if family in _VM or is_for_cloud_init(kind, option):
        return True
    if option == "balloon":  # its device can be neither added nor removed
        return (str(old) == "0") == (new == "0")
    if family == "net" and old and new and _changed_parts(str(old), new) <= _LIVE_PARTS:
        return True
    return _FEATURES.get(family) in _features(current)


def is_for_cloud_init(kind: GuestType, option: str) -> bool:
    """Return whether a VM reads the option from its cloud-init drive, when it boots."""
    return kind == "qemu" and option.rstrip("0123456789") in _CLOUD_INIT


def _features(current: Mapping[str, Any]) -> list[str]:
    """Return what the VM can change while it runs."""
    hotplug = str(current.get("hotplug", "1"))
    if hotplug in ("0", "1"):
        return split_list(_DEFAULT) if flag(hotplug) else []
    return split_list(hotplug)


def _changed_parts(old: str, new: str) -> set[str]:
    """Return the names of the parts in which two devices differ."""
    before, after = parse(old, "model"), parse(new, "model")
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
