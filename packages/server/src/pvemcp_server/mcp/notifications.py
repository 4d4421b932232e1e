"""Notifications to clients of both eras about changes, and the end of streams of refused keys."""

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
from pvemcp_server.http.exchange import ActiveRequests
from pvemcp_server.http.gate import caller_of
from pvemcp_server.mcp.sdk_connection import connection_of

SEND_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 5.0  # after a failure
POLL_SECONDS: Final = 60.0  # how long a stream may outlive the expiry of its key
ALL_LISTS: Final[frozenset[ServerEvent]] = frozenset(
    {ToolsListChanged(), PromptsListChanged(), ResourcesListChanged()}
)
_SUBSCRIBER: Final = "subscriber"  # in the state of a session's connection
log = logging.getLogger(__name__)

FindCaller = Callable[[str], Awaitable[Caller | None]]
Admits = Callable[[Caller], Awaitable[bool]]
Context = ServerRequestContext[Any, Any]
_subscribing: ContextVar[tuple[Caller, frozenset[str]]] = ContextVar("subscribing")


@dataclass(eq=False)
class Subscriber:
    """A listen stream or a session, with the version of the rights its client knows."""

    key_id: str
    holder: str
    version: str
    notify: Callable[[ServerEvent], Awaitable[None]]
    uris: set[str] = field(default_factory=set)  # single resources it subscribes to


@dataclass
class NotificationBus:
    """The SDK's subscription bus, aware of keys."""

    find: FindCaller  # the caller with the key's current rights; None when it is not valid
    admits: Admits  # whether the caller's own request would still be admitted
    active_requests: ActiveRequests
    end_calls: Callable[[], Awaitable[None]]  # those whose key is refused, or has other rights
    _subscribers: set[Subscriber] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _lists: set[ServerEvent] = field(default_factory=set)  # changed for all callers

    async def rights_changed(self) -> None:
        """Wake `run`: keys, roles, bindings or the settings have changed."""
        self._changed.set()

    async def clusters_changed(self) -> None:
        """Announce added, removed or renamed clusters: they are resources."""
        self._list_changed(ResourcesListChanged())

    async def queries_changed(self) -> None:
        """Announce saved or removed queries: they are prompts."""
        self._list_changed(PromptsListChanged())

    def _list_changed(self, event: ServerEvent) -> None:
        self._lists.add(event)
        self._changed.set()

    async def run(self) -> None:
        """Refresh after each change, and every POLL_SECONDS since keys expire, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.refresh()
            except Exception:
                log.exception("Clients could not be notified of changed lists")
                # still due, and refused streams are still open
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def refresh(self) -> None:
        """Notify subscribers whose rights changed; end streams and calls that have lost them."""
        await self._close_refused_streams()
        await self.end_calls()
        versions = await self._versions()
        lists = frozenset(self._lists)
        self._lists.clear()
        events = {}
        for subscriber in self._subscribers:
            version = versions.get(subscriber.key_id, subscriber.version)
            events[subscriber] = lists if version == subscriber.version else ALL_LISTS
            subscriber.version = version
        await _notify_all(events)

    async def _close_refused_streams(self) -> None:
        """Close each stream whose secret, address or key would not be admitted any more."""
        for stream in self.active_requests.streams():
            if stream.caller is None or not await self.admits(stream.caller):
                stream.close()

    async def _versions(self) -> dict[str, str]:
        """Return the version of each listening key's rights."""
        callers = [await self.find(key_id) for key_id in {s.key_id for s in self._subscribers}]
        return {caller.key_id: caller.version for caller in callers if caller}

    async def publish(self, event: ServerEvent) -> None:
        """Notify all subscribers."""
        await _notify_all(dict.fromkeys(self._subscribers, frozenset({event})))

    def watched(self) -> Mapping[str, set[str]]:
        """Return the single resources with subscribers, by key."""
        uris: dict[str, set[str]] = {}
        for subscriber in self._subscribers:
            if subscriber.uris:
                uris.setdefault(subscriber.key_id, set()).update(subscriber.uris)
        return uris

    def number_watched(self, holder: str) -> int:
        """Return how many single resources the keys of a holder watch, each key for itself."""
        own = {(s.key_id, uri) for s in self._subscribers if s.holder == holder for uri in s.uris}
        return len(own)

    async def updated(self, key_id: str, uri: str) -> None:
        """Notify the key's subscribers of that resource."""
        event = frozenset({ResourceUpdated(uri=uri)})
        await _notify_all(
            {s: event for s in self._subscribers if s.key_id == key_id and uri in s.uris}
        )

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Add the listen stream that `listening` has announced; return how to remove it.

        The SDK passes no context, so a context variable holds it.
        """

        async def notify(event: ServerEvent) -> None:
            listener(event)

        caller, uris = _subscribing.get()
        return self._add(
            Subscriber(caller.key_id, caller.holder, caller.version, notify, set(uris))
        )

    def listening(self, ctx: Context, uris: Iterable[str]) -> None:
        """Announce that this request is about to subscribe, also to these single resources."""
        _subscribing.set((caller_of(ctx), frozenset(uris)))

    async def on_initialized(self, ctx: Context, _params: types.NotificationParams) -> None:
        """Subscribe a session to changed lists until its connection ends."""
        self.session(ctx)

    def session(self, ctx: Context) -> Subscriber:
        """Return the subscriber of the session in which a message has come."""
        connection = connection_of(ctx.session)
        known = connection.state.get(_SUBSCRIBER)
        if isinstance(known, Subscriber):
            return known
        caller = caller_of(ctx)

        async def notify(event: ServerEvent) -> None:
            await _notify_session(ctx.session, event)

        subscriber = Subscriber(caller.key_id, caller.holder, caller.version, notify)
        connection.state[_SUBSCRIBER] = subscriber
        connection.exit_stack.callback(self._add(subscriber))
        return subscriber

    def _add(self, subscriber: Subscriber) -> Callable[[], None]:
        self._subscribers.add(subscriber)
        return lambda: self._subscribers.discard(subscriber)


async def _notify_all(events: Mapping[Subscriber, frozenset[ServerEvent]]) -> None:
    """Notify all at once: a client that does not read must not delay the others."""
    await asyncio.gather(*(_notify(subscriber, due) for subscriber, due in events.items()))


async def _notify(subscriber: Subscriber, events: frozenset[ServerEvent]) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            for event in events:
                await subscriber.notify(event)
    except TimeoutError:
        log.info("A client of key %s does not read notifications", subscriber.key_id)
    except Exception:
        # a client that has just left must not keep the others from being notified
        log.exception("A client of key %s could not be notified", subscriber.key_id)


async def _notify_session(session: ServerSession, event: ServerEvent) -> None:
    """Send the event as a notification of the handshake era."""
    match event:
        case ToolsListChanged():
            await session.send_tool_list_changed()
        case PromptsListChanged():
            await session.send_prompt_list_changed()
        case ResourcesListChanged():
            await session.send_resource_list_changed()
        case ResourceUpdated():
            await session.send_resource_updated(event.uri)
