"""Rows of the state as values; field names are column names."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class TlsMode(StrEnum):
    """How a cluster's certificate is judged."""

    SYSTEM = "system"  # by the system's certificate authorities
    CA = "ca"  # by the authorities in ca_pem
    PINNED = "pinned"  # by the leaf's SHA-256 fingerprint
    INSECURE = "insecure"  # not at all


@dataclass(frozen=True, slots=True)
class RoleRecord:
    id: int
    name: str
    description: str
    grants: list[dict[str, Any]]
    built_in: bool


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key without its secret."""

    id: str
    name: str
    digest: bytes = field(repr=False)
    pepper: int
    role_id: int
    clusters: list[str]
    toolset: list[str]
    allow_from: list[str]
    output_format: str | None
    enabled: bool
    expires: datetime | None
    created: datetime
    regenerated: datetime | None
    last_used: datetime | None
    last_address: str | None


@dataclass(frozen=True, slots=True)
class ClusterRecord:
    id: int
    name: str
    description: str
    hosts: list[str]
    tls_mode: TlsMode
    ca_pem: str
    fingerprints: list[str]
    protected: bool
    created: datetime


@dataclass(frozen=True, slots=True)
class IdentityRecord:
    """A Proxmox API token of a cluster; its secret stays in the store until asked for."""

    id: int
    cluster_id: int
    name: str
    token_id: str
    is_default: bool
    created: datetime


@dataclass(frozen=True, slots=True)
class BindingRecord:
    """Binds a key or a role to an identity of a cluster."""

    id: int
    cluster_id: int
    identity_id: int
    key_id: str | None
    role_id: int | None


@dataclass(frozen=True, slots=True)
class AdminRecord:
    """Someone who may sign in to the admin pages."""

    id: int
    name: str
    password_hash: str | None = field(repr=False)
    subject: str | None
    must_change: bool
    enabled: bool
    failures: int
    locked_until: datetime | None
    created: datetime
    last_sign_in: datetime | None


@dataclass(frozen=True, slots=True)
class SessionRecord:
    digest: str = field(repr=False)
    admin_id: int
    address: str
    agent: str
    created: datetime
    last_seen: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class SavedQuery:
    id: int
    name: str
    description: str
    query: dict[str, Any]
    created: datetime
    changed: datetime


@dataclass(frozen=True, slots=True)
class McpTask:
    """A long-running call a client asks about later; `id` cannot be guessed."""

    id: str = field(repr=False)
    key_id: str
    cluster: str
    tool: str
    upid: str | None
    status: str
    message: str
    result: Any
    created: datetime
    changed: datetime
    expires: datetime


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the administrator should see, told once and counted."""

    id: int
    kind: str
    subject: str
    message: str
    count: int
    first_seen: datetime
    last_seen: datetime
    dismissed: datetime | None


@dataclass(frozen=True, slots=True)
class SettingRecord:
    name: str
    value: Any
    changed: datetime
    changed_by: str
