"""The forwarder: sends the rows of the audit to its receivers, each row at least once.

The audit table is the queue. A receiver's position, the seq of the last row that it has, is stored
and advances after a batch was delivered, so what could not be delivered is sent later. Of several
processes the one that holds the receiver's lease sends; a lease that ends while a batch is being
sent can only repeat rows.
"""

import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import uuid4

import anyio

from proxmox_client import tls_reason
from pvemcp_server.audit.json_lines import Row
from pvemcp_server.store import Store
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.database import DatabaseFailed

SYSLOG, FILE = "syslog", "file"
TARGETS: Final = (SYSLOG, FILE)  # their names, in settings and messages
POLL_SECONDS: Final = 1.0
BATCH: Final = 200
SEND_SECONDS: Final = 20
LEASE: Final = timedelta(seconds=60)
LONGEST_BACKOFF: Final = timedelta(seconds=60)
FAILURES_BEFORE_NOTICE: Final = 3
NOTICE: Final = "audit-not-forwarded"
log = logging.getLogger(__name__)


class Receiver(Protocol):
    """A receiver of the audit; two with the same address and options are equal."""

    @property
    def address(self) -> str:
        """Where the rows are sent, for pages and messages."""

    def send(self, rows: Sequence[Row]) -> None:
        """Deliver the rows, blocking; raise OSError when some may not have arrived."""


Receivers = Callable[[], Mapping[str, Receiver]]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a receiver has got."""

    target: str
    address: str
    waiting: int  # rows that it has not got
    oldest: datetime | None  # time of the oldest of them
    delivered: datetime | None  # when it last got rows
    error: str | None  # of the last attempt; None when it succeeded


async def progress_of(store: Store, receivers: Mapping[str, Receiver]) -> list[Progress]:
    """Return how far each receiver has got."""
    targets = {target.name: target for target in await store.audit_targets.all()}
    result = []
    for name, receiver in receivers.items():
        target = targets.get(name)
        waiting, oldest = await store.audit_log.waiting_after(target.forwarded if target else 0)
        delivered, error = (target.delivered, target.error) if target else (None, None)
        result.append(Progress(name, receiver.address, waiting, oldest, delivered, error))
    return result


@dataclass(frozen=True, slots=True)
class _Failure:
    """The last failures in a row, and when the next attempt is due."""

    receiver: Receiver
    count: int
    retry_at: datetime


class Forwarder:
    """Sends new rows every second, in each process of a server."""

    def __init__(
        self, store: Store, receivers: Receivers, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._store = store
        self._targets = store.audit_targets
        self._receivers = receivers
        self._clock = clock
        self._holder = uuid4().hex
        self._failures: dict[str, _Failure] = {}

    async def run(self, stop: anyio.Event) -> None:
        """Forward until `stop` is set; what is not delivered by then is sent after a restart."""
        async with anyio.create_task_group() as tasks:
            for name in TARGETS:
                tasks.start_soon(self._forward_all, name)
            await stop.wait()
            tasks.cancel_scope.cancel()
        with suppress(DatabaseFailed, OSError):  # the leases end by themselves
            await self._targets.release(self._holder)

    async def forward(self, name: str) -> bool:
        """Send the next batch to a receiver; return whether one was delivered."""
        receiver = self._receivers().get(name)
        if receiver is None or self._waits(name, receiver):
            return False
        head = await self._store.audit_log.head()
        if head.seq <= await self._targets.position(name):
            return False
        target = await self._targets.lease(name, self._holder, self._clock(), LEASE)
        if target is None:
            return False
        rows = await self._store.audit_log.rows_after(target.forwarded, BATCH)
        if not rows:
            return False
        try:
            with anyio.fail_after(SEND_SECONDS):
                # an abandoned send may still deliver: the rows are sent again then
                await anyio.to_thread.run_sync(receiver.send, rows, abandon_on_cancel=True)
        except OSError as error:  # TimeoutError is one
            await self._record_failure(name, receiver, error)
            return False
        if self._failures.pop(name, None):
            log.info("The audit is forwarded to %s again", receiver.address)
        return await self._targets.advance(name, self._holder, rows[-1]["seq"], self._clock())

    async def _forward_all(self, name: str) -> None:
        answers = True
        while True:
            try:
                while await self.forward(name):
                    pass
                answers = True
            except Exception:
                if answers:  # logged once, not with every attempt
                    log.warning("The audit could not be forwarded to %s", name, exc_info=True)
                answers = False
            await anyio.sleep(POLL_SECONDS)

    def _waits(self, name: str, receiver: Receiver) -> bool:
        """Return whether the next attempt is not due yet; other options of it are tried at once."""
        failure = self._failures.get(name)
        if failure is None or failure.receiver != receiver:
            return False
        left = failure.retry_at - self._clock()
        return timedelta() < left <= LONGEST_BACKOFF  # a longer one: the clock was set back

    async def _record_failure(self, name: str, receiver: Receiver, error: OSError) -> None:
        before = self._failures.get(name)
        count = before.count + 1 if before and before.receiver == receiver else 1
        backoff = min(timedelta(seconds=2 ** min(count, 10) / 2), LONGEST_BACKOFF)
        self._failures[name] = _Failure(receiver, count, self._clock() + backoff)
        if isinstance(error, ssl.SSLError):
            reason = tls_reason(error)
        else:
            reason = error.strerror or str(error) or "no answer in time"
        await self._targets.fail(name, self._holder, reason)
        if count == 1:
            log.warning("The audit cannot be forwarded to %s: %s", receiver.address, reason)
        if count == FAILURES_BEFORE_NOTICE:
            message = (
                f"The audit cannot be forwarded to {receiver.address}: {reason}. "
                "Its rows are kept and sent later."
            )
            await self._store.notices.record(NOTICE, name, message)
