"""Repositories of clusters, of their Proxmox tokens, and of who uses which token."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import CallError, Undecryptable
from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.connection_repositories import end_tokens
from pvemcp_server.store.database import Database
from pvemcp_server.store.open_approvals import void_open
from pvemcp_server.store.records import (
    BindingRecord,
    ClusterRecord,
    FreezeRecord,
    IdentityRecord,
)
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, bump

TOPICS = (Topic.CLUSTERS, Topic.ACCESS)


class ClusterRepository(Repository[ClusterRecord]):
    """The configured clusters."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.clusters, ClusterRecord, TOPICS)

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> ClusterRecord | None:
        """Update a cluster; write a new name also into the keys and roles that list the old one.

        Its open approvals become void: they may have been for other hosts.
        """
        before = await self.find_in(connection, id=key)
        after = await super().change_in(connection, key, **values)
        if before:
            await void_open(connection, records.approvals.c.cluster == before.name)
        if before and after and before.name != after.name:
            await _rename_in_keys(connection, before.name, after.name)
            await _rename_in_roles(connection, before.name, after.name)
        return after

    async def remove_in(self, connection: AsyncConnection, key: int | str) -> bool:
        """Delete a cluster with its identities; end the tokens of connections that had one."""
        await self._bump(connection)
        await _end_tokens(connection, records.identities.c.cluster_id == key)
        return await super().remove_in(connection, key)


async def _rename_in_keys(connection: AsyncConnection, old: str, new: str) -> None:
    table = records.keys
    for key_id, clusters in (await connection.execute(select(table.c.id, table.c.clusters))).all():
        if old in clusters:
            renamed = _renamed(clusters, old, new)
            await connection.execute(
                table.update().where(table.c.id == key_id).values(clusters=renamed)
            )


async def _rename_in_roles(connection: AsyncConnection, old: str, new: str) -> None:
    table = records.roles
    for role_id, grants in (await connection.execute(select(table.c.id, table.c.grants))).all():
        renamed = [{**grant, "clusters": _renamed(grant["clusters"], old, new)} for grant in grants]
        if renamed != grants:
            await connection.execute(
                table.update().where(table.c.id == role_id).values(grants=renamed)
            )


def _renamed(names: Sequence[str], old: str, new: str) -> list[str]:
    return sorted({new if name == old else name for name in names})


