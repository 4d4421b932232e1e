"""Backups of guests: list them and their jobs, back up a guest."""

import re
from functools import partial
from operator import attrgetter
from typing import Annotated, Literal

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.tables import Backup, BackupJob, LoadRequest, backup_jobs, backups
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import (
    NO_FILTER,
    AnyNode,
    AnyStorage,
    ClusterName,
    ItsCluster,
    StorageName,
    VmId,
)
from pvemcp_server.toolkit.bulk import BulkLimits
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import clusters_with
from pvemcp_server.toolkit.lists import NewestFirst, listed
from pvemcp_server.toolkit.past_tasks import past_tasks
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import Rows, tool
from pvemcp_server.toolkit.room import Space, room_on_storages
from pvemcp_server.toolkit.write_target import (
    TargetGuest,
    is_active,
    target_guest,
    target_storage,
    target_storages,
    unknown_target_storage,
)

OneVm = Annotated[VmId | None, NO_FILTER, Field(description="Only of this guest")]
BackupStorage = Annotated[StorageName | None, Field(description="Where to; Proxmox's default")]
Mode = Annotated[
    Literal["snapshot", "suspend", "stop"] | None, Field(description="snapshot keeps it running")
]
Compress = Annotated[Literal["0", "1", "gzip", "lzo", "zstd"] | None, Field(description="0: none")]
Protected = Annotated[bool, Field(description="Guard it against deletion")]
Limit = Annotated[int | None, Field(ge=0, description="KiB/s")]
BackupNotes = Annotated[str | None, Field(max_length=1024, description="Notes on it")]

_VARIABLES = ("cluster", "guestname", "node", "vmid")  # in the notes of a backup
_BACKUP_SERVER = "pbs"
_DEFAULT_STORAGE = "local"  # Proxmox's default for backups
_STOP = (
    "The guest is running and is shut down and started again for this: what its programs have not "
    "saved is lost."
)
_SUSPEND = "The guest is running and is paused for a while for this."


@tool(
    "ListBackups",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=Backup,
    needs=(needs.STORAGES, needs.BACKUPS_OF_GUESTS, needs.BACKUPS_ON_STORAGES),
)
async def list_backups(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    node: AnyNode = None,
    storage: AnyStorage = None,
    vmid: OneVm = None,
) -> Rows:
    """List backups, newest first; on all storages unless one is named."""
    clusters = await clusters_with(call, cluster_name, node, storage)
    return await listed(
        call,
        backups,
        cluster_name,
        Backup.full,
        request=LoadRequest(
            vmids=frozenset() if vmid is None else frozenset({vmid}),
            nodes=frozenset(filter(None, [node])),
            storages=frozenset(filter(None, [storage])),
        ),
        keep=lambda row: vmid in (None, row.vmid),
        order=NewestFirst("creation"),
        clusters=clusters,
        required=node is not None and storage is not None,
    )


@tool(
    "ListBackupJobs",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=BackupJob,
    needs=(needs.CLUSTER,),
)
async def list_backup_jobs(
    call: Call, *, cluster_name: ClusterName = None, vmid: OneVm = None
) -> Rows:
    """List backup jobs, the guests they cover and how their last run went."""
    if cluster_name is None and vmid is None:
        await call.note_jobs()
    return await listed(
        call,
        backup_jobs,
        cluster_name,
        BackupJob.full,
        keep=lambda row: vmid is None or vmid in row.vmids,
        order=attrgetter("id"),
    )


