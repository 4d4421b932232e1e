"""All configured clusters: one client and one inventory per cluster and Proxmox identity.

The accounts of a cluster share its sockets and limits: a node has three workers, whoever asks.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from proxmox_client import ApiToken, Client, Limits, Tls
from pvemcp_server.access.model import Caller, Resources
from pvemcp_server.clusters.cluster import Cluster
from pvemcp_server.clusters.inventory import Inventory
from pvemcp_server.clusters.notes import Notes
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.store.records import ClusterRecord, IdentityRecord, TlsMode
from pvemcp_server.store.store import Store
from pvemcp_server.store.watch import Topic

LONGEST_CALL: Final = 3600  # seconds: what settings allow a call, waiting for its task included


@dataclass(frozen=True)
class Connection:
    """An open client and what it has read; nothing of it is shared with other identities."""

    record: ClusterRecord
    identity: IdentityRecord
    pve: Client
    inventory: Inventory

    async def aclose(self) -> None:
        """Stop asking, then close every socket."""
        await self.inventory.aclose()
        await self.pve.aclose()


@dataclass
class Configured:
    """What the store says: clusters by name, and the identities of each."""

    clusters: Mapping[str, ClusterRecord] = field(default_factory=dict)
    identities: Mapping[int, Mapping[int, IdentityRecord]] = field(default_factory=dict)

    @classmethod
    async def read(cls, store: Store) -> Self:
        identities: dict[int, dict[int, IdentityRecord]] = {}
        for one in await store.identities.all():
            identities.setdefault(one.cluster_id, {})[one.id] = one
        records = sorted(await store.clusters.all(), key=lambda record: record.name)
        return cls({record.name: record for record in records}, identities)

    def cluster(self, name: str) -> ClusterRecord:
        if name not in self.clusters:
            raise UnknownName("cluster", name, self.clusters)
        return self.clusters[name]

    def identity(self, record: ClusterRecord, bound: int | None) -> IdentityRecord:
        """The identity a caller is bound to; the default one when it is bound to none.

        A binding whose identity is gone is refused: it never falls back to another account.
        """
        known = self.identities.get(record.id, {})
        if bound is not None and bound in known:
            return known[bound]
        default = next((one for one in known.values() if one.is_default), None)
        if bound is not None or default is None:
            raise CallError(
                f"Cluster {record.name} has no Proxmox token for this key.",
                hint="An administrator adds one under Clusters.",
            )
        return default


class Clusters:
    """Opens clusters for callers and keeps what is open between calls."""

    def __init__(
        self, store: Store, freshness: Callable[[], float], limits: Limits | None = None
    ) -> None:
        self._store = store
        self._freshness = freshness
        self._limits = limits or Limits()
        self._configured: Configured | None = None
        self._changes = 0  # what was read before a change, and is ready after it, is not kept
        self._open: dict[tuple[int, int], Connection] = {}
        self._opening = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Connection] = {}
        store.watch.on_change(Topic.CLUSTERS, self.forget)

    async def aclose(self) -> None:
        """Close every client, also those that a change has replaced."""
        retiring = dict(self._retiring)
        for waiting in retiring:
            waiting.cancel()
        for connection in (*self._open.values(), *retiring.values()):
            await connection.aclose()

    async def forget(self) -> None:
        """Something was reconfigured: read again and open anew; calls under way finish first."""
        self._changes += 1
        self._configured = None
        for connection in self._open.values():
            self._retire(connection)
        self._open = {}

    async def names(self) -> list[str]:
        """The configured clusters, in order of their names."""
        return list((await self._known()).clusters)

    async def record(self, name: str) -> ClusterRecord:
        return (await self._known()).cluster(name)

    async def open(self, name: str, caller: Caller, scope: Resources, notes: Notes) -> Cluster:
        """The cluster as this caller reaches it: with its identity, and no more than `scope`."""
        connection = await self.connection(name, caller.identities.get(name))
        return Cluster(
            name=name,
            description=connection.record.description,
            pve=connection.pve,
            account=connection.identity.token_id,
            inventory=connection.inventory,
            scope=scope,
            notes=notes,
            protected=connection.record.protected,
            tls=connection.record.tls_mode.value,
        )

    async def connection(self, name: str, identity_id: int | None = None) -> Connection:
        """The open client of that cluster and identity; the default identity when None."""
        configured = await self._known()
        changes = self._changes
        record = configured.cluster(name)
        identity = configured.identity(record, identity_id)
        key = (record.id, identity.id)
        async with self._opening:
            if key in self._open:
                return self._open[key]
            connection = await self._connect(record, identity)
            if changes == self._changes:
                self._open[key] = connection
            else:
                self._retire(connection)
        return connection

    def _retire(self, connection: Connection) -> None:
        """Closed when the calls that may still use it are over."""
        waiting = asyncio.create_task(_close_later(connection), name="replaced connection")
        self._retiring[waiting] = connection
        waiting.add_done_callback(self._retiring.pop)

    async def _known(self) -> Configured:
        await self._store.watch.fresh()
        while self._configured is None:
            changes = self._changes
            configured = await Configured.read(self._store)
            if changes == self._changes:
                self._configured = configured
        return self._configured

    async def _connect(self, record: ClusterRecord, identity: IdentityRecord) -> Connection:
        """Another account of an open cluster shares its sockets and its limits, nothing it read."""
        secret = await self._store.identities.secret(identity.id)
        token = ApiToken(identity.token_id, secret or "")
        same = next((one for one in self._open.values() if one.record.id == record.id), None)
        pve = same.pve.signed_in_as(token) if same else self._client(record, token)
        return Connection(record, identity, pve, Inventory(pve, self._freshness))

    def _client(self, record: ClusterRecord, token: ApiToken) -> Client:
        tls = tls_of(record)
        return Client(record.hosts, token, tls=tls, limits=self._limits, name=record.name)


async def _close_later(connection: Connection) -> None:
    await asyncio.sleep(LONGEST_CALL)
    await connection.aclose()


def tls_of(record: ClusterRecord) -> Tls:
    """How the client judges this cluster's certificates."""
    match record.tls_mode:
        case TlsMode.CA:
            return Tls(ca_pem=record.ca_pem)
        case TlsMode.PINNED:
            return Tls(fingerprints=frozenset(record.fingerprints))
        case TlsMode.INSECURE:
            return Tls(insecure=True)
        case TlsMode.SYSTEM:
            return Tls()
