"""Migration of guests to other nodes."""

from datetime import UTC, datetime, timedelta
from typing import Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Disk, Guest, disks_of
from proxmox_client.emulator.state.node import Node
from proxmox_client.emulator.state.sizes import MIB, human
from proxmox_client.emulator.state.storage import Volume
from proxmox_client.emulator.tasks.locks import locked
from proxmox_client.emulator.tasks.power import set_running, set_stopped
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

BYTES_PER_SECOND: Final = 1100 * MIB
MAX_SECONDS: Final = 40.0
"""The limit for one transfer, so that large guests don't block tests."""

SSH_FAILED: Final = (
    "command '/usr/bin/ssh -e none -o 'BatchMode=yes' -o 'HostKeyAlias={node}' -o "
    "'UserKnownHostsFile=/etc/pve/nodes/{node}/ssh_known_hosts' -o 'GlobalKnownHostsFile=none' "
    "root@{address} /bin/true' failed: exit code 255"
)
"""The outcome of a migration to a node that doesn't answer."""


def local_disks(guest: Guest, state: ClusterState) -> list[Disk]:
    """List the disks on local storages, including pending ones."""
    disks = [*guest.disks(), *disks_of(guest.pending, guest.kind)]
    return [disk for disk in disks if not state.storage(disk.storage).shared]


def migrate(
    guest: Guest, target: Node, *, online: bool, target_storage: str | None
) -> TaskFunction:
    """Return the task that migrates a guest with its local disks."""

    async def run(context: TaskContext) -> None:
        if not target.is_member:
            context.log(f"ssh: connect to host {target.address} port 22: No route to host")
            raise TaskFailed(SSH_FAILED.format(node=target.name, address=target.address))
        log = _Log(context)
        started = context.state.now
        if online and guest.running:
            log.write("conntrack state migration not supported or disabled")
        destination = f"node '{target.name}' ({target.address})"
        log.write(f"starting migration of {guest.kind.word} {guest.vmid} to {destination}")
        async with locked(guest, "migrate"):
            disks = local_disks(guest, context.state)
            for disk in disks:
                await _copy_disk(log, disk, target.name)
            if online and guest.running:
                await _copy_memory(log, guest, target)
            else:
                await context.spend(1)
        if not target.online:
            raise TaskFailed(f"migration aborted: can't reach node '{target.name}'")
        for disk in disks:
            _move_volume(context.state, guest, disk, target.name, target_storage)
        guest.node = target.name
        guest.touch()
        duration = timedelta(seconds=int(context.state.now - started))
        log.write(f"migration finished successfully (duration {str(duration).zfill(8)})")

    return run


def migrate_with_restart(guest: Guest, target: Node) -> TaskFunction:
    """Return the task that migrates a container: stop, migrate, start on the target."""

    async def run(context: TaskContext) -> None:
        was_running = guest.running
        if was_running:
            await context.spend(2)
            set_stopped(guest, context.state)
        await migrate(guest, target, online=False, target_storage=None)(context)
        if was_running:
            context.log("start container on target node")
            await context.spend(2)
            set_running(guest, context.state)

    return run


class _Log:
    """The log of a migration, with the time before each line."""

    def __init__(self, context: TaskContext) -> None:
        self.context = context

    def write(self, text: str) -> None:
        when = datetime.fromtimestamp(self.context.state.now, UTC)
        self.context.log(f"{when:%Y-%m-%d %H:%M:%S} {text}")


async def _copy_disk(log: _Log, disk: Disk, target: str) -> None:
    log.write(f"found local disk '{disk.volid}' (attached)")
    log.write("copying local disk images")
    seconds = min(MAX_SECONDS, disk.size / BYTES_PER_SECOND)
    for percent in (25, 50, 75, 100):
        await log.context.spend(seconds / 4)
        transferred = human(disk.size * percent / 100)
        log.write(
            f"drive-{disk.slot}: transferred {transferred} of {human(disk.size)} ({percent}.00%)"
        )
    log.write(f"successfully imported '{disk.volid}' on {target}")


async def _copy_memory(log: _Log, guest: Guest, target: Node) -> None:
    log.write(f"starting {guest.kind.word} {guest.vmid} on remote node '{target.name}'")
    await log.context.spend(1)
    log.write("start remote tunnel")
    log.write(f"starting online/live migration on unix:/run/qemu-server/{guest.vmid}.migrate")
    seconds = min(MAX_SECONDS, max(2.0, guest.memory / BYTES_PER_SECOND))
    for percent in (20, 45, 70, 90):
        await log.context.spend(seconds / 4)
        transferred = human(guest.memory * percent / 100)
        log.write(f"migration active, transferred {transferred} of {human(guest.memory)} VM-state")
    speed = human(guest.memory / max(1.0, seconds))
    log.write(f"average migration speed: {speed}/s - downtime 54 ms")
    log.write("migration status: completed")


def _move_volume(
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
