"""Clones of templates and guests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

from pydantic import Field

from proxmox_client import Task
from proxmox_client.api.configs import GuestConfig, GuestDisk
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument, Precondition, UnknownName
from pvemcp_server.shown_names import shown_name
from pvemcp_server.toolkit import guest_options, needs, write_target
from pvemcp_server.toolkit.arguments import ItsCluster, NodeName, SnapshotName, StorageName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import guest_named
from pvemcp_server.toolkit.guest_options import (
    Address,
    CloudInitUser,
    Cores,
    Dns,
    GuestName,
    GuestOptions,
    GuestText,
    Memory,
    NewVmId,
    Password,
    PoolName,
    SshKeys,
    Start,
    Tags,
)
from pvemcp_server.toolkit.missing_privileges import require_privileges
from pvemcp_server.toolkit.new_guest import NewGuest
from pvemcp_server.toolkit.own_rights import Marks, checked_vmid
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.room import readable, room_for_new
from pvemcp_server.toolkit.write_target import TargetGuest, target_guest

Source = Annotated[str, Field(max_length=100, description="VMID or name")]
Full = Annotated[bool | None, Field(description="Not linked to the template")]

# storages whose volumes cannot be the base of others; files cannot for containers
_NEVER_LINKED: Final = frozenset({"lvm", "iscsi", "iscsidirect"})
_LINKED_CONTAINERS: Final = frozenset({"zfspool", "rbd", "lvmthin", "btrfs"})


@dataclass(frozen=True, slots=True)
class _Copy:
    """What is cloned, now or as in a snapshot, and where its disks come."""

    original: TargetGuest
    config: GuestConfig
    snapshot: str | None
    node: str
    storage: str | None  # of all disks; None is that of each in the source
    pool: str | None
    is_full: bool  # else its disks are linked to those of the template

    @property
    def disks(self) -> list[GuestDisk]:
        """The disks that are copied or linked."""
        return _disks(self.config)

    @property
    def places(self) -> list[tuple[str, int | None]]:
        """The storage of each disk, with its size if it is copied in full."""
        return [
            (self.storage or d.storage or "", d.size if self.is_full else None) for d in self.disks
        ]

    async def send(self, name: str, description: str | None, vmid: int) -> Task:
        """Send the request."""
        return await self.original.api.clone(
            vmid,
            name=name,
            description=description,
            pool=self.pool,
            target=None if self.node == self.original.node else self.node,
            storage=self.storage,
            full=self.is_full,
            snapshot=self.snapshot,
        )


@tool(
    "CloneVm",
    view="plan",
    title="Clone guest",
    area=Area.VMS,
    effect=Effect.WRITE,
    needs=(needs.GUESTS, needs.CLONE, needs.ALLOCATE, needs.SPACE, needs.BRIDGES),
)
async def clone_vm(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    source: Source,
    name: GuestName,
    new_vmid: NewVmId = None,
    snapshot_name: SnapshotName | None = None,
    full: Full = None,
    target_node: NodeName | None = None,
    storage: StorageName | None = None,
    pool: PoolName = None,
    tags: Tags = None,
    description: GuestText = None,
    cores: Cores = None,
    memory: Memory = None,
    ciuser: CloudInitUser = None,
    password: Password = None,
    ssh_keys: SshKeys = None,
    ip: Address = None,
    dns: Dns = None,
    start: Start = False,
) -> Plan:
    """Clone a template, VM or container; with start and wait, answer with its address."""
    options = GuestOptions(
        cores=cores,
        memory=memory,
        tags=tags,
        ciuser=ciuser,
        password=password,
        ssh_keys=ssh_keys,
        ip=ip,
        dns=dns,
    )
    original = await target_guest(call, *await guest_named(call, cluster_name, source))
    cluster, kind = original.cluster, original.resource.type
    copy = await _copy(original, snapshot_name, target_node, storage, pool, full)
    node, new_tags = copy.node, copy.config.tag_list if tags is None else tags
    await write_target.require_inside_grant(
        cluster, vmid=new_vmid, node=node, pool=pool, tags=new_tags
    )
    await _require_steps(copy, options, start=start)
    vmid = await write_target.free_vmid(cluster, new_vmid)
    marks = Marks(vmid, node, pool or "", frozenset(new_tags))
    check_vmid = checked_vmid(call, cluster, marks, copy.config.tag_list)
    check_vmid(vmid)
    clone = NewGuest(
        cluster=cluster,
        kind=kind,
        name=name,
        node=node,
        vmid=vmid,
        is_vmid_fixed=new_vmid is not None,
        send=partial(copy.send, name, description),
        made="cloned",
        check_vmid=check_vmid,
        options=options,
        start=start,
    )
    return Plan(
        cluster=cluster,
        guest=original,
        would=_would(copy, clone),
        ids={"vmid": vmid, "name": name, "node": node},
        digest=copy.config.digest,
        past=past_tasks(original, "qmclone", "vzclone"),
        act=clone.act,
        warnings=tuple(_warnings(copy, clone)),
        room=await _room(copy, clone),
        finish=clone.finish,
    )


async def _copy(
    original: TargetGuest,
    snapshot: str | None,
    target_node: str | None,
    storage: str | None,
    pool: str | None,
    full: bool | None,
) -> _Copy:
    """Return the copy; raise an error for what is not there, not granted, or not possible there."""
    cluster = original.cluster
    node = (await write_target.granted_node(cluster, target_node or original.node)).node
    if pool is not None:
        await write_target.granted_pool(cluster, pool)
    config = await _config(original, snapshot)
    is_full = await _is_full(original, _disks(config), storage, snapshot, full)
    copy = _Copy(original, config, snapshot, node, storage, pool, is_full)
    await _require_places(copy)
    return copy


def _disks(config: GuestConfig) -> list[GuestDisk]:
    return [d for d in config.disks if d.media != "cdrom" and d.bus != "unused" and d.storage]


async def _config(original: TargetGuest, snapshot: str | None) -> GuestConfig:
    """Return the configuration that is cloned, now or as in a snapshot."""
    if snapshot is not None:
        names = [each.name for each in await original.api.snapshots()]
        if snapshot not in names:
            raise UnknownName("snapshot", snapshot, names, where=f"of {original.label}")
        return await original.api.config(snapshot=snapshot)
    if original.resource.type == "lxc" and original.state != "stopped":
        raise Precondition(
            f"{original.label} is {original.state}: a running container is cloned from a snapshot.",
            hint="Give snapshot_name, or stop it first.",
        )
    return (await original.api.configs()).current


async def _is_full(
    original: TargetGuest,
    disks: Sequence[GuestDisk],
    storage: str | None,
    snapshot: str | None,
    full: bool | None,
) -> bool:
    """Return whether the disks are copied in full; raise for a linked clone that cannot be."""
    rows = await write_target.all_storages(original.cluster, original.node)
    plugins = {row.storage: row.plugin_type for row in rows}
    unable = [
        disk.id
        for disk in disks
        if (plugin := plugins.get(disk.storage or "", "")) in _NEVER_LINKED
        or (original.resource.type == "lxc" and plugin not in _LINKED_CONTAINERS)
    ]
    is_template = original.resource.template or original.status.template
    obstacle = ""
    if not is_template or snapshot is not None:
        obstacle = f"{original.label} is no template" if not is_template else "it has no snapshots"
    elif storage is not None:
        obstacle = "a linked clone stays on the storage of its template; leave out storage"
    elif unable:
        obstacle = f"the storage of {', '.join(unable)} has no linked clones"
    if full is False and obstacle:
        raise BadArgument("full", f"{obstacle}.", hint="Without full=false it is copied in full.")
    return bool(obstacle) if full is None else full


async def _require_places(copy: _Copy) -> None:
    """Raise an error for a storage that is not granted, and for a node that cannot have the disks.

    A clone fills the storages of its source unless another is named, so these have to be granted
    too. They stay unnamed.
    """
    original, disks, node, storage = copy.original, copy.disks, copy.node, copy.storage
    cluster = original.cluster
    content = "images" if original.resource.type == "qemu" else "rootdir"
    rows = {r.storage: r for r in await write_target.all_storages(cluster, original.node)}
    if storage is not None:
        target = await write_target.target_storage(cluster, storage, node, content)
        if node != original.node and not target.shared:
            raise Precondition(
                f"Proxmox clones to another node only on shared storages, and {storage} is local.",
                hint=f"Clone it on {original.node}, then use MigrateVm.",
            )
    elif not all(cluster.scope.covers_target_storage(d.storage or "", node=node) for d in disks):
        raise Precondition(
            f"A storage that a clone of {original.label} would fill is not granted to this key.",
            hint="Name a storage that is.",
        )
    local = [d.id for d in disks if (row := rows.get(d.storage or "")) and not row.shared]
    if node != original.node and local:
        raise Precondition(
            f"{original.label} has local disks ({', '.join(local)}), so Proxmox clones it on "
            f"{original.node} only.",
            hint="Clone it there, then use MigrateVm.",
        )


async def _require_steps(copy: _Copy, options: GuestOptions, *, start: bool) -> None:
    """Raise Precondition for options and a start that would fail, or have no effect, afterwards."""
    original, config = copy.original, copy.config
    parameters = options.parameters(original.resource.type, config.raw)
    is_read = original.resource.type == "lxc" or any(d.is_cloud_init for d in config.disks)
    if guest_options.needs_cloud_init(parameters) and not is_read:
        raise Precondition(
            f"{original.label} has no cloud-init drive, so user, password, keys and addresses "
            "would have no effect.",
            hint="Leave them out, or add the drive in Proxmox first.",
        )
    await require_privileges(
        original.cluster,
        *guest_options.privileges(original.resource.type, parameters),
        *((needs.POWER,) if start else ()),
        why="a step after the clone",
    )


async def _room(copy: _Copy, clone: NewGuest) -> str:
    """Return the room for the clone, with the size of its source where it gets no other."""
    options, status = clone.options, copy.original.status
    memory = options.memory << 20 if options.memory else status.memory_max
    return await room_for_new(clone, copy.places, memory, options.cores or status.cpu_count)


def _would(copy: _Copy, clone: NewGuest) -> str:
    """Return what is made from what, and the steps after it."""
    places = (
        ", ".join(dict.fromkeys(shown_name(name) for name, _ in copy.places if name))
        or "no storage"
    )
    size = sum(disk.size or 0 for disk in copy.disks)
    copies = f"with full copies of its disks ({readable(size)}) on {places}"
    sentences = [
        f"Clone {copy.original.label}"
        + (f" as in snapshot {copy.snapshot!r}" if copy.snapshot else "")
        + f" to VMID {clone.vmid}"
        + ("" if clone.is_vmid_fixed else ", the next free one,")
        + f" as {clone.name} on {shown_name(clone.node)}"
        + (f" in pool {copy.pool}" if copy.pool else "")
        + ", "
        + (copies if copy.is_full else f"linked to its disks on {places}")
        + "."
    ]
    parameters = clone.options.parameters(clone.kind, copy.config.raw)
    if changed := guest_options.changes(copy.config.raw, parameters):
        sentences.append(f"Then set {guest_options.in_words(changed)}.")
    if clone.start:
        sentences.append("Then start it.")
    return " ".join(sentences)


def _warnings(copy: _Copy, clone: NewGuest) -> list[str]:
    """Return what to know before: what a linked clone depends on, and what both guests share."""
    warnings, original = [], copy.original
    is_template = original.resource.template or original.status.template
    if not copy.is_full:
        warnings.append("It is linked: the template cannot be deleted while it exists.")
    if original.state != "stopped" and copy.snapshot is None:
        warnings.append("Its source runs: the copy is as after a power failure.")
    if clone.start and not is_template and clone.options.ip is None:
        warnings.append("Inside, it has the hostname and the fixed addresses of its source.")
    return warnings
