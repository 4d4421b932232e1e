"""The audit of one call: an intent before a write is sent, and the outcome at its end."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import uuid4

import anyio

from pvemcp_server.access.model import Caller
from pvemcp_server.audit import Audit, Event, Outcome
from pvemcp_server.errors import Unrecorded
from pvemcp_server.pipeline.answers import Written
from pvemcp_server.toolkit.bulk import by_reason
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.undo import KeptUndo

log = logging.getLogger(__name__)


@dataclass
class Recorder:
    """Records one call. An intent that cannot be stored raises, so that nothing is sent."""

    audit: Audit
    caller: Caller
    name: str
    client: str
    arguments: Mapping[str, Any]  # with secrets masked
    undoing: KeptUndo | None = None  # the write that the call reverses
    call: Call | None = None
    call_id: str = field(default_factory=lambda: uuid4().hex)
    _started: float = field(default_factory=monotonic)
    _intent: str | None = None
    _ended: bool = False  # its end is recorded; a cancellation afterwards changes nothing

    async def refused(self, reason: str) -> None:
        """Record a call that was not admitted."""
        await self.audit.refused(self._event(Outcome.REFUSED, reason=reason))

    async def decided(self, outcome: Outcome, question: str) -> None:
        """Store the user's answer to a confirmation; raises Unrecorded."""
        await self.audit.decision(self._event(outcome, reason=question))

    async def intent(self) -> None:
        """Store the intent, before Proxmox is asked to change anything; raise Unrecorded.

        Its id is known before it is stored: a cancellation until then is the outcome of this intent
        too, which is stored whether its caller waits or not.
        """
        self._intent = self.call_id
        try:
            await self.audit.intent(self._event(None), self._intent)
        except Unrecorded:
            self._intent = None
            raise

    @property
    def is_write(self) -> bool:
        """Whether the intent of a write is recorded, so that something may have been sent."""
        return self._intent is not None

    async def answered(self, written: Written) -> None:
        """Record the success; raise Unrecorded for a read, which has no intent to show it."""
        self._ended = True
        size = len(written.data.encode()) + len(written.notes.encode())
        failures = self._failures() if self._intent else ""
        outcome = Outcome.ERROR if failures else Outcome.OK
        reason = failures or (self.call and self.call.result) or None
        event = self._event(outcome, rows=written.rows, bytes=size, reason=reason)
        if self._intent is None:
            await self.audit.call(event)
        else:
            await self._end(event)

    async def waiting(self) -> None:
        """Record that the call waits for its user's answer to a question; raise Unrecorded."""
        self._ended = True
        await self.audit.call(self._event(Outcome.WAITING, reason="the user is asked first"))

    async def succeeded(self) -> None:
        """Record the success of a write that has no answer."""
        await self._end(self._event(Outcome.OK))

    async def failed(self, reason: str, outcome: Outcome = Outcome.ERROR) -> None:
        """Record the failure."""
        await self._end(self._event(outcome, reason=f"{reason} {self._result()}".rstrip()))

    async def cancelled(self, by: str) -> None:
        """Record the cancellation; a started Proxmox task continues."""
        if self._ended:
            return
        with anyio.CancelScope(shield=True):
            ends = by_reason(self.call.failures) if self.call else ""  # of a write on many guests
            reason = f"cancelled by {by}. {ends}{self._result()}".rstrip(". ")
            await self._end(self._event(Outcome.CANCELLED, reason=reason))

    def _result(self) -> str:
        return self.call.result if self.call else ""

    def _failures(self) -> str:
        """Return what a write on many guests did not do until now."""
        failures = self.call.failures if self.call else {}
        vmids = ", ".join(map(str, failures))
        return f"Not done on {vmids}. {by_reason(failures)}" if failures else ""

    async def _end(self, event: Event) -> None:
        """Store the outcome; log a failure, since the work is done and the intent shows it."""
        self._ended = True
        try:
            if self._intent is None:
                await self.audit.call(event)
            else:
                await self.audit.outcome(self._intent, event)
        except Exception:
            log.exception("The end of a call of %s could not be recorded", self.name)

    def _event(self, outcome: Outcome | None, **measured: Any) -> Event:
        call = self.call
        return Event(
            tool=self.name,
            key_id=self.caller.key_id,
            key_name=self.caller.key_name,
            address=self.caller.address,
            client=self.client,
            acting=self.caller.acting or None,
            cluster=", ".join(sorted(call.touched)) if call else None,
            arguments=self.arguments,
            outcome=outcome,
            duration_ms=round((monotonic() - self._started) * 1000),
            upid=" ".join(call.upids) if call else None,
            call_id=self.call_id,
            **measured,
        )
