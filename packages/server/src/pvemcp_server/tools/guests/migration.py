"""Migration of guests to another node."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from proxmox_client import Lxc, MethodMissing, Qemu, Task
from proxmox_client.api.configs import GuestDisk
from proxmox_client.api.guests import BothConfigs, MigrateCheck
from proxmox_client.api.replication import ReplicationJob
from proxmox_client.api.resources import StorageResource
from proxmox_client.properties import flag
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import Precondition
from pvemcp_server.shown_names import listed_names, shown_name, shown_volume
from pvemcp_server.toolkit import needs, write_target
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName, StorageName, VmId
from pvemcp_server.toolkit.bulk import BulkLimits
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.node_bound import bound_devices, bound_drive, clone_base
from pvemcp_server.toolkit.own_rights import Marks, refuse_new_rights
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import Space, room_on_node, room_on_storages
from pvemcp_server.toolkit.undo import LeftState, Undo
from pvemcp_server.toolkit.write_target import (
    TargetGuest,
    all_storages,
    is_active,
    refuse_ha_error,
    target_guest,
)

Online = Annotated[bool, Field(description="Move it running; a container is restarted")]
TargetStorage = Annotated[StorageName | None, Field(description="Storage for its local disks")]

_REASONS = {  # of Proxmox, in words; another one is quoted
    *("unavailable_storages", "unavailable_mappings", "unavailable-resources"),
    *("blocking-resources", "blocking-ha-resources"),
}
_REPLICATED_BY = {"zfspool"}  # the only storages that Proxmox replicates
# Proxmox shuts the container down, and kills it after a timeout (PVE/LXC/Migrate.pm)
_RESTART = (
    "Containers cannot move while they run: it is stopped and started there, and what its programs "
    "have not saved is lost."
)


@tool(
    "MigrateVm",
    view="plan",
    title="Migrate guest",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    needs=(needs.GUESTS, needs.MIGRATE),
    bulk=BulkLimits(per_node=2),
)
async def migrate_vm(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    target_node: NodeName,
    online: Online = False,
    target_storage: TargetStorage = None,
) -> Plan:
    """Move VMs or containers to another node, live where it can be."""
    guest = await target_guest(call, cluster_name, vmid)
    return await migration(call, guest, target_node, online=online, target_storage=target_storage)


async def migration(
    call: Call,
    guest: TargetGuest,
    target_node: str,
    *,
    online: bool,
    target_storage: str | None = None,
) -> Plan:
    """Return the plan of a move to a node; raise CallError with the reason if it cannot move."""
    await write_target.target_node(guest, target_node)
    if target_node == guest.node:
        raise Precondition(f"{guest.label} is on {target_node} already.")
    tags = frozenset((*guest.resource.tag_list, *guest.status.tag_list))
    here = Marks(guest.vmid, guest.node, guest.resource.pool or "", tags)
    there = replace(here, node=target_node)
    refuse_new_rights(call, guest.cluster, guest.label, there, before=here)
    if guest.state != "stopped" and not online:
        how = "restarted there" if guest.resource.type == "lxc" else "moved while it runs"
        raise Precondition(
            f"{guest.label} is {guest.state}.", hint=f"With online=true it is {how}."
        )
    refuse_ha_error(guest)
    await _refuse_maintenance(guest, target_node)
    check = await _migrate_check(guest, target_node)
    configs = await guest.api.configs()
    _refuse_local_devices(guest, check, configs)
    if target_storage is not None:
        content = "images" if guest.resource.type == "qemu" else "rootdir"
        await write_target.target_storage(guest.cluster, target_storage, target_node, content)
    local = await _local_disks(guest, target_node, target_storage, configs.disks)
    replicated = await _replications(guest)
    await _refuse_replication(guest, target_node, replicated, configs.disks)
    _refuse_disallowed_node(guest, target_node, target_storage, check)
    live = online and guest.state != "stopped"
    takes = [Space(target_node, target_storage or d.storage or "", d.size) for d in local]
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        would=f"Move {guest.label} from {shown_name(guest.node)} to {target_node}.",
        loses=_RESTART if live and guest.resource.type == "lxc" else "",
        ids={"vmid": guest.vmid, "target_node": target_node, "online": live},
        past=past_tasks(guest, "qmigrate", "vzmigrate"),
        act=partial(_move, guest, target_node, live, target_storage, bool(local)),
        warnings=tuple(_warnings(guest, local, target_storage, target_node, replicated)),
        room=await _room(guest, target_node, takes),
        takes=tuple(takes),
        runs_on="" if guest.state == "stopped" else target_node,
        undo=_undo(guest, target_node, target_storage, local),
    )


def _undo(
    guest: TargetGuest, node: str, target_storage: str | None, local: Sequence[GuestDisk]
) -> Undo | None:
    """Return the call that moves it back; None if its disks then got another place than before."""
    arguments: dict[str, Any] = {"target_node": guest.node, "online": True}
    sources = {disk.storage for disk in local}
    if target_storage is not None and sources - {target_storage}:
        if len(sources) > 1:
            return None
        arguments["target_storage"] = sources.pop()
    return guest.undo("MigrateVm", LeftState(node=node), **arguments)


async def _refuse_maintenance(guest: TargetGuest, node: str) -> None:
    """Raise Precondition if the HA manager would drop the request: the node is in maintenance.

    The task of the migration succeeds even so, and the guest stays where it is. Source:
    PVE/HA/Manager.pm (crm commands to a node that is not online), PVE/API2/HA/Status.pm.
    """
    if not guest.status.ha.managed:
        return
    rows = await guest.cluster.optional(
        guest.cluster.pve.cluster.ha_status(), "Nodes in HA maintenance are not known"
    )
    if any(row.is_in_maintenance and row.node == node for row in rows or ()):
        raise Precondition(
            f"{node} is in HA maintenance, so the HA manager does not move {guest.label} there.",
            hint="Choose another node, or end the maintenance: "
            f"`ha-manager crm-command node-maintenance disable {node}`.",
        )


async def _migrate_check(guest: TargetGuest, node: str) -> MigrateCheck | None:
    """Return Proxmox's own check of the migration; None where this version has none."""
    try:
        return await guest.api.migrate_check(node)
    except MethodMissing:  # the check for containers, before Proxmox VE 9.0
        return None


