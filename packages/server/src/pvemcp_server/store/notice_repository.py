"""Repository of notices for administrators."""

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import Notice
from pvemcp_server.store.repository import Repository


class NoticeRepository(Repository[Notice]):
    """Notices: one row for each fact, with a count and the times it was first and last seen."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.notices, Notice)

    async def record(self, kind: str, subject: str, message: str, count: int = 1) -> None:
        """Count the fact `kind` about `subject`; show a dismissed notice again."""
        table, now = records.notices, utc_now()
        dialect = sqlite if self.database.is_sqlite else postgresql
        new = dialect.insert(table).values(
            kind=kind, subject=subject, message=message, count=count, first_seen=now, last_seen=now
        )
        again = {
            "message": message,
            "count": table.c.count + count,
            "last_seen": now,
            "dismissed": None,
        }
        async with self.database.writing() as connection:
            await connection.execute(
                new.on_conflict_do_update(index_elements=["kind", "subject"], set_=again)
            )

    async def open(self) -> list[Notice]:
        """Return the notices that are not dismissed, newest first."""
        table = records.notices
        query = select(table).where(table.c.dismissed.is_(None)).order_by(table.c.last_seen.desc())
        async with self.database.reading() as connection:
            return [self._read(row) for row in (await connection.execute(query)).mappings()]

    async def dismiss(self, notice_id: int) -> bool:
        """Dismiss a notice; return whether it exists."""
        return await self.change(notice_id, dismissed=utc_now()) is not None
