"""API keys: list, create, change, regenerate and remove them; their effective rights."""

from collections.abc import Awaitable, Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from pvemcp_server.access.grants import resources_to_json
from pvemcp_server.access.keys import KeyChanges, KeyFields
from pvemcp_server.access.model import ANY, Caller
from pvemcp_server.admin.client_setup import CLIENTS, Connection, endpoint_for_commands
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Column, Command, Result, Route, Subject, scope_of
from pvemcp_server.admin.permission import EVERYONE, ISSUERS, OWNERS, Permission
from pvemcp_server.admin.tools import check_names, may_ask
from pvemcp_server.errors import BadArgument, RecentSignInNeeded, UnknownName
from pvemcp_server.program_name import this_command
from pvemcp_server.store.columns import utc_now
from pvemcp_server.store.records import KeyRecord
from pvemcp_server.toolkit.registry import Tool, tools

subject = Subject("API Access", {"keys": "Create, change and remove API keys."})
KeyName = Annotated[str, Field(description="Id or name of the key")]


class Key(KeyFields):
    """A key without its secret."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: str
    enabled: bool
    created: datetime
    regenerated: datetime | None
    last_used: datetime | None
    last_address: str | None


class ShownKey(Key):
    """A key with its secret, which is available this one time only."""

    secret: str


class ToolRight(BaseModel):
    """A tool that a key may call, and the resources that it reaches on each cluster."""

    tool: str
    area: str
    effect: str
    clusters: dict[str, dict[str, Any]]


class KeyBudget(BaseModel):
    """Calls that lose data, of a key today (UTC): each guest of a call is counted."""

    limit: int
    used: int
    renews: datetime


class KeyChoices(BaseModel):
    """The names of the roles that a key may have, and of the clusters that it may use."""

    roles: list[str]
    clusters: list[str]


WIDENING: Final = frozenset(
    {"role", "clusters", "tools", "toolsets", "expires", "allow_from", "unattended", "enabled"}
    | {"destructive_per_day"}
)

ALLOW: Final = Permission(
    "keys.change to unattended=allow", OWNERS, scope_of("settings.change", OWNERS)
)
"""To override the setting unconfirmed_destructive for a key, one has to be able to change it."""


MORE: Final = Permission(
    "keys.change to a destructive_per_day above the setting", OWNERS, ALLOW.scope
)
"""As ALLOW, for the setting destructive_calls_per_day_per_key."""


async def creates_writes(context: AdminContext, new: KeyFields) -> bool:
    """Return whether the new key would grant a tool that writes or is guarded."""
    return await may_write(context, new.role, new.tools)


async def grants_writes(context: AdminContext, key: str) -> bool:
    """Return whether the key grants a tool that writes."""
    return await _grants_writes(context, await context.services.access.keys.get(key))


async def _grants_writes(context: AdminContext, record: KeyRecord) -> bool:
    roles = await _role_names(context)
    return await may_write(context, roles[record.role_id], record.tools)


async def widens_writes(context: AdminContext, key: str, changes: KeyChanges) -> bool:
    """Return whether the changes give other rights to a key that then grants a tool that writes."""
    return await _widens_writes(context, await context.services.access.keys.get(key), changes)


async def _widens_writes(context: AdminContext, record: KeyRecord, changes: KeyChanges) -> bool:
    after = {**_values(record, await _role_names(context)), **changes.values()}
    return await _may_widen(context, record, changes) and await may_write(
        context, after["role"], after["tools"]
    )


async def _may_widen(context: AdminContext, record: KeyRecord, changes: KeyChanges) -> bool:
    """Return whether the changes give the key other rights, or let it be used again."""
    before = _values(record, await _role_names(context))
    after = {**before, **changes.values()}
    changed = {name for name in WIDENING if after[name] != before[name]}
    return bool(changed) and not (changed == {"enabled"} and not after["enabled"])


async def check_unattended(context: AdminContext, unattended: str | None) -> None:
    """Refuse a secret, or other rights, of a key whose calls are not confirmed, but to owners."""
    if unattended == "allow":
        await context.require(ALLOW)


async def check_unattended_keys(context: AdminContext, **equals: Any) -> None:
    """Refuse other rights of those of these keys whose calls are not confirmed, but to owners."""
    for key in await context.services.store.keys.all(**equals):
        await check_unattended(context, key.unattended)


async def _check_clusters(context: AdminContext, names: Iterable[str]) -> None:
    """Raise UnknownName for a cluster that is not configured: such a key would reach nothing."""
    known = [cluster.name for cluster in await context.services.access.clusters.all()]
    for name in names:
        if name not in (ANY, *known):
            raise UnknownName("cluster", name, known)


async def _check_budget(context: AdminContext, budget: int | None) -> None:
    """Refuse a secret, or other rights, of a key with a budget above the setting, but to owners."""
    values = await context.services.settings.current()
    if budget is not None and budget > values.destructive_calls_per_day_per_key:
        await context.require(MORE)


async def _check_recent(context: AdminContext, needed: Awaitable[bool]) -> None:
    """Raise RecentSignInNeeded by the very record that is changed.

    The check before the operation read the key apart from it: of two concurrent changes, each may
    need nothing by itself, and both together grant what needs a recent sign-in.
    """
    if await needed and not context.authority.is_recent:
        raise RecentSignInNeeded


async def may_write(context: AdminContext, role: str, names: list[str]) -> bool:
    granted = await context.services.access.roles.get(role)
    caller = Caller("", "", granted, tools=frozenset(names))
    return any(caller.is_granted(tool) and may_ask(tool.of(caller)) for tool in tools().values())


def connection_text(result: Result) -> str:
    """Return the key's secret with what a client needs to connect."""
    key: ShownKey = result.answer
    connection = Connection(endpoint_for_commands(result.context.services.config), key.secret)
    return (
        f"Key {key.name} ({key.id}), role {key.role}, shown once:\n\n  {key.secret}\n\n"
        f"Endpoint: {connection.url_with_key}\n"
        f"Claude Code: {CLIENTS['claude-code'].command_line(connection)}\n"
        f"Other clients: {this_command()} claude-config --client NAME"
    )


