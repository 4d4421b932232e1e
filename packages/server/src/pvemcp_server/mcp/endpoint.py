"""The MCP endpoint: gate, transports, server and pipeline put together."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import ListenHandler
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from pvemcp_server.access import Caller
from pvemcp_server.audit import Audit
from pvemcp_server.errors import UnknownName
from pvemcp_server.http.exchange import BODY_BYTES, ActiveRequests
from pvemcp_server.http.gate import MCP, SSE, SSE_MESSAGES, KeyGate
from pvemcp_server.http.hosts import Hosts, networks
from pvemcp_server.mcp.handlers import CatalogHandlers
from pvemcp_server.mcp.json_rpc import Messages
from pvemcp_server.mcp.middleware import TransportRefusals
from pvemcp_server.mcp.notifications import NotificationBus
from pvemcp_server.mcp.relay import Relay
from pvemcp_server.mcp.resource_watcher import ResourceWatcher
from pvemcp_server.mcp.scopes import ScopeChecks
from pvemcp_server.mcp.server import Handlers, build_server
from pvemcp_server.mcp.session_ids import SessionIds
from pvemcp_server.mcp.sessions import Sessions
from pvemcp_server.mcp.sse import SseEndpoint
from pvemcp_server.mcp.subscriptions import Subscriptions
from pvemcp_server.mcp.tasks import McpTasks
from pvemcp_server.mcp.tools import ToolHandlers
from pvemcp_server.pipeline.pipeline import Pipeline
from pvemcp_server.services import Services
from pvemcp_server.store import Topic
from pvemcp_server.store.columns import utc_now
from pvemcp_server.toolkit.registry import Tool

DRAIN_SECONDS: Final = 8.0
STREAMS: Final = 10_000  # in total; the gate limits those of each key


class Transports:
    """The SDK's transports around one server, as ASGI applications."""

    def __init__(
        self,
        server: Server[Any],
        session_ids: SessionIds,
        audit: Audit,
        scopes: ScopeChecks,
        relay: Relay,
        prefix: str = "",
    ) -> None:
        self.sessions = Sessions(server, session_ids, relay, max_request_body_size=BODY_BYTES)
        self.sse = SseEndpoint(server, relay, prefix)
        relay.apps = {MCP: self.sessions.serve_relayed, SSE_MESSAGES: self.sse.accept}
        # Only the gate may call these: they check no key
        self.by_path: Mapping[str, ASGIApp] = {
            MCP: TransportRefusals(
                Messages(self.sessions.handle_request, self.sessions.manager.handle_request),
                audit,
                scopes,
            ),
            SSE: _only("GET", self.sse.stream),
            SSE_MESSAGES: _only(
                "POST", TransportRefusals(Messages(self.sse.messages, None, batching=()), audit)
            ),
        }


def _only(method: str, app: ASGIApp) -> ASGIApp:
    """Refuse all other methods with 405; HEAD would open a stream without a reader."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == method:
            await app(scope, receive, send)
        else:
            refused = PlainTextResponse("Method Not Allowed", 405, {"Allow": method})
            await refused(scope, receive, send)

    return serve


@dataclass
class Endpoint:
    """The endpoint of one process."""

    services: Services
    tools: Mapping[str, Tool]
    active_requests: ActiveRequests = field(default_factory=ActiveRequests)

    def __post_init__(self) -> None:
        services = self.services
        self.pipeline = Pipeline.of(services, self.tools, has_same_rights=self._has_same_rights)
        self.active_requests.tool_calls = self.pipeline.running
        self.notifications = NotificationBus(
            self._find, self._admits, self.active_requests, self.pipeline.end_refused
        )
        self.listen = ListenHandler(self.notifications, max_subscriptions=STREAMS)
        self.watcher = ResourceWatcher(self.pipeline, self.notifications)
        questions = services.store.answered_questions
        tasks = McpTasks(self.pipeline, services.store.mcp_tasks)
        self.server = build_server(
            Handlers(
                ToolHandlers(self.pipeline, tasks, questions),
                CatalogHandlers(self.pipeline, services.store.saved_queries, questions),
                tasks,
                Subscriptions(self.notifications, self.watcher, self.listen),
            ),
            state_key=partial(services.store.vault.derive, "mcp request state"),
            website=services.config.base_url,
        )
        find = services.access.authenticator.caller
        store = services.store
        # the database's clock: those of the machines may differ, or be set
        self.relay = Relay(store.process_channel, find, self._admits, store.fleet.clock)
        self.transports = Transports(
            self.server,
            SessionIds(partial(services.store.vault.derive, "mcp session ids")),
            services.audit,
            ScopeChecks(self.tools, services.oauth.tokens.step_ups),
            self.relay,
            services.config.path_prefix,
        )
        services.store.cluster_writes.on_write(self.watcher.written)
        watch = services.store.watch
        watch.on_change(Topic.ACCESS, self.notifications.rights_changed)
        watch.on_change(Topic.SETTINGS, self.notifications.rights_changed)
        watch.on_change(Topic.CLUSTERS, self.notifications.clusters_changed)
        watch.on_change(Topic.QUERIES, self.notifications.queries_changed)

    def gate(self, app: ASGIApp) -> KeyGate:
        """Return the gate in front of the transports and of `app`, which serves public paths."""
        services = self.services
        return KeyGate(
            app,
            self.transports.by_path,
            keys=services.access.authenticator,
            settings=services.settings,
            audit=services.audit,
            hosts=Hosts.of(services.config),
            proxies=networks(services.config.trusted_proxies),
            limits=services.access.limits,
            active_requests=self.active_requests,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run sessions, notifications and deadlines while inside."""
        async with self.transports.sessions.run(), anyio.create_task_group() as tasks:
            tasks.start_soon(self.notifications.run)
            tasks.start_soon(self.watcher.run)
            tasks.start_soon(self.active_requests.enforce_deadlines)
            tasks.start_soon(self.relay.run)
            yield
            tasks.cancel_scope.cancel()

    async def drain(self) -> bool:
        """Refuse new calls, await running ones, end streams; return whether all ended in time."""
        self.pipeline.closing.set()
        self.listen.close()
        try:
            return await self.active_requests.drain(DRAIN_SECONDS)
        finally:
            self.active_requests.end_streams()

    async def _find(self, key_id: str) -> Caller | None:
        """Return the caller with the key's current rights; None when the key is refused."""
        access = self.services.access
        try:
            key = await access.keys.caller(key_id)
            expired = key.expires is not None and key.expires <= utc_now()
            if not key.enabled or expired:
                return None
            return await access.authenticator.caller(key.id)
        except UnknownName:
            return None

    async def _admits(self, caller: Caller, *, expired: bool = False) -> bool:
        """Return whether the gate would admit a request of this caller now; see `still_admits`."""
        settings = await self.services.settings.current()
        if not settings.enabled:
            return False
        if caller.person and not caller.is_external and not settings.connections_enabled:
            return False
        return await self.services.access.authenticator.still_admits(caller, expired=expired)

    async def _has_same_rights(self, caller: Caller) -> bool:
        """Return whether the caller still has the rights that its request was admitted with."""
        admitted = await self._admits(caller, expired=True)
        current = await self._find(caller.key_id) if admitted else None
        return current is not None and current.version == caller.version
