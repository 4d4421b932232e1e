"""Power actions: start, stop, shutdown, reboot, reset, suspend, resume."""

from proxmox_client.emulator.errors import ApiError
from proxmox_client.emulator.router import ApiRequest, route
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.tasks import power
from proxmox_client.emulator.tasks.runner import TaskContext, TaskFunction

PREFIX = {Kind.QEMU: "qm", Kind.LXC: "vz"}


def both(path: str) -> tuple[str, str]:
    """Return a path below a guest, for virtual machines and for containers."""
    return f"/nodes/{{node}}/qemu/{{vmid}}{path}", f"/nodes/{{node}}/lxc/{{vmid}}{path}"


@route("POST", *both("/status/start"))
def start(request: ApiRequest) -> str:
    """POST …/status/start."""
    guest = request.state.guests.get(request.vmid)
    if guest is not None and (upid := _request_ha_state(request, guest, "started")):
        return upid
    work = power.start(request.state, request.kind, request.params["node"], request.vmid)
    return _start_task(request, "start", work)


@route("POST", *both("/status/stop"))
def stop(request: ApiRequest) -> str:
    """POST …/status/stop."""
    guest = request.guest
    if request.kind is Kind.LXC:
        _require_running(guest)
    if upid := _request_ha_state(request, guest, "stopped"):
        return upid
    return _start_task(request, "stop", power.stop(guest))


@route("POST", *both("/status/shutdown"))
def shutdown(request: ApiRequest) -> str:
    """POST …/status/shutdown."""
    guest = request.guest
    if request.kind is Kind.LXC:
        _require_running(guest)
    if upid := _request_ha_state(request, guest, "stopped"):
        return upid
    work = power.shutdown(
        guest, timeout=request.get("timeout"), force=bool(request.get("forceStop", False))
    )
    return _start_task(request, "shutdown", work)


@route("POST", *both("/status/reboot"))
def reboot(request: ApiRequest) -> str:
    """POST …/status/reboot."""
    _require_running(request.guest)
    return _start_task(
        request, "reboot", power.reboot(request.guest, timeout=request.get("timeout"))
    )


@route("POST", "/nodes/{node}/qemu/{vmid}/status/reset")
def reset(request: ApiRequest) -> str:
    """POST …/status/reset."""
    _require_running(request.guest)
    return _start_task(request, "reset", power.reset(request.guest))


@route("POST", *both("/status/suspend"))
def suspend(request: ApiRequest) -> str:
    """POST …/status/suspend."""
    guest = request.guest
    _require_running(guest)
    if request.get("todisk"):
        return _start_task(request, "suspend", power.suspend_to_disk(guest))
    type_ = "pause" if request.kind is Kind.QEMU else "suspend"
    return _start_task(request, type_, power.pause(guest, paused=True))


@route("POST", *both("/status/resume"))
def resume(request: ApiRequest) -> str:
    """POST …/status/resume."""
    guest = request.guest
    if guest.lock == "suspended":
        return _start_task(request, "resume", power.resume_from_disk(guest))
    _require_running(guest)
    return _start_task(request, "resume", power.pause(guest, paused=False))


def _start_task(request: ApiRequest, name: str, work: TaskFunction) -> str:
    return request.start(f"{PREFIX[request.kind]}{name}", request.vmid, work)


def _require_running(guest: Guest) -> None:
    if not guest.running:
        raise ApiError(f"{guest.kind.word} {guest.vmid} not running")


def _request_ha_state(request: ApiRequest, guest: Guest, state: str) -> str:
    """Start the task that requests a state from the HA manager, for guests that it manages.

    Returns its UPID, or an empty string for other guests. The task ends before the guest changes.
    """
    resource = request.state.ha_of(guest)
    if resource is None or resource.state == "ignored":
        return ""

    action = "start" if state == "started" else "stop"

    async def request_state(context: TaskContext) -> None:
        resource.state = state
        guest.touch()
        context.log(f"Requesting HA {action} for {resource.sid}")
        await context.spend(0.5)

    async def change_state(context: TaskContext) -> None:
        await context.spend(10)
        if state == "started":
            await power.start(request.state, guest.kind, guest.node, guest.vmid)(context)
        else:
            await power.stop(guest)(context)

    upid = request.start(f"ha{action}", request.vmid, request_state)
    if (state == "started") is not guest.running:
        type_ = f"{PREFIX[guest.kind]}{action}"
        request.backend.tasks.start(guest.node, type_, str(guest.vmid), "root@pam", change_state)
    return upid
