"""Repositories of connections: clients, what people consented to, their tokens and sign-ins."""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import (
    ConnectionRecord,
    ConsentRecord,
    OAuthClientRecord,
    PersonSession,
    TokenKind,
    TokenRecord,
)
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, bump


def of_holder(key_id: ColumnElement[str], holder: str) -> ColumnElement[bool]:
    """Return the condition that a row is of this key, or of any connection of this user."""
    table = records.connections
    return (key_id == holder) | key_id.in_(select(table.c.id).where(table.c.subject == holder))


class OAuthClientRepository(Repository[OAuthClientRecord]):
    """Clients that people connect with."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.oauth_clients, OAuthClientRecord)

    async def remove_unused(self, now: datetime) -> None:
        """Delete clients that have expired and that no connection names."""
        used = select(records.connections.c.client_id)
        unused = (self.table.c.expires <= now) & self.table.c.id.not_in(used)
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(unused))

    async def make_room(self, most: int) -> None:
        """Delete the oldest clients without a connection, all but `most` of them."""
        table = self.table
        unused = table.c.id.not_in(select(records.connections.c.client_id))
        newest = select(table.c.id).where(unused).order_by(table.c.created.desc(), table.c.id)
        rest = unused & table.c.id.not_in(newest.limit(most))
        async with self.database.writing() as connection:
            await connection.execute(table.delete().where(rest))

    async def put(self, client_id: str, **values: Any) -> OAuthClientRecord:
        """Insert or replace a client; another process may insert it at the same time."""
        dialect = sqlite if self.database.is_sqlite else postgresql
        new = dialect.insert(self.table).values(id=client_id, **values)
        put = new.on_conflict_do_update(index_elements=["id"], set_=values)
        async with self.database.writing() as connection:
            query = put.returning(*self._columns)
            return self._read((await connection.execute(query)).mappings().one())


class ConnectionRepository(Repository[ConnectionRecord]):
    """Connections; role, clusters and expiry of each are in its row of keys."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.connections, ConnectionRecord, (Topic.ACCESS,))

    async def finished(self, now: datetime, *, made_before: datetime) -> list[str]:
        """Return the ids of connections that have expired or have no token any more.

        One without a token can get none again, once its code was issued, so only those that were
        `made_before` then count. Users of an external issuer have tokens of their own; refused ones
        are not listed, because their rows refuse them.
        """
        keys, table = records.keys, self.table
        has_tokens = select(records.tokens.c.id).where(records.tokens.c.connection_id == table.c.id)
        is_external = table.c.subject.startswith("issuer:", autoescape=True)
        is_unused = ~is_external & (table.c.created < made_before) & ~has_tokens.exists()
        query = (
            select(table.c.id)
            .join(keys, keys.c.id == table.c.id)
            .where(keys.c.enabled & ((keys.c.expires <= now) | is_unused))
        )
        async with self.database.reading() as connection:
            return list(await connection.scalars(query.order_by(table.c.id)))


