"""Rows of keys and roles, with the statements that are more than one row's change."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select

from pvemcp_server.store import schema
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import KeyRecord, RoleRecord
from pvemcp_server.store.rows import Rows
from pvemcp_server.store.watch import Topic


class KeyRows(Rows[KeyRecord]):
    """API keys."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.keys, KeyRecord, (Topic.ACCESS,))

    async def note_uses(self, uses: Mapping[str, tuple[datetime, str]]) -> None:
        """Writes when and from where keys were last used; nobody's rights change by that."""
        async with self.database.writing() as connection:
            for key_id, (moment, address) in sorted(uses.items()):
                await connection.execute(
                    self.table.update()
                    .where(self.table.c.id == key_id)
                    .values(last_used=moment, last_address=address[:64])
                )


class RoleRows(Rows[RoleRecord]):
    """Roles, built-in ones and others."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.roles, RoleRecord, (Topic.ACCESS,))

    async def bring_in_line(self, built_in: Sequence[Mapping[str, object]]) -> None:
        """Makes the built-in roles as given, touching only those that differ."""
        async with self.database.writing() as connection:
            # processes that start together take turns
            await connection.execute(select(schema.versions).with_for_update())
            for values in built_in:
                record = await self.find_in(connection, name=values["name"])
                if record is None:
                    await self.add_in(connection, **values, built_in=True)
                elif any(getattr(record, name) != value for name, value in values.items()):
                    await self.change_in(connection, record.id, **values)
