"""One database, SQLite or PostgreSQL: how we connect, read and write."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from sqlalchemy import URL, Connection, event, make_url, select
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from pvemcp_server.errors import ConfigError

DatabaseFailed = SQLAlchemyError  # for layers that know nothing of SQL
BROKEN = ("malformed", "not a database")  # in SQLite's words
BUSY_TIMEOUT_SECONDS = 15
CONNECT_SECONDS = 10
COMMAND_SECONDS = 60
PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # FULL: a committed audit row also survives a power failure, not only the end of the process
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_TIMEOUT_SECONDS * 1000}",
)


class Database:
    """Hands out connections for reading, and one transaction at a time for writing."""

    def __init__(self, url: str) -> None:
        self.url = _url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._engine = create_async_engine(self.url, **self._options())
        self._writer = anyio.Lock()
        if self.is_sqlite:
            dialect: Any = self._engine.dialect
            dialect.do_terminate = _stop_sqlite
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)

    @property
    def file(self) -> Path | None:
        """SQLite's file."""
        return Path(self.url.database) if self.is_sqlite and self.url.database else None

    async def open(self) -> None:
        """Makes sure that the database answers; raises ConfigError saying why not."""
        try:
            if self.file is not None:
                _create_private(self.file)
            async with self.reading() as connection:
                await connection.scalar(select(1))
        # drivers refuse a parameter of the URL with a TypeError, and its value with a ValueError
        except (OSError, SQLAlchemyError, TypeError, ValueError) as failed:
            raise ConfigError(
                f"The database {self.url} cannot be opened: {fact_of(failed)}."
            ) from None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection without a transaction: each statement sees what is committed then."""
        async with self._engine.connect() as connection:
            if self.is_sqlite:
                yield await connection.execution_options(begin=None)
            else:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which all statements see the same moment."""
        async with self._engine.connect() as connection:
            if not self.is_sqlite:
                connection = await connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction, committed at the end and rolled back on an error."""
        if not self.is_sqlite:
            async with self._engine.begin() as connection:
                yield connection
            return
        # SQLite has one writer: waiting here is fairer and cheaper than on its busy handler
        async with self._writer, self._engine.connect() as connection:
            connection = await connection.execution_options(begin="IMMEDIATE")
            async with connection.begin():
                yield connection

    async def close(self) -> None:
        await self._engine.dispose()

    def _options(self) -> dict[str, Any]:
        if self.is_sqlite:
            # no implicit BEGIN by the driver: we begin transactions ourselves
            return {"connect_args": {"isolation_level": None, "timeout": BUSY_TIMEOUT_SECONDS}}
        # without these, a server that went away without a word would hold calls up for minutes
        patience = {"timeout": CONNECT_SECONDS, "command_timeout": COMMAND_SECONDS}
        return {
            "pool_pre_ping": True,
            "pool_size": 8,
            "max_overflow": 8,
            "connect_args": patience,
        }


def fact_of(failed: Exception) -> str:
    """What the driver says, without the statement and its values, and what helps a broken file."""
    fact = str(getattr(failed, "orig", failed)) or type(failed).__name__
    broken = any(sign in fact for sign in BROKEN)
    return (
        f"{fact}. Move it away, and `pvemcp restore` makes a new one of a backup"
        if broken
        else fact
    )


def _url(text: str) -> URL:
    """The URL, with libpq's name of the TLS mode as our driver knows it."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigError(
            "PVEMCP_DATABASE_URL cannot be read; it is like postgresql://user:password@host/name."
        ) from None
    mode = url.query.get("sslmode")
    return (
        url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode}) if mode else url
    )


def _create_private(file: Path) -> None:
    """SQLite would make a file that others may read, and its companions have the same mode."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    try:
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        cursor.close()
    except Exception:
        connection.close()  # SQLAlchemy forgets it, and its thread would outlive the event loop
        raise


def _stop_sqlite(connection: Any) -> None:
    """Ends a connection whose caller was cancelled, without waiting for it.

    SQLAlchemy closes it and, when that is cancelled too, stops it by force: then the close waits
    forever, because the thread behind the connection ends at the first of two stops.
    """
    connection.driver_connection.stop()


def _begin_sqlite(connection: Connection) -> None:
    mode = connection.get_execution_options().get("begin", "DEFERRED")
    if mode is not None:
        connection.exec_driver_sql(f"BEGIN {mode}")
