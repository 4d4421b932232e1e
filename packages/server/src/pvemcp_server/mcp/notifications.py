"""Tells clients of both eras what has changed, and ends streams of withdrawn keys."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

from pvemcp_server.access.model import Caller
from pvemcp_server.http.active_requests import ActiveRequests
from pvemcp_server.mcp.callers import caller_of

TELL_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 5.0  # after a failure
LOOK_SECONDS: Final = 60.0  # how long a stream may outlive the expiry of its key
EVERYTHING: Final[frozenset[ServerEvent]] = frozenset(
    {ToolsListChanged(), PromptsListChanged(), ResourcesListChanged()}
)
_SUBSCRIBER: Final = "subscriber"  # in the state of a session's connection
log = logging.getLogger(__name__)

FindCaller = Callable[[str], Awaitable[Caller | None]]
Context = ServerRequestContext[Any, Any]
_subscribing: ContextVar[tuple[Caller, frozenset[str]]] = ContextVar("subscribing")


@dataclass(eq=False)
class Subscriber:
    """A listen stream or a legacy session, with the rights its client last heard of."""

    key_id: str
    version: str
    tell: Callable[[ServerEvent], Awaitable[None]]
    uris: set[str] = field(default_factory=set)  # single resources it wants to hear of


@dataclass
class NotificationBus:
    """The SDK's subscription bus, aware of keys."""

    find: FindCaller  # the caller as the key stands now; None when it is no longer valid
    active_requests: ActiveRequests
    _subscribers: set[Subscriber] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _lists: set[ServerEvent] = field(default_factory=set)  # changed for everybody

    async def rights_changed(self) -> None:
        """Keys, roles or bindings were changed: look after those who listen."""
        self._changed.set()

    async def clusters_changed(self) -> None:
        """Clusters came, went or were renamed: they are resources."""
        self._list_changed(ResourcesListChanged())

    async def queries_changed(self) -> None:
        """Queries were saved or removed: they are prompts."""
        self._list_changed(PromptsListChanged())

    def _list_changed(self, event: ServerEvent) -> None:
        self._lists.add(event)
        self._changed.set()

    async def run(self) -> None:
        """Looks after changes until cancelled; also unasked, for keys expire by themselves."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except Exception:
                log.exception("Could not tell clients that their lists have changed")
                # it is still to be told, and a withdrawn key still holds its streams
                self._changed.set()
                await asyncio.sleep(PAUSE_SECONDS)

    async def refresh(self) -> None:
        """Tell those whose rights differ from what they know; let go of those who have none."""
        versions = await self._versions()
        lists = frozenset(self._lists)
        self._lists.clear()
        news = {}
        for one in self._subscribers:
            version = versions.get(one.key_id, one.version)
            news[one] = lists if version == one.version else EVERYTHING
            one.version = version
        await _tell_all(news)

    async def _versions(self) -> dict[str, str]:
        """The rights of each key that listens, as they stand; withdrawn keys lose their streams."""
        found = {}
        for key_id in {one.key_id for one in self._subscribers} | self.active_requests.keys():
            caller = await self.find(key_id)
            if caller is None:
                self.active_requests.end_streams([key_id])
            else:
                found[key_id] = caller.version
        return found

    async def publish(self, event: ServerEvent) -> None:
        """Tell everybody."""
        await _tell_all(dict.fromkeys(self._subscribers, frozenset({event})))

    def watched(self) -> Mapping[str, set[str]]:
        """The single resources that somebody wants to hear of, by key."""
        found: dict[str, set[str]] = {}
        for one in self._subscribers:
            if one.uris:
                found.setdefault(one.key_id, set()).update(one.uris)
        return found

    async def updated(self, key_id: str, uri: str) -> None:
        """Tell those of the key who want to hear of that resource."""
        news = frozenset({ResourceUpdated(uri=uri)})
        await _tell_all(
            {o: news for o in self._subscribers if o.key_id == key_id and uri in o.uris}
        )

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Called by the SDK for the listen stream that `listening` has opened."""

        async def tell(event: ServerEvent) -> None:
            listener(event)

        caller, uris = _subscribing.get()
        return self._add(Subscriber(caller.key_id, caller.version, tell, set(uris)))

    def listening(self, ctx: Context, uris: Iterable[str]) -> None:
        """The request in progress is about to subscribe, also to these single resources."""
        _subscribing.set((caller_of(ctx), frozenset(uris)))

    async def on_initialized(self, ctx: Context, _params: types.NotificationParams) -> None:
        """A legacy session has begun; it is told until its connection ends."""
        self.session(ctx)

    def session(self, ctx: Context) -> Subscriber:
        """The legacy session in which a message has come."""
        connection = ctx.session._connection  # noqa: SLF001 - the session does not offer its end
        if _SUBSCRIBER in connection.state:
            known: Subscriber = connection.state[_SUBSCRIBER]
            return known
        caller = caller_of(ctx)

        async def tell(event: ServerEvent) -> None:
            await _notify(ctx.session, event)

        subscriber = Subscriber(caller.key_id, caller.version, tell)
        connection.state[_SUBSCRIBER] = subscriber
        connection.exit_stack.callback(self._add(subscriber))
        return subscriber

    def _add(self, subscriber: Subscriber) -> Callable[[], None]:
        self._subscribers.add(subscriber)
        return lambda: self._subscribers.discard(subscriber)


async def _tell_all(news: Mapping[Subscriber, frozenset[ServerEvent]]) -> None:
    """At once, so that nobody waits for a client that does not take them."""
    await asyncio.gather(*(_tell(one, events) for one, events in news.items()))


async def _tell(subscriber: Subscriber, events: frozenset[ServerEvent]) -> None:
    try:
        async with asyncio.timeout(TELL_SECONDS):
            for event in events:
                await subscriber.tell(event)
    except TimeoutError:
        log.info("A client of key %s does not take notifications", subscriber.key_id)
    except Exception:
        # one that has just left keeps nothing from the others
        log.exception("A client of key %s could not be told what has changed", subscriber.key_id)


async def _notify(session: ServerSession, event: ServerEvent) -> None:
    """The event as the handshake era knows it."""
    match event:
        case ToolsListChanged():
            await session.send_tool_list_changed()
        case PromptsListChanged():
            await session.send_prompt_list_changed()
        case ResourcesListChanged():
            await session.send_resource_list_changed()
        case ResourceUpdated():
            await session.send_resource_updated(event.uri)
