"""The audit of requests that are refused before they reach the pipeline, which records the rest."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from pvemcp_server.audit import Audit
from pvemcp_server.audit.mask import mask
from pvemcp_server.http.gate import caller_of, client_program
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.pipeline.audit_recorder import Recorder

RECORDED_METHODS: Final = (
    "tools/call",
    "resources/read",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
)
_NAME_CHARACTERS: Final = 100
_LEFT_OUT: Final = ("name", "_meta", "requestState")


class RecordedError(MCPError):
    """The error of a request whose outcome is in the audit already."""


@dataclass(frozen=True)
class RefusalAudit:
    """Middleware that records each error of a call that nothing else has recorded.

    Among them are forged or repeated answers to a question, malformed parameters, and tasks of
    other keys.
    """

    audit: Audit

    async def __call__(
        self, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        try:
            return await call_next(ctx)
        except RecordedError:
            raise
        except MCPError as refusal:
            await self._record(ctx, refusal.message)
            raise
        except ValidationError:
            await self._record(ctx, "malformed parameters")
            raise

    async def _record(self, ctx: ServerRequestContext[Any, Any], reason: str) -> None:
        params: Mapping[str, Any] = ctx.params or {}
        named = params.get("name")
        name = clean_line(named, _NAME_CHARACTERS) if isinstance(named, str) else ctx.method
        rest = mask({key: value for key, value in params.items() if key not in _LEFT_OUT})
        recorder = Recorder(self.audit, caller_of(ctx), name, client_program(ctx), rest)
        await recorder.refused(reason)
