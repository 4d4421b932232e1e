"""The MCP server: the SDK's low-level Server with our handlers."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import (
    CallNext,
    HandlerResult,
    ServerMiddleware,
    ServerRequestContext,
)
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import (
    AESGCMRequestStateCodec,
    RequestStateBoundary,
    RequestStateSecurity,
)

from pvemcp_server import __version__
from pvemcp_server.access.model import Caller
from pvemcp_server.http.gate import caller_of, client_program
from pvemcp_server.mcp.elicitation import STATE_SECONDS, SdkConversation
from pvemcp_server.mcp.handlers import CatalogHandlers
from pvemcp_server.mcp.instructions import CallerInstructions
from pvemcp_server.mcp.refusals import RECORDED_METHODS, RecordedError, RefusalAudit
from pvemcp_server.mcp.subscriptions import Subscriptions
from pvemcp_server.mcp.tasks import EXTENSION, METHODS, McpTasks, knows_tasks
from pvemcp_server.pipeline.confirmation import InputRequired
from pvemcp_server.pipeline.pipeline import Pipeline, UnknownTool
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.question_repository import QuestionRepository
from pvemcp_server.toolkit.registry import Tool

log = logging.getLogger(__name__)
NAME = "pvemcp"
# A list depends on the key, so no client may share its cache; changes are announced as well
CACHE_HINTS: Final[dict[CacheableMethod, CacheHint]] = {
    method: CacheHint(ttl_ms=60_000, scope="private") for method in get_args(CacheableMethod)
}
CACHED_LISTS: Final = 256
Context = ServerRequestContext[Any, Any]


class McpServer(Server[Any]):
    """The SDK's server, which announces notifications of changed lists in every era."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Return the options of a handshake, without tasks: these are of the later era."""
        changes = notification_options or NotificationOptions(
            tools_changed=True, prompts_changed=True, resources_changed=True
        )
        return super().create_initialization_options(
            changes, experimental_capabilities, extensions or {}
        )


@dataclass(frozen=True)
class Handlers:
    """Handlers of tools/*, and those of all other methods."""

    pipeline: Pipeline
    subscriptions: Subscriptions
    catalog: CatalogHandlers
    tasks: McpTasks
    questions: QuestionRepository

    async def list_tools(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """List the tools that the caller may call."""
        return types.ListToolsResult(tools=visible_tools(self.pipeline.tools, caller_of(ctx)))

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> HandlerResult:
        """Call a tool. A started Proxmox task becomes an MCP task if the client knows these."""
        try:
            result = await self.pipeline.call(
                caller_of(ctx),
                params.name,
                params.arguments or {},
                SdkConversation(client_program(ctx), ctx, params, self.questions),
            )
        except UnknownTool as unknown:
            raise RecordedError(types.INVALID_PARAMS, str(unknown)) from None
        except InputRequired as required:
            return required.result
        if result.started and knows_tasks(ctx):
            try:
                return await self.tasks.create(ctx, params.name, result.started)
            except (DatabaseFailed, OSError):
                log.exception("A task could not be stored, so its client gets the UPID")
        content: list[types.ContentBlock] = [types.TextContent(text=text) for text in result.texts]
        return types.CallToolResult(content=content, is_error=result.cause is not None)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return the input schema of a tool; None for an unknown one."""
        tool = self.pipeline.tools.get(name)
        return tool.input_schema if tool else None


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


def visible_tools(tools: Mapping[str, Tool], caller: Caller) -> list[types.Tool]:
    """Return the tools this caller may call, in the order of the registry."""
    return [describe(tool) for tool in tools.values() if caller.may_call(tool)]


def describe(tool: Tool) -> types.Tool:
    """Return the tool as clients see it."""
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.input_schema,
        annotations=types.ToolAnnotations.model_validate(tool.annotations, by_name=False),
    )


class RequestStateCodec:
    """Seals the state of questions; `key` is called each time, because a rotation renews it.

    A question that was asked before the rotation is refused then, and the client calls again.
    """

    def __init__(self, key: Callable[[], bytes]) -> None:
        self._key = key

    def seal(self, payload: bytes) -> str:
        """Encrypt the state."""
        return AESGCMRequestStateCodec([self._key()]).seal(payload)

    def unseal(self, token: str) -> bytes:
        """Decrypt the state; raise InvalidRequestState for any other text."""
        return AESGCMRequestStateCodec([self._key()]).unseal(token)


def build_server(handlers: Handlers, *, state_key: Callable[[], bytes], website: str) -> McpServer:
    """Return the server of all eras; `state_key` seals questions, the same in every process."""
    server = McpServer(
        NAME,
        version=__version__,
        title="Proxmox VE",
        description="Proxmox VE clusters: look, ask, act.",
        website_url=website,
        icons=[types.Icon(src=f"{website}/icon.svg", mime_type="image/svg+xml", sizes=["any"])],
        cache_hints=CACHE_HINTS,
        get_tool_input_schema=handlers.input_schema,
        on_list_tools=handlers.list_tools,
        on_subscriptions_listen=handlers.subscriptions.listen,
        on_subscribe_resource=handlers.subscriptions.subscribe,
        on_unsubscribe_resource=handlers.subscriptions.unsubscribe,
        on_list_prompts=handlers.catalog.list_prompts,
        on_get_prompt=handlers.catalog.get_prompt,
        on_list_resources=handlers.catalog.list_resources,
        on_list_resource_templates=handlers.catalog.list_templates,
        on_read_resource=handlers.catalog.read_resource,
        on_completion=handlers.catalog.complete,
    )
    server.add_notification_handler(
        "notifications/initialized",
        types.NotificationParams,
        handlers.subscriptions.notifications.on_initialized,
    )
    server.add_request_handler("tools/call", types.CallToolRequestParams, handlers.call_tool)
    server.extensions = {EXTENSION: {}}
    for method, params in METHODS.items():
        handler = getattr(handlers.tasks, method.removeprefix("tasks/"))
        server.add_request_handler(method, params, handler)
    # bound to the key, so that no other key can answer a question
    security = RequestStateSecurity(
        codec=RequestStateCodec(state_key),
        ttl=STATE_SECONDS,
        bind_principal=lambda ctx: caller_of(ctx).key_id,
    )
    instructions = CallerInstructions(handlers.pipeline.tools)
    refusals = RefusalAudit(handlers.pipeline.audit)
    server.middleware[:] = [
        MiddlewareByMethod(dict.fromkeys(RECORDED_METHODS, refusals)),
        RequestStateBoundary(security, default_audience=NAME),
        MiddlewareByMethod(
            {
                "initialize": instructions,
                "server/discover": instructions,
                "tools/list": ListCache(),
            }
        ),
    ]
    return server
