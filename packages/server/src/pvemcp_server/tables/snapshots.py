"""Snapshots of guests."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from proxmox_client.api.guests import Snapshot as SnapshotAnswer
from proxmox_client.api.resources import GuestResource
from pvemcp_server.clusters import Cluster
from pvemcp_server.shown_names import MOST_NAMES, shown_name
from pvemcp_server.tables import fanout
from pvemcp_server.tables.guests import TO_GUEST, TO_NODE
from pvemcp_server.tables.reach import of_guest
from pvemcp_server.tables.registry import Cost, LoadRequest, made, table
from pvemcp_server.tables.rows import GUEST_TYPES, Col, Gap, Row, Unit, moment

Key = tuple[int, str]  # a VMID and a snapshot's name


class Snapshot(Row, kw_only=True):
    """A snapshot of a guest."""

    minimal: ClassVar[tuple[str, ...]] = ("vmid", "vm_name", "name", "date")
    full: ClassVar[tuple[str, ...]] = (*minimal, "description", "parent", "include_ram", "state")

    vmid: Annotated[int, Col("Guest it is of", aliases=("guest_id",))]
    vm_name: Annotated[str, Col("Name of the guest", aliases=("guest_name",))]
    name: Annotated[str, Col("Name, unique in the guest")]
    date: Annotated[datetime | None, Col("When it was taken", Unit.TIME, ("timestamp", "created"))]
    description: Annotated[str | None, Col("Notes")]
    parent: Annotated[str | None, Col("Snapshot it was taken after")]
    include_ram: Annotated[
        bool, Col("Whether memory was saved", aliases=("include_memory", "vm_state"))
    ]
    size: Annotated[
        int | None,
        Col(
            "Saved memory only; Proxmox doesn't report the space of disks",
            Unit.BYTES,
            gap=Gap("only saved memory counts; Proxmox does not report the space of disks"),
        ),
    ] = None
    state: Annotated[
        str | None, Col("null for a complete one; prepare or delete: begun and not finished")
    ] = None
    node: Annotated[str, Col("Node the guest is on")]
    type: Annotated[Literal["qemu", "lxc"], Col("Kind of guest", meanings=GUEST_TYPES)]


@table(
    "snapshots",
    tool="ListSnapshots",
    cost=Cost.PER_GUEST,
    covered=of_guest,
    relations=(TO_GUEST, TO_NODE),
)
async def snapshots(cluster: Cluster, request: LoadRequest) -> list[Snapshot]:
    """Snapshots of guests."""
    guests = {guest.vmid: guest for guest in await fanout.guests(cluster, request)}

    async def list_snapshots(vmid: int) -> list[SnapshotAnswer]:
        return await (await cluster.handle(vmid)).snapshots()

    answers = await fanout.each(cluster, guests, list_snapshots, request, "snapshots of guest")

    _note_incomplete(cluster, answers)

    async def memory_size(key: Key) -> int | None:
        vmid, name = key
        node = guests[vmid].node
        config = await cluster.pve.qemu(node, vmid).config(snapshot=name)
        storage, separator, _ = (config.vmstate or "").partition(":")
        if not separator or config.vmstate is None:
            return None
        return (await cluster.pve.storage(node, storage).volume(config.vmstate)).size

    sizes: dict[Key, int | None] = {}
    if request.wants_column("size"):
        keys = [(v, s.name) for v, some in answers.items() for s in some if s.with_memory]
        sizes = await fanout.each(cluster, keys, memory_size, request, "size of snapshot")
    pairs = [(vmid, snapshot) for vmid, some in answers.items() for snapshot in some]

    def row(pair: tuple[int, SnapshotAnswer]) -> list[Snapshot]:
        vmid, snapshot = pair
        return [_row(guests[vmid], snapshot, sizes.get((vmid, snapshot.name)))]

    return await made(cluster, pairs, row)


def _note_incomplete(cluster: Cluster, answers: Mapping[int, Sequence[SnapshotAnswer]]) -> None:
    """Note snapshots that a task begins or deletes now, or that a failed one left over."""
    incomplete = [
        f"{shown_name(snapshot.name)} of guest {vmid} ({shown_name(snapshot.state)})"
        for vmid, some in answers.items()
        for snapshot in some
        if snapshot.state
    ]
    if incomplete:
        named = ", ".join(incomplete[:MOST_NAMES])
        more = " …" if len(incomplete) > MOST_NAMES else ""
        cluster.notes.add(
            f"Incomplete on {cluster.name}, so no rollback is possible: {named}{more}.",
            fact=True,
        )


def _row(guest: GuestResource, snapshot: SnapshotAnswer, size: int | None) -> Snapshot:
    return Snapshot(
        vmid=guest.vmid,
        vm_name=guest.name,
        name=snapshot.name,
        date=moment(snapshot.created),
        description=snapshot.description.strip() or None,
        parent=snapshot.parent,
        include_ram=snapshot.with_memory,
        size=size,
        state=snapshot.state,
        node=guest.node,
        type=guest.type,
    )
