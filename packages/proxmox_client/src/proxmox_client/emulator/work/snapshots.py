"""Taking, removing and going back to snapshots."""

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind, Snapshot
from proxmox_client.emulator.state.sizes import GIB, human
from proxmox_client.emulator.state.storage import Storage
from proxmox_client.emulator.work.board import Job, Work
from proxmox_client.emulator.work.locks import locked
from proxmox_client.emulator.work.power import started, stopped

NO_SNAPSHOTS = frozenset({"lvm", "iscsi"})
"""Storage types whose disks can't be kept as they were."""


def take(guest: Guest, name: str, description: str, *, with_ram: bool) -> Work:
    """Keep a guest as it is now."""

    async def work(job: Job) -> None:
        if name in guest.snapshots:
            raise TaskFailed(f"snapshot name '{name}' already used")
        _require_feature(guest, job.state)
        async with locked(guest, "snapshot"):
            if with_ram and guest.running:
                await _save_memory(job, guest, name)
            if guest.running and not guest.agent_enabled and guest.kind is Kind.QEMU:
                job.log("skipping guest filesystem freeze - disabled in VM options")
            for disk in guest.disks():
                job.log(f"snapshotting 'drive-{disk.slot}' ({disk.volid})")
            await job.spend(1.5)
        kept = {key: value for key, value in guest.config.items() if key != "lock"}
        ram = with_ram and guest.running
        if ram:
            kept |= _running_state(guest, name, job.state)
        guest.snapshots[name] = Snapshot(
            name, int(job.state.now), description, guest.parent, ram, kept
        )
        guest.parent = name

    return work


async def _save_memory(job: Job, guest: Guest, name: str) -> None:
    storage = next((disk.storage for disk in guest.disks()), "local")
    state_file = f"vm-{guest.vmid}-state-{name}.raw"
    job.log(f"allocating '{storage}:{guest.vmid}/{state_file}'")
    job.log(f"saving VM state and RAM using storage '{storage}'")
    seconds = min(30.0, 1 + guest.memory / GIB / 4)
    for part in range(1, 4):
        await job.spend(seconds / 3)
        job.log(f"{human(guest.memory * part / 6)} in {int(seconds * part / 3)}s")
    job.log(f"completed saving the VM state in {int(seconds)}s, saved {human(guest.memory / 2)}")


def _running_state(guest: Guest, name: str, state: ClusterState) -> dict[str, str]:
    """What a snapshot with memory remembers of the running machine."""
    storage = next((disk.storage for disk in guest.disks()), "local")
    known = {
        "vmstate": f"{storage}:{guest.vmid}/vm-{guest.vmid}-state-{name}.raw",
        "runningmachine": "pc-i440fx-10.0+pve1",
        "runningcpu": "qemu64",
    }
    nets = [key for key in guest.config if key.startswith("net") and key[3:].isdigit()]
    if state.release >= (9, 1) and nets:
        known["running-nets-host-mtu"] = ",".join(f"{key}=1500" for key in nets)
    return known


def _require_feature(guest: Guest, state: ClusterState) -> None:
    for disk in guest.disks():
        storage = state.storage(disk.storage)
        if not can_snapshot(guest, storage, disk.volid):
            raise TaskFailed("snapshot feature is not available")


def can_snapshot(guest: Guest, storage: Storage, volid: str) -> bool:
    """Whether a disk can be kept as it was: files only in a format made for it."""
    if storage.type in NO_SNAPSHOTS:
        return False
    is_file = storage.type in ("dir", "nfs", "cifs")
    return not is_file or (volid.endswith(".qcow2") and guest.kind is Kind.QEMU)


def remove(guest: Guest, name: str) -> Work:
    """Forget a snapshot; those made after it hang on the one before."""

    async def work(job: Job) -> None:
        if name not in guest.snapshots:
            raise TaskFailed(f"snapshot '{name}' does not exist")
        async with locked(guest, "snapshot-delete"):
            await job.spend(2)
        gone = guest.snapshots.pop(name)
        for other in guest.snapshots.values():
            if other.parent == name:
                other.parent = gone.parent
        if guest.parent == name:
            guest.parent = gone.parent
        guest.touch()

    return work


def go_back(guest: Guest, name: str, *, start: bool) -> Work:
    """Make a guest what it was."""

    async def work(job: Job) -> None:
        if name not in guest.snapshots:
            raise TaskFailed(f"snapshot '{name}' does not exist")
        snapshot = guest.snapshots[name]
        async with locked(guest, "rollback"):
            await job.spend(3)
        stopped(guest, job.state)
        memory = ("vmstate", "runningmachine", "runningcpu", "running-nets-host-mtu")
        guest.config = {key: value for key, value in snapshot.config.items() if key not in memory}
        guest.parent = name
        guest.touch()
        if snapshot.with_ram or start:
            started(guest, job.state)

    return work
