"""The server's own history: what an identity sees of a cluster, read regularly and compared."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from time import monotonic
from typing import Any, Final

import anyio

from proxmox_client.api.resources import GuestResource, NodeResource, StorageResource
from pvemcp_server.access.model import EVERYTHING
from pvemcp_server.audit.log_secrets import mask_line
from pvemcp_server.clusters import Cluster, Clusters, Notes, outcome_of
from pvemcp_server.settings import Values
from pvemcp_server.store import Store
from pvemcp_server.store.background import ticks
from pvemcp_server.store.history_repository import Reading
from pvemcp_server.store.records import ClusterKind, IdentityRecord
from pvemcp_server.tables import fanout
from pvemcp_server.tables.config_options import shown
from pvemcp_server.tables.registry import Budget, LoadRequest
from pvemcp_server.tables.rows import moment, percent

log = logging.getLogger(__name__)

CHECKED: Final = 30.0  # seconds between the looks at what is due
_CONFIGS: Final = 2000  # that are read at once
_SECONDS: Final = 120.0  # that reading them may take
_LONGEST: Final = 200  # characters of a value
_LONGEST_NAME: Final = 64  # of an option
_FULL: Final = 90.0  # percent of a storage
_NOT_FULL: Final = 85.0
_NOT_OPTIONS: Final = frozenset({"digest", "lock", "parent", "snaptime", "meta"})

_UNKNOWN: Final = "unknown"

Difference = dict[str, Any]
Rows = Mapping[str, Mapping[str, Any]]
"""A part of a reading: rows by name or VMID."""


class HistoryRecorder:
    """Reads each cluster with each of its identities and stores what differs from the last time."""

    def __init__(self, store: Store, clusters: Clusters, values: Callable[[], Values]) -> None:
        self._store = store
        self._clusters = clusters
        self._values = values
        self._is_clear = False

    async def run(self, stop: anyio.Event) -> None:
        """Record what is due until `stop` is set; a reading in progress is given up then."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run, stop)
            await stop.wait()
            tasks.cancel_scope.cancel()

    async def _run(self, stop: anyio.Event) -> None:
        async for _ in ticks(stop, CHECKED):
            try:
                await self.record(datetime.now(UTC))
            except Exception:
                log.warning("The history of the clusters could not be recorded", exc_info=True)

    async def record(self, now: datetime) -> None:
        """Read what is due; delete everything if no history is to be kept."""
        values = self._values()
        if not values.history_minutes:
            if not self._is_clear:
                await self._store.history.clear()
            self._is_clear = True
            return
        self._is_clear = False
        for cluster in await self._store.clusters.all(kind=ClusterKind.PVE):
            for identity in await self._store.identities.all(
                cluster_id=cluster.id,
                connection_id=None,  # not with the tokens of users
            ):
                what = f"the history of {cluster.name} as {identity.name}"
                failed = await outcome_of(self._record(cluster.name, identity, values, now), what)
                if failed:
                    log.warning("Not read: %s: %s", what, failed)

    async def _record(
        self, name: str, identity: IdentityRecord, values: Values, now: datetime
    ) -> None:
        interval = timedelta(minutes=values.history_minutes)
        before = await self._store.history.claim(identity, now, interval)
        if before is None:
            return
        identities = {name: identity.id}
        cluster = await self._clusters.open(name, identities, EVERYTHING, Notes())
        after = await read(cluster, before)
        if after is not None:
            oldest = now - timedelta(days=values.history_days)
            found = differences(before, after)
            await self._store.history.save(identity, after, found, oldest)


async def read(cluster: Cluster, before: Reading) -> Reading | None:
    """Return what the cluster's account sees now; None if it does not answer, or in part only.

    Configurations that cannot be read, such as those on an offline node, stay as they were.
    """
    view = await cluster.inventory_view()
    if view.stale or view.malformed:
        return None
    request = LoadRequest(budget=Budget(_CONFIGS, monotonic() + _SECONDS))
    guests = {guest.vmid: guest for guest in await fanout.guests(cluster, request)}

    async def config(vmid: int) -> dict[str, Any]:
        at = int(datetime.now(UTC).timestamp())
        raw = (await cluster.api_of(guests[vmid]).configs()).pending.raw
        return {"at": at, "options": await asyncio.to_thread(_options, raw)}

    configs = await fanout.each(cluster, guests, config, request, "configuration of guest")
    read_now = {str(vmid): config for vmid, config in configs.items()}
    vmids = {str(guest.vmid) for guest in view.guests}
    kept = {vmid: old for vmid, old in before.get("configs", {}).items() if vmid in vmids}
    silent = view.offline_nodes | view.nodes_without_statistics
    return {
        "at": int(view.taken_at.timestamp()),
        "nodes": dict(_nodes(view.nodes, before.get("nodes", {}))),
        "storages": dict(_storages(view.storages, before.get("storages", {}), silent)),
        "guests": dict(_guests(view.guests, before.get("guests", {}))),
        "configs": kept | read_now,
    }


def differences(before: Reading, after: Reading) -> list[Difference]:
    """Return what differs between two readings; the first one has nothing to differ from."""
    if not before:
        return []
    times = {"at": moment(after["at"]), "after": moment(before["at"])}
    found = (
        *_of_nodes(before["nodes"], after["nodes"]),
        *_of_storages(before["storages"], after["storages"]),
        *_of_guests(before["guests"], after["guests"]),
        *_of_configs(before["configs"], after["configs"], after["guests"]),
    )
    return [{"vmid": None, "option": None, **times, **difference} for difference in found]


