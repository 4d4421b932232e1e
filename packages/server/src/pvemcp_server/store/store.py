"""The whole state: one repository for each table, opened together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from pvemcp_server.config import Config
from pvemcp_server.errors import ConfigError
from pvemcp_server.store import records
from pvemcp_server.store.access_repositories import (
    DestructiveUseRepository,
    KeyRepository,
    RoleRepository,
)
from pvemcp_server.store.admin_repositories import (
    AdminRepository,
    RecoveryCodeRepository,
    SecondFactorRepository,
    SessionRepository,
    SpentTokenRepository,
)
from pvemcp_server.store.approval_repository import ApprovalRepository, WebhookRepository
from pvemcp_server.store.audit_chain import GENESIS
from pvemcp_server.store.audit_head import AuditHeadFile
from pvemcp_server.store.audit_log import AuditLog
from pvemcp_server.store.audit_search import AuditSearch
from pvemcp_server.store.audit_target_repository import AuditTargetRepository
from pvemcp_server.store.cluster_repositories import (
    BindingRepository,
    ClusterRepository,
    FreezeRepository,
    IdentityRepository,
)
from pvemcp_server.store.cluster_writes import ClusterWrites
from pvemcp_server.store.connection_repositories import (
    ConnectionRepository,
    ConsentRepository,
    OAuthClientRepository,
    PersonSessionRepository,
    TokenRepository,
)
from pvemcp_server.store.database import Database, reason_of
from pvemcp_server.store.files import make_state_dir
from pvemcp_server.store.fleet import Fleet
from pvemcp_server.store.history_repository import HistoryRepository
from pvemcp_server.store.master_key import create_master_key, master_key_file, read_master_key
from pvemcp_server.store.mcp_task_repository import McpTaskRepository
from pvemcp_server.store.migrate import migrate
from pvemcp_server.store.notice_repository import NoticeRepository
from pvemcp_server.store.process_channel import ProcessChannel
from pvemcp_server.store.question_repository import QuestionRepository
from pvemcp_server.store.records import (
    PersonRule,
    SavedQuery,
    ServiceTokenRecord,
)
from pvemcp_server.store.repository import Repository
from pvemcp_server.store.setting_repository import SettingRepository
from pvemcp_server.store.shared_failures import SharedFailures
from pvemcp_server.store.shared_inventories import SharedInventories
from pvemcp_server.store.shared_limits import SharedLimits
from pvemcp_server.store.shown_plan_repository import ShownPlanRepository
from pvemcp_server.store.undo_repository import UndoRepository
from pvemcp_server.store.vault import Vault
from pvemcp_server.store.watch import Topic, Watch


class Store:
    """The repositories of an open database, and the vault of its secrets."""

    def __init__(self, database: Database, vault: Vault, state_dir: Path) -> None:
        self.database = database
        self.vault = vault
        self.fleet = Fleet(database)
        self.watch = Watch(database, self.fleet)
        self.shared_limits = SharedLimits(self.fleet) if self.fleet.is_shared else None
        self.shared_failures = SharedFailures(self.fleet) if self.fleet.is_shared else None
        self.shared_inventories = (
            SharedInventories(self.fleet, vault) if self.fleet.is_shared else None
        )
        self.cluster_writes = ClusterWrites(database, self.fleet)
        self.watch.on_change(Topic.SECRETS, vault.reload)
        self.settings = SettingRepository(database)
        self.roles = RoleRepository(database)
        self.keys = KeyRepository(database)
        self.destructive_uses = DestructiveUseRepository(database)
        self.clusters = ClusterRepository(database)
        self.freezes = FreezeRepository(database)
        self.identities = IdentityRepository(database, vault)
        self.bindings = BindingRepository(database)
        self.oauth_clients = OAuthClientRepository(database)
        self.connections = ConnectionRepository(database)
        self.consents = ConsentRepository(database)
        self.tokens = TokenRepository(database)
        self.person_sessions = PersonSessionRepository(database, vault)
        self.person_rules = Repository(database, records.person_rules, PersonRule, (Topic.ACCESS,))
        self.admins = AdminRepository(database)
        self.sessions = SessionRepository(database, self.admins)
        self.service_tokens = Repository(database, records.service_tokens, ServiceTokenRecord)
        self.spent_tokens = SpentTokenRepository(database)
        self.second_factors = SecondFactorRepository(database, vault)
        self.recovery_codes = RecoveryCodeRepository(database)
        self.saved_queries = Repository(
            database, records.saved_queries, SavedQuery, (Topic.QUERIES,)
        )
        self.mcp_tasks = McpTaskRepository(database)
        self.answered_questions = QuestionRepository(database)
        self.approvals = ApprovalRepository(database)
        self.shown_plans = ShownPlanRepository(database)
        self.undos = UndoRepository(database)
        self.webhooks = WebhookRepository(database, vault)
        self.notices = NoticeRepository(database)
        self.history = HistoryRepository(database)
        self.audit_log = AuditLog(database, vault)
        self.audit_head = AuditHeadFile(state_dir, lambda: vault.derive("audit"))
        self.audit_search = AuditSearch(database, self.audit_log)
        self.audit_targets = AuditTargetRepository(database)
        self.process_channel = ProcessChannel(
            database, self.fleet, partial(vault.derive, "process messages")
        )


@asynccontextmanager
async def open_store(config: Config) -> AsyncIterator[Store]:
    """Open the state; upgrade its tables first, after a backup; raise ConfigError if that fails."""
    make_state_dir(config)
    database = Database(config.database)
    try:
        await database.open()
        store = Store(database, await _prepare(config, database), config.state_dir)
        store.audit_log.remember(store.audit_head.read() or GENESIS)
        yield store
    finally:
        await database.close()


async def _prepare(config: Config, database: Database) -> Vault:
    """Upgrade the tables and open the vault."""
    try:
        await migrate(database, config.state_dir / "backups", read_master_key(config))
        return await Vault.open(database, await _master_key(config, database))
    except SQLAlchemyError as error:
        raise ConfigError(
            f"The database {database.url} is not usable: {reason_of(error)}."
        ) from error


async def _master_key(config: Config, database: Database) -> bytes:
    """Return the configured master key; create one only for a new database."""
    key = read_master_key(config)
    if key is None and await Vault.is_empty(database):
        return create_master_key(config)
    key = key or read_master_key(config)  # another process may just have created both
    if key is None:
        file = master_key_file(config)
        raise ConfigError(
            f"The master key of this database is missing: put your copy of it back at {file}."
        )
    return key
