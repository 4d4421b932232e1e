"""The audit table: append to its hash chain, verify it, delete old rows."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.store import records
from pvemcp_server.store.audit_chain import (
    BASE,
    GENESIS,
    HEAD,
    Finding,
    Mark,
    hash_of,
    is_sealed,
    seal_of,
    verify_row,
)
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database, DatabaseFailed

Row = Mapping[str, Any]
PAGE = 500  # rows to hash before other tasks run: a small page, so that calls do not wait
HIGHEST = 2**62  # numbers beyond it come from no append, and nothing could follow them
PRUNE = 5_000  # rows to delete in one transaction, while appends wait
log = logging.getLogger(__name__)
MARK_CHANGED = "the mark of the chain's end was changed; rows before this one may be missing"
CUT = "the chain no longer contained row {seq}, which was written before; rows are missing"


class AuditKeys(Protocol):
    """The keys of the chain, each derived from a root; a rotation adds a root."""

    @property
    def root(self) -> int:
        """The newest root that is known, whose key is used."""

    async def audit_key(self, root: int) -> bytes | None:
        """Return the key of this root, reading roots that other processes have added."""


async def seal_empty(connection: AsyncConnection, keys: AuditKeys) -> None:
    """Store the head mark of the empty chain in a new database."""
    await _put(connection, keys, HEAD, GENESIS)


async def lock_marks(connection: AsyncConnection, keys: AuditKeys) -> dict[str, Mark]:
    """Keep other processes from appending, and return the marks whose seals are valid."""
    marks = {}
    for name in (HEAD, BASE):
        mark, is_sealed_mark = await _read_mark(connection, keys, name, lock=True)
        if is_sealed_mark and mark is not GENESIS:
            marks[name] = mark
    return marks


async def seal_marks(
    connection: AsyncConnection, keys: AuditKeys, marks: Mapping[str, Mark]
) -> None:
    """Seal marks again, under the newest root."""
    for name, mark in marks.items():
        await _put(connection, keys, name, mark)


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows retention has deleted, and the last of them."""

    rows: int
    last: int


