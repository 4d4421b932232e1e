"""Administrators: the accounts that may sign in to the pages."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from pvemcp_server.access.fields import Argument, Fields
from pvemcp_server.admin.context import AdminContext
from pvemcp_server.admin.operation import Command, Route, Subject
from pvemcp_server.admin.permission import AUDITORS, OWNERS
from pvemcp_server.errors import BadArgument, UnknownName
from pvemcp_server.oauth.rules import end_disallowed
from pvemcp_server.store.records import AdminRecord, AdminRole, SecondFactorRecord, SessionRecord

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
    """An administrator without secrets; a user of the issuer who is not listed has no role.

    `can_sign_in` is false for an account that is disabled, has no way to sign in, or came with an
    OpenID Connect issuer that is not configured any more or does not list it.
    """

    name: str
    role: AdminRole | None
    external: bool
    enabled: bool
    must_change: bool
    can_sign_in: bool
    second_factors: list[str]
    created: datetime
    last_sign_in: datetime | None


class ShownAdmin(Admin):
    """An administrator with a one-time password: it has to be changed at the first sign-in."""

    password: str


class AdminSession(BaseModel):
    """A session of an administrator; `current` marks the one of this request.

    `id` names it to end it; it does not open it.
    """

    id: str
    created: datetime
    last_seen: datetime
    expires: datetime
    address: str
    agent: str
    current: bool


class SecondFactor(BaseModel):
    """A second factor of an administrator, without its secret; `site` is where a passkey works."""

    id: int
    kind: str
    name: str
    site: str | None
    created: datetime
    last_used: datetime | None


class EndedSessions(BaseModel):
    """How many sessions have ended."""

    ended: int


@subject.operation(
    "admins.list",
    Route("GET", "/admins"),
    Command(
        "admin list",
        columns=(
            *("name", "role", "external", "enabled", "must_change", "second_factors"),
            "last_sign_in",
        ),
    ),
    may=AUDITORS,
)
async def list_admins(context: AdminContext) -> list[Admin]:
    """List the administrators."""
    admins = context.services.access.admins
    return [await _shown(context, record) for record in await admins.all()]


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
    admins = context.services.access.admins
    await admins.set_role(name, role)
    ended = await _end_connections(context, await admins.get(name), is_over=False)
    await context.changed("admins.set_role", name=name, role=role, ended=ended)
    return await _admin(context, name)


@subject.operation(
    "admins.reset_password",
    Route("POST", "/admins/{name}/reset-password"),
    Command("admin reset-password", text=PASSWORD_TEXT),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def reset_password(context: AdminContext, name: AdminName) -> ShownAdmin:
    """Set a new password, shown once; the old one and all sessions end.

    The own one is changed on the page Password, which asks for the present one.
    """
    admins = context.services.access.admins
    if context.session_id and name == context.by:
        raise BadArgument("name", "your own password is changed on the page Password.")
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
    ended = await _end_connections(context, await admins.get(name), is_over=not enabled)
    await context.changed("admins.enable" if enabled else "admins.disable", name=name, ended=ended)
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
    admins = context.services.access.admins
    admin = await admins.get(name)
    held = await context.services.store.connections.all(admin_id=admin.id)
    await admins.remove(name)
    for connection in held:
        await context.services.connections.end(connection.id)
    await context.changed("admins.remove", name=name, connections=len(held) or None)


@subject.operation(
    "admins.sessions",
    Route("GET", "/admins/{name}/sessions"),
    Command("admin sessions", columns=("id", "created", "last_seen", "address", "agent")),
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


@subject.operation(
    "admins.end_session",
    Route("DELETE", "/admins/{name}/sessions/{session}"),
    Command("admin end-session", text="Ended session {session} of {name}.", done="ended"),
    may=OWNERS,
    own="name",
)
async def end_session(
    context: AdminContext,
    name: AdminName,
    session: Annotated[str, Field(description="The session's id, as the list of sessions shows")],
) -> None:
    """End one session of an administrator."""
    access = context.services.access
    sessions = await access.sessions.of(await access.admins.get(name))
    record = next((each for each in sessions if _session_id(each) == session), None)
    if record is None:
        raise UnknownName("session", session, map(_session_id, sessions))
    await access.sessions.end(record.digest)
    await context.changed("admins.end_session", name=name, session=session)


@subject.operation(
    "admins.second_factors",
    Route("GET", "/admins/{name}/second-factors"),
    Command("admin second-factors", columns=("kind", "name", "site", "created", "last_used")),
    may=AUDITORS,
    own="name",
)
async def list_second_factors(context: AdminContext, name: AdminName) -> list[SecondFactor]:
    """List the second factors of an administrator, oldest first."""
    access = context.services.access
    factors = await access.second_factors.of(await access.admins.get(name))
    return [_second_factor(factor) for factor in factors]


@subject.operation(
    "admins.remove_second_factors",
    Route("DELETE", "/admins/{name}/second-factors"),
    Command("admin remove-second-factors", text="Removed the second factors of {name}."),
    may=OWNERS,
    needs_recent_sign_in=True,
)
async def remove_second_factors(context: AdminContext, name: AdminName) -> None:
    """Remove all second factors and recovery codes of an administrator, and end their sessions.

    For a lost phone. The own ones need the confirmation of the page Account.
    """
    access = context.services.access
    admin = await access.admins.get(name)
    if context.session_id and admin.name == context.by:
        raise BadArgument("name", "your own second factors are removed on the page Account.")
    removed = await access.second_factors.remove_all(admin)
    await context.changed("admins.remove_second_factors", name=admin.name, removed=removed)


async def _end_connections(
    context: AdminContext, admin: AdminRecord, *, is_over: bool
) -> list[str] | None:
    """End the connections of an administrator, or those that their role does not allow any more."""
    services = context.services
    ended = []
    for record in await services.store.connections.all(admin_id=admin.id):
        key = await services.store.keys.find(id=record.id)
        if is_over and key is not None:
            await services.connections.end(record.id)
            ended.append(key.name)
        elif key is not None:
            ended += await end_disallowed(services.store, services.connections, id=key.id)
    return ended or None


def _second_factor(record: SecondFactorRecord) -> SecondFactor:
    return SecondFactor(
        id=record.id,
        kind=str(record.kind),
        name=record.name,
        site=record.site,
        created=record.created,
        last_used=record.last_used,
    )


def _session_id(record: SessionRecord) -> str:
    return record.digest[:16]


def _session(context: AdminContext, record: SessionRecord) -> AdminSession:
    return AdminSession(
        id=_session_id(record),
        created=record.created,
        last_seen=record.last_seen,
        expires=record.expires,
        address=record.address,
        agent=record.agent,
        current=record.digest == context.session_id,
    )


async def _admin(context: AdminContext, name: str) -> Admin:
    return await _shown(context, await context.services.access.admins.get(name))


async def _shown(context: AdminContext, record: AdminRecord) -> Admin:
    access = context.services.access
    return Admin(
        name=record.name,
        role=access.admins.role(record),
        external=record.subject is not None,
        enabled=record.enabled,
        must_change=record.must_change,
        can_sign_in=access.admins.can_sign_in(record),
        second_factors=[str(factor.kind) for factor in await access.second_factors.of(record)],
        created=record.created,
        last_sign_in=record.last_sign_in,
    )
