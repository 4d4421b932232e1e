"""Lists of the volumes on a storage: of any content, ISO images, container templates."""

from typing import Annotated, Literal

from pydantic import Field

from pvemcp_server.access.model import Area, Effect
from pvemcp_server.tables import Content, LoadRequest, storage_content
from pvemcp_server.toolkit import needs
from pvemcp_server.toolkit.arguments import NO_FILTER, ClusterName, NodeName, StorageName
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.cluster_lookup import clusters_with
from pvemcp_server.toolkit.lists import NewestFirst, listed
from pvemcp_server.toolkit.registry import Rows, tool

ContentType = Annotated[
    Literal["iso", "vztmpl", "backup", "images", "rootdir", "snippets", "import"] | None,
    NO_FILTER,
    Field(description="Only this kind"),
]

_IMAGE_COLUMNS = ("volid", "name", "size", "format", "creation")


@tool(
    "ListStorageContent",
    area=Area.STORAGE,
    effect=Effect.READ,
    answer=Content,
    needs=(
        needs.STORAGES,
        needs.DISK_IMAGES,
        needs.BACKUPS_OF_GUESTS,
        needs.BACKUPS_ON_STORAGES,
    ),
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
    return await _volumes(call, cluster_name, node, storage, Content.minimal, content_type)


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
    return await _volumes(call, cluster_name, node, storage, _IMAGE_COLUMNS, "iso")


@tool(
    "ListTemplates", area=Area.STORAGE, effect=Effect.READ, answer=Content, needs=(needs.STORAGES,)
)
async def list_templates(
    call: Call, *, cluster_name: ClusterName = None, node: NodeName, storage: StorageName
) -> Rows:
    """List container templates on a storage, newest first."""
    return await _volumes(call, cluster_name, node, storage, _IMAGE_COLUMNS, "vztmpl")


async def _volumes(
    call: Call,
    cluster_name: str | None,
    node: str,
    storage: str,
    columns: tuple[str, ...],
    content: str | None,
) -> Rows:
    clusters = await clusters_with(call, cluster_name, node, storage)
    return await listed(
        call,
        storage_content,
        cluster_name,
        columns,
        request=LoadRequest(
            nodes=frozenset({node}),
            storages=frozenset({storage}),
            types=frozenset(filter(None, [content])),
        ),
        keep=lambda row: content in (None, row.content),
        order=NewestFirst("creation"),
        clusters=clusters,
        required=True,
    )