class ConsentRepository(Repository[ConsentRecord]):
    """What people last consented to, one row for each of their clients."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.consents, ConsentRecord)

    async def put_in(
        self, connection: AsyncConnection, subject: str, client_id: str, *, most: int, **values: Any
    ) -> None:
        """Replace the consent for a client; keep at most so many of the user, the newest."""
        await self._forget_in(connection, subject, client_id)
        await self.add_in(connection, subject=subject, client_id=client_id, **values)
        table = self.table
        theirs = table.c.subject == subject
        newest = select(table.c.id).where(theirs).order_by(table.c.id.desc()).limit(most)
        await connection.execute(table.delete().where(theirs & table.c.id.not_in(newest)))

    async def forget(self, subject: str, client_id: str) -> None:
        """Delete the consent of a user for a client."""
        async with self.database.writing() as connection:
            await self._forget_in(connection, subject, client_id)

    async def remove_expired(self, now: datetime) -> None:
        """Delete the consents that have expired."""
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(self.table.c.expires <= now))

    async def _forget_in(self, connection: AsyncConnection, subject: str, client_id: str) -> None:
        table = self.table
        row = (table.c.subject == subject) & (table.c.client_id == client_id)
        await connection.execute(table.delete().where(row))


class TokenRepository(Repository[TokenRecord]):
    """Tokens of connections. Only what ends a token increases the version of the topic."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.tokens, TokenRecord)

    async def exchange(
        self,
        token: TokenRecord,
        now: datetime,
        kept: datetime,
        tokens: Iterable[Mapping[str, Any]],
    ) -> bool:
        """Use up a code or a refresh token and add these in its place, or return False.

        It is `kept` until then, but no longer than before, so that its second use is noticed.
        Of concurrent uses, also in other processes, one gets True. None does after the end of the
        connection's tokens, which waits for the lock of its row: no token is added behind it.
        """
        table = self.table
        unused = table.update().where((table.c.id == token.id) & table.c.used.is_(None))
        async with self.database.writing() as connection:
            await _lock(connection, {token.connection_id})
            used = unused.values(used=now, expires=min(kept, token.expires))
            result = await connection.execute(used)
            if not result.rowcount:
                return False
            for values in tokens:
                await self.add_in(connection, **values)
        return True

    async def revoke(self, token_id: str) -> None:
        """Delete one token, in every process."""
        async with self.database.writing() as connection:
            await bump(connection, Topic.ACCESS)
            await connection.execute(self.table.delete().where(self.table.c.id == token_id))

    async def end(self, connection_id: str, *kinds: TokenKind) -> None:
        """Delete the tokens of a connection, all kinds if none is named, in every process."""
        async with self.database.writing() as connection:
            await end_tokens(connection, {connection_id}, *kinds)

    async def add_code(self, connection_id: str, **values: Any) -> bool:
        """Add a code; return False if the connection has ended."""
        async with self.database.writing() as connection:
            if not await _lock(connection, {connection_id}):
                return False
            await self.add_in(connection, connection_id=connection_id, **values)
        return True

    async def remove_expired(self, now: datetime) -> None:
        """Delete the tokens that have expired."""
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(self.table.c.expires <= now))


async def end_tokens(
    connection: AsyncConnection, connection_ids: Collection[str], *kinds: TokenKind
) -> None:
    """Delete the tokens of connections, all kinds if none is named, in every process."""
    await bump(connection, Topic.ACCESS)
    await _lock(connection, connection_ids)
    table = records.tokens
    theirs: ColumnElement[bool] = table.c.connection_id.in_(connection_ids)
    if kinds:
        theirs &= table.c.kind.in_(kinds)
    await connection.execute(table.delete().where(theirs))


async def _lock(connection: AsyncConnection, connection_ids: Collection[str]) -> list[str]:
    """Wait for other changes of the tokens of connections, and return the ids that exist.

    SQLite has one writer anyway.
    """
    table = records.connections
    rows = select(table.c.id).where(table.c.id.in_(connection_ids)).order_by(table.c.id)
    return list(await connection.scalars(rows.with_for_update()))


class PersonSessionRepository(Repository[PersonSession]):
    """Sessions of people who sign in to connect; what they were signed in with is encrypted."""

    def __init__(self, database: Database, vault: Vault) -> None:
        super().__init__(database, records.person_sessions, PersonSession)
        self._vault = vault

    async def open(
        self, digest: str, *, subject: str, expires: datetime, values: dict[str, Any]
    ) -> PersonSession:
        """Insert a session; `values` is JSON that `opened` returns."""
        sealed = self._vault.encrypt(json.dumps(values), self.table.name, digest, "sealed")
        return await self.add(
            digest=digest, subject=subject, created=utc_now(), expires=expires, sealed=sealed
        )

    async def opened(self, session: PersonSession) -> dict[str, Any]:
        """Return the values of a session; raise Undecryptable for a row that `open` did not write.

        A session that was removed has none.
        """
        query = select(self.table.c.sealed).where(self.table.c.digest == session.digest)
        async with self.database.reading() as connection:
            sealed = await connection.scalar(query)
        if sealed is None:
            return {}
        text = await self._vault.decrypt(sealed, self.table.name, session.digest, "sealed")
        values: dict[str, Any] = json.loads(text)
        return values

    async def remove_expired(self, now: datetime) -> None:
        """Delete the sessions that have expired, with what is sealed in them."""
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(self.table.c.expires <= now))
