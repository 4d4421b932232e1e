"""Snapshots of guests: list, create, delete."""

from functools import partial
from typing import Annotated

from pydantic import Field

from proxmox_client import Qemu, Task
from proxmox_client.api.configs import GuestConfig, GuestDisk
from proxmox_client.api.guests import Snapshot as ProxmoxSnapshot
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument, Precondition, UnknownName
from pvemcp_server.shown_names import shown_name
from pvemcp_server.tables import LoadRequest, Snapshot, snapshots
from pvemcp_server.tables.rows import moment
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import (
    ClusterName,
    DetailLevel,
    ItsCluster,
    SnapshotName,
    VmId,
    VmIds,
)
from pvemcp_server.toolkit.bulk import BulkLimits
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import listed
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.toolkit.room import room_on_storages
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.write_target import (
    TargetGuest,
    all_storages,
    refuse_template,
    target_guest,
)

Size = Annotated[bool, Field(description="Add the size of saved RAM")]
SnapshotText = Annotated[str | None, Field(max_length=8192, description="Why it was taken")]
VmState = Annotated[bool, Field(description="Save the RAM too (running VMs)")]

# Storages whose snapshots need qcow2 files, and storages without any; the others have their own.
_BY_FILE = {"dir", "nfs", "cifs", "glusterfs", "lvm"}
_NEVER = {"iscsi", "iscsidirect"}


@tool("ListSnapshots", area=Area.VMS, effect=Effect.READ, answer=Snapshot, needs=(needs.GUESTS,))
async def list_snapshots(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    vmids: VmIds = [],  # noqa: B006 - becomes a schema's default, never written to
    detail_level: DetailLevel = "Minimal",
    include_size: Size = False,
) -> Rows:
    """List snapshots of some or all VMs and containers."""
    columns = Snapshot.full if detail_level == "Full" else Snapshot.minimal
    size = ("size",) if include_size else ()
    await _require_known_guests(call, cluster_name, vmids)
    return await listed(
        call,
        snapshots,
        cluster_name,
        (*columns, *size),
        request=LoadRequest(vmids=frozenset(vmids)),
        order=lambda row: (row.vmid, row.date.timestamp() if row.date else 0.0),
        required=bool(vmids),
    )


@tool(
    "CreateVmSnapshot",
    title="Create snapshot",
    area=Area.VMS,
    effect=Effect.WRITE,
    needs=(needs.GUESTS, needs.SNAPSHOT),
    bulk=BulkLimits(per_node=4),
)
async def create_vm_snapshot(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    snapshot_name: SnapshotName,
    description: SnapshotText = None,
    include_vm_state: VmState = False,
) -> Plan:
    """Take a snapshot of VMs or containers."""
    guest = await target_guest(call, cluster_name, vmid)
    refuse_template(guest, "have snapshots")
    if snapshot_name.casefold() == "current":
        raise BadArgument("snapshot_name", "'current' is Proxmox's name for the present state.")
    if snapshot_name in {snapshot.name for snapshot in await guest.api.snapshots()}:
        raise Precondition(
            f"{guest.label} already has a snapshot {snapshot_name!r}.", hint="Choose another name."
        )
    configs = await guest.api.configs()
    await require_freezable_disks(guest, configs.current)
    if include_vm_state and guest.resource.type != "qemu":
        raise BadArgument(
            "include_vm_state", f"{guest.label} is a container; its RAM cannot be saved."
        )
    with_ram = include_vm_state and guest.state != "stopped"
    warnings = []
    if include_vm_state and not with_ram:
        warnings.append("It is not running, so there is no RAM to save.")
    # a snapshot holds the running configuration, without changes that are pending
    if changed := [change.option for change in configs.changes]:
        names = ", ".join(map(shown_name, changed))
        warnings.append(f"Changes pending until the guest restarts are not in it: {names}.")
    ram = " with its RAM" if with_ram else ""
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Take snapshot {snapshot_name!r} of {guest.label}{ram}.",
        ids={"vmid": vmid, "snapshot_name": snapshot_name},
        past=past_tasks(guest, "qmsnapshot", "vzsnapshot"),
        act=partial(_create, guest, snapshot_name, description, with_ram),
        warnings=tuple(warnings),
        room=await room_on_storages(guest.cluster, guest.node, _places(configs.current)),
        undo=_undo(guest, snapshot_name),
        read_undo=partial(_read_undo, guest, snapshot_name),
    )


