"""Administrators: the accounts that may sign in to the pages."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from pvemcp_server.access.fields import Argument, Fields
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.store.records import AdminRecord, AdminRole, SessionRecord

subject = Subject(
    "Administrators", {"admin": "Administrators of the admin pages."}, for_tokens=False
)
AdminName = Annotated[str, Field(description="The administrator's name")]
ROLE_TEXT = "owner: everything; key-issuer: API keys; auditor: reads everything, changes nothing"
PASSWORD_TEXT = "One-time password of {name}: {password}"  # noqa: S105 - a template


class AdminFields(Fields):
    """A new administrator."""

    name: Annotated[AdminName, Argument()]
    role: AdminRole = Field(default=AdminRole.OWNER, description=ROLE_TEXT)


class Admin(BaseModel):
    """An administrator without secrets; a user of the issuer who is not listed has no role."""

    name: str
    role: AdminRole | None
    external: bool
    enabled: bool
    must_change: bool
    created: datetime
    last_sign_in: datetime | None


class ShownAdmin(Admin):
    """An administrator with a one-time password: it has to be changed at the first sign-in."""

    password: str


class AdminSession(BaseModel):
    """A session of an administrator; `current` marks the one of this request."""

    created: datetime
    last_seen: datetime
    expires: datetime
    address: str
    agent: str
    current: bool


class EndedSessions(BaseModel):
    """How many sessions have ended."""

    ended: int


@subject.operation(
    "admins.list",
    Route("GET", "/admins"),
    Command(
        "admin list",
        columns=("name", "role", "external", "enabled", "must_change", "last_sign_in"),
    ),
    may=AUDITORS,
)
async def list_admins(context: AdminContext) -> list[Admin]:
    """List the administrators."""
    return [_shown(context, record) for record in await context.services.access.admins.all()]


@subject.operation(
    "admins.add",
    Route("POST", "/admins", created=True),
    Command("admin add", text=PASSWORD_TEXT),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def add_admin(context: AdminContext, new: AdminFields) -> ShownAdmin:
    """Add an administrator; the password is shown once and changed at the first sign-in."""
    admins = context.services.access.admins
    await admins.create(new.name, None, role=new.role)
    password = await admins.reset_password(new.name)
    await context.changed("admins.add", **new.model_dump())
    return ShownAdmin(password=password, **(await _admin(context, new.name)).model_dump())


@subject.operation(
    "admins.set_role",
    Route("PUT", "/admins/{name}/role"),
    Command("admin set-role", text="{name} is {role} now."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def set_role(
    context: AdminContext,
    name: AdminName,
    role: Annotated[AdminRole, Field(description=ROLE_TEXT), Argument()],
) -> Admin:
    """Give an administrator another role; the last owner stays owner."""
    await context.services.access.admins.set_role(name, role)
    await context.changed("admins.set_role", name=name, role=role)
    return await _admin(context, name)


@subject.operation(
    "admins.reset_password",
    Route("POST", "/admins/{name}/reset-password"),
    Command("admin reset-password", text=PASSWORD_TEXT),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def reset_password(context: AdminContext, name: AdminName) -> ShownAdmin:
    """Set a new password, shown once; the old one and all sessions end."""
    admins = context.services.access.admins
    password = await admins.reset_password(name)
    await context.changed("admins.reset_password", name=name)
    return ShownAdmin(password=password, **(await _admin(context, name)).model_dump())


@subject.operation(
    "admins.enable",
    Route("PUT", "/admins/{name}/enabled"),
    Command(
        "admin enable",
        text="Enabled {name}.",
        help="Let an administrator sign in again.",
        fixed={"enabled": True},
    ),
    Command(
        "admin disable",
        text="Disabled {name}.",
        help="Prevent an administrator from signing in, and end their sessions.",
        fixed={"enabled": False},
    ),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def set_enabled(context: AdminContext, name: AdminName, enabled: bool) -> Admin:
    """Allow or prevent the sign-in of an administrator; the last owner stays enabled."""
    admins = context.services.access.admins
    await admins.set_enabled(name, enabled=enabled)
    await context.changed("admins.enable" if enabled else "admins.disable", name=name)
    return await _admin(context, name)


@subject.operation(
    "admins.remove",
    Route("DELETE", "/admins/{name}"),
    Command("admin remove", text="Removed {name}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def remove_admin(context: AdminContext, name: AdminName) -> None:
    """Remove an administrator; the last owner stays."""
    await context.services.access.admins.remove(name)
    await context.changed("admins.remove", name=name)


@subject.operation(
    "admins.sessions",
    Route("GET", "/admins/{name}/sessions"),
    Command("admin sessions", columns=("created", "last_seen", "address", "agent")),
    may=AUDITORS,
    own="name",
)
async def list_sessions(context: AdminContext, name: AdminName) -> list[AdminSession]:
    """List the sessions of an administrator that have not ended, the newest first."""
    access = context.services.access
    sessions = await access.sessions.of(await access.admins.get(name))
    sessions.sort(key=lambda session: session.created, reverse=True)
    return [_session(context, session) for session in sessions]


@subject.operation(
    "admins.end_sessions",
    Route("POST", "/admins/{name}/end-sessions"),
    Command("admin end-sessions", text="Ended {ended} sessions of {name}."),
    may=OWNERS,
    own="name",
)
async def end_sessions(context: AdminContext, name: AdminName) -> EndedSessions:
    """End all sessions of an administrator, except the one of this request."""
    access = context.services.access
    admin = await access.admins.get(name)
    ended = await access.sessions.end_others(admin, context.session_id)
    await context.changed("admins.end_sessions", name=admin.name, ended=ended)
    return EndedSessions(ended=ended)


def _session(context: AdminContext, record: SessionRecord) -> AdminSession:
    return AdminSession(
        created=record.created,
        last_seen=record.last_seen,
        expires=record.expires,
        address=record.address,
        agent=record.agent,
        current=record.digest == context.session_id,
    )


async def _admin(context: AdminContext, name: str) -> Admin:
    return _shown(context, await context.services.access.admins.get(name))


def _shown(context: AdminContext, record: AdminRecord) -> Admin:
    return Admin(
        name=record.name,
        role=context.services.access.admins.role(record),
        external=record.subject is not None,
        enabled=record.enabled,
        must_change=record.must_change,
        created=record.created,
        last_sign_in=record.last_sign_in,
    )
