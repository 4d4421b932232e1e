"""The schema: a frozen dataclass for each kind of row, and its table.

Each column is declared once, as a field (`columns.record_table` makes the table from it). Tables
whose rows never leave the store have no record. `migrations/` creates the tables in a database; a
test compares the result with `metadata`.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

from sqlalchemy import (
    DDL,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

from pvemcp_server.store.columns import ColumnArgs, Moment, record_table

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

Id = Annotated[int, ColumnArgs(primary_key=True)]
Name = Annotated[str, ColumnArgs(type=String(64), unique=True)]

MOST_PER_DAY: Final = 1_000_000  # the largest budget of destructive writes

Unconfirmed = Literal["approve", "deny", "allow"]
"""What becomes of a call that needs the user's consent when there is no user to ask."""


class TlsMode(StrEnum):
    """How the certificate of a cluster is verified."""

    SYSTEM = "system"  # by the system's certificate authorities
    CA = "ca"  # by the authorities in ca_pem
    PINNED = "pinned"  # by the leaf's SHA-256 fingerprint
    INSECURE = "insecure"  # not at all


class ClusterKind(StrEnum):
    """What a configured cluster is."""

    PVE = "pve"  # a cluster of Proxmox VE, or a single node
    PBS = "pbs"  # a Proxmox Backup Server

    @property
    def product(self) -> str:
        return "Proxmox VE" if self is ClusterKind.PVE else "Proxmox Backup Server"


class FactorKind(StrEnum):
    """The kind of a second factor."""

    TOTP = "totp"  # codes of an authenticator app
    PASSKEY = "passkey"


class AdminRole(StrEnum):
    """What an administrator may do; `admin/operation.py` declares it with each operation."""

    OWNER = "owner"  # everything
    KEY_ISSUER = "key-issuer"  # API keys with the roles that exist
    AUDITOR = "auditor"  # reads everything, changes nothing


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role; `grants` is the JSON of `access.grants`."""

    id: Id
    name: Name
    description: str
    grants: list[dict[str, Any]]
    built_in: bool


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key without its secret; `pepper` is the data key of its digest.

    `person` is whose connection it is, and None for an API key: a connection is a caller as a key
    is, with a role and an expiry. Its secret is unknown; access tokens for it are issued.
    """

    id: Annotated[str, ColumnArgs(type=String(8), primary_key=True)]
    name: Name
    person: str | None
    digest: bytes = field(repr=False)
    pepper: Annotated[int, ColumnArgs(ForeignKey("vault_keys.id"))]
    role_id: Annotated[int, ColumnArgs(ForeignKey("roles.id"), index=True)]
    clusters: list[str]
    tools: list[str]
    toolsets: list[str]
    allow_from: list[str]
    output_format: Annotated[str | None, ColumnArgs(type=String(16))]
    unattended: Annotated[str | None, ColumnArgs(type=String(16))]
    destructive_per_day: int | None
    enabled: bool
    expires: datetime | None
    created: datetime
    regenerated: datetime | None
    last_used: datetime | None
    last_address: Annotated[str | None, ColumnArgs(type=String(64))]


@dataclass(frozen=True, slots=True)
class DestructiveUse:
    """How many destructive writes were sent for a holder on its latest day with any (UTC).

    A holder is a key, or the subject of a user: what connects again has no new budget.
    """

    holder: Annotated[str, ColumnArgs(type=String(512), primary_key=True)]
    day: Annotated[str, ColumnArgs(type=String(10))]  # 2027-01-31
    count: int


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    """A configured Proxmox cluster, or a backup server."""

    id: Id
    name: Name
    kind: ClusterKind
    description: str
    hosts: list[str]
    tls_mode: TlsMode
    ca_pem: str
    fingerprints: list[str]
    protected: bool
    created: datetime

    @property
    def destination(self) -> str:
        """SHA-256 of where the cluster's tokens are sent: its hosts, and how they are verified."""
        trust: list[str] = []
        if self.tls_mode == TlsMode.CA:
            trust = [self.ca_pem]
        elif self.tls_mode == TlsMode.PINNED:
            trust = sorted(self.fingerprints)
        text = json.dumps([sorted(self.hosts), str(self.tls_mode), trust])
        return sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class FreezeRecord:
    """A freeze: nothing is written to the cluster, or to any one if `cluster_id` is None."""

    id: Id
    cluster_id: Annotated[
        int | None, ColumnArgs(ForeignKey("clusters.id", ondelete="CASCADE"), unique=True)
    ]
    reason: str
    by: str
    since: datetime