def _refuse_local_devices(
    guest: TargetGuest, check: MigrateCheck | None, configs: BothConfigs[Any]
) -> None:
    """Raise Precondition for devices of the node that the guest uses now or after its restart.

    Proxmox checks the present ones only.
    """
    if check is not None and check.local_resources:
        raise Precondition(
            f"{guest.label} uses devices of its node: {listed_names(check.local_resources)}.",
            hint="Detach them first.",
        )
    current, pending = configs.current.raw, configs.pending.raw
    bound = [name for name in bound_devices(pending) if pending[name] != current.get(name)]
    if bound:
        raise Precondition(
            f"{guest.label} will use devices of its node: {', '.join(map(shown_name, bound))}, "
            "pending until the guest restarts.",
            hint="Revert or detach them first.",
        )


async def _local_disks(
    guest: TargetGuest, node: str, target_storage: str | None, drives: Sequence[GuestDisk]
) -> list[GuestDisk]:
    """Return the disks that have to be copied.

    Raise Precondition for drives that cannot move, UnknownName for a storage that the caller's
    writes may not fill.
    """
    source = {row.storage: row for row in await all_storages(guest.cluster, guest.node)}
    _refuse_local_drives(guest, drives, source)
    disks = [disk for disk in drives if disk.storage and disk.media != "cdrom"]
    local = [disk for disk in disks if disk.storage in source and not source[disk.storage].shared]
    if target_storage is None:  # then they are copied to the storage of the same name
        for name in dict.fromkeys(disk.storage for disk in local if disk.storage):
            if not guest.cluster.scope.covers_target_storage(name, node=node):
                raise write_target.unknown_target_storage(guest.cluster, name, node)
    target = {
        row.storage
        for row in await all_storages(guest.cluster, node)
        if any(drive.storage == row.storage for drive in drives)
        and await is_active(guest.cluster, row)
    }
    unreachable = [
        f"{disk.id} on {disk.storage}"
        for disk in disks
        if disk.storage not in target and not (target_storage and disk in local)
    ]
    _refuse_linked_clones(guest, local)
    if unreachable:
        raise Precondition(
            f"{node} cannot reach {', '.join(unreachable)} of {guest.label}.",
            hint="Name a target_storage that it has." if not target_storage else "",
        )
    return local


def _refuse_local_drives(
    guest: TargetGuest, drives: Sequence[GuestDisk], storages: Mapping[str, StorageResource]
) -> None:
    """Raise Precondition for drives that Proxmox can neither copy nor find on another node."""
    for drive in drives:
        storage = storages.get(drive.storage or "")
        if obstacle := bound_drive(drive, shared=storage.shared if storage else None):
            raise Precondition(f"{guest.label} {obstacle.text}.", hint=obstacle.remedy)


