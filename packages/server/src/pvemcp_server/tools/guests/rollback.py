"""Rollback of guests to a snapshot, after a snapshot of the present state where that can be."""

import asyncio
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, count
from typing import Annotated, Any, Final, NamedTuple

from pydantic import Field

from proxmox_client import ProxmoxError, ResponseError, Task, TaskFailed
from proxmox_client.api.configs import GuestConfig
from proxmox_client.api.guests import Snapshot as ProxmoxSnapshot
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Frozen, PartlyDone, Precondition
from pvemcp_server.shown_names import listed_names, shown_name
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ItsCluster, SnapshotName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.next_call import NextCall
from pvemcp_server.toolkit.own_rights import refuse_tag_changes
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_on_node
from pvemcp_server.toolkit.task_wait import follow, watch
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.undo_check import left_config
from pvemcp_server.toolkit.write_target import (
    TargetGuest,
    all_storages,
    refuse_template,
    target_guest,
)
from pvemcp_server.tools.guests.snapshots import (
    named_snapshot,
    require_freezable_disks,
    time_of,
)

KeepPresent = Annotated[bool, Field(description="Take a snapshot of the present state first")]

# Storages that only roll back to the newest snapshot (volume_rollback_is_possible in pve-storage);
# those whose snapshots are a chain of volumes too
_NEWEST_ONLY: Final = {"zfspool", "zfs", "lvm"}


@tool(
    "RollbackVmSnapshot",
    view="plan",
    title="Roll back to snapshot",
    area=Area.VMS,
    effect=Effect.DESTROY,
    needs=(needs.GUESTS, needs.ROLLBACK),
)
async def rollback_vm_snapshot(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    snapshot_name: SnapshotName,
    keep_present: KeepPresent = True,
) -> Plan:
    """Roll a VM or container back to a snapshot; all later changes are lost."""
    guest = await target_guest(call, cluster_name, vmid)
    refuse_template(guest, "be rolled back")
    existing = await guest.api.snapshots()
    snapshot = named_snapshot(guest, snapshot_name, existing)
    _require_complete(guest, snapshot)
    config = await guest.api.config(snapshot=snapshot.name)
    disks = await _restricted_disks(guest, config)
    _require_newest(guest, snapshot, existing, disks.chained)
    # the snapshot has tags of its own, and they come back with it
    refuse_tag_changes(call, guest, guest.status.tag_list, config.tag_list, "The snapshot")
    warnings = []
    if guest.state != "stopped" and not snapshot.with_memory:
        warnings.append("It is running and is stopped by this; the snapshot holds no RAM.")
    obstacle = await _obstacle(guest, disks) if keep_present else "keep_present is false"
    time = time_of(snapshot)
    if obstacle:
        loses = f"All that was written to its disks since {time} is lost."
        warnings.append(f"No snapshot of the present state is taken first: {obstacle}.")
    else:
        memory = ", but not its RAM" if guest.state != "stopped" else ""
        loses = (
            f"All that was written to its disks since {time} leaves them. A snapshot that is taken "
            f"first keeps the present state{memory}."
        )
    taken = {each.name for each in existing}
    rollback = _Rollback(guest, snapshot.name, call, taken, keeps_present=not obstacle)
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Roll {guest.label} back to snapshot {snapshot.name!r}.",
        loses=loses,
        ids={"vmid": vmid, "snapshot_name": snapshot.name},
        digest=config.digest,
        past=past_tasks(guest, "qmrollback", "vzrollback"),
        act=rollback.act,
        finish=rollback.finish,
        warnings=tuple(warnings),
        room=await _room_to_resume(guest) if snapshot.with_memory else "",
    )


def _free_name(taken: Container[str]) -> str:
    """Return a name for the snapshot of the present state that no snapshot has."""
    base = f"before-rollback-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    numbered = (f"{base}-{number}" for number in count(2))
    return next(name for name in chain([base], numbered) if name not in taken)


def _require_complete(guest: TargetGuest, snapshot: ProxmoxSnapshot) -> None:
    """Raise Precondition for a snapshot that a failed task left over: Proxmox cannot restore it."""
    if snapshot.state:
        raise Precondition(
            f"Snapshot {snapshot.name!r} of {guest.label} is incomplete "
            f"({shown_name(snapshot.state)}).",
            hint="Only deleting it is possible.",
        )


class _RestrictedDisks(NamedTuple):
    """Disks of a snapshot by how far they roll back."""

    chained: list[str]  # to the newest snapshot only
    unknown: list[str]  # perhaps to the newest one only


async def _restricted_disks(guest: TargetGuest, config: GuestConfig) -> _RestrictedDisks:
    """Return the disks that may roll back to the newest snapshot only.

    The snapshot's own configuration decides, not disks attached or detached since.
    """
    disks = [disk for disk in config.disks if disk.media != "cdrom" and disk.storage]
    storages = await all_storages(guest.cluster, guest.node)
    plugins = {storage.storage: storage.plugin_type for storage in storages}
    chained = [disk.id for disk in disks if plugins.get(disk.storage or "") in _NEWEST_ONLY]
    files = [disk for disk in disks if disk.id not in chained and disk.volume.endswith(".qcow2")]
    if not files:
        return _RestrictedDisks(chained, [])
    failure = f"Which snapshots {guest.label} can roll back to is not known"
    every = await guest.cluster.optional(guest.cluster.pve.storages(), failure)
    chains = {one.storage: one.snapshot_as_volume_chain for one in every or ()}
    return _RestrictedDisks(
        chained + [disk.id for disk in files if chains.get(disk.storage or "")],
        [disk.id for disk in files if disk.storage not in chains],
    )


