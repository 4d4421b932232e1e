"""Asking many nodes, storages or guests of one cluster, within a budget."""

from asyncio import gather, sleep
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from math import isinf
from time import monotonic
from typing import TypeVar

from proxmox_client import deadline
from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from pvemcp_server.clusters import Cluster, Notes
from pvemcp_server.tables.registry import Budget, LoadRequest

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_TOLD = 3  # missing ones that are told one by one
_AT_ONCE = 64  # begun together; the client itself holds fewer requests open


async def each(
    cluster: Cluster,
    keys: Iterable[K],
    ask: Callable[[K], Awaitable[T]],
    want: LoadRequest,
    what: str,
) -> dict[K, T]:
    """Ask for every key until the budget is used up; what is missing then is noted.

    No key waits for another, for that may be on a node that hangs.
    """
    every = list(keys)
    wanted = every[: want.budget.calls] if monotonic() < want.budget.until else []

    async def asked(turn: int, some: Sequence[K]) -> tuple[dict[K, T], dict[K, str]]:
        for _ in range(turn):
            await sleep(0)  # the loop has others to serve while many requests begin
        return await cluster.answers(some, ask)

    with _within(want.budget), cluster.patience():
        answers = await gather(*(asked(n, some) for n, some in enumerate(_parts(wanted))))
    found = {key: one for some, _ in answers for key, one in some.items()}
    missing = {key: why for _, some in answers for key, why in some.items()}
    cluster.note_missing(missing, what)
    _note_cut(cluster, len(every) - len(wanted), "were not asked", len(every), what)
    if monotonic() >= want.budget.until and len(missing) > _TOLD:
        _note_cut(cluster, len(missing), "did not come in time", len(every), what)
    return found


def _note_cut(cluster: Cluster, number: int, happened: str, whole: int, what: str) -> None:
    if number:
        cluster.notes.add(
            f"Incomplete: {number} of {whole} {what}s of {cluster.name} {happened}, the budget of "
            "one call was used up. Narrow it to some vmids, nodes or storages."
        )


async def guests(cluster: Cluster, want: LoadRequest, kind: str = "") -> list[GuestResource]:
    """The visible wanted guests on nodes that are online, in order of their numbers."""
    seen = (await cluster.inventory_view()).guests
    wanted = [
        one
        for one in seen
        if want.vmid(one.vmid) and want.node(one.node) and kind in ("", one.type)
    ]
    down = await down_among(cluster, {one.node for one in wanted})
    return sorted((one for one in wanted if one.node not in down), key=lambda one: one.vmid)


async def down_among(cluster: Cluster, names: AbstractSet[str]) -> AbstractSet[str]:
    """Which of these nodes do not answer, noted as missing: asking them would only take time."""
    every = (await cluster.inventory.view()).nodes
    down = {one.node for one in every if one.node in names and one.status == "offline"}
    if down:
        cluster.notes.add(f"Offline on {cluster.name}, so missing here: {', '.join(sorted(down))}.")
    return down


async def nodes(cluster: Cluster, want: LoadRequest) -> list[str]:
    """The visible wanted nodes that are online; the others are noted as missing."""
    seen = (await cluster.inventory_view()).nodes
    return _online(cluster, [one for one in seen if want.node(one.node)])


async def all_nodes(cluster: Cluster, want: LoadRequest) -> list[str]:
    """The wanted nodes that are online, whoever sees them: a guest leaves traces on any node."""
    seen = {one.node for one in (await cluster.inventory_view()).nodes}
    every = (await cluster.inventory.view()).nodes
    wanted = [one for one in every if want.node(one.node)]
    hidden = [one for one in wanted if one.node not in seen]
    if any(one.status != "online" for one in hidden):
        _note_part(cluster)
    shown = _online(cluster, [one for one in wanted if one.node in seen])
    return shown + [one.node for one in hidden if one.status == "online"]


async def storages(
    cluster: Cluster, want: LoadRequest, holding: frozenset[str]
) -> list[StorageResource]:
    """Wanted storages that can hold such content: a shared one once, at a node that is online.

    Also those that are not granted themselves, for the sake of granted guests.
    """
    every = await cluster.inventory.view()
    online = set(await all_nodes(cluster, want))
    found: dict[tuple[str, str], StorageResource] = {}
    for one in sorted(every.storages, key=lambda one: (one.node, one.storage)):
        usable = one.node in online and one.status == "available"
        if usable and want.storage(one.storage) and not holding.isdisjoint(one.content_list):
            found.setdefault((one.storage, "" if one.shared else one.node), one)
    return list(found.values())


async def quietly(
    cluster: Cluster,
    keys: Sequence[K],
    visible: Callable[[K], bool],
    ask: Callable[[Cluster, Sequence[K]], Awaitable[dict[K, T]]],
) -> dict[K, T]:
    """Ask for keys of which the caller may not know some: notes don't name those."""
    found = await ask(cluster, [key for key in keys if visible(key)])
    hidden = [key for key in keys if not visible(key)]
    if hidden:
        offload = replace(cluster, notes=Notes())
        found |= await ask(offload, hidden)
        if offload.notes:
            _note_part(cluster)
    return found


def _note_part(cluster: Cluster) -> None:
    cluster.notes.add(f"A part of {cluster.name} did not answer; rows may be missing.")


def _online(cluster: Cluster, seen: Sequence[NodeResource]) -> list[str]:
    if offline := sorted(one.node for one in seen if one.status != "online"):
        cluster.notes.add(f"Offline on {cluster.name}, so missing here: {', '.join(offline)}.")
    return sorted(one.node for one in seen if one.status == "online")


def _parts(keys: Sequence[K]) -> Iterable[Sequence[K]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))


def _within(budget: Budget) -> AbstractContextManager[None]:
    return nullcontext() if isinf(budget.until) else deadline(budget.until - monotonic())
