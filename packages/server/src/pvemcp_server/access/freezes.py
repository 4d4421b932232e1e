"""The freeze switch: no writes for now, to one cluster or to all; reads are not affected.

It stops what this server sends. Proxmox's own jobs, and what others do there, are not affected.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pvemcp_server.errors import Frozen, Precondition, StateUnavailable, UnknownName
from pvemcp_server.store import Store
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.records import ClusterRecord, FreezeRecord
from pvemcp_server.store.watch import Topic, VersionedCache


@dataclass(frozen=True, slots=True)
class Freeze:
    """A freeze in force; `cluster` is None for the one of all clusters."""

    cluster: str | None
    since: datetime
    by: str
    reason: str

    def __str__(self) -> str:
        """Return when, by whom and why: "since 2027-01-31T09:00:00Z by ada: a restore runs"."""
        why = f": {self.reason.rstrip('.')}" if self.reason else ""
        return f"since {self.since:%Y-%m-%dT%H:%M:%SZ} by {self.by}{why}"

    @property
    def fact(self) -> str:
        """What it means for a write, as a sentence."""
        where = f"cluster {self.cluster}" if self.cluster else "all clusters"
        return f"Writes are frozen on {where} {self}."

    @property
    def error(self) -> Frozen:
        """The refusal of a write, with the next step."""
        command = f"unfreeze {self.cluster}" if self.cluster else "unfreeze-all"
        return Frozen(
            f"{self.fact} This was not sent.",
            hint="Reads and dry runs still work. An owner ends the freeze on the Clusters page or "
            f"with `pvemcp clusters {command}`; repeat the call then.",
        )


@dataclass(frozen=True, slots=True)
class _Current:
    """The freezes in force by the id of their cluster, and the clusters."""

    records: Mapping[int | None, FreezeRecord]
    clusters: Mapping[int, ClusterRecord]

    @classmethod
    async def read(cls, store: Store) -> Self:
        return cls(
            {record.cluster_id: record for record in await store.freezes.all()},
            {cluster.id: cluster for cluster in await store.clusters.all()},
        )

    def all(self) -> list[Freeze]:
        clusters = sorted(self.clusters.values(), key=lambda cluster: cluster.name)
        own = [_freeze(self.records[c.id], c.name) for c in clusters if c.id in self.records]
        everywhere = self.records.get(None)
        return [_freeze(everywhere, None), *own] if everywhere else own

    def of(self, cluster: str | ClusterRecord) -> Freeze | None:
        if everywhere := self.records.get(None):
            return _freeze(everywhere, None)
        if isinstance(cluster, ClusterRecord):  # by its id: it may have another name by now
            record = self.records.get(cluster.id)
            return _freeze(record, cluster.name) if record else None
        return next((freeze for freeze in self.all() if freeze.cluster == cluster), None)


class Freezes:
    """Freezes in the store; a change holds within a second in every process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._current: VersionedCache[None, _Current] = VersionedCache()
        for topic in (Topic.FREEZES, Topic.CLUSTERS):
            store.watch.on_change(topic, self._clear)

    async def all(self) -> list[Freeze]:
        """List the freezes in force, the one of all clusters first."""
        return (await self._read()).all()

    async def of(self, cluster: str | ClusterRecord) -> Freeze | None:
        """Return the freeze that holds for the cluster: that of all clusters, or its own."""
        return (await self._read()).of(cluster)

    async def refuse(self, cluster: str | ClusterRecord) -> None:
        """Raise Frozen if nothing may be written to the cluster, or if that is not known."""
        try:
            freeze = await self.of(cluster)
        except (StateUnavailable, DatabaseFailed) as error:
            raise Frozen(
                "Whether writes are frozen is not known: the server's database does not answer. "
                "This was not sent.",
                hint="Try again later.",
            ) from error
        if freeze:
            raise freeze.error

    async def start(self, name: str | None, *, reason: str, by: str) -> Freeze:
        """Freeze a cluster, or all; return the freeze in force if there is one already."""
        visible = "".join(letter for letter in " ".join(reason.split()) if letter.isprintable())
        record = await self._store.freezes.start(await self._id(name), reason=visible, by=by)
        return _freeze(record, name)

    async def end(self, name: str | None) -> Freeze:
        """End the freeze of a cluster, or that of all, and return it.

        Raise Precondition if there is none. One of the other kind stays.
        """
        record = await self._store.freezes.find(cluster_id=await self._id(name))
        if record is None or not await self._store.freezes.remove(record.id):
            fact = f"Cluster {name} has no freeze of its own." if name else "No freeze of all."
            raise Precondition(fact, hint="`pvemcp clusters freezes` lists those in force.")
        return _freeze(record, name)

    async def _id(self, name: str | None) -> int | None:
        if name is None:
            return None
        cluster = await self._store.clusters.find(name=name)
        if cluster is None:
            raise UnknownName("cluster", name, [c.name for c in await self._store.clusters.all()])
        return cluster.id

    async def _read(self) -> _Current:
        """Return the freezes as of half a second ago at most; raise StateUnavailable."""
        await self._store.watch.poll_if_due()
        version = self._current.version
        current = self._current.get(None)
        if current is None:
            current = await _Current.read(self._store)
            self._current.put(None, current, version)
        return current

    async def _clear(self) -> None:
        self._current.clear()


def _freeze(record: FreezeRecord, cluster: str | None) -> Freeze:
    return Freeze(cluster, record.since, record.by, record.reason)
