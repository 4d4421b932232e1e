"""Starting, stopping and everything between."""

from typing import Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.work.board import Job, Work
from proxmox_client.emulator.work.pending import apply_pending

START_SECONDS: Final = 2.0
STOP_SECONDS: Final = 1.0
SHUTDOWN_SECONDS: Final = 6.0
PATIENCE: Final = {Kind.QEMU: 180, Kind.LXC: 60}
"""Seconds a guest has to shut down."""


def started(guest: Guest, state: ClusterState) -> None:
    """The guest runs from now on, with the changes that waited for it."""
    apply_pending(state, guest)
    guest.status, guest.paused = "running", False
    guest.started, guest.pid = state.now, state.next_pid()
    guest.touch()


def stopped(guest: Guest, state: ClusterState) -> None:
    """The guest does not run any more."""
    guest.status, guest.paused, guest.pid = "stopped", False, 0
    apply_pending(state, guest)
    guest.touch()


def start(state: ClusterState, kind: Kind, node: str, vmid: int) -> Work:
    """Start a guest; that it is missing or runs already only its task says."""

    async def work(job: Job) -> None:
        guest = state.guest(kind, node, vmid)
        if guest.template:
            raise TaskFailed(
                f"you can't start a {'vm' if kind is Kind.QEMU else 'CT'} if it's a template"
            )
        guest.require_unlocked()
        if guest.running:
            raise TaskFailed(f"{kind.word} {vmid} already running")
        _require_bridges(guest)
        await job.spend(START_SECONDS)
        started(guest, state)

    return work


def _require_bridges(guest: Guest) -> None:
    for key, value in guest.config.items():
        if key.startswith("net") and "bridge=" in str(value):
            bridge = str(value).partition("bridge=")[2].partition(",")[0]
            if not bridge.startswith("vmbr"):
                raise TaskFailed(f"bridge '{bridge}' does not exist")


def stop(guest: Guest) -> Work:
    """Stop a guest at once."""

    async def work(job: Job) -> None:
        await job.spend(STOP_SECONDS)
        stopped(guest, job.state)

    return work


def shutdown(guest: Guest, *, timeout: float | None, force: bool) -> Work:
    """Ask a guest to shut down, and stop it when it does not and force is given."""

    async def work(job: Job) -> None:
        if not guest.running:
            return
        await _asked(job, guest, timeout, force=force)
        stopped(guest, job.state)

    return work


def reboot(guest: Guest, *, timeout: float | None) -> Work:
    """Shut a guest down and start it again."""

    async def work(job: Job) -> None:
        await _asked(job, guest, timeout, force=False)
        stopped(guest, job.state)
        await job.spend(START_SECONDS)
        started(guest, job.state)

    return work


async def _asked(job: Job, guest: Guest, patience: float | None, *, force: bool) -> None:
    patience = PATIENCE[guest.kind] if patience is None else patience
    if guest.obeys and not guest.paused and patience >= SHUTDOWN_SECONDS / 3:
        await job.spend(min(patience, SHUTDOWN_SECONDS))
        return
    await job.spend(patience)
    if not force:
        is_machine = guest.kind is Kind.QEMU
        raise TaskFailed(
            "VM quit/powerdown failed - got timeout" if is_machine else "container did not stop"
        )


def reset(guest: Guest) -> Work:
    """Reset a machine: it begins anew without having stopped."""

    async def work(job: Job) -> None:
        await job.spend(0.3)
        guest.started, guest.obeys = job.state.now, True
        guest.touch()

    return work


def pause(guest: Guest, *, paused: bool) -> Work:
    """Freeze a guest, or let it go on."""

    async def work(job: Job) -> None:
        await job.spend(0.2)
        guest.paused = paused
        guest.touch()

    return work


def suspend_to_disk(guest: Guest) -> Work:
    """Save a machine's memory and stop it."""

    async def work(job: Job) -> None:
        guest.config["lock"] = "suspending"
        guest.touch()
        await job.spend(5)
        job.log(f"Saving VM {guest.vmid} state completed")
        stopped(guest, job.state)
        guest.config["lock"] = "suspended"
        guest.touch()

    return work


def resume_from_disk(guest: Guest) -> Work:
    """Start a machine with the memory it was suspended with."""

    async def work(job: Job) -> None:
        await job.spend(START_SECONDS)
        guest.config.pop("lock", None)
        started(guest, job.state)

    return work
