"""Power: start, stop, shutdown, reboot, reset, suspend, resume."""

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import Call, route
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.work import power
from proxmox_client.emulator.work.board import Job, Work

PREFIX = {Kind.QEMU: "qm", Kind.LXC: "vz"}


def both(path: str) -> tuple[str, str]:
    """A path below a guest, for machines and for containers."""
    return f"/nodes/{{node}}/qemu/{{vmid}}{path}", f"/nodes/{{node}}/lxc/{{vmid}}{path}"


@route("POST", *both("/status/start"))
def start(call: Call) -> str:
    """POST …/status/start."""
    guest = call.state.guests.get(call.vmid)
    if guest is not None and (managed := _by_ha(call, guest, "started")):
        return managed
    work = power.start(call.state, call.kind, call.params["node"], call.vmid)
    return _begin(call, "start", work)


@route("POST", *both("/status/stop"))
def stop(call: Call) -> str:
    """POST …/status/stop."""
    guest = call.guest
    if call.kind is Kind.LXC:
        _require_running(guest)
    if managed := _by_ha(call, guest, "stopped"):
        return managed
    return _begin(call, "stop", power.stop(guest))


@route("POST", *both("/status/shutdown"))
def shutdown(call: Call) -> str:
    """POST …/status/shutdown."""
    guest = call.guest
    if call.kind is Kind.LXC:
        _require_running(guest)
    if managed := _by_ha(call, guest, "stopped"):
        return managed
    work = power.shutdown(
        guest, timeout=call.get("timeout"), force=bool(call.get("forceStop", False))
    )
    return _begin(call, "shutdown", work)


@route("POST", *both("/status/reboot"))
def reboot(call: Call) -> str:
    """POST …/status/reboot."""
    _require_running(call.guest)
    return _begin(call, "reboot", power.reboot(call.guest, timeout=call.get("timeout")))


@route("POST", "/nodes/{node}/qemu/{vmid}/status/reset")
def reset(call: Call) -> str:
    """POST …/status/reset."""
    _require_running(call.guest)
    return _begin(call, "reset", power.reset(call.guest))


@route("POST", *both("/status/suspend"))
def suspend(call: Call) -> str:
    """POST …/status/suspend."""
    guest = call.guest
    _require_running(guest)
    if call.get("todisk"):
        return _begin(call, "suspend", power.suspend_to_disk(guest))
    type_ = "pause" if call.kind is Kind.QEMU else "suspend"
    return _begin(call, type_, power.pause(guest, paused=True))


@route("POST", *both("/status/resume"))
def resume(call: Call) -> str:
    """POST …/status/resume."""
    guest = call.guest
    if guest.lock == "suspended":
        return _begin(call, "resume", power.resume_from_disk(guest))
    _require_running(guest)
    return _begin(call, "resume", power.pause(guest, paused=False))


def _begin(call: Call, name: str, work: Work) -> str:
    return call.start(f"{PREFIX[call.kind]}{name}", call.vmid, work)


def _require_running(guest: Guest) -> None:
    if not guest.running:
        raise ApiError(f"{guest.kind.word} {guest.vmid} not running")


def _by_ha(call: Call, guest: Guest, wanted: str) -> str:
    """The task that asks the HA manager, for guests it manages; it ends before they change."""
    resource = call.state.ha_of(guest)
    if resource is None or resource.state == "ignored":
        return ""

    async def ask(job: Job) -> None:
        resource.state = wanted
        guest.touch()
        job.log(f"Requesting HA {'start' if wanted == 'started' else 'stop'} for {resource.sid}")
        await job.spend(0.5)

    async def act(job: Job) -> None:
        await job.spend(10)
        if wanted == "started":
            await power.start(call.state, guest.kind, guest.node, guest.vmid)(job)
        else:
            await power.stop(guest)(job)

    upid = call.start("hastart" if wanted == "started" else "hastop", call.vmid, ask)
    if (wanted == "started") is not guest.running:
        type_ = f"{PREFIX[guest.kind]}{'start' if wanted == 'started' else 'stop'}"
        call.cluster.tasks.start(guest.node, type_, str(guest.vmid), "root@pam", act)
    return upid
