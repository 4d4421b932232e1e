"""Snapshots of guests."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from proxmox_client.api.guests import Snapshot as SnapshotAnswer
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import Col, Cost, LoadRequest, Row, Unit, table
from pvemcp_server.tables.values import moment

Key = tuple[int, str]  # a guest's number and a snapshot's name


class Snapshot(Row, kw_only=True):
    """A snapshot of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "vm_name", "name", "date")
    full: ClassVar[tuple[str, ...]] = (*minimal, "description", "parent", "include_ram")

    vmid: Annotated[int, Col("Guest it is of", also=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", also=("guest_name",))]
    name: Annotated[str, Col("Name, unique in the guest")]
    date: Annotated[datetime | None, Col("When it was taken", Unit.TIME, ("timestamp", "created"))]
    description: Annotated[str | None, Col("Notes")]
    parent: Annotated[str | None, Col("Snapshot it was taken after")]
    include_ram: Annotated[
        bool, Col("Whether memory was saved", also=("include_memory", "vm_state"))
    ]
    size: Annotated[
        int | None, Col("Saved memory; Proxmox doesn't tell what disks take", Unit.BYTES)
    ] = None
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest")]


@table(
    "snapshots",
    tool="ListSnapshots",
    cost=Cost.PER_GUEST,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
)
async def snapshots(cluster: Cluster, want: LoadRequest) -> list[Snapshot]:
    """Snapshots of guests."""
    guests = {one.vmid: one for one in await fanout.guests(cluster, want)}
    found = await fanout.each(
        cluster, guests, lambda vmid: _snapshots(cluster, guests[vmid]), want, "snapshots of guest"
    )
    sizes = await _sizes(cluster, guests, found, want) if want.column("size") else {}
    return [
        _row(guests[vmid], one, sizes.get((vmid, one.name)))
        for vmid, taken in found.items()
        for one in taken
    ]


async def _snapshots(cluster: Cluster, guest: GuestResource) -> list[SnapshotAnswer]:
    return await (await cluster.handle(guest.vmid)).snapshots()


async def _sizes(
    cluster: Cluster,
    guests: dict[int, GuestResource],
    found: dict[int, list[SnapshotAnswer]],
    want: LoadRequest,
) -> dict[Key, int | None]:
    keys = [(vmid, one.name) for vmid, taken in found.items() for one in taken if one.with_memory]

    async def size(key: Key) -> int | None:
        return await _memory_size(cluster, guests[key[0]], key[1])

    return await fanout.each(cluster, keys, size, want, "size of snapshot")


async def _memory_size(cluster: Cluster, guest: GuestResource, name: str) -> int | None:
    config = await cluster.pve.qemu(guest.node, guest.vmid).config(snapshot=name)
    storage, mark, _ = (config.vmstate or "").partition(":")
    if not mark or config.vmstate is None:
        return None
    return (await cluster.pve.storage(guest.node, storage).volume(config.vmstate)).size


def _row(guest: GuestResource, one: SnapshotAnswer, size: int | None) -> Snapshot:
    return Snapshot(
        vmid=guest.vmid,
        vm_name=guest.name,
        name=one.name,
        date=moment(one.created),
        description=one.description.strip() or None,
        parent=one.parent,
        include_ram=one.with_memory,
        size=size,
        node=guest.node,
        type=guest.type,
    )
