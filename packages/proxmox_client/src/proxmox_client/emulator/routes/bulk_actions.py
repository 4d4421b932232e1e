"""Bulk actions on guests: a worker sends each guest's own request and follows its task.

Source: PVE/API2/Cluster/BulkAction/Guest.pm. Stopping the worker ends it here at once; Proxmox's
may go on for five seconds.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from proxmox_client.emulator.errors import ApiError, TaskFailed
from proxmox_client.emulator.router import ApiRequest, find_handler, route
from proxmox_client.emulator.state.guest import Guest, Kind
from proxmox_client.emulator.state.task import Task
from proxmox_client.emulator.tasks.runner import TaskContext
from proxmox_client.properties import parse, whole_number

_LAST: Final = 2**63
_WORKERS: Final = 4
_SHUTDOWN_SECONDS: Final = 180


@dataclass(frozen=True, slots=True)
class Step:
    """What is sent to a guest: the end of its path, the parameters, and the line in the log."""

    path: str
    parameters: dict[str, Any]
    line: str


class Skipped(Exception):
    """The guest needs no request; the text is the warning about it."""


Plan = Callable[[ApiRequest, Guest], Step]


@route("GET", "/cluster/bulk-action/guest")
def index(_request: ApiRequest) -> list[dict[str, str]]:
    """GET /cluster/bulk-action/guest."""
    return [{"name": name} for name in ("start", "shutdown", "migrate", "suspend")]


@route("POST", "/cluster/bulk-action/guest/start")
def start(request: ApiRequest) -> str:
    """POST /cluster/bulk-action/guest/start."""
    return _begin(request, "start", _start, "Starting", "start:", privilege="VM.PowerMgmt")


@route("POST", "/cluster/bulk-action/guest/shutdown")
def shutdown(request: ApiRequest) -> str:
    """POST /cluster/bulk-action/guest/shutdown."""
    return _begin(
        request, "shutdown", _shutdown, "Shutting down", "shutdown", privilege="VM.PowerMgmt"
    )


@route("POST", "/cluster/bulk-action/guest/suspend")
def suspend(request: ApiRequest) -> str:
    """POST /cluster/bulk-action/guest/suspend."""
    return _begin(request, "suspend", _suspend, "Suspending", "suspend", privilege="VM.PowerMgmt")


@route("POST", "/cluster/bulk-action/guest/migrate")
def migrate(request: ApiRequest) -> str:
    """POST /cluster/bulk-action/guest/migrate."""
    return _begin(request, "migrate", _migrate, "Migrating", "migrate", privilege="VM.Migrate")


def _start(request: ApiRequest, guest: Guest) -> Step:
    name = _name(guest)
    if guest.running and guest.kind is Kind.QEMU and not guest.paused:
        raise Skipped(f"Skipping {name}, already running.")
    seconds = request.get("timeout")
    given = seconds is not None and guest.kind is Kind.QEMU and not guest.running
    return Step(
        "status/resume" if guest.running else "status/start",
        {"timeout": seconds} if given else {},
        f"Starting {name}",
    )


def _shutdown(request: ApiRequest, guest: Guest) -> Step:
    name, force = _name(guest), bool(request.get("force-stop", True))
    if not guest.running:
        raise Skipped(f"Skipping {name}, not running.")
    if guest.paused and not request.get("force-stop"):
        raise Skipped(f"Skipping {name}, resume paused VM before shutdown.")
    own = whole_number(_startup(guest).get("down"))
    seconds = request.get("timeout", _SHUTDOWN_SECONDS) if own is None else own
    return Step(
        "status/shutdown",
        {"forceStop": force, "timeout": seconds},
        f"Shutting down {name} (Timeout = {seconds} seconds)",
    )


def _suspend(request: ApiRequest, guest: Guest) -> Step:
    if guest.kind is not Kind.QEMU:
        raise Skipped(f"skipping {guest.vmid}, only VMs can be suspended")
    if not guest.running:
        raise Skipped(f"Skipping {_name(guest)}, not running.")
    to_disk = bool(request.get("to-disk"))
    return Step("status/suspend", {"todisk": to_disk}, f"Suspending {_name(guest)}")


def _migrate(request: ApiRequest, guest: Guest) -> Step:
    name, target = _name(guest), request.params["target"]
    if guest.node == target:
        raise Skipped(f"{name} already on {target}, skipping.")
    online, local = request.get("online"), request.get("with-local-disks")
    options = {"online": online, "with-local-disks": local}
    if guest.kind is Kind.LXC:
        options = {"restart": online}
    given = {key: value for key, value in options.items() if value is not None}
    return Step("migrate", {"target": target, **given}, f"Migrating {name}")


def _begin(
    request: ApiRequest, action: str, plan: Plan, verb: str, failed: str, *, privilege: str
) -> str:
    """Check the rights on each guest, or on all, and start the worker; return its UPID."""
    vmids: list[int] = [int(vmid) for vmid in request.get("vms", [])]
    for path in [f"/vms/{vmid}" for vmid in vmids] or ["/"]:
        request.rights.require(path, privilege)
    worker = _Worker(request, action, plan, f"Some guests failed to {failed} ")
    to_node = f" to {request.params['target']}" if action == "migrate" else ""
    which = f"guests{to_node}: {', '.join(map(str, vmids))}" if vmids else f"all guests{to_node}"
    lists = list(_in_order(request, action, vmids))

    async def work(context: TaskContext) -> None:
        context.log(f"{verb} {which}")
        await worker.run(context, lists)

    return request.start(f"bulk-{action}", "", work)


def _in_order(request: ApiRequest, action: str, vmids: Iterable[int]) -> Iterator[list[Guest]]:
    """Yield the guests of each startup order: those that exist, and no templates, by VMID."""
    named = set(vmids)
    orders: dict[int, list[Guest]] = {}
    for vmid, guest in sorted(request.state.guests.items()):
        if (named and vmid not in named) or (guest.template and action != "migrate"):
            continue
        if not named and action != "migrate" and request.state.ha_of(guest) is not None:
            continue
        order = whole_number(_startup(guest).get("order")) if action != "migrate" else 0
        orders.setdefault(_LAST if order is None else order, []).append(guest)
    for order in sorted(orders, reverse=action in ("shutdown", "suspend")):
        yield orders[order]


class _Worker:
    """The work of a bulk action: at most `workers` guests at once, one startup order at a time."""

    def __init__(self, request: ApiRequest, action: str, plan: Plan, failure: str) -> None:
        self._request, self._plan, self._failure = request, plan, failure
        default = 1 if action == "migrate" else _WORKERS
        given = request.get("max-workers") or request.get("maxworkers")
        self._workers = int(given or default)
        verb = {"start": "Starting", "migrate": "Migrating"}
        self._verb = verb.get(action, "Stopping")
        self._delays = action == "start"
        self._failed: list[int] = []

    async def run(self, context: TaskContext, orders: Iterable[list[Guest]]) -> None:
        for guests in orders:
            running: dict[str, Guest] = {}
            for guest in guests:
                while len(running) >= self._workers:
                    await self._collect(context, running)
                    await context.spend(1)
                if upid := await self._send(context, guest):
                    running[upid] = guest
            while running:
                await self._collect(context, running)
                if running:
                    await context.spend(1)
        if self._failed:
            raise TaskFailed(f"{self._failure}{', '.join(map(str, self._failed))}")

    async def _send(self, context: TaskContext, guest: Guest) -> str:
        """Send the guest's request; return the UPID of its task, empty if there is none."""
        try:
            step = self._plan(self._request, guest)
        except Skipped as reason:
            context.warn(str(reason))
            return ""
        context.log(step.line)
        try:
            return self._post(guest, step)
        except ApiError as error:
            context.warn(f"{error.status} {error}")
            self._failed.append(guest.vmid)
            return ""

    def _post(self, guest: Guest, step: Step) -> str:
        """Send the request as the account of the bulk action; return the UPID of its task."""
        if not self._request.state.nodes[guest.node].online:
            raise ApiError("No route to host", status=595)
        kind, where = guest.kind.value, {"node": guest.node, "vmid": guest.vmid}
        handler = find_handler("POST", f"/nodes/{{node}}/{kind}/{{vmid}}/{step.path}")
        path = f"/nodes/{guest.node}/{kind}/{guest.vmid}/{step.path}"
        own = replace(self._request, params={**where, **step.parameters}, path=path)
        return str(handler(own)) if handler else ""

    async def _collect(self, context: TaskContext, running: dict[str, Guest]) -> None:
        """Take out the guests whose tasks have ended; warn of those that failed."""
        for upid, guest in list(running.items()):
            task: Task = self._request.state.tasks[upid]
            if task.running:
                continue
            del running[upid]
            if not task.ok:
                self._failed.append(guest.vmid)
                context.warn(f"{self._verb} {_name(guest)} failed: {task.outcome}")
            elif self._delays and (seconds := whole_number(_startup(guest).get("up"))):
                context.log(f"Waiting for {seconds} seconds (startup delay)")
                await context.spend(seconds)


def _startup(guest: Guest) -> dict[str, str]:
    return dict(parse(str(guest.config.get("startup", "")), "order"))


def _name(guest: Guest) -> str:
    return f"{guest.kind.word} {guest.vmid}"
