"""Pending changes of a guest's configuration, and what they do to its disks."""

from typing import Any, Final

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, disks_of

REMOVAL: Final = 1
REMOVAL_WITH_VOLUME: Final = 2


def apply_pending(state: ClusterState, guest: Guest) -> None:
    """Make the changes that waited for a stop."""
    for name, removal in guest.removals.items():
        remove(state, guest, name, force=removal == REMOVAL_WITH_VOLUME)
    for name, value in guest.pending.items():
        replace(guest, name, value)
    guest.removals.clear()
    guest.pending.clear()
    guest.touch()


def remove(state: ClusterState, guest: Guest, name: str, *, force: bool) -> None:
    """Remove an option; a disk becomes unused, unless its volume goes too."""
    if name not in guest.config:
        return
    before = dict(guest.config)
    value = str(guest.config.pop(name))
    if force or name.startswith("unused"):
        volid = value.partition(",")[0]
        if storage := state.storages.get(volid.partition(":")[0]):
            storage.remove(guest.node, volid)
    else:
        _keep_unused(guest, name, before)


def replace(guest: Guest, name: str, value: Any) -> None:
    """Set an option; a disk that it held before becomes unused."""
    before = dict(guest.config)
    guest.config[name] = value
    _keep_unused(guest, name, before)


def _keep_unused(guest: Guest, name: str, before: dict[str, Any]) -> None:
    """Keep the guest's own volume that an option has lost."""
    lost = next((disk for disk in disks_of(before, guest.kind) if disk.slot == name), None)
    held = {disk.volid for disk in guest.disks()}
    if lost is not None and lost.volid not in held and f"-{guest.vmid}-" in lost.volid:
        number = next(n for n in range(256) if f"unused{n}" not in guest.config)
        guest.config[f"unused{number}"] = lost.volid
