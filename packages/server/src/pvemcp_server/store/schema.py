"""The tables of the state; `migrations/` brings a database here, a test compares the two.

Numbers of rows are never given twice (sqlite_autoincrement; PostgreSQL's sequences do so anyway):
caches are kept by the number of an identity, and a new one must not find those of an old one.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from pvemcp_server.store.columns import JsonText, Moment

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

versions = Table(
    "versions",
    metadata,
    Column("topic", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
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

settings = Table(
    "settings",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", JsonText, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("changed_by", Text, nullable=False),
)

roles = Table(
    "roles",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("grants", JsonText, nullable=False),
    Column("built_in", Boolean, nullable=False),
    sqlite_autoincrement=True,
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("digest", LargeBinary, nullable=False),
    Column("pepper", Integer, ForeignKey("vault_keys.id"), nullable=False),
    Column("role_id", Integer, ForeignKey("roles.id"), nullable=False, index=True),
    Column("clusters", JsonText, nullable=False),
    Column("toolset", JsonText, nullable=False),
    Column("allow_from", JsonText, nullable=False),
    Column("output_format", String(16)),
    Column("enabled", Boolean, nullable=False),
    Column("expires", Moment),
    Column("created", Moment, nullable=False),
    Column("regenerated", Moment),
    Column("last_used", Moment),
    Column("last_address", String(64)),
)

clusters = Table(
    "clusters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("hosts", JsonText, nullable=False),
    Column("tls_mode", String(16), nullable=False),
    Column("ca_pem", Text, nullable=False),
    Column("fingerprints", JsonText, nullable=False),
    Column("protected", Boolean, nullable=False),
    Column("created", Moment, nullable=False),
    sqlite_autoincrement=True,
)

identities = Table(
    "identities",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cluster_id", ForeignKey("clusters.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("token_id", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("created", Moment, nullable=False),
    UniqueConstraint("cluster_id", "name"),
    sqlite_autoincrement=True,
)

bindings = Table(
    "bindings",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cluster_id", ForeignKey("clusters.id", ondelete="CASCADE"), nullable=False),
    Column("identity_id", ForeignKey("identities.id", ondelete="CASCADE"), nullable=False),
    Column("key_id", ForeignKey("keys.id", ondelete="CASCADE")),
    Column("role_id", ForeignKey("roles.id", ondelete="CASCADE")),
    UniqueConstraint("cluster_id", "key_id"),
    UniqueConstraint("cluster_id", "role_id"),
    sqlite_autoincrement=True,
)

admins = Table(
    "admins",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("password_hash", Text),
    Column("subject", Text, unique=True),
    Column("must_change", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("locked_until", Moment),
    Column("created", Moment, nullable=False),
    Column("last_sign_in", Moment),
    sqlite_autoincrement=True,
)

sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("admin_id", ForeignKey("admins.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("address", String(64), nullable=False),
    Column("agent", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("last_seen", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
)

saved_queries = Table(
    "saved_queries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("query", JsonText, nullable=False),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    sqlite_autoincrement=True,
)

mcp_tasks = Table(
    "mcp_tasks",
    metadata,
    Column("id", String(43), primary_key=True),
    Column("key_id", String(8), nullable=False, index=True),
    Column("cluster", String(64), nullable=False),
    Column("tool", String(64), nullable=False),
    Column("upid", Text),
    Column("status", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("result", JsonText),
    Column("created", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("expires", Moment, nullable=False, index=True),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("message", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_seen", Moment, nullable=False),
    Column("last_seen", Moment, nullable=False),
    Column("dismissed", Moment),
    UniqueConstraint("kind", "subject"),
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
    Column("tool", Text),
    Column("cluster", Text),
    Column("arguments", Text),
    Column("outcome", String(16)),
    Column("reason", Text),
    Column("rows", BigInteger),
    Column("bytes", BigInteger),
    Column("duration_ms", BigInteger),
    Column("upid", Text),
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
    Column("seal", String(64), nullable=False),
)
