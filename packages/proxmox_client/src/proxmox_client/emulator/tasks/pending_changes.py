"""Pending changes of a guest's configuration and their effect on its disks."""

from typing import Any

from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import REMOVAL_WITH_VOLUME, Guest, disks_of


def apply_pending(state: ClusterState, guest: Guest) -> None:
    """Apply all pending changes."""
    for name, removal in guest.removals.items():
        remove(state, guest, name, force=removal == REMOVAL_WITH_VOLUME)
    for name, value in guest.pending.items():
        replace(guest, name, value)
    guest.removals.clear()
    guest.pending.clear()
    guest.touch()


def remove(state: ClusterState, guest: Guest, name: str, *, force: bool) -> None:
    """Remove an option; its disk becomes unused, or its volume is deleted with `force`."""
    if name not in guest.config:
        return
    before = dict(guest.config)
    value = str(guest.config.pop(name))
    if force or name.startswith("unused"):
        volid = value.partition(",")[0]
        if storage := state.storages.get(volid.partition(":")[0]):
            storage.remove(guest.node, volid)
    else:
        keep_unused(guest, name, before)


def drop_used_again(guest: Guest) -> None:
    """Remove unused disks whose volume is in use again, now or after the next start."""
    configs = (guest.config, guest.pending)
    used = {disk.volid for config in configs for disk in disks_of(config, guest.kind)}
    for name in [name for name in guest.config if name.startswith("unused")]:
        if guest.config[name] in used:
            del guest.config[name]


def replace(guest: Guest, name: str, value: Any) -> None:
    """Set an option; a disk in its old value becomes unused."""
    before = dict(guest.config)
    guest.config[name] = value
    keep_unused(guest, name, before)


def keep_unused(guest: Guest, name: str, before: dict[str, Any]) -> None:
    """Keep a volume of the guest, removed from an option, as unused."""
    removed = next((disk for disk in disks_of(before, guest.kind) if disk.slot == name), None)
    in_use = {disk.volid for disk in guest.disks()}
    is_own = removed is not None and f"-{guest.vmid}-" in removed.volid
    if removed is not None and is_own and removed.volid not in in_use:
        number = next(n for n in range(256) if f"unused{n}" not in guest.config)
        guest.config[f"unused{number}"] = removed.volid
