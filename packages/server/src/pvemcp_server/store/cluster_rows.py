"""Clusters and the Proxmox tokens we hold for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import schema
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import BindingRecord, ClusterRecord, IdentityRecord, TlsMode
from pvemcp_server.store.rows import Rows
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, bump

TOPICS = (Topic.CLUSTERS, Topic.ACCESS)


class ClusterRows(Rows[ClusterRecord]):
    """The configured clusters."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.clusters, ClusterRecord, TOPICS)

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> ClusterRecord | None:
        """A new name is carried over to where keys and roles name the cluster."""
        before = await self.find_in(connection, id=key)
        after = await super().change_in(connection, key, **values)
        if before and after and before.name != after.name:
            await _rename_in_keys(connection, before.name, after.name)
            await _rename_in_roles(connection, before.name, after.name)
        return after

    def _read(self, row: Mapping[Any, Any]) -> ClusterRecord:
        return super()._read({**row, "tls_mode": TlsMode(row["tls_mode"])})


async def _rename_in_keys(connection: AsyncConnection, old: str, new: str) -> None:
    table = schema.keys
    for key_id, clusters in (await connection.execute(select(table.c.id, table.c.clusters))).all():
        if old in clusters:
            renamed = _renamed(clusters, old, new)
            await connection.execute(
                table.update().where(table.c.id == key_id).values(clusters=renamed)
            )


async def _rename_in_roles(connection: AsyncConnection, old: str, new: str) -> None:
    table = schema.roles
    for role_id, grants in (await connection.execute(select(table.c.id, table.c.grants))).all():
        renamed = [{**one, "clusters": _renamed(one["clusters"], old, new)} for one in grants]
        if renamed != grants:
            await connection.execute(
                table.update().where(table.c.id == role_id).values(grants=renamed)
            )


def _renamed(names: Sequence[str], old: str, new: str) -> list[str]:
    return sorted({new if name == old else name for name in names})


class IdentityRows(Rows[IdentityRecord]):
    """Proxmox API tokens; their secrets are sealed and leave only by `secret`."""

    def __init__(self, database: Database, vault: Vault) -> None:
        super().__init__(database, schema.identities, IdentityRecord, TOPICS)
        self._vault = vault

    async def add_in(self, connection: AsyncConnection, **values: Any) -> IdentityRecord:
        """Adds a token; the first of a cluster becomes its default."""
        secret = values.pop("secret")
        first = await self.find_in(connection, cluster_id=values["cluster_id"]) is None
        rest = {"secret": b"", "is_default": first, "created": utc_now()}
        added = await super().add_in(connection, **values, **rest)
        # sealed under its row's number, which only the insert has given
        await self.change_in(connection, added.id, secret=secret)
        return added

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> IdentityRecord | None:
        if "secret" in values:
            sealed = self._vault.seal(values["secret"], self.table.name, key, "secret")
            values = {**values, "secret": sealed}
        return await super().change_in(connection, key, **values)

    async def secret(self, identity_id: int) -> str | None:
        """The token's secret in plain text; None when there is no such identity."""
        table = schema.identities
        async with self.database.reading() as connection:
            sealed = await connection.scalar(
                select(table.c.secret).where(table.c.id == identity_id)
            )
        if sealed is None:
            return None
        return await self._vault.open_sealed(sealed, table.name, identity_id, "secret")

    async def make_default(self, identity: IdentityRecord) -> None:
        """Makes this the token for everyone who is not bound to another one."""
        table = schema.identities
        async with self.database.writing() as connection:
            await bump(connection, *TOPICS)
            await connection.execute(
                update(table)
                .where(table.c.cluster_id == identity.cluster_id)
                .values(is_default=table.c.id == identity.id)
            )


class BindingRows(Rows[BindingRecord]):
    """Which key or role asks a cluster with which token instead of the default one."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.bindings, BindingRecord, (Topic.ACCESS,))

    async def of_caller(self, key_id: str, role_id: int) -> dict[str, int]:
        """The identities of a key by cluster name; its own bindings win over its role's."""
        table, clusters = schema.bindings, schema.clusters
        query = (
            select(clusters.c.name, table.c.identity_id, table.c.key_id)
            .join(clusters, clusters.c.id == table.c.cluster_id)
            .where((table.c.key_id == key_id) | (table.c.role_id == role_id))
        )
        async with self.database.reading() as connection:
            rows = (await connection.execute(query)).all()
        return {row.name: row.identity_id for row in sorted(rows, key=lambda row: bool(row.key_id))}

    async def bind(
        self, identity: IdentityRecord, *, key_id: str | None = None, role_id: int | None = None
    ) -> None:
        """Binds a key or a role to the identity, replacing what it had on that cluster."""
        table = schema.bindings
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
