"""The schema: what migrations make, and what an upgrade of an old database keeps."""

import shutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import Store, Topic, migrate, open_store, schema
from pvemcp_server.store.database import Database
from pvemcp_server.store.export import open_export

pytestmark = pytest.mark.anyio

LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = {head!r}


def upgrade():
    with op.batch_alter_table("saved_queries") as table:
        table.add_column(sa.Column("colour", sa.Text(), nullable=False, server_default="blue"))
"""


@pytest.fixture
def a_later_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """This program as it will be one migration later, from the moment it is called."""

    def upgrade_program(body: str = LATER) -> None:
        folder = tmp_path / "migrations"
        shutil.copytree(migrate.MIGRATIONS, folder)
        text = body.format(head=migrate.newest_revision())
        (folder / "versions" / "m9999_later.py").write_text(text)
        monkeypatch.setattr(migrate, "MIGRATIONS", folder)

    return upgrade_program


async def test_migrations_make_exactly_the_declared_tables(store: Store):
    def differences(connection):
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, schema.metadata)

    async with store.database.reading() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrations_give_each_topic_the_version_that_changes_count_up(store: Store):
    assert set(await store.watch._versions()) == set(Topic)


async def test_an_upgrade_keeps_what_is_stored_and_backs_it_up_first(
    config: Config, a_later_version
):
    async with open_store(config) as store:
        await store.notices.record("kind", "subject", "kept")
        before = migrate.newest_revision()
    a_later_version()
    async with open_store(config) as store:
        assert [notice.message for notice in await store.notices.open()] == ["kept"]
        async with store.database.reading() as connection:
            query = "SELECT colour FROM saved_queries"
            assert (await connection.exec_driver_sql(query)).all() == []
    [saved] = (config.state_dir / "backups").iterdir()
    exported = open_export(saved)
    assert exported.revision == before
    assert "kept" in {line["row"].get("message") for line in exported.rows()}


async def test_an_upgrade_that_fails_changes_nothing(config: Config, a_later_version):
    async with open_store(config) as store:
        await store.notices.record("kind", "subject", "kept")
        revision = migrate.newest_revision()
    a_later_version(LATER + '    raise RuntimeError("half way")\n')
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


async def test_a_database_of_a_newer_version_is_left_alone(config: Config, a_later_version):
    with pytest.MonkeyPatch.context() as later:
        folder = migrate.MIGRATIONS
        a_later_version()
        async with open_store(config):
            pass
        later.setattr(migrate, "MIGRATIONS", folder)
        with pytest.raises(ConfigError, match="newer version"):
            async with open_store(config):
                pass


async def test_an_empty_database_needs_no_backup(config: Config):
    async with open_store(config):
        assert not (config.state_dir / "backups").exists()
