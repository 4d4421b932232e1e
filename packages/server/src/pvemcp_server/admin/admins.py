"""Administrators: who may sign in to the pages."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from pvemcp_server.admin.context import AdminContext
from pvemcp_server.store.records import AdminRecord


class AdminFields(BaseModel):
    """A new administrator; without a password one is made up and shown once."""

    model_config = ConfigDict(extra="forbid")

    name: str


class Admin(BaseModel):
    """An administrator without anything secret."""

    name: str
    external: bool
    enabled: bool
    must_change: bool
    locked_until: datetime | None
    created: datetime
    last_sign_in: datetime | None


class ShownAdmin(Admin):
    """An administrator with a password to show once; it is changed at the first sign-in."""

    password: str


async def list_admins(context: AdminContext) -> list[Admin]:
    return [_admin(one) for one in await context.services.access.admins.all()]


async def add_admin(context: AdminContext, new: AdminFields) -> ShownAdmin:
    admins = context.services.access.admins
    await admins.create(new.name, None)
    password = await admins.reset_password(new.name)
    await context.changed("admins.add", name=new.name)
    return ShownAdmin(password=password, **_admin(await admins.get(new.name)).model_dump())


async def reset_password(context: AdminContext, name: str) -> ShownAdmin:
    """A new password to show once; the old one and all sessions end."""
    admins = context.services.access.admins
    password = await admins.reset_password(name)
    await context.changed("admins.reset_password", name=name)
    return ShownAdmin(password=password, **_admin(await admins.get(name)).model_dump())


async def set_enabled(context: AdminContext, name: str, *, enabled: bool) -> Admin:
    """The last enabled administrator stays enabled."""
    admins = context.services.access.admins
    await admins.set_enabled(name, enabled=enabled)
    await context.changed("admins.enable" if enabled else "admins.disable", name=name)
    return _admin(await admins.get(name))


async def remove_admin(context: AdminContext, name: str) -> None:
    await context.services.access.admins.remove(name)
    await context.changed("admins.remove", name=name)


def _admin(record: AdminRecord) -> Admin:
    return Admin(
        name=record.name,
        external=record.subject is not None,
        enabled=record.enabled,
        must_change=record.must_change,
        locked_until=record.locked_until,
        created=record.created,
        last_sign_in=record.last_sign_in,
    )
