"""Room for a write (capacity): free memory and processors of a node, free space of storages.

A plan shows them in its dry run only: the figures change from second to second, and a question or
an approval is for one text. They come from the inventory, as far as the caller may see it.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from pvemcp_server.clusters import Cluster, InventoryView
from pvemcp_server.tables.nodes import Node
from pvemcp_server.toolkit.new_guest import NewGuest
from pvemcp_server.toolkit.write_target import TargetGuest

_SEVERAL = 2
_FULL = 90.0  # percent of a storage
_HIDDEN = "Room on {} is not known: the role of this key does not show it."


class Capacity(NamedTuple):
    """The memory that a node has in use, and what the other nodes have free, in bytes."""

    used: int
    free: int

    @property
    def suffices(self) -> bool:
        return self.used <= self.free


class Space(NamedTuple):
    """The space that a write takes on a storage, as a node has it; in bytes, None if not known."""

    node: str
    storage: str
    size: int | None


def capacity_without(nodes: Iterable[Node], lost: str) -> Capacity | None:
    """Return whether the other nodes have room for what a node has in use (N-1), in figures.

    Nodes without figures have none to offer; None if the node itself has none.
    """
    free, used = 0, None
    for node in nodes:
        if not node.memory_total or node.memory_usage is None:
            continue
        if node.node == lost:
            used = node.memory_usage
        elif node.status == "online":  # Proxmox repeats figures of offline nodes for five minutes
            free += node.memory_total - node.memory_usage
    return None if used is None else Capacity(used, free)


def readable(size: float) -> str:
    """Return a number of bytes in the unit in which it is at least 1."""
    value, units = float(size), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


async def room_on_node(guest: TargetGuest, name: str) -> str:
    """Return the free memory and CPU of a node, and whether they are enough for the guest."""
    status = guest.status
    return await room_for(guest.cluster, name, status.memory_max, status.cpu_count, vmid=guest.vmid)


async def room_for(
    cluster: Cluster,
    name: str,
    memory: int | None,
    cores: float | None,
    *,
    vmid: int | None = None,
) -> str:
    """Return the free memory and CPU of a node, and whether a guest of that size has room.

    `memory` is in bytes; `vmid` is the guest's, if it runs there already or will.
    """
    view = await cluster.inventory_view()
    node = view.by_node.get(name)
    if node is None:
        return _HIDDEN.format(name)
    if node.memory is None or not node.memory_max:
        return f"Room on {name} is not known: Proxmox has no current statistics of it."
    free = node.memory_max - node.memory
    sentences = [f"{name} has {readable(free)} of {readable(node.memory_max)} memory free."]
    if node.cpu is not None and node.cpu_count:
        sentences.append(f"{100 * node.cpu:.0f} % of its {node.cpu_count:g} processors are in use.")
    if memory:
        use = f"The guest may use {readable(memory)}"
        sentences.append(f"{use} and {cores:g} processors." if cores else f"{use}.")
        if memory > free:
            sentences.append(f"That is more memory than {name} has free.")
        total = memory + _promised(view, vmid, name)
        if cluster.scope.everything and total > node.memory_max:
            sentences.append(
                f"With it, the guests that run there may use {readable(total)}: more than its "
                "memory (overcommitted)."
            )
    if cores and node.cpu_count and cores > node.cpu_count:
        sentences.append(f"{name} has fewer processors than the guest.")
    return " ".join(sentences)


def room_for_several(
    view: InventoryView, memory: Mapping[str, int], writes: Iterable[Iterable[Space]]
) -> str:
    """Return what nodes and storages have free for several writes: each alone may have room.

    `memory` is in bytes, of the guests that a node gets.
    """
    return f"{_memory_for_several(view, memory)} {_space_for_several(view, writes)}".strip()


def _memory_for_several(view: InventoryView, memory: Mapping[str, int]) -> str:
    """Return what nodes have free; one that the role hides is left out."""
    sentences = []
    for name, needed in sorted(memory.items()):
        node = view.by_node.get(name)
        if node is None or node.memory is None or not node.memory_max:
            continue
        free = node.memory_max - node.memory
        sentences.append(
            f"{name} gets guests that may use {readable(needed)} of memory, and has "
            f"{readable(free)} of {readable(node.memory_max)} free."
        )
        if needed > free:
            sentences.append(f"Together that is more memory than {name} has free.")
    return " ".join(sentences)


def _space_for_several(view: InventoryView, writes: Iterable[Iterable[Space]]) -> str:
    """Return what storages have free for the writes that share them.

    A storage that the role hides is left out, and one on which no write takes a known size.
    """
    rows = {(row.node, row.storage): row for row in view.storages}
    taken: dict[tuple[str, str], list[tuple[int, Space]]] = {}
    for number, write in enumerate(writes):
        for space in write:
            row = rows.get((space.node, space.storage))
            if row is not None and row.disk is not None and row.disk_max:
                place = ("" if row.shared else space.node, space.storage)
                taken.setdefault(place, []).append((number, space))
    sentences = []
    for (node, storage), parts in sorted(taken.items()):
        total = sum(space.size or 0 for _, space in parts)
        if len({number for number, _ in parts}) < _SEVERAL or not total:
            continue
        row = rows[parts[0][1].node, storage]
        whole, free = row.disk_max or 0, (row.disk_max or 0) - (row.disk or 0)
        where = f"{storage} on {node}" if node else storage
        more = ", and more of unknown size," if any(s.size is None for _, s in parts) else ""
        sentences.append(
            f"{where} gets up to {readable(total)}{more} of these guests, and has "
            f"{readable(free)} of {readable(whole)} free."
        )
        if total > free:
            sentences.append(f"Together that is more than {where} has free.")
    return " ".join(sentences)


def _promised(view: InventoryView, vmid: int | None, node: str) -> int:
    """Return the memory that the other guests running on a node may use."""
    return sum(
        other.memory_max or 0
        for other in view.guests
        if other.node == node and other.status == "running" and other.vmid != vmid
    )


async def room_for_new(
    guest: NewGuest,
    disks: Iterable[tuple[str, int | None]],
    memory: int | None,
    cores: float | None = None,
) -> str:
    """Return the free space for the disks of a guest, and the room on its node if it is started."""
    room = await room_on_storages(guest.cluster, guest.node, disks)
    if guest.start:
        on_node = await room_for(guest.cluster, guest.node, memory, cores, vmid=guest.vmid)
        room = f"{on_node} {room}"
    return room


async def room_on_storages(
    cluster: Cluster, node: str, needed: Iterable[tuple[str, int | None]]
) -> str:
    """Return the free space of storages on a node, and whether it is enough for the write.

    `needed` has a name and a number of bytes for each part; None where that is not known.
    """
    visible = {
        row.storage: row for row in (await cluster.inventory_view()).storages if row.node == node
    }
    parts: dict[str, list[int | None]] = {}
    for name, size in needed:
        parts.setdefault(name, []).append(size)
    sentences = []
    for name, sizes in parts.items():
        storage = visible.get(name)
        if storage is None:
            sentences.append(_HIDDEN.format(name))
            continue
        if storage.disk is None or not storage.disk_max:
            sentences.append(f"Free space of {name} on {node} is not known.")
            continue
        free, used = storage.disk_max - storage.disk, 100 * storage.disk / storage.disk_max
        place = f"{name} on {node} has {readable(free)} of {readable(storage.disk_max)} free"
        full = f" ({used:.0f} % full)" if used >= _FULL else ""
        size = sum(filter(None, sizes))
        takes = f"; this takes up to {readable(size)}" if size else ""
        sentences.append(f"{place}{full}{takes}.")
        if size > free:
            sentences.append("That is more than is free.")
    return " ".join(sentences)
