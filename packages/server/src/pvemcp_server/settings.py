"""What administrators change while the server runs: declared once, here."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from pvemcp_formats import Format
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.store import Store, Topic

log = logging.getLogger(__name__)
Listener = Callable[["Values", "Values"], Awaitable[None]]

ENDPOINT: JsonDict = {"group": "Endpoint"}
LIMITS: JsonDict = {"group": "Limits"}
SAFETY: JsonDict = {"group": "Safety"}
RECORDS: JsonDict = {"group": "Records"}

DEFAULT_ROWS: Final = 400  # of an answer to a call without `limit`, never more than row_cap


class Values(BaseModel):
    """All settings with their values; a field is a setting, its title what people read."""

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
        description="Notation of answers, for keys without one of their own.",
        json_schema_extra=ENDPOINT,
    )
    inventory_freshness_seconds: int = Field(
        default=10,
        ge=1,
        le=600,
        title="Inventory freshness (seconds)",
        description="How old the inventory may be before Proxmox is asked again.",
        json_schema_extra=ENDPOINT,
    )
    task_wait_max_seconds: int = Field(
        default=300,
        ge=0,
        le=3600,
        title="Longest wait for a task (seconds)",
        description="The most a call may wait for a Proxmox task to end.",
        json_schema_extra=ENDPOINT,
    )
    row_cap: int = Field(
        default=1000,
        ge=10,
        le=100_000,
        title="Row cap",
        description="The most rows in one answer; what is cut off is said in a note.",
        json_schema_extra=LIMITS,
    )
    calls_per_minute_per_key: int = Field(
        default=600,
        ge=1,
        le=1_000_000,
        title="Calls a minute, per key",
        description="Calls beyond this are refused until the minute has passed.",
        json_schema_extra=LIMITS,
    )
    calls_per_minute_per_address: int = Field(
        default=1200,
        ge=1,
        le=1_000_000,
        title="Calls a minute, per address",
        description="The same for all keys used from one address together.",
        json_schema_extra=LIMITS,
    )
    concurrent_calls_per_key: int = Field(
        default=8,
        ge=1,
        le=1000,
        title="Calls at a time, per key",
        description="Further calls are refused until one of them has ended.",
        json_schema_extra=LIMITS,
    )
    call_deadline_seconds: int = Field(
        default=60,
        ge=5,
        le=3600,
        title="Deadline of a call (seconds)",
        description="A call that takes longer is ended; waiting for a task is not counted.",
        json_schema_extra=LIMITS,
    )
    confirm_destructive: Literal["ask", "allow", "deny"] = Field(
        default="ask",
        title="Destructive calls",
        description="Whether a call that loses data asks the person, runs at once or is refused.",
        json_schema_extra=SAFETY,
    )
    unconfirmed_destructive: Literal["deny", "allow"] = Field(
        default="deny",
        title="Destructive calls nobody can confirm",
        description="What happens when the person is to be asked but the client cannot ask.",
        json_schema_extra=SAFETY,
    )
    protected_tags: tuple[str, ...] = Field(
        default=("protected",),
        title="Protected tags",
        description="Guests with one of these tags refuse every write.",
        json_schema_extra=SAFETY,
    )
    download_hosts: tuple[str, ...] = Field(
        default=(),
        title="Download hosts",
        description="The only hosts files may be downloaded from; empty allows every public host.",
        json_schema_extra=SAFETY,
    )
    allow_http_downloads: bool = Field(
        default=False,
        title="Downloads over http",
        description="Whether downloads without TLS are allowed.",
        json_schema_extra=SAFETY,
    )
    allow_private_downloads: bool = Field(
        default=False,
        title="Downloads from private addresses",
        description="Whether downloads from private and local networks are allowed.",
        json_schema_extra=SAFETY,
    )
    audit_retention_days: int = Field(
        default=180,
        ge=1,
        le=3650,
        title="Audit retention (days)",
        description="Entries older than this are removed; what remains stays verifiable.",
        json_schema_extra=RECORDS,
    )


TOLD_APART = frozenset({"title", "description", "group", "default"})


@dataclass(frozen=True, slots=True)
class Declared:
    """A setting as pages, command line and documentation show it."""

    name: str
    title: str
    description: str
    group: str
    default: Any
    schema: Mapping[str, Any]  # JSON schema: type, choices and limits


def declared() -> tuple[Declared, ...]:
    """Every setting, in the order of the page."""
    return tuple(_declared(name, field) for name, field in Values.model_fields.items())


class Settings:
    """The values as they are now in this process, at most a second behind any other."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._values = Values()
        self._listeners: list[Listener] = []
        store.watch.on_change(Topic.SETTINGS, self._reload)

    @property
    def values(self) -> Values:
        """The values last seen; `current` looks whether they still hold."""
        return self._values

    async def current(self) -> Values:
        await self._store.watch.fresh()
        return self._values

    def on_change(self, listener: Listener) -> None:
        """Calls `listener(before, after)` in this process whenever a value has changed anywhere."""
        self._listeners.append(listener)

    async def change(self, values: Mapping[str, Any], *, by: str) -> Values:
        """Stores new values, all or none; raises BadArgument for one that is out of bounds."""
        await self._store.watch.now()
        checked = _checked({**self._values.model_dump(), **values})
        stored = checked.model_dump(mode="json", include=set(values))
        await self._store.settings.put(stored, by)
        await self._store.watch.now()
        return self._values

    async def _reload(self) -> None:
        stored = {record.name: record.value for record in await self._store.settings.all()}
        before, self._values = self._values, _tolerant(stored)
        if before != self._values:
            for listener in self._listeners:
                await listener(before, self._values)


def _declared(name: str, field: FieldInfo) -> Declared:
    schema = TypeAdapter(field.rebuild_annotation()).json_schema()
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return Declared(
        name=name,
        title=field.title or name,
        description=field.description or "",
        group=str(extra["group"]),
        default=field.default,
        schema={key: value for key, value in schema.items() if key not in TOLD_APART},
    )


def _checked(values: Mapping[str, Any]) -> Values:
    unknown = values.keys() - Values.model_fields.keys()
    if unknown:
        raise UnknownName("setting", min(unknown), Values.model_fields)
    try:
        return Values.model_validate(values)
    except ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
        raise BadArgument(".".join(str(part) for part in error["loc"]), error["msg"]) from None


def _tolerant(stored: Mapping[str, Any]) -> Values:
    """The stored values that this version knows and accepts, the defaults for the others."""
    accepted: dict[str, Any] = {}
    for name, field in Values.model_fields.items():
        if name not in stored:
            continue
        try:
            accepted[name] = TypeAdapter(field.rebuild_annotation()).validate_python(stored[name])
        except ValidationError:
            log.warning("The stored value of %s is not valid; its default is used", name)
    return Values.model_construct(**accepted)
