"""Taking, deleting and going back to snapshots."""

from functools import partial
from typing import Annotated, Any

from pydantic import Field

from proxmox_client import Qemu, Task
from proxmox_client.api.configs import GuestConfig, GuestDisk
from proxmox_client.api.guests import BothConfigs, Snapshot
from proxmox_client.api.resources import StorageResource
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument, Precondition, UnknownName
from pvemcp_server.tables.values import moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster, SnapshotName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.write_target import Target, refuse_template, require_unprotected, target

SnapshotText = Annotated[str | None, Field(max_length=8192, description="Why it was taken")]
VmState = Annotated[bool, Field(description="Save the RAM too (running VMs)")]

# Storages that need qcow2 files for it, and storages without snapshots; others have their own.
_BY_FILE = {"dir", "nfs", "cifs", "glusterfs", "lvm"}
_NEVER = {"iscsi", "iscsidirect"}


@tool(
    "CreateVmSnapshot",
    title="Create snapshot",
    area=Area.VMS,
    effect=Effect.WRITE,
    needs=(needs.GUESTS, needs.SNAPSHOT),
)
async def create_vm_snapshot(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    vmid: VmId,
    snapshot_name: SnapshotName,
    description: SnapshotText = None,
    include_vm_state: VmState = False,
) -> Plan:
    """Take a snapshot of a VM or container."""
    found = await target(call, cluster_name, vmid)
    refuse_template(found, "have snapshots")
    await _name_is_free(found, snapshot_name)
    configs = await found.calls.configs()
    await _disks_allow_it(found, configs.current)
    with_ram = _with_ram(found, include_vm_state)
    ram = " with its RAM" if with_ram else ""
    no_ram = include_vm_state and not with_ram
    return Plan(
        cluster=found.cluster,
        would=f"Take snapshot {snapshot_name!r} of {found.said}{ram}.",
        ids={"vmid": vmid, "snapshot_name": snapshot_name},
        act=partial(_create, found, snapshot_name, description, with_ram),
        warnings=(
            *(["It is not running, so there is no RAM to save."] if no_ram else []),
            *_left_out(configs),
        ),
    )


@tool(
    "DeleteVmSnapshot",
    title="Delete snapshot",
    area=Area.VMS,
    effect=Effect.DESTROY,
    needs=(needs.GUESTS, needs.SNAPSHOT),
)
async def delete_vm_snapshot(
    call: Call, *, cluster_name: OneCluster = None, vmid: VmId, snapshot_name: SnapshotName
) -> Plan:
    """Delete a snapshot of a VM or container."""
    found = await target(call, cluster_name, vmid)
    await require_unprotected(found)
    snapshot = _named(found, snapshot_name, await found.calls.snapshots())
    return Plan(
        cluster=found.cluster,
        would=f"Delete snapshot {snapshot.name!r} of {found.said}.",
        loses=f"The state of {_taken(snapshot)} can never be gone back to.",
        ids={"vmid": vmid, "snapshot_name": snapshot.name},
        act=partial(found.calls.delete_snapshot, snapshot.name),
    )


@tool(
    "RollbackVmSnapshot",
    title="Roll back to snapshot",
    area=Area.VMS,
    effect=Effect.DESTROY,
    needs=(needs.GUESTS, needs.ROLLBACK),
)
async def rollback_vm_snapshot(
    call: Call, *, cluster_name: OneCluster = None, vmid: VmId, snapshot_name: SnapshotName
) -> Plan:
    """Put a VM or container back to a snapshot; what came after it is lost."""
    found = await target(call, cluster_name, vmid)
    refuse_template(found, "be rolled back")
    await require_unprotected(found)
    known = await found.calls.snapshots()
    snapshot = _named(found, snapshot_name, known)
    await _zfs_allows_it(found, snapshot, known)
    return Plan(
        cluster=found.cluster,
        would=f"Put {found.said} back to snapshot {snapshot.name!r}.",
        loses=f"All that was written to its disks since {_taken(snapshot)} is lost.",
        ids={"vmid": vmid, "snapshot_name": snapshot.name},
        act=partial(found.calls.rollback, snapshot.name),
        warnings=_stops(found, snapshot),
    )


