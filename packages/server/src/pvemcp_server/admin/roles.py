"""Roles: tools × clusters × resources."""

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Final, NamedTuple

from pydantic import ConfigDict, Field

from pvemcp_server.access.fields import Argument, Changes, Fields
from pvemcp_server.access.grants import grants_from_json, grants_to_json, resources_to_json
from pvemcp_server.access.model import ANY, READS, Effect, Grant
from pvemcp_server.access.model import Role as AccessRole
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import check_unattended_keys, resources_text
from pvemcp_server.admin.operation import Command, Result, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.admin.resource_names import names_by_cluster, unmatched, unread
from pvemcp_server.admin.tools import check_names
from pvemcp_server.errors import BadArgument, counted
from pvemcp_server.toolkit.registry import Tool, tools

subject = Subject("Roles", {"roles": "Create, change and remove roles."})
FEW: Final = 4  # tools that a summary names before it counts
RoleName = Annotated[str, Field(description="The role's name"), Argument("role")]


class RoleFields(Fields):
    """The fields of a role that administrators set."""

    name: RoleName
    description: str = Field(default="", description="What it is for; the model reads it")
    grants: list[dict[str, Any]] = Field(
        description='Each {"tools": […], "clusters": […], "resources": {…}, "programs": […], '
        '"files": […]}; '
        "see docs/users/administration.md"
    )


class RoleChanges(Changes, RoleFields):
    """Changes to a role; fields that are left out keep their values."""


