"""Volumes on storages: backups and all other content."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, NamedTuple

from proxmox_client import ProxmoxError
from proxmox_client.api.access import Permissions
from proxmox_client.api.resources import StorageResource
from proxmox_client.api.storage import StorageContentKind, Volume
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import Reach, of_content
from pvemcp_server.tables.registry import (
    COMMON_PUSHDOWN,
    Cost,
    LoadRequest,
    Relation,
    made,
    never_filtered,
    table,
)
from pvemcp_server.tables.rows import GUEST_TYPES, Col, Gap, Row, Unit, moment, single

TO_STORAGE = Relation(
    "storage", "storages", {"storage": "storage", "node": "node"}, "The storage it is on"
)
KINDS: frozenset[StorageContentKind] = frozenset(
    {"images", "rootdir", "backup", "iso", "vztmpl", "snippets", "import"}
)


class _Hidden(NamedTuple):
    """Volumes that Proxmox leaves out of lists without a privilege (PVE/Storage.pm)."""

    kinds: frozenset[StorageContentKind]
    word: str
    path: str
    privilege: str

    def is_kept_from(self, holds: Callable[[str, str], bool], storage: str) -> bool:
        """Return whether an account that holds privileges so sees none of them on the storage."""
        own = f"/storage/{storage}"
        if holds(own, "Datastore.Allocate"):
            return False
        return not holds(own if self.path == "/storage" else self.path, self.privilege)


_SEES_STORAGES = ("Datastore.Audit", "Datastore.AllocateSpace", "Datastore.Allocate")
_HIDDEN = (
    _Hidden(frozenset({"images", "rootdir"}), "disks of guests", "/vms", "VM.Config.Disk"),
    _Hidden(frozenset({"backup"}), "backups", "/vms", "VM.Backup"),
    _Hidden(frozenset({"backup"}), "backups", "/storage", "Datastore.AllocateSpace"),
)
_NAMED = 5  # storages that a note names

Place = tuple[str, str]  # a storage's name and the node that lists it


class Backup(Row):
    """A backup of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("storage", "volid", "vmid", "size", "creation")
    full: ClassVar[tuple[str, ...]] = (
        "storage",
        "node",
        "volid",
        "vmid",
        "size",
        "creation",
        "notes",
        "protected",
        "verified",
    )

    storage: Annotated[str, Col("Storage it is on")]
    volid: Annotated[str, Col("Volume id: what DeleteBackup takes")]
    vmid: Annotated[int | None, Col("Guest it is of", aliases=("guest_id",))]
    format: Annotated[str, Col("Format of the archive: vma.zst, tar.zst, pbs-vm …")]
    size: Annotated[int, Col("Size", Unit.BYTES)]
    creation: Annotated[datetime | None, Col("When it was made", Unit.TIME, ("created", "date"))]
    notes: Annotated[str | None, Col("Notes")]
    protected: Annotated[bool, Col("Whether it is protected from deletion")]
    encrypted: Annotated[bool, Col("Whether it is encrypted")]
    verified: Annotated[
        bool | None,
        Col(
            "Whether its last verification succeeded",
            gap=Gap("never verified; only Proxmox Backup Server does that"),
        ),
    ]
    node: Annotated[str, Col("Node it was listed at; for a shared storage one of many")]
    type: Annotated[str | None, Col("Kind of guest", values=("qemu", "lxc"), meanings=GUEST_TYPES)]
    filename: Annotated[str, Col("File name", aliases=("name",))]
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
    vmid: Annotated[int | None, Col("Guest it belongs to", aliases=("guest_id",))]
    creation: Annotated[datetime | None, Col("When it was made", Unit.TIME, ("created", "date"))]
    name: Annotated[str, Col("File or volume name", aliases=("filename",))]
    storage: Annotated[str, Col("Storage it is on")]
    node: Annotated[str, Col("Node it was listed at; for a shared storage one of many")]
    used: Annotated[int | None, Col("Space it takes", Unit.BYTES)]
    parent: Annotated[str | None, Col("Volume it builds on")]
    notes: Annotated[str | None, Col("Notes")]
    protected: Annotated[bool, Col("Whether it is protected from deletion")]


