"""The guard of the audit chain: note its head outside the database, and verify it every day."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic

import anyio

from pvemcp_server.store import Store
from pvemcp_server.store.audit_chain import GENESIS, Finding
from pvemcp_server.store.background import ticks

NOTE_SECONDS = 60.0
LOG_SECONDS = 3600.0  # between two lines of the log with the head, for a log that is kept elsewhere
VERIFY_SECONDS = 24 * 3600.0
NOTICE = "audit-broken"
log = logging.getLogger(__name__)


class AuditGuard:
    """Notes the head, in `audit.head` and more rarely in the log, and reports violations.

    Only a server runs it; commands use the head that it noted.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._noted = self._logged = GENESIS
        self._logged_at = monotonic()
        self._reported: Sequence[Finding] = ()

    async def run(self, stop: anyio.Event) -> None:
        """Verify at once and every day, note the head each minute, until `stop` is set.

        The log has the last head at the end, whenever the one before was written.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._verify_daily)
            async for _ in ticks(stop, NOTE_SECONDS):
                await self._without_failing(self.note_head)
            self._log_head()
            tasks.cancel_scope.cancel()

    async def note_head(self) -> None:
        """Write the head to its file, once an hour to the log, and report a break of the chain."""
        # nothing to append: it only continues a chain that was cut with a row that says so
        head = await self._store.audit_log.append([])
        if (broken := self._store.audit_log.take_break()) is not None:
            await self._report([broken])
        if head != self._noted:
            await anyio.to_thread.run_sync(self._store.audit_head.write, head)
            self._noted = head
        if monotonic() - self._logged_at >= LOG_SECONDS:
            self._log_head()

    def _log_head(self) -> None:
        if self._noted != self._logged:
            log.info("The audit ends at %s", self._noted)
        self._logged, self._logged_at = self._noted, monotonic()

    async def verify(self) -> None:
        """Verify the whole chain, and report violations that were not reported before."""
        findings = await self._store.audit_log.verify()
        if findings and findings != self._reported:
            self._reported = findings
            await self._report(findings)

    async def _verify_daily(self) -> None:
        while True:
            await self._without_failing(self.verify)
            await anyio.sleep(VERIFY_SECONDS)

    async def _report(self, findings: Sequence[Finding]) -> None:
        first = f"row {findings[0].seq}: {findings[0].fact}"
        log.error("The audit was tampered with: %s", first)
        message = f"The audit was tampered with, {first}. `pvemcp audit verify` lists all findings."
        await self._store.notices.record(NOTICE, "chain", message)

    async def _without_failing(self, work: Callable[[], Awaitable[None]]) -> None:
        """Log a failure: the database may answer again the next time."""
        try:
            await work()
        except Exception:
            log.warning("The audit's chain could not be checked or noted", exc_info=True)
