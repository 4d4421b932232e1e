"""Middleware of the MCP server and its transport: cache of tools/list, audit of refusals."""

import json
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from mcp.server.context import (
    CallNext,
    HandlerResult,
    ServerMiddleware,
    ServerRequestContext,
)
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from pydantic import ValidationError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pvemcp_server.access import Caller
from pvemcp_server.audit import Audit
from pvemcp_server.audit.mask import SECRET_OF_CLIENTS, mask
from pvemcp_server.errors import counted
from pvemcp_server.http.errors import Refused
from pvemcp_server.http.gate import caller_of, client_program
from pvemcp_server.mcp.json_rpc import MOST_MESSAGES
from pvemcp_server.mcp.scopes import ScopeChecks
from pvemcp_server.pipeline.answers import clean_line
from pvemcp_server.pipeline.audit_recorder import Recorder
from pvemcp_server.store.database import begun_again, is_away
from pvemcp_server.views.catalog import EXTENSION, MIME_TYPE

RECORDED_METHODS: Final = (
    "tools/call",
    "resources/read",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
)
CACHED_LISTS: Final = 256
_NAME_CHARACTERS: Final = 100
READS: Final = (
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/subscribe",
    "completion/complete",
)
_AWAY: Final = "The server's database does not answer. Try again in a few seconds."
_FAILED: Final = "The server failed on this request; its log says why under incident {}."
_LEFT_OUT: Final = ("name", "_meta", "requestState")

Context = ServerRequestContext[Any, Any]
log = logging.getLogger(__name__)


def shows_views(ctx: Context) -> bool:
    """Return whether the client of this very request shows views, in either era."""
    capabilities = ctx.session.client_capabilities
    extensions = capabilities.extensions if capabilities and capabilities.extensions else {}
    types = extensions.get(EXTENSION, {}).get("mimeTypes")
    return isinstance(types, list) and MIME_TYPE in types


@dataclass(frozen=True)
class MiddlewareByMethod:
    """Middleware that runs further middleware for the methods that it concerns only."""

    middleware: Mapping[str, ServerMiddleware[Any]]

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        concerned = self.middleware.get(ctx.method)
        return await (concerned(ctx, call_next) if concerned else call_next(ctx))


async def answer_failures(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Begin a read again that loses the database, and wait for it; the middleware of reads."""
    try:
        return await begun_again(partial(call_next, ctx))
    except (MCPError, ValidationError):
        raise
    except Exception as error:  # noqa: BLE001 - logged there, with its traceback
        raise _failure(ctx, error) from None


def _failure(ctx: Context, error: Exception) -> MCPError:
    """Return the answer to an unexpected error, whose text may have a statement and its values."""
    if is_away(error):
        log.warning("%s failed: the database does not answer", ctx.method)
        return MCPError(INTERNAL_ERROR, _AWAY)
    incident = secrets.token_hex(4)
    log.error("%s failed, incident %s", ctx.method, incident, exc_info=error)
    return MCPError(INTERNAL_ERROR, _FAILED.format(incident))


class ListCache:
    """Middleware of tools/list: caches the list by the caller's rights and what the client shows.

    `has_charts` returns whether the settings let tools draw charts.

    `Caller.version` changes with every right, so a cached list never shows a revoked tool.
    """

    def __init__(self, has_charts: Callable[[], bool]) -> None:
        self._has_charts = has_charts
        self._lists: OrderedDict[tuple[str, str, bool, bool], HandlerResult] = OrderedDict()

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        if (ctx.params or {}).get("cursor") is not None:
            return await call_next(ctx)
        key = (caller_of(ctx).version, ctx.protocol_version, shows_views(ctx), self._has_charts())
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
        except Exception as error:  # noqa: BLE001 - logged there, with its traceback
            raise _failure(ctx, error) from None

    async def _record(self, ctx: Context, reason: str) -> None:
        params, client = ctx.params or {}, client_program(ctx)
        await _record_refusal(self.audit, caller_of(ctx), ctx.method, params, reason, client)


class TransportRefusals:
    """ASGI middleware around a transport to which messages are posted.

    It records calls that the transport refuses itself, before RefusalAudit runs. Among them are
    headers that contradict the body, malformed messages, unknown sessions and revisions, and with
    `scopes` also calls beyond the scopes of an access token.
    """

    def __init__(self, app: ASGIApp, audit: Audit, scopes: ScopeChecks | None = None) -> None:
        self._app = app
        self._audit = audit
        self._scopes = scopes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request; record it first if its error is no answer of the server."""
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        head: Message | None = None

        async def recorded(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and "has_reached" not in scope["state"]:
                    head = message
                    return
            elif head is not None:
                answer = _read(message.get("body", b""))
                error = answer.get("error") if isinstance(answer, dict) else None
                reason = error["message"] if isinstance(error, dict) else "malformed request"
                await self._record(scope, reason)
                await send(head)
                head = None
            await send(message)

        caller: Caller = scope["state"]["caller"]
        try:
            if self._scopes is not None and caller.scopes is not None:
                self._scopes.check(scope, caller, caller.scopes)
            await self._app(scope, receive, recorded)
        except Refused as refused:
            if "has_reached" not in scope["state"]:
                await self._record(scope, refused.message)
            raise

    async def _record(self, scope: Scope, reason: str) -> None:
        """Record the request, a batch by its first call: it counted once for the key's rate."""
        read = _read(scope["state"]["body"])
        if isinstance(read, list):
            reason = f"{reason} (a batch of {counted(len(read), 'message')})"
        for request in read[:MOST_MESSAGES] if isinstance(read, list) else [read]:
            method = request.get("method") if isinstance(request, dict) else None
            if method in RECORDED_METHODS:
                params = request.get("params")
                await _record_refusal(
                    self._audit,
                    scope["state"]["caller"],
                    method,
                    params if isinstance(params, dict) else {},
                    reason,
                )
                return


async def _record_refusal(
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
    rest = {key: value for key, value in params.items() if key not in _LEFT_OUT}
    rest = mask(rest, SECRET_OF_CLIENTS)
    await Recorder(audit, caller, name, client, rest).refused(reason)


def _read(text: bytes) -> Any:
    """Return the JSON value; an empty object for another text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}