def _of_nodes(before: Rows, after: Rows) -> Iterator[Difference]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        text = _listed(old, new) or _changed(before[name]["status"], after[name]["status"])
        if text:
            yield {"kind": "node", "node": name, "subject": name, "text": text}


def _of_storages(before: Rows, after: Rows) -> Iterator[Difference]:
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        texts = [_listed(old, new)]
        if old and new:
            is_same = old["status"] == new["status"]
            texts = ["" if is_same else f"{old['status']} → {new['status']}"]
            if old["is_full"] is not new["is_full"]:
                texts.append(f"{new['used']:g} % full" + ("" if new["is_full"] else " only"))
        storage = new or old or {}
        for text in filter(None, texts):
            subject = storage["storage"]
            yield {"kind": "storage", "node": storage["node"], "subject": subject, "text": text}


def _of_guests(before: Rows, after: Rows) -> Iterator[Difference]:
    for vmid in sorted(before.keys() | after.keys(), key=int):
        old, new = before.get(vmid), after.get(vmid)
        texts = [_listed(old, new)]
        if old and new:
            texts = [_changed(old["node"], new["node"]), _changed(old["status"], new["status"])]
        guest = new or old or {}
        name = f" ({guest['type']} {guest['name']})" if guest["name"] else f" ({guest['type']})"
        for text in filter(None, texts):
            yield {
                "kind": "guest", "node": guest["node"], "vmid": int(vmid), "subject": vmid,
                "text": text + name,
            }  # fmt: skip


def _of_configs(before: Rows, after: Rows, guests: Rows) -> Iterator[Difference]:
    for vmid in sorted(before.keys() & after.keys(), key=int):
        old, new = before[vmid]["options"], after[vmid]["options"]
        about = {"kind": "config", "node": guests[vmid]["node"], "vmid": int(vmid), "subject": vmid}
        # a configuration that could not be read at other times changed between its own readings
        times = {"after": moment(before[vmid]["at"]), "at": moment(after[vmid]["at"])}
        for option in sorted(old.keys() | new.keys()):
            if old.get(option) != new.get(option):
                sides = " → ".join(values.get(option, "not set") for values in (old, new))
                yield {**about, **times, "option": option, "text": f"{option}: {sides}"}


def _listed(old: object, new: object) -> str:
    """Return whether something came or went; a lost privilege looks like what went."""
    if old is None:
        return "new in the list"
    return "" if new is not None else "not in the list any more"


def _changed(old: str, new: str) -> str:
    """Return a change of a state or place; one from or to an unknown state is none."""
    return "" if old == new or _UNKNOWN in (old, new) else f"{old} → {new}"


def _options(raw: Mapping[str, Any]) -> dict[str, str]:
    """Return the options of a configuration; what has a longer name than any of them is left out.

    To mask long values takes seconds.
    """
    names = (name for name in raw.keys() - _NOT_OPTIONS if len(name) <= _LONGEST_NAME)
    return {name: _value(name, raw[name]) for name in names}


def _value(name: str, value: Any) -> str:
    """Return an option's value without secrets; the end of a long one is left out."""
    # what no database stores as text: NUL and halves of surrogate pairs
    storable = str(shown(name, value)).replace("\0", " ").encode(errors="replace").decode()
    text = mask_line(storable)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… (sha256 {sha256(text.encode()).hexdigest()[:8]})"


def _nodes(nodes: Iterable[NodeResource], before: Rows) -> Iterator[tuple[str, Any]]:
    for node in nodes:
        yield node.node, {"status": _last_known(node.status, before.get(node.node))}


def _guests(guests: Iterable[GuestResource], before: Rows) -> Iterator[tuple[str, Any]]:
    for guest in guests:
        vmid = str(guest.vmid)
        status = _last_known(guest.status, before.get(vmid))
        names = {"name": guest.name, "type": guest.type, "node": guest.node}
        yield vmid, {**names, "status": status}


def _last_known(status: str, before: Mapping[str, Any] | None) -> str:
    """Return the state, or the one before it while Proxmox has no statistics."""
    return str(before["status"]) if before and status == _UNKNOWN else status


def _storages(
    storages: Iterable[StorageResource], before: Rows, silent: AbstractSet[str]
) -> Iterator[tuple[str, Any]]:
    """Yield each storage; a shared one once, as the first node that has it available sees it."""
    seen = set()
    for row in sorted(storages, key=lambda row: (not row.is_available, row.node)):
        key = row.storage if row.shared else f"{row.storage} on {row.node}"
        if key in seen:
            continue
        seen.add(key)
        was_full = before.get(key, {}).get("is_full", False)
        used = percent(row.disk, row.disk_max)
        limit = _NOT_FULL if was_full else _FULL
        yield (
            key,
            {
                "storage": row.storage,
                "node": row.node,
                # an unknown state is that of a storage that failed, unless its node reports nothing
                "status": _last_known(row.status, before.get(key))
                if row.node in silent
                else row.status,
                "used": used,
                "is_full": was_full if used is None else used >= limit,
            },
        )
