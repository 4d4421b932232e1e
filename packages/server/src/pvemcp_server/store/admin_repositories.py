"""Repositories of administrators, their sessions and the tokens of their sign-ins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from hashlib import sha256

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import AdminRecord, SessionRecord, SpentToken
from pvemcp_server.store.repository import Repository


class AdminRepository(Repository[AdminRecord]):
    """Administrators."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.admins, AdminRecord)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction in which no other process changes an administrator."""
        async with self.database.writing() as connection:
            # SQLite has one writer anyway, and ignores FOR UPDATE
            rows = select(self.table.c.id).order_by(self.table.c.id).with_for_update()
            await connection.execute(rows)
            yield connection

    async def count_failure(self, admin_id: int) -> int:
        """Count a failed sign-in and return the count.

        The database adds it up, so that concurrent attempts all count.
        """
        table = self.table
        counted = table.update().where(table.c.id == admin_id)
        counted = counted.values(failures=table.c.failures + 1)
        async with self.database.writing() as connection:
            return await connection.scalar(counted.returning(table.c.failures)) or 0


class SessionRepository(Repository[SessionRecord]):
    """Sessions of administrators."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.sessions, SessionRecord)

    async def remove_all_of(self, admin_id: int, *, keep: str = "") -> None:
        """Delete every session of an administrator but the one with the digest `keep`."""
        theirs = (self.table.c.admin_id == admin_id) & (self.table.c.digest != keep)
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(theirs))

    async def remove_expired(self, now: datetime, idle: timedelta) -> None:
        """Delete sessions that have expired or were idle for too long."""
        expired = (self.table.c.expires <= now) | (self.table.c.last_seen <= now - idle)
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(expired))


class SpentTokenRepository(Repository[SpentToken]):
    """Tokens for a single use, burnt for every process."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.spent_tokens, SpentToken)

    async def spend(self, token: str, now: datetime, expires: datetime) -> bool:
        """Burn the token until it expires; return False when it was burnt before."""
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(self.table.c.expires <= now))
        try:
            await self.add(digest=sha256(token.encode()).hexdigest(), expires=expires)
        except IntegrityError:
            return False
        return True
