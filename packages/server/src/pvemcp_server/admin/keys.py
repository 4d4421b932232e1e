"""API keys: made, shown once, changed, withdrawn; and what they amount to."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pvemcp_formats import Format
from pvemcp_server.access.grants import resources_to_json
from pvemcp_server.access.model import ANY, Caller
from pvemcp_server.access.roles import READ_ONLY
from pvemcp_server.admin.context import AdminContext, given
from pvemcp_server.admin.tools import check_names
from pvemcp_server.store.records import KeyRecord
from pvemcp_server.toolkit.registry import Tool, tools


class KeyFields(BaseModel):
    """What a key is given; everything but the name has a default."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="What the key is for, as lists and the audit show it")
    role: str = Field(default=READ_ONLY, description="Name of its role")
    clusters: list[str] = Field(default=[ANY], description="Clusters it reaches; * is all")
    toolset: list[str] = Field(default=[ANY], description="Tools it is narrowed to; * is all")
    expires: datetime | None = Field(default=None, description="When it ends, with time zone")
    allow_from: list[str] = Field(default=[], description="Networks it may come from; none is any")
    output_format: Format | None = Field(default=None, description="Its own output format")


class KeyChanges(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    role: str | None = None
    clusters: list[str] | None = None
    toolset: list[str] | None = None
    expires: datetime | None = None
    allow_from: list[str] | None = None
    output_format: Format | None = None
    enabled: bool | None = None


class Key(BaseModel):
    """A key without its secret."""

    id: str
    name: str
    role: str
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


class ShownKey(Key):
    """A key with its secret, which nobody can see again."""

    secret: str


class ToolRight(BaseModel):
    """A tool that a key may call, and what it reaches on each cluster."""

    tool: str
    area: str
    effect: str
    clusters: dict[str, dict[str, Any]]


async def list_keys(context: AdminContext) -> list[Key]:
    """By name, as people look for them."""
    roles = await _role_names(context)
    found = [_key(one, roles) for one in await context.services.access.keys.all()]
    return sorted(found, key=lambda key: key.name.casefold())


async def get_key(context: AdminContext, key: str) -> Key:
    return _key(await context.services.access.keys.get(key), await _role_names(context))


async def create_key(context: AdminContext, new: KeyFields) -> ShownKey:
    """A new key; its secret is in this answer and nowhere else."""
    check_names("toolset", new.toolset)
    record, secret = await context.services.access.keys.create(**new.model_dump())
    await context.changed("keys.create", key=record.id, **new.model_dump())
    return _shown(record, secret, await _role_names(context))


async def regenerate_key(context: AdminContext, key: str) -> ShownKey:
    """The same key with a new secret; the old one is refused at once."""
    record, secret = await context.services.access.keys.regenerate(key)
    await context.changed("keys.regenerate", key=record.id, name=record.name)
    return _shown(record, secret, await _role_names(context))


async def change_key(context: AdminContext, key: str, changes: KeyChanges) -> Key:
    values = given(changes, "expires", "output_format")
    check_names("toolset", changes.toolset or ())
    record = await context.services.access.keys.change(key, **values)
    await context.changed("keys.change", key=record.id, **values)
    return _key(record, await _role_names(context))


async def remove_key(context: AdminContext, key: str) -> None:
    record = await context.services.access.keys.remove(key)
    await context.changed("keys.remove", key=record.id, name=record.name)


async def effective_rights(context: AdminContext, key: str) -> list[ToolRight]:
    """Every tool the key may call and, per cluster, the resources it reaches with it."""
    record = await context.services.access.keys.get(key)
    caller = await context.services.access.authenticator.caller(record.id)
    names = [one.name for one in await context.services.access.clusters.all()]
    granted = [one for one in tools().values() if caller.may_call(one.name, one.effect)]
    return [_right(caller, tool, names) for tool in granted]


def _right(caller: Caller, tool: Tool, clusters: list[str]) -> ToolRight:
    reached = {one: caller.resources(tool.name, tool.effect, one) for one in clusters}
    return ToolRight(
        tool=tool.name,
        area=tool.area.value,
        effect=tool.effect.value,
        clusters={one: resources_to_json(found) for one, found in reached.items() if found},
    )


async def _role_names(context: AdminContext) -> dict[int, str]:
    return {role.id: role.name for role in await context.services.access.roles.all()}


def _key(record: KeyRecord, roles: dict[int, str]) -> Key:
    given = {name: getattr(record, name) for name in Key.model_fields if name != "role"}
    return Key(role=roles.get(record.role_id, ""), **given)


def _shown(record: KeyRecord, secret: str, roles: dict[int, str]) -> ShownKey:
    return ShownKey(secret=secret, **_key(record, roles).model_dump())
