"""UnlockVm: remove a lock that an aborted task left, after a look for what may hold it.

Proxmox lets only root@pam ignore a lock, and no API token of it; a container's lock cannot be
removed by its API at all. The answer then has the command for an administrator.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from proxmox_client import ProxmoxError, Qemu
from proxmox_client.api.tasks import TaskRow
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import Precondition
from pvemcp_server.shown_names import LONGEST_NAME, quoted, shown_name, shown_volume
from pvemcp_server.tables.rows import moment
from pvemcp_server.tables.tasks import CONSOLES
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.missing_privileges import rights_of
from pvemcp_server.toolkit.needs import Extent
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import Document, tool
from pvemcp_server.toolkit.write_target import TargetGuest, target_guest

_ROOT: Final = "root@pam"
_BACKUP: Final = "vzdump"
_COPIES: Final = frozenset({"qmclone", "vzclone"})  # their tasks are about the source
_STARTED: Final = re.compile(r"INFO: Starting Backup of VM (\d+) ")
_ACTIVE, _ENDED = 500, 50  # tasks of a node that are looked at


@dataclass(frozen=True, slots=True)
class _Lock:
    """The types of tasks that take a lock, and what one that was aborted leaves."""

    types: frozenset[str]
    left: str = ""


def _lock(types: str, left: str) -> _Lock:
    return _Lock(frozenset(types.split()), left)


_CREATION: Final = _lock(
    "qmcreate vzcreate qmrestore vzrestore qmclone vzclone",
    "The guest itself is probably incomplete: an unlocked one starts without some of its disks.",
)
_LOCKS: Final[Mapping[str, _Lock]] = {
    "backup": _lock(_BACKUP, ""),
    "clone": _CREATION,
    "create": _CREATION,
    "migrate": _lock(
        "qmigrate vzmigrate",
        "If it also runs on the target of the migration, its disks are damaged.",
    ),
    "snapshot": _lock("qmsnapshot vzsnapshot", "An incomplete snapshot may be left."),
    "snapshot-delete": _lock("qmdelsnapshot vzdelsnapshot", "A half deleted snapshot may be left."),
    "rollback": _lock(
        "qmrollback vzrollback", "Its disks may be of two different times: roll back again."
    ),
    "suspending": _lock("qmsuspend", "RAM that was being saved is lost."),
    "disk": _lock("move_volume resize vzclone", "A part of a disk's copy may be left."),
    "destroyed": _lock("vzdestroy qmdestroy", "Some of its disks are already deleted."),
}
# locks that no task holds, and what removes them without a loss
_STATES: Final = {
    "suspended": (
        "it is suspended to disk, and unlocked it loses the RAM that was saved",
        "ChangeVmState with Start resumes it.",
    ),
    "mounted": (
        "an administrator has mounted its file system",
        "`pct unmount {vmid}` on {node} ends that.",
    ),
}


@tool(
    "UnlockVm",
    title="Unlock guest",
    area=Area.VMS,
    effect=Effect.WRITE,
    toolset=Toolset.MAINTENANCE,
    may_lose_data=True,
    needs=(needs.GUESTS, needs.NODES),
)
async def unlock_vm(call: Call, *, cluster_name: ItsCluster = None, vmid: VmId) -> Plan | Document:
    """Remove the lock that an aborted task left on a VM or container; names what holds it."""
    guest = await target_guest(call, cluster_name, vmid, locks=None)
    # a task that begins after this changes the digest, and with it the removal is refused
    config = await guest.api.config()
    lock, digest = str(config.raw.get("lock") or ""), config.digest
    _require_left_over(guest, lock)
    await _require_unheld(guest, lock)
    kind = _LOCKS.get(lock, _Lock(frozenset()))
    left_by = await _left_by(guest, kind)
    warnings = await _warnings(guest)
    if not isinstance(guest.api, Qemu) or guest.cluster.account != _ROOT:
        return _advice(call, guest, lock, left_by, kind.left, warnings)
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Remove the lock {quoted(lock[:LONGEST_NAME])} of {guest.label}, {left_by}.",
        loses=f"What no task shows may still work on it, and its disks be damaged. {kind.left}",
        ids={"vmid": vmid, "lock": lock},
        digest=digest,
        act=partial(guest.api.unlock, digest=digest),
        warnings=warnings,
        report=partial(_report, guest),
    )


def _require_left_over(guest: TargetGuest, lock: str) -> None:
    """Raise Precondition for a guest without a lock, or whose lock is a state that ends itself."""
    if not lock:
        raise Precondition(f"{guest.label} is not locked.")
    if lock in _STATES:
        reason, hint = _STATES[lock]
        raise Precondition(
            f"{guest.label} is locked ({lock}): {reason}.",
            hint=hint.format(vmid=guest.vmid, node=guest.node),
        )


async def _require_unheld(guest: TargetGuest, lock: str) -> None:
    """Raise Precondition while a task works on the guest, with its id if the caller may see it."""
    cluster = guest.cluster
    here = await cluster.pve.node(guest.node).tasks(source="active", limit=_ACTIVE)
    # the lock of a migration that has moved the guest is held by a task of its former node
    elsewhere = [row for row in await cluster.pve.cluster.tasks() if row.node != guest.node]
    for row in (*here, *elsewhere):
        if row.running and await _holds(guest, lock, row):
            if row.id != str(guest.vmid) and not await _is_visible(cluster, row.node):
                raise Precondition(f"{guest.label} is locked ({lock}) by a task that still runs.")
            begun = moment(row.start_time)
            since = f" since {begun:%Y-%m-%d %H:%M} UTC" if begun else ""
            raise Precondition(
                f"{guest.label} is locked ({shown_name(lock)}), and {shown_name(row.type)} "
                f"works on it{since}: {shown_volume(row.upid)}",
                hint="GetTask with this upid waits for its end; StopTask ends it.",
            )


async def _holds(guest: TargetGuest, lock: str, row: TaskRow) -> bool:
    """Return whether a running task works on the guest."""
    if row.id == str(guest.vmid):
        return row.type not in CONSOLES
    if row.type in _COPIES and lock in _LOCKS:
        return row.type in _LOCKS[lock].types
    if row.type == _BACKUP and lock == "backup" and not row.id and row.node == guest.node:
        return await _backs_up_now(guest, row)
    return False


async def _backs_up_now(guest: TargetGuest, row: TaskRow) -> bool:
    """Return whether a backup of several guests is at this one, as its log says."""
    try:
        log = await guest.cluster.pve.task(row.upid).log(limit=0)
    except ProxmoxError:
        return True  # it may be
    started = [match[1] for line in log.lines if (match := _STARTED.match(line.text))]
    return started[-1:] == [str(guest.vmid)]


async def _is_visible(cluster: Cluster, node: str) -> bool:
    return node in (await cluster.inventory_view()).by_node


async def _left_by(guest: TargetGuest, kind: _Lock) -> str:
    """Describe the last task of the lock's kind: the one that failed, if there is any."""
    node = guest.cluster.pve.node(guest.node)
    rows: Sequence[TaskRow] = await node.tasks(source="archive", vmid=guest.vmid, limit=_ENDED)
    if _BACKUP in kind.types and await _is_visible(guest.cluster, guest.node):
        of_jobs = await node.tasks(source="archive", type=_BACKUP, limit=_ENDED)
        rows = [*rows, *(row for row in of_jobs if not row.id)]
    fitting = [row for row in rows if row.type in kind.types]
    fitting.sort(key=lambda row: row.start_time, reverse=True)
    row = next((row for row in fitting if not row.ok), next(iter(fitting), None))
    if row is None or not (begun := moment(row.start_time)):
        return f"which no task on record at {guest.node} explains"
    ended = "ended well" if row.ok else f"failed ({shown_name(row.status or 'unexpected status')})"
    return f"perhaps left by {shown_name(row.type)} of {begun:%Y-%m-%d %H:%M} UTC, which {ended}"


