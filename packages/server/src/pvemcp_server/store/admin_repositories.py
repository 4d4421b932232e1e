"""Repositories of administrators: sessions, second factors and the tokens of sign-ins."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import (
    AdminRecord,
    RecoveryCode,
    SecondFactorRecord,
    SessionRecord,
    SpentToken,
)
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.vault import Vault


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

    async def is_present_in(self, connection: AsyncConnection, admin: AdminRecord) -> bool:
        """Return whether no sessions have ended since the record was read.

        The row is locked, so that what ends them at the same time, also in another process, waits.
        """
        query = select(self.table.c.generation).where(self.table.c.id == admin.id)
        return await connection.scalar(query.with_for_update()) == admin.generation

    async def end_sessions(
        self, admin_id: int, *, keep: str = "", **values: Any
    ) -> AdminRecord | None:
        """Do the same as `end_sessions_in`, in a transaction of its own."""
        async with self.database.writing() as connection:
            return await self.end_sessions_in(connection, admin_id, keep=keep, **values)

    async def end_sessions_since(self, admin: AdminRecord, **values: Any) -> AdminRecord | None:
        """Do the same as `end_sessions`; return None if others did since the record was read."""
        async with self.database.writing() as connection:
            if not await self.is_present_in(connection, admin):
                return None
            return await self.end_sessions_in(connection, admin.id, **values)

    async def end_sessions_in(
        self, connection: AsyncConnection, admin_id: int, *, keep: str = "", **values: Any
    ) -> AdminRecord | None:
        """Change an administrator and end their sessions but the one with the digest `keep`.

        The new generation refuses sessions of sign-ins that began before: each proves something
        that may not count any more, such as the old password.
        """
        generation, sessions = self.table.c.generation + 1, records.sessions
        changed = await self.change_in(connection, admin_id, generation=generation, **values)
        theirs = (sessions.c.admin_id == admin_id) & (sessions.c.digest != keep)
        await connection.execute(sessions.delete().where(theirs))
        return changed

    async def count_failures(self, admin_id: int, further: int) -> int:
        """Add failed sign-ins to the count and return it.

        The database adds it up, so that concurrent attempts all count.
        """
        table = self.table
        counted = table.update().where(table.c.id == admin_id)
        counted = counted.values(failures=table.c.failures + further)
        async with self.database.writing() as connection:
            return await connection.scalar(counted.returning(table.c.failures)) or 0


class SessionRepository(Repository[SessionRecord]):
    """Sessions of administrators."""

    def __init__(self, database: Database, admins: AdminRepository) -> None:
        super().__init__(database, records.sessions, SessionRecord)
        self._admins = admins

    async def open(self, admin: AdminRecord, **values: Any) -> bool:
        """Insert a session; return False when others have ended since the record was read."""
        async with self.database.writing() as connection:
            if not await self._admins.is_present_in(connection, admin):
                return False
            await self.add_in(connection, admin_id=admin.id, **values)
        return True

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
            await self.add(digest=self._digest(token), expires=expires)
        except IntegrityError:
            return False
        return True

    async def is_spent(self, token: str) -> bool:
        """Return whether the token was burnt."""
        return await self.find(digest=self._digest(token)) is not None

    def _digest(self, token: str) -> str:
        return sha256(token.encode()).hexdigest()


class SecondFactorRepository(Repository[SecondFactorRecord]):
    """Second factors; their secrets are encrypted and only `secret` returns one."""

    def __init__(self, database: Database, vault: Vault) -> None:
        super().__init__(database, records.second_factors, SecondFactorRecord)
        self._vault = vault

    async def add_in(self, connection: AsyncConnection, **values: Any) -> SecondFactorRecord:
        """Insert a factor; its secret is bound to the row and the administrator."""
        secret = values.pop("secret")
        added = await super().add_in(connection, **values, secret=b"")
        place = (self.table.name, added.id, "secret")
        encrypted = self._vault.encrypt(secret, *place, bound=added.owner)
        await self.change_in(connection, added.id, secret=encrypted)
        return added

    async def remove_all_in(self, connection: AsyncConnection, admin_id: int) -> int:
        """Remove the factors of an administrator; return how many there were."""
        theirs = self.table.delete().where(self.table.c.admin_id == admin_id)
        return int((await connection.execute(theirs)).rowcount)

    async def secret(self, factor: SecondFactorRecord) -> str:
        """Return the TOTP secret, or the passkey's public key.

        Raise Undecryptable for a row that was not written by `add`, or was changed since.
        """
        table = self.table
        query = select(table.c.secret).where(table.c.id == factor.id)
        async with self.database.reading() as connection:
            encrypted = await connection.scalar(query)
        place = (table.name, factor.id, "secret")
        return await self._vault.decrypt(encrypted or b"", *place, bound=factor.owner)

    async def use_step(self, factor_id: int, step: int, now: datetime) -> bool:
        """Record that a code of this step was accepted; return False if one was before.

        Of concurrent uses, also by other processes, exactly one returns True.
        """
        table = self.table
        used = table.update().where((table.c.id == factor_id) & (table.c.counter < step))
        async with self.database.writing() as connection:
            result = await connection.execute(used.values(counter=step, last_used=now))
        return bool(result.rowcount)


class RecoveryCodeRepository(Repository[RecoveryCode]):
    """Recovery codes; `remove` uses one up, once for every process."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.recovery_codes, RecoveryCode)

    async def replace_in(
        self, connection: AsyncConnection, admin_id: int, digests: Iterable[str], pepper: int
    ) -> None:
        """Store the codes of an administrator, hashed with the pepper, in place of old ones."""
        rows = [{"digest": d, "admin_id": admin_id, "pepper": pepper} for d in digests]
        await self.remove_all_in(connection, admin_id)
        with self._conflicts({}):
            await connection.execute(insert(self.table), rows)

    async def remove_all_in(self, connection: AsyncConnection, admin_id: int) -> None:
        """Remove the codes of an administrator."""
        await connection.execute(self.table.delete().where(self.table.c.admin_id == admin_id))
