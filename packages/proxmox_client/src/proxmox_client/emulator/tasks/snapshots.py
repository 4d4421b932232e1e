"""Snapshots of guests: create, delete, roll back."""

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind, Snapshot, disks_of
from proxmox_client.emulator.state.sizes import GIB, MIB, human
from proxmox_client.emulator.state.storage import Storage, Volume
from proxmox_client.emulator.state.volume_names import state_name
from proxmox_client.emulator.tasks.locks import locked
from proxmox_client.emulator.tasks.power import set_running, set_stopped
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

NO_SNAPSHOTS = frozenset({"lvm", "iscsi"})
"""Storage types without snapshots."""


def create(guest: Guest, name: str, description: str, *, with_ram: bool) -> TaskFunction:
    """Return the task that creates a snapshot, with the memory if `with_ram`."""

    async def run(context: TaskContext) -> None:
        if name in guest.snapshots:
            raise TaskFailed(f"snapshot name '{name}' already used")
        _require_feature(guest, context.state)
        async with locked(guest, "snapshot"):
            if with_ram and guest.running:
                await _save_memory(context, guest, name)
            if guest.running and not guest.agent_enabled and guest.kind is Kind.QEMU:
                context.log("skipping guest filesystem freeze - disabled in VM options")
            for disk in guest.disks():
                context.log(f"snapshotting 'drive-{disk.slot}' ({disk.volid})")
            await context.spend(1.5)
        config = {key: value for key, value in guest.config.items() if key != "lock"}
        ram = with_ram and guest.running
        if ram:
            config |= _running_state(guest, name, context.state)
        guest.snapshots[name] = Snapshot(
            name, int(context.state.now), description, guest.parent, ram, config
        )
        guest.parent = name

    return run


async def _save_memory(context: TaskContext, guest: Guest, name: str) -> None:
    volume = _state_volume(guest, name, context.state)
    storage = volume.volid.partition(":")[0]
    context.state.storage(storage).put(guest.node, volume)
    context.log(f"allocating '{volume.volid}'")
    context.log(f"saving VM state and RAM using storage '{storage}'")
    seconds = min(30.0, 1 + guest.memory / GIB / 4)
    for part in range(1, 4):
        await context.spend(seconds / 3)
        context.log(f"{human(guest.memory * part / 6)} in {int(seconds * part / 3)}s")
    context.log(
        f"completed saving the VM state in {int(seconds)}s, saved {human(guest.memory / 2)}"
    )


def _state_volume(guest: Guest, name: str, state: ClusterState) -> Volume:
    """Return the volume with the memory of a snapshot, on the storage of the first disk."""
    storage = state.storage(next((disk.storage for disk in guest.disks()), "local"))
    volid = f"{storage.name}:{state_name(storage, guest, name)}"
    size = 2 * guest.memory + 500 * MIB
    volume = Volume(volid, "images", "raw", size, int(state.now), guest.vmid)
    volume.used = guest.memory // 2
    return volume


def _running_state(guest: Guest, name: str, state: ClusterState) -> dict[str, str]:
    """Return the options that a snapshot with memory adds to the configuration."""
    options = {
        "vmstate": _state_volume(guest, name, state).volid,
        "runningmachine": "pc-i440fx-10.0+pve1",
        "runningcpu": "qemu64",
    }
    nets = [key for key in guest.config if key.startswith("net") and key[3:].isdigit()]
    if state.release >= (9, 1) and nets:
        options["running-nets-host-mtu"] = ",".join(f"{key}=1500" for key in nets)
    return options


def _require_feature(guest: Guest, state: ClusterState) -> None:
    for disk in guest.disks():
        storage = state.storage(disk.storage)
        if not can_snapshot(guest, storage, disk.volid):
            raise TaskFailed("snapshot feature is not available")


def can_snapshot(guest: Guest, storage: Storage, volid: str) -> bool:
    """Return whether a disk supports snapshots; disks that are files need the format qcow2."""
    if storage.type in NO_SNAPSHOTS:
        return False
    is_file = storage.type in ("dir", "nfs", "cifs")
    return not is_file or (volid.endswith(".qcow2") and guest.kind is Kind.QEMU)


def delete(guest: Guest, name: str) -> TaskFunction:
    """Return the task that deletes a snapshot; its children get its parent."""

    async def run(context: TaskContext) -> None:
        if name not in guest.snapshots:
            raise TaskFailed(f"snapshot '{name}' does not exist")
        async with locked(guest, "snapshot-delete"):
            await context.spend(2)
        deleted = guest.snapshots.pop(name)
        if volid := str(deleted.config.get("vmstate", "")):
            context.state.storage(volid.partition(":")[0]).remove(guest.node, volid)
        for other in guest.snapshots.values():
            if other.parent == name:
                other.parent = deleted.parent
        if guest.parent == name:
            guest.parent = deleted.parent
        guest.touch()

    return run


def roll_back(guest: Guest, name: str, *, start: bool) -> TaskFunction:
    """Return the task that rolls back to a snapshot.

    The guest runs afterwards if the snapshot has its memory or with `start`, else it is stopped.
    """

    async def run(context: TaskContext) -> None:
        if name not in guest.snapshots:
            raise TaskFailed(f"snapshot '{name}' does not exist")
        snapshot = guest.snapshots[name]
        if snapshot.state:
            incomplete = f"incomplete snapshot (snapstate = {snapshot.state})"
            raise TaskFailed(f"unable to rollback to {incomplete}")
        _require_newest_on_zfs(guest, snapshot, context.state)
        async with locked(guest, "rollback"):
            await context.spend(3)
        set_stopped(guest, context.state)
        memory_options = ("vmstate", "runningmachine", "runningcpu", "running-nets-host-mtu")
        guest.config = {
            key: value for key, value in snapshot.config.items() if key not in memory_options
        }
        guest.parent = name
        guest.touch()
        if snapshot.with_ram or start:
            set_running(guest, context.state)

    return run


def _require_newest_on_zfs(guest: Guest, snapshot: Snapshot, state: ClusterState) -> None:
    """Raise TaskFailed if a later snapshot exists: ZFS rolls back to the newest one only."""
    later = any(other.time > snapshot.time for other in guest.snapshots.values())
    for disk in disks_of(snapshot.config, guest.kind) if later else ():
        if state.storage(disk.storage).type == "zfspool":
            raise TaskFailed(
                f"can't rollback, '{snapshot.name}' is not most recent snapshot on '{disk.volid}'"
            )
