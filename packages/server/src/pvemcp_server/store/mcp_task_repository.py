"""Repository of the tasks that clients poll."""

from typing import Any, Final

from sqlalchemy import select

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.connection_repositories import of_holder
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import McpTask
from pvemcp_server.store.repository import Repository

MOST_KEPT: Final = 1_000  # tasks of a key, or of all connections of a user


class McpTaskRepository(Repository[McpTask]):
    """Tasks until they expire, and at most MOST_KEPT of each holder, who is a key or a user."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.mcp_tasks, McpTask)

    async def keep(self, holder: str, **values: Any) -> McpTask:
        """Add one, and delete those that have expired, or are too many of the holder."""
        table = self.table
        own = of_holder(table.c.key_id, holder)
        newest = select(table.c.id).where(own).order_by(table.c.created.desc(), table.c.id)
        rest = own & table.c.id.not_in(newest.limit(MOST_KEPT))
        async with self.database.writing() as connection:
            task = await self.add_in(connection, **values)
            await connection.execute(table.delete().where(table.c.expires <= utc_now()))
            await connection.execute(table.delete().where(rest))
        return task
