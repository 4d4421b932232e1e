"""Connections to the configured clusters: a client and an inventory for each identity.

The identities of a cluster share its sockets and limits, because a Proxmox node has three workers
for all of them.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Final, Self
from weakref import WeakSet

import anyio

from proxmox_client import (
    ApiToken,
    BackupServer,
    Client,
    Exchange,
    Limits,
    SocketBudget,
    Ticket,
    Tls,
)
from pvemcp_server.access.freezes import Freezes
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters.checks import CLIENTS
from pvemcp_server.clusters.cluster import Cluster, Notes
from pvemcp_server.clusters.inventory import Inventory
from pvemcp_server.clusters.shared_inventory import RowPool, SharedInventory
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.open_files import file_limit, shares
from pvemcp_server.store.background import ticks
from pvemcp_server.store.history_repository import History
from pvemcp_server.store.records import ClusterKind, ClusterRecord, IdentityRecord, TlsMode
from pvemcp_server.store.store import Store
from pvemcp_server.store.watch import Topic, VersionedCache

OWN_FRESHNESS: Final = 1.0  # seconds: who is disabled in Proxmox is refused at the next call
OWN_IDLE_SECONDS: Final = 60.0  # without a call, then the inventory of a user is forgotten
SWEEP_SECONDS: Final = 30.0


@dataclass(eq=False)
class Connection:
    """An open client and its inventory; the inventory is not shared with other identities.

    The sockets belong to the cluster's client, whose accounts share them.
    """

    record: ClusterRecord
    identity: IdentityRecord
    secret_digest: bytes
    client: Client | BackupServer
    inventory: Inventory
    used: float = field(default_factory=monotonic)  # by the last call, on the monotonic clock

    @property
    def is_own(self) -> bool:
        """Whether it has the token of a user who has connected, and so only their calls."""
        return self.identity.connection_id is not None


@dataclass(frozen=True)
class Configured:
    """The configuration in the store: clusters by name, and identities by cluster id and id.

    The default identity of a cluster has a second entry, under None. `secrets` has a digest of
    each identity's secret by its id.
    """

    clusters: Mapping[str, ClusterRecord]
    identities: Mapping[int, Mapping[int | None, IdentityRecord]]
    secrets: Mapping[int, bytes]

    @classmethod
    async def read(cls, store: Store) -> Self:
        """Read the configuration from the store."""
        # the digests before the secrets are read: one that is newer only costs another opening
        secrets = await store.identities.secret_digests()
        identities: dict[int, dict[int | None, IdentityRecord]] = {}
        for identity in await store.identities.all():
            of_cluster = identities.setdefault(identity.cluster_id, {})
            of_cluster[identity.id] = identity
            if identity.is_default:
                of_cluster[None] = identity
        records = sorted(await store.clusters.all(), key=lambda record: record.name)
        return cls({record.name: record for record in records}, identities, secrets)

    def has(self, record: ClusterRecord) -> bool:
        """Return whether the cluster is configured exactly so."""
        return self.clusters.get(record.name) == record

    def has_connection(self, connection: Connection) -> bool:
        """Return whether cluster, identity and secret are those of the connection."""
        identity = connection.identity
        return (
            self.has(connection.record)
            and self.identities.get(identity.cluster_id, {}).get(identity.id) == identity
            and self.secrets.get(identity.id) == connection.secret_digest
        )


class Clusters:
    """Opens clusters for callers, and keeps clients and inventories between calls.

    After a change of the configuration only what has changed is opened again: the client of a
    cluster is kept while its record is the same, and the connection of an identity while also
    its record and its secret are. Anything else is forgotten. Calls in progress finish on it; a
    retired client keeps no socket open after a request, so nothing is left to be closed later.
    """

    def __init__(
        self,
        store: Store,
        freshness: Callable[[], float],
        limits: Limits | None = None,
        sockets: SocketBudget | None = None,
    ) -> None:
        self._store = store
        self._freshness = freshness
        self._limits = limits or Limits()
        self.sockets = sockets or SocketBudget(shares(file_limit()).to_clusters)
        self.freezes = Freezes(store)
        self._configured: VersionedCache[None, Configured] = VersionedCache()
        self._clients: dict[int, tuple[ClusterRecord, Client | BackupServer]] = {}  # by cluster id
        self._open: dict[tuple[int, int], Connection] = {}  # by ids of cluster and identity
        self._pools: dict[int, RowPool] = {}  # by cluster id
        self._opening = asyncio.Lock()
        self._retired: WeakSet[Client | BackupServer | Inventory] = WeakSet()  # calls may use them
        self.observe: Callable[[str, Exchange], None] | None = None  # for clients opened later
        self.new_context: Callable[[], Context] = Context  # of a refresh of an inventory
        # by the name of the cluster: a connection that is opened again goes on counting
        self.inventory_reads: defaultdict[str, Counter[str]] = defaultdict(Counter)
        store.watch.on_change(Topic.CLUSTERS, self._changed)
        store.watch.on_change(Topic.WRITES, self._others_wrote)

    @property
    def clients(self) -> Mapping[str, Client | BackupServer]:
        """The clients of the clusters that were asked, by name."""
        return {record.name: client for record, client in self._clients.values()}

    @property
    def failing(self) -> Mapping[str, bool]:
        """Whether the last attempt to read the inventory failed, by cluster.

        Only for clusters that were asked; of several identities, one that gets an answer counts.
        """
        failing: dict[str, bool] = {}
        for connection in self._open.values():
            name, inventory = connection.record.name, connection.inventory
            if inventory.failure or inventory.latest:
                failing[name] = inventory.failure is not None and failing.get(name, True)
        return failing

    async def aclose(self) -> None:
        """Close every connection, also the replaced ones."""
        for connection in self._open.values():
            await connection.inventory.aclose()
        for _, client in self._clients.values():
            await client.aclose()
        for each in list(self._retired):
            await each.aclose()

    async def run_housekeeping(self, stop: anyio.Event) -> None:
        """Forget users' connections that no call has used for a minute, until stopped."""
        async for _ in ticks(stop, SWEEP_SECONDS):
            self.forget_idle()

    def forget_idle(self) -> None:
        """Forget the connections of users that no call has used for OWN_IDLE_SECONDS, and old
        configurations.

        A call that still runs keeps what it has; the next one opens the connection again.
        """
        oldest = monotonic() - OWN_IDLE_SECONDS
        for key, connection in list(self._open.items()):
            inventory = connection.inventory
            inventory.configs.drop_expired(inventory.written)
            if connection.is_own and connection.used < oldest:
                self._forget(key)
        with_pool = {key[0] for key, each in self._open.items() if each.inventory.pool}
        self._pools = {key: pool for key, pool in self._pools.items() if key in with_pool}

    async def _changed(self) -> None:
        """Forget what a change has replaced; without clients, the next call reads the change."""
        self._configured.clear()
        if self._clients:
            await self._read()

    async def kinds(self) -> dict[str, ClusterKind]:
        """Return the kinds of the configured clusters by name, sorted by name."""
        clusters = (await self._configuration()).clusters
        return {name: record.kind for name, record in clusters.items()}

    async def open(
        self, name: str, identities: Mapping[str, int], scope: Resources, notes: Notes
    ) -> Cluster:
        """Open the cluster, restricted to `scope`, with a caller's identity there."""
        connection = await self.connection(name, identities.get(name))
        return Cluster(
            name=connection.record.name,
            description=connection.record.description,
            client=connection.client,
            account=connection.identity.token_id,
            inventory=connection.inventory,
            scope=scope,
            notes=notes,
            protected=connection.record.protected,
            read_freeze=partial(self.freezes.of, connection.record),
            tls=connection.record.tls_mode.value,
            history=History(self._store.history, connection.identity),
            on_write=partial(self._wrote, connection.record.id),
        )

    def _wrote(self, cluster_id: int) -> None:
        """Mark the inventories of a cluster as outdated after a write, in all processes."""
        self._invalidate({cluster_id})
        self._store.cluster_writes.note(cluster_id)

    async def _others_wrote(self) -> None:
        self._invalidate(await self._store.cluster_writes.others())

    def _invalidate(self, cluster_ids: AbstractSet[int]) -> None:
        for (cluster_id, _), connection in self._open.items():
            if cluster_id in cluster_ids:
                connection.inventory.invalidate()

    async def connection(self, name: str, identity_id: int | None = None) -> Connection:
        """Return the connection of that cluster and identity; open it when needed.

        The identity is the default one when None; one that was removed never becomes the default
        one, which may have more privileges. Raise UnknownName or CallError when there is none.
        """
        while True:
            configured = await self._configuration()
            record = configured.clusters.get(name)
            if record is None:
                raise UnknownName("cluster", name, configured.clusters)
            identity = configured.identities.get(record.id, {}).get(identity_id)
            if identity is None:
                raise _no_token(name)
            async with self._opening:
                connection = self._open.get((record.id, identity.id))
                secret = None
                if connection is None:
                    secret = await self._store.identities.secret(identity, record)
                if self._configured.get(None) is not configured:
                    continue  # it has changed: the connection may not be opened with the old values
                if connection is None:
                    connection = self._connect(configured, record, identity, secret)
                connection.used = monotonic()
                return connection

    async def for_user(
        self, name: str, ticket: Ticket | None = None
    ) -> tuple[ClusterRecord, Client]:
        """Return a client of a Proxmox VE cluster for a user: to sign in, or with their ticket.

        It shares the sockets and limits of the cluster's other clients, and belongs to the record.
        Raise UnknownName for any other cluster.
        """
        connection = await self.connection(name)
        if not isinstance(connection.client, Client):
            raise UnknownName("cluster", name, [])
        return connection.record, connection.client.signed_in_as(ticket)

    async def _configuration(self) -> Configured:
        await self._store.watch.poll_if_due()
        return self._configured.get(None) or await self._read()

    async def _read(self) -> Configured:
        """Return the configuration; when it is read again, forget what it has not."""
        while (configured := self._configured.get(None)) is None:
            version = self._configured.version
            fresh = await Configured.read(self._store)
            if self._configured.put(None, fresh, version):
                self._retire_changed(fresh)
        return configured

    def _retire_changed(self, configured: Configured) -> None:
        for key, connection in list(self._open.items()):
            if not configured.has_connection(connection):
                self._forget(key)
        for cluster_id, (record, client) in list(self._clients.items()):
            if not configured.has(record):
                del self._clients[cluster_id]
                client.retire()
                self._retired.add(client)
        for name in self.inventory_reads.keys() - configured.clusters.keys():
            del self.inventory_reads[name]

    def _forget(self, key: tuple[int, int]) -> None:
        self._retired.add(self._open.pop(key).inventory)

    def _connect(
        self,
        configured: Configured,
        record: ClusterRecord,
        identity: IdentityRecord,
        secret: str | None,
    ) -> Connection:
        """Open a client; identities of one cluster share sockets and limits, but no data."""
        if secret is None:  # it was removed since the configuration was read
            raise _no_token(record.name)
        client = self._client_of(record).signed_in_as(ApiToken(identity.token_id, secret))
        is_own = identity.connection_id is not None
        freshness = self._own_freshness if is_own else self._freshness
        connection = Connection(
            record,
            identity,
            configured.secrets.get(identity.id, b""),
            client,
            Inventory(
                client,
                freshness,
                reads=self.inventory_reads[record.name],
                new_context=self.new_context,
                pool=None if identity.is_default else self._pools.setdefault(record.id, RowPool()),
                fleet=self._shared_inventory(record, identity, configured),
            ),
        )
        self._open[record.id, identity.id] = connection
        return connection

    def _shared_inventory(
        self, record: ClusterRecord, identity: IdentityRecord, configured: Configured
    ) -> SharedInventory | None:
        if (shared := self._store.shared_inventories) is None:
            return None
        secret_digest = configured.secrets.get(identity.id, b"")
        return SharedInventory.of(shared, record, identity, secret_digest)

    def _client_of(self, record: ClusterRecord) -> Client | BackupServer:
        """Return the client of the cluster, without an account."""
        if record.id not in self._clients:
            client = CLIENTS[record.kind](
                record.hosts,
                tls=tls_of(record),
                limits=self._limits,
                name=record.name,
                before_write=partial(self.freezes.refuse, record),
                sockets=self.sockets,
                observe=partial(self.observe, record.name) if self.observe else None,
            )
            self._clients[record.id] = record, client
        return self._clients[record.id][1]

    def _own_freshness(self) -> float:
        return min(self._freshness(), OWN_FRESHNESS)


def _no_token(cluster: str) -> CallError:
    return CallError(
        f"Cluster {cluster} has no Proxmox token for this key.",
        hint="An administrator adds one under Clusters.",
    )


def tls_of(record: ClusterRecord) -> Tls:
    """Return how the client verifies the certificates of this cluster."""
    match record.tls_mode:
        case TlsMode.CA:
            return Tls(ca_pem=record.ca_pem)
        case TlsMode.PINNED:
            return Tls(fingerprints=frozenset(record.fingerprints))
        case TlsMode.INSECURE:
            return Tls(insecure=True)
        case TlsMode.SYSTEM:
            return Tls()
