"""What is on storages: backups and all other content."""

from datetime import datetime
from typing import Annotated, ClassVar

from proxmox_client.api.storage import StorageContentKind, Volume
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import Reach, of_content
from pvemcp_server.tables.registry import (
    NARROWED,
    Col,
    Cost,
    LoadRequest,
    Relation,
    Row,
    Unit,
    table,
)
from pvemcp_server.tables.values import moment, only

TO_STORAGE = Relation(
    "storage", "storages", {"storage": "storage", "node": "node"}, "The storage it is on"
)
KINDS: frozenset[StorageContentKind] = frozenset(
    {"images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import"}
)

Place = tuple[str, str]  # a storage's name and the node it was asked at


class Backup(Row):
    """A backup of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("storage", "volid", "vmid", "format", "size", "creation")
    full: ClassVar[tuple[str, ...]] = (
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

    storage: Annotated[str, Col("Storage it is on")]
    volid: Annotated[str, Col("Volume id: what DeleteBackup takes")]
    vmid: Annotated[int | None, Col("Guest it is of", also=("guest_id",))]
    format: Annotated[str, Col("Format of the archive: vma.zst, tar.zst, pbs-vm …")]
    size: Annotated[int, Col("Size", Unit.BYTES)]
    creation: Annotated[datetime | None, Col("When it was made", Unit.TIME, ("created", "date"))]
    notes: Annotated[str | None, Col("Notes")]
    protected: Annotated[bool, Col("Whether it is protected from deletion")]
    encrypted: Annotated[bool, Col("Whether it is encrypted")]
    verified: Annotated[bool | None, Col("Whether its last verification went well")]
    node: Annotated[str, Col("Node it was listed at; for a shared storage one of many")]
    type: Annotated[str | None, Col("Kind of guest", values=("qemu", "lxc"))]
    filename: Annotated[str, Col("File name", also=("name",))]
    content: Annotated[str, Col("Always backup")]
    parent: Annotated[str | None, Col("Volume it builds on")]


class Content(Row):
    """A volume on a storage."""

    minimal: ClassVar[tuple[str, ...]] = (
        "volid",
        "content",
        "format",
        "size",
        "vmid",
        "creation",
        "name",
    )

    volid: Annotated[str, Col("Volume id")]
    content: Annotated[str, Col("Kind: iso, vztmpl, backup, images, rootdir, snippets, import")]
    format: Annotated[str, Col("Format: raw, qcow2, iso, tgz …")]
    size: Annotated[int, Col("Size", Unit.BYTES)]
    vmid: Annotated[int | None, Col("Guest it belongs to", also=("guest_id",))]
    creation: Annotated[datetime | None, Col("When it was made", Unit.TIME, ("created", "date"))]
    name: Annotated[str, Col("File or volume name", also=("filename",))]
    storage: Annotated[str, Col("Storage it is on")]
    node: Annotated[str, Col("Node it was listed at; for a shared storage one of many")]
    used: Annotated[int | None, Col("Space it takes", Unit.BYTES)]
    parent: Annotated[str | None, Col("Volume it builds on")]
    notes: Annotated[str | None, Col("Notes")]
    protected: Annotated[bool, Col("Whether it is protected from deletion")]


_RELATIONS = (TO_GUEST, TO_NODE, TO_STORAGE)


@table(
    "backups",
    tool="ListBackups",
    cost=Cost.PER_STORAGE,
    covered=of_content,
    relations=_RELATIONS,
)
async def backups(cluster: Cluster, want: LoadRequest) -> list[Backup]:
    """Backups of guests; one on a shared storage is there once."""
    found = await _volumes(cluster, want, frozenset({"backup"}))
    return [_backup(place, one) for place, volumes in found.items() for one in volumes]


@table(
    "storage_content",
    tool="ListStorageContent",
    cost=Cost.PER_STORAGE,
    covered=of_content,
    pushed={**NARROWED, "content": "types"},
    relations=_RELATIONS,
)
async def storage_content(cluster: Cluster, want: LoadRequest) -> list[Content]:
    """Volumes on storages: images, backups, ISOs, templates; on a shared storage there once."""
    found = await _volumes(cluster, want, KINDS & want.types or KINDS)
    return [_content(place, one) for place, volumes in found.items() for one in volumes]


async def _volumes(
    cluster: Cluster, want: LoadRequest, kinds: frozenset[StorageContentKind]
) -> dict[Place, list[Volume]]:
    """The volumes of each storage that can hold such content."""
    reach = await Reach.of(cluster)
    kind, vmid = only(kinds), only(want.vmids)

    async def listed(place: Place) -> list[Volume]:
        return await cluster.pve.storage(place[1], place[0]).content(kind, vmid)

    return await fanout.quietly(
        cluster,
        [(one.storage, one.node) for one in await fanout.storages(cluster, want, kinds)],
        lambda place: reach.storage(*place),
        lambda view, some: fanout.each(view, some, listed, want, "content of storage"),
    )


def _backup(place: Place, one: Volume) -> Backup:
    return Backup(
        storage=place[0],
        volid=one.volid,
        vmid=one.vmid,
        format=one.format,
        size=one.size,
        creation=moment(one.created),
        notes=one.notes,
        protected=one.protected,
        encrypted=one.encrypted is not None,
        verified=one.verification.state == "ok" if one.verification else None,
        node=place[1],
        type=one.guest_type,
        filename=one.name,
        content=one.content,
        parent=one.parent,
    )


def _content(place: Place, one: Volume) -> Content:
    return Content(
        volid=one.volid,
        content=one.content,
        format=one.format,
        size=one.size,
        vmid=one.vmid,
        creation=moment(one.created),
        name=one.name,
        storage=place[0],
        node=place[1],
        used=one.used,
        parent=one.parent,
        notes=one.notes,
        protected=one.protected,
    )
