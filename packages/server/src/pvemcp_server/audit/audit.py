"""The audit writer: events, and how they are stored: intents before the write, others batched."""

import asyncio
import json
import logging
import math
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

import anyio

from pvemcp_server.audit.mask import mask, mask_text
from pvemcp_server.audit.reader import AuditReader, Kind
from pvemcp_server.errors import Unrecorded, counted
from pvemcp_server.networks import network_of
from pvemcp_server.store import Store
from pvemcp_server.store.audit_chain import Finding
from pvemcp_server.store.audit_log import STOP
from pvemcp_server.store.background import housekeeping, ticks
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import waits

FLUSH_SECONDS = 0.5
MINUTE_SECONDS = 60
MOST_BUFFERED = 2_000  # events; beyond it calls wait for the database or are refused
PRUNE_SECONDS = 3600
JUMP_SECONDS = 24 * 3600  # by which the clock has to differ from the time that has passed
DOWN_SECONDS = 30 * 24 * 3600  # since the newest entry, beyond which a start counts as a jump
SETTLED_SECONDS = 24 * 3600  # after a jump, before entries are deleted by the new time
ANONYMOUS_PER_MINUTE = 200  # attempts without a known key or administrator, of all addresses
ADDRESS_PER_MINUTE = 20  # of those, from one address or IPv6 /64
NAMED_PER_MINUTE = 20  # attempts as one key or administrator for one reason, of all addresses
LONGEST_TEXT = 1_000
LONGEST_BULK_TEXT = 5_000  # of what names every guest or task of a bulk write
LONGEST_ARGUMENTS = 16_000
Targets = Callable[[], Collection[str]]
_BLANK = re.compile(r"\s+")
current_call: Final[ContextVar[str]] = ContextVar("pvemcp_current_call", default="")
"""The `call_id` of the call that runs in this context."""
log = logging.getLogger(__name__)


class Outcome(StrEnum):
    """How a call ended, or the confirmation of one."""

    OK = "ok"
    ERROR = "error"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    # of the confirmation of a call
    ACCEPTED = "accepted"
    DECLINED = "declined"
    NO_ANSWER = "no answer"
    # of a call that its user has to answer first, or an administrator has to approve
    WAITING = "waiting"
    USED = "used"  # the approval


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A call, an attempt or a change.

    `arguments` are masked already, because only the caller knows the secret fields of its model;
    values that look like a secret are masked here again.
    """

    tool: str
    key_id: str | None = None
    key_name: str | None = None
    address: str | None = None
    client: str | None = None
    acting: str | None = None
    cluster: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    reason: str | None = None
    rows: int | None = None
    bytes: int | None = None
    duration_ms: int | None = None
    upid: str | None = None
    call_id: str | None = None  # the same in the lines of the log; a new one when None

    def row(self, kind: Kind, at: datetime, call_id: str | None = None) -> dict[str, Any]:
        """Return the row to store: limited in length, valid text and without secrets."""
        # surrogates are replaced: no other encoder takes them
        arguments = _to_json(mask(self.arguments)).encode("utf-8", "replace").decode()
        if len(arguments) > LONGEST_ARGUMENTS:
            arguments = _to_json({"cut": arguments[:LONGEST_ARGUMENTS]})
        return {
            "kind": kind.value,
            "call_id": call_id or self.call_id or uuid4().hex,
            "at": at,
            "key_id": _short(self.key_id, 8),
            "key_name": _short(self.key_name),
            "address": _short(self.address, 64),
            "client": _short(self.client),
            "acting": _short(self.acting),
            "tool": _short(self.tool),
            "cluster": _short(self.cluster),
            "arguments": arguments,
            "outcome": self.outcome and self.outcome.value,
            "reason": _short(self.reason, LONGEST_BULK_TEXT),
            "rows": self.rows,
            "bytes": self.bytes,
            "duration_ms": self.duration_ms,
            "upid": _short(self.upid, LONGEST_BULK_TEXT),
        }


_Attempt = tuple[str, str | None, str | None, str | None]  # tool, key, name and reason
_SIGN_IN: Final = "sign in"
_REQUEST: Final = "request"
_ANONYMOUS: Final[_Attempt] = (_SIGN_IN, None, None, "no known key or administrator")


_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str).encode


def _short(text: str | None, longest: int = LONGEST_TEXT) -> str | None:
    """Mask and shorten the text, as one line without characters that terminals obey.

    Databases reject surrogates and NUL; an export would bring the others to a terminal.
    """
    if text is None:
        return None
    clean = mask_text(text)
    if not clean.isprintable():
        clean = "".join(
            letter if letter.isprintable() else "�" for letter in _BLANK.sub(" ", clean)
        )
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows to store in one transaction; `stored` resolves to the error, or None.

    With `keep`, the rows return to the buffer when that fails, also after the caller was cancelled.
    """

    rows: list[dict[str, Any]]
    stored: asyncio.Future[Exception | None]
    keep: bool = False


