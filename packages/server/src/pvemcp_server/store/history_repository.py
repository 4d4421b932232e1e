"""Repository of the history: differences between readings of a cluster, per Proxmox identity."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from pvemcp_server.store import records
from pvemcp_server.store.columns import EPOCH
from pvemcp_server.store.database import Database
from pvemcp_server.store.records import HistoryEntry, IdentityRecord
from pvemcp_server.store.repository import Repository

MOST: Final = 20_000
"""Differences that are kept of one identity."""

Reading = Mapping[str, Any]
"""What an identity saw of a cluster at one time, as JSON."""


class HistoryRepository(Repository[HistoryEntry]):
    """Differences, and the latest reading of each identity that they are made from.

    They belong to an identity and its account: another token in its place begins a new history.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, records.history, HistoryEntry)

    async def claim(
        self, identity: IdentityRecord, now: datetime, interval: timedelta
    ) -> Reading | None:
        """Return the latest reading if another one is due, {} if there is none; else None.

        Of concurrent claims, also by other processes, exactly one gets it.
        """
        latest = records.history_readings
        dialect = sqlite if self.database.is_sqlite else postgresql
        new = {"identity_id": identity.id, "account": identity.token_id, "reading": ""}
        added = dialect.insert(latest).values(**new, began=now, claimed=EPOCH)
        own = latest.c.identity_id == identity.id
        async with self.database.writing() as connection:
            with self._conflicts({}):
                await connection.execute(added.on_conflict_do_nothing())
            row = (await connection.execute(select(latest).where(own).with_for_update())).one()
            if row.account != identity.token_id:
                await connection.execute(
                    self.table.delete().where(self.table.c.identity_id == identity.id)
                )
                await connection.execute(latest.update().where(own).values(**new, began=now))
            elif abs(now - row.claimed) < interval:  # far ahead, the clock was set back
                return None
            await connection.execute(latest.update().where(own).values(claimed=now))
        is_same = row.account == identity.token_id and row.reading
        return await asyncio.to_thread(_parsed, row.reading) if is_same else {}

    async def save(
        self,
        identity: IdentityRecord,
        reading: Reading,
        differences: Iterable[Mapping[str, Any]],
        oldest: datetime,
    ) -> None:
        """Store a reading and its differences; delete those before `oldest` and beyond MOST."""
        table, latest = self.table, records.history_readings
        own = table.c.identity_id == identity.id
        rows = [{"identity_id": identity.id, **difference} for difference in differences]
        text = await asyncio.to_thread(json.dumps, reading)
        beyond = select(table.c.id).where(own).order_by(table.c.id.desc()).offset(MOST).limit(1)
        async with self.database.writing() as connection:
            await connection.execute(
                latest.update().where(latest.c.identity_id == identity.id).values(reading=text)
            )
            if rows:
                with self._conflicts({}):
                    await connection.execute(table.insert(), rows)
            await connection.execute(table.delete().where(own, table.c.at < oldest))
            if (last := await connection.scalar(beyond)) is not None:
                await connection.execute(table.delete().where(own, table.c.id <= last))

    async def clear(self) -> None:
        """Delete every reading and difference."""
        async with self.database.writing() as connection:
            await connection.execute(self.table.delete())
            await connection.execute(records.history_readings.delete())


def _parsed(text: str) -> Reading:
    reading: Reading = json.loads(text)
    return reading


@dataclass(frozen=True)
class History:
    """The history of one identity and account."""

    repository: HistoryRepository
    identity: IdentityRecord

    async def began(self) -> datetime | None:
        """Return the time of the first reading; None if there is no history."""
        latest = records.history_readings
        query = select(latest.c.began).where(
            latest.c.identity_id == self.identity.id, latest.c.account == self.identity.token_id
        )
        async with self.repository.database.reading() as connection:
            began: datetime | None = await connection.scalar(query)
        return began

    async def since(self, time: datetime | None) -> list[HistoryEntry]:
        """Return the differences that were noticed at this time or later."""
        table, latest = self.repository.table, records.history_readings
        query = (
            select(table)
            .join(latest, latest.c.identity_id == table.c.identity_id)
            .where(table.c.identity_id == self.identity.id)
            .where(latest.c.account == self.identity.token_id)
            .where(table.c.at >= (time or EPOCH))
            .order_by(table.c.id)
        )
        async with self.repository.database.reading() as connection:
            rows = (await connection.execute(query)).mappings()
            return [HistoryEntry(**row) for row in rows]
