"""Notices, within a second, what another process has changed."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum

import anyio
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store import schema
from pvemcp_server.store.background import rounds
from pvemcp_server.store.database import Database

POLL_SECONDS = 0.5
log = logging.getLogger(__name__)

Listener = Callable[[], Awaitable[None]]


class Topic(StrEnum):
    """What is cached by processes, each with a version of its own."""

    ACCESS = "access"  # keys, roles, bindings
    CLUSTERS = "clusters"  # clusters and their identities
    SETTINGS = "settings"
    QUERIES = "queries"  # saved queries


class Watch:
    """Compares versions in the database with those last seen and tells whoever listens."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._polled: float | None = None
        self._lock = anyio.Lock()
        self._seen: Mapping[str, int] = {}
        self._listeners: dict[Topic, list[Listener]] = {topic: [] for topic in Topic}

    def on_change(self, topic: Topic, listener: Listener) -> None:
        """Calls `listener` after a change of the topic was noticed in this process."""
        self._listeners[topic].append(listener)

    async def fresh(self) -> None:
        """Returns once what we know is at most POLL_SECONDS old; raises StateUnavailable."""
        if self._is_fresh():
            return
        async with self._lock:
            if not self._is_fresh():
                await self._poll()

    async def now(self) -> None:
        """Looks at once: what a process has changed itself it must also see itself."""
        async with self._lock:
            await self._poll()

    async def run(self, stop: anyio.Event) -> None:
        """Polls until told to stop, so that listeners hear of changes while nobody calls."""
        answers = True
        async for _ in rounds(stop, POLL_SECONDS):
            try:
                await self.fresh()
                answers = True
            except Exception:
                if answers:  # told once, not twice a second
                    log.warning("The state's database does not answer", exc_info=True)
                answers = False

    def _is_fresh(self) -> bool:
        return self._polled is not None and self._clock() - self._polled < POLL_SECONDS

    async def _poll(self) -> None:
        # taken before the question: the answer may be older than its arrival
        asked = self._clock()
        try:
            found = await self._versions()
        except (OSError, SQLAlchemyError) as away:
            raise StateUnavailable("The state's database does not answer.") from away
        seen = self._seen
        for topic in Topic:
            if found.get(topic) != seen.get(topic):
                for listener in self._listeners[topic]:
                    await listener()
        # only now: if a listener failed, the next poll tells it again
        self._seen, self._polled = found, asked

    async def _versions(self) -> Mapping[str, int]:
        table = schema.versions
        async with self._database.reading() as connection:
            rows = (await connection.execute(select(table.c.topic, table.c.value))).all()
        return {row.topic: row.value for row in rows}


async def bump(connection: AsyncConnection, *topics: Topic) -> None:
    """Counts a version up in the transaction that makes the change."""
    table = schema.versions
    for topic in sorted(topics):  # a fixed order: two processes never wait for each other
        await connection.execute(
            table.update().where(table.c.topic == topic).values(value=table.c.value + 1)
        )
