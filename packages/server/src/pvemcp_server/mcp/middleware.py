"""Middleware of the MCP server: by method, the cache of tools/list, the audit of refusals."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.context import (
    CallNext,
    HandlerResult,
    ServerMiddleware,
    ServerRequestContext,
)
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from starlette.types import Scope

from pvemcp_server.access import Caller
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
CACHED_LISTS: Final = 256
_NAME_CHARACTERS: Final = 100
_LEFT_OUT: Final = ("name", "_meta", "requestState")

Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True)
class MiddlewareByMethod:
    """Middleware that runs further middleware for the methods that it concerns only."""

    middleware: Mapping[str, ServerMiddleware[Any]]

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        concerned = self.middleware.get(ctx.method)
        return await (concerned(ctx, call_next) if concerned else call_next(ctx))


class ListCache:
    """Middleware of tools/list: caches the list by the caller's rights and the protocol version.

    `Caller.version` changes with every right, so a cached list never shows a revoked tool.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[tuple[str, str], HandlerResult] = OrderedDict()

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if (ctx.params or {}).get("cursor") is not None:
            return await call_next(ctx)
        key = (caller_of(ctx).version, ctx.protocol_version)
        if key not in self._lists:
            self._lists[key] = await call_next(ctx)
        self._lists.move_to_end(key)
        if len(self._lists) > CACHED_LISTS:
            self._lists.popitem(last=False)
        return self._lists[key]


class RecordedError(MCPError):
    """The error of a request whose outcome is in the audit already."""


@dataclass(frozen=True)
class RefusalAudit:
    """Middleware that records each error of a call that the pipeline has not recorded.

    Among them are forged or repeated answers to a question, malformed parameters, and tasks of
    other keys.
    """

    audit: Audit

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if ctx.request is not None:
            ctx.request.state.has_reached = True
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

    async def _record(self, ctx: Context, reason: str) -> None:
        params, client = ctx.params or {}, client_program(ctx)
        await record_refusal(self.audit, caller_of(ctx), ctx.method, params, reason, client)


def has_reached(scope: Scope) -> bool:
    """Return whether a request got to RefusalAudit, which records its refusal."""
    return "has_reached" in scope["state"]


async def record_refusal(
    audit: Audit,
    caller: Caller,
    method: str,
    params: Mapping[str, Any],
    reason: str,
    client: str = "",
) -> None:
    """Record a request that no tool has seen."""
    named = params.get("name")
    name = clean_line(named, _NAME_CHARACTERS) if isinstance(named, str) else method
    rest = mask({key: value for key, value in params.items() if key not in _LEFT_OUT})
    await Recorder(audit, caller, name, client, rest).refused(reason)
