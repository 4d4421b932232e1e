"""Connections to the configured clusters: a client and an inventory for each identity.

The identities of a cluster share its sockets and limits, because a Proxmox node has three workers
for all of them.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Self

from proxmox_client import ApiToken, BackupServer, Client, Limits, Ticket, Tls
from pvemcp_server.access.freezes import Freezes
from pvemcp_server.access.model import Resources
from pvemcp_server.clusters.checks import CLIENTS
from pvemcp_server.clusters.cluster import Cluster, Notes
from pvemcp_server.clusters.inventory import Inventory
from pvemcp_server.errors import CallError, UnknownName
from pvemcp_server.store.history_repository import History
from pvemcp_server.store.records import ClusterKind, ClusterRecord, IdentityRecord, TlsMode
from pvemcp_server.store.store import Store
from pvemcp_server.store.watch import Topic, VersionedCache

OWN_FRESHNESS: Final = 1.0  # seconds: who is disabled in Proxmox is refused at the next call
LONGEST_CALL: Final = 3600  # seconds, the maximum of the settings, with the wait for a task


@dataclass(frozen=True)
class Connection:
    """An open client and its inventory; the inventory is not shared with other identities."""

    record: ClusterRecord
    identity: IdentityRecord
    client: Client | BackupServer
    inventory: Inventory

    async def aclose(self) -> None:
        """Stop the refresh of the inventory, then close every socket."""
        await self.inventory.aclose()
        await self.client.aclose()


@dataclass(frozen=True)
class Configured:
    """The configuration in the store: clusters by name, and identities by cluster id and id.

    The default identity of a cluster has a second entry, under None.
    """

    clusters: Mapping[str, ClusterRecord]
    identities: Mapping[int, Mapping[int | None, IdentityRecord]]

    @classmethod
    async def read(cls, store: Store) -> Self:
        """Read the configuration from the store."""
        identities: dict[int, dict[int | None, IdentityRecord]] = {}
        for identity in await store.identities.all():
            of_cluster = identities.setdefault(identity.cluster_id, {})
            of_cluster[identity.id] = identity
            if identity.is_default:
                of_cluster[None] = identity
        records = sorted(await store.clusters.all(), key=lambda record: record.name)
        return cls({record.name: record for record in records}, identities)


class Clusters:
    """Opens clusters for callers, and keeps the connections open between calls.

    After a change of the configuration everything is read and opened again. Calls in progress
    finish on the replaced connections, which are closed once no call can use them any more.
    """

    def __init__(
        self, store: Store, freshness: Callable[[], float], limits: Limits | None = None
    ) -> None:
        self._store = store
        self._freshness = freshness
        self._limits = limits or Limits()
        self.freezes = Freezes(store)
        self._configured: VersionedCache[None, Configured] = VersionedCache()
        self._open: VersionedCache[tuple[int, int], Connection] = VersionedCache()
        self._opening = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Connection] = {}
        store.watch.on_change(Topic.CLUSTERS, self.forget)

    async def aclose(self) -> None:
        """Close every connection, also the replaced ones."""
        retiring = dict(self._retiring)
        for task in retiring:
            task.cancel()
        for connection in (*self._open.values(), *retiring.values()):
            await connection.aclose()

    async def forget(self) -> None:
        """Discard configuration and connections after a change."""
        self._configured.clear()
        for connection in self._open.clear():
            self._retire(connection)

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
        )

    async def connection(self, name: str, identity_id: int | None = None) -> Connection:
        """Return the connection of that cluster and identity; open it when needed.

        The identity is the default one when None; one that was removed never becomes the default
        one, which may have more privileges. Raise UnknownName or CallError when there is none.
        """
        configured = await self._configuration()
        version = self._open.version  # that of the configuration: nothing was awaited since
        record = configured.clusters.get(name)
        if record is None:
            raise UnknownName("cluster", name, configured.clusters)
        identity = configured.identities.get(record.id, {}).get(identity_id)
        if identity is None:
            raise _no_token(name)
        key = (record.id, identity.id)
        async with self._opening:
            connection = self._open.get(key)
            if connection is None:
                connection = await self._connect(record, identity)
                if not self._open.put(key, connection, version):
                    self._retire(connection)
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

    def _retire(self, connection: Connection) -> None:
        """Close the connection after the calls that may still use it."""
        task = asyncio.create_task(_close_later(connection), name="replaced connection")
        self._retiring[task] = connection
        task.add_done_callback(self._retiring.pop)

    async def _configuration(self) -> Configured:
        await self._store.watch.poll_if_due()
        while (configured := self._configured.get(None)) is None:
            version = self._configured.version
            self._configured.put(None, await Configured.read(self._store), version)
        return configured

    async def _connect(self, record: ClusterRecord, identity: IdentityRecord) -> Connection:
        """Open a client; identities of one cluster share sockets and limits, but no data."""
        secret = await self._store.identities.secret(identity, record)
        if secret is None:  # it was removed since the configuration was read
            raise _no_token(record.name)
        token = ApiToken(identity.token_id, secret)
        for other in self._open.values():
            if other.record.id == record.id:
                client = other.client.signed_in_as(token)
                break
        else:
            tls, limits = tls_of(record), self._limits
            open_client = CLIENTS[record.kind]
            client = open_client(
                record.hosts,
                token,
                tls=tls,
                limits=limits,
                name=record.name,
                before_write=partial(self.freezes.refuse, record),
            )
        freshness = self._own_freshness if identity.connection_id else self._freshness
        return Connection(record, identity, client, Inventory(client, freshness))

    def _own_freshness(self) -> float:
        return min(self._freshness(), OWN_FRESHNESS)


def _no_token(cluster: str) -> CallError:
    return CallError(
        f"Cluster {cluster} has no Proxmox token for this key.",
        hint="An administrator adds one under Clusters.",
    )


async def _close_later(connection: Connection) -> None:
    await asyncio.sleep(LONGEST_CALL)
    await connection.aclose()


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
