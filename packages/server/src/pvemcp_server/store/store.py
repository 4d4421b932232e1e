"""The whole state: one object per table, opened together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import schema
from pvemcp_server.store.audit_log import AuditLog
from pvemcp_server.store.audit_search import AuditSearch
from pvemcp_server.store.clusters import Bindings, Clusters, Identities
from pvemcp_server.store.database import Database
from pvemcp_server.store.master_key import create_master_key, master_key_file, read_master_key
from pvemcp_server.store.migrate import migrate
from pvemcp_server.store.notices import Notices
from pvemcp_server.store.records import (
    AdminRecord,
    KeyRecord,
    McpTask,
    RoleRecord,
    SavedQuery,
    SessionRecord,
    SettingRecord,
)
from pvemcp_server.store.rows import Rows
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, Watch


class Store:
    """The tables of an open database, and the vault of its secrets."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self.database = database
        self.vault = vault
        self.watch = Watch(database)
        self.settings = Rows(database, schema.settings, SettingRecord, (Topic.SETTINGS,))
        self.roles = Rows(database, schema.roles, RoleRecord, (Topic.ACCESS,))
        self.keys = Rows(database, schema.keys, KeyRecord, (Topic.ACCESS,))
        self.bindings = Bindings(database)
        self.clusters = Clusters(database)
        self.identities = Identities(database, vault)
        self.admins = Rows(database, schema.admins, AdminRecord, (Topic.ADMINS,))
        self.sessions = Rows(database, schema.sessions, SessionRecord)
        self.saved_queries = Rows(database, schema.saved_queries, SavedQuery)
        self.mcp_tasks = Rows(database, schema.mcp_tasks, McpTask)
        self.notices = Notices(database)
        self.audit_log = AuditLog(database, vault.derive("audit"))
        self.audit_search = AuditSearch(database)


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[Store]:
    """Opens the state, bringing its tables up to date first and backing up before that."""
    if config.database_url is None:
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(config.database)
    try:
        await migrate(database, config.state_dir / "backups")
        yield Store(database, await Vault.open(database, await _master_key(config, database)))
    finally:
        await database.close()


async def _master_key(config: Config, database: Database) -> bytes:
    """The configured master key; a new one is made for a new database only."""
    key = read_master_key(config)
    if key is not None:
        return key
    if not await Vault.is_empty(database):
        place = master_key_file(config)
        raise ConfigError(f"The master key of this database is missing: expected at {place}.")
    return create_master_key(config)
