"""Notes of writes to Proxmox, by which other processes learn that their inventories are old."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from pvemcp_server.store import records
from pvemcp_server.store.background import first_of
from pvemcp_server.store.database import Database
from pvemcp_server.store.fleet import Fleet
from pvemcp_server.store.watch import Topic, next_version

RETRY_SECONDS: Final = 0.5
log = logging.getLogger(__name__)


class ClusterWrites:
    """Writes to clusters, noted in the store for all processes; not on SQLite, which has one.

    A note is a row, and not only a notification: a process that was not listening finds it with
    its next poll, which no call does without.
    """

    def __init__(self, database: Database, fleet: Fleet) -> None:
        self._database = database
        self._fleet = fleet
        self._pending: set[int] = set()
        self._is_due = anyio.Event()
        self._seen = 0
        self._listeners: list[Callable[[], None]] = []

    def on_write(self, listener: Callable[[], None]) -> None:
        """Call `listener` in this process after each write by any process."""
        self._listeners.append(listener)

    def note(self, cluster_id: int) -> None:
        """Note a write that was sent to the cluster; `run` stores it at once."""
        self._announce()
        if self._fleet.is_shared:
            self._pending.add(cluster_id)
            self._is_due.set()

    async def run(self, stop: anyio.Event) -> None:
        """Store notes until `stop` is set, and those that are left then."""
        while not stop.is_set() or self._pending:
            await first_of(stop, self._is_due)
            self._is_due = anyio.Event()
            try:
                await self.flush()
            except Exception:
                if stop.is_set():
                    log.warning("A write could not be noted for other processes", exc_info=True)
                    return
                with anyio.move_on_after(RETRY_SECONDS):
                    await stop.wait()
                self._is_due.set()

    async def flush(self) -> None:
        """Store the pending notes; keep them when that fails."""
        noted, self._pending = self._pending, set()
        if not noted:
            return
        try:
            await self._store(sorted(noted))
        except BaseException:
            self._pending |= noted
            raise

    async def _store(self, noted: Sequence[int]) -> None:
        table = records.cluster_writes
        known = select(records.clusters.c.id).where(records.clusters.c.id.in_(noted))
        async with self._database.writing() as connection:
            # its row is a lock: numbers are committed in their order, so no reader misses one
            value = await next_version(connection, Topic.WRITES)
            for cluster_id in (await connection.scalars(known)).all():
                query = insert(table).values(
                    cluster_id=cluster_id, process=self._fleet.id, value=value
                )
                key = [table.c.cluster_id, table.c.process]
                await connection.execute(
                    query.on_conflict_do_update(index_elements=key, set_={"value": value})
                )

    async def others(self) -> set[int]:
        """Return the clusters that other processes have written to since the last time."""
        table = records.cluster_writes
        query = select(table).where(table.c.value > self._seen)
        async with self._database.reading() as connection:
            rows = (await connection.execute(query)).all()
        self._seen = max((row.value for row in rows), default=self._seen)
        written = {row.cluster_id for row in rows if row.process != self._fleet.id}
        if written:
            self._announce()
        return written

    def _announce(self) -> None:
        for listener in self._listeners:
            listener()