async def _create(found: Target, name: str, description: str | None, with_ram: bool) -> Task:
    if isinstance(found.calls, Qemu):
        return await found.calls.create_snapshot(
            name, description=description, include_memory=with_ram
        )
    return await found.calls.create_snapshot(name, description=description)


async def _name_is_free(found: Target, name: str) -> None:
    if name.casefold() == "current":
        raise BadArgument("snapshot_name", "'current' is Proxmox's word for the present state.")
    if name in {one.name for one in await found.calls.snapshots()}:
        raise Precondition(f"{found.said} already has a snapshot {name!r}.", hint="Choose another.")


def _with_ram(found: Target, wanted: bool) -> bool:
    if wanted and found.resource.type != "qemu":
        raise BadArgument("include_vm_state", f"{found.said} is a container; its RAM stays out.")
    return wanted and found.state != "stopped"


async def _disks_allow_it(found: Target, config: GuestConfig) -> None:
    """Refuse when a disk that is attached now cannot be kept: that is what Proxmox looks at."""
    kinds = {one.storage: one.plugin_type for one in await _storages(found)}
    held = [one for one in config.disks if one.media != "cdrom" and one.bus != "unused"]
    if bad := [one for one in held if not _can_freeze(one, kinds.get(one.storage or "", ""))]:
        disks = ", ".join(f"{one.id} on {one.storage or 'a path of the node'}" for one in bad)
        raise Precondition(
            f"{found.said} cannot have snapshots: {disks} does not support them.",
            hint="BackupVm keeps a copy in another way.",
        )


def _left_out(configs: BothConfigs[Any]) -> list[str]:
    """Return a warning about changes that wait: a snapshot holds the running configuration."""
    now, then = configs.current.raw, configs.pending.raw
    changed = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if not changed:
        return []
    return [f"Changes pending until the guest restarts are not in it: {', '.join(changed)}."]


def _can_freeze(disk: GuestDisk, kind: str) -> bool:
    if disk.volume == "none":
        return True
    if disk.storage is None or kind in _NEVER:
        return False
    return kind not in _BY_FILE or disk.volume.endswith(".qcow2")


async def _zfs_allows_it(found: Target, snapshot: Snapshot, known: list[Snapshot]) -> None:
    """ZFS goes back to the newest snapshot only; the newer ones would have to go first."""
    newer = [one.name for one in known if (one.created or 0) > (snapshot.created or 0)]
    if not newer:
        return
    zfs = {one.storage for one in await _storages(found) if one.plugin_type in ("zfspool", "zfs")}
    # Proxmox goes by what the snapshot holds, whatever was attached or detached since
    frozen = await found.calls.config(snapshot=snapshot.name)
    on_zfs = [one.id for one in frozen.disks if one.storage in zfs]
    if on_zfs:
        raise Precondition(
            f"{', '.join(on_zfs)} of {found.said} lies on ZFS, which only goes back to the newest "
            f"snapshot; newer ones are {', '.join(newer)}.",
            hint="Delete those first, if they may go.",
        )


async def _storages(found: Target) -> list[StorageResource]:
    """All storages of the guest's node: the question is how its disks are kept, not who may."""
    rows = (await found.cluster.inventory.view()).storages
    return [one for one in rows if one.node == found.node]


def _named(found: Target, name: str, known: list[Snapshot]) -> Snapshot:
    for one in known:
        if one.name == name:
            return one
    names = [one.name for one in known]
    raise UnknownName("snapshot", name, names, where=f"of {found.said}")


def _taken(snapshot: Snapshot) -> str:
    taken = moment(snapshot.created)
    return f"{taken:%Y-%m-%d %H:%M} UTC" if taken else "then"


def _stops(found: Target, snapshot: Snapshot) -> tuple[str, ...]:
    if found.state == "stopped" or snapshot.with_memory:
        return ()
    return ("It is running now and is stopped by this; the snapshot holds no RAM.",)
