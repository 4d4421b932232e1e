"""Settings that administrators change while the server runs; each is declared once, here."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from proxmox_client.hosts import Host
from proxmox_client.tls import normalize_fingerprint
from pvemcp_formats import Format
from pvemcp_server.errors import BadArgument, UnknownName, value_fact
from pvemcp_server.store import Store, Topic
from pvemcp_server.store.records import MOST_PER_DAY, Unconfirmed

log = logging.getLogger(__name__)
Listener = Callable[["Values", "Values"], Awaitable[None]]

ENDPOINT: JsonDict = {"group": "Endpoint"}
LIMITS: JsonDict = {"group": "Limits"}
SAFETY: JsonDict = {"group": "Safety"}
ATTENTION: JsonDict = {"group": "Attention"}
SIGN_IN: JsonDict = {"group": "Sign-in"}
CONNECTIONS: JsonDict = {"group": "Connections"}
RECORDS: JsonDict = {"group": "Records"}

DEFAULT_ROWS: Final = 400  # of an answer to a call without `limit`, never more than row_cap
_SYSLOG: Final = re.compile(r"(?:udp|tcp|tls)://(.+)", re.IGNORECASE)


def _syslog_url(text: str) -> str:
    """Require the URL of a syslog server, or nothing."""
    address = text.strip()
    if not address:
        return ""
    try:
        parts = _SYSLOG.fullmatch(address)  # not urlsplit, which drops line breaks
        Host.parse(parts[1] if parts else "")
    except ValueError:
        message = "must be udp://HOST:PORT, tcp://HOST:PORT, tls://HOST:PORT or empty"
        raise ValueError(message) from None
    return address


def is_secure_url(text: str) -> bool:
    """Return whether this is an https URL without user and fragment, or one of http to loopback."""
    if not text.isascii() or not text.isprintable() or " " in text or "#" in text:
        return False
    try:
        parts = urlsplit(text)
        host = parts.hostname
        Host.parse(parts.netloc)
    except ValueError:
        return False
    is_loopback = host in ("localhost", "127.0.0.1", "::1")
    return (
        bool(host)
        and "@" not in parts.netloc
        and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback))
    )


def _issuer(text: str) -> str:
    """Require the URL of an issuer whose tokens can be verified, or nothing."""
    issuer = text.strip()
    if not issuer:
        return ""
    if not is_secure_url(issuer) or "?" in issuer:
        raise ValueError("must be https://… without a query, or http:// to loopback, or empty")
    if find_spec("joserfc") is None:
        raise ValueError("needs joserfc: pip install 'pvemcp-server[oidc]'")
    return issuer


def _drawable(value: bool) -> bool:
    """Require the library that draws charts, if they are switched on."""
    if value and find_spec("PIL") is None:
        raise ValueError("needs Pillow: pip install 'pvemcp-server[charts]'")
    return value


def _fingerprint(text: str) -> str:
    """Return a SHA-256 fingerprint in its usual form; empty stays empty."""
    return normalize_fingerprint(text) if text.strip() else ""


class Values(BaseModel):
    """The values of all settings; each field declares one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = Field(
        default=False,
        title="Enabled",
        description="Whether the MCP endpoint answers; while off, clients get 503.",
        json_schema_extra=ENDPOINT,
    )
    output_format: Format = Field(
        default=Format.JSON_COMPACT,
        title="Output Format",
        description="Format of answers for keys without a format of their own.",
        json_schema_extra=ENDPOINT,
    )
    chart_images: Annotated[bool, AfterValidator(_drawable)] = Field(
        default=False,
        title="Charts as images",
        description="Whether the tools of recorded metrics have the argument `chart`, which adds a "
        "PNG to the answer, for clients that take images. It needs the extra `charts`.",
        json_schema_extra=ENDPOINT,
    )
    inventory_freshness_seconds: int = Field(
        default=10,
        ge=1,
        le=600,
        title="Inventory freshness (seconds)",
        description="Maximum age of the inventory before it is read from Proxmox again.",
        json_schema_extra=ENDPOINT,
    )
    task_wait_max_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        title="Longest wait for a task (seconds)",
        description="Maximum time that a call waits for a Proxmox task to end.",
        json_schema_extra=ENDPOINT,
    )
    row_cap: int = Field(
        default=1000,
        ge=10,
        le=100_000,
        title="Row cap",
        description="The largest number of rows in an answer, of lists and queries alike. `limit` "
        f"asks for up to this many; a call without it gets {DEFAULT_ROWS}, or fewer where these "
        "would take more than about 4,000 tokens. A note says how to go on.",
        json_schema_extra=LIMITS,
    )
    calls_per_minute_per_key: int = Field(
        default=600,
        ge=1,
        le=1_000_000,
        title="Calls a minute, per key",
        description="Rate limit of one key; further calls are refused until the minute has passed.",
        json_schema_extra=LIMITS,
    )
    calls_per_minute_per_address: int = Field(
        default=20,
        ge=1,
        le=1_000_000,
        title="Refused calls a minute, per address",
        description="Calls without a key, and calls with a wrong key, that are answered with 401 "
        "and recorded; further ones get 429 and no record. A valid key is never refused because "
        "of them.",
        json_schema_extra=LIMITS,
    )
    concurrent_calls_per_key: int = Field(
        default=8,
        ge=1,
        le=1000,
        title="Concurrent calls, per key",
        description="Further calls of the key are refused until one of them has ended.",
        json_schema_extra=LIMITS,
    )
    call_deadline_seconds: int = Field(
        default=60,
        ge=5,
        le=3600,
        title="Deadline of a call (seconds)",
        description="A call that takes longer is ended; waiting for a task does not count.",
        json_schema_extra=LIMITS,
    )
    confirm_destructive: Literal["ask", "allow", "deny"] = Field(
        default="ask",
        title="Destructive calls",
        description="Whether a call that loses data, or downloads from a host that is not listed, "
        "asks the user, runs at once or is refused.",
        json_schema_extra=SAFETY,
    )
    unconfirmed_destructive: Unconfirmed = Field(
        default="approve",
        title="Destructive calls without confirmation",
        description="Whether such a call waits for an administrator's approval, is refused or runs "
        "at once when the client cannot ask the user.",
        json_schema_extra=SAFETY,
    )
    destructive_calls_per_day_per_key: int = Field(
        default=100,
        ge=0,
        le=MOST_PER_DAY,
        title="Destructive calls a day, per key",
        description="How many calls that lose data are sent for a key in a day (UTC), each guest "
        "of a call counted; further ones are refused. A key may have a limit of its own. 0 refuses "
        "them all.",
        json_schema_extra=SAFETY,
    )
    inside_guests: bool = Field(
        default=False,
        title="Inside of guests",
        description="Whether ExecInGuest and ReadGuestFile run programs and read files inside of "
        "VMs, as far as a role lists them. Each call is confirmed or approved, also where the "
        "settings above allow others.",
        json_schema_extra=SAFETY,
    )
    longest_key_life_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        title="Longest key life (days)",
        description="A key or service token must expire at most so many days after its secret was "
        "made, new or regenerated. Those that live longer already are not changed, and named in a "
        "notice. 0 sets no limit.",
        json_schema_extra=SAFETY,
    )
    protected_tags: tuple[str, ...] = Field(
        default=("protected",),
        title="Protected tags",
        description="Writes to guests with one of these tags are refused.",
        json_schema_extra=SAFETY,
    )
    download_hosts: tuple[str, ...] = Field(
        default=(),
        title="Download hosts",
        description="The only hosts to download files from, on any port; they need not resolve on "
        "this server. Empty allows every public host, after a question to the user.",
        json_schema_extra=SAFETY,
    )
    allow_http_downloads: bool = Field(
        default=False,
        title="Downloads over http",
        description="Whether files may be downloaded without TLS.",
        json_schema_extra=SAFETY,
    )
    allow_private_downloads: bool = Field(
        default=False,
        title="Downloads from private addresses",
        description="Whether files may be downloaded from private and local networks.",
        json_schema_extra=SAFETY,
    )
    attention_node_percent: int = Field(
        default=90,
        ge=1,
        le=100,
        title="Nodes full (%)",
        description="GetAttention warns of a node whose memory or root file system is used by so "
        "much.",
        json_schema_extra=ATTENTION,
    )
    attention_storage_percent: int = Field(
        default=85,
        ge=1,
        le=100,
        title="Storages full: warning (%)",
        description="GetAttention warns of a storage that is used by so much.",
        json_schema_extra=ATTENTION,
    )
    attention_storage_critical_percent: int = Field(
        default=95,
        ge=1,
        le=100,
        title="Storages full: critical (%)",
        description="From here on a full storage is critical.",
        json_schema_extra=ATTENTION,
    )
    attention_storage_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        title="Storages filling (days)",
        description="GetAttention warns of a storage that is full within so many days at the "
        "growth of the last month.",
        json_schema_extra=ATTENTION,
    )
    attention_memory_overcommit_percent: int = Field(
        default=100,
        ge=1,
        le=10_000,
        title="Memory overcommit (%)",
        description="GetAttention warns of a node whose running guests may use more than this "
        "share of its memory.",
        json_schema_extra=ATTENTION,
    )
    attention_cpu_overcommit_percent: int = Field(
        default=400,
        ge=1,
        le=100_000,
        title="CPU overcommit (%)",
        description="GetAttention warns of a node whose running guests have more cores than this "
        "share of its threads.",
        json_schema_extra=ATTENTION,
    )
    attention_backup_days: int = Field(
        default=7,
        ge=1,
        le=3650,
        title="Recent backup (days)",
        description="GetAttention warns of a guest whose newest backup is older.",
        json_schema_extra=ATTENTION,
    )
    attention_verified_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        title="Verified backup (days)",
        description="GetAttention names guests with backups on a Proxmox Backup Server whose "
        "newest verified one is older, or that have none.",
        json_schema_extra=ATTENTION,
    )
    attention_replication_minutes: int = Field(
        default=60,
        ge=1,
        le=100_000,
        title="Replication behind (minutes)",
        description="GetAttention warns of a replication job whose next run is overdue by so much.",
        json_schema_extra=ATTENTION,
    )
    attention_task_hours: int = Field(
        default=24,
        ge=1,
        le=720,
        title="Failed tasks (hours)",
        description="GetAttention counts the tasks that failed in so many hours.",
        json_schema_extra=ATTENTION,
    )
    attention_snapshot_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        title="Forgotten snapshots (days)",
        description="GetAttention names snapshots that are older.",
        json_schema_extra=ATTENTION,
    )
    attention_disk_life_percent: int = Field(
        default=10,
        ge=0,
        le=100,
        title="Disk life left (%)",
        description="GetAttention warns of an SSD with no more of its rated life left.",
        json_schema_extra=ATTENTION,
    )
    attention_expiry_days: int = Field(
        default=21,
        ge=1,
        le=3650,
        title="Certificates and subscriptions (days)",
        description="GetAttention warns of those that end within so many days; in the last week a "
        "certificate is critical.",
        json_schema_extra=ATTENTION,
    )
    attention_clock_seconds: int = Field(
        default=5,
        ge=1,
        le=3600,
        title="Clock skew (seconds)",
        description="GetAttention warns of a node whose clock differs from the others' by more.",
        json_schema_extra=ATTENTION,
    )
    require_second_factor: bool = Field(
        default=False,
        title="Second factor required",
        description="Whether every administrator needs a passkey or an authenticator app. Who has "
        "none is led to set one up after the password, and can do nothing else before.",
        json_schema_extra=SIGN_IN,
    )
    local_sign_in: bool = Field(
        default=True,
        title="Local sign-in",
        description="Whether administrators of this server sign in with password or passkey beside "
        "OpenID Connect. Off, their sessions end too; it counts while an issuer is configured.",
        json_schema_extra=SIGN_IN,
    )
    connections_enabled: bool = Field(
        default=True,
        title="Connections",
        description="Whether users may connect their clients by signing in (OAuth); while off, "
        "only API keys are accepted.",
        json_schema_extra=CONNECTIONS,
    )
    connection_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        title="Connections last (days)",
        description="When a connection of a user ends, with its Proxmox API tokens, unless the "
        "user signs in again before.",
        json_schema_extra=CONNECTIONS,
    )
    shared_realms: tuple[str, ...] = Field(
        default=(),
        title="Shared realms",
        description="Names of realms that are the same directory on every cluster that has them, "
        "such as an Active Directory. One sign-in is then for all of these clusters, and each of "
        "them gets the password. Never pam or pve.",
        json_schema_extra=CONNECTIONS,
    )
    external_issuer: Annotated[str, AfterValidator(_issuer)] = Field(
        default="",
        title="External authorization server",
        description="Issuer whose access tokens (JWT) are accepted too, as Keycloak, Authentik, "
        "Entra or Zitadel: https://login.example/realms/office. A connection rule of the kind "
        "claim gives its users a role; without one they are refused. Empty accepts none.",
        json_schema_extra=CONNECTIONS,
    )
    external_audience: str = Field(
        default="",
        title="Audience of external tokens",
        description="What a token has to name in aud. Empty requires the URL of the endpoint below "
        "PVEMCP_PUBLIC_URL; without a public URL it must be set.",
        json_schema_extra=CONNECTIONS,
    )
    external_user_claim: str = Field(
        default="preferred_username",
        min_length=1,
        title="Claim with the user's name",
        description="Names the user in lists and in the audit; whose connection it is, is decided "
        "by iss and sub.",
        json_schema_extra=CONNECTIONS,
    )
    external_role_claim: str = Field(
        default="groups",
        min_length=1,
        title="Claim with the user's roles",
        description="Its values are what connection rules of the kind claim name: groups, roles, "
        "or realm_access.roles for a claim in another one.",
        json_schema_extra=CONNECTIONS,
    )
    audit_retention_days: int = Field(
        default=180,
        ge=1,
        le=3650,
        title="Audit retention (days)",
        description="Older entries are deleted; the rest stays verifiable.",
        json_schema_extra=RECORDS,
    )
    history_minutes: int = Field(
        default=0,
        ge=0,
        le=1440,
        title="History of the clusters, every (minutes)",
        description="How often states and configurations are read with each Proxmox token and "
        "compared, for ListChanges: one request per guest, at most 2000. 0 reads none and deletes "
        "the history.",
        json_schema_extra=RECORDS,
    )
    history_days: int = Field(
        default=30,
        ge=1,
        le=365,
        title="History of the clusters (days)",
        description="Older differences are deleted, and those beyond 20,000 of a token.",
        json_schema_extra=RECORDS,
    )
    audit_file: bool = Field(
        default=False,
        title="Audit to a file",
        description="Whether each entry is also appended to audit.jsonl in the state folder, as a "
        "line of JSON. logrotate may rename the file at any time.",
        json_schema_extra=RECORDS,
    )
    audit_syslog: Annotated[str, AfterValidator(_syslog_url)] = Field(
        default="",
        title="Audit to syslog",
        description="Syslog server that each entry is sent to: udp://HOST:514, tcp://HOST:601 or "
        "tls://HOST:6514. Empty sends none.",
        json_schema_extra=RECORDS,
    )
    audit_syslog_fingerprint: Annotated[str, AfterValidator(_fingerprint)] = Field(
        default="",
        title="Certificate of the syslog server",
        description="SHA-256 fingerprint of its certificate, for tls. Empty accepts what the "
        "system's authorities have issued for the host.",
        json_schema_extra=RECORDS,
    )

    @property
    def signs_in(self) -> bool:
        """Whether users may connect by signing in: here, or at an external server."""
        return self.connections_enabled or bool(self.external_issuer)

    def lacks_audience(self, public_url: str | None) -> bool:
        """Return whether nothing says what a token of the external server has to be for.

        The Host of a request must not: its sender chooses it.
        """
        return bool(self.external_issuer) and not (self.external_audience or public_url)


