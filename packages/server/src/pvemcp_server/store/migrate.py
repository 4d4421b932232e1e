"""Migrations: upgrade a database to the newest schema, after a backup of an existing one."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import ConfigError
from pvemcp_server.store.database import Database
from pvemcp_server.store.export import export, revision_of
from pvemcp_server.store.records import metadata

if TYPE_CHECKING:
    from alembic.config import Config as AlembicConfig
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x7076656D  # key of the advisory lock of PostgreSQL, any fixed number
WAIT_SECONDS: Final = 0.2  # between two attempts to get the turn
_COLUMNS: Final = {  # pairs of table and column; SQLAlchemy's inspector takes ten times as long
    "sqlite": "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c",
    "postgresql": (
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = current_schema()"
    ),
}
log = logging.getLogger(__name__)


async def migrate(database: Database, backups: Path, master: bytes | None) -> None:
    """Upgrade in one transaction, after a backup; processes take turns, and the first does both.

    Raise ConfigError for a database that has to be backed up first while its master key is missing,
    and for one of a development version, which no migration upgrades.
    """
    async with database.snapshot() as connection:
        before = await connection.run_sync(revision_of)
        if before == newest_revision():
            await connection.run_sync(_check_columns)
            return
    async with _turn(database) as connection:
        before = await connection.run_sync(revision_of)  # another process may have upgraded it
        if before == newest_revision():
            return
        if before is not None:
            _check_known(before)
            if master is None:
                raise ConfigError("The master key of this database is missing: put your copy back.")
            backup = backups / f"before-upgrade-from-{before}-{stamp()}.jsonl.gz"
            await export(database, backup, master)
        await upgrade(connection)


@asynccontextmanager
async def _turn(database: Database) -> AsyncIterator[AsyncConnection]:
    """Open the transaction of an upgrade; wait as long as another process upgrades.

    It asks again and again: the timeouts of a waiting statement are shorter than a large backup.
    """
    async with AsyncExitStack() as stack:
        waits = False
        while (connection := await _locked(database, stack)) is None:
            if not waits:
                log.info("Another process upgrades the database: waiting until it is done")
            waits = True
            await anyio.sleep(WAIT_SECONDS)
        yield connection


async def _locked(database: Database, stack: AsyncExitStack) -> AsyncConnection | None:
    """Return a transaction that holds the lock of upgrades; None if another process holds it."""
    async with AsyncExitStack() as attempt:
        try:
            connection = await attempt.enter_async_context(database.writing())
        except OperationalError as error:
            if database.is_sqlite and "locked" in str(error.orig):
                return None
            raise
        if not database.is_sqlite:
            query = f"SELECT pg_try_advisory_xact_lock({LOCK})"
            if not (await connection.exec_driver_sql(query)).scalar():
                return None
        stack.push_async_exit(attempt.pop_all())
        return connection


async def upgrade(connection: AsyncConnection, revision: str = "head") -> None:
    """Run the migrations up to that revision in the connection's transaction."""
    # imported here: a start on a database that is up to date needs no library for it
    from alembic import command

    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), revision))


def newest_revision() -> str | None:
    """Return the revision of this program's schema."""
    return max(_revisions(), default=None)


def is_known(revision: str) -> bool:
    """Return whether this program can read a schema of that revision."""
    return revision in _revisions()


def stamp() -> str:
    """Return the current time in a form for file names."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _check_columns(connection: "Connection") -> None:
    """Raise ConfigError if a table or a column of this program is missing."""
    rows = connection.exec_driver_sql(_COLUMNS[connection.dialect.name])
    found = {(table, column) for table, column in rows}
    missing = [
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if (table.name, column.name) not in found
    ]
    if missing:
        raise ConfigError(
            f"The database lacks {missing[0]} and {len(missing) - 1} other columns: a development "
            "version of the same number made it, and nothing upgrades it. Begin with an empty "
            "state folder or database."
        )


def _check_known(revision: str) -> None:
    if not is_known(revision):
        raise ConfigError(f"The database is of a newer version ({revision}) than this program.")


def _revisions() -> list[str]:
    """Return the revisions of the migrations: their numbers, which begin the names of the files."""
    files = (MIGRATIONS / "versions").glob("m*_*.py")
    return [file.name.partition("_")[0].removeprefix("m") for file in files]


def alembic_config(connection: "Connection | None") -> "AlembicConfig":
    """Configure Alembic in code: our migrations, on that connection."""
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
