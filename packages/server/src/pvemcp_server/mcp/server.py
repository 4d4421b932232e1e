"""The MCP server: the SDK's low-level Server with our handlers."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import ServerMiddleware
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import (
    AESGCMRequestStateCodec,
    RequestStateBoundary,
    RequestStateSecurity,
)

from pvemcp_server import __version__
from pvemcp_server.http.gate import caller_of
from pvemcp_server.mcp.elicitation import STATE_SECONDS
from pvemcp_server.mcp.handlers import CatalogHandlers
from pvemcp_server.mcp.instructions import CallerInstructions
from pvemcp_server.mcp.middleware import (
    READS,
    RECORDED_METHODS,
    ListCache,
    MiddlewareByMethod,
    RefusalAudit,
    answer_failures,
)
from pvemcp_server.mcp.subscriptions import Subscriptions
from pvemcp_server.mcp.tasks import EXTENSION, METHODS, McpTasks
from pvemcp_server.mcp.tools import ToolHandlers
from pvemcp_server.views import catalog as views

log = logging.getLogger(__name__)
NAME = "pvemcp"
# A list depends on the key, so no client may share its cache; changes are announced as well
CACHE_HINTS: Final[dict[CacheableMethod, CacheHint]] = {
    method: CacheHint(ttl_ms=60_000, scope="private") for method in get_args(CacheableMethod)
}


class McpServer(Server[Any]):
    """The SDK's server, which announces notifications of changed lists in every era."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """Return the options of a handshake, with views but without tasks, of the later era."""
        changes = notification_options or NotificationOptions(
            tools_changed=True, prompts_changed=True, resources_changed=True
        )
        return super().create_initialization_options(
            changes, experimental_capabilities, extensions or {views.EXTENSION: {}}
        )


@dataclass(frozen=True)
class Handlers:
    """Handlers of all methods, by subject."""

    tools: ToolHandlers
    catalog: CatalogHandlers
    tasks: McpTasks
    subscriptions: Subscriptions


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
        get_tool_input_schema=handlers.tools.input_schema,
        on_list_tools=handlers.tools.list_tools,
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
    server.add_request_handler("tools/call", types.CallToolRequestParams, handlers.tools.call_tool)
    server.extensions = {EXTENSION: {}, views.EXTENSION: {}}
    for method, params in METHODS.items():
        handler = getattr(handlers.tasks, method.removeprefix("tasks/"))
        server.add_request_handler(method, params, handler)
    server.middleware[:] = _middleware(handlers, state_key)
    return server


def _middleware(handlers: Handlers, state_key: Callable[[], bytes]) -> list[ServerMiddleware[Any]]:
    """Return the middleware of all methods, the outermost first."""
    # bound to the key, so that no other key can answer a question
    security = RequestStateSecurity(
        codec=RequestStateCodec(state_key),
        ttl=STATE_SECONDS,
        bind_principal=lambda ctx: caller_of(ctx).key_id,
    )
    instructions = CallerInstructions(handlers.tools.pipeline.tools)
    settings = handlers.tools.pipeline.settings
    refusals = RefusalAudit(handlers.tools.pipeline.audit)
    return [
        MiddlewareByMethod(
            {**dict.fromkeys(READS, answer_failures), **dict.fromkeys(RECORDED_METHODS, refusals)}
        ),
        RequestStateBoundary(security, default_audience=NAME),
        MiddlewareByMethod(
            {
                "initialize": instructions,
                "server/discover": instructions,
                "tools/list": ListCache(lambda: settings.values.chart_images),
            }
        ),
    ]
