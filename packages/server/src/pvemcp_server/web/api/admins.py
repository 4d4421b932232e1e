"""Administrators over REST."""

from fastapi import APIRouter

from pvemcp_server.admin import admins
from pvemcp_server.web.api.answers import CREATED, GONE
from pvemcp_server.web.session import Reading, Writing

router = APIRouter(tags=["Administrators"])


@router.get("/admins")
async def list_admins(context: Reading) -> list[admins.Admin]:
    """Who may sign in."""
    return await admins.list_admins(context)


@router.post("/admins", status_code=CREATED)
async def add_admin(context: Writing, new: admins.AdminFields) -> admins.ShownAdmin:
    """A new administrator, with a password to show once."""
    return await admins.add_admin(context, new)


@router.post("/admins/{name}/reset-password")
async def reset_password(context: Writing, name: str) -> admins.ShownAdmin:
    """A new password to show once; the old one and all sessions end."""
    return await admins.reset_password(context, name)


@router.put("/admins/{name}/enabled")
async def set_enabled(context: Writing, name: str, enabled: bool) -> admins.Admin:
    """Let an administrator sign in, or no longer."""
    return await admins.set_enabled(context, name, enabled=enabled)


@router.delete("/admins/{name}", status_code=GONE)
async def remove_admin(context: Writing, name: str) -> None:
    """Remove an administrator; the last one stays."""
    await admins.remove_admin(context, name)
