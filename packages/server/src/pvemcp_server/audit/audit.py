"""The audit writer: intents of writes are stored before the write, the rest in batches."""

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
from pvemcp_server.store.background import housekeeping, ticks
from pvemcp_server.store.columns import utc_now

FLUSH_SECONDS = 0.5
MOST_BUFFERED = 2_000  # events; beyond it calls wait for the database or are refused
PRUNE_SECONDS = 3600
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows to store in one transaction; `stored` resolves to the error, or None."""

    rows: list[dict[str, Any]]
    stored: asyncio.Future[Exception | None]


class Audit(AuditReader):
    """Records calls; `open_audit` creates it and flushes it at the end."""

    def __init__(self, store: Store, *, clock: Callable[[], datetime] = utc_now) -> None:
        super().__init__(store)
        self._log = store.audit_log
        self._clock = clock
        self._buffer: list[dict[str, Any]] = []
        self._waiting: list[_Batch] = []
        self._writer: asyncio.Task[None] | None = None
        self._answers = True

    async def intent(self, event: Event) -> str:
        """Store that a write is about to happen; raise Unrecorded if it cannot be stored."""
        call_id = uuid4().hex
        await self._store_rows([self._row(Kind.INTENT, event, call_id)])
        return call_id

    async def outcome(self, call_id: str, event: Event) -> None:
        """Store how the write ended; buffer it while the database does not answer."""
        row = self._row(Kind.OUTCOME, event, call_id)
        try:
            await self._store_rows([row])
        except Unrecorded:
            self._buffer.append(row)

    async def call(self, event: Event) -> None:
        """Buffer a finished read, durable within a second; raise Unrecorded if it is full."""
        await self._buffer_event(Kind.CALL, event)

    async def refused(self, event: Event) -> None:
        """Buffer a refused attempt; drop it when the buffer is full."""
        with suppress(Unrecorded):
            await self._buffer_event(Kind.REFUSED, event)

    async def admin(self, event: Event) -> None:
        """Store a change by an administrator before returning; raise Unrecorded on failure."""
        await self._store_rows([self._row(Kind.ADMIN, event, uuid4().hex)])

    async def flush(self) -> None:
        """Store the buffered events; keep them and raise Unrecorded when that fails."""
        rows, self._buffer = self._buffer, []
        if not rows:
            if self._writer is not None:  # another flush may be storing them
                await asyncio.shield(self._writer)
            return
        try:
            await self._store_rows(rows)
        except Unrecorded:
            self._buffer = rows + self._buffer
            raise

    async def prune(self, days: int) -> int:
        """Delete entries older than so many days; return the number of rows."""
        event = Event(tool="audit.retention", reason=f"older than {days} days")
        row = self._row(Kind.RETENTION, event, uuid4().hex)
        return await self._log.prune(self._clock() - timedelta(days=days), row)

    async def run_housekeeping(self, stop: anyio.Event, retention_days: Callable[[], int]) -> None:
        """Flush every half second, and a last time after `stop` is set; prune every hour."""
        pruned = anyio.current_time()
        async for _ in ticks(stop, FLUSH_SECONDS):
            with suppress(Unrecorded):  # the events stay in the buffer, and the failure is logged
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

    async def _buffer_event(self, kind: Kind, event: Event) -> None:
        if len(self._buffer) >= MOST_BUFFERED:
            await self.flush()
        self._buffer.append(self._row(kind, event, uuid4().hex))

    def _row(self, kind: Kind, event: Event, call_id: str) -> dict[str, Any]:
        return {"kind": kind.value, "call_id": call_id, "at": self._clock(), **event.columns()}

    async def _store_rows(self, rows: list[dict[str, Any]]) -> None:
        """Store the rows; rows of concurrent calls share a transaction (group commit).

        A separate task writes them. A call that is cancelled while its rows are being written must
        not cancel the transaction, because it may contain the rows of other calls. So every caller
        awaits its batch's future behind a shield, and the writer resolves it in any case.
        """
        batch = _Batch(rows, asyncio.get_running_loop().create_future())
        self._waiting.append(batch)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        error = await asyncio.shield(batch.stored)
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
        except Exception as error:
            if self._answers:  # logged once, not with every call
                log.warning("The audit cannot be written", exc_info=True)
            self._answers = False
            return error
        self._answers = True
        return None


@asynccontextmanager
async def open_audit(store: Store, retention_days: Callable[[], int]) -> AsyncIterator[Audit]:
    """Open the audit with its housekeeping: a flush every half second, retention every hour."""
    audit = Audit(store)

    async def run_housekeeping(stop: anyio.Event) -> None:
        await audit.run_housekeeping(stop, retention_days)

    async with housekeeping(run_housekeeping):
        yield audit