def reach_text(clusters: dict[str, dict[str, Any]]) -> str:
    """Return the clusters of a right as one line: `prod: tags web; vmids 100`."""
    return (
        " · ".join(f"{name}: {resources_text(r)}" for name, r in clusters.items()) or "no cluster"
    )


def resources_text(resources: dict[str, Any]) -> str:
    """Return the resources of a right in words: `tags web; vmids 100`."""
    if "everything" in resources:
        return "everything"
    return "; ".join(f"{kind} {', '.join(map(str, ids))}" for kind, ids in resources.items())


@subject.operation(
    "keys.list",
    Route("GET", "/keys"),
    Command(
        "keys list",
        columns=("id", "name", "role", "clusters", "enabled", "expires", "last_used"),
    ),
    may=EVERYONE,
)
async def list_keys(context: AdminContext) -> list[Key]:
    """List all keys by name, without their secrets."""
    roles = await _role_names(context)
    keys = [_key(record, roles) for record in await context.services.access.keys.all()]
    return sorted(keys, key=lambda key: key.name.casefold())


@subject.operation(
    "keys.choices",
    Route("GET", "/key-choices"),
    elsewhere="the commands roles list and clusters list",
    may=EVERYONE,
)
async def key_choices(context: AdminContext) -> KeyChoices:
    """List the names of the roles and clusters that a key may have."""
    access = context.services.access
    return KeyChoices(
        roles=[role.name for role in await access.roles.all()],
        clusters=[cluster.name for cluster in await access.clusters.all()],
    )


