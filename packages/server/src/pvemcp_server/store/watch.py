"""Change notification within a second, also across processes, and the cache that relies on it."""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from enum import StrEnum
from typing import Generic, TypeVar

import anyio
from sqlalchemy import String, cast, func, literal_column, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store import records
from pvemcp_server.store.background import first_of
from pvemcp_server.store.database import AWAY_SECONDS, RETRY_SECONDS, Database, waits
from pvemcp_server.store.fleet import CHANNEL, Fleet

POLL_SECONDS = 0.5
LISTEN_SECONDS = 5.0  # between polls of an idle process that is notified of changes
_NO_ANSWER = "The state's database does not answer."
log = logging.getLogger(__name__)

Listener = Callable[[], Awaitable[None]]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Topic(StrEnum):
    """A part of the state that processes cache; each has a version in the database."""

    ACCESS = "access"  # keys, roles, bindings
    CLUSTERS = "clusters"  # clusters and their identities
    FREEZES = "freezes"  # clusters that nothing is written to for now
    SETTINGS = "settings"
    QUERIES = "queries"  # saved queries
    SECRETS = "secrets"  # data keys, after a rotation
    WRITES = "writes"  # writes to Proxmox by any process, see `cluster_writes.py`


class Watch:
    """Reads the versions in the database and calls listeners when one has changed.

    PostgreSQL notifies each process of a change (NOTIFY, in the transaction that makes it), so it
    reads them then. An idle process on SQLite, or one that has lost the connection to listen on,
    polls them twice a second.

    A cache is valid only after `poll_if_due`: it raises StateUnavailable when the database does not
    answer, so that permissions that may have been revoked are never used (fail closed). So calls
    poll also while notifications arrive: one that is late, or lost with a connection that hangs,
    must not keep a revoked key valid.
    """

    def __init__(
        self,
        database: Database,
        fleet: Fleet | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._fleet = fleet
        self._notified = anyio.Event()
        if fleet:
            fleet.on_message("changed", self._receive)
            fleet.on_join(lambda: self._notified.set())  # it may have missed notifications
        self._clock = clock
        self._polled = -math.inf  # on the clock
        self._failed = -math.inf  # when the last failed poll ended
        self._failing_since: float | None = None
        self._lock = anyio.Lock()
        self._seen: Mapping[str, int] = {}
        self._listeners: dict[Topic, list[Listener]] = {topic: [] for topic in Topic}

    def on_change(self, topic: Topic, listener: Listener) -> None:
        """Call `listener` in this process after each change of the topic.

        A listener must not poll: the lock is held while it runs.
        """
        self._listeners[topic].append(listener)

    async def poll_if_due(self) -> None:
        """Poll unless the last poll is less than POLL_SECONDS old; may raise StateUnavailable.

        Callers that wait for a poll share its result, also a failure: they would otherwise wait
        for a database that does not answer one after the other. Calls poll again while it is away
        for seconds.
        """
        began = first = self._clock()
        while began - self._polled >= POLL_SECONDS:
            failure = None
            async with self._lock:
                if self._failed >= began:
                    failure = StateUnavailable(_NO_ANSWER)
                elif self._clock() - self._polled >= POLL_SECONDS:  # no other caller has polled
                    try:
                        await self._poll()
                    except StateUnavailable as error:
                        failure = error
            if failure is None:
                return
            if not self._database.is_waited_for or self._clock() - first > AWAY_SECONDS:
                raise failure
            await anyio.sleep(RETRY_SECONDS)
            began = self._clock()

    @property
    def is_waited_for(self) -> bool:
        """Whether polls fail, and calls still wait for the database to come back."""
        since = self._failing_since
        is_short = since is not None and self._clock() - since <= AWAY_SECONDS
        return is_short and not self._database.is_sqlite

    async def poll(self) -> None:
        """Poll at once, so that a process sees its own change; may raise StateUnavailable."""
        async with self._lock:
            await self._poll()

    async def run(self, stop: anyio.Event) -> None:
        """Poll until `stop` is set, so that listeners also run while no client calls."""
        answers = True
        while not stop.is_set():
            is_notified = await self._wait(stop)
            try:
                await (self.poll() if is_notified else self.poll_if_due())
                answers = True
            except Exception:
                if answers:  # logged once, not twice a second
                    log.warning("The state's database does not answer", exc_info=True)
                answers = False

    def _receive(self, text: str) -> None:
        """Wake `run` for a notification, unless its version has been seen."""
        topic, _, value = text.partition(" ")
        if self._seen.get(topic, 0) < int(value):
            self._notified.set()

    async def _wait(self, stop: anyio.Event) -> bool:
        """Wait until the next poll is due; return whether a notification has come."""
        listens = self._fleet is not None and self._fleet.is_listening
        with anyio.move_on_after(LISTEN_SECONDS if listens else POLL_SECONDS):
            await first_of(stop, self._notified)
        is_notified = self._notified.is_set()
        if is_notified:
            self._notified = anyio.Event()
        return is_notified

    async def _poll(self) -> None:
        # the time before the query: the result may be older than its arrival
        started = self._clock()
        token = waits.set(False)  # a probe must not wait for the lock
        try:
            versions = await self._versions()
        except (OSError, SQLAlchemyError) as error:
            self._failed = self._clock()
            self._failing_since = self._failing_since or self._failed
            raise StateUnavailable(_NO_ANSWER) from error
        finally:
            waits.reset(token)
        for topic in Topic:
            if versions.get(topic) != self._seen.get(topic):
                for listener in self._listeners[topic]:
                    await listener()
        # last: if a listener failed, the next poll calls it again
        self._seen, self._polled, self._failing_since = versions, started, None

    async def _versions(self) -> Mapping[str, int]:
        table = records.versions
        async with self._database.reading() as connection:
            rows = (await connection.execute(select(table.c.topic, table.c.value))).all()
        return {row.topic: row.value for row in rows}


class VersionedCache(Generic[K, V]):
    """A cache that is emptied by every change, and that rejects values read before the last one.

    The race: a reader awaits the database and gets the old row. Before it runs again, another task
    or process commits a change, `Watch` notices it and calls `clear`. If the reader then stored its
    old row, the cache would serve it until the next change: a revoked key would stay valid.

    So every `clear` increases `version`. A reader takes the version before it reads and passes it
    to `put`, which refuses the value when a change came in between. The reader may still use the
    value for its own call, which began before the change was noticed.
    """

    def __init__(self) -> None:
        self.version = 0
        self._values: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value, or None when it has to be read."""
        return self._values.get(key)

    def put(self, key: K, value: V, version: int) -> bool:
        """Store a value that was read at this version; return whether it was still current."""
        if version != self.version:
            return False
        self._values[key] = value
        return True

    def values(self) -> list[V]:
        """Return all values."""
        return list(self._values.values())

    def clear(self) -> list[V]:
        """Remove all values, because something has changed, and return them."""
        removed = self.values()
        self.version += 1
        self._values = {}
        return removed


async def bump(connection: AsyncConnection, *topics: Topic) -> None:
    """Increase the versions of topics, in the transaction that makes the change."""
    for topic in sorted(topics):  # in a fixed order, so that two processes cannot deadlock
        await next_version(connection, topic)


async def next_version(connection: AsyncConnection, topic: Topic) -> int:
    """Increase and return the version of a topic; the commit notifies all processes."""
    table = records.versions
    query = table.update().where(table.c.topic == topic).values(value=table.c.value + 1)
    if connection.dialect.name == "postgresql":
        text = func.concat("changed ", table.c.topic, " ", cast(table.c.value, String))
        notified = func.pg_notify(literal_column(CHANNEL), text)
        return int(await connection.scalar(query.returning(table.c.value, notified)) or 0)
    return int(await connection.scalar(query.returning(table.c.value)) or 0)