def _undo(guest: TargetGuest, name: str, created: int | None = None) -> Undo:
    left = LeftState(snapshots={name: created})
    return guest.undo("DeleteVmSnapshot", left, snapshot_name=name)


async def _read_undo(guest: TargetGuest, name: str) -> Undo:
    """Return the undo of this snapshot, and of no later one with its name."""
    times = {each.name: each.created for each in await guest.api.snapshots()}
    return _undo(guest, name, times.get(name))


@tool(
    "DeleteVmSnapshot",
    title="Delete snapshot",
    area=Area.VMS,
    effect=Effect.DESTROY,
    needs=(needs.GUESTS, needs.SNAPSHOT),
    bulk=BulkLimits(per_node=4),
)
async def delete_vm_snapshot(
    call: Call, *, cluster_name: ItsCluster = None, vmid: VmId, snapshot_name: SnapshotName
) -> Plan:
    """Delete a snapshot of VMs or containers."""
    guest = await target_guest(call, cluster_name, vmid)
    snapshot = named_snapshot(guest, snapshot_name, await guest.api.snapshots())
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Delete snapshot {snapshot.name!r} of {guest.label}.",
        loses=f"The state of {time_of(snapshot)} can never be restored.",
        ids={"vmid": vmid, "snapshot_name": snapshot.name},
        past=past_tasks(guest, "qmdelsnapshot", "vzdelsnapshot"),
        act=partial(guest.api.delete_snapshot, snapshot.name),
    )


async def _require_known_guests(call: Call, cluster_name: str | None, vmids: list[int]) -> None:
    """Raise UnknownName for a guest that no cluster has; one without snapshots is no error."""
    if not vmids:
        return
    clusters = await call.all_clusters(cluster_name)
    views = await call.each(clusters, lambda cluster: cluster.inventory_view())
    if len(views) < len(clusters) or any(view.malformed for _, view in views):
        return  # a guest that is unknown may exist
    known = {vmid for _, view in views for vmid in view.by_vmid}
    for vmid in vmids:
        if vmid not in known:
            near = sorted(known, key=lambda n: abs(n - vmid))[:5]
            raise UnknownName("guest", vmid, near, more=len(known) - len(near))


async def require_freezable_disks(guest: TargetGuest, config: GuestConfig) -> None:
    """Raise Precondition if an attached disk cannot have snapshots.

    The running configuration decides, as in Proxmox: a disk counts until its removal is done.
    """
    storages = await all_storages(guest.cluster, guest.node)
    plugins = {storage.storage: storage.plugin_type for storage in storages}
    disks = [disk for disk in config.disks if disk.media != "cdrom" and disk.bus != "unused"]
    unsupported = [
        f"{disk.id} on {disk.storage or 'a path of the node'}"
        for disk in disks
        if not _has_snapshots(disk, plugins.get(disk.storage or "", ""))
    ]
    if unsupported:
        raise Precondition(
            f"{guest.label} cannot have snapshots: {', '.join(unsupported)} does not support them.",
            hint="BackupVm keeps a copy in another way.",
        )


def _has_snapshots(disk: GuestDisk, plugin: str) -> bool:
    if disk.volume == "none":
        return True
    if disk.storage is None or plugin in _NEVER:
        return False
    return plugin not in _BY_FILE or disk.volume.endswith(".qcow2")


def named_snapshot(
    guest: TargetGuest, name: str, existing: list[ProxmoxSnapshot]
) -> ProxmoxSnapshot:
    """Return the snapshot of that name; raise UnknownName with suggestions if there is none."""
    by_name = {snapshot.name: snapshot for snapshot in existing}
    if name not in by_name:
        raise UnknownName("snapshot", name, by_name, where=f"of {guest.label}")
    return by_name[name]


def time_of(snapshot: ProxmoxSnapshot) -> str:
    time = moment(snapshot.created)
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "then"


def _places(config: GuestConfig) -> list[tuple[str, int | None]]:
    """Return the storages that a snapshot fills as its disks change, by an unknown size."""
    disks = [disk for disk in config.disks if disk.media != "cdrom" and disk.bus != "unused"]
    return [(disk.storage, None) for disk in disks if disk.storage]


async def _create(guest: TargetGuest, name: str, description: str | None, with_ram: bool) -> Task:
    if isinstance(guest.api, Qemu):
        return await guest.api.create_snapshot(
            name, description=description, include_memory=with_ram
        )
    return await guest.api.create_snapshot(name, description=description)
