"""Notices for the administrators: each fact once, with how often and when it was seen."""

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from pvemcp_server.store import schema
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import Notice
from pvemcp_server.store.rows import Rows


class NoticeRows(Rows[Notice]):
    """The notices; a dismissed one comes back when its fact is seen again."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.notices, Notice)

    async def tell(self, kind: str, subject: str, message: str, count: int = 1) -> None:
        """Notes the fact `kind` about `subject`, `count` times."""
        table, now = schema.notices, utc_now()
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
        """Those not dismissed, the latest first."""
        table = schema.notices
        query = select(table).where(table.c.dismissed.is_(None)).order_by(table.c.last_seen.desc())
        async with self.database.reading() as connection:
            return [self._read(row) for row in (await connection.execute(query)).mappings()]

    async def dismiss(self, notice_id: int) -> bool:
        return await self.change(notice_id, dismissed=utc_now()) is not None
