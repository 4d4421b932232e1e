"""Repository of the plans that dry runs have shown."""

from datetime import timedelta
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from pvemcp_server.store import records
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import ShownPlan
from pvemcp_server.store.repository import Repository

KEPT: Final = timedelta(days=1)
KEPT_OF_KEY: Final = 100


class ShownPlanRepository(Repository[ShownPlan]):
    """The plans shown last, for KEPT and at most KEPT_OF_KEY of each key."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.shown_plans, ShownPlan)

    async def keep(self, call_digest: str, key_id: str, **digests: str) -> None:
        """Keep the plan of a call in place of an older one; delete what is too old or too many."""
        table, now = self.table, utc_now()
        own = table.c.key_id == key_id
        newest = select(table.c.call_digest).where(own).order_by(table.c.shown.desc())
        rest = own & table.c.call_digest.not_in(newest.limit(KEPT_OF_KEY))
        dialect = sqlite if self.database.is_sqlite else postgresql
        values = {"key_id": key_id, "shown": now, **digests}
        new = dialect.insert(table).values(call_digest=call_digest, **values)
        new = new.on_conflict_do_update(index_elements=["call_digest"], set_=values)
        async with self.database.writing() as connection:
            await connection.execute(new)
            await connection.execute(table.delete().where((table.c.shown <= now - KEPT) | rest))

    async def take(self, call_digest: str) -> ShownPlan | None:
        """Delete the plan of a call and return it; None if none was shown within KEPT."""
        table = self.table
        removal = table.delete().where(table.c.call_digest == call_digest).returning(table)
        async with self.database.writing() as connection:
            row = (await connection.execute(removal)).mappings().first()
        shown = None if row is None else self._read(row)
        return shown if shown and shown.shown > utc_now() - KEPT else None
