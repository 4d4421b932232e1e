"""Repositories of keys and roles."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import case, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.database import Database
from pvemcp_server.store.open_approvals import void_open
from pvemcp_server.store.records import DestructiveUse, KeyRecord, RoleRecord
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.watch import Topic


class KeyRepository(Repository[KeyRecord]):
    """API keys."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.keys, KeyRecord, (Topic.ACCESS,))

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> KeyRecord | None:
        """Update a key; its open approvals become void."""
        record = await super().change_in(connection, key, **values)
        await void_open(connection, records.approvals.c.key_id == key)
        return record

    async def change_as_read(self, key: KeyRecord, **values: Any) -> KeyRecord | None:
        """Update a key unless it was changed or removed since it was read; return None then."""
        async with self.database.writing() as connection:
            await self._bump(connection)  # waits for a concurrent change, also of another process
            present = await self.find_in(connection, id=key.id)
            if present is None or _without_use(present) != _without_use(key):
                return None
            return await self.change_in(connection, key.id, **values)

    async def record_uses(self, uses: Mapping[str, tuple[datetime, str]]) -> None:
        """Store when and from which address keys were last used.

        The topic's version stays, because no permission changes.
        """
        async with self.database.writing() as connection:
            for key_id, (moment, address) in sorted(uses.items()):
                await connection.execute(
                    self.table.update()
                    .where(self.table.c.id == key_id)
                    .values(last_used=moment, last_address=address[:64])
                )


class DestructiveUseRepository(Repository[DestructiveUse]):
    """Destructive writes of holders on one day, counted for all processes together."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.destructive_uses, DestructiveUse)

    async def spend(
        self, holder: str, *, day: str, most: int, count: int = 1, kept: str = ""
    ) -> bool:
        """Add `count` writes; return False, and add nothing, if that were more than `most` a day.

        Those of days before `kept` are deleted: their keys may be gone.

        Of concurrent writes, also by other processes, `most` get True: one conditional statement.
        A clock that is behind counts on the later day that another process has begun.
        """
        if count > most:
            return False
        table = self.table
        dialect = sqlite if self.database.is_sqlite else postgresql
        is_same = table.c.day >= day
        first = dialect.insert(table).values(holder=holder, day=day, count=count)
        values = {
            "day": case((is_same, table.c.day), else_=day),
            "count": case((is_same, table.c.count + count), else_=count),
        }
        spend = first.on_conflict_do_update(
            index_elements=["holder"], set_=values, where=~is_same | (table.c.count + count <= most)
        )
        async with self.database.writing() as connection:
            await connection.execute(table.delete().where(table.c.day < kept))
            with self._conflicts({}):
                spent = await connection.scalar(spend.returning(table.c.count))
        return spent is not None


def _without_use(key: KeyRecord) -> KeyRecord:
    return replace(key, last_used=None, last_address=None)


class RoleRepository(Repository[RoleRecord]):
    """Roles, built-in ones and others."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.roles, RoleRecord, (Topic.ACCESS,))

    async def change_in(
        self, connection: AsyncConnection, key: int | str, **values: Any
    ) -> RoleRecord | None:
        """Update a role; the open approvals of its keys become void."""
        record = await super().change_in(connection, key, **values)
        holders = select(records.keys.c.id).where(records.keys.c.role_id == key)
        await void_open(connection, records.approvals.c.key_id.in_(holders))
        return record

    async def update_built_in(self, roles: Sequence[Mapping[str, object]]) -> None:
        """Add or update the built-in roles; write only those that differ."""
        async with self.database.writing() as connection:
            # processes that start at the same time wait for each other here
            await connection.execute(select(records.versions).with_for_update())
            for values in roles:
                record = await self.find_in(connection, name=values["name"])
                if record is None:
                    await self.add_in(connection, **values, built_in=True)
                elif any(getattr(record, name) != value for name, value in values.items()):
                    await self.change_in(connection, record.id, **values)
