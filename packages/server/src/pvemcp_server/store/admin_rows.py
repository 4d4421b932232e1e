"""Rows of administrators and their sessions."""

from datetime import datetime, timedelta

from pvemcp_server.store import schema
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import AdminRecord, SessionRecord
from pvemcp_server.store.rows import Rows


class AdminRows(Rows[AdminRecord]):
    """Administrators."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.admins, AdminRecord)

    async def count_failure(self, admin_id: int) -> int:
        """Counts a failed sign-in, in the database so that attempts in parallel all count."""
        table = self.table
        counted = table.update().where(table.c.id == admin_id)
        counted = counted.values(failures=table.c.failures + 1)
        async with self.database.writing() as connection:
            return await connection.scalar(counted.returning(table.c.failures)) or 0


class SessionRows(Rows[SessionRecord]):
    """Sessions of administrators."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.sessions, SessionRecord)

    async def end_all_of(self, admin_id: int) -> None:
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(self.table.c.admin_id == admin_id))

    async def sweep(self, now: datetime, idle: timedelta) -> None:
        """Removes sessions that are over."""
        over = (self.table.c.expires <= now) | (self.table.c.last_seen <= now - idle)
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete().where(over))