_RELATIONS = (TO_GUEST, TO_NODE, TO_STORAGE)


def _shared_backups(rows: Mapping[str, Sequence[Backup | Content]]) -> Iterator[str]:
    """Note backups that several clusters list, as they do on a storage that they share.

    Proxmox knows the VMID of a backup, not the cluster of its guest.
    """
    places: dict[tuple[str, int], dict[str, str]] = {}  # storage by cluster
    for cluster, some in rows.items():
        for row in some:
            if row.content == "backup":
                archive = row.volid.partition(":")[2]
                places.setdefault((archive, row.size), {})[cluster] = row.storage
    counts = Counter(tuple(sorted(found.items())) for found in places.values() if len(found) > 1)
    for where, count in counts.items():
        storages = " and ".join(f"{storage} of {cluster}" for cluster, storage in where)
        yield (
            f"{count} backups are on {storages} alike, because these clusters share the storage or "
            "one is a copy: each has a row per cluster here, and is of a guest of one cluster only."
        )


@table(
    "backups",
    tool="ListBackups",
    cost=Cost.PER_STORAGE,
    covered=of_content,
    relations=_RELATIONS,
    overlaps=_shared_backups,
)
async def backups(cluster: Cluster, request: LoadRequest) -> list[Backup]:
    """Backups of guests; one on a shared storage is there once."""
    volumes = await listed_volumes(cluster, request, frozenset({"backup"}))
    pairs = [(place, volume) for place, some in volumes.items() for volume in some]
    return await made(cluster, pairs, lambda pair: [_backup(*pair)])


@table(
    "storage_content",
    tool="ListStorageContent",
    cost=Cost.PER_STORAGE,
    covered=of_content,
    pushdown={**COMMON_PUSHDOWN, "content": "types"},
    relations=_RELATIONS,
    overlaps=_shared_backups,
    looks_filtered=never_filtered,  # the loader notes what is hidden of the kinds asked for
)
async def storage_content(cluster: Cluster, request: LoadRequest) -> list[Content]:
    """Volumes on storages: images, backups, ISOs, templates; on a shared storage there once."""
    kinds = KINDS & request.types or KINDS
    volumes = await listed_volumes(cluster, request, kinds)
    await note_hidden_volumes(cluster, request, kinds, volumes)
    pairs = [(place, volume) for place, some in volumes.items() for volume in some]
    return await made(cluster, pairs, lambda pair: [_content(*pair)])


async def listed_volumes(
    cluster: Cluster, request: LoadRequest, kinds: frozenset[StorageContentKind]
) -> dict[Place, list[Volume]]:
    """Return the volumes of each storage that can hold such content."""
    reach = await Reach.of(cluster)
    kind, vmid = single(kinds), single(request.vmids)

    async def list_content(place: Place) -> list[Volume]:
        return await cluster.pve.storage(place[1], place[0]).content(kind, vmid)

    storages = await fanout.storages(cluster, request, kinds)
    await _note_unsupported(cluster, request, kinds)
    return await fanout.each_masked(
        cluster,
        [(storage.storage, storage.node) for storage in storages],
        lambda place: reach.storage(*place),
        lambda view, some: fanout.each(view, some, list_content, request, "content of storage"),
        request,
    )


async def _note_unsupported(
    cluster: Cluster, request: LoadRequest, kinds: frozenset[StorageContentKind]
) -> None:
    """Note the named storages that take no such content: that is why nothing of them is listed."""
    visible = (await cluster.inventory_view()).storages
    for name in sorted(request.storages):
        places = [s for s in visible if s.storage == name and request.wants_node(s.node)]
        if places and not any(place.may_hold(kind) for place in places for kind in kinds):
            on_node = [storage for storage in visible if storage.node == places[0].node]
            words = unsupported_content(places[0], single(kinds) or "volumes", on_node)
            cluster.notes.add(" ".join(words), advice=True)


def unsupported_content(
    storage: StorageResource, content: str, candidates: Iterable[StorageResource]
) -> tuple[str, str]:
    """Return a message that the storage does not accept this content, and a hint which do."""
    names = [row.storage for row in candidates if content in row.content_list]
    takes = ", ".join(storage.content_list)
    return (
        f"Storage {storage.storage} does not take {content} (it takes {takes}).",
        f"These do: {', '.join(names)}." if names else "No storage on that node does.",
    )


