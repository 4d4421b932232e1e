"""The processes that share a PostgreSQL database: who is alive, and their messages to each other.

Each process has one connection of its own beside the pool, on which it listens (LISTEN/NOTIFY),
shows that it is alive, and settles what is shared: limits and who fetches an inventory. A single
process on SQLite has none of this.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import anyio
from asyncpg import InterfaceError, InternalClientError, PostgresError  # type: ignore[import-untyped]  # it has none

from pvemcp_server.errors import StateUnavailable
from pvemcp_server.store.background import first_of
from pvemcp_server.store.database import MOST_LOSSES, Database

BEAT_SECONDS: Final = 1.0  # between two signs of life
LIVE_SECONDS: Final = 3  # after the last one, then what a process held is free
KEPT_SECONDS: Final = 60  # a process without a sign of life, and what only limits a minute
FAILURES_SECONDS: Final = 24 * 3600  # without a further attempt; no lock is so long
SWEEP_BEATS: Final = 60
RETRY_SECONDS: Final = 0.5
WAIT_SECONDS: Final = 5.0  # of a call for the connection, while it is opened again
# a server that stops in the middle of a statement may leave the driver in a state of its own
FAILED: Final = (PostgresError, InterfaceError, InternalClientError, OSError, TimeoutError)
CHANNEL: Final = "'pvemcp_' || md5(current_schema())"  # a database may hold several installations
NOW: Final = "extract(epoch FROM clock_timestamp())"
# `abs`: a time ahead of the clock shows that it was set back, and would count until it is reached
IS_LIVE: Final = f"abs({NOW} - seen) < {LIVE_SECONDS}"  # of a row of `processes`
log = logging.getLogger(__name__)

_BEAT: Final = f"""
INSERT INTO processes (id, seen) VALUES ($1, {NOW})
ON CONFLICT (id) DO UPDATE SET seen = excluded.seen
RETURNING ARRAY(SELECT id FROM processes WHERE id <> $1 AND {IS_LIVE}) AS others, seen
"""  # noqa: S608 - constants of this module
_SWEEP: Final = f"""
WITH gone AS (
    DELETE FROM processes WHERE abs({NOW} - seen) > {KEPT_SECONDS} RETURNING id
), buckets AS (
    DELETE FROM rate_buckets WHERE abs({NOW} - since) > 2 * {KEPT_SECONDS}
), attempts AS (
    DELETE FROM failures WHERE abs({NOW} - changed) > {FAILURES_SECONDS}
), notes AS (
    DELETE FROM cluster_writes WHERE process NOT IN (SELECT id FROM processes)
)
DELETE FROM claims WHERE abs({NOW} - changed) > {KEPT_SECONDS}
    AND NOT held::jsonb ?| ARRAY(SELECT id::text FROM processes WHERE {IS_LIVE})
