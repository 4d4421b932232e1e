"""The audit table: append to its hash chain, verify it, delete old rows."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import ColumnElement, func, select
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
    violations,
)
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import Database, DatabaseFailed

Row = Mapping[str, Any]
PAGE = 100  # rows to hash before other tasks run: a small page, so that calls do not wait
HIGHEST = 2**62  # numbers beyond it come from no append, and nothing could follow them
PRUNE = 500  # rows to verify and delete in one transaction, while appends wait
STOP = "audit.retention"  # the tool of a break row that reports where retention stopped
log = logging.getLogger(__name__)
BASE_CHANGED = "the mark of its beginning was changed"
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
    """How many rows retention has deleted, the last of them, and the violation it stopped at.

    The violation is None if a row of the chain reports already where retention has stopped.
    """

    rows: int
    last: int
    stopped_at: Finding | None = None


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
            findings[:0] = await self._strays(connection, base)
        if not base_is_sealed:
            findings.insert(0, Finding(base.seq, BASE_CHANGED))
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

    async def _strays(self, connection: AsyncConnection, base: Mark) -> list[Finding]:
        """Return the violation of rows that are in the table and cannot be in the chain."""
        seq = records.audit.c.seq
        query = select(func.count(), func.min(seq)).where(~is_after(seq, base.seq))
        count, lowest = (await connection.execute(query)).one()
        which = "is not verified" if count == 1 else f"is one of {count} that are not verified"
        fact = f"{which}: the chain begins after row {base.seq}"
        return [Finding(lowest if isinstance(lowest, int) else 0, fact)] if count else []

    async def rows_after(self, seq: int, limit: int) -> list[Row]:
        """Return the rows of the chain that follow this one, oldest first."""
        async with self._database.reading() as connection:
            base = await first_of_chain(connection, self._keys)
            return await self._page(connection, max(seq, base), limit)

    async def waiting_after(self, seq: int) -> tuple[int, datetime | None]:
        """Return the number of rows that follow this one, and the time of the oldest."""
        table = records.audit
        async with self._database.reading() as connection:
            base = await first_of_chain(connection, self._keys)
            query = select(func.count(), func.min(table.c.at))
            query = query.where(is_after(table.c.seq, max(seq, base)))
            count, oldest = (await connection.execute(query)).one()
        return count, oldest

    async def prune(self, before: datetime) -> Pruned:
        """Delete the rows from before that time. The rest stays verifiable.

        It stops at a violation, which deleting the row would hide. The caller appends a break row
        with STOP as its tool, which `verify` reports; once that is as old, everything before it
        is deleted: otherwise who changed one row could make the audit fill the disk.
        """
        total = last = 0
        while (pruned := await self._prune_some(before)).rows:
            total, last = total + pruned.rows, pruned.last
        return Pruned(total, last, pruned.stopped_at)

    async def _prune_some(self, before: datetime) -> Pruned:
        """Delete at most PRUNE rows, or all before a STOP, and move the base mark to the last."""
        seq = records.audit.c.seq
        async with self._database.writing() as connection:
            await self._mark(connection, HEAD, lock=True)
            base, is_sealed_base = await self._mark(connection, BASE)
            violation = None if is_sealed_base else Finding(base.seq, BASE_CHANGED)
            base = end = base if is_sealed_base else GENESIS
            stop = await self._stop(connection, base)
            if stop is not None and stop["at"] < before:
                end, violation = Mark(stop["seq"] - 1, stop["previous"]), None
            elif is_sealed_base:
                end, violation = await self._old_rows(connection, base, before)
            if end == base:
                return Pruned(0, base.seq, None if stop else violation)
            where = is_after(seq, base.seq) & (seq <= end.seq)
            removed = await connection.execute(records.audit.delete().where(where))
            await _put(connection, self._keys, BASE, end)
        return Pruned(int(removed.rowcount), end.seq)

    async def _old_rows(
        self, connection: AsyncConnection, base: Mark, before: datetime
    ) -> tuple[Mark, Finding | None]:
        """Return the last row that can be deleted, and the violation that comes after it."""
        last, root = base, 0
        for row in await self._readable_page(connection, base.seq, PRUNE):
            if found := violations(await self._key_of(row, root), last, row):
                return last, found[0]
            if row["at"] >= before:
                break
            last, root = Mark(row["seq"], row["hash"]), row["root"]
        return last, None

    async def _stop(self, connection: AsyncConnection, base: Mark) -> Row | None:
        """Return the oldest row in which the chain itself reports where retention has stopped."""
        table = records.audit
        query = select(table.c.seq).where(is_after(table.c.seq, base.seq + 1))
        query = query.where(table.c.kind == "break", table.c.tool == STOP).order_by(table.c.seq)
        for seq in (await connection.scalars(query)).all():
            row = await self._readable_row(connection, seq)
            key = await self._key_of(row, 0)
            if not violations(key, Mark(seq - 1, row.get("previous", "")), row):
                return row
        return None

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
            seq = records.audit.c.seq
            top = await connection.scalar(select(func.max(seq)).where(is_after(seq, mark.seq)))
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
            return seen.seq <= await first_of_chain(connection, self._keys)
        return bool(hash_ == seen.hash)

    async def _page(self, connection: AsyncConnection, after: int, limit: int = PAGE) -> list[Row]:
        table = records.audit
        query = select(table).where(is_after(table.c.seq, after)).order_by(table.c.seq).limit(limit)
        return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _readable_page(
        self, connection: AsyncConnection, after: int, limit: int = PAGE
    ) -> list[Row]:
        """Return the rows of a page; of one that cannot be read, such as invalid UTF-8, the seq.

        Otherwise one such row would end the verification of all others.
        """
        try:
            return await self._page(connection, after, limit)
        except DatabaseFailed:
            seq = records.audit.c.seq
            query = select(seq).where(is_after(seq, after)).order_by(seq).limit(limit)
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


def is_after(seq: ColumnElement[int], number: int) -> ColumnElement[bool]:
    """Match the rows after this one; not those of a type that SQLite sorts after all numbers."""
    return (seq > number) & (seq < HIGHEST)


async def first_of_chain(connection: AsyncConnection, keys: AuditKeys) -> int:
    """Return the number of the row after which the chain begins; 0 for a mark that was changed."""
    base, is_sealed_mark = await _read_mark(connection, keys, BASE)
    return base.seq if is_sealed_mark else 0


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
