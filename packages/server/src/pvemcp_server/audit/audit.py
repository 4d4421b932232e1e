"""Writes the audit: intents before anything is done, the rest in batches."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import anyio

from pvemcp_server.audit.event import Event, Kind
from pvemcp_server.audit.reader import AuditReader
from pvemcp_server.errors import Unrecorded
from pvemcp_server.store import Store
from pvemcp_server.store.background import housekeeping, rounds
from pvemcp_server.store.columns import utc_now

FLUSH_SECONDS = 0.5
FULL = 2_000  # events that may wait; then calls wait for the database, or are refused
PRUNE_SECONDS = 3600
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows that want to be durable together; `stored` becomes what went wrong, or None."""

    rows: list[dict[str, Any]]
    stored: asyncio.Future[Exception | None]


class Audit(AuditReader):
    """Records calls; `open_audit` makes one and flushes it at the end."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(store)
        self._log = store.audit_log
        self._clock = clock
        self._buffer: list[dict[str, Any]] = []
        self._waiting: list[_Batch] = []
        self._writer: asyncio.Task[None] | None = None
        self._answers = True

    async def intent(self, event: Event) -> str:
        """Stores that a write is about to happen; raises Unrecorded when that is impossible."""
        call_id = uuid4().hex
        await self._store_now([self._row(Kind.INTENT, event, call_id)])
        return call_id

    async def outcome(self, call_id: str, event: Event) -> None:
        """Stores how the write ended; kept for later when the database is away, for it is done."""
        row = self._row(Kind.OUTCOME, event, call_id)
        try:
            await self._store_now([row])
        except Unrecorded:
            self._buffer.append(row)

    async def call(self, event: Event) -> None:
        """Notes a finished read, durable within a second; raises Unrecorded when too many wait."""
        await self._note(Kind.CALL, event)

    async def refused(self, event: Event) -> None:
        """Notes an attempt that was not let through: there is nothing left to refuse."""
        with suppress(Unrecorded):
            await self._note(Kind.REFUSED, event)

    async def admin(self, event: Event) -> None:
        """Stores a change made by an administrator before returning."""
        await self._store_now([self._row(Kind.ADMIN, event, uuid4().hex)])

    async def flush(self) -> None:
        """Stores what has been noted, also by others; keeps it when that fails."""
        rows, self._buffer = self._buffer, []
        if not rows:
            if self._writer is not None:  # another flush may have taken them
                await asyncio.shield(self._writer)
            return
        try:
            await self._store_now(rows)
        except Unrecorded:
            self._buffer = rows + self._buffer
            raise

    async def prune(self, days: int) -> int:
        """Removes entries older than so many days; answers how many rows."""
        event = Event(tool="audit.retention", reason=f"older than {days} days")
        row = self._row(Kind.RETENTION, event, uuid4().hex)
        return await self._log.prune(self._clock() - timedelta(days=days), row)

    async def keep_house(self, stop: anyio.Event, retention_days: Callable[[], int]) -> None:
        """Ends by the event, not by being cancelled: the last batch is written as well."""
        pruned = anyio.current_time()
        async for _ in rounds(stop, FLUSH_SECONDS):
            with suppress(Unrecorded):  # what is noted stays noted, and the log has been told
                await self.flush()
            if anyio.current_time() - pruned >= PRUNE_SECONDS:
                pruned = anyio.current_time()
                await self._prune_if_possible(retention_days())
        if self._buffer:
            log.error("%d entries of the audit could not be stored", len(self._buffer))

    async def _prune_if_possible(self, days: int) -> None:
        try:
            await self.prune(days)
        except Exception:
            log.warning("Old entries of the audit could not be removed", exc_info=True)

    async def _note(self, kind: Kind, event: Event) -> None:
        if len(self._buffer) >= FULL:  # what cannot be stored must not grow without end
            await self.flush()
        self._buffer.append(self._row(kind, event, uuid4().hex))

    def _row(self, kind: Kind, event: Event, call_id: str) -> dict[str, Any]:
        return {"kind": kind.value, "call_id": call_id, "at": self._clock(), **event.columns()}

    async def _store_now(self, rows: list[dict[str, Any]]) -> None:
        """Appends with whatever else is waiting: one transaction for all who come meanwhile.

        A task of its own writes: a call that is cancelled while its rows are on their way must
        leave neither them nor those of others half written.
        """
        mine = _Batch(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(mine)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        error = await asyncio.shield(mine.stored)
        if error is not None:
            raise Unrecorded from error

    async def _write_waiting(self) -> None:
        while self._waiting:
            batches, self._waiting = self._waiting, []
            error = await self._append([row for batch in batches for row in batch.rows])
            for batch in batches:
                batch.stored.set_result(error)

    async def _append(self, rows: list[dict[str, Any]]) -> Exception | None:
        try:
            await self._log.append(rows)
        except Exception as failed:
            if self._answers:  # told once, not with every call
                log.warning("The audit cannot be written", exc_info=True)
            self._answers = False
            return failed
        self._answers = True
        return None


@asynccontextmanager
async def open_audit(store: Store, retention_days: Callable[[], int]) -> AsyncIterator[Audit]:
    """The audit with its housekeeping: batches every half second, retention every hour."""
    audit = Audit(store)

    async def keep_house(stop: anyio.Event) -> None:
        await audit.keep_house(stop, retention_days)

    async with housekeeping(keep_house):
        yield audit