@subject.operation(
    "keys.create",
    Route("POST", "/keys", created=True),
    Command("keys create", text=connection_text),
    may=ISSUERS,
    needs_recent_sign_in=creates_writes,
)
async def create_key(context: AdminContext, new: KeyFields) -> ShownKey:
    """Create a key; its secret is in this answer and nowhere else."""
    check_names("tools", new.tools)
    await _check_clusters(context, new.clusters)
    await check_unattended(context, new.unattended)
    await _check_budget(context, new.destructive_per_day)
    _check_life(new.expires, await latest_expiry(context))
    record, secret = await context.services.access.keys.create(**new.model_dump())
    await context.changed("keys.create", key=record.id, **new.model_dump())
    return _shown_key(record, secret, await _role_names(context))


@subject.operation(
    "keys.get",
    Route("GET", "/keys/{key}"),
    elsewhere="the command keys list",
    may=EVERYONE,
)
async def get_key(context: AdminContext, key: KeyName) -> Key:
    """Return a key by its id or name."""
    return _key(await context.services.access.keys.get(key), await _role_names(context))


@subject.operation(
    "keys.regenerate",
    Route("POST", "/keys/{key}/regenerate"),
    Command("keys regenerate", text=connection_text),
    may=ISSUERS,
    needs_recent_sign_in=grants_writes,
)
async def regenerate_key(context: AdminContext, key: KeyName) -> ShownKey:
    """Give the key a new secret; the old one is refused at once.

    A key that lives longer than the setting allows gets the latest expiry that it allows.
    """
    latest = await latest_expiry(context)
    before = await context.services.access.keys.get(key)
    await check_unattended(context, before.unattended)
    await _check_budget(context, before.destructive_per_day)
    await _check_recent(context, _grants_writes(context, before))
    record, secret = await context.services.access.keys.regenerate(before, latest=latest)
    await context.changed(
        "keys.regenerate", key=record.id, name=record.name, expires=record.expires
    )
    return _shown_key(record, secret, await _role_names(context))


@subject.operation(
    "keys.change",
    Route("PATCH", "/keys/{key}"),
    Command("keys change", text="Changed {name}.", omit=("enabled",)),
    Command(
        "keys enable",
        text="Enabled {name}.",
        help="Accept the key again.",
        fixed={"enabled": True},
    ),
    Command(
        "keys disable",
        text="Disabled {name}.",
        help="Refuse the key until it is enabled again.",
        fixed={"enabled": False},
    ),
    may=ISSUERS,
    needs_recent_sign_in=widens_writes,
)
async def change_key(context: AdminContext, key: KeyName, changes: KeyChanges) -> Key:
    """Change the given fields; the others keep their values."""
    values = changes.values()
    check_names("tools", changes.tools or ())
    before = await context.services.access.keys.get(key)
    await _check_clusters(context, set(changes.clusters or ()) - set(before.clusters))
    if await _may_widen(context, before, changes):
        await check_unattended(context, values.get("unattended", before.unattended))
        await _check_budget(context, values.get("destructive_per_day", before.destructive_per_day))
    await _check_recent(context, _widens_writes(context, before, changes))
    if values.get("expires", before.expires) != before.expires:
        latest = await latest_expiry(context, before)
        _check_life(values["expires"], latest, hint="A regenerated key may expire later.")
    record = await context.services.access.keys.change(before, **values)
    await context.changed("keys.change", key=record.id, **values)
    return _key(record, await _role_names(context))


@subject.operation(
    "keys.remove",
    Route("DELETE", "/keys/{key}"),
    Command("keys remove", text="Removed {key}."),
    may=ISSUERS,
)
async def remove_key(context: AdminContext, key: KeyName) -> None:
    """Remove a key; it is refused at once."""
    record = await context.services.access.keys.remove(key)
    await context.changed("keys.remove", key=record.id, name=record.name)