class FreezeRepository(Repository[FreezeRecord]):
    """Freezes: one at most for each cluster, and one for all of them."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.freezes, FreezeRecord, (Topic.FREEZES,))

    async def start(self, cluster_id: int | None, *, reason: str, by: str) -> FreezeRecord:
        """Freeze the cluster, or all; return the freeze in force if there is one."""
        async with self.database.writing() as connection:
            await self._bump(connection)  # a lock: concurrent freezes wait for each other here
            return await self.find_in(connection, cluster_id=cluster_id) or await self.add_in(
                connection, cluster_id=cluster_id, reason=reason, by=by, since=utc_now()
            )


class IdentityRepository(Repository[IdentityRecord]):
    """Proxmox API tokens; their secrets are encrypted and only `secret` returns one.

    What removes one ends the tokens of its connection, if it has one: they were for this account.
    A secret is bound to the `destination` of its cluster when it is stored. Hosts or certificates
    that are changed later, by whatever means, do not get it: `secret` raises.
    """

    def __init__(self, database: Database, vault: Vault) -> None:
        super().__init__(database, records.identities, IdentityRecord, TOPICS)
        self._vault = vault

    async def add_in(self, connection: AsyncConnection, **values: Any) -> IdentityRecord:
        """Insert a token; the first one of a cluster becomes its default, if it is no person's."""
        values = {"connection_id": None, **values}
        secret, is_own = values.pop("secret"), values["connection_id"] is not None
        others = {"cluster_id": values["cluster_id"], "connection_id": None}
        first = not is_own and await self.find_in(connection, **others) is None
        rest = {"secret": b"", "is_default": first, "created": utc_now()}
        added = await super().add_in(connection, **values, **rest)
        # the encryption is bound to the row's id, which exists only after the insert
        await self.change_in(connection, added.id, secret=secret)
        return added

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> IdentityRecord | None:
        """Update a token; encrypt `secret` when it is among the values.

        It is bound to the cluster's hosts and certificates as they are in this transaction.
        """
        if "secret" in values:
            clusters = select(records.clusters).join(self.table).where(self.table.c.id == key)
            row = (await connection.execute(clusters)).mappings().first()
            if row is None:  # removed by another process
                return None
            bound = ClusterRecord(**row).destination
            encrypted = self._vault.encrypt(
                values["secret"], self.table.name, key, "secret", bound=bound
            )
            values = {**values, "secret": encrypted}
        return await super().change_in(connection, key, **values)

    async def remove_in(self, connection: AsyncConnection, key: int | str) -> bool:
        """Delete a token; return whether it existed."""
        await self._bump(connection)
        await _end_tokens(connection, self.table.c.id == key)
        return await super().remove_in(connection, key)

    async def remove_of_users(self, connection: AsyncConnection, cluster_id: int) -> None:
        """Delete the tokens of users who connect, in the transaction of the caller."""
        await bump(connection, *TOPICS)
        table = self.table
        theirs = (table.c.cluster_id == cluster_id) & table.c.connection_id.is_not(None)
        await _end_tokens(connection, theirs)
        await connection.execute(table.delete().where(theirs))

    async def secret_digests(self) -> dict[int, bytes]:
        """Return a SHA-256 of each encrypted secret by the id of its identity.

        Each encryption has a nonce of its own, so a secret that is stored again has another digest.
        """
        table = records.identities
        async with self.database.reading() as connection:
            rows = (await connection.execute(select(table.c.id, table.c.secret))).all()
        return {row.id: sha256(row.secret).digest() for row in rows}

    async def secret(self, identity: IdentityRecord, cluster: ClusterRecord) -> str | None:
        """Return the token's secret in plain text, to send it to this cluster.

        `cluster` is the record with the hosts that are connected to, so that nothing can be
        changed between the check and the connection. Return None when the identity does not
        exist; raise CallError when its secret was given for other hosts or certificates.
        """
        table = records.identities
        async with self.database.reading() as connection:
            encrypted = await connection.scalar(
                select(table.c.secret).where(table.c.id == identity.id)
            )
        if encrypted is None:
            return None
        place = (table.name, identity.id, "secret")
        try:
            return await self._vault.decrypt(encrypted, *place, bound=cluster.destination)
        except Undecryptable as error:
            raise CallError(
                f"The secret of {identity.token_id} was not given for the present hosts and"
                f" certificates of cluster {cluster.name}, so it is not sent to them.",
                hint="An administrator compares them, and renews the token under Clusters.",
            ) from error

    async def make_default(self, identity: IdentityRecord) -> None:
        """Make this the token of every caller without a binding on the cluster."""
        table = records.identities
        async with self.database.writing() as connection:
            await bump(connection, *TOPICS)
            await connection.execute(
                update(table)
                .where(table.c.cluster_id == identity.cluster_id)
                .values(is_default=table.c.id == identity.id)
            )


async def _end_tokens(connection: AsyncConnection, removed: ColumnElement[bool]) -> None:
    """End the tokens of the connections whose identities are about to be removed."""
    held = select(records.identities.c.connection_id).where(removed)
    ids = {each for each in await connection.scalars(held) if each is not None}
    if ids:
        await end_tokens(connection, ids)


class BindingRepository(Repository[BindingRecord]):
    """Bindings of keys and roles to identities."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.bindings, BindingRecord, (Topic.ACCESS,))

    async def of_caller(self, key_id: str, role_id: int | None) -> dict[str, int]:
        """Return a key's identity ids by cluster name; its own bindings override its role's.

        Without `role_id`, only its own ones.
        """
        table, clusters = records.bindings, records.clusters
        holder = table.c.key_id == key_id
        if role_id is not None:
            holder |= table.c.role_id == role_id
        query = (
            select(clusters.c.name, table.c.identity_id, table.c.key_id)
            .join(clusters, clusters.c.id == table.c.cluster_id)
            .where(holder)
        )
        async with self.database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return {row.name: row.identity_id for row in sorted(rows, key=lambda row: bool(row.key_id))}

    async def bind(
        self, identity: IdentityRecord, *, key_id: str | None = None, role_id: int | None = None
    ) -> None:
        """Bind a key or a role to the identity, replacing its binding on that cluster."""
        table = records.bindings
        holder = table.c.key_id == key_id if key_id else table.c.role_id == role_id
        async with self.database.writing() as connection:
            await bump(connection, Topic.ACCESS)
            await connection.execute(
                table.delete().where((table.c.cluster_id == identity.cluster_id) & holder)
            )
            await self.add_in(
                connection,
                cluster_id=identity.cluster_id,
                identity_id=identity.id,
                key_id=key_id,
                role_id=role_id,
            )