class ClockGuard:
    """Notices jumps of the clock: by a wrong one, retention would delete the whole audit."""

    def __init__(
        self, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._offset = self._present_offset()
        self._jumped = -math.inf  # on the monotonic clock

    def begin(self, newest: datetime | None) -> None:
        """Take a long time since the newest entry, or an unknown one, for a jump.

        The clock may have jumped while no process ran.
        """
        if newest is None or abs((self._clock() - newest).total_seconds()) > DOWN_SECONDS:
            self._jumped = self._monotonic()

    def is_steady(self) -> bool:
        """Return whether the clock has not jumped within SETTLED_SECONDS."""
        offset = self._present_offset()
        if abs(offset - self._offset) > JUMP_SECONDS:
            self._jumped = self._monotonic()
            log.error(
                "The clock has jumped by %.0f hours: retention deletes no entry of the audit for a "
                "day, in which a wrong clock can be corrected",
                (offset - self._offset) / 3600,
            )
        self._offset = offset
        return self._monotonic() - self._jumped >= SETTLED_SECONDS

    def _present_offset(self) -> float:
        return self._clock().timestamp() - self._monotonic()


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
        self._recorded: Counter[_Attempt | str] = Counter()  # in this minute, also by network
        self._further: Counter[_Attempt] = Counter()
        self.observers: list[Callable[[Event], None]] = []  # of the end of calls, for figures

    @property
    def buffered(self) -> int:
        """The number of entries that wait to be written."""
        return len(self._buffer)

    @property
    def is_failing(self) -> bool:
        """Whether the last entries could not be written."""
        return not self._answers

    async def intent(self, event: Event, call_id: str | None = None) -> str:
        """Store that a write is about to happen; raise Unrecorded if it cannot be stored.

        It is also stored if the caller is cancelled while it waits: `call_id`, which is returned,
        is for those that have to record the end of the write then.
        """
        call_id = call_id or uuid4().hex
        await self._store_rows([event.row(Kind.INTENT, self._clock(), call_id)])
        return call_id

    async def outcome(self, call_id: str, event: Event) -> None:
        """Store how the write ended; buffer it while the database does not answer."""
        with suppress(Unrecorded):
            row = event.row(Kind.OUTCOME, self._clock(), call_id)
            if self.observers:
                self._observe(event)
            await self._store_rows([row], keep=True)

    async def call(self, event: Event, kind: Kind = Kind.CALL) -> None:
        """Buffer a finished read, durable within a second; raise Unrecorded if it is full."""
        row = event.row(kind, self._clock())
        if len(self._buffer) >= MOST_BUFFERED:
            try:
                await self.flush()
            except asyncio.CancelledError:
                self._buffer.append(row)  # no client hides an entry by cancelling here
                raise
        self._buffer.append(row)
        if self.observers:
            self._observe(event)

    def _observe(self, event: Event) -> None:
        """Show the end of a call to the observers; one that fails costs its own figures only."""
        for observe in self.observers:
            try:
                observe(event)
            except Exception:
                log.exception("A call was not counted")

    async def refused(self, event: Event) -> None:
        """Buffer the refused attempt of a known caller; drop it when the buffer is full."""
        with suppress(Unrecorded):
            await self.call(event, Kind.REFUSED)

    async def refused_sign_in(self, event: Event) -> None:
        """Buffer a refused attempt to authenticate; beyond a limit, only count it.

        Strangers with many addresses must not fill the disk: with no name they have
        ANONYMOUS_PER_MINUTE together, of which each network has ADDRESS_PER_MINUTE and hides none
        of the others, and in the name of each key or administrator NAMED_PER_MINUTE for each
        reason. So wrong secrets hide no use of the right one of a key that is disabled.
        """
        attempt: _Attempt = (_SIGN_IN, event.key_id, event.key_name, event.reason)
        most: dict[_Attempt | str, int] = {attempt: NAMED_PER_MINUTE}
        if event.key_id is None and event.key_name is None:
            attempt, network = _ANONYMOUS, network_of(event.address or "")
            most = {attempt: ANONYMOUS_PER_MINUTE, network: ADDRESS_PER_MINUTE}
        if any(self._recorded[each] >= limit for each, limit in most.items()):
            self._further[attempt] += 1
            if self.observers:
                self._observe(event)
            return
        self._recorded.update(most.keys())
        await self.refused(event)

    def count_limited(self, key_id: str, key_name: str, reason: str) -> None:
        """Count a request of a known key that a limit refused: a minute has one row for a reason.

        So the flood of a key shows, and does not fill the audit.
        """
        self._further[_REQUEST, key_id, key_name, reason] += 1

    async def decision(self, event: Event) -> None:
        """Store the answer to a confirmation before returning; raise Unrecorded on failure."""
        await self._store_rows([event.row(Kind.DECISION, self._clock())])

    async def admin(self, event: Event) -> None:
        """Store a change by an administrator before returning; raise Unrecorded on failure."""
        await self._store_rows([event.row(Kind.ADMIN, self._clock())])

    async def flush(self) -> None:
        """Store the buffered events; keep them and raise Unrecorded when that fails."""
        rows, self._buffer = self._buffer, []
        if not rows:
            if self._writer is not None:  # another flush may be storing them
                await asyncio.shield(self._writer)
            return
        await self._store_rows(rows, keep=True)

    async def prune(self, days: int, targets: Collection[str] = ()) -> int:
        """Delete entries older than so many days; return the number of rows.

        A violation of the chain stops it: it is recorded in the chain and becomes a notice.
        `targets` are the receivers that the audit is forwarded to. Rows that one of them has not
        got yet are deleted too, so that a receiver that never comes back does not fill the disk;
        the retention row, a notice and the log say so.
        """
        positions = {name: await self._store.audit_targets.position(name) for name in targets}
        pruned = await self._log.prune(self._clock() - timedelta(days=days))
        reason = f"older than {counted(days, 'day')}"
        for name, forwarded in positions.items():
            if lost := max(0, min(pruned.rows, pruned.last - forwarded)):
                reason += f"; not forwarded to {name}: {counted(lost, 'row')}"
                await self._report_lost(name, lost)
        if pruned.rows:
            event = Event(tool=STOP, reason=reason, rows=pruned.rows)
            await self._log.append([event.row(Kind.RETENTION, self._clock())])
        if pruned.stopped_at is not None:
            await self._report_stop(pruned.stopped_at)
        return pruned.rows

    async def _report_stop(self, violation: Finding) -> None:
        reason = f"retention stopped at row {violation.seq}: {violation.fact}"
        log.error("The audit was tampered with: %s", reason)
        event = Event(tool=STOP, reason=reason)
        await self._log.append([event.row(Kind.BREAK, self._clock())])
        message = (
            f"The audit was tampered with, {reason}. `pvemcp audit verify` lists all findings."
        )
        await self._store.notices.record("audit-broken", "retention", message)

    async def _report_lost(self, target: str, lost: int) -> None:
        log.error("Retention deleted %d rows of the audit not forwarded to %s", lost, target)
        message = (
            f"Retention deleted {counted(lost, 'row')} of the audit not forwarded to {target}."
        )
        await self._store.notices.record("audit-not-forwarded", f"{target}: deleted", message)

    async def run_housekeeping(
        self, stop: anyio.Event, retention_days: Callable[[], int], targets: Targets
    ) -> None:
        """Flush every half second, and a last time after `stop` is set; prune every hour."""
        pruned = counted_until = anyio.current_time()
        guard = ClockGuard(self._clock)
        guard.begin(await self._newest())
        async for _ in ticks(stop, FLUSH_SECONDS):
            if anyio.current_time() - counted_until >= MINUTE_SECONDS or stop.is_set():
                counted_until = anyio.current_time()
                await self.end_minute()
            with suppress(Unrecorded):  # the events stay in the buffer, and the failure is logged
                await self.flush()
            if self.is_failing and not self._buffer:
                await self._try_to_write()
            if anyio.current_time() - pruned >= PRUNE_SECONDS:
                pruned = anyio.current_time()
                if guard.is_steady():
                    await self._prune_if_possible(retention_days(), targets())
        if self._buffer:
            log.error("%d entries of the audit could not be stored", len(self._buffer))

    async def _try_to_write(self) -> None:
        """Look whether the audit can be written again, as no entry waits that would show it."""
        with suppress(Exception):  # the failure itself was logged
            await self._log.check_writable()
            self._answers = True

    async def end_minute(self) -> None:
        """Record the counts of attempts and requests of this minute, and begin the next one."""
        attempts, self._further, self._recorded = self._further, Counter(), Counter()
        for (tool, key_id, key_name, reason), number in attempts.items():
            what = "further attempt" if tool == _SIGN_IN else "request"
            event = Event(
                tool=tool,
                key_id=key_id,
                key_name=key_name,
                outcome=Outcome.REFUSED,
                reason=f"{counted(number, what)}: {reason}",
                rows=number,
            )
            await self.refused(event)

    async def _newest(self) -> datetime | None:
        """Return the time of the newest entry; None when it is not known."""
        try:
            return next((entry.at for entry in await self.find(limit=1)), self._clock())
        except Exception:
            log.warning("The newest entry of the audit cannot be read", exc_info=True)
            return None

    async def _prune_if_possible(self, days: int, targets: Collection[str]) -> None:
        try:
            await self.prune(days, targets)
        except Exception:
            log.warning("Old entries of the audit could not be removed", exc_info=True)

    async def _store_rows(self, rows: list[dict[str, Any]], *, keep: bool = False) -> None:
        """Store the rows; rows of concurrent calls share a transaction (group commit).

        Raise Unrecorded when that fails; with `keep`, the rows are in the buffer then.

        A separate task writes them. A call that is cancelled while its rows are being written must
        not cancel the transaction, because it may contain the rows of other calls. So every caller
        awaits its batch's future behind a shield, and the writer resolves it in any case.
        """
        batch = _Batch(rows, asyncio.get_running_loop().create_future(), keep)
        self._waiting.append(batch)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        error = await asyncio.shield(batch.stored)
        if error is not None:
            raise Unrecorded from error

    async def _write_waiting(self) -> None:
        waits.set(True)  # also for the housekeeping, as calls join its transaction
        while self._waiting:
            batches, self._waiting = self._waiting, []
            error = await self._append([row for batch in batches for row in batch.rows])
            if error is not None:
                self._buffer[:0] = [row for batch in batches if batch.keep for row in batch.rows]
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
async def open_audit(
    store: Store, retention_days: Callable[[], int], targets: Targets = tuple
) -> AsyncIterator[Audit]:
    """Open the audit with its housekeeping: a flush every half second, retention every hour.

    `targets` returns the names of the receivers that the audit is forwarded to.
    """
    audit = Audit(store)

    async def run_housekeeping(stop: anyio.Event) -> None:
        await audit.run_housekeeping(stop, retention_days, targets)

    async with housekeeping(run_housekeeping):
        yield audit
