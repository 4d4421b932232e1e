"""The overview as a stream of server-sent events: its parts, each sent again when it changes.

Everything is read on behalf of the viewers: without one, nothing is asked. What they see is read
once for all of them, so that many open pages cost the clusters and the audit as much as one.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from pvemcp_server.access.sessions import Session
from pvemcp_server.admin import audit, overview
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.audit import Entry
from pvemcp_server.errors import Busy, CallError, StateUnavailable
from pvemcp_server.store.database import DatabaseFailed
from pvemcp_server.store.records import Notice
from pvemcp_server.web.session import (
    PasswordDue,
    SecondFactorDue,
    SignedOut,
    own_reading,
    reading,
)
from pvemcp_server.web.templates import endpoint_of, page, visible

STREAMS_PER_SESSION: Final = 4  # browsers open six connections to a host over HTTP/1.1
STREAMS: Final = 100
RETRY_MS: Final = 5_000  # after which a browser opens a stream again that broke off
SEND_SECONDS: Final = 30.0  # a browser that reads nothing for so long is gone
PARTS: Final = ("start", "endpoint", "notices", "calls", "failures")
CLUSTERS: Final = "clusters"
T = TypeVar("T")


@dataclass(frozen=True)
class Facts:
    """What the overview shows beside the clusters."""

    start: overview.Start
    enabled: bool
    waiting: int  # calls that wait for an approval
    notices: list[Notice]
    usage: audit.Usage
    failures: list[Entry]

    def values(self) -> dict[str, Any]:
        """Return the values that the templates of the parts take."""
        return {
            "start": self.start,
            "enabled": self.enabled,
            "waiting": self.waiting,
            "notices": self.notices,
            "bars": self.usage.bars,
            "tools": self.usage.tools,
            "failures": self.failures,
        }


@dataclass(eq=False)
class Shared(Generic[T]):
    """A value that is read at most once in `seconds`, whatever the number of viewers."""

    seconds: float
    _value: T | None = None
    _read_at: float = float("-inf")
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def get(self, read: Callable[[], Awaitable[T]], *, fresh: bool = False) -> T:
        """Return the value; wait for the viewer who reads it now, or read it."""
        async with self._lock:
            if fresh or self._value is None or monotonic() - self._read_at >= self.seconds:
                self._value = await read()
                self._read_at = monotonic()
            return self._value


@dataclass(eq=False)
class LiveOverview:
    """The overview of one process, for every page that shows it; `seconds` between two looks."""

    seconds: float = 2.0
    closing: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server stops
    _facts: Shared[Facts] = field(init=False)
    _clusters: Shared[list[overview.Health]] = field(init=False)
    _streams: Counter[str] = field(default_factory=Counter)  # by session
    _recent: tuple[object, audit.Usage, list[Entry]] | None = None

    def __post_init__(self) -> None:
        """Let a viewer who looks again a little early see a new value."""
        self._facts = Shared(self.seconds * 0.9)
        self._clusters = Shared(self.seconds * 0.9)

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return self._streams.total()

    async def facts(self, context: AdminContext, *, fresh: bool = False) -> Facts:
        """Return what the overview shows beside the clusters; `fresh` is for a page that opens."""
        return await self._facts.get(lambda: self._read(context), fresh=fresh)

    async def clusters(self, context: AdminContext) -> list[overview.Health]:
        """Return the state of every cluster."""
        return await self._clusters.get(lambda: overview.cluster_health(context))

    def response(self, request: Request, session: Session) -> EventSourceResponse:
        """Return the stream; raise Busy beyond STREAMS_PER_SESSION or STREAMS."""
        if self._streams[session.id] >= STREAMS_PER_SESSION or self.streams >= STREAMS:
            raise Busy(
                "Too many pages show the overview live.", hint="Close one of them.", seconds=60
            )
        events = self._events(request, session)
        return EventSourceResponse(events, send_timeout=SEND_SECONDS)

    async def _read(self, context: AdminContext) -> Facts:
        services = context.services
        usage, failures = await self._calls(context)
        return Facts(
            start=await overview.start(context),
            enabled=(await services.settings.current()).enabled,
            waiting=len(await services.approvals.waiting()),
            notices=await overview.list_notices(context),
            usage=usage,
            failures=failures,
        )

    async def _calls(self, context: AdminContext) -> tuple[audit.Usage, list[Entry]]:
        """Return the last calls; they are counted again only after a new entry or hour."""
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        state = (await context.services.audit.head(), hour)
        if self._recent is None or self._recent[0] != state:
            usage = await audit.usage(context)
            self._recent = state, usage, await audit.recent_failures(context)
        return self._recent[1:]

    async def _events(self, request: Request, session: Session) -> AsyncIterator[ServerSentEvent]:
        """Yield the parts, later those that have changed, until the session or the server ends."""
        sent: dict[str, str] = {}
        with self._place(session):
            if self._streams[session.id] > STREAMS_PER_SESSION or self.streams > STREAMS:
                return  # others came first; the browser asks again, and is refused
            yield ServerSentEvent(comment="open", retry=RETRY_MS)
            while not self.closing.is_set():
                try:
                    session, context = await _still_signed_in(request, session)
                except (SignedOut, PasswordDue, SecondFactorDue):
                    yield ServerSentEvent(event="ended", data="")
                    return
                except (StateUnavailable, DatabaseFailed):
                    pass  # the next look may succeed
                else:
                    async for part, text in self._parts(request, session, context):
                        if sent.get(part) != text:
                            sent[part] = text
                            yield ServerSentEvent(event=part, data=text)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.closing.wait(), self.seconds)

    async def _parts(
        self, request: Request, session: Session, context: AdminContext
    ) -> AsyncIterator[tuple[str, str]]:
        """Yield each part as HTML. Clusters come last: one of them may be slow."""
        with suppress(CallError, StateUnavailable, DatabaseFailed):
            facts = await self.facts(context)
            values = {**facts.values(), "endpoint": endpoint_of(request)}
            for part in PARTS:
                yield part, _html(request, f"overview_{part}.html", session, values)
        with suppress(CallError, StateUnavailable, DatabaseFailed):
            values = {"clusters": await self.clusters(context)}
            yield CLUSTERS, _html(request, "overview_clusters.html", session, values)

    @contextmanager
    def _place(self, session: Session) -> Iterator[None]:
        self._streams[session.id] += 1
        try:
            yield
        finally:
            self._streams -= Counter([session.id])


async def _still_signed_in(request: Request, session: Session) -> tuple[Session, AdminContext]:
    """Return the session with the present role; raise SignedOut when it may not look any more.

    Unlike a request, a stream does not count as use: an open page keeps no session alive.
    """
    site = request.state.site
    admin = await site.services.access.sessions.administrator(session.id)
    if admin is None:
        raise SignedOut
    session = replace(session, admin=admin)
    if not visible(session, "overview.calls"):
        raise SignedOut
    return session, await reading(session, await own_reading(request, session))


def _html(request: Request, template: str, session: Session, values: dict[str, Any]) -> str:
    return bytes(page(request, template, session, **values).body).decode()
