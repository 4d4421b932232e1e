"""Fan-out: one question to many nodes, storages or guests of a cluster, within a budget.

A dead node (offline for the cluster) is skipped and noted; one without statistics is asked.
"""

from asyncio import gather, sleep
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from dataclasses import replace
from math import isinf
from time import monotonic
from typing import TypeVar

from proxmox_client import deadline
from proxmox_client.api.resources import GuestResource, StorageResource
from pvemcp_server.clusters import Cluster, Cut, Notes
from pvemcp_server.shown_names import listed_names
from pvemcp_server.tables.registry import ALL, LoadRequest

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_USED_UP = "the call's budget was used up. Narrow the call to some vmids, nodes or storages."
_NAMED = 3  # missing keys that are noted one by one
_BATCH = 64  # keys begun together; the client itself holds fewer requests open


async def each(
    cluster: Cluster,
    keys: Iterable[K],
    ask: Callable[[K], Awaitable[T]],
    request: LoadRequest,
    what: str,
    total: int | None = None,
) -> dict[K, T]:
    """Call `ask` for every key until the budget is used up; missing answers are noted.

    `total` is the number of keys in these notes, where some have an answer already.

    All keys run concurrently, since any of them may be on a node that hangs. Those beyond the
    cluster's share follow as far as other clusters leave calls.
    """
    all_keys = list(keys)
    total = len(all_keys) if total is None else total
    budget, begun = request.budget, 0
    most = min(len(all_keys), budget.calls)

    async def ask_batch(turn: int, batch: Sequence[K]) -> tuple[dict[K, T], dict[K, str]]:
        for _ in range(turn):
            await sleep(0)  # other work of the event loop runs between the batches
        return await cluster.ask_all(batch, ask)

    outcomes: list[tuple[dict[K, T], dict[K, str]]] = []
    time_limit = nullcontext() if isinf(budget.until) else deadline(budget.until - monotonic())
    with time_limit, cluster.short_deadline():
        while monotonic() < budget.until and (
            taken := await budget.take(cluster.name, most - begun)
        ):
            starts = range(begun, begun + taken, _BATCH)
            begun += taken
            batches = [all_keys[start : min(start + _BATCH, begun)] for start in starts]
            outcomes += await gather(*(ask_batch(n, batch) for n, batch in enumerate(batches)))
    answers = {key: answer for answered, _ in outcomes for key, answer in answered.items()}
    missing = {key: reason for _, failed in outcomes for key, reason in failed.items()}
    cluster.note_missing(missing, what)
    _note_cut(cluster, len(all_keys) - begun, "not read", total, what)
    if monotonic() >= budget.until and len(missing) > _NAMED:
        _note_cut(cluster, len(missing), "not in time", total, what)
    return answers


def _note_cut(cluster: Cluster, number: int, predicate: str, total: int, what: str) -> None:
    if number:
        cluster.notes.add_cut(Cut(cluster.name, number, total, what, predicate, _USED_UP))


async def each_masked(
    cluster: Cluster,
    keys: Sequence[K],
    visible: Callable[[K], bool],
    ask: Callable[[Cluster, Sequence[K]], Awaitable[dict[K, T]]],
    request: LoadRequest,
) -> dict[K, T]:
    """Ask for all keys, also those hidden from the caller, whose failures are noted unnamed.

    Rows about a visible guest may lie on a hidden node or storage. A note with its name would
    reveal it, so all failures of hidden keys become one sentence.
    """
    answers = await ask(cluster, [key for key in keys if visible(key)])
    hidden = [key for key in keys if not visible(key)]
    if hidden:
        quiet = replace(cluster, notes=Notes())
        answers |= await ask(quiet, hidden)
        if quiet.notes and not await names_unknown_places(cluster, request):
            _note_hidden_part(cluster)
    return answers


async def guests(cluster: Cluster, request: LoadRequest, kind: str = "") -> list[GuestResource]:
    """Return the requested visible guests on nodes that are not offline, sorted by VMID."""
    requested = [
        guest
        for guest in (await cluster.inventory_view()).guests
        if request.wants_vmid(guest.vmid)
        and request.wants_node(guest.node)
        and kind in ("", guest.type)
    ]
    offline = await offline_among(cluster, {guest.node for guest in requested})
    reachable = (guest for guest in requested if guest.node not in offline)
    return sorted(reachable, key=lambda guest: guest.vmid)


async def offline_among(cluster: Cluster, names: AbstractSet[str]) -> AbstractSet[str]:
    """Return which of these nodes are offline, and note them as missing."""
    offline = names & (await cluster.inventory.view()).offline_nodes
    note_offline(cluster, offline)
    return offline


async def nodes(cluster: Cluster, request: LoadRequest = ALL) -> list[str]:
    """Return the requested visible nodes that are not offline; those that are become a note."""
    visible = (await cluster.inventory_view()).by_node
    requested = {name for name in visible if request.wants_node(name)}
    return sorted(requested - await offline_among(cluster, requested))


async def all_nodes(cluster: Cluster, request: LoadRequest) -> list[str]:
    """Return the requested nodes that are not offline, also hidden ones.

    A visible guest leaves traces on any node. Hidden nodes are not named in notes.
    """
    visible = (await cluster.inventory_view()).by_node
    every = await cluster.inventory.view()
    hidden = {name for name in every.by_node if request.wants_node(name) and name not in visible}
    if hidden & every.offline_nodes and not await names_unknown_places(cluster, request):
        _note_hidden_part(cluster)
    return await nodes(cluster, request) + sorted(hidden - every.offline_nodes)


async def storages(
    cluster: Cluster, request: LoadRequest, contents: frozenset[str]
) -> list[StorageResource]:
    """Return the requested storages for such contents: a shared one once, where it is available.

    One that is available nowhere is among them: its node reports why, or has no statistics and
    lists it all the same. So are hidden storages, since they may hold volumes of visible guests.
    """
    every = await cluster.inventory.view()
    answering = set(await all_nodes(cluster, request))
    chosen: dict[tuple[str, str], StorageResource] = {}
    for storage in sorted(every.storages, key=lambda s: (not s.is_available, s.node, s.storage)):
        if (
            storage.node in answering
            and request.wants_storage(storage.storage)
            and any(map(storage.may_hold, contents))
        ):
            chosen.setdefault((storage.storage, "" if storage.shared else storage.node), storage)
    return sorted(chosen.values(), key=lambda storage: (storage.node, storage.storage))


async def names_unknown_places(cluster: Cluster, request: LoadRequest) -> bool:
    """Return whether the request names a node or storage that nothing visible names.

    A note on the places behind such a request would confirm a guessed name.
    """
    if not request.nodes and not request.storages:
        return False
    view = await cluster.inventory_view()
    places = (row.node for rows in (view.nodes, view.guests, view.storages) for row in rows)
    nodes = {name.casefold() for name in places}
    storages = {row.storage.casefold() for row in view.storages}
    return not (request.nodes <= nodes and request.storages <= storages)


def _note_hidden_part(cluster: Cluster) -> None:
    cluster.notes.add(f"A part of {cluster.name} did not answer; rows may be missing.")


def note_offline(cluster: Cluster, names: AbstractSet[str]) -> None:
    """Note that rows of these nodes are missing."""
    if names:
        missing = listed_names(sorted(names))
        cluster.notes.add(f"Offline on {cluster.name}, so missing here: {missing}.", offline=names)