@subject.operation(
    "keys.rights",
    Route("GET", "/keys/{key}/rights"),
    Command("keys rights", columns=("tool", "effect", Column("clusters", reach_text))),
    may=EVERYONE,
)
async def effective_rights(context: AdminContext, key: KeyName) -> list[ToolRight]:
    """List every tool that the key may call and, per cluster, the resources that it reaches."""
    record = await context.services.access.keys.get(key)
    caller = await context.services.access.authenticator.caller(record.id)
    clusters = [cluster.name for cluster in await context.services.access.clusters.all()]
    granted = [tool.of(caller) for tool in tools().values() if caller.may_call(tool)]
    return [_right(caller, tool, clusters) for tool in granted]


@subject.operation(
    "keys.budget",
    Route("GET", "/keys/{key}/budget"),
    Command("keys budget", text="{used} of {limit} sent today; renews at {renews}."),
    may=EVERYONE,
)
async def budget(context: AdminContext, key: KeyName) -> KeyBudget:
    """Return how many calls that lose data were sent for the key today, and its limit."""
    record = await context.services.access.keys.get(key)
    values = await context.services.settings.current()
    most = values.destructive_calls_per_day_per_key
    today = await context.services.access.budgets.of(record.id, most)
    return KeyBudget(limit=today.limit, used=today.used, renews=today.renews)


async def latest_expiry(context: AdminContext, key: KeyRecord | None = None) -> datetime | None:
    """Return the latest expiry of a key, or of a new secret or token; None when there is no limit.

    The limit counts whole days (UTC): forms have days only.
    """
    values = await context.services.settings.current()
    made = (key.regenerated or key.created) if key else utc_now()
    return _latest_expiry(values.longest_key_life_days, made)


async def longer_keys(context: AdminContext) -> list[str]:
    """Return the names of enabled keys that live longer than the setting allows."""
    values = await context.services.settings.current()
    names = []
    for key in await context.services.access.keys.all():
        latest = _latest_expiry(values.longest_key_life_days, key.regenerated or key.created)
        if latest and key.enabled and (key.expires is None or key.expires > latest):
            names.append(key.name)
    return sorted(names, key=str.casefold)


async def longer_tokens(context: AdminContext) -> list[str]:
    """Return the names of service tokens that live longer than the setting allows."""
    days = (await context.services.settings.current()).longest_key_life_days
    tokens = await context.services.access.service_tokens.all()
    names = [
        token.name
        for token in tokens
        if (latest := _latest_expiry(days, token.created)) and token.expires > latest
    ]
    return sorted(names, key=str.casefold)


def _latest_expiry(days: int, made: datetime) -> datetime | None:
    if not days:
        return None
    return (made + timedelta(days=days)).replace(hour=23, minute=59, second=59, microsecond=0)


def _check_life(expires: datetime | None, latest: datetime | None, hint: str = "") -> None:
    """Raise BadArgument for an expiry after the latest one, or for none."""
    if latest and (expires is None or expires > latest):
        need = "must be" if expires else "is needed,"
        day = latest.date()
        text = f"{need} {day} at the latest, by the setting longest_key_life_days."
        raise BadArgument("expires", text, hint=hint)


def _right(caller: Caller, tool: Tool, clusters: list[str]) -> ToolRight:
    resources = {name: caller.resources(tool.name, tool.effect, name) for name in clusters}
    return ToolRight(
        tool=tool.name,
        area=tool.area.value,
        effect=tool.effect.value,
        clusters={name: resources_to_json(reach) for name, reach in resources.items() if reach},
    )


async def _role_names(context: AdminContext) -> dict[int, str]:
    return {role.id: role.name for role in await context.services.access.roles.all()}


def _key(record: KeyRecord, roles: dict[int, str]) -> Key:
    return Key.model_construct(**_values(record, roles))


def _shown_key(record: KeyRecord, secret: str, roles: dict[int, str]) -> ShownKey:
    return ShownKey.model_construct(secret=secret, **_values(record, roles))


def _values(record: KeyRecord, roles: dict[int, str]) -> dict[str, Any]:
    """Return the key's fields as stored: they were checked when they were entered."""
    columns = {name: getattr(record, name) for name in Key.model_fields if name != "role"}
    return {**columns, "role": roles.get(record.role_id, "")}
