"""The audit table: append to its hash chain, verify it, delete old rows."""

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import anyio.lowlevel
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import counted
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
from pvemcp_server.store.database import MOST_LOSSES, Database, DatabaseFailed, is_outage

Row = Mapping[str, Any]
PAGE = 100  # rows to hash before other tasks run: a small page, so that calls do not wait
HIGHEST = 2**62  # numbers beyond it come from no append, and nothing could follow them
PRUNE = 500  # rows to verify and delete in one transaction
STOP = "audit.retention"  # the tool of a break row that reports where retention stopped
log = logging.getLogger(__name__)
BASE_CHANGED = "the mark of its beginning was changed"
MARK_CHANGED = "the mark of the chain's end was changed; rows before this one may be missing"
ADDED = "{count} added after the end of the chain, the first as row {seq}; they were removed"
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

    async def append(self, rows: Collection[Row]) -> Mark:
        """Append the rows in one transaction, durable on return; return the new head.

        If PostgreSQL is lost, they are appended again when it is back. A commit that was under
        way may have succeeded, so rows that are there already are left out then.
        """
        for losses in range(MOST_LOSSES + 1):
            try:
                async with self._database.writing() as connection:
                    missing = await self._missing(connection, rows) if losses else rows
                    mark, broken = await self._append_in(connection, missing)
                break
            except DatabaseFailed as error:
                is_last = losses == MOST_LOSSES or self._database.is_sqlite
                if is_last or not is_outage(error):
                    raise
        self.remember(mark)
        self._break = broken or self._break
        return mark

    async def check_writable(self) -> None:
        """Write the mark of the head as it is; raise the database's error if that fails."""
        table = records.audit_marks
        async with self._database.writing() as connection:
            same = {"seq": table.c.seq}
            await connection.execute(table.update().where(table.c.name == HEAD).values(same))

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
            end = await self._end(connection, head, is_sealed_head=head_is_sealed)
            findings, last = await self._walk(connection, base, end.seq, expected)
            findings[:0] = await self._strays(connection, base.seq, end.seq)
        if not base_is_sealed:
            findings.insert(0, Finding(base.seq, BASE_CHANGED))
        if not head_is_sealed:
            findings.append(Finding(head.seq, "the mark of its end was changed"))
        elif end != head:
            findings.append(Finding(head.seq + 1, "comes after the mark of the chain's end"))
        elif last != head:
            findings.append(Finding(last.seq + 1, f"the end is missing, up to row {head.seq}"))
        if expected.seq > max(last.seq, end.seq):
            findings.append(Finding(last.seq + 1, f"ends before the noted row {expected.seq}"))
        return findings

    async def _walk(
        self, connection: AsyncConnection, last: Mark, end: int, expected: Mark
    ) -> tuple[list[Finding], Mark]:
        """Verify the rows after `last` up to `end`; return the findings and the last row."""
        findings: list[Finding] = []
        root = 0
        while rows := await self._readable_page(connection, last.seq, end):
            for row in rows:
                findings += verify_row(await self._key_of(row, root), last, row)
                root = row["root"] if isinstance(row.get("root"), int) else root
                last = Mark(row["seq"], row.get("hash", ""))
                if last.seq == expected.seq and last != expected:
                    findings.append(Finding(last.seq, "is not the row that was noted"))
        return findings, last

    async def _strays(self, connection: AsyncConnection, first: int, last: int) -> list[Finding]:
        """Return the violation of rows that are in the table and cannot be in the chain."""
        seq = records.audit.c.seq
        query = select(func.count(), func.min(seq)).where(~is_between(seq, first, last))
        count, lowest = (await connection.execute(query)).one()
        which = "is not verified" if count == 1 else f"is one of {count} that are not verified"
        fact = f"{which}: the chain begins after row {first} and ends with row {last}"
        return [Finding(lowest if isinstance(lowest, int) else 0, fact)] if count else []

    async def bounds(self, connection: AsyncConnection) -> tuple[int, int]:
        """Return the number of the row after which the chain begins, and of the one it ends with.

        Only rows between them are of the chain: a writer to the database can add others.
        """
        head, is_sealed_head = await self._mark(connection, HEAD)
        if not is_sealed_head:
            head = await self._end(connection, head, is_sealed_head=False)
        return (await self._base(connection)).seq, head.seq

    async def _base(self, connection: AsyncConnection) -> Mark:
        """Return the mark of the beginning; for one that was changed, that of a whole chain."""
        base, is_sealed_base = await self._mark(connection, BASE)
        return base if is_sealed_base else GENESIS

    async def _end(self, connection: AsyncConnection, head: Mark, *, is_sealed_head: bool) -> Mark:
        """Return the real end of the chain: the head, or the last row that has a hash of ours.

        Rows follow a sealed head only if an older mark was put back, or if they are none of ours.
        Without a sealed head the rows themselves have to say where the chain ends. Under an older
        root than another row has, a row is none of ours (see `_key_of`).
        """
        known = head if is_sealed_head else await self._base(connection)
        end, root = known, self._keys.root if is_sealed_head else 0
        seq = records.audit.c.seq
        rest = is_after(seq, known.seq)
        while rows := await self._readable(connection, rest, seq.desc()):
            for row in rows:
                key = await self._key_of(row, root)
                if key is None or row["hash"] != hash_of(key, row["previous"], row):
                    continue
                end = Mark(row["seq"], row["hash"])
                if row["root"] == self._keys.root:
                    return end
                root = row["root"] + 1
            rest = is_after(seq, known.seq) & (seq < rows[-1]["seq"])
        return end

    async def rows_after(self, seq: int, limit: int) -> list[Row]:
        """Return the rows of the chain that follow this one, oldest first."""
        async with self._database.reading() as connection:
            first, last = await self.bounds(connection)
            return await self._page(connection, max(seq, first), last, limit)

    async def waiting_after(self, seq: int) -> tuple[int, datetime | None]:
        """Return the number of rows that follow this one, and the time of the oldest."""
        table = records.audit
        async with self._database.reading() as connection:
            first, last = await self.bounds(connection)
            query = select(func.count(), func.min(table.c.at))
            query = query.where(is_between(table.c.seq, max(seq, first), last))
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
            # appends go on: they read and write nothing at the beginning of the chain
            base, is_sealed_base = await self._mark(connection, BASE, lock=True)
            _, head = await self.bounds(connection)
            violation = None if is_sealed_base else Finding(base.seq, BASE_CHANGED)
            base = end = base if is_sealed_base else GENESIS
            stop = await self._stop(connection, base, head)
            if stop is not None and stop["at"] < before:
                end, violation = Mark(stop["seq"] - 1, stop["previous"]), None
            elif is_sealed_base:
                end, violation = await self._old_rows(connection, base, head, before)
            if end == base:
                return Pruned(0, base.seq, None if stop else violation)
            where = is_between(seq, base.seq, end.seq)
            removed = await connection.execute(records.audit.delete().where(where))
            await _put(connection, self._keys, BASE, end)
        return Pruned(int(removed.rowcount), end.seq)

    async def _old_rows(
        self, connection: AsyncConnection, base: Mark, head: int, before: datetime
    ) -> tuple[Mark, Finding | None]:
        """Return the last row that can be deleted, and the violation that comes after it."""
        last, root = base, 0
        rows = await self._readable_page(connection, base.seq, head, PRUNE)
        for number, row in enumerate(rows):
            if number % PAGE == 0:
                await anyio.lowlevel.checkpoint()  # calls of this process have their turn
            if found := violations(await self._key_of(row, root), last, row):
                return last, found[0]
            if row["at"] >= before:
                break
            last, root = Mark(row["seq"], row["hash"]), row["root"]
        return last, None

    async def _stop(self, connection: AsyncConnection, base: Mark, head: int) -> Row | None:
        """Return the oldest row in which the chain itself reports where retention has stopped."""
        table = records.audit
        query = select(table.c.seq).where(is_between(table.c.seq, base.seq + 1, head))
        query = query.where(table.c.kind == "break", table.c.tool == STOP).order_by(table.c.seq)
        for seq in (await connection.scalars(query)).all():
            row = await self._readable_row(connection, seq)
            key = await self._key_of(row, 0)
            if not violations(key, Mark(seq - 1, row.get("previous", "")), row):
                return row
        return None

    async def _missing(self, connection: AsyncConnection, rows: Collection[Row]) -> list[Row]:
        """Return the rows that are not in the table; keep other processes from appending."""
        await self._mark(connection, HEAD, lock=True)
        # with the time: a call may have several rows of a kind, as its user was asked twice
        columns = [records.audit.c[name] for name in ("call_id", "kind", "at")]
        query = select(*columns).where(columns[0].in_({row["call_id"] for row in rows}))
        present = {tuple(row) for row in await connection.execute(query)}
        return [row for row in rows if (row["call_id"], row["kind"], row["at"]) not in present]

    async def _append_in(
        self, connection: AsyncConnection, rows: Iterable[Row]
    ) -> tuple[Mark, Finding | None]:
        """Append the rows, after a break row if the chain was tampered with.

        Rows added after its end are removed, because the next rows need their numbers.
        """
        head, is_sealed_head = await self._mark(connection, HEAD, lock=True)
        mark, added, broken, reasons = head, "", None, []
        if not is_sealed_head or await self._has_rows_after(connection, head.seq):
            mark = await self._end(connection, head, is_sealed_head=is_sealed_head)
            added = await self._remove_after(connection, mark.seq)
        # without a break row, the new seal would hide that rows may have been removed
        if not is_sealed_head or mark != head:
            reasons.append(MARK_CHANGED)
        if is_sealed_head and not await self._follows_seen(connection, mark):
            reasons.append(CUT.format(seq=self._seen.seq))
        if added:
            reasons.append(added)
        if reasons:
            reason = "; ".join(reasons)
            log.error("The audit was tampered with, %s: run `pvemcp audit verify`", reason)
            mark = Mark(max(mark.seq, self._seen.seq), mark.hash)
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

    async def _has_rows_after(self, connection: AsyncConnection, number: int) -> bool:
        seq = records.audit.c.seq
        query = select(seq).where(is_after(seq, number)).limit(1)
        return await connection.scalar(query) is not None

    async def _remove_after(self, connection: AsyncConnection, end: int) -> str:
        """Remove the rows after the end of the chain; return what a break row says of them."""
        seq = records.audit.c.seq
        query = select(func.count(), func.min(seq)).where(is_after(seq, end))
        count, lowest = (await connection.execute(query)).one()
        if not count:
            return ""
        await connection.execute(records.audit.delete().where(is_after(seq, end)))
        return ADDED.format(count=counted(count, "row"), seq=lowest)

    async def _follows_seen(self, connection: AsyncConnection, head: Mark) -> bool:
        """Return whether the chain up to this head still contains the head that was seen."""
        seen = self._seen
        if head.seq <= seen.seq:
            return head == seen
        table = records.audit
        hash_ = await connection.scalar(select(table.c.hash).where(table.c.seq == seen.seq))
        if hash_ is None:  # another process wrote more, and retention may have removed the row
            return seen.seq <= (await self._base(connection)).seq
        return bool(hash_ == seen.hash)

    async def _page(
        self, connection: AsyncConnection, after: int, last: int, limit: int = PAGE
    ) -> list[Row]:
        seq = records.audit.c.seq
        query = select(records.audit).where(is_between(seq, after, last))
        query = query.order_by(seq).limit(limit)
        return [dict(row) for row in (await connection.execute(query)).mappings()]

    async def _readable_page(
        self, connection: AsyncConnection, after: int, last: int, limit: int = PAGE
    ) -> list[Row]:
        seq = records.audit.c.seq
        return await self._readable(connection, is_between(seq, after, last), seq, limit)

    async def _readable(
        self,
        connection: AsyncConnection,
        which: ColumnElement[bool],
        order: ColumnElement[int],
        limit: int = PAGE,
    ) -> list[Row]:
        """Return the rows of a page; of one that cannot be read, such as invalid UTF-8, the seq.

        Otherwise one such row would end the verification of all others.
        """
        table = records.audit
        query = select(table).where(which).order_by(order).limit(limit)
        try:
            return [dict(row) for row in (await connection.execute(query)).mappings()]
        except DatabaseFailed:
            numbers = (await connection.scalars(query.with_only_columns(table.c.seq))).all()
            return [await self._readable_row(connection, number) for number in numbers]

    async def _readable_row(self, connection: AsyncConnection, seq: int) -> Row:
        table = records.audit
        try:
            query = select(table).where(table.c.seq == seq)
            return dict((await connection.execute(query)).mappings().one())
        except DatabaseFailed:
            return {"seq": seq}

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


def is_between(seq: ColumnElement[int], after: int, last: int) -> ColumnElement[bool]:
    """Match the rows after one, up to the last."""
    return (seq > after) & (seq <= last)


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
