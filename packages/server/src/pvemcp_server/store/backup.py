"""`pvemcp backup` and `pvemcp restore`: the whole state to one file and back."""

from pathlib import Path

from sqlalchemy import Connection, Integer, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import schema
from pvemcp_server.store.database import Database
from pvemcp_server.store.export import Exported, export, insert_rows, open_export, reflect
from pvemcp_server.store.files import make_state_dir
from pvemcp_server.store.master_key import read_master_key
from pvemcp_server.store.migrate import is_known, stamp, upgrade
from pvemcp_server.store.store import Store
from pvemcp_server.store.vault import Vault


async def backup(store: Store, path: Path) -> int:
    """Writes the state as it is at this moment, while the server runs; answers how many rows."""
    return await export(store.database, path)


async def restore(config: Config, path: Path, *, replace: bool = False) -> int:
    """Puts a backup in place of the state; answers how many rows. The server must not be running.

    Refuses a database that holds anything unless told to replace it, and then backs that up first.
    Either all of the backup is in place afterwards, or nothing has changed.
    """
    exported = open_export(path)
    if not is_known(exported.revision):
        raise ConfigError(f"{path} is of a newer version ({exported.revision}) than this program.")
    master = read_master_key(config)
    if master is None:
        raise ConfigError(
            "Put the master key of the backup in place first; it is not in the backup."
        )
    make_state_dir(config)
    database = Database(config.database)
    try:
        await database.open()
        await _make_room(database, config.state_dir / "backups", replace=replace)
        async with database.writing() as connection:
            await _fill(connection, exported)
            # the wrong key raises here, and the transaction leaves everything as it was
            await Vault.read(connection, master)
    finally:
        await database.close()
    return exported.count


async def _make_room(database: Database, backups: Path, *, replace: bool) -> None:
    async with database.snapshot() as connection:
        occupied = await connection.run_sync(lambda sync: bool(inspect(sync).get_table_names()))
    if occupied and not replace:
        raise ConfigError("The database is not empty; --replace puts the backup in its place.")
    if occupied:
        await export(database, backups / f"before-restore-{stamp()}.jsonl.gz")


async def _fill(connection: AsyncConnection, exported: Exported) -> None:
    """The tables as they were then, with their rows, brought up to date."""
    await connection.run_sync(_drop_everything)
    await upgrade(connection, exported.revision)
    await connection.run_sync(_empty)
    await connection.run_sync(insert_rows, exported.rows())
    await _continue_numbering(connection)
    await upgrade(connection)


def _drop_everything(connection: Connection) -> None:
    reflect(connection).drop_all(connection)


def _empty(connection: Connection) -> None:
    """Removes the rows that migrations put into new tables: the backup has its own."""
    for table in reversed(reflect(connection).sorted_tables):
        if table.name != "alembic_version":
            connection.execute(table.delete())


async def _continue_numbering(connection: AsyncConnection) -> None:
    """PostgreSQL's sequences know nothing of rows that brought their numbers along."""
    if connection.dialect.name != "postgresql":
        return
    for table in schema.metadata.sorted_tables:
        column = table.c.get("id")
        if column is not None and isinstance(column.type, Integer):
            highest = await connection.scalar(select(func.coalesce(func.max(column), 0)))
            await connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :next, false)"),
                {"name": table.name, "next": (highest or 0) + 1},
            )
