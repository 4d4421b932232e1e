"""Migrations: the schema that they create, and upgrades of an existing database."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import Store, Topic, migrate, open_store, records
from pvemcp_server.store import database as database_module
from pvemcp_server.store.database import Database
from pvemcp_server.store.export import open_export
from pvemcp_server.store.master_key import read_master_key

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parents[3] / "scripts" / "migration.py"
_spec = importlib.util.spec_from_file_location("migration", SCRIPT)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = {head!r}


def upgrade():
    with op.batch_alter_table("saved_queries") as table:
        table.add_column(sa.Column("colour", sa.Text(), nullable=False, server_default="blue"))
"""


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return compare_metadata(context, records.metadata)


@pytest.fixture
def next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that adds a migration to this program."""

    def upgrade_program(body: str = LATER) -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(migrate.MIGRATIONS, folder)
        text = body.format(head=migrate.newest_revision())
        (folder / "versions" / "m9999_later.py").write_text(text)
        monkeypatch.setattr(migrate, "MIGRATIONS", folder)

    return upgrade_program


async def test_migrations_create_exactly_the_declared_tables(store: Store):
    async with store.database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_the_initial_migration_of_a_release_creates_the_declared_tables(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "migrations"
    shutil.copytree(migrate.MIGRATIONS, folder)
    monkeypatch.setattr(migrate, "MIGRATIONS", folder)
    written = await script.write_migration("initial", initial=True)
    assert written == folder / "versions" / "m0001_initial.py"
    assert "create_all" not in written.read_text()
    async with open_store(config) as store:
        assert set(await store.watch._versions()) == set(Topic)
        async with store.database.reading() as connection:
            assert await connection.run_sync(differences) == []


def test_the_file_of_a_migration_has_its_number_and_follows_the_one_before():
    scripts = ScriptDirectory.from_config(migrate.alembic_config(None))
    revisions = [each.revision for each in scripts.walk_revisions()][::-1]
    files = [Path(each.path).name for each in scripts.walk_revisions()][::-1]
    assert revisions == sorted(revisions)
    assert [name.split("_")[0] for name in files] == [f"m{revision}" for revision in revisions]
    assert scripts.get_current_head() == migrate.newest_revision()


async def test_migrations_insert_a_version_for_each_topic(store: Store):
    assert set(await store.watch._versions()) == set(Topic)


async def test_an_upgrade_keeps_the_rows_and_backs_them_up_first(config: Config, next_version):
    async with open_store(config) as store:
        await store.notices.record("kind", "subject", "kept")
        before = migrate.newest_revision()
    next_version()
    async with open_store(config) as store:
        assert [notice.message for notice in await store.notices.open()] == ["kept"]
        async with store.database.reading() as connection:
            query = "SELECT colour FROM saved_queries"
            assert (await connection.exec_driver_sql(query)).all() == []
    [saved] = (config.state_dir / "backups").iterdir()
    exported = open_export(saved, read_master_key(config))
    assert exported.revision == before
    assert "kept" in {line["row"].get("message") for line in exported.rows()}


async def test_processes_that_upgrade_one_state_together_take_turns(
    config: Config, next_version, monkeypatch: pytest.MonkeyPatch
):
    async with open_store(config):
        pass
    next_version()
    # as if the first one takes longer than a statement may wait
    pragmas = (*database_module.PRAGMAS[:-1], "PRAGMA busy_timeout = 0")
    monkeypatch.setattr(database_module, "PRAGMAS", pragmas)
    monkeypatch.setattr(migrate, "WAIT_SECONDS", 0.01)
    databases = [Database(config.database) for _ in range(3)]
    backups, master = config.state_dir / "backups", read_master_key(config)
    async with anyio.create_task_group() as tasks:
        for database in databases:
            tasks.start_soon(migrate.migrate, database, backups, master)
    for database in databases:
        async with database.reading() as connection:
            assert await connection.run_sync(migrate.revision_of) == "9999"
        await database.close()
    [saved] = backups.iterdir()
    assert open_export(saved, master).revision != "9999"


async def test_a_failed_upgrade_changes_nothing(config: Config, next_version):
    async with open_store(config) as store:
        await store.notices.record("kind", "subject", "kept")
        revision = migrate.newest_revision()
    next_version(LATER + '    raise RuntimeError("half way")\n')
    with pytest.raises(RuntimeError, match="half way"):
        async with open_store(config):
            pass
    database = Database(config.database)
    async with database.reading() as connection:
        assert await connection.run_sync(migrate.revision_of) == revision
        columns = "SELECT count(*) FROM saved_queries"
        assert await connection.exec_driver_sql(columns)
        with pytest.raises(Exception, match="colour"):
            await connection.exec_driver_sql("SELECT colour FROM saved_queries")
    await database.close()


async def test_a_database_of_a_newer_version_is_refused(config: Config, next_version):
    with pytest.MonkeyPatch.context() as later:
        folder = migrate.MIGRATIONS
        next_version()
        async with open_store(config):
            pass
        later.setattr(migrate, "MIGRATIONS", folder)
        with pytest.raises(ConfigError, match="newer version"):
            async with open_store(config):
                pass


async def test_an_empty_database_needs_no_backup(config: Config):
    async with open_store(config):
        assert not (config.state_dir / "backups").exists()