@dataclass(frozen=True, slots=True)
class IdentityRecord:
    """A Proxmox API token of a cluster; only `IdentityRepository.secret` reads its secret.

    `connection_id` is the connection that the token of a person was made for, and ends with; None
    for those that an administrator gave.
    """

    id: Id
    cluster_id: Annotated[int, ColumnArgs(ForeignKey("clusters.id", ondelete="CASCADE"))]
    connection_id: Annotated[
        str | None,
        ColumnArgs(ForeignKey("keys.id", ondelete="CASCADE"), type=String(8), index=True),
    ]
    name: Annotated[str, ColumnArgs(type=String(64))]
    token_id: str
    is_default: bool
    created: datetime


@dataclass(frozen=True, slots=True)
class BindingRecord:
    """The identity that a key or a role uses on a cluster instead of the default one."""

    id: Id
    cluster_id: Annotated[int, ColumnArgs(ForeignKey("clusters.id", ondelete="CASCADE"))]
    identity_id: Annotated[int, ColumnArgs(ForeignKey("identities.id", ondelete="CASCADE"))]
    key_id: Annotated[
        str | None, ColumnArgs(ForeignKey("keys.id", ondelete="CASCADE"), type=String(8))
    ]
    role_id: Annotated[int | None, ColumnArgs(ForeignKey("roles.id", ondelete="CASCADE"))]