async def _warnings(guest: TargetGuest) -> tuple[str, ...]:
    """Return a warning if Proxmox hides the tasks of others from the account."""
    rights = await rights_of(guest.cluster, needs.NODES)
    right = rights.get(needs.NODES)
    on_node = f"/nodes/{guest.node}"
    if right and (right.extent is Extent.EVERYWHERE or on_node in right.paths):
        return ()
    warning = (
        f"{guest.cluster.account} may not see tasks of others: make sure that none works on it "
        f"(`pvesh get {on_node}/tasks --source active`)."
    )
    return (warning,)


def _advice(
    call: Call,
    guest: TargetGuest,
    lock: str,
    left_by: str,
    left: str,
    warnings: Sequence[str],
) -> Document:
    """Return the command for an administrator; nothing was changed."""
    command, reason = "pct", "Proxmox's API removes no lock of a container."
    if isinstance(guest.api, Qemu):
        command, reason = "qm", f"Proxmox lets only {_ROOT}, without an API token, do this."
    return {
        **({"dry_run": True} if call.dry_run else {}),
        "success": False,
        "vmid": guest.vmid,
        "lock": lock,
        "left_by": left_by,
        "administrator_runs": f"{command} unlock {guest.vmid}",
        "node": guest.node,
        "reason": reason,
        "before": " ".join(filter(None, (left, *warnings))) or None,
    }


async def _report(guest: TargetGuest) -> Mapping[str, Any]:
    return {"lock_now": (await guest.api.status()).lock or None}
