"""Roles over REST."""

from fastapi import APIRouter

from pvemcp_server.admin import roles
from pvemcp_server.web.api.answers import CREATED, GONE
from pvemcp_server.web.session import Reading, Writing

router = APIRouter(tags=["Roles"])


@router.get("/roles")
async def list_roles(context: Reading) -> list[roles.Role]:
    """All roles, the built-in ones too."""
    return await roles.list_roles(context)


@router.post("/roles", status_code=CREATED)
async def create_role(context: Writing, new: roles.RoleFields) -> roles.Role:
    """A new role."""
    return await roles.create_role(context, new)


@router.get("/roles/{name}")
async def get_role(context: Reading, name: str) -> roles.Role:
    """A role by its name."""
    return await roles.get_role(context, name)


@router.patch("/roles/{name}")
async def change_role(context: Writing, name: str, changes: roles.RoleChanges) -> roles.Role:
    """Change what is given; reaches every key of the role within a second."""
    return await roles.change_role(context, name, changes)


@router.delete("/roles/{name}", status_code=GONE)
async def remove_role(context: Writing, name: str) -> None:
    """Remove a role that no key has."""
    await roles.remove_role(context, name)
