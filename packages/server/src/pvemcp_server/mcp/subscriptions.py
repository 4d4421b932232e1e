"""Handlers of subscriptions to lists and single resources, for each protocol era."""

from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError

from pvemcp_server.http.gate import caller_of
from pvemcp_server.mcp.notifications import NotificationBus
from pvemcp_server.mcp.resource_watcher import ResourceWatcher

Context = ServerRequestContext[Any, Any]


@dataclass(frozen=True)
class Subscriptions:
    """`subscriptions/listen` of 2026-07-28, `resources/(un)subscribe` of sessions."""

    notifications: NotificationBus
    watcher: ResourceWatcher
    streams: ListenHandler

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Open a listen stream; acknowledge only resources this key may read and we can watch."""
        requested = params.notifications
        uris = await self.watcher.accepted(caller_of(ctx), requested.resource_subscriptions or ())
        served = requested.model_copy(update={"resource_subscriptions": uris or None})
        self.notifications.listening(ctx, uris)
        return await self.streams(ctx, params.model_copy(update={"notifications": served}))

    async def subscribe(
        self, ctx: Context, params: types.SubscribeRequestParams
    ) -> types.EmptyResult:
        """Subscribe the session to a resource; raise MCPError for one that is not watched."""
        uri = str(params.uri)
        if not await self.watcher.accepted(caller_of(ctx), [uri]):
            message = "The resource does not exist, or its changes are not watched."
            raise MCPError(types.INVALID_PARAMS, message, {"uri": uri})
        self.notifications.session(ctx).uris.add(uri)
        return types.EmptyResult()

    async def unsubscribe(
        self, ctx: Context, params: types.UnsubscribeRequestParams
    ) -> types.EmptyResult:
        """Unsubscribe the session from a resource."""
        self.notifications.session(ctx).uris.discard(str(params.uri))
        return types.EmptyResult()
