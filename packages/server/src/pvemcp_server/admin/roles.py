"""Roles: tools x clusters x resources."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from pvemcp_server.access.grants import grants_from_json, grants_to_json
from pvemcp_server.access.model import Grant
from pvemcp_server.access.model import Role as HeldRole
from pvemcp_server.admin.context import AdminContext, given
from pvemcp_server.admin.tools import check_names


class RoleFields(BaseModel):
    """A role as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: str
    description: str = ""
    grants: list[dict[str, Any]] = Field(
        description='Each {"tools": […], "clusters": […], "resources": {…}}; '
        "see docs/users/administration.md"
    )


class RoleChanges(BaseModel):
    """What is to be changed; what is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    description: str | None = None
    grants: list[dict[str, Any]] | None = None


class Role(RoleFields):
    """A role as it stands."""

    id: int
    built_in: bool


async def list_roles(context: AdminContext) -> list[Role]:
    return [_role(one) for one in await context.services.access.roles.all()]


async def get_role(context: AdminContext, name: str) -> Role:
    return _role(await context.services.access.roles.get(name))


async def create_role(context: AdminContext, new: RoleFields) -> Role:
    grants = _grants(new.grants)
    role = await context.services.access.roles.create(new.name, grants, description=new.description)
    await context.changed("roles.create", **new.model_dump())
    return _role(role)


async def change_role(context: AdminContext, name: str, changes: RoleChanges) -> Role:
    """A change reaches every caller of the role within a second."""
    values = given(changes)
    grants = changes.grants
    role = await context.services.access.roles.change(
        name,
        new_name=changes.name,
        description=changes.description,
        grants=None if grants is None else _grants(grants),
    )
    await context.changed("roles.change", role=name, **values)
    return _role(role)


async def remove_role(context: AdminContext, name: str) -> None:
    """Removes a role that no key has."""
    await context.services.access.roles.remove(name)
    await context.changed("roles.remove", role=name)


def _grants(given: list[dict[str, Any]]) -> tuple[Grant, ...]:
    grants = grants_from_json(given)
    for number, grant in enumerate(grants):
        check_names(f"grants.{number}.tools", grant.tools)
    return grants


def _role(held: HeldRole) -> Role:
    return Role(
        id=held.id,
        name=held.name,
        description=held.description,
        grants=grants_to_json(held.grants),
        built_in=held.built_in,
    )