@tool(
    "BackupVm",
    title="Back up guest",
    area=Area.VMS,
    effect=Effect.WRITE,
    may_lose_data=True,
    needs=(needs.GUESTS, needs.BACKUP, needs.SPACE),
    bulk=BulkLimits(per_node=1, per_storage=2),  # Proxmox runs one per node (vzdump.lock)
)
async def backup_vm(
    call: Call,
    *,
    cluster_name: ItsCluster = None,
    vmid: VmId,
    storage: BackupStorage = None,
    mode: Mode = None,
    compress: Compress = None,
    protected_backup: Protected = False,
    bwlimit: Limit = None,
    notes: BackupNotes = None,
) -> Plan:
    """Back up VMs or containers to a storage."""
    guest = await target_guest(call, cluster_name, vmid)
    target = await _target_storage(guest, storage)
    size = await _size(guest, target) if call.dry_run else None
    mode = mode or "snapshot"
    runs = guest.state != "stopped"
    replaced = _require_known_variables(notes or "")
    # Proxmox takes notes as a template of one line, with backslashes and line ends escaped
    template = (notes or "").replace("\\", "\\\\").replace("\r\n", "\n").replace("\n", "\\n")
    return Plan(
        cluster=guest.cluster,
        guest=guest,
        storage=target,
        would=f"Back up {guest.label} to {target}, mode {mode}.",
        ids={"vmid": vmid, "storage": target, "mode": mode},
        past=past_tasks(guest, "vzdump", "vzdump"),
        act=partial(
            guest.cluster.pve.node(guest.node).vzdump,
            [vmid],
            storage=target,
            mode=mode,
            compress=compress,
            protected=protected_backup or None,
            bwlimit=bwlimit,
            notes=template or None,
            remove=False,  # else Proxmox deletes older backups, by the retention of the storage
        ),
        loses=_STOP if runs and mode == "stop" else "",
        room=await room_on_storages(guest.cluster, guest.node, [(target, size)]),
        takes=(Space(guest.node, target, size),),
        warnings=(*([_SUSPEND] if runs and mode == "suspend" else []), *replaced),
    )


def _require_known_variables(notes: str) -> list[str]:
    """Return a warning if Proxmox replaces words of the notes; raise BadArgument if it refuses one.

    Source: PVE/VZDump.pm, `notes-template`. There is no way to escape the braces.
    """
    variables = re.findall(r"\{\{([^{}]*)\}\}", notes)
    known = ", ".join(f"{{{{{name}}}}}" for name in _VARIABLES)
    if unknown := [name for name in variables if name not in _VARIABLES]:
        raise BadArgument(
            "notes",
            f"Proxmox replaces words in double braces, and has none called {unknown[0][:50]!r}.",
            hint=f"It has {known}; write everything else without double braces.",
        )
    return [f"Proxmox replaces {known} in the notes."] if variables else []


async def _size(guest: TargetGuest, storage: str) -> int | None:
    """Return the most that a backup takes: all of its disks, before compression.

    None if that is not known; on a backup server most of it may be stored already.
    """
    rows = (await guest.cluster.inventory.view()).storages
    if any(row.plugin_type == _BACKUP_SERVER for row in rows if row.storage == storage):
        return None
    config = await guest.api.config()
    sizes = [disk.size for disk in config.disks if disk.backup]
    return None if None in sizes else sum(filter(None, sizes))


async def _target_storage(guest: TargetGuest, name: str | None) -> str:
    """Return the named storage, or else the one that Proxmox would choose.

    Raise BadArgument when several take backups and none of them is Proxmox's default.
    """
    if name is not None:
        return (await target_storage(guest.cluster, name, guest.node, "backup")).storage
    storages = await target_storages(guest.cluster, guest.node)
    if not storages:
        raise unknown_target_storage(guest.cluster, _DEFAULT_STORAGE, guest.node)
    usable = [
        storage.storage
        for storage in sorted(storages, key=attrgetter("storage"))
        if "backup" in storage.content_list and await is_active(guest.cluster, storage)
    ]
    if not usable:
        raise Precondition(f"No storage on {guest.node} takes backups and is available.")
    if len(usable) > 1 and _DEFAULT_STORAGE not in usable:
        raise BadArgument("storage", f"say where to; there are {', '.join(usable)}.")
    return usable[0] if len(usable) == 1 else _DEFAULT_STORAGE
