"""Backup and restore of the whole state: `pvemcp backup` and `pvemcp restore`."""

from pathlib import Path

from sqlalchemy import Connection, Integer, func, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import records
from pvemcp_server.store.audit_head import AuditHeadFile
from pvemcp_server.store.audit_log import AuditLog
from pvemcp_server.store.database import Database
from pvemcp_server.store.export import Exported, export, insert_rows, open_export, reflect
from pvemcp_server.store.files import config_errors
from pvemcp_server.store.master_key import read_master_key
from pvemcp_server.store.migrate import is_known, stamp, upgrade
from pvemcp_server.store.state_lock import state_lock
from pvemcp_server.store.store import Store
from pvemcp_server.store.vault import Vault


async def backup(store: Store, path: Path) -> int:
    """Write a consistent backup while the server runs; return the number of rows."""
    return await export(store.database, path, store.vault.master)


async def restore(config: Config, path: Path, *, replace: bool = False) -> int:
    """Replace the state by a backup while no server runs; return the number of rows.

    Raise ConfigError while one runs on this state folder, and for a database that is not empty,
    unless `replace`; then it is backed up first. The file's signature is verified before anything
    is touched, and one transaction restores everything or changes nothing.
    """
    master = read_master_key(config)
    if master is None:
        raise ConfigError(
            "Put the master key of the backup in place first; it is not in the backup."
        )
    exported = open_export(path, master)
    if not is_known(exported.revision):
        raise ConfigError(f"{path} is of a newer version ({exported.revision}) than this program.")
    with state_lock(config, shared=False):
        await _replace(config, exported, replace=replace)
    return exported.count


async def _replace(config: Config, exported: Exported, *, replace: bool) -> None:
    database, master = Database(config.database), exported.master
    try:
        await database.open()
        if await _is_occupied(database):
            if not replace:
                raise ConfigError(
                    "The database is not empty; use --replace to replace it by the backup."
                )
            await _back_up(database, config.state_dir / "backups", master)
        async with database.writing() as connection:
            await _fill(connection, exported)
            # a wrong master key raises ConfigError here, and the transaction is rolled back
            vault = Vault(database, master, await Vault.read(connection, master))
        await _note_audit_head(database, vault, config.state_dir)
    finally:
        await database.close()


async def _note_audit_head(database: Database, vault: Vault, state_dir: Path) -> None:
    """Note the restored end of the audit: it may be older than the one that was noted."""
    with config_errors("The restored end of the audit cannot be noted"):
        head = await AuditLog(database, vault).head()
        AuditHeadFile(state_dir, lambda: vault.derive("audit")).write(head)


async def _is_occupied(database: Database) -> bool:
    async with database.snapshot() as connection:
        return await connection.run_sync(lambda sync: bool(inspect(sync).get_table_names()))


async def _back_up(database: Database, backups: Path, master: bytes) -> None:
    """Back up the state that is about to be replaced, under its own master key."""
    try:
        async with database.reading() as connection:
            await Vault.read(connection, master)
    except ConfigError:
        # signed by another master key than its secrets, that backup could never be restored
        raise ConfigError(
            f"The database {database.url} belongs to another master key, so it cannot be backed up "
            "before it is replaced. Move it away, and restore into an empty database."
        ) from None
    await export(database, backups / f"before-restore-{stamp()}.jsonl.gz", master)


async def _fill(connection: AsyncConnection, exported: Exported) -> None:
    """Create the tables in the revision of the backup, insert its rows and upgrade."""
    await connection.run_sync(_drop_everything)
    await upgrade(connection, exported.revision)
    await connection.run_sync(_empty)
    await connection.run_sync(insert_rows, exported.rows())
    await _continue_numbering(connection)
    await upgrade(connection)


def _drop_everything(connection: Connection) -> None:
    reflect(connection).drop_all(connection)


def _empty(connection: Connection) -> None:
    """Delete the rows that migrations have inserted: the backup has its own."""
    for table in reversed(reflect(connection).sorted_tables):
        if table.name != "alembic_version":
            connection.execute(table.delete())


async def _continue_numbering(connection: AsyncConnection) -> None:
    """Set PostgreSQL's sequences past the ids of the inserted rows."""
    if connection.dialect.name != "postgresql":
        return
    for table in records.metadata.sorted_tables:
        column = table.c.get("id")
        if column is not None and isinstance(column.type, Integer):
            highest = await connection.scalar(select(func.coalesce(func.max(column), 0)))
            await connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :next, false)"),
                {"name": table.name, "next": (highest or 0) + 1},
            )
