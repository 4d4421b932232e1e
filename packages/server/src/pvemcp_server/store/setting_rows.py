"""Rows of settings: only those an administrator has changed."""

from collections.abc import Mapping
from typing import Any

from pvemcp_server.store import schema
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import SettingRecord
from pvemcp_server.store.rows import Rows
from pvemcp_server.store.watch import Topic, bump


class SettingRows(Rows[SettingRecord]):
    """Settings by name."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, schema.settings, SettingRecord, (Topic.SETTINGS,))

    async def put(self, values: Mapping[str, Any], by: str) -> None:
        """Stores the values, all or none."""
        table, now = self.table, utc_now()
        async with self.database.writing() as connection:
            await bump(connection, Topic.SETTINGS)  # first: changes in parallel take turns here
            for name, value in sorted(values.items()):
                await connection.execute(table.delete().where(table.c.name == name))
                await connection.execute(
                    table.insert().values(name=name, value=value, changed=now, changed_by=by)
                )