class AuditLog:
    """The hash chain of the audit; a lock on the head mark serializes the processes.

    It remembers the newest head that it has seen. An older head is sealed as well, so without this
    memory rows could be removed at the end by setting the head mark back.
    """

    def __init__(self, database: Database, keys: AuditKeys) -> None:
        self._database = database
        self._keys = keys
        self._seen = GENESIS
        self._break: Finding | None = None

    def remember(self, mark: Mark) -> None:
        """Remember a head that the chain had; later heads must follow it."""
        if mark.seq > self._seen.seq:
            self._seen = mark

    def take_break(self) -> Finding | None:
        """Return the last break row that was appended since the last call."""
        taken, self._break = self._break, None
        return taken

    async def append(self, rows: Iterable[Row]) -> Mark:
        """Append the rows in one transaction, durable on return; return the new head."""
        async with self._database.writing() as connection:
            mark, broken = await self._append_in(connection, rows)
        self.remember(mark)
        self._break = broken or self._break
        return mark

    async def head(self) -> Mark:
        """Return the head; stored elsewhere, it reveals a database that was rolled back."""
        async with self._database.reading() as connection:
            mark, _ = await self._mark(connection, HEAD)
        return mark

    async def verify(self, expected: Mark | None = None) -> list[Finding]:
        """Return every violation of the chain.

        `expected` is a head that was stored earlier; by default the newest one that was seen.
        """
        expected = expected or self._seen  # read before the snapshot, which is not older then
        async with self._database.snapshot() as connection:
            head, head_is_sealed = await self._mark(connection, HEAD)
            base, base_is_sealed = await self._mark(connection, BASE)
            findings, last = await self._walk(connection, base, expected)
        if not base_is_sealed:
            findings.insert(0, Finding(base.seq, "the mark of its beginning was changed"))
        if not head_is_sealed:
            findings.append(Finding(head.seq, "the mark of its end was changed"))
        elif last != head:
            findings.append(Finding(last.seq + 1, f"the end is missing, up to row {head.seq}"))
        if expected.seq > max(last.seq, head.seq):
            findings.append(Finding(last.seq + 1, f"ends before the noted row {expected.seq}"))
        return findings

    async def _walk(
        self, connection: AsyncConnection, last: Mark, expected: Mark
    ) -> tuple[list[Finding], Mark]:
        """Verify all rows after `last`; return the findings and the real end of the chain."""
        findings: list[Finding] = []
        root = 0
        while rows := await self._readable_page(connection, last.seq):
            for row in rows:
                findings += verify_row(await self._key_of(row, root), last, row)
                root = row["root"] if isinstance(row.get("root"), int) else root
                last = Mark(row["seq"], row.get("hash", ""))
                if last.seq == expected.seq and last != expected:
                    findings.append(Finding(last.seq, "is not the row that was noted"))
        return findings, last

    async def rows_after(self, seq: int, limit: int) -> list[Row]:
        """Return the rows that follow this one, oldest first."""
        async with self._database.reading() as connection:
            return await self._page(connection, seq, limit)

    async def waiting_after(self, seq: int) -> tuple[int, datetime | None]:
        """Return the number of rows that follow this one, and the time of the oldest."""
        table = records.audit
        query = select(func.count(), func.min(table.c.at)).where(table.c.seq > seq)
        async with self._database.reading() as connection:
            count, oldest = (await connection.execute(query)).one()
        return count, oldest

    async def prune(self, before: datetime) -> Pruned:
        """Delete the rows from before that time. The rest stays verifiable."""
        total = last = 0
        while removed := await self._prune_some(before):
            total, last = total + removed.rows, removed.last
        return Pruned(total, last)

    async def _prune_some(self, before: datetime) -> Pruned | None:
        """Delete at most PRUNE rows and move the base mark to the last of them."""
        table = records.audit
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
                return None
            removed = await connection.execute(table.delete().where(table.c.seq <= end.seq))
            await _put(connection, self._keys, BASE, Mark(end.seq, end.hash))
        return Pruned(int(removed.rowcount), end.seq)

    async def _append_in(
        self, connection: AsyncConnection, rows: Iterable[Row]
    ) -> tuple[Mark, Finding | None]:
        """Append the rows, after a break row if the chain was tampered with."""
        mark, is_sealed_mark = await self._mark(connection, HEAD, lock=True)
        broken = None
        if not is_sealed_mark or not await self._follows_seen(connection, mark):
            reason = CUT.format(seq=self._seen.seq) if is_sealed_mark else MARK_CHANGED
            log.error("The audit was tampered with, %s: run `pvemcp audit verify`", reason)
            # without a break row, the new seal would hide that rows may have been removed
            top = await connection.scalar(select(func.max(records.audit.c.seq)))
            mark = Mark(max(mark.seq, top or 0, self._seen.seq), mark.hash)
            broken = Finding(mark.seq + 1, reason)
            rows = [{"kind": "break", "call_id": "", "reason": reason, "at": utc_now()}, *rows]
        root, key = await _newest(self._keys)
        chain = []
        for row in rows:
            full = {**row, "seq": mark.seq + 1, "previous": mark.hash, "root": root}
            full["hash"] = hash_of(key, mark.hash, full)
            chain.append(full)
            mark = Mark(full["seq"], full["hash"])
        if chain:
            names = [column.name for column in records.audit.columns]
            await connection.execute(
                records.audit.insert(), [{name: row.get(name) for name in names} for row in chain]
            )
            await _put(connection, self._keys, HEAD, mark)
        return mark, broken

    async def _follows_seen(self, connection: AsyncConnection, head: Mark) -> bool:
        """Return whether the chain up to this head still contains the head that was seen."""
        seen = self._seen
        if head.seq <= seen.seq:
            return head == seen
        table = records.audit
        hash_ = await connection.scalar(select(table.c.hash).where(table.c.seq == seen.seq))
        if hash_ is None:  # another process wrote more, and retention may have removed the row
            base, _ = await self._mark(connection, BASE)
            return seen.seq <= base.seq
        return bool(hash_ == seen.hash)

    async def _page(self, connection: AsyncConnection, after: int, limit: int = PAGE) -> list[Row]:
        table = records.audit
        query = select(table).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
        return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _readable_page(self, connection: AsyncConnection, after: int) -> list[Row]:
        """Return the rows of a page; of one that cannot be read, such as invalid UTF-8, the seq.

        Otherwise one such row would end the verification of all others.
        """
        try:
            return await self._page(connection, after)
        except DatabaseFailed:
            seq = records.audit.c.seq
            query = select(seq).where(seq > after).order_by(seq).limit(PAGE)
            numbers = (await connection.scalars(query)).all()
            return [await self._readable_row(connection, number) for number in numbers]

    async def _readable_row(self, connection: AsyncConnection, seq: int) -> Row:
        try:
            (row,) = await self._page(connection, seq - 1, 1)
        except DatabaseFailed:
            return {"seq": seq}
        return row

    async def _key_of(self, row: Row, root_before: int) -> bytes | None:
        """Return the key that a row names; None for an older one than the row before it has.

        An attacker who knows an old root must not continue the chain with it.
        """
        root = row.get("root")
        if not isinstance(root, int) or root < root_before:
            return None
        return await self._keys.audit_key(root)

    async def _mark(
        self, connection: AsyncConnection, name: str, *, lock: bool = False
    ) -> tuple[Mark, bool]:
        return await _read_mark(connection, self._keys, name, lock=lock)


async def _read_mark(
    connection: AsyncConnection, keys: AuditKeys, name: str, *, lock: bool = False
) -> tuple[Mark, bool]:
    """Return a mark and whether its seal is valid; by default the chain begins at row 1.

    A seal under another root than the newest one is not valid.
    """
    table = records.audit_marks
    query = select(table).where(table.c.name == name)
    row = (await connection.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        return GENESIS, name == BASE
    if not (isinstance(row.seq, int) and 0 <= row.seq < HIGHEST):
        return GENESIS, False
    mark = Mark(row.seq, row.hash)
    key = await keys.audit_key(row.root)  # read first: it may make a newer root known
    return mark, key is not None and row.root == keys.root and is_sealed(key, name, mark, row.seal)


async def _newest(keys: AuditKeys) -> tuple[int, bytes]:
    root = keys.root
    key = await keys.audit_key(root)
    assert key is not None, "the newest root is known"  # noqa: S101 - keys.root is its own
    return root, key


async def _put(connection: AsyncConnection, keys: AuditKeys, name: str, mark: Mark) -> None:
    table = records.audit_marks
    root, key = await _newest(keys)
    seal = seal_of(key, name, mark)
    values = {"seq": mark.seq, "hash": mark.hash, "root": root, "seal": seal}
    changed = await connection.execute(table.update().where(table.c.name == name).values(**values))
    if not changed.rowcount:
        await connection.execute(table.insert().values(name=name, **values))
