"""The connection to one database, SQLite or PostgreSQL."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import anyio
from sqlalchemy import URL, Connection, event, make_url, select, text
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,  # noqa: A004 - of the pool
)
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import QueuePool

from pvemcp_server.errors import ConfigError, StateUnavailable
from pvemcp_server.program_name import this_command

T = TypeVar("T")
DatabaseFailed = SQLAlchemyError  # for layers that do not import SQLAlchemy
CORRUPT = ("malformed", "not a database")  # in SQLite's messages
BUSY_TIMEOUT_SECONDS = 15
CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
# without a statement inside a transaction; then PostgreSQL ends it: a process that is frozen, or
# whose machine is lost, must not keep the others from the audit's chain
IDLE_SECONDS = 15.0
POOL_SIZE = 8  # connections to PostgreSQL that stay open
MOST_FURTHER = 8  # that are opened when those are in use
AWAY_SECONDS = 15.0  # in which a call waits for PostgreSQL: longer than its restart takes
MOST_LOSSES = 3  # in one call: a restart of PostgreSQL may end its connections more than once
RETRY_SECONDS = 0.2
waits: ContextVar[bool] = ContextVar("waits", default=False)
"""Whether the task waits for a database that is away: one that serves a call does; probes,
housekeeping and commands report it at once."""
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # FULL: a committed audit row also survives a power failure, not only a crash of the process
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}",
)


class PoolUse(NamedTuple):
    """The open connections of a pool, and how many there may be."""

    in_use: int
    idle: int
    most: int


class Database:
    """A pool of connections: many readers, and on SQLite one writing transaction at a time."""

    def __init__(self, url: str) -> None:
        self.url = _url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = create_async_engine(self.url, **self._options())
        self._writer = anyio.Lock()
        self._away_since: float | None = None  # on the monotonic clock
        if self.is_sqlite:
            dialect: Any = self._engine.dialect
            dialect.do_terminate = _stop_sqlite
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)
        else:
            event.listen(self._engine.sync_engine, "connect", _prepare_postgres)

    @property
    def file(self) -> Path | None:
        """The file of SQLite; None for PostgreSQL."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    @property
    def connections(self) -> PoolUse | None:
        """How many connections to PostgreSQL are open; None for SQLite."""
        pool = self._engine.pool
        if self.is_sqlite or not isinstance(pool, QueuePool):
            return None
        return PoolUse(pool.checkedout(), pool.checkedin(), POOL_SIZE + MOST_FURTHER)

    async def open(self) -> None:
        """Check that the database answers; raise ConfigError with the reason otherwise."""
        try:
            if self.file is not None:
                _create_private(self.file)
            async with self.reading() as connection:
                await connection.scalar(select(1))
        # drivers raise TypeError for an unknown parameter of the URL, ValueError for a wrong value
        except (OSError, SQLAlchemyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"The database {self.url} cannot be opened: {reason_of(error)}."
            ) from None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Connect without a transaction: each statement sees what is committed by then."""
        with _driver_errors():
            async with AsyncExitStack() as stack:
                connection = await self._connect(stack)
                if self.is_sqlite:
                    yield await connection.execution_options(begin=None)
                else:
                    yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def is_waited_for(self) -> bool:
        """Whether this task waits for a database that is away, and it is not away for long."""
        since = self._away_since
        is_short = since is None or monotonic() - since <= AWAY_SECONDS
        return waits.get() and is_short and not self.is_sqlite

    async def _connect(self, stack: AsyncExitStack) -> AsyncConnection:
        """Connect until the stack is closed; wait for PostgreSQL that is away, where `waits`.

        No statement was sent then, so this is safe for reads and writes. When it has been away for
        AWAY_SECONDS, nothing waits any more until it is back.
        """
        while True:
            try:
                connection = await stack.enter_async_context(self._engine.connect())
            except (OSError, SQLAlchemyError) as error:
                self._away_since = self._away_since or monotonic()
                is_away = isinstance(error, OSError) or is_outage(error)
                if not (is_away and self.is_waited_for):
                    raise
                await anyio.sleep(RETRY_SECONDS)
            else:
                self._away_since = None
                return connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Connect with a read transaction: all statements see the same state."""
        async with AsyncExitStack() as stack:
            with _driver_errors():  # not for the rest, which may write a file
                connection = await self._connect(stack)
            if not self.is_sqlite:
                connection = await connection.execution_options(isolation_level="REPEATABLE READ")
                # it holds no lock that others wait for, and a file may be slow to write
                await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """Open a transaction, committed at the end and rolled back on an error."""
        if not self.is_sqlite:
            with _driver_errors():
                async with AsyncExitStack() as stack:
                    connection = await self._connect(stack)
                    async with connection.begin():
                        yield connection
            return
        # SQLite has one writer: this lock is fairer and cheaper than its busy handler
        async with self._writer, self._engine.connect() as connection:
            connection = await connection.execution_options(begin="IMMEDIATE")
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        """Connect to PostgreSQL beside the pool; return the driver's connection, to LISTEN on."""
        with _driver_errors():
            async with self._engine.connect() as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                await connection.run_sync(Connection.detach)
                yield driver

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()

    def _options(self) -> dict[str, Any]:
        if self.is_sqlite:
            # no implicit BEGIN by the driver: `_begin_sqlite` begins transactions
            return {"connect_args": {"isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS}}
        # without timeouts, a lost connection would block calls for minutes
        timeouts = {"timeout": CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS}
        return {
            "pool_pre_ping": True,
            "pool_size": POOL_SIZE,
            "max_overflow": MOST_FURTHER,
            "connect_args": timeouts,
        }


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Raise DatabaseFailed for an OSError, which the driver of PostgreSQL raises as it is.

    It does so for a refused or lost connection, and for an answer that does not come in time.
    """
    try:
        yield
    except OSError as error:
        raise DatabaseFailed(str(error) or type(error).__name__) from error


def is_outage(error: Exception) -> bool:
    """Return whether the database did not answer, or could not store: no fault of a statement."""
    kinds = OperationalError | InterfaceError | TimeoutError
    # the driver of PostgreSQL reports a server that stops as an error without a class of its own,
    # or finds itself in the middle of a statement
    is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return is_lost or isinstance(error, kinds) or type(error) in (SQLAlchemyError, DBAPIError)


def is_away(error: Exception) -> bool:
    """Return whether the state's database does not answer: neither a poll nor a statement."""
    return isinstance(error, StateUnavailable) or is_outage(error)


async def begun_again(attempt: Callable[[], Awaitable[T]]) -> T:
    """Return the result of a read, which begins again when it loses the database.

    It then waits for the database, at its first statement.
    """
    for _ in range(MOST_LOSSES):
        try:
            return await attempt()
        except (StateUnavailable, DatabaseFailed) as error:
            if not is_away(error):
                raise
    return await attempt()


def reason_of(error: Exception) -> str:
    """Return the driver's message, without the statement and its values.

    For a corrupt file the next step is added.
    """
    message = str(getattr(error, "orig", error)) or type(error).__name__
    if any(sign in message for sign in CORRUPT):
        return (
            f"{message}. Move it away and run `{this_command()} restore` to create it from a backup"
        )
    return message


def _url(text: str) -> URL:
    """Parse the URL and rename libpq's sslmode to the parameter of our driver."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "PVEMCP_DATABASE_URL cannot be parsed; use the form postgresql://user:password@host/name."
        ) from None
    mode = url.query.get("sslmode")
    return (
        url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode}) if mode else url
    )


def _create_private(file: Path) -> None:
    """Create the file with mode 0600, which SQLite also gives to its WAL files.

    SQLite itself would create a file that other users may read.
    """
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    try:
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        cursor.close()
    except Exception:
        connection.close()  # SQLAlchemy does not, and its thread would outlive the event loop
        raise


def _prepare_postgres(connection: Any, _record: object) -> None:
    # not as a parameter of the connection, which poolers refuse
    cursor = connection.cursor()
    milliseconds = int(IDLE_SECONDS * 1000)
    cursor.execute(f"SET idle_in_transaction_session_timeout = {milliseconds}")
    cursor.close()
    connection.commit()


def _stop_sqlite(connection: Any) -> None:
    """Stop the connection of a cancelled caller, without waiting for it.

    SQLAlchemy closes it and, when that is cancelled too, terminates it. Then the close would wait
    forever, because the thread behind the connection ends at the first of two stops.
    """
    connection.driver_connection.stop()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("begin", "DEFERRED")
    if mode is not None:
        connection.exec_driver_sql(f"BEGIN {mode}")
