"""Repository of settings: only those that an administrator has changed."""

from collections.abc import Mapping
from typing import Any

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import SettingRecord
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.watch import Topic, bump


class SettingRepository(Repository[SettingRecord]):
    """Settings by name."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.settings, SettingRecord, (Topic.SETTINGS,))

    async def put(self, values: Mapping[str, Any], by: str) -> None:
        """Store the values in one transaction; `by` names the administrator."""
        table, now = self.table, utc_now()
        async with self.database.writing() as connection:
            # first, as a lock: concurrent changes wait for each other here
            await bump(connection, Topic.SETTINGS)
            for name, value in sorted(values.items()):
                await connection.execute(table.delete().where(table.c.name == name))
                await connection.execute(
                    table.insert().values(name=name, value=value, changed=now, changed_by=by)
                )