class Role(RoleFields):
    """A role."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    id: int
    built_in: bool


class RoleTemplate(NamedTuple):
    """A role to begin with; resources without a name are to be filled in."""

    title: str
    description: str
    grants: list[dict[str, Any]]


def _grant(*tools: str, **resources: list[str]) -> dict[str, Any]:
    return {"tools": list(tools), "clusters": [ANY], "resources": resources or {"everything": True}}


_SNAPSHOTS: Final = ("CreateVmSnapshot", "DeleteVmSnapshot", "RollbackVmSnapshot")
TEMPLATES: Final = {
    "one-pool": RoleTemplate(
        "Read everything, change only one pool",
        "Reads all; runs, configures, backs up and snapshots the guests of a pool.",
        [
            _grant(READS),
            _grant(
                *("ChangeVmState", "UpdateVmConfig", "BackupVm", "UnlockVm", "Undo", *_SNAPSHOTS),
                pools=[],
            ),
        ],
    ),
    "power": RoleTemplate(
        "Start and stop",
        "Reads all; starts, stops and restarts guests.",
        [_grant(READS, "ChangeVmState")],
    ),
    "snapshots": RoleTemplate(
        "Snapshots only",
        "Reads all; makes, deletes and rolls back snapshots.",
        [_grant(READS, *_SNAPSHOTS)],
    ),
    "backups": RoleTemplate(
        "Backup operator",
        "Reads all; backs up and restores guests; deletes no backup.",
        [_grant(READS, "BackupVm", "RestoreBackup", "StopTask")],
    ),
}


def _grants_text(result: Result) -> str:
    return json.dumps(result.answer.grants, indent=2)


@subject.operation(
    "roles.list",
    Route("GET", "/roles"),
    Command("roles list", columns=("name", "built_in", "description")),
    may=AUDITORS,
)
async def list_roles(context: AdminContext) -> list[Role]:
    """List all roles, the built-in ones too."""
    return [_role(role) for role in await context.services.access.roles.all()]


@subject.operation(
    "roles.get",
    Route("GET", "/roles/{name}"),
    Command(
        "roles show",
        text=_grants_text,
        help="Print a role's grants as JSON, in the form that --grants-file reads.",
    ),
    may=AUDITORS,
)
async def get_role(context: AdminContext, name: RoleName) -> Role:
    """Return a role by its name."""
    return _role(await context.services.access.roles.get(name))


@subject.operation(
    "roles.create",
    Route("POST", "/roles", created=True),
    Command("roles create", by_hand=True),
    may=OWNERS,
    needs_recent_sign_in=True,  # a new role may take the name of a removed one
)
async def create_role(context: AdminContext, new: RoleFields) -> Role:
    """Create a role."""
    grants = _grants(new.grants)
    role = await context.services.access.roles.create(new.name, grants, description=new.description)
    await context.changed("roles.create", **new.model_dump())
    return _role(role)


@subject.operation(
    "roles.change",
    Route("PATCH", "/roles/{name}"),
    Command("roles change", by_hand=True),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def change_role(context: AdminContext, name: RoleName, changes: RoleChanges) -> Role:
    """Change the given fields; callers with this role follow within a second."""
    values = changes.values()
    if "grants" in values:
        await _check_unattended(context, name)
    role = await context.services.access.roles.change(
        name,
        new_name=values.get("name"),
        description=values.get("description"),
        grants=_grants(values["grants"]) if "grants" in values else None,
    )
    await context.changed("roles.change", role=name, **values)
    return _role(role)


@subject.operation(
    "roles.remove",
    Route("DELETE", "/roles/{name}"),
    Command("roles remove", text="Removed {role}."),
    may=OWNERS,
)
async def remove_role(context: AdminContext, name: RoleName) -> None:
    """Remove a role that no key has."""
    await context.services.access.roles.remove(name)
    await context.changed("roles.remove", role=name)


@subject.operation(
    "roles.check",
    Route("GET", "/roles/{name}/check"),
    Command(
        "roles check",
        text=lambda result: "\n".join(result.answer) or "Every name that the role names exists.",
    ),
    may=AUDITORS,
)
async def check_role(context: AdminContext, name: RoleName) -> list[str]:
    """Look for the pools, tags, guests, nodes and storages that a role names.

    Return a sentence for each that nothing on its clusters has, and for each silent cluster.
    """
    role = await context.services.access.roles.get(name)
    return await warnings_of(context, role.grants)


async def warnings_of(context: AdminContext, grants: Sequence[Grant]) -> list[str]:
    """Return what is to be said about the names in grants, which are saved all the same."""
    if all(grant.resources.everything for grant in grants):
        return []
    names = await names_by_cluster(context)
    silent = (
        f"Cluster {cluster} does not answer, so the names there were not checked."
        for cluster in unread(grants, names)
    )
    return [*unmatched(grants, names), *silent]


async def draft_warnings(context: AdminContext, values: list[dict[str, Any]]) -> list[str]:
    """Return the warnings about grants that are being edited; none while they are incomplete."""
    try:
        return await warnings_of(context, grants_from_json(values))
    except BadArgument:
        return []


def summary(values: list[dict[str, Any]]) -> tuple[str, str]:
    """Return what grants let read, and what they let change, in a line each."""
    grants = grants_from_json(values)
    reads = [text for each in grants if (text := _given(each, {Effect.READ}))]
    changes = [text for each in grants if (text := _given(each, {Effect.WRITE, Effect.DESTROY}))]
    return (
        f"Reads: {'; '.join(reads) or 'nothing'}.",
        f"Changes: {'; '.join(changes) or 'nothing'}.",
    )


def _given(grant: Grant, effects: Collection[Effect]) -> str:
    """Return the tools of these effects that a grant gives, and where; empty without any."""
    given = [
        name
        for tool in tools().values()
        for name, effect in _permissions(tool)
        if effect in effects and grant.gives(name, effect)
    ]
    if not given:
        return ""
    if ANY in grant.tools or (READS in grant.tools and Effect.READ in effects):
        what = "everything"
    else:
        more = f" and {counted(len(given) - FEW, 'more tool')}" if len(given) > FEW else ""
        what = ", ".join(given[:FEW]) + more
    where = "every cluster" if ANY in grant.clusters else ", ".join(sorted(grant.clusters))
    whole = grant.resources.everything
    only = "" if whole else f" ({resources_text(resources_to_json(grant.resources))})"
    return f"{what} on {where}{only}"


def _permissions(tool: Tool) -> Iterator[tuple[str, Effect]]:
    """Yield what a role grants for the tool: its name, and its permission to write."""
    yield tool.name, tool.reading.effect if tool.write_permission else tool.effect
    if tool.write_permission:
        yield tool.write_permission, tool.effect


async def _check_unattended(context: AdminContext, name: str) -> None:
    """Refuse other grants of a role that has a key whose calls run unasked, as for the key."""
    role = await context.services.access.roles.get(name)
    await check_unattended_keys(context, role_id=role.id)


def _grants(values: list[dict[str, Any]]) -> tuple[Grant, ...]:
    grants = grants_from_json(values)
    for number, grant in enumerate(grants):
        check_names(f"grants.{number}.tools", grant.tools)
    return grants


def _role(role: AccessRole) -> Role:
    return Role(
        id=role.id,
        name=role.name,
        description=role.description,
        grants=grants_to_json(role.grants),
        built_in=role.built_in,
    )
