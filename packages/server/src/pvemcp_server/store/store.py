"""The whole state: one object per table, opened together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import schema
from pvemcp_server.store.access_rows import KeyRows, RoleRows
from pvemcp_server.store.admin_rows import AdminRows, SessionRows
from pvemcp_server.store.audit_log import AuditLog
from pvemcp_server.store.audit_search import AuditSearch
from pvemcp_server.store.cluster_rows import BindingRows, ClusterRows, IdentityRows
from pvemcp_server.store.database import Database, fact_of
from pvemcp_server.store.files import make_state_dir
from pvemcp_server.store.master_key import create_master_key, master_key_file, read_master_key
from pvemcp_server.store.migrate import migrate
from pvemcp_server.store.notice_rows import NoticeRows
from pvemcp_server.store.records import McpTask, SavedQuery
from pvemcp_server.store.rows import Rows
from pvemcp_server.store.setting_rows import SettingRows
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, Watch


class Store:
    """The tables of an open database, and the vault of its secrets."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault
        self.watch = Watch(database)
        self.settings = SettingRows(database)
        self.roles = RoleRows(database)
        self.keys = KeyRows(database)
        self.clusters = ClusterRows(database)
        self.identities = IdentityRows(database, vault)
        self.bindings = BindingRows(database)
        self.admins = AdminRows(database)
        self.sessions = SessionRows(database)
        self.saved_queries = Rows(database, schema.saved_queries, SavedQuery, (Topic.QUERIES,))
        self.mcp_tasks = Rows(database, schema.mcp_tasks, McpTask)
        self.notices = NoticeRows(database)
        self.audit_log = AuditLog(database, vault.derive("audit"))
        self.audit_search = AuditSearch(database)


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[Store]:
    """Opens the state, bringing its tables up to date first and backing up before that."""
    make_state_dir(config)
    database = Database(config.database)
    try:
        await database.open()
        yield Store(database, await _prepared(config, database))
    finally:
        await database.close()


async def _prepared(config: Config, database: Database) -> Vault:
    """The vault of the database, once its tables are as this version needs them."""
    try:
        await migrate(database, config.state_dir / "backups")
        return await Vault.open(database, await _master_key(config, database))
    except SQLAlchemyError as failed:
        raise ConfigError(
            f"The database {database.url} is not usable: {fact_of(failed)}."
        ) from failed


async def _master_key(config: Config, database: Database) -> bytes:
    """The configured master key; a new one is made for a new database only."""
    key = read_master_key(config)
    if key is not None:
        return key
    if not await Vault.is_empty(database):
        place = master_key_file(config)
        raise ConfigError(
            f"The master key of this database is missing: put your copy of it back at {place}."
        )
    return create_master_key(config)
