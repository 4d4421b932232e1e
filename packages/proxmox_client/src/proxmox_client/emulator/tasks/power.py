"""Power actions of guests: start, stop, shutdown, reboot, reset, pause, suspend."""

from typing import Final

from proxmox_client.emulator.errors import TaskFailed
from proxmox_client.emulator.state.cluster import ClusterState
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.tasks.pending_changes import apply_pending
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

START_SECONDS: Final = 2.0
STOP_SECONDS: Final = 1.0
SHUTDOWN_SECONDS: Final = 6.0
SHUTDOWN_TIMEOUT: Final = {Kind.QEMU: 180, Kind.LXC: 60}
"""Seconds that a guest has to shut down, by default."""


def set_running(guest: Guest, state: ClusterState) -> None:
    """Mark a guest as running from now on and apply its pending changes."""
    apply_pending(state, guest)
    guest.status, guest.paused = "running", False
    guest.started, guest.pid = state.now, state.next_pid()
    guest.touch()


def set_stopped(guest: Guest, state: ClusterState) -> None:
    """Mark a guest as stopped and apply its pending changes."""
    if guest.running:
        guest.stopped = state.now
    guest.status, guest.paused, guest.pid = "stopped", False, 0
    apply_pending(state, guest)
    guest.touch()


def start(state: ClusterState, kind: Kind, node: str, vmid: int) -> TaskFunction:
    """Return the task that starts a guest.

    A missing or running guest makes the task fail, not the request.
    """

    async def run(context: TaskContext) -> None:
        guest = state.guest(kind, node, vmid)
        if guest.template:
            raise TaskFailed(
                f"you can't start a {'vm' if kind is Kind.QEMU else 'CT'} if it's a template"
            )
        guest.require_unlocked()
        if guest.running:
            raise TaskFailed(f"{kind.word} {vmid} already running")
        _require_bridges(guest)
        await context.spend(START_SECONDS)
        set_running(guest, state)

    return run


def _require_bridges(guest: Guest) -> None:
    for key, value in guest.config.items():
        if key.startswith("net") and (bridge := missing_bridge(str(value))):
            raise TaskFailed(f"bridge '{bridge}' does not exist")


def missing_bridge(network: str) -> str:
    """Return the bridge of a network device if no node has it; those of nodes are vmbr0 etc."""
    bridge = network.partition("bridge=")[2].partition(",")[0]
    return "" if bridge.startswith("vmbr") else bridge


def stop(guest: Guest) -> TaskFunction:
    """Return the task that stops a guest immediately."""

    async def run(context: TaskContext) -> None:
        await context.spend(STOP_SECONDS)
        set_stopped(guest, context.state)

    return run


def shutdown(guest: Guest, *, timeout: float | None, force: bool) -> TaskFunction:
    """Return the task that shuts a guest down; `force` stops it after the timeout in seconds."""

    async def run(context: TaskContext) -> None:
        if not guest.running:
            return
        await _wait_for_shutdown(context, guest, timeout, force=force)
        set_stopped(guest, context.state)

    return run


def reboot(guest: Guest, *, timeout: float | None) -> TaskFunction:
    """Return the task that shuts a guest down and starts it again."""

    async def run(context: TaskContext) -> None:
        await _wait_for_shutdown(context, guest, timeout, force=False)
        set_stopped(guest, context.state)
        await context.spend(START_SECONDS)
        set_running(guest, context.state)

    return run


async def _wait_for_shutdown(
    context: TaskContext, guest: Guest, limit: float | None, *, force: bool
) -> None:
    """Wait until a guest shuts down; without `force`, raise TaskFailed after the limit."""
    seconds = SHUTDOWN_TIMEOUT[guest.kind] if limit is None else limit
    if guest.honors_shutdown and not guest.paused and seconds >= SHUTDOWN_SECONDS / 3:
        await context.spend(min(seconds, SHUTDOWN_SECONDS))
        return
    await context.spend(seconds)
    if not force:
        is_machine = guest.kind is Kind.QEMU
        raise TaskFailed(
            "VM quit/powerdown failed - got timeout" if is_machine else "container did not stop"
        )


def reset(guest: Guest) -> TaskFunction:
    """Return the task that resets a virtual machine, which reboots it without a shutdown."""

    async def run(context: TaskContext) -> None:
        await context.spend(0.3)
        guest.started, guest.honors_shutdown = context.state.now, True
        guest.touch()

    return run


def pause(guest: Guest, *, paused: bool) -> TaskFunction:
    """Return the task that pauses or resumes a guest."""

    async def run(context: TaskContext) -> None:
        await context.spend(0.2)
        guest.paused = paused
        guest.touch()

    return run


def suspend_to_disk(guest: Guest) -> TaskFunction:
    """Return the task that suspends a virtual machine to disk."""

    async def run(context: TaskContext) -> None:
        guest.config["lock"] = "suspending"
        guest.touch()
        await context.spend(5)
        context.log(f"Saving VM {guest.vmid} state completed")
        set_stopped(guest, context.state)
        guest.config["lock"] = "suspended"
        guest.touch()

    return run


def resume_from_disk(guest: Guest) -> TaskFunction:
    """Return the task that resumes a virtual machine from disk."""

    async def run(context: TaskContext) -> None:
        await context.spend(START_SECONDS)
        guest.config.pop("lock", None)
        set_running(guest, context.state)

    return run