def _refuse_linked_clones(guest: TargetGuest, local: Sequence[GuestDisk]) -> None:
    """Raise Precondition for linked clones: Proxmox does not copy them, nor what they build on."""
    bases = {disk.id: base for disk in local if (base := clone_base(disk))}
    if bases:
        disks = ", ".join(f"{name} is a clone of {base}" for name, base in bases.items())
        raise Precondition(
            f"{guest.label} is a linked clone on a local storage: {disks}.",
            hint="Move its disks to another storage first, which makes them independent.",
        )


async def _replications(guest: TargetGuest) -> list[ReplicationJob]:
    """Return the replication jobs of the guest."""
    every = guest.cluster.pve.cluster.replications()
    jobs = await guest.cluster.optional(every, "Its replication jobs are not known")
    return [job for job in jobs or () if job.guest == guest.vmid and not job.remove_job]


async def _refuse_replication(
    guest: TargetGuest, node: str, jobs: Sequence[ReplicationJob], disks: Sequence[GuestDisk]
) -> None:
    """Raise Precondition if the migration would begin with a replication that cannot succeed."""
    to_target = [job.id for job in jobs if job.target == node]
    if not to_target:
        return
    rows = {row.storage: row for row in await all_storages(guest.cluster, guest.node)}
    unable = [
        f"{disk.id} on {disk.storage}"
        for disk in disks
        if (row := rows.get(disk.storage or "")) is not None
        and not row.shared
        and row.plugin_type not in _REPLICATED_BY
        and disk.media != "cdrom"
        and disk.bus != "unused"
        and flag(disk.options.get("replicate"), absent=True)
    ]
    if unable:
        raise Precondition(
            f"This migration would begin with the replication of {guest.label} to {node} (job "
            f"{to_target[0]}), but {', '.join(unable)} cannot be replicated.",
            hint="Remove the job first, or exclude the disk with replicate=0.",
        )


def _shown(value: Any) -> str:
    """Return a list of names as it is, and anything else in quotes."""
    are_names = isinstance(value, list) and all(each == shown_name(str(each)) for each in value)
    return str(value) if are_names else shown_volume(str(value))


def _refuse_disallowed_node(
    guest: TargetGuest, node: str, target_storage: str | None, check: MigrateCheck | None
) -> None:
    """Raise Precondition for a node that is not among those that Proxmox allows.

    A storage that the node lacks is no reason if the disks move to `target_storage`. The reasons
    name other guests, so a role for a part of the cluster gets only their kinds.
    """
    if check is None or not check.allowed_nodes or node in check.allowed_nodes:
        return
    refused = check.refused.get(node, {})
    reasons = [
        (re.sub("[_-]", " ", key) if key in _REASONS else shown_name(key))
        + (f" {_shown(value)}" if guest.cluster.scope.everything else "")
        for key, value in refused.items()
        if key != "unavailable_storages"
    ]
    if target_storage is None or reasons:
        raise Precondition(
            f"Proxmox does not allow {guest.label} on {node}: {'; '.join(reasons) or 'no reason'}."
        )


def _warnings(
    guest: TargetGuest,
    local: Sequence[GuestDisk],
    target_storage: str | None,
    node: str,
    replications: Sequence[ReplicationJob],
) -> list[str]:
    warnings = []
    if local:
        where = f" to {target_storage}" if target_storage else ""
        names = dict.fromkeys(disk.id for disk in local)
        warnings.append(f"Local disks are copied{where}, which may take long: {', '.join(names)}.")
    if guest.status.ha.managed:
        warnings.append("HA manages this guest: its manager moves it, and the task ends before.")
    for job in replications:
        target = shown_name(guest.node if job.target == node else job.target)
        warnings.append(
            f"Its replication job {shown_name(job.id)} then copies from {node} to {target}."
        )
    return warnings


async def _room(guest: TargetGuest, node: str, takes: Iterable[Space]) -> str:
    """Return the room on the target for the guest and for the disks that are copied."""
    disks = [(space.storage, space.size) for space in takes]
    on_storages = await room_on_storages(guest.cluster, node, disks)
    return f"{await room_on_node(guest, node)} {on_storages}".strip()


async def _move(
    guest: TargetGuest, node: str, live: bool, target_storage: str | None, with_local_disks: bool
) -> Task:
    if isinstance(guest.api, Qemu):
        # offline, Proxmox copies local disks without the option
        copies = True if with_local_disks and live else None
        return await guest.api.migrate(
            node, online=live, target_storage=target_storage, with_local_disks=copies
        )
    api: Lxc = guest.api
    return await api.migrate(node, restart=live, target_storage=target_storage)
