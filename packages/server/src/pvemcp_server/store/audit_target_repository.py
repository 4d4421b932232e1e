"""Repository of the audit's receivers: how far each has got, and which process sends to it."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_
from sqlalchemy.dialects import postgresql, sqlite

from pvemcp_server.store import records
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import AuditTarget
from pvemcp_server.store.repository import Repository


class AuditTargetRepository(Repository[AuditTarget]):
    """The receivers by name. Of several processes, the one that holds the lease sends."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.audit_targets, AuditTarget)

    async def position(self, name: str) -> int:
        """Return the seq of the last row that the receiver has; 0 for a new one."""
        target = await self.find(name=name)
        return 0 if target is None else target.forwarded

    async def lease(
        self, name: str, holder: str, now: datetime, span: timedelta
    ) -> AuditTarget | None:
        """Take or renew the lease; None while another process holds it."""
        table = self.table
        dialect = sqlite if self.database.is_sqlite else postgresql
        new = dialect.insert(table).values(name=name, forwarded=0).on_conflict_do_nothing()
        held_until = table.c.held_until
        # one that ends far ahead shows a clock that was set back
        is_over = or_(held_until <= now, held_until > now + 2 * span)
        free = or_(table.c.holder.is_(None), table.c.holder == holder, is_over)
        taken = (
            table.update()
            .where(table.c.name == name, free)
            .values(holder=holder, held_until=now + span)
            .returning(*self._columns)
        )
        async with self.database.writing() as connection:
            await connection.execute(new)
            row = (await connection.execute(taken)).mappings().first()
        return None if row is None else self._read(row)

    async def advance(self, name: str, holder: str, seq: int, now: datetime) -> bool:
        """Record that the receiver has the rows up to `seq`; return whether the lease is held."""
        return await self._update(
            self._held(name, holder), forwarded=seq, delivered=now, error=None
        )

    async def fail(self, name: str, holder: str, error: str) -> None:
        """Record an error and end the lease: another process may reach the receiver."""
        await self._update(self._held(name, holder), error=error, holder=None, held_until=None)

    async def release(self, holder: str) -> None:
        """End all leases of a process that stops."""
        await self._update(self.table.c.holder == holder, holder=None, held_until=None)

    def _held(self, name: str, holder: str) -> ColumnElement[bool]:
        return (self.table.c.name == name) & (self.table.c.holder == holder)

    async def _update(self, where: ColumnElement[bool], **values: object) -> bool:
        async with self.database.writing() as connection:
            result = await connection.execute(self.table.update().where(where).values(**values))
        return bool(result.rowcount)
