"""Backing guests up."""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field

from proxmox_client import Task
from proxmox_client.api.nodes import BackupMode, Compression
from pvemcp_server.access.model import Area, Effect
from pvemcp_server.errors import BadArgument, Precondition
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import OneCluster, StorageName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.plan import Plan
from pvemcp_server.toolkit.registry import tool
from pvemcp_server.toolkit.write_target import Target, storages_on, target, usable_storage

BackupStorage = Annotated[StorageName | None, Field(description="Where to; Proxmox's default")]
Mode = Annotated[
    Literal["snapshot", "suspend", "stop"] | None, Field(description="snapshot keeps it running")
]
Compress = Annotated[Literal["0", "1", "gzip", "lzo", "zstd"] | None, Field(description="0: none")]
Protected = Annotated[bool, Field(description="Guard it against deletion")]
Limit = Annotated[int | None, Field(ge=0, description="KiB/s")]
BackupNotes = Annotated[str | None, Field(max_length=1024, description="Notes on it")]

_DEFAULT_STORAGE = "local"  # where Proxmox puts a backup when nobody says


@tool(
    "BackupVm",
    title="Back up guest",
    area=Area.VMS,
    effect=Effect.WRITE,
    needs=(needs.GUESTS, needs.BACKUP, needs.SPACE),
)
async def backup_vm(
    call: Call,
    *,
    cluster_name: OneCluster = None,
    vmid: VmId,
    storage: BackupStorage = None,
    mode: Mode = None,
    compress: Compress = None,
    protected_backup: Protected = False,
    bwlimit: Limit = None,
    notes: BackupNotes = None,
) -> Plan:
    """Back up a VM or container to a storage."""
    found = await target(call, cluster_name, vmid)
    chosen = await _storage(found, storage)
    how = mode or "snapshot"
    return Plan(
        cluster=found.cluster,
        would=f"Back up {found.said} to {chosen}, mode {how}.",
        ids={"vmid": vmid, "storage": chosen, "mode": how},
        act=partial(_back_up, found, chosen, how, compress, protected_backup, bwlimit, notes),
        warnings=_interrupts(found, how),
    )


async def _storage(found: Target, wanted: str | None) -> str:
    """The storage asked for, or the one that Proxmox would take."""
    if wanted is not None:
        return (await usable_storage(found.cluster, wanted, found.node, "backup")).storage
    there = await storages_on(found.cluster, found.node)
    if not there:
        raise found.cluster.unknown("storage", _DEFAULT_STORAGE, (), node=found.node)
    able = sorted(
        one.storage for one in there if "backup" in one.content_list and one.status == "available"
    )
    if not able:
        raise Precondition(f"No storage on {found.node} takes backups and is available.")
    if len(able) > 1 and _DEFAULT_STORAGE not in able:
        raise BadArgument("storage", f"say where to; there are {', '.join(able)}.")
    return able[0] if len(able) == 1 else _DEFAULT_STORAGE


def _interrupts(found: Target, mode: str) -> tuple[str, ...]:
    if found.state == "stopped" or mode == "snapshot":
        return ()
    does = "shut down and started again" if mode == "stop" else "paused for a while"
    return (f"The guest is running and is {does} for this.",)


async def _back_up(
    found: Target,
    storage: str,
    mode: BackupMode,
    compress: Compression | None,
    protected: bool,
    bwlimit: int | None,
    notes: str | None,
) -> Task:
    return await found.cluster.pve.node(found.node).vzdump(
        [found.vmid],
        storage=storage,
        mode=mode,
        compress=compress,
        protected=protected or None,
        bwlimit=bwlimit,
        notes=_as_template(notes),
    )


def _as_template(notes: str | None) -> str | None:
    """Notes are a template of one line to Proxmox: backslashes and line ends are escaped."""
    if not notes:
        return None
    return notes.replace("\\", "\\\\").replace("\r\n", "\n").replace("\n", "\\n")
