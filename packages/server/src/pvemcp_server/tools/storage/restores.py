"""Restores of backups: to a new guest, or over an existing one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from pydantic import Field

from proxmox_client import ProxmoxError, Task, TaskFailed
from proxmox_client.api.configs import GuestConfig, GuestDisk, LxcConfig
from proxmox_client.api.resources import GuestType
from proxmox_client.transport import Parameter
from pvemcp_server.access.model import Area, Effect, Toolset
from pvemcp_server.clusters import Cluster
from pvemcp_server.errors import BadArgument, PartlyDone, Precondition, UnknownName
from pvemcp_server.shown_names import shown_name, shown_volume
from pvemcp_server.tables import Backup
from pvemcp_server.toolkit import needs, write_target
from pvemcp_server.toolkit.arguments import AnyNode, ItsCluster, StorageName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.guest_options import GuestName, NewVmId, PoolName, Start
from pvemcp_server.toolkit.missing_privileges import require_privileges
from pvemcp_server.toolkit.new_guest import NewGuest
from pvemcp_server.toolkit.own_rights import Marks, checked_vmid, refuse_tag_changes
from pvemcp_server.toolkit.past_tasks import PastTasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import room_for_new
from pvemcp_server.toolkit.undo import Undo
from pvemcp_server.toolkit.write_target import (
    TargetGuest,
    refuse_template,
    target_guest,
    writable_cluster,
)
from pvemcp_server.tools.guest_losses import guest_losses, refuse_protection
from pvemcp_server.tools.storage.backup_lookup import NamedBackup, backup_named

Overwrite = Annotated[bool, Field(description="Replace the guest with this vmid")]
DiskStorage = Annotated[StorageName | None, Field(description="For its disks; as in the backup")]
NewMacs = Annotated[bool | None, Field(description="New MAC addresses; default for a copy")]
_INCOMPLETE = "If it fails, an incomplete guest with this VMID may be left: DeleteVm removes it."


@dataclass(frozen=True, slots=True)
class _Archive:
    """A backup at the node where it is restored, with the configuration in it."""

    cluster: Cluster
    backup: Backup
    node: str
    config: GuestConfig

    @property
    def kind(self) -> GuestType:
        return "lxc" if isinstance(self.config, LxcConfig) else "qemu"

    @property
    def content(self) -> str:
        return "rootdir" if self.kind == "lxc" else "images"

    @property
    def disks(self) -> list[GuestDisk]:
        """The disks that a restore makes."""
        disks = [d for d in self.config.disks if d.media != "cdrom" and d.bus != "unused"]
        return [d for d in disks if d.storage and (d.backup or self.kind == "lxc")]

    @property
    def time(self) -> str:
        created = self.backup.creation
        return f" of {created:%Y-%m-%d %H:%M} UTC" if created else ""


@tool(
    "RestoreBackup",
    view="plan",
    area=Area.STORAGE,
    effect=Effect.WRITE,
    toolset=Toolset.LIFECYCLE,
    may_lose_data=True,
    needs=(needs.BACKUPS_OF_GUESTS, needs.BACKUPS_ON_STORAGES, needs.ALLOCATE, needs.SPACE),
)
async def restore_backup(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    backup: NamedBackup,
    vmid: NewVmId = None,
    overwrite: Overwrite = False,
    node: AnyNode = None,
    storage: DiskStorage = None,
    name: GuestName | None = None,
    pool: PoolName = None,
    unique: NewMacs = None,
    start: Start = False,
) -> Plan:
    """Restore a backup to a new VM or container, or over a stopped one with overwrite."""
    cluster, row = await backup_named(call, cluster_name, backup, node)
    cluster = await writable_cluster(call, cluster.name)
    old = await _overwritten(call, cluster, vmid, pool) if overwrite else None
    where = await _node(cluster, row, node, old)
    config = await cluster.pve.node(where).backup_config(row.volid)
    archive = _Archive(cluster, row, where, config)
    await _require_storages(archive, storage)
    if start:
        await require_privileges(cluster, needs.POWER, why="the start")
    if old is None:
        number = await _new_vmid(call, archive, vmid, pool)
    else:
        number = old.vmid
        _require_same_kind(archive, old)
        refuse_tag_changes(call, old, old.status.tag_list, config.tag_list, "The backup")
    macs = (old is None and row.vmid != vmid) if unique is None else unique
    new = NewGuest(
        cluster=cluster,
        kind=archive.kind,
        name=name or config.name,
        node=where,
        vmid=number,
        is_vmid_fixed=vmid is not None,
        send=partial(_send, archive, storage, name, pool, macs, old is not None),
        made="restored",
        check_vmid=_check_vmid(call, archive, pool),
        start=start,
    )
    lost, digest = await _lost(call, archive, old) if old else ("", None)
    disks = [(storage or disk.storage or "", disk.size) for disk in archive.disks]
    return Plan(
        cluster=cluster,
        guest=old,
        would=_would(archive, new, old, storage, pool, unique=macs),
        loses=lost,
        digest=digest,
        ids={"vmid": number, "name": new.name, "node": where, "backup": row.volid},
        past=PastTasks(where, "qmrestore" if archive.kind == "qemu" else "vzrestore", number),
        act=new.act,
        warnings=tuple(await _warnings(archive, new, old, unique=macs)),
        room=await room_for_new(new, disks, config.memory_mb << 20),
        finish=partial(_finish, new, old),
    )


async def _overwritten(
    call: Call, cluster: Cluster, vmid: int | None, pool: str | None
) -> TargetGuest:
    """Return the guest that is overwritten; raise for one that runs or cannot be replaced."""
    if vmid is None:
        raise BadArgument("vmid", "say which guest is overwritten.")
    if pool is not None:
        raise BadArgument("pool", "a guest that is overwritten keeps its pool.")
    guest = await target_guest(call, cluster.name, vmid)
    refuse_template(guest, "be overwritten by a restore")
    if guest.state != "stopped":
        raise Precondition(
            f"{guest.label} is {guest.state}.", hint="ChangeVmState with action Shutdown stops it."
        )
    return guest


async def _lost(call: Call, archive: _Archive, guest: TargetGuest) -> tuple[str, str | None]:
    """Return what of an overwritten guest is lost, and the digest of its configuration.

    Raise Precondition if Proxmox protects it.
    """
    losses = await guest_losses(call, guest)
    refuse_protection(losses)
    lost = (
        f"{losses.lost} What changed since the backup{archive.time} is lost too. "
        f"{losses.backed_up} BackupVm first would keep its present state."
    )
    return lost, losses.configs.current.digest


def _require_same_kind(archive: _Archive, guest: TargetGuest) -> None:
    if guest.resource.type != archive.kind:
        raise Precondition(
            f"{guest.label} cannot be overwritten: the backup is of a guest of type {archive.kind}."
        )


async def _node(cluster: Cluster, backup: Backup, name: str | None, old: TargetGuest | None) -> str:
    """Return the node to restore on: the named one, that of the guest, or one with the backup.

    Raise BadArgument or Precondition for a node that cannot read the backup, UnknownName for one
    that is not granted.
    """
    view = await cluster.inventory.view()
    shared = any(s.storage == backup.storage and s.shared for s in view.storages)
    reading = {s.node for s in view.storages if s.storage == backup.storage}
    reading = reading - view.offline_nodes if shared else {backup.node}
    if old is not None:
        if name not in (None, old.node):
            raise BadArgument("node", f"{old.label} is on {old.node}, and is restored there.")
        chosen = old.node
    else:
        guest = (await cluster.inventory_view()).by_vmid.get(backup.vmid or 0)
        likely = [guest.node if guest else "", backup.node, *sorted(reading)]
        granted = [n for n in likely if n in reading and cluster.scope.covers_target_node(n)]
        chosen = (await write_target.granted_node(cluster, name or [*granted, backup.node][0])).node
    if chosen not in reading:
        raise Precondition(
            f"{chosen} cannot read the backup on {backup.storage}.",
            hint=f"It is on {backup.node}: restore it there, then use MigrateVm."
            if cluster.scope.covers_target_node(backup.node)
            else "",
        )
    return chosen


async def _require_storages(archive: _Archive, storage: str | None) -> None:
    """Raise for a storage that is not granted, not on the node, or takes no such disks."""
    cluster, node = archive.cluster, archive.node
    if storage is not None:
        await write_target.target_storage(cluster, storage, node, archive.content)
        return
    for name in sorted({disk.storage for disk in archive.disks if disk.storage}):
        try:
            await write_target.target_storage(cluster, name, node, archive.content)
        except (UnknownName, Precondition) as error:
            raise Precondition(
                f"The disks in the backup were on {name}, which cannot be used on {node}: {error}",
                hint="Name a storage for them.",
            ) from error


async def _new_vmid(call: Call, archive: _Archive, vmid: int | None, pool: str | None) -> int:
    """Return the VMID of the new guest, which the key has to cover; raise if it is taken."""
    cluster = archive.cluster
    if guest := (await cluster.inventory_view()).by_vmid.get(vmid or 0):
        name = shown_name(guest.name) if guest.name else "without name"
        raise Precondition(
            f"VMID {vmid} is that of {guest.type} {name}.",
            hint="Leave vmid out for the next free one; overwrite=true replaces the guest.",
        )
    if pool is not None:
        await write_target.granted_pool(cluster, pool)
    await write_target.require_inside_grant(
        cluster, vmid=vmid, node=archive.node, pool=pool, tags=archive.config.tag_list
    )
    number = await write_target.free_vmid(cluster, vmid, former=archive.backup.vmid)
    _check_vmid(call, archive, pool)(number)
    return number


def _check_vmid(call: Call, archive: _Archive, pool: str | None) -> Callable[[int], None]:
    marks = Marks(0, archive.node, pool or "", frozenset(archive.config.tag_list))
    return checked_vmid(call, archive.cluster, marks)


def _would(
    archive: _Archive,
    new: NewGuest,
    old: TargetGuest | None,
    storage: str | None,
    pool: str | None,
    *,
    unique: bool,
) -> str:
    """Return what is restored from what, where to, and with which MAC addresses."""
    names = dict.fromkeys(storage or d.storage or "" for d in archive.disks)
    places = ", ".join(shown_name(name) for name in names if name)
    target = f"over {old.label}" if old else f"to VMID {new.vmid}"
    if old is None and not new.is_vmid_fixed:
        target += ", the next free one,"
    return (
        f"Restore {shown_volume(archive.backup.volid)}{archive.time} {target} as {archive.kind} "
        f"{shown_name(new.name) if new.name else 'without name'} on {shown_name(new.node)}"
        + (f" in pool {pool}" if pool else "")
        + (f", disks on {places}" if places else "")
        + f", with {'new MAC addresses' if unique else 'the MAC addresses of the backup'}."
        + (" Then start it." if new.start else "")
    )


async def _warnings(
    archive: _Archive, new: NewGuest, old: TargetGuest | None, *, unique: bool
) -> Sequence[str]:
    """Return what to know before."""
    original = (await archive.cluster.inventory_view()).by_vmid.get(archive.backup.vmid or 0)

    def sentences() -> Iterator[str]:
        if old is not None and archive.backup.vmid not in (None, old.vmid):
            yield f"The backup is of guest {archive.backup.vmid}, another one than it replaces."
        if archive.backup.verified is False:
            yield "The last verification of the backup failed."
        if original and original.vmid != new.vmid and not unique:
            yield f"Guest {original.vmid} has the same MAC addresses: do not run both."
        if original and original.vmid != new.vmid and new.start:
            yield "Inside, it has the hostname and the fixed addresses of its source."
        if old is not None and old.status.ha.managed:
            yield "HA manages the guest and may start it afterwards."
        missing = [d.id for d in archive.config.disks if d.bus != "unused" and not d.backup]
        if left_out := [i for i in missing if i not in {d.id for d in archive.disks}]:
            drives = {d.id for d in archive.config.disks if d.media == "cdrom"}
            if rest := [i for i in left_out if i not in drives]:
                yield f"Not in the backup: {', '.join(rest)}."

    return list(sentences())


async def _send(
    archive: _Archive,
    storage: str | None,
    name: str | None,
    pool: str | None,
    unique: bool,
    force: bool,
    vmid: int,
) -> Task:
    node = archive.cluster.pve.node(archive.node)
    options: dict[str, Parameter] = {
        "storage": storage,
        "pool": pool,
        "unique": unique or None,
        "force": force or None,
    }
    if archive.kind == "lxc":
        options |= {"ostemplate": archive.backup.volid, "restore": True, "hostname": name}
        return await node.create_lxc(vmid, options)
    options |= {"archive": archive.backup.volid, "name": name}
    return await node.create_qemu(vmid, options)


async def _finish(new: NewGuest, old: TargetGuest | None, call: Call, task: Task) -> dict[str, Any]:
    """Return the fields of the answer; raise PartlyDone if a failed restore left a guest."""
    again = f"RestoreBackup over vmid {new.vmid} again, or from another backup"
    try:
        fields = await (new.set_up(call, task) if old else new.finish(call, task))
    except TaskFailed as error:
        left = await _left(new)
        if left is None:
            raise
        reason = await new.cluster.explain(error)
        state = "may have lost its disks" if old else "is incomplete, and its VMID is taken"
        removal = new.removal(left)
        if not old:
            call.undos.append(Undo(removal))
        undo = again if old else removal.text
        raise PartlyDone(f"{reason} {new.label} {state}.", undo) from error
    if fields.get("task_status") == "running":
        call.notes.add(_INCOMPLETE)
    return fields


async def _left(new: NewGuest) -> str | None:
    """Return the name of the guest that is left, which Proxmox makes up for an empty one."""
    handle = new.cluster.pve.qemu if new.kind == "qemu" else new.cluster.pve.lxc
    try:
        return (await handle(new.node, new.vmid).status()).name
    except ProxmoxError:
        return None
