"""The MCP server: the SDK's low-level Server with our handlers."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import mcp_types as types
from mcp.server.context import HandlerResult, ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError

from pvemcp_server import __version__
from pvemcp_server.http.active_requests import ActiveRequests
from pvemcp_server.mcp.callers import caller_of, principal
from pvemcp_server.mcp.elicitation import SdkConversation
from pvemcp_server.mcp.handlers import CatalogHandlers
from pvemcp_server.mcp.instructions import INSTRUCTIONS
from pvemcp_server.mcp.subscriptions import Subscriptions
from pvemcp_server.mcp.tasks import EXTENSION, METHODS, McpTasks, knows_tasks
from pvemcp_server.mcp.tool_list import CACHE_HINTS, ListCache, visible_tools
from pvemcp_server.pipeline.confirmation import InputRequired
from pvemcp_server.pipeline.pipeline import Pipeline, Result, UnknownTool
from pvemcp_server.store.database import DatabaseFailed

log = logging.getLogger(__name__)
NAME = "pvemcp"
_GIVEN_UP: Final = (
    "The server is shutting down and gave up this call. Tasks already started go on in Proxmox: "
    "check ListTasks before you repeat a write."
)
GIVEN_UP: Final = Result((_GIVEN_UP,), TimeoutError(_GIVEN_UP))
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
    active_requests: ActiveRequests

    async def list_tools(
        self, ctx: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """List the tools that the caller may call."""
        return types.ListToolsResult(tools=visible_tools(self.pipeline.tools, caller_of(ctx)))

    async def call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> HandlerResult:
        """Call a tool. A started Proxmox task becomes an MCP task if the client knows these."""
        result = GIVEN_UP
        try:
            with self.active_requests.tool_call():
                result = await self.pipeline.call(
                    caller_of(ctx),
                    params.name,
                    params.arguments or {},
                    SdkConversation(ctx, params),
                )
        except UnknownTool as unknown:
            raise MCPError(types.INVALID_PARAMS, str(unknown)) from None
        except InputRequired as required:
            return required.result
        if result.started and knows_tasks(ctx):
            try:
                return await self.tasks.create(ctx, params.name, result.started)
            except (DatabaseFailed, OSError):
                log.exception("A task could not be stored, so its client gets the UPID")
        blocks: list[types.ContentBlock] = [types.TextContent(text=text) for text in result.blocks]
        return types.CallToolResult(content=blocks, is_error=result.failed)

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Return the input schema of a tool; None for an unknown one."""
        tool = self.pipeline.tools.get(name)
        return tool.input_schema if tool else None


def build_server(handlers: Handlers, *, state_key: bytes, website: str) -> McpServer:
    """Return the server of all eras; `state_key` seals questions, the same in every process."""
    server = McpServer(
        NAME,
        version=__version__,
        title="Proxmox VE",
        description="Proxmox VE clusters: look, ask, act.",
        instructions=INSTRUCTIONS,
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
    security = RequestStateSecurity(keys=[state_key], bind_principal=principal)
    server.middleware[:] = [RequestStateBoundary(security, default_audience=NAME), ListCache()]
    return server