@dataclass(frozen=True, slots=True)
class Declaration:
    """The declaration of a setting, for pages, command line and documentation."""

    name: str
    title: str
    description: str
    group: str
    default: Any
    schema: Mapping[str, Any]  # JSON schema: type, choices and limits


def declared_settings() -> tuple[Declaration, ...]:
    """Return the declaration of every setting, in the order of the page."""
    return tuple(_declaration(name, field) for name, field in Values.model_fields.items())


class Settings:
    """The current values, at most a second behind a change by another process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.values = Values()  # of the last poll; `current` polls for changes first
        self._listeners: list[Listener] = []
        store.watch.on_change(Topic.SETTINGS, self._reload)

    async def current(self) -> Values:
        """Return the current values; raise StateUnavailable when the database does not answer."""
        await self._store.watch.poll_if_due()
        return self.values

    def on_change(self, listener: Listener) -> None:
        """Call `listener(before, after)` in this process after every change by any process."""
        self._listeners.append(listener)

    async def check(self, values: Mapping[str, Any]) -> Values:
        """Return all values as a change would leave them; raise UnknownName or BadArgument."""
        await self._store.watch.poll()
        return _checked({**self.values.model_dump(), **values})

    async def change(self, values: Mapping[str, Any], *, by: str) -> Values:
        """Store new values, all or none; raise UnknownName or BadArgument for a wrong one."""
        checked = await self.check(values)
        stored = checked.model_dump(mode="json", include=set(values))
        await self._store.settings.put(stored, by)
        await self._store.watch.poll()
        return self.values

    async def _reload(self) -> None:
        stored = {record.name: record.value for record in await self._store.settings.all()}
        before, self.values = self.values, _tolerant(stored)
        if before != self.values:
            for listener in self._listeners:
                await listener(before, self.values)


def _declaration(name: str, field: FieldInfo) -> Declaration:
    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Declaration(
        name=name,
        title=field.title or name,
        description=field.description or "",
        group=str(extra["group"]),
        default=field.default,
        schema={
            key: value
            for key, value in schema.items()
            if key not in {"title", "description", "group", "default"}
        },
    )


def _checked(values: Mapping[str, Any]) -> Values:
    unknown = values.keys() - Values.model_fields.keys()
    if unknown:
        raise UnknownName("setting", min(unknown), Values.model_fields)
    try:
        return Values.model_validate(values)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
        is_list = error["type"] == "tuple_type"
        fact = 'it is a list, written in JSON: ["a","b"].' if is_list else value_fact(error)
        raise BadArgument(".".join(str(part) for part in error["loc"]), fact) from None


def _tolerant(stored: Mapping[str, Any]) -> Values:
    """Return the stored values that this version accepts, and the defaults of the others."""
    accepted: dict[str, Any] = {}
    for name, field in Values.model_fields.items():
        if name not in stored:
            continue
        try:
            accepted[name] = TypeAdapter(field.rebuild_annotation()).validate_python(stored[name])
        except ValidationError:
            log.warning("The stored value of %s is not valid; its default is used", name)
    return Values.model_construct(**accepted)
