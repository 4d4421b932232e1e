"""Lists of storages, of what is on them, of pools and of backup jobs."""

from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import (
    Backup,
    BackupJob,
    Content,
    LoadRequest,
    Pool,
    Storage,
    backup_jobs,
    backups,
    pools,
    storage_content,
    storages,
)
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import ClusterName, DetailLevel, NodeName, StorageName, VmId
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.lists import at, listed, newest
from pvemcp_server.toolkit.locate import clusters_with, note_unsupported_content
from pvemcp_server.toolkit.registry import Rows, tool

StorageType = Annotated[str | None, Field(max_length=50, description="dir, nfs, lvmthin, pbs …")]
OneVm = Annotated[VmId | None, Field(description="Only of this guest")]
ContentType = Annotated[
    Literal["iso", "vztmpl", "backup", "images", "rootdir", "snippets", "import"] | None,
    Field(description="Only this kind"),
]

_FULL_STORAGE = ("plugin_type", "content", "shared", "is_available", "disk_usage", "disk_total")
_BACKUP = (
    "storage",
    "node",
    "volid",
    "vmid",
    "format",
    "size",
    "creation",
    "notes",
    "protected",
    "encrypted",
    "verified",
)
_IMAGE = ("volid", "name", "size", "format", "creation")
_JOB = (
    "id",
    "enabled",
    "schedule",
    "next_run",
    "node",
    "storage",
    "mode",
    "compress",
    "vmids",
    "pool",
    "retention",
    "notes",
    "last_run",
    "last_run_status",
    "last_run_ok",
)


@tool(
    "ListStorage",
    title="List storages",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=Storage,
    needs=(needs.STORAGES,),
)
async def list_storage(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    type: StorageType = None,  # noqa: A002 - the published name
    detail_level: DetailLevel = "Minimal",
) -> Rows:
    """List storages per node with their use; Full adds content and sizes."""
    return await listed(
        call,
        storages,
        cluster_name,
        at(detail_level, Storage, _FULL_STORAGE),
        keep=lambda row: type is None or row.type.casefold() == type.casefold(),
        order=attrgetter("storage", "node"),
    )


@tool("ListPools", area=Area.STORAGE, effect=Effect.READ, answer=Pool, needs=(needs.POOLS,))
async def list_pools(call: Call, *, cluster_name: ClusterName = None) -> Rows:
    """List resource pools and their members."""
    return await listed(call, pools, cluster_name, Pool.minimal, order=attrgetter("poolid"))


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
    node: NodeName | None = None,
    storage: StorageName | None = None,
    vmid: OneVm = None,
) -> Rows:
    """List backups, newest first; on all storages unless one is named."""
    clusters = await clusters_with(call, cluster_name, node, storage)
    if node and storage:
        await note_unsupported_content(clusters, node, storage, "backup")
    return await listed(
        call,
        backups,
        cluster_name,
        _BACKUP,
        want=_want(node, storage, vmid=vmid),
        keep=lambda row: vmid in (None, row.vmid),
        order=newest("creation"),
        clusters=clusters,
        must=node is not None and storage is not None,
    )


@tool(
    "ListStorageContent",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=Content,
    needs=(needs.STORAGES,),
)
async def list_storage_content(
    call: Call,
    *,
    cluster_name: ClusterName = None,
    storage: StorageName,
    node: NodeName,
    content_type: ContentType = None,
) -> Rows:
    """List volumes of any kind on a storage."""
    return await _content(call, cluster_name, node, storage, Content.minimal, content_type)


@tool(
    "ListIsos",
    title="List ISOs",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=Content,
    needs=(needs.STORAGES,),
)
async def list_isos(
    call: Call, *, cluster_name: ClusterName = None, node: NodeName, storage: StorageName
) -> Rows:
    """List ISO images on a storage, newest first."""
    return await _content(call, cluster_name, node, storage, _IMAGE, "iso")


@tool(
    "ListTemplates", area=Area.STORAGE, effect=Effect.READ, answer=Content, needs=(needs.STORAGES,)
)
async def list_templates(
    call: Call, *, cluster_name: ClusterName = None, node: NodeName, storage: StorageName
) -> Rows:
    """List container templates on a storage, newest first."""
    return await _content(call, cluster_name, node, storage, _IMAGE, "vztmpl")


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
    return await listed(
        call,
        backup_jobs,
        cluster_name,
        _JOB,
        keep=lambda row: vmid is None or vmid in row.vmids,
        order=attrgetter("id"),
    )


async def _content(
    call: Call,
    cluster_name: str | None,
    node: str,
    storage: str,
    columns: tuple[str, ...],
    kind: str | None,
) -> Rows:
    clusters = await clusters_with(call, cluster_name, node, storage)
    if kind:
        await note_unsupported_content(clusters, node, storage, kind)
    return await listed(
        call,
        storage_content,
        cluster_name,
        columns,
        want=_want(node, storage, kind=kind),
        keep=_of_kind(kind),
        order=newest("creation"),
        clusters=clusters,
        must=True,
    )


def _of_kind(kind: str | None) -> Callable[[Any], bool]:
    return lambda row: kind in (None, row.content)


def _want(
    node: str | None, storage: str | None, *, vmid: int | None = None, kind: str | None = None
) -> LoadRequest:
    return LoadRequest(
        vmids=frozenset() if vmid is None else frozenset({vmid}),
        nodes=frozenset(filter(None, [node])),
        storages=frozenset(filter(None, [storage])),
        types=frozenset(filter(None, [kind])),
    )
