"""Tells clients of both eras that their lists have changed, and ends streams of withdrawn keys."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ServerEvent,
    ToolsListChanged,
)

from pvemcp_server.access.model import Caller
from pvemcp_server.endpoint.callers import caller_of
from pvemcp_server.endpoint.traffic import Traffic

TELL_SECONDS: Final = 5.0
log = logging.getLogger(__name__)

FindCaller = Callable[[str], Awaitable[Caller | None]]
Context = ServerRequestContext[Any, Any]
_subscribing: ContextVar[Caller] = ContextVar("subscribing")


@dataclass(eq=False)
class Subscriber:
    """A listen stream or a legacy session, with the rights its client last heard of."""

    key_id: str
    version: str
    tell: Callable[[ServerEvent], Awaitable[None]]


@dataclass
class Announcer:
    """The SDK's subscription bus, aware of keys."""

    find: FindCaller  # the caller as the key stands now; None when it is no longer valid
    traffic: Traffic
    _subscribers: set[Subscriber] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _clusters: bool = False  # whether they were changed, since everybody was told

    def rights_changed(self) -> None:
        """Keys, roles or bindings were changed: look after those who listen."""
        self._changed.set()

    def clusters_changed(self) -> None:
        """Clusters came, went or were renamed: they are resources."""
        self._clusters = True
        self._changed.set()

    async def run(self) -> None:
        """Looks after changes until cancelled."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except Exception:
                log.exception("Could not tell clients that their lists have changed")

    async def refresh(self) -> None:
        """Tell those whose rights differ from what they know; let go of those who have none."""
        if self._clusters:
            self._clusters = False
            await self.publish(ResourcesListChanged())
        for key_id in {one.key_id for one in self._subscribers} | self.traffic.keys():
            caller = await self.find(key_id)
            if caller is None:
                self.traffic.end_streams([key_id])
            else:
                await self._renew(caller)

    async def _renew(self, caller: Caller) -> None:
        outdated = [
            one
            for one in self._subscribers
            if one.key_id == caller.key_id and one.version != caller.version
        ]
        for one in outdated:
            one.version = caller.version
        for event in (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged()):
            await self._tell(event, outdated)

    async def publish(self, event: ServerEvent) -> None:
        """Tell everybody."""
        await self._tell(event, list(self._subscribers))

    async def _tell(self, event: ServerEvent, subscribers: Iterable[Subscriber]) -> None:
        await asyncio.gather(*(_tell_one(one, event) for one in subscribers))

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Called by the SDK for the listen stream that `listening` has opened."""

        async def tell(event: ServerEvent) -> None:
            listener(event)

        return self._add(_subscribing.get(), tell)

    def listening(self, ctx: Context) -> None:
        """The request in progress is about to subscribe."""
        _subscribing.set(caller_of(ctx))

    async def on_initialized(self, ctx: Context, _params: types.NotificationParams) -> None:
        """A legacy session has begun; it is told until its connection ends."""

        async def tell(event: ServerEvent) -> None:
            await _notify(ctx.session, event)

        forget = self._add(caller_of(ctx), tell)
        connection = ctx.session._connection  # noqa: SLF001 - the session does not offer its end
        connection.exit_stack.callback(forget)

    def _add(
        self, caller: Caller, tell: Callable[[ServerEvent], Awaitable[None]]
    ) -> Callable[[], None]:
        subscriber = Subscriber(caller.key_id, caller.version, tell)
        self._subscribers.add(subscriber)
        return lambda: self._subscribers.discard(subscriber)


async def _tell_one(subscriber: Subscriber, event: ServerEvent) -> None:
    try:
        async with asyncio.timeout(TELL_SECONDS):
            await subscriber.tell(event)
    except TimeoutError:
        log.info("A client of key %s does not take notifications", subscriber.key_id)


async def _notify(session: ServerSession, event: ServerEvent) -> None:
    """The event as the handshake era knows it."""
    match event:
        case ToolsListChanged():
            await session.send_tool_list_changed()
        case PromptsListChanged():
            await session.send_prompt_list_changed()
        case ResourcesListChanged():
            await session.send_resource_list_changed()