def _require_newest(
    guest: TargetGuest,
    snapshot: ProxmoxSnapshot,
    existing: Sequence[ProxmoxSnapshot],
    chained: Sequence[str],
) -> None:
    """Raise Precondition for an older snapshot of disks that only roll back to the newest one."""
    newer = [other.name for other in existing if (other.created or 0) > (snapshot.created or 0)]
    if newer and chained:
        raise Precondition(
            f"The storage of {', '.join(chained)} of {guest.label} only rolls back to the newest "
            f"snapshot; newer ones are {listed_names(newer)}.",
            hint="Delete those first, if they are not needed.",
        )


async def _obstacle(guest: TargetGuest, disks: _RestrictedDisks) -> str:
    """Return why no snapshot of the present state can be taken before; empty if it can be."""
    if disks.chained:
        return f"{', '.join(disks.chained)} could then no longer roll back to an older one"
    if disks.unknown:
        return f"{', '.join(disks.unknown)} might then no longer roll back to an older one"
    configs = await guest.api.configs()
    try:
        await require_freezable_disks(guest, configs.current)
    except Precondition as refused:
        return refused.message.rstrip(".")
    held = await guest.cluster.optional(
        guest.cluster.pve.access.permissions(f"/vms/{guest.vmid}"), "Its privileges are not known"
    )
    if held is not None and "VM.Snapshot" not in held.get(f"/vms/{guest.vmid}", {}):
        return f"{guest.cluster.account} lacks VM.Snapshot on /vms/{guest.vmid}"
    return ""


async def _room_to_resume(guest: TargetGuest) -> str:
    """Return the room for a guest that the rollback starts; one that runs has its memory."""
    return await room_on_node(guest, guest.node) if guest.state == "stopped" else ""


@dataclass(slots=True)
class _Rollback:
    """A rollback to the snapshot `name`; `kept` is the snapshot of the state before."""

    guest: TargetGuest
    name: str
    call: Call
    taken: set[str]  # names of the snapshots that exist
    keeps_present: bool
    kept: str = ""

    async def act(self) -> Task:
        """Take the snapshot of the present state, then send the rollback."""
        if self.keeps_present:
            await self._keep_present()
        try:
            return await self.guest.api.rollback(self.name)
        except (ResponseError, Frozen) as error:
            await self._raise_failure(error, "DeleteVmSnapshot")
            raise

    async def finish(self, call: Call, task: Task) -> dict[str, Any]:
        """Follow the rollback; the way back from it is the snapshot that was taken before."""
        try:
            fields = await follow(call, task)
        except TaskFailed as error:
            await self._raise_failure(error, "RollbackVmSnapshot")
            raise
        except (ProxmoxError, asyncio.CancelledError):  # the task goes on
            if self.kept:
                self._keep_undo("RollbackVmSnapshot")
            raise
        if self.kept:
            undo = self._call("RollbackVmSnapshot")
            left = await left_config(self.guest.api) if fields.get("ok") else LeftState()
            left = replace(left, snapshots={self.kept: None})
            call.undos.append(replace(undo, left={self.guest.vmid: left}))
        return fields

    async def _keep_present(self) -> None:
        """Take the snapshot; raise Precondition if that fails: then nothing is rolled back."""
        guest, name = self.guest, _free_name(self.taken)
        self.kept = name
        about = f"Before the rollback to {self.name}."
        try:
            task = await guest.api.create_snapshot(name, description=about)
            self.call.upids.append(task.upid.text)
            await watch(self.call, task, self.call.settings.task_wait_max_seconds)
        except asyncio.CancelledError:
            self._keep_undo("DeleteVmSnapshot")
            raise
        except ProxmoxError as error:
            reason = (await guest.cluster.explain(error)).rstrip(".")
            raise Precondition(
                f"{guest.label} was not rolled back: no snapshot {name!r} of its present state "
                f"could be taken first ({reason}).",
                hint="ListSnapshots shows what is left of it; keep_present=false does without.",
            ) from error

    async def _raise_failure(self, error: ProxmoxError | Frozen, remedy: str) -> None:
        """Raise PartlyDone if the snapshot before it was taken; `remedy` is the tool for that."""
        if self.kept:
            reason = await self.guest.cluster.explain(error)
            undo = self._keep_undo(remedy)
            raise PartlyDone(
                f"The rollback of {self.guest.label} failed: {reason} Its state before is snapshot "
                f"{self.kept!r}.",
                undo.call.text,
            ) from error

    def _keep_undo(self, tool: str) -> Undo:
        undo = self._call(tool)
        self.call.undos.append(undo)
        return undo

    def _call(self, tool: str) -> Undo:
        where = {"cluster_name": self.guest.cluster.name, "vmid": self.guest.vmid}
        return Undo(NextCall(tool, where | {"snapshot_name": self.kept}))
