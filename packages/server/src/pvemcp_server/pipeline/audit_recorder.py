"""What the audit learns of a call: before a write is sent, and when the call has ended."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import anyio

from pvemcp_server.access.model import Caller
from pvemcp_server.audit import Event, Outcome, mask
from pvemcp_server.audit.mask import secret_fields_of
from pvemcp_server.pipeline.answers import Written
from pvemcp_server.pipeline.protocols import Records
from pvemcp_server.toolkit.call import Call
from pvemcp_server.toolkit.registry import Tool

log = logging.getLogger(__name__)


@dataclass
class Recorder:
    """Follows one call. An intent that cannot be stored raises, so that nothing is sent."""

    records: Records
    caller: Caller
    name: str
    client: str
    call: Call | None = None
    _arguments: Mapping[str, Any] = field(default_factory=dict)
    _started: float = field(default_factory=monotonic)
    _intent: str | None = None

    def begin(self, tool: Tool, arguments: Mapping[str, Any]) -> None:
        self.name = tool.name
        self._arguments = mask(dict(arguments), secret_fields_of(tool.accepted))

    def about(self, arguments: Mapping[str, Any]) -> None:
        """What the call is about, where it is no tool's."""
        self._arguments = mask(dict(arguments))

    async def refused(self, reason: str, arguments: Mapping[str, Any]) -> None:
        self._arguments = mask(dict(arguments))
        await self.records.refused(self._event(Outcome.REFUSED, reason=reason))

    async def intends(self) -> None:
        """Stored before Proxmox is asked to change anything."""
        self._intent = await self.records.intent(self._event(None))

    async def answered(self, written: Written) -> None:
        """Raises Unrecorded for a read that nothing would tell of: it has no intent."""
        event = self._event(Outcome.OK, rows=written.rows, bytes=written.bytes)
        if self._intent is None:
            await self.records.call(event)
        else:
            await self._ended(event)

    async def done(self) -> None:
        await self._ended(self._event(Outcome.OK))

    async def failed(self, reason: str) -> None:
        await self._ended(self._event(Outcome.ERROR, reason=reason))

    async def cancelled(self, who: str) -> None:
        """Nobody waits any more; what Proxmox was already told to do goes on there."""
        with anyio.CancelScope(shield=True):
            await self._ended(self._event(Outcome.CANCELLED, reason=f"cancelled by {who}"))

    async def _ended(self, event: Event) -> None:
        try:
            if self._intent is None:
                await self.records.call(event)
            else:
                await self.records.outcome(self._intent, event)
        except Exception:
            # what was done cannot be undone by not answering; the intent tells of it in the audit
            log.exception("The end of a call of %s could not be recorded", self.name)

    def _event(self, outcome: Outcome | None, **measured: Any) -> Event:
        call = self.call
        return Event(
            tool=self.name,
            key_id=self.caller.key_id,
            key_name=self.caller.key_name,
            address=self.caller.address,
            client=self.client,
            cluster=", ".join(sorted(call.touched)) if call else None,
            arguments=self._arguments,
            outcome=outcome,
            duration_ms=round((monotonic() - self._started) * 1000),
            upid=" ".join(call.upids) if call else None,
            **measured,
        )
