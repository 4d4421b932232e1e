"""Migrations: upgrade a database to the newest schema, after a backup of an existing one."""

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
LOCK = 0x7076656D  # key of the advisory lock of PostgreSQL, any fixed number


async def migrate(database: Database, backups: Path, master: bytes | None) -> None:
    """Upgrade in one transaction; processes that start at the same time wait for each other.

    Raise ConfigError for a database that has to be backed up first while its master key is missing.
    """
    async with database.snapshot() as connection:
        before = await connection.run_sync(revision_of)
    if before == newest_revision():
        return
    if before is not None:
        _check_known(before)
        if master is None:
            raise ConfigError("The master key of this database is missing: put your copy back.")
        backup = backups / f"before-upgrade-from-{before}-{stamp()}.jsonl.gz"
        await export(database, backup, master)
    async with database.writing() as connection:
        await upgrade(connection)


async def upgrade(connection: AsyncConnection, revision: str = "head") -> None:
    """Run the migrations up to that revision in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
    await connection.run_sync(lambda sync: command.upgrade(alembic_config(sync), revision))


def newest_revision() -> str | None:
    """Return the revision of this program's schema."""
    return _scripts().get_current_head()


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the schema; None for an empty database."""
    return MigrationContext.configure(connection).get_current_revision()


def is_known(revision: str) -> bool:
    """Return whether this program can read a schema of that revision."""
    return any(script.revision == revision for script in _scripts().walk_revisions())


def stamp() -> str:
    """Return the current time in a form for file names."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")


def _check_known(revision: str) -> None:
    if not is_known(revision):
        raise ConfigError(f"The database is of a newer version ({revision}) than this program.")


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config(None))


def alembic_config(connection: Connection | None) -> AlembicConfig:
    """Configure Alembic in code: our migrations, on that connection."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
