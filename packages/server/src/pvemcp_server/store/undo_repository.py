"""Repository of the last writes of each API key, with how they are undone."""

from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import UndoRecord
from pvemcp_server.store.repository import Repository

KEPT: Final = timedelta(days=7)
KEPT_OF_KEY: Final = 50


class UndoRepository(Repository[UndoRecord]):
    """The last writes, for KEPT and at most KEPT_OF_KEY of each key."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.undos, UndoRecord)

    async def keep(self, key_id: str, **values: Any) -> None:
        """Add one, and delete those that are too old or too many."""
        table, now = self.table, utc_now()
        own = table.c.key_id == key_id
        newest = select(table.c.id).where(own).order_by(table.c.id.desc()).limit(KEPT_OF_KEY)
        async with self.database.writing() as connection:
            await self.add_in(connection, key_id=key_id, created=now, **values)
            await connection.execute(table.delete().where(table.c.created <= now - KEPT))
            await connection.execute(table.delete().where(own & table.c.id.not_in(newest)))

    async def of_key(self, key_id: str) -> list[UndoRecord]:
        """Return those of the key, the newest first."""
        oldest = utc_now() - KEPT
        return [each for each in reversed(await self.all(key_id=key_id)) if each.created > oldest]