async def note_hidden_volumes(
    cluster: Cluster,
    request: LoadRequest,
    kinds: frozenset[StorageContentKind],
    volumes: Mapping[Place, Sequence[Volume]],
) -> None:
    """Note the kinds of volumes that Proxmox leaves out because the account lacks a privilege.

    Of each storage, only kinds without any row count: an account may see the disks of some guests.
    Storages that are hidden from the caller are not named.
    """
    storages = (await cluster.inventory.view()).storages
    reach = await Reach.of(cluster)
    places = {
        (storage.storage, storage.node): {kind for kind in kinds if storage.may_hold(kind)}
        for storage in storages
    }
    if await fanout.names_unknown_places(cluster, request):
        places = {place: accepted for place, accepted in places.items() if reach.storage(*place)}
    empty = {
        hidden: [
            place
            for place, accepted in places.items()
            if place in volumes
            and hidden.kinds & accepted
            and not any(
                volume.content in hidden.kinds
                and (reach.storage(*place) or reach.guest(volume.vmid))
                for volume in volumes[place]
            )
        ]
        for hidden in (_HIDDEN if storages else ())
    }
    if storages and not any(empty.values()):
        return
    try:
        held = await cluster.pve.access.permissions()
    except ProxmoxError:
        return  # the answer stands without the note
    holds = _holding(held)
    if not storages and not any(holds("/storage", name) for name in _SEES_STORAGES):
        await _note_hidden(cluster, "Datastore.Audit", "/storage", "storages here")
    for hidden, some in empty.items():
        kept = [place for place in some if hidden.is_kept_from(holds, place[0])]
        names = sorted({storage for storage, node in kept if reach.storage(storage, node)})
        if names:
            word = f"{hidden.word} on {', '.join(names[:_NAMED])}"
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            await _note_hidden(cluster, hidden.privilege, hidden.path, f"{word}{more}")
        elif kept:
            what = f"{hidden.word} on some storages"
            await _note_hidden(cluster, hidden.privilege, hidden.path, what)


async def _note_hidden(cluster: Cluster, privilege: str, path: str, what: str) -> None:
    advice = await cluster.acl.advice(path, [privilege])
    fact = f"{cluster.account} lacks {privilege} on {path} of {cluster.name}"
    cluster.notes.add(advice.after(f"{fact}, so Proxmox lists no {what}"), advice=True)


def _holding(held: Permissions) -> Callable[[str, str], bool]:
    """Return a function of path and privilege: whether the account has it; the nearest path counts.

    A privilege on a pool counts as held: which storages and guests it covers is not known here.
    """
    on_pools = {
        privilege
        for path, privileges in held.items()
        if path.startswith("/pool/")
        for privilege in privileges
    }

    def holds(path: str, privilege: str) -> bool:
        if privilege in on_pools:
            return True
        area = path[: path.find("/", 1)] if path.count("/") > 1 else path
        nearest = next((each for each in (path, area) if each in held), "/")
        privileges = held.get(nearest, {})
        return privilege in privileges and (nearest == path or privileges[privilege])

    return holds


def _backup(place: Place, volume: Volume) -> Backup:
    return Backup(
        storage=place[0],
        volid=volume.volid,
        vmid=volume.vmid,
        format=volume.format,
        size=volume.size,
        creation=moment(volume.created),
        notes=volume.notes,
        protected=volume.protected,
        encrypted=volume.encrypted is not None,
        verified=volume.verification.state == "ok" if volume.verification else None,
        node=place[1],
        type=volume.guest_type,
        filename=volume.name,
        content=volume.content,
        parent=volume.parent,
    )


def _content(place: Place, volume: Volume) -> Content:
    return Content(
        volid=volume.volid,
        content=volume.content,
        format=volume.format,
        size=volume.size,
        vmid=volume.vmid,
        creation=moment(volume.created),
        name=volume.name,
        storage=place[0],
        node=place[1],
        used=volume.used,
        parent=volume.parent,
        notes=volume.notes,
        protected=volume.protected,
    )
