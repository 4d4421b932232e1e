"""The audit table: appending to the chain, verifying it, removing its old end."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import schema
from pvemcp_server.store.audit_chain import (
    BASE,
    GENESIS,
    HEAD,
    Finding,
    Mark,
    compare,
    hash_of,
    is_sealed,
    seal_of,
)
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database

Row = Mapping[str, Any]
PAGE = 500  # rows are hashed in between calls: a page must not hold them up
PRUNE = 5_000
log = logging.getLogger(__name__)
BREAK: Row = {
    "kind": "break",
    "call_id": "",
    "reason": "the mark of the chain's end was changed; rows before this one may be missing",
}


async def seal_empty(connection: AsyncConnection, key: bytes) -> None:
    """Seals the end of the empty chain in a new database."""
    await _put(connection, key, HEAD, GENESIS)


class AuditLog:
    """Appends rows to the chain; several processes take turns by the lock on its head."""

    def __init__(self, database: Database, key: bytes) -> None:
        self._database = database
        self._key = key

    async def append(self, rows: Iterable[Row]) -> Mark:
        """Adds the rows in one transaction, durable when this returns; answers the new end."""
        async with self._database.writing() as connection:
            return await self._append_in(connection, rows)

    async def head(self) -> Mark:
        """The end of the chain: noted elsewhere, it lets `verify` notice a database set back."""
        async with self._database.reading() as connection:
            mark, _ = await self._mark(connection, HEAD)
        return mark

    async def verify(self, expected: Mark | None = None) -> list[Finding]:
        """What is not as it was written; `expected` is an end of the chain noted earlier."""
        async with self._database.snapshot() as connection:
            head, is_head_ours = await self._mark(connection, HEAD)
            base, is_base_ours = await self._mark(connection, BASE)
            found, last = await self._walk(connection, base, expected)
        if not is_base_ours:
            found.insert(0, Finding(base.seq, "the mark of its beginning was changed"))
        if not is_head_ours:
            found.append(Finding(head.seq, "the mark of its end was changed"))
        elif last != head:
            found.append(Finding(last.seq + 1, f"the end is missing, up to row {head.seq}"))
        if expected and expected.seq > last.seq:
            found.append(Finding(last.seq + 1, f"ends before the noted row {expected.seq}"))
        return found

    async def _walk(
        self, connection: AsyncConnection, last: Mark, expected: Mark | None
    ) -> tuple[list[Finding], Mark]:
        """From row to row, each with the one before it; where the chain really ends."""
        found: list[Finding] = []
        while rows := await self._page(connection, last.seq):
            for row in rows:
                found += compare(self._key, last, row)
                last = Mark(row["seq"], row["hash"])
                if expected and last.seq == expected.seq and last != expected:
                    found.append(Finding(last.seq, "is not the row that was noted"))
        return found, last

    async def prune(self, before: datetime, note: Row) -> int:
        """Removes the rows from before that time, the rest stays verifiable; answers how many."""
        total = 0
        while removed := await self._prune_some(before):
            total += removed
        if total:
            await self.append([{**note, "rows": total}])
        return total

    async def _prune_some(self, before: datetime) -> int:
        """Moves the beginning of the chain on by at most PRUNE rows: calls must not wait long."""
        table = schema.audit
        async with self._database.writing() as connection:
            await self._mark(connection, HEAD, lock=True)
            base, _ = await self._mark(connection, BASE)
            old = (table.c.seq > base.seq) & (table.c.seq <= base.seq + PRUNE)
            first_kept = await connection.scalar(
                select(func.min(table.c.seq)).where(old, table.c.at >= before)
            )
            if first_kept is not None:
                old &= table.c.seq < first_kept
            last = await connection.execute(
                select(table.c.seq, table.c.hash).where(old).order_by(table.c.seq.desc()).limit(1)
            )
            end = last.first()
            if end is None:
                return 0
            removed = await connection.execute(table.delete().where(table.c.seq <= end.seq))
            await _put(connection, self._key, BASE, Mark(end.seq, end.hash))
        return int(removed.rowcount)

    async def _append_in(self, connection: AsyncConnection, rows: Iterable[Row]) -> Mark:
        mark, is_ours = await self._mark(connection, HEAD, lock=True)
        if not is_ours:
            log.error("The mark of the audit's end is not as it was written: run audit verify")
            # continuing silently would seal over the place where rows may have been taken away
            top = await connection.scalar(select(func.max(schema.audit.c.seq)))
            mark = Mark(max(mark.seq, top or 0), mark.hash)
            rows = [{**BREAK, "at": utc_now()}, *rows]
        chained = []
        for row in rows:
            full = {**row, "seq": mark.seq + 1, "previous": mark.hash}
            full["hash"] = hash_of(self._key, mark.hash, full)
            chained.append(full)
            mark = Mark(full["seq"], full["hash"])
        if chained:
            await self._insert(connection, chained)
            await _put(connection, self._key, HEAD, mark)
        return mark

    async def _insert(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        names = [column.name for column in schema.audit.columns]
        await connection.execute(
            schema.audit.insert(), [{name: row.get(name) for name in names} for row in rows]
        )

    async def _page(self, connection: AsyncConnection, after: int) -> list[Row]:
        table = schema.audit
        query = select(table).where(table.c.seq > after).order_by(table.c.seq).limit(PAGE)
        return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _mark(
        self, connection: AsyncConnection, name: str, *, lock: bool = False
    ) -> tuple[Mark, bool]:
        """A mark, and whether it is as we sealed it; no mark of the beginning means row one."""
        table = schema.audit_marks
        query = select(table).where(table.c.name == name)
        row = (await connection.execute(query.with_for_update() if lock else query)).first()
        if row is None:
            return GENESIS, name == BASE
        mark = Mark(row.seq, row.hash)
        return mark, is_sealed(self._key, name, mark, row.seal)


async def _put(connection: AsyncConnection, key: bytes, name: str, mark: Mark) -> None:
    table = schema.audit_marks
    values = {"seq": mark.seq, "hash": mark.hash, "seal": seal_of(key, name, mark)}
    changed = await connection.execute(table.update().where(table.c.name == name).values(**values))
    if not changed.rowcount:
        await connection.execute(table.insert().values(name=name, **values))
