"""Repositories of connections: clients, what people consented to, their tokens and sign-ins."""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import OAuthClientRecord, PersonSession, TokenKind, TokenRecord
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, bump


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


class TokenRepository(Repository[TokenRecord]):
    """Tokens of connections. Only what ends a token increases the version of the topic."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.tokens, TokenRecord)

    async def use(self, token_id: str, now: datetime) -> bool:
        """Use up a code or a refresh token; return False when it was used before.

        Of concurrent uses, also in other processes, one gets True: one conditional statement.
        """
        table = self.table
        unused = table.update().where((table.c.id == token_id) & table.c.used.is_(None))
        async with self.database.writing() as connection:
            result = await connection.execute(unused.values(used=now))
        return bool(result.rowcount)

    async def end(self, connection_id: str, *kinds: TokenKind) -> None:
        """Delete the tokens of a connection, all kinds if none is named, in every process."""
        async with self.database.writing() as connection:
            await self.end_in(connection, connection_id, *kinds)

    async def end_in(
        self, connection: AsyncConnection, connection_id: str, *kinds: TokenKind
    ) -> None:
        """Do the same as `end`, in the transaction of the caller."""
        await bump(connection, Topic.ACCESS)
        theirs = self.table.c.connection_id == connection_id
        if kinds:
            theirs &= self.table.c.kind.in_(kinds)
        await connection.execute(self.table.delete().where(theirs))

    async def remove_expired(self, now: datetime) -> None:
        """Delete the tokens that have expired."""
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(self.table.c.expires <= now))


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
