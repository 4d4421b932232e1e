"""Moving guests to other nodes."""

from datetime import UTC, datetime, timedelta
from typing import Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Disk, Guest, disks_of
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.sizes import MIB, human
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.work.board import Job, Work
from proxmox_client.emulator.work.locks import locked
from proxmox_client.emulator.work.power import started, stopped

SPEED: Final = 1100 * MIB
"""Bytes of memory or disk that move in a second."""
LONGEST: Final = 40.0
"""Seconds of work at most, so that nobody waits for long."""


def local_disks(guest: Guest, state: ClusterState) -> list[Disk]:
    """The disks that lie on one node only, pending ones included."""
    disks = [*guest.disks(), *disks_of(guest.pending, guest.kind)]
    return [disk for disk in disks if not state.storage(disk.storage).shared]


def migrate(guest: Guest, target: Node, *, online: bool, target_storage: str | None) -> Work:
    """Move a guest, with the disks that only its node has."""

    async def work(job: Job) -> None:
        log = _Log(job)
        began = job.state.now
        if online and guest.running:
            log.write("conntrack state migration not supported or disabled")
        who, where = f"{guest.kind.word} {guest.vmid}", f"node '{target.name}' ({target.address})"
        log.write(f"starting migration of {who} to {where}")
        async with locked(guest, "migrate"):
            moving = local_disks(guest, job.state)
            for disk in moving:
                await _copy(log, disk, target.name)
            if online and guest.running:
                await _live(log, guest, target)
            else:
                await job.spend(1)
        _require_online(target)
        for disk in moving:
            _hand_over(job.state, guest, disk, target.name, target_storage)
        guest.node = target.name
        job.state.changed()
        guest.touch()
        lasted = timedelta(seconds=int(job.state.now - began))
        log.write(f"migration finished successfully (duration {str(lasted).zfill(8)})")

    return work


def restart_elsewhere(guest: Guest, target: Node) -> Work:
    """Move a running container: it stops here and starts there."""

    async def work(job: Job) -> None:
        was_running = guest.running
        if was_running:
            await job.spend(2)
            stopped(guest, job.state)
        await migrate(guest, target, online=False, target_storage=None)(job)
        if was_running:
            job.log("start container on target node")
            await job.spend(2)
            started(guest, job.state)

    return work


class _Log:
    """Writes lines with the time in front, as migrations do."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def write(self, text: str) -> None:
        when = datetime.fromtimestamp(self.job.state.now, UTC)
        self.job.log(f"{when:%Y-%m-%d %H:%M:%S} {text}")


async def _copy(log: _Log, disk: Disk, target: str) -> None:
    log.write(f"found local disk '{disk.volid}' (attached)")
    log.write("copying local disk images")
    seconds = min(LONGEST, disk.size / SPEED)
    for percent in (25, 50, 75, 100):
        await log.job.spend(seconds / 4)
        done = human(disk.size * percent / 100)
        log.write(f"drive-{disk.slot}: transferred {done} of {human(disk.size)} ({percent}.00%)")
    log.write(f"successfully imported '{disk.volid}' on {target}")


async def _live(log: _Log, guest: Guest, target: Node) -> None:
    log.write(f"starting {guest.kind.word} {guest.vmid} on remote node '{target.name}'")
    await log.job.spend(1)
    log.write("start remote tunnel")
    log.write(f"starting online/live migration on unix:/run/qemu-server/{guest.vmid}.migrate")
    seconds = min(LONGEST, max(2.0, guest.memory / SPEED))
    for percent in (20, 45, 70, 90):
        await log.job.spend(seconds / 4)
        done = human(guest.memory * percent / 100)
        log.write(f"migration active, transferred {done} of {human(guest.memory)} VM-state")
    speed = human(guest.memory / max(1.0, seconds))
    log.write(f"average migration speed: {speed}/s - downtime 54 ms")
    log.write("migration status: completed")


def _hand_over(
    state: ClusterState, guest: Guest, disk: Disk, target: str, target_storage: str | None
) -> None:
    source = state.storage(disk.storage)
    volume = source.remove(guest.node, disk.volid)
    if volume is None:
        return
    name = target_storage or disk.storage
    volid = f"{name}:{volume.name}"
    moved = Volume(volid, volume.content, volume.format, volume.size, volume.ctime, volume.vmid)
    moved.used = volume.used
    state.storage(name).put(target, moved)
    for config in (guest.config, guest.pending):
        if disk.slot in config:
            config[disk.slot] = str(config[disk.slot]).replace(disk.volid, volid)


def _require_online(target: Node) -> None:
    if not target.online:
        raise TaskFailed(f"migration aborted: can't reach node '{target.name}'")
