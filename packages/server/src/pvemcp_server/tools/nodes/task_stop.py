"""StopTask: end a running task, after saying what it leaves half-done."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from proxmox_client import DeadlineExceeded, NotFound, ProxmoxError, Task, Upid
from proxmox_client.api.resources import GuestResource
from proxmox_client.api.tasks import percent_of
from proxmox_client.properties import whole_number
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables.rows import moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.task_guests import guests_of_task
from pvemcp_server.toolkit.write_target import refuse_protected, require_no_protected_owner
from pvemcp_server.tools.nodes.tasks import UpidText, unknown_task, visible_task

_END_SECONDS: Final = 15  # Proxmox kills a task that has not ended 5 seconds after the signal
_LAST_LINES: Final = 5  # of its log, in the answer


@dataclass(frozen=True, slots=True)
class _Work:
    """What tasks of some types do, and what they leave when they are stopped."""

    name: str
    leaves: str


_OTHER: Final = _Work("task", "What it has done so far stays, perhaps half-done.")
_OF_TYPES: Final = {
    "vzdump": _Work(
        "backup",
        "This backup and those after it are not made; a lock (backup) or part of a file may stay.",
    ),
    "qmcreate vzcreate qmclone vzclone qmrestore vzrestore": _Work(
        "creation of a guest",
        "The new guest is incomplete: its disks so far and a lock may stay. A guest that was being "
        "restored over is lost.",
    ),
    "qmigrate vzmigrate": _Work(
        "migration",
        "It stays where it is unless it was just handed over; copies of its disks on the target "
        "and a lock (migrate) may stay.",
    ),
    "qmsnapshot vzsnapshot": _Work(
        "snapshot", "An incomplete snapshot, which only can be deleted, and a lock may stay."
    ),
    "qmdelsnapshot vzdelsnapshot": _Work(
        "deletion of a snapshot",
        "The snapshot may be half deleted and useless, and a lock may stay.",
    ),
    "qmrollback vzrollback": _Work(
        "rollback", "Its disks may be of two different times until it is rolled back again."
    ),
    "qmmove move_volume": _Work(
        "move of a disk", "The disk stays where it is; a part of its copy and a lock may stay."
    ),
    "resize": _Work("growth of a disk", "The disk may be larger than its configuration says."),
    "qmtemplate vztemplate": _Work("conversion to a template", "It may be half converted."),
    "qmdestroy vzdestroy": _Work(
        "deletion of a guest", "Disks that are deleted are lost; the rest and a lock may stay."
    ),
    "imgdel": _Work("deletion of a volume", "The volume may already be lost."),
    "imgcopy download ociregistrypull": _Work(
        "copy of a file", "The file is not complete; a part may stay."
    ),
    "qmstart vzstart qmresume vzresume": _Work("start", "The guest may be half started."),
    "qmstop vzstop qmshutdown vzshutdown qmreboot vzreboot qmreset": _Work(
        "stop", "It may run on, or stop later without a task."
    ),
    "startall stopall migrateall bulk-start bulk-shutdown bulk-suspend bulk-migrate": _Work(
        "work on many guests", "Guests it has not come to stay as they are."
    ),
    "vncproxy vncshell termproxy spiceproxy spiceshell": _Work(
        "console", "The user of the console is cut off."
    ),
    "aptupdate": _Work("update of package lists", "Package lists may be incomplete."),
}
_WORK: Final = {type_: work for types, work in _OF_TYPES.items() for type_ in types.split()}


@tool(
    "StopTask",
    area=Area.NODES,
    effect=Effect.WRITE,
    toolset=Toolset.MAINTENANCE,
    may_lose_data=True,
    needs=(needs.STOP_TASKS,),
)
async def stop_task(call: Call, *, cluster_name: ItsCluster = None, upid: UpidText) -> Plan:
    """Stop a running task; the preview says what that leaves half-done."""
    cluster, parsed = await visible_task(call, cluster_name, upid)
    refuse_protected(cluster)
    await cluster.require_not_offline(parsed.node)
    guest = await _guest(call, cluster, parsed)
    task = cluster.pve.task(parsed)
    await _require_running(cluster, task)
    work = _WORK.get(parsed.type, _OTHER)
    begun = moment(parsed.start_time)
    since = f"{begun:%Y-%m-%d %H:%M} UTC" if begun else "before"
    owner = f"{parsed.user}!{parsed.token}" if parsed.token else parsed.user
    return Plan(
        cluster=cluster,
        would=(
            f"Stop the {work.name} ({shown_name(parsed.type)}){_subject(parsed, guest)} on "
            f"{parsed.node} of {cluster.name}, begun {since} by "
            f"{shown_name(owner)}."
        ),
        progress=await _progress(task),
        loses=work.leaves,
        ids={"upid": parsed.text},
        act=task.stop,
        report=partial(_end, cluster, task, guest),
        needs=() if cluster.account in (owner, parsed.user) else (needs.STOP_TASKS,),
    )


async def _guest(call: Call, cluster: Cluster, upid: Upid) -> GuestResource | None:
    """Return the guest in the id of the task; raise Precondition if a tag protects one of it."""
    # also those that the caller does not see: a task of a visible node may be about any guest
    about = guests_of_task(upid, (await cluster.inventory.view()).by_vmid)
    for each in sorted(about):
        await require_no_protected_owner(call, cluster, each, "which the task is about")
    vmid = whole_number(upid.id)
    return None if vmid is None else (await cluster.inventory_view()).by_vmid.get(vmid)


async def _require_running(cluster: Cluster, task: Task) -> None:
    try:
        status = await task.status()
    except NotFound:
        raise unknown_task(cluster, task.upid.text) from None
    if not status.running:
        ended = status.exit_status or "unexpected status"
        raise Precondition(
            f"The task has already ended: {ended}.", hint="GetTask has the end of its log."
        )


def _subject(upid: Upid, guest: GuestResource | None) -> str:
    """Return what the task is about, after its work: ` of qemu 101`; its name may be unknown."""
    if guest is not None:
        return f" of {guest.type} {guest.vmid}"
    return f" of {shown_name(upid.id)}" if upid.id else ""


async def _progress(task: Task) -> str:
    """Return how far it is, if the end of its log says so."""
    try:
        percentages = [percent for line in await task.tail() if (percent := percent_of(line))]
    except ProxmoxError:
        return ""
    return f"It is at {percentages[-1]:.0f} %." if percentages else ""


async def _end(cluster: Cluster, task: Task, guest: GuestResource | None) -> Mapping[str, Any]:
    """Return how the task ended, and the lock that it left."""
    try:
        outcome = await task.outcome(timeout=_END_SECONDS)
    except DeadlineExceeded:
        cluster.notes.add("It has not ended yet: GetTask with this upid returns its outcome.")
        return {"ended": False}
    if outcome.ok:
        cluster.notes.add("It ended by itself before it was stopped.")
    log = [mask_line(line) for line in outcome.log_tail[-_LAST_LINES:]]
    ended = {"ended": True, "exit_status": outcome.exit_status, "log": log}
    return {**ended, **(await _lock_left(cluster, guest) if guest else {})}


async def _lock_left(cluster: Cluster, guest: GuestResource) -> Mapping[str, str]:
    try:
        status = await cluster.api_of(guest).status()
    except ProxmoxError:  # it may be gone with its creation
        return {}
    if not status.lock:
        return {}
    cluster.notes.add(f"{guest.type} {guest.vmid} is still locked: UnlockVm says by what.")
    return {"lock": status.lock}
