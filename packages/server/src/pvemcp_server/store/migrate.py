"""Brings a database to the newest schema, with a backup before an existing one is changed."""

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.errors import ConfigError
from pvemcp_server.store.database import Database
from pvemcp_server.store.export import export

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x7076656D  # any number that is ours: the advisory lock of PostgreSQL migrations


async def migrate(database: Database, backups: Path) -> None:
    """Upgrades inside one transaction; processes that start together take turns."""
    async with database.snapshot() as connection:
        before = await connection.run_sync(revision_of)
    if before == newest_revision():
        return
    if before is not None:
        _check_known(before)
        await export(database, backups / f"before-upgrade-from-{before}-{stamp()}.jsonl.gz")
    async with database.writing() as connection:
        await upgrade(connection)


async def upgrade(connection: AsyncConnection, revision: str = "head") -> None:
    """Runs the migrations up to that revision in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), revision))


def newest_revision() -> str | None:
    return _scripts().get_current_head()


def revision_of(connection: Connection) -> str | None:
    """The revision of the schema; None in an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str) -> bool:
    return any(script.revision == revision for script in _scripts().walk_revisions())


def stamp() -> str:
    """The time, fit for a file's name."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _check_known(revision: str) -> None:
    if not is_known(revision):
        raise ConfigError(f"The database is of a newer version ({revision}) than this program.")


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config(None))


def alembic_config(connection: Connection | None) -> AlembicConfig:
    """Alembic without a file: our migrations, on that connection."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
