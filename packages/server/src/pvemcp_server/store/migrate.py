"""Brings a database to the newest schema, with a backup before an existing one is changed."""

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pvemcp_server.errors import ConfigError
from pvemcp_server.store.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x7076656D  # any number that is ours: the advisory lock of PostgreSQL migrations


def alembic_config(connection: Connection | None = None) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def newest_revision() -> str | None:
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


def current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def migrate(database: Database, backups: Path) -> None:
    """Upgrades inside one transaction; processes that start together take turns."""
    async with database.reading() as connection:
        before = await connection.run_sync(current_revision)
    if before == newest_revision():
        return
    if before is not None:
        await _back_up(database, backups, before)
    async with database.writing() as connection:
        if not database.is_sqlite:
            await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    command.upgrade(alembic_config(connection), "head")


async def _back_up(database: Database, backups: Path, revision: str) -> None:
    known = {
        script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()
    }
    if revision not in known:
        raise ConfigError(f"The database is of a newer version ({revision}) than this program.")