@dataclass(frozen=True, slots=True)
class OAuthClientRecord:
    """A program that people connect with; every one is a public client (RFC 6749, 2.1).

    `id` is the URL of its Client ID Metadata Document, or the one that it was given when it
    registered itself. `metadata` is that of RFC 7591. At `expires` a document is fetched again, and
    a registration without a connection is removed.
    """

    id: Annotated[str, ColumnArgs(type=String(512), primary_key=True)]
    name: str
    is_document: bool
    metadata: dict[str, Any]
    created: datetime
    expires: Annotated[datetime, ColumnArgs(index=True)]


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """What a person has consented to; role, clusters and expiry are those of the key `id`.

    `subject` is who signed in: `cluster:<id>:<userid>`, `directory:<realm>:<userid>` for a realm
    that several clusters share, `admin:<id>`, or `issuer:<issuer>:<subject>`. Each
    consent makes a connection of its own, so a program may be connected on several computers; a
    user of an external issuer has one for each client.
    """

    id: Annotated[
        str,
        ColumnArgs(ForeignKey("keys.id", ondelete="CASCADE"), type=String(8), primary_key=True),
    ]
    subject: Annotated[str, ColumnArgs(type=String(512), index=True)]
    admin_id: Annotated[  # with whose account it ends
        int | None, ColumnArgs(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    ]
    client_id: Annotated[str, ColumnArgs(type=String(512), index=True)]
    client_name: str  # with its host, as the consent page showed it
    scopes: list[str]
    read_only: bool  # ticked by the user: write tools are not listed
    created: datetime

    @property
    def has_own_accounts(self) -> bool:
        """Whether Proxmox is called with accounts of the user, and with no other ones."""
        return self.subject.startswith(("cluster:", "directory:"))

    @property
    def is_external(self) -> bool:
        """Whether an external authorization server signs its user in, with tokens of its own."""
        return self.subject.startswith("issuer:")


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """What a person last consented to for a client; `subject` has the forms of `ConnectionRecord`.

    It outlives the connection, so that the page is short when the client asks for no more, until
    `expires` or until the connection is ended by its user or an administrator.
    """

    id: Id
    subject: Annotated[str, ColumnArgs(type=String(512), index=True)]
    admin_id: Annotated[
        int | None, ColumnArgs(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    ]
    client_id: Annotated[str, ColumnArgs(type=String(512))]
    role_id: Annotated[int, ColumnArgs(ForeignKey("roles.id", ondelete="CASCADE"), index=True)]
    scopes: list[str]
    clusters: list[str]
    read_only: bool
    created: datetime
    expires: Annotated[datetime, ColumnArgs(index=True)]


class TokenKind(StrEnum):
    """The kind of a token of a connection."""

    CODE = "code"  # an authorization code
    ACCESS = "access"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A token of a connection without its secret; as KeyRecord is stored.

    `request` is what an authorization code is bound to: redirect URI and PKCE challenge. A code or
    refresh token that was `used` is kept until it expires: its second use ends the connection's
    tokens.
    """

    id: Annotated[str, ColumnArgs(type=String(8), primary_key=True)]
    kind: TokenKind
    digest: bytes = field(repr=False)
    pepper: Annotated[int, ColumnArgs(ForeignKey("vault_keys.id"))]
    connection_id: Annotated[
        str, ColumnArgs(ForeignKey("keys.id", ondelete="CASCADE"), type=String(8), index=True)
    ]
    scopes: list[str]
    resource: str  # the endpoint that it is for (RFC 8707)
    request: dict[str, Any] | None
    created: datetime
    expires: Annotated[datetime, ColumnArgs(index=True)]
    used: datetime | None


@dataclass(frozen=True, slots=True)
class PersonSession:
    """A person between their sign-in and the end of their consent, or on `/connections`.

    `digest` is a keyed hash of the cookie. What signed them in (Proxmox tickets) is sealed in a
    column without a field; only `PersonSessionRepository.opened` reads it.
    """

    digest: Annotated[str, ColumnArgs(type=String(64), primary_key=True)] = field(repr=False)
    subject: Annotated[str, ColumnArgs(type=String(512))]
    created: datetime
    expires: Annotated[datetime, ColumnArgs(index=True)]


class PersonKind(StrEnum):
    """What a rule about people matches."""

    REALM = "realm"  # everyone of a realm
    GROUP = "group"  # the members of a group in Proxmox
    USER = "user"  # one account, as alice@pve
    ADMIN = "admin"  # administrators of this server: a role of theirs, as owner
    CLAIM = "claim"  # a value of external_role_claim, of the external authorization server


@dataclass(frozen=True, slots=True)
class PersonRule:
    """A role that people may choose when they connect; Read-only needs one for auditors only."""

    id: Id
    kind: PersonKind
    name: Annotated[str, ColumnArgs(type=String(255))]
    cluster_id: Annotated[  # where realm, group or user are; None: on every cluster
        int | None, ColumnArgs(ForeignKey("clusters.id", ondelete="CASCADE"))
    ]
    role_id: Annotated[int, ColumnArgs(ForeignKey("roles.id", ondelete="CASCADE"), index=True)]
    created: datetime


@dataclass(frozen=True, slots=True)
class AdminRecord:
    """An administrator of the admin pages; `subject` is an OpenID Connect subject.

    `listed_as` is the entry of PVEMCP_OIDC_ADMINS that admitted an account of the issuer.
    `generation` increases whenever the sessions of the account end.
    """

    id: Id
    name: Name
    role: AdminRole
    password_hash: str | None = field(repr=False)
    subject: Annotated[str | None, ColumnArgs(unique=True)]
    listed_as: str | None
    must_change: bool
    enabled: bool
    failures: int
    generation: int
    created: datetime
    last_sign_in: datetime | None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session of an administrator; `digest` is a keyed hash of its token."""

    digest: Annotated[str, ColumnArgs(type=String(64), primary_key=True)] = field(repr=False)
    admin_id: Annotated[int, ColumnArgs(ForeignKey("admins.id", ondelete="CASCADE"), index=True)]
    address: Annotated[str, ColumnArgs(type=String(64))]
    agent: str
    created: datetime
    last_seen: datetime
    expires: datetime
    verified_at: datetime  # when the administrator last proved who they are


@dataclass(frozen=True, slots=True)
class ServiceTokenRecord:
    """A token of a program for the admin REST API, without its secret; as KeyRecord is stored."""

    id: Annotated[str, ColumnArgs(type=String(8), primary_key=True)]
    name: Name
    digest: bytes = field(repr=False)
    pepper: Annotated[int, ColumnArgs(ForeignKey("vault_keys.id"))]
    scopes: list[str]
    expires: datetime
    created: datetime
    created_by: str
    admin_id: Annotated[  # the administrator with whose account it ends; None: the command line
        int | None, ColumnArgs(ForeignKey("admins.id", ondelete="CASCADE"), index=True)
    ]
    last_used: datetime | None
    last_address: Annotated[str | None, ColumnArgs(type=String(64))]


@dataclass(frozen=True, slots=True)
class SpentToken:
    """A token that was used and must not be used again; kept until it has expired."""

    digest: Annotated[str, ColumnArgs(type=String(64), primary_key=True)] = field(repr=False)
    expires: Annotated[datetime, ColumnArgs(index=True)]


@dataclass(frozen=True, slots=True)
class SecondFactorRecord:
    """A second factor; only `SecondFactorRepository.secret` reads its secret or public key.

    `credential` and `site` are the id and the RP id of a passkey. `counter` is the last step that
    a code was accepted for, or the last signature count of a passkey.
    """

    id: Id
    admin_id: Annotated[int, ColumnArgs(ForeignKey("admins.id", ondelete="CASCADE"), index=True)]
    kind: FactorKind
    name: Annotated[str, ColumnArgs(type=String(64))]
    credential: Annotated[str | None, ColumnArgs(unique=True)]
    site: str | None
    counter: Annotated[int, ColumnArgs(type=BigInteger)]
    created: datetime
    last_used: datetime | None

    @property
    def owner(self) -> str:
        """What the secret is bound to: it counts for no other administrator, kind or passkey."""
        return json.dumps([self.admin_id, str(self.kind), self.credential, self.site])


@dataclass(frozen=True, slots=True)
class RecoveryCode:
    """A one-time code for a lost second factor, by its keyed hash; its use deletes the row."""

    digest: Annotated[str, ColumnArgs(type=String(64), primary_key=True)] = field(repr=False)
    admin_id: Annotated[int, ColumnArgs(ForeignKey("admins.id", ondelete="CASCADE"), index=True)]
    pepper: Annotated[int, ColumnArgs(ForeignKey("vault_keys.id"))]


@dataclass(frozen=True, slots=True)
class SavedQuery:
    """A query that administrators have saved under a name."""

    id: Id
    name: Name
    description: str
    query: dict[str, Any]
    created: datetime
    changed: datetime


@dataclass(frozen=True, slots=True)
class McpTask:
    """A long-running call that the client polls; `id` is a random token."""

    id: Annotated[str, ColumnArgs(type=String(43), primary_key=True)] = field(repr=False)
    key_id: Annotated[str, ColumnArgs(type=String(8), index=True)]
    cluster: Annotated[str, ColumnArgs(type=String(64))]
    tool: Annotated[str, ColumnArgs(type=String(64))]
    upid: str | None
    status: Annotated[str, ColumnArgs(type=String(16))]
    message: str
    result: Annotated[Any, ColumnArgs(nullable=True)]
    created: datetime
    changed: datetime
    expires: Annotated[datetime, ColumnArgs(index=True)]


@dataclass(frozen=True, slots=True)
class AnsweredQuestion:
    """The nonce of a question that was answered; kept until its sealed state has expired."""

    nonce: Annotated[str, ColumnArgs(type=String(43), primary_key=True)] = field(repr=False)
    expires: Annotated[datetime, ColumnArgs(index=True)]


class ApprovalState(StrEnum):
    """The state of an approval, apart from its expiry and from the answer to the client."""

    WAITING = "waiting"
    APPROVED = "approved"
    DECLINED = "declined"
    VOID = "void"  # its plan, its key or its role has changed


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """A call that an administrator has to approve; `id` is its number.

    The digests are keyed. `call_digest` is of key, tool, cluster and arguments, `plan_digest` of
    the plan's sentences and the caller's rights. `answered` is when the client got the decision: a
    decision counts once.
    """

    id: Id
    key_id: Annotated[
        str, ColumnArgs(ForeignKey("keys.id", ondelete="CASCADE"), type=String(8), index=True)
    ]
    client: str
    tool: Annotated[str, ColumnArgs(type=String(64))]
    cluster: Annotated[str, ColumnArgs(type=String(64))]
    arguments: dict[str, Any]  # with secrets masked, for administrators
    plan: list[str]  # its sentences, likewise
    call_digest: Annotated[str, ColumnArgs(type=String(64))]
    plan_digest: Annotated[str, ColumnArgs(type=String(64))]
    state: ApprovalState
    created: datetime
    expires: Annotated[datetime, ColumnArgs(index=True)]
    decided: datetime | None
    decided_by: str | None
    answered: datetime | None


@dataclass(frozen=True, slots=True)
class ShownPlan:
    """A plan that a dry run has shown, as keyed digests of the request, the text and the sources.

    `config_digest` is of the configuration that the plan was made from.
    """

    call_digest: Annotated[str, ColumnArgs(type=String(64), primary_key=True)]
    key_id: Annotated[str, ColumnArgs(type=String(64), index=True)]
    plan_digest: Annotated[str, ColumnArgs(type=String(64))]
    config_digest: Annotated[str, ColumnArgs(type=String(64))]
    shown: Annotated[datetime, ColumnArgs(index=True)]


@dataclass(frozen=True, slots=True)
class UndoRecord:
    """A write: the call that reverses it, and what it left of its guests; None if none does."""

    id: Id
    key_id: Annotated[str, ColumnArgs(type=String(64), index=True)]
    cluster: Annotated[str, ColumnArgs(type=String(64))]
    done: str  # the sentence of its plan
    vmids: list[int]
    undo: dict[str, Any] | None
    created: Annotated[datetime, ColumnArgs(index=True)]


@dataclass(frozen=True, slots=True)
class WebhookRecord:
    """The receiver that is notified of waiting approvals; URL and secret stay in the store."""

    id: Id
    receiver: str  # scheme, host and port; the rest of the URL may be a secret
    created: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """A fact for administrators; a repetition increases `count` instead of adding a row."""

    id: Id
    kind: Annotated[str, ColumnArgs(type=String(32))]
    subject: Annotated[str, ColumnArgs(type=String(128))]
    message: str
    count: int
    first_seen: datetime
    last_seen: datetime
    dismissed: datetime | None


@dataclass(frozen=True, slots=True)
class AuditTarget:
    """A receiver of the audit: the row up to which it has everything, and who is sending to it."""

    name: Annotated[str, ColumnArgs(type=String(16), primary_key=True)]
    forwarded: Annotated[int, ColumnArgs(type=BigInteger)]
    delivered: datetime | None
    error: str | None
    holder: Annotated[str | None, ColumnArgs(type=String(32))]
    held_until: datetime | None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A difference between two readings of a cluster; it happened after `after`, until `at`."""

    id: Id
    identity_id: Annotated[
        int, ColumnArgs(ForeignKey("identities.id", ondelete="CASCADE"), index=True)
    ]
    at: Annotated[datetime, ColumnArgs(index=True)]
    after: datetime
    kind: Annotated[str, ColumnArgs(type=String(16))]
    node: Annotated[str, ColumnArgs(type=String(64))]
    vmid: int | None
    subject: str
    option: str | None
    text: str


@dataclass(frozen=True, slots=True)
class SettingRecord:
    """A setting that an administrator has changed."""

    name: Annotated[str, ColumnArgs(type=String(64), primary_key=True)]
    value: Any
    changed: datetime
    changed_by: str


roles = record_table("roles", metadata, RoleRecord)
keys = record_table("keys", metadata, KeyRecord)
destructive_uses = record_table("destructive_uses", metadata, DestructiveUse)
clusters = record_table("clusters", metadata, ClusterRecord)
freezes = record_table("freezes", metadata, FreezeRecord)
identities = record_table(
    "identities",
    metadata,
    IdentityRecord,
    Column("secret", LargeBinary, nullable=False),
    UniqueConstraint("cluster_id", "name"),
)
bindings = record_table(
    "bindings",
    metadata,
    BindingRecord,
    UniqueConstraint("cluster_id", "key_id"),
    UniqueConstraint("cluster_id", "role_id"),
)
oauth_clients = record_table("oauth_clients", metadata, OAuthClientRecord)
tokens = record_table("tokens", metadata, TokenRecord)
person_rules = record_table(
    "person_rules",
    metadata,
    PersonRule,
    UniqueConstraint("kind", "name", "cluster_id", "role_id"),
)
person_sessions = record_table(
    "person_sessions",
    metadata,
    PersonSession,
    Column("sealed", LargeBinary, nullable=False),
)
admins = record_table("admins", metadata, AdminRecord)
connections = record_table("connections", metadata, ConnectionRecord)
consents = record_table("consents", metadata, ConsentRecord)
sessions = record_table("sessions", metadata, SessionRecord)
service_tokens = record_table("service_tokens", metadata, ServiceTokenRecord)
spent_tokens = record_table("spent_tokens", metadata, SpentToken)
second_factors = record_table(
    "second_factors",
    metadata,
    SecondFactorRecord,
    Column("secret", LargeBinary, nullable=False),
)
recovery_codes = record_table("recovery_codes", metadata, RecoveryCode)
saved_queries = record_table("saved_queries", metadata, SavedQuery)
mcp_tasks = record_table("mcp_tasks", metadata, McpTask)
answered_questions = record_table("answered_questions", metadata, AnsweredQuestion)
approvals = record_table("approvals", metadata, ApprovalRecord)
shown_plans = record_table("shown_plans", metadata, ShownPlan)
undos = record_table("undos", metadata, UndoRecord)
webhooks = record_table(
    "webhooks", metadata, WebhookRecord, Column("sealed", LargeBinary, nullable=False)
)
notices = record_table("notices", metadata, Notice, UniqueConstraint("kind", "subject"))
audit_targets = record_table("audit_targets", metadata, AuditTarget)
history = record_table("history", metadata, HistoryEntry)
settings = record_table("settings", metadata, SettingRecord)

versions = Table(
    "versions",
    metadata,
    Column("topic", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

processes = Table(  # that are alive, with the time of their last sign of it
    "processes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("seen", Float, nullable=False),  # times of these tables: seconds by PostgreSQL's clock
)

cluster_writes = Table(  # the newest write of each process to each cluster
    "cluster_writes",
    metadata,
    Column("cluster_id", ForeignKey("clusters.id", ondelete="CASCADE"), primary_key=True),
    Column("process", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False, index=True),  # of the topic in `versions`
)

rate_buckets = Table(  # token buckets of all processes together
    "rate_buckets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("tokens", Float, nullable=False),
    Column("since", Float, nullable=False),
    Column("capacity", Float, nullable=False),
    Column("wanted", Float, nullable=False),  # by the process that asked last
    Column("granted", Float, nullable=False),
)

claims = Table(  # of places for concurrent calls
    "claims",
    metadata,
    Column("name", Text, primary_key=True),
    Column("held", Text, nullable=False),  # JSON: places by process
    Column("most", Integer, nullable=False),
    Column("granted", Integer, nullable=False),  # to the process that asked last
    Column("changed", Float, nullable=False),
)

failures = Table(  # attempts to sign in that failed in a row, and the locks that followed
    "failures",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    Column("locked_until", Float, nullable=False),
    Column("seconds", Float, nullable=False),  # that the last attempt has to wait; 0 if it counted
    Column("changed", Float, nullable=False),
)

inventories = Table(  # as published by the process that fetched it
    "inventories",
    metadata,
    Column("identity_id", ForeignKey("identities.id", ondelete="CASCADE"), primary_key=True),
    Column("holder", String(32)),  # of the lease: the process that fetches it now
    Column("taken", Float, nullable=False),
    Column("sealed", LargeBinary),
)

for _table in (processes, rate_buckets, claims, inventories):
    # a crash of PostgreSQL empties them, and the processes fill them again
    event.listen(
        _table,
        "after_create",
        DDL("ALTER TABLE %(table)s SET UNLOGGED").execute_if(dialect="postgresql"),  # type: ignore[no-untyped-call]  # DDL is not typed
    )

history_readings = Table(
    "history_readings",
    metadata,
    Column("identity_id", ForeignKey("identities.id", ondelete="CASCADE"), primary_key=True),
    Column("account", Text, nullable=False),
    Column("began", Moment, nullable=False),
    Column("claimed", Moment, nullable=False),
    Column("reading", Text, nullable=False),  # the latest one, as JSON
)

vault_keys = Table(
    "vault_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("purpose", String(32), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created", Moment, nullable=False),
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("call_id", String(32), nullable=False, index=True),
    Column("at", Moment, nullable=False, index=True),
    Column("key_id", String(8), index=True),
    Column("key_name", Text),
    Column("address", String(64)),
    Column("client", Text),
    Column("acting", Text),  # the administrator who called with the key's rights
    Column("tool", Text),
    Column("cluster", Text),
    Column("arguments", Text),
    Column("outcome", String(16)),
    Column("reason", Text),
    Column("rows", BigInteger),
    Column("bytes", BigInteger),
    Column("duration_ms", BigInteger),
    Column("upid", Text),
    Column("root", Integer, nullable=False),  # the data key that the key of its hash derives from
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_audit_tool_at", "tool", "at"),
)

audit_marks = Table(
    "audit_marks",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("root", Integer, nullable=False),  # the data key that the key of the seal derives from
    Column("seal", String(64), nullable=False),
)