"""  # noqa: S608 - the same
Listener = Callable[[str], None]


class Fleet:
    """This process among those that share the database; it takes part while `run` runs.

    What it holds is free LIVE_SECONDS after its last sign of life, also if it was killed or is
    frozen. One that ends in order leaves at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_shared = not database.is_sqlite
        self.takes_part = False  # a command does not
        self.id = uuid4().hex
        self.others: tuple[str, ...] = ()  # the ids of the other processes that are alive
        self._ahead = 0.0  # the clock of the database, of ours
        self._session: Any | None = None
        self._joined = anyio.Event()
        self._lock = anyio.Lock()
        self._lost = anyio.Event()
        self._listeners: dict[str, Listener] = {}
        self._on_join: list[Callable[[], None]] = []

    @property
    def is_listening(self) -> bool:
        """Whether messages arrive."""
        return self._session is not None

    def clock(self) -> float:
        """Return the database's time in seconds, which all processes share."""
        return self._ahead + monotonic()

    def on_message(self, kind: str, listener: Listener) -> None:
        """Call `listener` with the text of each message of this kind, also of this process."""
        self._listeners[kind] = listener

    def on_join(self, listener: Callable[[], None]) -> None:
        """Call `listener` after the connection was opened, or this process was taken for dead.

        Messages before that may be lost.
        """
        self._on_join.append(listener)

    async def joined(self) -> None:
        """Wait until this process takes part; raise StateUnavailable if that takes too long."""
        if self.is_shared:
            with anyio.move_on_after(WAIT_SECONDS) as waited:
                await self._joined.wait()
            if waited.cancelled_caught:
                raise StateUnavailable("The state's database does not answer.")

    async def fetch(self, sql: str, *arguments: Any) -> list[Any]:
        """Run a statement of its own transaction; raise StateUnavailable if that fails.

        When the connection is lost, it is run again on the next one, so that no call fails; it may
        take effect twice then. Its result survives a crash of this process, not one of
        PostgreSQL: a commit does not wait for the disk.
        """
        for _ in range(MOST_LOSSES):
            await self.joined()
            try:
                return await self.fetch_now(sql, *arguments)
            except StateUnavailable as lost:
                if isinstance(lost.__cause__, TimeoutError):  # it has been waited for already
                    raise
        await self.joined()
        return await self.fetch_now(sql, *arguments)

    async def fetch_now(self, sql: str, *arguments: Any) -> list[Any]:
        """Run a statement as `fetch` does, but once, and without a wait for a lost connection."""
        async with self._lock:
            try:
                if self._session is None:
                    raise InterfaceError("The connection was lost.")
                return list(await self._session.fetch(sql, *arguments))
            except FAILED as error:
                if isinstance(error, PostgresError):  # without its detail, which names a key
                    log.warning("A statement for all processes failed: %s", error.args[0])
                self._leave()
                raise StateUnavailable("The state's database does not answer.") from error

    async def run(self, stop: anyio.Event) -> None:
        """Take part until `stop` is set; open the connection again whenever it is lost."""
        answers, self.takes_part = True, self.is_shared
        while self.is_shared and not stop.is_set():
            try:
                async with self._database.session() as session:
                    await self._take_part(session, stop)
                answers = True
            except Exception:
                if answers and not stop.is_set():  # logged once
                    log.warning("The connection to the other processes was lost", exc_info=True)
                answers = False
            finally:
                self._leave()
            with anyio.move_on_after(RETRY_SECONDS):
                await stop.wait()

    async def _take_part(self, session: Any, stop: anyio.Event) -> None:
        lost = self._lost = anyio.Event()
        session.add_termination_listener(lambda _session: lost.set())
        # what is lost by a crash of PostgreSQL is renewed, as every process connects again
        await session.execute("SET synchronous_commit = off")
        channel = await session.fetchval(f"SELECT {CHANNEL}")
        await session.add_listener(channel, self._received)
        await self._beat(session)
        self._session = session
        self._joined.set()
        for listener in self._on_join:
            listener()
        beats, beat = 0, monotonic()
        while not stop.is_set() and not lost.is_set():
            with anyio.move_on_after(BEAT_SECONDS):
                await first_of(stop, lost)
            beats += 1
            if not lost.is_set() and not stop.is_set():
                await self._beat(session)
                if monotonic() - beat >= LIVE_SECONDS:  # others took this process for dead
                    for listener in self._on_join:
                        listener()
                beat = monotonic()
                if beats % SWEEP_BEATS == 0:
                    await self.fetch_now(_SWEEP)
        if stop.is_set():
            with suppress(StateUnavailable):
                await self.fetch_now("DELETE FROM processes WHERE id = $1", self.id)

    async def _beat(self, session: Any) -> None:
        async with self._lock:
            row = await session.fetchrow(_BEAT, self.id)
        self._ahead = row["seen"] - monotonic()
        self.others = tuple(row["others"])

    def _received(self, _session: object, _pid: int, _channel: str, message: object) -> None:
        kind, _, text = str(message).partition(" ")
        if listener := self._listeners.get(kind):
            listener(text)

    def _leave(self) -> None:
        if self._session is not None:
            self._session = None
            self._joined = anyio.Event()
            self._lost.set()
