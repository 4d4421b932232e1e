"""Roles: tools × clusters × resources."""

import json
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from pvemcp_server.access.fields import Changes, Fields
from pvemcp_server.access.grants import grants_from_json, grants_to_json
from pvemcp_server.access.model import Grant
from pvemcp_server.access.model import Role as AccessRole
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.keys import check_unattended_keys
from pvemcp_server.admin.operation import Command, Result, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.admin.tools import check_names

subject = Subject("Roles", {"roles": "Create, change and remove roles."})
RoleName = Annotated[str, Field(description="The role's name")]


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
    Command("roles remove", text="Removed {name}."),
    may=OWNERS,
)
async def remove_role(context: AdminContext, name: RoleName) -> None:
    """Remove a role that no key has."""
    await context.services.access.roles.remove(name)
    await context.changed("roles.remove", role=name)


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
